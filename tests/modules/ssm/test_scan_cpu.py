"""The compiled scan against the loop in float64, and as an operator of PyTorch."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from modules.ssm import available_backends, selective_scan
from modules.ssm.cpu import refusal
from modules.ssm.scan.cpu import SCAN, cpu_refusal, selective_scan_cpu
from modules.ssm.scan.naive import selective_scan_naive
from tests.support.scan import as_leaves, assert_close, make_inputs, run, uneven

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")

# batch, time, channels, states: one frame, none, chunk borders, odd widths, several slots
SHAPES = [
    (3, 1, 8, 8),
    (2, 0, 9, 4),
    (2, 16, 7, 5),
    (3, 37, 20, 16),
    (2, 50, 130, 24),
    (1, 33, 64, 1),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-L{}-D{}-N{}".format(*s))
def test_equals_naive_in_float64_in_output_state_and_every_gradient(shape):
    for ragged, reverse, given in itertools.product((False, True), repeat=3):
        if not (shape[1] or given):
            continue  # nothing depends on anything
        inputs = as_leaves(make_inputs(*shape, given_state=given))
        lengths = uneven(*shape[:2]) if ragged else None
        if shape[1] == 0:
            _, state = selective_scan_cpu(**inputs, lengths=lengths, reverse=reverse)
            assert torch.equal(state, inputs["initial_state"])
            continue
        expected = run(selective_scan_naive, as_leaves(inputs, torch.float64), lengths, reverse)
        assert_close(expected, run(selective_scan_cpu, inputs, lengths, reverse), 1e-5)


@pytest.mark.parametrize("dropped", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_equals_naive_without_optional_inputs_and_without_softplus(dropped):
    inputs = make_inputs(2, 21, 10, 16, given_state=True)
    inputs.update(dict.fromkeys(dropped))
    inputs["delta"] = inputs["delta"].detach().abs().requires_grad_()
    inputs["A"] = inputs["A"].detach().mul(0.3).add(0.1).requires_grad_()  # some states grow

    def gradients(tensors, scan, softplus):
        out, last = scan(**tensors, delta_softplus=softplus)
        given = [t for t in tensors.values() if t is not None]
        weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        return out, last, *torch.autograd.grad((out * weight).sum() + last.sum(), given)

    for softplus in (True, False):
        expected = gradients(inputs, selective_scan_naive, softplus)
        got = gradients(as_leaves(inputs), selective_scan_cpu, softplus)
        for a, b in zip(expected, got, strict=True):
            assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


def test_decay_is_exact_to_1e_6_from_no_decay_to_underflow():
    steps = torch.cat([-torch.logspace(-6, 1.93, 500), torch.zeros(1)])
    A, n = steps.view(-1, 1), len(steps)
    one, zero = torch.ones(1, 1, n), torch.zeros(1, 1, 1)
    _, state = selective_scan_cpu(0 * one, one, A, zero, zero, initial_state=torch.ones(1, n, 1))
    exact = steps.double().exp()
    assert ((state.flatten() - exact).abs() <= 1e-6 * exact).all()
    assert state.flatten()[-1] == 1


def test_decay_is_exact_to_1e_6_over_the_floats_of_its_range():
    # every 2003rd float from -1e-6 to -86; with one exponent far below, a row takes the other path
    bits = torch.arange(0x358637BD, 0x42AC0000, 2003, dtype=torch.int32)
    exponents = -bits[: len(bits) // 256 * 256].view(torch.float32).view(-1, 256)
    exact = exponents.double().exp()
    for lowest in (None, -95.0):
        A = exponents.clone()
        if lowest:
            A[:, 0] = lowest
        one, zero = torch.ones(1, 1, len(A)), torch.zeros(1, 1, 256)
        initial = torch.ones(1, len(A), 256)
        _, state = selective_scan_cpu(0 * one, one, A, zero, zero, initial_state=initial)
        error = ((state[0] - exact).abs() / exact)[:, 1:]
        assert error.max() <= 1e-6


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)])
def test_half_precision_tensors_are_rounded_only_on_the_way_in_and_out(dtype, tolerance):
    half = ("u", "delta", "B", "C", "z")
    inputs = as_leaves(make_inputs(2, 30, 20, 16))
    inputs.update({k: inputs[k].detach().to(dtype).requires_grad_() for k in half})
    got = run(selective_scan_cpu, inputs, uneven(2, 30), False)
    expected = run(selective_scan_cpu, as_leaves(inputs), uneven(2, 30), False)
    assert got[0].dtype == got[2].dtype == dtype
    assert got[1].dtype == got[4].dtype == torch.float32
    assert_close(expected, got, tolerance)  # the output's gradient is rounded as well
    with torch.autocast("cpu", torch.bfloat16):
        again = run(selective_scan_cpu, inputs, uneven(2, 30), False)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


def test_strided_views_give_what_their_copies_give():
    pair = torch.randn(2, 19, 40)
    projected = torch.randn(2, 19, 3 + 16)
    delta_channel_major = torch.randn(2, 20, 19)
    A = -torch.rand(20, 8)
    views = {
        "u": pair[..., :20],
        "z": pair[..., 20:],
        "delta": delta_channel_major.transpose(1, 2),
        "B": projected[..., 3:11],
        "C": projected[..., 11:],
        "A": A.t().contiguous().t(),
    }
    copies = {k: v.contiguous() for k, v in views.items()}
    for a, b in zip(selective_scan_cpu(**views), selective_scan_cpu(**copies), strict=True):
        assert torch.equal(a, b)


def test_padding_of_any_content_changes_neither_results_nor_gradients():
    inputs = as_leaves(make_inputs(2, 24, 9, 16))
    lengths = torch.tensor([24, 7])
    dirty = {k: None if v is None else v.detach().clone() for k, v in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        dirty[name][1, 7:] = float("nan")
    for reverse in (False, True):
        clean_run = run(selective_scan_cpu, inputs, lengths, reverse)
        dirty_run = run(selective_scan_cpu, as_leaves(dirty), lengths, reverse)
        assert all(torch.equal(a, b) for a, b in zip(clean_run, dirty_run, strict=True))
        assert dirty_run[0][1, 7:].abs().max() == 0


def test_nan_in_a_valid_frame_or_in_a_parameter_stays_visible():
    for name in ("u", "delta", "A", "B", "initial_state"):
        inputs = {k: v.detach().float() for k, v in make_inputs(1, 20, 9, 16).items()}
        inputs[name].flatten()[0] = float("nan")
        out, _ = selective_scan_cpu(**inputs, delta_softplus=True)
        assert out.isnan().any(), name


def test_results_are_the_same_bits_for_any_number_of_threads_and_from_run_to_run():
    inputs = as_leaves(make_inputs(2, 200, 150, 16))
    before, runs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            runs.append(run(selective_scan_cpu, inputs, uneven(2, 200), True))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_a_second_derivative_is_refused():
    inputs = as_leaves(make_inputs(1, 9, 4, 3))
    out = selective_scan_cpu(**inputs)[0]
    (grad,) = torch.autograd.grad(out.square().sum(), inputs["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        grad.sum().backward()
    # also where the gradient depends on the inputs only by the tensors kept for it
    out = selective_scan_cpu(**inputs)[0]
    (grad,) = torch.autograd.grad(out.sum(), inputs["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        (out.sum() + grad.square().sum()).backward()


def test_forward_mode_differentiation_is_refused_not_dropped():
    inputs = {k: v.detach().float() for k, v in make_inputs(1, 9, 4, 3).items()}
    with torch.autograd.forward_ad.dual_level():
        u = torch.autograd.forward_ad.make_dual(inputs.pop("u"), torch.ones(1, 9, 4))
        with pytest.raises(NotImplementedError, match="jvp"):
            selective_scan_cpu(u, **inputs)


def test_views_that_negate_are_read_with_their_sign():
    inputs = {k: v.detach().float() for k, v in make_inputs(1, 9, 4, 3).items()}
    u = inputs.pop("u")
    expected = selective_scan_cpu(-u, **inputs)[0]
    assert torch.equal(selective_scan_cpu(torch._neg_view(u), **inputs)[0], expected)


def test_gradients_that_no_one_asks_for_are_not_returned():
    inputs = {k: v.detach().float() for k, v in make_inputs(1, 9, 4, 3).items()}
    inputs["C"].requires_grad_()
    out, _ = selective_scan_cpu(**inputs)
    assert out.requires_grad
    out.sum().backward()
    assert inputs["C"].grad is not None and inputs["u"].grad is None
    assert (
        torch.autograd.grad(selective_scan_cpu(**inputs)[1].sum(), inputs["C"])[0].abs().max() == 0
    )


def test_operator_passes_opcheck_and_compiles_into_one_graph():
    # at most one chunk: of the states kept for later ones, some are never written nor read
    inputs = list(as_leaves(make_inputs(2, 12, 6, 4)).values())
    torch.library.opcheck(SCAN.operator, (*inputs, torch.tensor([12, 5]), True, False, True))
    inputs = list(as_leaves(make_inputs(2, 40, 6, 4)).values())

    def model(u, delta, A, B, C):
        return selective_scan(2 * u, delta, A, B, C, delta_softplus=True, backend="cpu").sin()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, got = model(*inputs[:5]), compiled(*inputs[:5])
    assert torch.allclose(expected, got)
    for a, b in zip(
        torch.autograd.grad(expected.sum(), inputs[:5]),
        torch.autograd.grad(got.sum(), inputs[:5]),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_export_sees_one_operator_with_a_free_time_axis():
    class Model(torch.nn.Module):
        def forward(self, u, A, B):
            return selective_scan(u, u.abs(), A, B, B, backend="cpu")

    def example(time):
        return torch.randn(2, time, 6), -torch.rand(6, 4), torch.randn(2, time, 4)

    time = torch.export.Dim("time", min=2)
    shapes = ({1: time}, None, {1: time})
    program = torch.export.export(Model(), example(20), dynamic_shapes=shapes)
    calls = [str(n.target) for n in program.graph.nodes if "mamba_speech" in str(n.target)]
    assert calls == ["mamba_speech.selective_scan.default"]
    other = example(53)
    assert torch.equal(program.module()(*other), Model()(*other))


def test_float64_and_other_devices_are_refused_and_auto_takes_the_kernels():
    u, A = torch.zeros(1, 1, 1), torch.zeros(1, 1)
    assert cpu_refusal(u, A) is None and available_backends()[0] == "cpu"
    assert "float32" in cpu_refusal(u.double(), A)
    assert "meta" in cpu_refusal(u.to("meta"), A)
    inputs = make_inputs(1, 5, 3, 2)
    expected = selective_scan_naive(**inputs)[0]
    assert torch.allclose(selective_scan(**inputs), expected, atol=1e-12)
    mixed = {**inputs, "u": inputs["u"].float()}
    assert torch.equal(selective_scan(**mixed), selective_scan_naive(**mixed)[0])


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="peak memory is read from /proc"
)
def test_memory_beyond_results_is_at_most_an_eighth_of_the_state_history():
    # a fresh process, whose peak is no other test's; short calls first, so that code is loaded
    script = """
import pathlib, re, torch
from modules.ssm.scan.cpu import selective_scan_cpu
torch.set_num_threads(2)
def step(time, channels=512, states=16):
    u, delta, z = (torch.rand(1, time, channels).requires_grad_() for _ in range(3))
    A = (-torch.rand(channels, states)).requires_grad_()
    B, C = (torch.rand(1, time, states).requires_grad_() for _ in range(2))
    out, _ = selective_scan_cpu(u, delta, A, B, C, None, z)
    torch.autograd.backward(out, out.detach())
    tensors = (u, delta, z, A, B, C, out, u.grad, delta.grad, z.grad, A.grad, B.grad, C.grad)
    return 4 * u.numel() * states, sum(t.nbytes for t in tensors)
def peak():
    # not getrusage: its peak starts from that of the process that started this one
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status).group(1))
step(64)
before = peak()
history, tensors = step(4000)
print((peak() - before - tensors) / history)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 1 / 8
