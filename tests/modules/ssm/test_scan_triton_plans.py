"""How the Triton scan cuts its work, and that its kernels compile for cards without spilling registers."""

import os

import pytest

from modules.ssm.triton import refusal as triton_refusals
from modules.ssm.triton.plan import KEEP, PassPlan, ScanPlan, plan
from tests.support.triton import resources

compiled = pytest.mark.skipif(
    not triton_refusals.installed() or os.environ.get("TRITON_INTERPRET") == "1",
    reason="Triton is not installed, or only its interpreter is on",
)


def test_plans_cut_time_only_where_channels_do_not_fill_the_card():
    recognition = plan(16, 500, 1024, 16, directions=2)
    assert recognition.forward.chunks(500) == (512, 1)
    separation = plan(1, 8000, 512, 16, directions=2)
    assert separation.forward.chunks(8000)[1] > 16 and separation.backward.chunks(8000)[1] > 32
    for chosen in (recognition, separation):
        assert chosen.forward.chunk % KEEP == chosen.backward.chunk % KEEP == 0
        assert ScanPlan.of(chosen.numbers()) == chosen


@pytest.mark.parametrize(
    "numbers, message",
    [((48, 1, 4), "block"), ((32, 1, 32), "at most"), ((32, 1, 4, 24), "multiple of")],
)
def test_a_plan_that_no_kernel_fits_is_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        PassPlan(*numbers)


@pytest.mark.parametrize("shape", [(16, 500, 1024, 16), (1, 8000, 512, 16)])
def test_memory_beyond_results_is_at_most_an_eighth_of_the_state_history(shape):
    """Counted from the plan: what the passes allocate for both directions, in numbers of 4 bytes."""
    _, time, channels, states = shape
    chosen = plan(*shape, directions=2).backward
    chunks = chosen.chunks(time)[1]
    steps = -(-time // KEEP) * KEEP
    kept = steps // KEEP * states * channels
    sums = 2 * -(-channels // chosen.block) * steps * states + 2 * steps * states
    carried = chunks * (KEEP // chosen.frames - 1 + 2) * states * channels
    assert kept + sums + carried <= time * channels * states / 8


def compile_kernel(kernel, constants, architecture, half="*bf16"):
    """Compile for a card that need not be there; return the binary."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    rows = {"u0", "u1", "delta0", "delta1", "z", "grad_out", "out", "grad_u", "grad_delta"}
    rows |= {"grad_z", "B0", "B1", "C0", "C1", "grad_B", "grad_C"}
    pairs = {"pairs", "sums_pairs", "lengths"}
    floats = {"A", "D", "bias", "starts", "last", "saved", "carries", "scratch", "sums_A", "sums_D"}
    floats |= {"sums_bias", "values", "sums", "initial", "ends"}
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        aligned = True
        if name in constants:
            signature[name] = "constexpr"
            continue
        if name in rows:
            signature[name] = half
        elif name in pairs or (name == "sums" and "parts" in kernel.arg_names):
            signature[name] = "*i64"
        elif name in floats:
            signature[name] = "*fp32"
        else:
            signature[name] = "i32"
            aligned = name not in ("batch", "time", "chunks", "parts")
        if aligned:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel,
        signature=signature,
        constexprs={(kernel.arg_names.index(k),): v for k, v in constants.items()},
        attrs=attributes,
    )
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": 1}).asm["cubin"]


DIRECTIONS = {"DIRECTIONS": 2, "REVERSE": False}
RECOGNITION = plan(16, 500, 1024, 16, directions=2)


def options(step, **more):
    sizes = {"N": 16, "BLOCK": step.block, "FRAMES": step.frames, "SOFTPLUS": True}
    return DIRECTIONS | sizes | more


VARIANTS = [
    ("scan_forward", "scan_forward", 90, options(RECOGNITION.forward, KEEP=KEEP, initial=None)),
    ("scan_forward", "scan_forward", 80, options(RECOGNITION.forward, KEEP=KEEP, starts=None)),
    ("scan_backward", "scan_backward", 90, options(RECOGNITION.backward, KEEP=KEEP)),
    ("scan_backward", "scan_backward", 80, options(RECOGNITION.backward, KEEP=KEEP)),
    ("scan_chunks", "chunk_states", 90, options(RECOGNITION.forward)),
    ("scan_chunks", "chunk_gradients", 90, options(RECOGNITION.backward)),
    ("scan_chunks", "chunk_starts", 90, {"N": 16, "BLOCK": 128, "LAST_FIRST": True}),
    ("scan_pairs", "pack_pairs", 90, DIRECTIONS | {"N": 16, "WIDTH": 16, "ROWS": 32}),
    ("scan_pairs", "unpack_pairs", 90, DIRECTIONS | {"N": 16, "WIDTH": 16, "ROWS": 32}),
]


@compiled
@pytest.mark.exhaustive
@pytest.mark.parametrize("file, name, architecture, constants", VARIANTS)
def test_kernels_compile_without_spilling_registers(file, name, architecture, constants):
    module = pytest.importorskip(f"modules.ssm.triton.{file}")
    used = resources(compile_kernel(getattr(module, name), constants, architecture))
    assert used["registers"] <= 255 and used["stack"] == used["local"] == 0
