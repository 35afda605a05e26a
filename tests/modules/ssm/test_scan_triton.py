"""The Triton scan against the loop, in Triton's interpreter or on a card.

The interpreter is slow: one small case of every kernel runs with the other tests, the rest are exhaustive.
"""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modules.ssm.scan.naive import selective_scan_naive
from modules.ssm.scan.triton_backend import SCAN, selective_scan_triton, triton_refusal
from modules.ssm.triton import refusal as triton_refusals
from tests.support.scan import NAMES, assert_close, make_inputs, run, uneven
from tests.support.triton import (
    CHUNKED,
    DEVICE,
    LONG_CHUNKS,
    WHOLE,
    forget_kernels,
    on_device,
    to,
    with_plan,
)

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


@pytest.mark.exhaustive
@pytest.mark.usefixtures("runnable")
@pytest.mark.parametrize("reverse", [False, True])
def test_counts_outside_the_utterance_are_read_as_its_ends(reverse):
    """On a card no check looks at them, and no kernel may touch memory outside."""
    inputs = to(make_inputs(3, 9, 5, 4))
    lying, true = torch.tensor([1000, -1000, 10]), torch.tensor([9, 0, 9])
    wanted, got = (
        run(selective_scan_triton, inputs, on_device(lengths), reverse) for lengths in (true, lying)
    )
    assert_close(wanted, got, 1e-6)
