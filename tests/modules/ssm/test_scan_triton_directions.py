"""The Triton scan of both directions in one launch against two scans of the loop, in the interpreter or on a card."""

import pytest
import torch

from modules.ssm.scan import triton_backend
from modules.ssm.scan.naive import selective_scan_naive
from modules.ssm.scan.triton_backend import bidirectional_scan_triton, selective_scan_triton
from tests.support.scan import assert_close, make_inputs, run, uneven
from tests.support.triton import CHUNKED, on_device, to


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
