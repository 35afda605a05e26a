"""The selective scan: every backend against the loop, and the contract that all of them keep."""

import itertools
import logging
import subprocess
import sys
from types import ModuleType

import pytest
import torch

from modules.ssm import (
    available_backends,
    backends,
    selective_scan,
    selective_scan_fn,
    selective_scan_ref,
    use_backend,
)
from modules.ssm.scan import mamba_ssm_backend
from modules.ssm.scan.chunked import selective_scan_chunked
from modules.ssm.scan.mamba_ssm_backend import scan_channel_major
from modules.ssm.scan.naive import selective_scan_naive
from tests.support.golden import Golden
from tests.support.scan import assert_close, make_inputs, run, uneven

SHAPES = [(2, 1, 3, 5), (3, 37, 5, 16), (1, 70, 8, 1), (2, 33, 6, 24), (4, 16, 1, 8)]


@pytest.mark.parametrize("frames, rows", [(32, 1), (16, 4), (7, 1), (13, 3), (200, 8)])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-L{}-D{}-N{}".format(*s))
def test_torch_backend_equals_naive_in_output_state_and_every_gradient(shape, frames, rows):
    def chunked(*args, **options):
        return selective_scan_chunked(*args, **options, frames=frames, rows=rows)

    for ragged, reverse, given in itertools.product((False, True), repeat=3):
        inputs = make_inputs(*shape, given_state=given)
        lengths = uneven(*shape[:2]) if ragged else None
        expected = run(selective_scan_naive, inputs, lengths, reverse)
        assert_close(expected, run(chunked, inputs, lengths, reverse), 1e-10)


@pytest.mark.parametrize("missing", ["D", "z", "delta_bias"])
def test_torch_backend_equals_naive_without_optional_inputs(missing):
    inputs = make_inputs(2, 40, 5, 8, given_state=False) | {missing: None}
    expected = run(selective_scan_naive, inputs, None, False)
    assert_close(expected, run(selective_scan_chunked, inputs, None, False), 1e-10)


def test_gradcheck_of_the_loop_and_of_the_torch_backend():
    inputs = make_inputs(2, 5, 2, 3)
    for scan in (selective_scan_naive, selective_scan_chunked):
        for reverse in (False, True):

            def call(u, delta, A, B, C, D, z, bias, h, scan=scan, reverse=reverse):
                lengths = torch.tensor([5, 3])
                options = {"lengths": lengths, "reverse": reverse, "initial_state": h}
                return scan(u, delta, A, B, C, D, z, bias, True, **options)

            assert torch.autograd.gradcheck(call, tuple(inputs.values()))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", available_backends())
def test_padding_of_any_content_changes_nothing_and_gets_no_gradient(backend, reverse):
    dtype = torch.float32
    inputs = make_inputs(2, 12, 4, 8, dtype, given_state=False)
    poisoned = {k: None if v is None else v.detach().clone() for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        poisoned[name][1, 7:] = float("nan")
    poisoned = {k: None if v is None else v.requires_grad_() for k, v in poisoned.items()}
    lengths = torch.tensor([12, 7])

    def scan(*args, **options):
        return selective_scan(*args, **options, return_last_state=True, backend=backend)

    clean, dirty = run(scan, inputs, lengths, reverse), run(scan, poisoned, lengths, reverse)
    assert_close(clean, dirty, 1e-6)
    assert dirty[0][1, 7:].abs().max() == 0
    alone = {k: None if v is None else v for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        alone[name] = inputs[name][1:, :7]
    single = run(scan, alone, None, reverse)
    assert_close((single[0][0], single[1][0]), (dirty[0][1, :7], dirty[1][1]), 1e-5)
    for gradient in (dirty[2], dirty[3], dirty[5], dirty[6], dirty[8]):
        assert gradient[1, 7:].abs().max() == 0


@pytest.mark.parametrize("backend", available_backends())
def test_reverse_is_the_flip_of_forward_on_flipped_frames(backend):
    inputs = make_inputs(2, 19, 4, 8, torch.float32)
    timed = ("u", "delta", "B", "C", "z")
    flipped = {k: v.flip(1) if k in timed else v for k, v in inputs.items()}
    options = {"delta_softplus": True, "return_last_state": True, "backend": backend}
    backward, state = selective_scan(**inputs, reverse=True, **options)
    forward, flipped_state = selective_scan(**flipped, **options)
    assert_close((forward.flip(1), flipped_state), (backward, state), 1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", available_backends())
def test_chunks_with_carried_state_equal_the_whole(backend, reverse):
    inputs = make_inputs(2, 30, 4, 8, torch.float32)
    options = {"delta_softplus": True, "reverse": reverse, "return_last_state": True}
    whole, last = selective_scan(**inputs, **options, backend=backend)
    state, pieces = inputs["initial_state"], {}
    cuts = [(0, 11), (11, 12), (12, 30)]
    for start, stop in reversed(cuts) if reverse else cuts:
        piece = {
            k: v[:, start:stop] if k in ("u", "delta", "B", "C", "z") else v
            for k, v in inputs.items()
        }
        pieces[start], state = selective_scan(
            **piece | {"initial_state": state}, **options, backend=backend
        )
    joined = torch.cat([pieces[start] for start, _ in cuts], 1)
    assert_close((whole, last), (joined, state), 1e-5)


@pytest.mark.parametrize("backend", available_backends())
def test_output_ignores_later_frames(backend):
    inputs = make_inputs(1, 20, 4, 8, torch.float32)
    changed = {k: v.detach().clone() for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][:, 12:] += 1
    a = selective_scan(**inputs, delta_softplus=True, backend=backend)
    b = selective_scan(**changed, delta_softplus=True, backend=backend)
    assert torch.equal(a[:, :12], b[:, :12]) and not torch.equal(a[:, 12:], b[:, 12:])


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("backend", available_backends())
def test_half_precision_inputs_keep_a_float32_state(backend, dtype, tolerance):
    inputs = make_inputs(2, 50, 4, 8, torch.float32, given_state=False)
    half = {
        k: v.to(dtype) if v is not None and k in ("u", "delta", "B", "C", "z") else v
        for k, v in inputs.items()
    }
    rounded = {k: None if v is None else v.float() for k, v in half.items()}
    options = {"delta_softplus": True, "return_last_state": True, "backend": backend}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = selective_scan(**half, **options)
    exact, exact_state = selective_scan(**rounded, **options)
    assert out.dtype == dtype and state.dtype == torch.float32
    assert_close((exact, exact_state), (out.float(), state), tolerance)
    assert (state - exact_state).abs().max() < 1e-4 * exact_state.abs().max()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"B": torch.zeros(2, 9, 8)}, "B must have shape"),
        ({"A": torch.zeros(4, 8, dtype=torch.complex64)}, "complex"),
        ({"lengths": torch.tensor([0.5, 1.0])}, "integer tensor of frame counts"),
        ({"lengths": torch.tensor([11, 3])}, r"0\.\.10"),
        ({"lengths": torch.tensor([3])}, "one a batch item"),
        ({"backend": "cuda"}, "unknown backend"),
        ({"backend": "mamba_ssm"}, "mamba_ssm runs on CUDA only"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    inputs = make_inputs(2, 10, 4, 8, torch.float32, given_state=False)
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs | change)


def test_auto_says_once_which_backend_it_takes(caplog):
    backends.say_once.cache_clear()
    inputs = make_inputs(1, 3, 2, 2, torch.float32, given_state=False)
    with caplog.at_level(logging.INFO, logger="modules.ssm.backends"):
        for _ in range(3):
            selective_scan(**inputs)
    assert [r.getMessage() for r in caplog.records if "backend" in r.getMessage()] == [
        f"selective scan on cpu: backend {available_backends()[0]}"
    ]


def test_use_backend_holds_inside_the_block_only():
    inputs = make_inputs(1, 3, 2, 2, torch.float32, given_state=False)
    with use_backend("mamba_ssm"), pytest.raises(ValueError, match="CUDA only"):
        selective_scan(**inputs)
    selective_scan(**inputs)


@pytest.mark.parametrize("variant", ["full", "no_z", "bare", "len1", "long"])
@pytest.mark.parametrize("scan", ["ref", *available_backends()])
def test_golden_operation(variant, scan):
    with Golden("op_selective_scan", f"{variant}/") as golden:
        order = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
        inputs = {
            k: golden[f"input/{k}"].clone().requires_grad_()
            for k in order
            if f"input/{k}" in golden.entries
        }
        softplus = variant != "bare"
        if scan == "ref":
            out, last = selective_scan_ref(
                **inputs, delta_softplus=softplus, return_last_state=True
            )
        else:
            with use_backend(scan):
                out, last = selective_scan_fn(
                    **inputs, delta_softplus=softplus, return_last_state=True
                )
        golden.compare("output/out", out)
        if "output/last_state" in golden.entries:
            golden.compare("output/last_state", last)
        (out * golden["input/w"]).sum().backward()
        for name, tensor in inputs.items():
            golden.compare(f"grad/{name}", tensor.grad, 2e-5)


@pytest.mark.parametrize("b_shape", ["constant", "shared", "grouped"])
@pytest.mark.parametrize("c_shape", ["constant", "shared", "grouped"])
def test_channel_major_function_takes_constant_and_grouped_b_and_c(b_shape, c_shape):
    shapes = {"constant": (6, 5), "shared": (2, 5, 9), "grouped": (2, 3, 5, 9)}
    B = torch.randn(shapes[b_shape], dtype=torch.float64, requires_grad=True)
    C = torch.randn(shapes[c_shape], dtype=torch.float64, requires_grad=True)
    u, delta, z = (torch.randn(2, 6, 9, dtype=torch.float64) for _ in range(3))
    A, D = -torch.rand(6, 5, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    arguments = (u, delta, A, B, C, D, z, None, True, True)
    out, last = selective_scan_fn(*arguments)
    expected, expected_last = selective_scan_ref(*arguments)
    assert_close((expected, expected_last), (out, last), 1e-10)
    h, y = torch.zeros(2, 6, 5, dtype=torch.float64), []
    dt = torch.nn.functional.softplus(delta)
    for t in range(9):  # the definition, channel by channel
        b, c = (
            x
            if x.dim() == 2
            else x[:, :, t].unsqueeze(1)
            if x.dim() == 3
            else x[..., t].repeat_interleave(2, 1)
            for x in (B, C)
        )
        h = torch.exp(dt[..., t, None] * A) * h + (dt * u)[..., t, None] * b
        y.append((h * c).sum(-1))
    defined = (torch.stack(y, -1) + D[:, None] * u) * torch.nn.functional.silu(z)
    assert_close((defined,), (out,), 1e-10)
    grads = [torch.autograd.grad(o.square().sum(), (B, C)) for o in (out, expected)]
    assert_close(grads[0], grads[1], 1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_composition_around_a_kernel_without_lengths_or_direction_is_exact(ragged, reverse):
    """What the mamba_ssm backend does with that package's kernel, on a function of its signature."""

    def through(*args, **options):
        return scan_channel_major(selective_scan_ref, *args, **options)

    inputs = make_inputs(3, 11, 4, 8, torch.float32, given_state=False)
    lengths = uneven(3, 11) if ragged else None
    expected = run(selective_scan_naive, inputs, lengths, reverse)
    assert_close(expected, run(through, inputs, lengths, reverse), 1e-5)
    with pytest.raises(ValueError, match="no initial state"):
        through(**make_inputs(3, 11, 4, 8, torch.float32))


@pytest.mark.parametrize("softplus", [True, False])
def test_composition_around_a_kernel_keeps_the_step_in_float32(softplus):
    inputs = make_inputs(2, 200, 4, 8, torch.float32, given_state=False)
    half = {
        k: v.detach().bfloat16() if k in ("u", "delta", "B", "C", "z") else v
        for k, v in inputs.items()
    }
    if not softplus:
        half["delta"], half["delta_bias"] = half["delta"].abs() * 0.1, half["delta_bias"].abs()
    lengths = torch.tensor([200, 150])
    options = {"delta_softplus": softplus, "lengths": lengths}
    _, expected = selective_scan_naive(**half, **options)
    _, state = scan_channel_major(selective_scan_ref, **half, **options)
    assert (state - expected).abs().max() < 1e-5 * expected.abs().max()


MEMORY = """
import torch
torch.set_num_threads(2)
from modules.ssm import selective_scan
B, L, D, N = 1, 4000, 128, 16
def make(*shape): return torch.randn(*shape).requires_grad_()
tensors = [make(B, L, D), make(B, L, D), (-torch.rand(D, N)).requires_grad_(), make(B, L, N),
           make(B, L, N)]
warm = [t[:1, :64].detach().requires_grad_() if t.dim() == 3 else t for t in tensors]
warm_out = selective_scan(*warm, delta_softplus=True, backend="torch")
# torch imports a good deal at the first gradient that is given
warm_out.backward(torch.ones_like(warm_out))
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
before = peak()
out = selective_scan(*tensors, delta_softplus=True, backend="torch")
out.backward(torch.ones_like(out))
kept = sum(t.numel() * 4 for t in [out, out, *tensors])  # the output, its gradient, the inputs'
print((peak() - before - kept) / (B * L * D * N * 4))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak memory")
def test_torch_backend_needs_a_fraction_of_the_state_history():
    """Forward and backward at 4,000 frames in a fresh process, beyond outputs and gradients."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 0.25


def test_mamba_ssm_refuses_a_gradient_of_the_last_state_which_its_kernel_drops(monkeypatch):
    package = ModuleType("mamba_ssm.ops.selective_scan_interface")
    package.selective_scan_fn = selective_scan_ref
    for name in ("mamba_ssm", "mamba_ssm.ops", package.__name__):
        monkeypatch.setitem(sys.modules, name, package)
    mamba_ssm_backend._kernel.cache_clear()
    try:
        inputs = make_inputs(1, 6, 2, 3, torch.float32, given_state=False)
        out, last = mamba_ssm_backend.selective_scan_mamba_ssm(*list(inputs.values())[:-1], True)
        out.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="no gradient through the last state"):
            last.sum().backward()
    finally:
        mamba_ssm_backend._kernel.cache_clear()
