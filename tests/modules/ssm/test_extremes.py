"""Steps, decays and inputs at their extremes, and tensors with next to nothing in them.

Every backend gives finite results and gradients that agree with the loop in float64, or one clear error.
"""

import pytest
import torch

from modules.ssm import available_backends, bidirectional_scan, selective_scan
from modules.ssm.scan.naive import selective_scan_naive
from tests.support.scan import as_leaves, assert_close, make_inputs, run

BACKENDS = pytest.mark.parametrize("backend", available_backends())
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])

# what each case makes of ordinary inputs; softplus follows
EXTREMES = {
    "huge steps": {"delta": lambda x: x.abs() * 1e4},
    "huge steps where the state hardly decays": {
        "delta": lambda x: x.abs() * 1e4,
        "A": lambda x: x * 1e-6,
    },
    "steps of nearly 0": {"delta": lambda x: x - 60},
    "steps that vanish in float32": {"delta": lambda x: x - 200},
    "steps from 0 to huge": {"delta": lambda x: x * 1e3},
    "A of 0": {"A": lambda x: x * 0},
    "A near 0": {"A": lambda x: x * 1e-8},
    "A of -1e4": {"A": lambda x: x * 0 - 1e4},
    "A of -1e8": {"A": lambda x: x * 0 - 1e8},
    "A from 0 to -1e8": {"A": lambda x: -torch.logspace(-9, 8, x.numel()).view_as(x)},
    "A slightly positive": {"A": lambda x: x * 0 + 1e-2},
    "inputs of 1e4": {"u": lambda x: x * 1e4},
    "everything large": {k: lambda x: x * 1e3 for k in ("u", "B", "C", "D", "initial_state")},
    "gates far out": {"z": lambda x: x * 1e4},
    "inputs of 1e-30": {"u": lambda x: x * 1e-30},
    "a state that fades into denormals": {
        "A": lambda x: x * 0 - 3,
        "u": lambda x: x * 0,
        "initial_state": lambda x: x * 1e-30,
    },
}


def changed(inputs, changes):
    """The inputs with some of them changed, as leaves in float32."""
    tensors = {k: v.detach().float() for k, v in inputs.items()}
    tensors.update({k: change(tensors[k]) for k, change in changes.items()})
    return {k: v.detach().requires_grad_() for k, v in tensors.items()}


def through(backend):
    def scan(*args, **options):
        return selective_scan(*args, **options, return_last_state=True, backend=backend)

    return scan


@DIRECTIONS
@BACKENDS
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extremes_are_finite_and_right_in_output_state_and_every_gradient(
    extreme, backend, reverse
):
    inputs = changed(make_inputs(2, 50, 9, 16), EXTREMES[extreme])
    lengths = torch.tensor([50, 31])
    got = run(through(backend), inputs, lengths, reverse)
    assert all(x.isfinite().all() for x in got)
    assert_close(
        run(selective_scan_naive, as_leaves(inputs, torch.float64), lengths, reverse), got, 1e-4
    )


@BACKENDS
def test_both_directions_at_once_are_finite_and_right_at_every_extreme(backend):
    for extreme, changes in EXTREMES.items():
        forward, backward = (changed(make_inputs(1, 20, 9, 8), changes) for _ in range(2))
        names = ("u", "delta", "A", "B", "C", "D", "delta_bias")
        pairs = {name: (forward[name], backward[name]) for name in names}
        options = {"delta_softplus": True}
        out = bidirectional_scan(**pairs, z=forward["z"], backend=backend, **options)
        expected = 0
        for tensors, reverse in ((forward, False), (backward, True)):
            tensors = as_leaves({**tensors, "z": forward["z"]}, torch.float64) | {
                "initial_state": None
            }
            expected = expected + selective_scan_naive(**tensors, reverse=reverse, **options)[0]
        error = (out - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
        assert out.isfinite().all() and error < 1e-4, extreme


@DIRECTIONS
@BACKENDS
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 2, 1, 1), (3, 17, 1, 1), (1, 1, 5, 3)], ids=str
)
def test_one_frame_channel_or_state_is_enough(shape, backend, reverse):
    inputs = changed(make_inputs(*shape), {})
    got = run(through(backend), inputs, None, reverse)
    assert_close(
        run(selective_scan_naive, as_leaves(inputs, torch.float64), None, reverse), got, 1e-5
    )


@DIRECTIONS
@BACKENDS
def test_a_batch_of_padding_gives_zeros_and_hands_its_state_on(backend, reverse):
    inputs = changed(make_inputs(3, 8, 5, 4), {})
    for name in ("u", "delta", "B", "C", "z"):
        inputs[name].data.fill_(float("nan"))
    out, last, *gradients = run(through(backend), inputs, torch.zeros(3, dtype=torch.long), reverse)
    assert out.abs().max() == 0 and torch.equal(last, inputs["initial_state"])
    *others, initial = gradients
    assert all(g.abs().max() == 0 for g in others)
    assert torch.equal(initial, 2 * last)  # of the loss, a sum of squares


@DIRECTIONS
@BACKENDS
@pytest.mark.parametrize("batch, time", [(2, 0), (0, 7), (0, 0)])
def test_nothing_in_gives_nothing_out_and_the_given_state(batch, time, backend, reverse):
    inputs = changed(make_inputs(batch, time, 4, 8), {})
    out, last, *gradients = run_if_it_depends(through(backend), inputs, reverse)
    assert out.shape == (batch, time, 4) and torch.equal(last, inputs["initial_state"])
    assert all((g == 0).all() for g in gradients)


def run_if_it_depends(scan, inputs, reverse):
    """Output, last state, and the gradients that reach the inputs other than the initial state."""
    out, last = scan(**inputs, delta_softplus=True, reverse=reverse)
    wanted = [v for k, v in inputs.items() if k != "initial_state"]
    gradients = torch.autograd.grad(out.sum() + last.sum(), wanted, allow_unused=True)
    return out, last, *(g for g in gradients if g is not None)


@BACKENDS
def test_one_number_spread_over_a_whole_tensor_is_read_like_a_copy_of_it(backend):
    inputs = {k: v.detach().float() for k, v in make_inputs(2, 20, 9, 4).items()}
    for name in ("u", "delta", "z", "B"):
        inputs[name] = inputs[name][:1, :1].expand_as(inputs[name])
    inputs["C"] = inputs["C"][..., :1].expand_as(inputs["C"])
    inputs["A"] = inputs["A"][:, :1].expand_as(inputs["A"])
    copies = {k: v.contiguous() for k, v in inputs.items()}
    got, expected = (through(backend)(**t, delta_softplus=True) for t in (inputs, copies))
    assert_close(expected, got, 1e-6)


@DIRECTIONS
@BACKENDS
def test_nan_of_one_utterance_is_seen_there_and_nowhere_else(backend, reverse):
    inputs = changed(make_inputs(2, 20, 9, 4), {})
    inputs["u"].data[0, 10] = float("nan")
    out, last = through(backend)(**inputs, delta_softplus=True, reverse=reverse)
    behind = slice(None, 11) if reverse else slice(10, None)
    before = slice(11, None) if reverse else slice(None, 10)
    assert out[0, behind].isnan().all() and last[0].isnan().all()
    assert out[0, before].isfinite().all() and out[1].isfinite().all() and last[1].isfinite().all()


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_a_large_output_once_and_keeps_the_state(backend, dtype):
    """States beyond float16's range: the output may be infinite there, the state is not."""
    inputs = changed(make_inputs(1, 30, 9, 4), {"A": lambda x: x * 0, "B": lambda x: x.abs() * 1e4})
    inputs = {k: v.detach() for k, v in inputs.items()}
    half = {k: v.to(dtype) if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    half["u"] = half["u"].abs()
    options = {"delta_softplus": True, "return_last_state": True}
    out, last = selective_scan(**half, **options, backend=backend)
    expected, expected_last = selective_scan_naive(
        **{k: v.double() for k, v in half.items()}, delta_softplus=True
    )
    assert last.dtype == torch.float32 and last.max() > 65504
    assert (last - expected_last).abs().max() < 1e-5 * expected_last.abs().max()
    rounded = expected.to(dtype)
    assert not out.isnan().any() and torch.equal(out.isinf(), rounded.isinf())
    within = rounded.isfinite()
    tolerance = 1e-2 * rounded[within].abs().float() + 1e-5 * expected[within].abs().max()
    assert ((out[within].float() - rounded[within].float()).abs() <= tolerance).all()
