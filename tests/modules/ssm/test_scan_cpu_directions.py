"""The compiled scan of both directions at once, and of time in segments, against plain calls."""

import itertools

import pytest
import torch

from modules.ssm.cpu import refusal
from modules.ssm.cpu.scan_calls import _backward_plan, _forward_plan
from modules.ssm.scan.cpu import BIDIRECTIONAL_SCAN, bidirectional_scan_cpu, selective_scan_cpu
from tests.support.scan import as_leaves, assert_close, make_inputs, run, uneven

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")

# batch, time, channels, states: one frame, chunk borders, odd widths, several slots
SHAPES = [
    (3, 1, 8, 8),
    (2, 16, 7, 5),
    (3, 37, 20, 16),
    (2, 50, 130, 24),
    (1, 33, 64, 1),
]


def two_directions(batch, time, channels, states, given=True):
    """Leaves of both directions as the bidirectional scan takes them, and the forward one's state."""
    one, other = (
        as_leaves(make_inputs(batch, time, channels, states, given_state=given)) for _ in range(2)
    )
    pairs = {k: (one[k], other[k]) for k in one if k not in ("z", "initial_state")}
    return {**pairs, "z": one["z"]}, one["initial_state"]


def composed(pairs, initial_state, lengths):
    ahead, back = ({k: v if k == "z" else v[i] for k, v in pairs.items()} for i in (0, 1))
    options = {"delta_softplus": True, "lengths": lengths}
    one, last = selective_scan_cpu(**ahead, initial_state=initial_state, **options)
    return one + selective_scan_cpu(**back, reverse=True, **options)[0], last


def at_once(pairs, initial_state, lengths):
    options = {"delta_softplus": True, "lengths": lengths, "initial_state": initial_state}
    return bidirectional_scan_cpu(**pairs, **options)


def run_both(scan, pairs, initial_state, lengths):
    """Output, last state, and the gradient of every leaf."""
    out, last = scan(pairs, initial_state, lengths)
    leaves = [t for v in pairs.values() for t in (v if isinstance(v, tuple) else (v,))]
    leaves += [] if initial_state is None else [initial_state]
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    loss = (out.float() * weight).sum() + last.square().sum()
    return out, last, *torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_directions_at_once_equal_two_calls_in_output_state_and_every_gradient(shape):
    for ragged, given in itertools.product((False, True), repeat=2):
        pairs, initial = two_directions(*shape, given=given)
        lengths = uneven(*shape[:2]) if ragged else None
        expected = run_both(composed, pairs, initial, lengths)
        assert_close(expected, run_both(at_once, pairs, initial, lengths), 1e-6)


def test_both_directions_at_once_without_optional_inputs_and_in_float64():
    pairs, _ = two_directions(2, 21, 10, 5)
    bare = {k: pairs[k] for k in ("u", "delta", "A", "B", "C")}
    bare["delta"] = tuple(t.abs() for t in bare["delta"])
    got, last = bidirectional_scan_cpu(**bare)
    one, other = ({k: v[i] for k, v in bare.items()} for i in (0, 1))
    assert torch.equal(last, selective_scan_cpu(**one)[1])
    expected = selective_scan_cpu(**one)[0] + selective_scan_cpu(**other, reverse=True)[0]
    assert torch.allclose(got, expected, atol=1e-6)
    wide = {k: tuple(t.double() for t in v) for k, v in bare.items()}
    assert torch.allclose(bidirectional_scan_cpu(**wide)[0].float(), expected, atol=1e-4)


def test_the_sum_of_both_directions_is_rounded_once_to_half_precision():
    for dtype in (torch.bfloat16, torch.float16):
        pairs, _ = two_directions(2, 30, 20, 16)
        half = {
            k: v.detach().to(dtype)
            if k == "z"
            else tuple(t.detach().to(dtype if k in "u delta B C" else t.dtype) for t in v)
            for k, v in pairs.items()
        }
        wide = {k: v.float() if k == "z" else tuple(t.float() for t in v) for k, v in half.items()}
        lengths = uneven(2, 30)
        assert torch.equal(
            at_once(half, None, lengths)[0], at_once(wide, None, lengths)[0].to(dtype)
        )
        leaves = half["z"].requires_grad_(), wide["z"].requires_grad_()
        ours, exact = (
            torch.autograd.grad(at_once(v, None, lengths)[0].float().sum(), z)[0]
            for v, z in zip((half, wide), leaves, strict=True)
        )
        assert torch.equal(ours, exact.to(dtype))


def test_time_in_segments_gives_what_whole_utterances_give_and_the_same_bits_again():
    shape = (2, 600, 20, 16)
    inputs, (pairs, initial) = (
        as_leaves(make_inputs(*shape, given_state=True)),
        two_directions(*shape),
    )
    # the second utterance ends long before its last segment
    lengths = torch.tensor([600, 190])

    def everything():
        one = (run(selective_scan_cpu, inputs, lengths, reverse) for reverse in (False, True))
        return [*next(one), *next(one), *run_both(at_once, pairs, initial, lengths)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = everything()
        for threads in (12, 16):
            assert all(
                plan(*shape[:3], threads)[1] < 600 for plan in (_forward_plan, _backward_plan)
            )
            torch.set_num_threads(threads)
            got = everything()
            assert_close(expected, got, 1e-5)
            assert all(torch.equal(a, b) for a, b in zip(got, everything(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_time_is_cut_only_where_threads_would_wait():
    # few threads, or many utterances and channels: whole utterances
    for shape, threads in (((1, 4000, 512), 2), ((8, 4000, 512), 32), ((1, 100, 16), 64)):
        assert all(plan(*shape, threads)[1] >= shape[1] for plan in (_forward_plan, _backward_plan))
    assert _forward_plan(1, 4000, 64, 32)[1] < 1000


def test_both_directions_are_one_operator_that_passes_opcheck_and_compiles():
    pairs, initial = two_directions(2, 12, 6, 4)
    one, other = zip(*(v for k, v in pairs.items() if k != "z"), strict=True)
    tensors = (*one, *other, pairs["z"], initial)
    torch.library.opcheck(
        BIDIRECTIONAL_SCAN.operator, (*tensors, torch.tensor([12, 5]), True, True)
    )

    def model(pairs, initial):
        return at_once(pairs, initial, None)[0].sin()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected, got = (f(pairs, initial) for f in (model, compiled))
    assert torch.allclose(expected, got, atol=1e-6)
    for a, b in zip(
        torch.autograd.grad(expected.sum(), tensors),
        torch.autograd.grad(got.sum(), tensors),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-5)
