"""The Triton scan against the loop, in Triton's interpreter or on a card, and its compilation for cards.

The interpreter is slow: one small case of every kernel runs with the other tests, the rest are exhaustive.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.ssm.scan import triton_backend
from modules.ssm.scan.naive import selective_scan_naive
from modules.ssm.scan.triton_backend import (
    SCAN,
    bidirectional_scan_triton,
    selective_scan_triton,
    triton_refusal,
)
from modules.ssm.triton import refusal as triton_refusals
from modules.ssm.triton.plan import KEEP, PassPlan, ScanPlan, plan
from tests.modules.ssm.conftest import forget_kernels
from tests.modules.ssm.test_scan import NAMES, assert_close, make_inputs, run, uneven

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

compiled = pytest.mark.skipif(
    not triton_refusals.installed() or INTERPRETED,
    reason="Triton is not installed, or only its interpreter is on",
)

WHOLE = ScanPlan(PassPlan(16, 1, 4), PassPlan(16, 1, 16))
CHUNKED = ScanPlan(PassPlan(16, 1, 2, 16), PassPlan(16, 1, 4, 16))
LONG_CHUNKS = ScanPlan(PassPlan(8, 1, 4, 32), PassPlan(8, 1, 8, 32))


@pytest.fixture
def runnable(request):
    """Let the kernels run on this machine: on its card, or else in the interpreter."""
    if DEVICE == "cpu":
        request.getfixturevalue("interpreted")


def to(inputs, dtype=torch.float32):
    return {
        k: None if v is None else v.detach().to(DEVICE, dtype).requires_grad_()
        for k, v in inputs.items()
    }


def on_device(lengths):
    return None if lengths is None else lengths.to(DEVICE)


def with_plan(chosen):
    def scan(*args, **options):
        return selective_scan_triton(*args, **options, plan=chosen)

    return scan


# batch, time, channels, states; lengths uneven, reverse, initial state given
QUICK = ((3, 17, 5, 3), True, True, True, CHUNKED)  # launches every kernel
CASES = [
    ((3, 1, 8, 3), True, False, True, None),
    ((1, 1, 5, 8), False, True, False, CHUNKED),
    QUICK,
    ((2, 17, 20, 1), True, False, True, WHOLE),
    ((1, 35, 3, 2), False, True, True, LONG_CHUNKS),
    ((3, 18, 5, 1), True, False, False, CHUNKED),
    ((1, 3, 70, 16), False, False, False, None),
]


def case_name(case):
    (batch, time, channels, states), *flags, chosen = case
    words = [w for w, on in zip(("ragged", "reverse", "state"), flags, strict=True) if on]
    words.append("chosen" if chosen is None else f"chunk{chosen.forward.chunk}")
    return "-".join([f"B{batch}-L{time}-D{channels}-N{states}", *words])


@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize(
    "case",
    [case if case is QUICK else pytest.param(case, marks=pytest.mark.exhaustive) for case in CASES],
    ids=case_name,
)
def test_equals_naive_in_float64_in_output_state_and_every_gradient(case):
    shape, ragged, reverse, given, chosen = case
    inputs = make_inputs(*shape, given_state=given)
    lengths = on_device(uneven(*shape[:2])) if ragged else None
    expected = run(selective_scan_naive, to(inputs, torch.float64), lengths, reverse)
    assert_close(expected, run(with_plan(chosen), to(inputs), lengths, reverse), 1e-5)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize("softplus", [True, False])
@pytest.mark.parametrize("dropped", [("D", "delta_bias"), ("z",), ("D", "z", "delta_bias")])
def test_equals_naive_without_optional_inputs_and_without_softplus(dropped, softplus):
    inputs = make_inputs(2, 5, 6, 3)
    inputs.update(dict.fromkeys(dropped))
    inputs["delta"] = inputs["delta"].detach().abs()
    inputs["A"] = inputs["A"].detach().mul(0.3).add(0.1)  # some states grow

    def gradients(tensors, scan):
        out, last = scan(**tensors, delta_softplus=softplus)
        given = [t for t in tensors.values() if t is not None]
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device)
        loss = (out * weight.view_as(out)).sum() + last.sum()
        return out, last, *torch.autograd.grad(loss, given)

    expected = gradients(to(inputs, torch.float64), selective_scan_naive)
    got = gradients(to(inputs), with_plan(CHUNKED))
    for a, b in zip(expected, got, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_small_steps_keep_their_relative_precision():
    raw = torch.linspace(-14, 21, 64, dtype=torch.float64)
    one = torch.ones(1, 1, 64, device=DEVICE)
    zero = torch.zeros(64, 1, device=DEVICE)
    B = torch.ones(1, 1, 1, device=DEVICE)
    delta = raw.float().to(DEVICE).view(1, 1, 64)
    _, state = selective_scan_triton(one, delta, zero, B, B, delta_softplus=True)
    exact = torch.nn.functional.softplus(raw.float().double(), threshold=50)
    error = (state.flatten().double().cpu() - exact).abs() / exact
    assert error.max() < 1e-6


def pair_inputs(batch, time, channels, states, dropped=()):
    """Inputs of both directions: pairs, and what they share."""
    first, second = (make_inputs(batch, time, channels, states) for _ in range(2))
    pairs = {
        name: None if name in dropped else (first[name], second[name])
        for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")
    }
    return pairs, None if "z" in dropped else first["z"], first["initial_state"]


def run_pair(scan, pairs, z, initial, lengths, dtype):
    pairs = {
        k: None if v is None else tuple(to({0: v[0], 1: v[1]}, dtype).values())
        for k, v in pairs.items()
    }
    shared = to({"z": z, "initial_state": initial}, dtype)
    out, last = scan(
        pairs["u"],
        pairs["delta"],
        pairs["A"],
        pairs["B"],
        pairs["C"],
        pairs["D"],
        shared["z"],
        pairs["delta_bias"],
        True,
        lengths=lengths,
        initial_state=shared["initial_state"],
    )
    wanted = [t for v in pairs.values() if v is not None for t in v]
    wanted += [t for t in shared.values() if t is not None]
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).view_as(out)
    return out, last, *torch.autograd.grad((out * weight).sum() + (last * last).sum(), wanted)


def two_naive(u, delta, A, B, C, D, z, bias, softplus, *, lengths, initial_state):
    """The definition of the bidirectional scan."""
    outs = []
    for d in (0, 1):
        skip, shift = (None if t is None else t[d] for t in (D, bias))
        outs.append(
            selective_scan_naive(
                *(t[d] for t in (u, delta, A, B, C)),
                skip,
                z,
                shift,
                softplus,
                lengths=lengths,
                reverse=d == 1,
                initial_state=None if d else initial_state,
            )
        )
    return outs[0][0] + outs[1][0], outs[0][1]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize(
    "shape, dropped, ragged, chosen",
    [
        ((3, 17, 5, 1), (), True, CHUNKED),
        ((2, 3, 6, 2), ("z", "D"), False, None),
        ((1, 17, 20, 1), ("delta_bias",), False, CHUNKED),
    ],
)
def test_both_directions_in_one_launch_equal_the_sum_of_two_scans(shape, dropped, ragged, chosen):
    pairs, z, initial = pair_inputs(*shape, dropped)
    lengths = on_device(uneven(*shape[:2])) if ragged else None

    def both(*args, **options):
        return bidirectional_scan_triton(*args, **options, plan=chosen)

    expected = run_pair(two_naive, pairs, z, initial, lengths, torch.float64)
    got = run_pair(both, pairs, z, initial, lengths, torch.float32)
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        scale = max(a.abs().max().item(), 1e-6)
        assert (a - b).abs().max() / scale < 1e-5, f"result {i} of {len(got)}"


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_directions_of_unlike_tensors_are_scanned_one_by_one():
    pairs, z, initial = pair_inputs(1, 5, 4, 2)
    pairs["A"] = (pairs["A"][0], make_inputs(1, 5, 4, 3)["A"])
    for name in ("B", "C"):
        pairs[name] = (pairs[name][0], make_inputs(1, 5, 4, 3)[name])
    expected = run_pair(two_naive, pairs, z, initial, None, torch.float64)
    got = run_pair(bidirectional_scan_triton, pairs, z, initial, None, torch.float32)
    for a, b in zip(expected, got, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_more_states_than_a_program_holds_are_scanned_in_groups(monkeypatch):
    monkeypatch.setattr(triton_backend, "MAX_STATES", 2)
    inputs = make_inputs(2, 6, 4, 5)
    lengths = on_device(torch.tensor([6, 4]))
    poisoned = to(inputs)
    for name in ("u", "z"):
        poisoned[name].detach()[1, 4:] = float("nan")
    expected = run(selective_scan_naive, to(inputs, torch.float64), lengths, True)
    assert_close(expected, run(selective_scan_triton, poisoned, lengths, True), 1e-5)
    pairs, z, initial = pair_inputs(1, 4, 3, 3)
    expected = run_pair(two_naive, pairs, z, initial, None, torch.float64)
    got = run_pair(bidirectional_scan_triton, pairs, z, initial, None, torch.float32)
    for a, b in zip(expected, got, strict=True):
        assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)])
def test_half_precision_tensors_are_rounded_only_on_the_way_in_and_out(dtype, tolerance):
    half = ("u", "delta", "B", "C", "z")
    inputs = to(make_inputs(2, 5, 6, 2))
    inputs.update({k: inputs[k].detach().to(dtype).requires_grad_() for k in half})
    lengths = on_device(torch.tensor([5, 2]))
    got = run(selective_scan_triton, inputs, lengths, False)
    expected = run(selective_scan_triton, to(inputs), lengths, False)
    assert got[0].dtype == got[2].dtype == got[5].dtype == dtype
    assert got[1].dtype == got[4].dtype == torch.float32
    assert_close(expected, [t.float() for t in got], tolerance)
    assert_close(expected[1:2], got[1:2], 1e-6)  # the state is never rounded


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_strided_views_give_what_their_copies_give():
    both = torch.randn(2, 7, 12, device=DEVICE)
    projected = torch.randn(2, 7, 2 + 6, device=DEVICE)
    delta_channel_major = torch.randn(2, 6, 7, device=DEVICE)
    A = -torch.rand(6, 3, device=DEVICE)
    views = {
        "u": both[..., :6],
        "z": both[..., 6:],
        "delta": delta_channel_major.transpose(1, 2),
        "B": projected[..., 2:5],
        "C": projected[..., 5:],
        "A": A.t().contiguous().t(),
    }
    copies = {k: v.contiguous() for k, v in views.items()}
    for a, b in zip(selective_scan_triton(**views), selective_scan_triton(**copies), strict=True):
        assert torch.equal(a, b)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_of_any_content_changes_neither_results_nor_gradients(reverse):
    inputs = to(make_inputs(2, 18, 5, 1))
    lengths = on_device(torch.tensor([18, 6]))
    dirty = {k: v.detach().clone() for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        dirty[name][1, 6:] = float("nan")
    clean_run = run(with_plan(CHUNKED), inputs, lengths, reverse)
    dirty_run = run(with_plan(CHUNKED), to(dirty), lengths, reverse)
    assert all(torch.equal(a, b) for a, b in zip(clean_run, dirty_run, strict=True))
    assert dirty_run[0][1, 6:].abs().max() == 0
    for name, gradient in zip(NAMES, dirty_run[2:], strict=True):
        if name in ("u", "delta", "B", "C", "z"):
            assert gradient[1, 6:].abs().max() == 0


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_nan_in_a_valid_frame_or_in_a_parameter_stays_visible():
    for name in ("u", "delta", "A", "B", "initial_state"):
        inputs = {k: v.detach() for k, v in to(make_inputs(1, 4, 3, 2)).items()}
        inputs[name].flatten()[0] = float("nan")
        out, _ = selective_scan_triton(**inputs, delta_softplus=True)
        assert out.isnan().any(), name


@pytest.mark.gpu  # the interpreter adds in one order always
@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_results_are_the_same_bits_from_run_to_run():
    inputs = to(make_inputs(1, 18, 20, 1))
    runs = [run(with_plan(CHUNKED), inputs, None, False) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_no_frames_give_no_output_and_pass_the_state_and_its_gradient_through():
    inputs = to(make_inputs(2, 0, 4, 3))
    out, state = selective_scan_triton(**inputs, delta_softplus=True)
    assert out.shape == (2, 0, 4) and torch.equal(state, inputs["initial_state"])
    weight = torch.randn_like(state)
    gradient = torch.autograd.grad((state * weight).sum(), inputs["initial_state"])[0]
    assert torch.equal(gradient, weight)


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
def test_operator_passes_opcheck_and_compiles_into_one_graph():
    inputs = to(make_inputs(2, 5, 3, 2))
    z, initial = inputs.pop("z"), inputs.pop("initial_state")
    lengths = on_device(torch.tensor([5, 2]))
    arguments = (*inputs.values(), *[None] * 7, z, initial, lengths, True, False, [], True)
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(SCAN.operator, arguments, test_utils=utilities)

    def model(u, delta, A, B, C, D):
        return selective_scan_triton(2 * u, delta, A, B, C, D, delta_softplus=True)[0].sin()

    given = list(inputs.values())[:6]
    whole = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, got = model(*given), whole(*given)
    assert torch.allclose(expected, got)
    for a, b in zip(
        torch.autograd.grad(expected.sum(), given),
        torch.autograd.grad(got.sum(), given),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_float64_other_devices_and_a_missing_package_are_refused(monkeypatch):
    u, A = torch.zeros(1, 1, 1), torch.zeros(1, 1)
    monkeypatch.setattr(triton_refusals, "installed", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_refusal(u, A) is None
    assert "float32" in triton_refusal(u.double(), A)
    assert "float32" in triton_refusal(u, A, initial_state=A.double())
    assert "meta" in triton_refusal(u.to("meta"), A)
    assert "less than" in triton_refusal(u.expand(1, 2**16, 2**15), A)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert "CUDA only" in triton_refusal(u, A)
    monkeypatch.setattr(triton_refusals, "installed", lambda: False)
    assert "not installed" in triton_refusal(u, A)


def test_float64_is_computed_in_float64_by_the_torch_backend():
    inputs = make_inputs(1, 5, 3, 2)
    expected = selective_scan_naive(**inputs, delta_softplus=True)[0]
    got = selective_scan_triton(**inputs, delta_softplus=True)[0]
    assert torch.allclose(got, expected, atol=1e-12)
    mixed = {**inputs, "u": inputs["u"].float()}
    assert selective_scan_triton(**mixed)[1].dtype == torch.float64


def test_without_triton_the_kernels_can_be_imported_and_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    before = forget_kernels()
    triton_refusals.installed.cache_clear()
    try:
        importlib.import_module("modules.ssm.triton.scan_launch")
        assert "not installed" in triton_refusal(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    finally:
        forget_kernels()
        sys.modules.update(before)
        triton_refusals.installed.cache_clear()


@pytest.mark.exhaustive
def test_the_package_works_in_a_process_without_triton():
    script = """
import sys
sys.modules["triton"] = None
import torch
from modules.ssm import available_backends, selective_scan
x = torch.randn(1, 5, 3)
selective_scan(x, x.abs(), -torch.rand(3, 2), x[..., :2], x[..., :2])
assert "triton" not in available_backends()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr


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
    """Compile for a card that need not be there; return registers and bytes of spilled ones."""
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
    binary = triton.compile(source, target=target, options={"num_warps": 1}).asm["cubin"]
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return binary, tool


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
def test_kernels_compile_without_spilling_registers(file, name, architecture, constants, tmp_path):
    module = pytest.importorskip(f"modules.ssm.triton.{file}")
    binary, tool = compile_kernel(getattr(module, name), constants, architecture)
    path = tmp_path / "kernel.cubin"
    path.write_bytes(binary)
    if not tool.exists():
        pytest.skip("Triton's wheel brings no cuobjdump here")
    usage = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    registers, stack, local = re.search(
        r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage.stdout
    ).groups()
    assert int(registers) <= 255 and int(stack) == int(local) == 0
