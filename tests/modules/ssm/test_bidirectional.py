"""Both directions in one call against one call a direction, for the scan and for the convolution."""

import itertools

import pytest
import torch

from modules.ssm import (
    available_backends,
    bidirectional_conv1d,
    bidirectional_scan,
    selective_scan,
    use_backend,
)
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.scan.naive import selective_scan_naive

SHAPES = [(2, 1, 3, 5), (3, 37, 5, 16), (1, 70, 17, 1), (2, 18, 6, 24)]


def scan_inputs(batch, time, channels, states, given_state, dtype=torch.float32):
    """(inputs that come in pairs, the gate, the forward direction's state)"""
    pairs = [
        (torch.randn(batch, time, channels), torch.randn(batch, time, channels)),
        (torch.randn(batch, time, channels), torch.randn(batch, time, channels)),
        (-4 * torch.rand(channels, states), -4 * torch.rand(channels, states)),
        (torch.randn(batch, time, states), torch.randn(batch, time, states)),
        (torch.randn(batch, time, states), torch.randn(batch, time, states)),
        (torch.randn(channels), torch.randn(channels)),
        (torch.randn(channels), torch.randn(channels)),
    ]
    pairs = [tuple(t.to(dtype).requires_grad_() for t in pair) for pair in pairs]
    z = torch.randn(batch, time, channels).to(dtype).requires_grad_()
    state = torch.randn(batch, channels, states).requires_grad_() if given_state else None
    return pairs, z, state


def two_scans(pairs, z, state, lengths):
    *six, bias = pairs
    forward, backward = ([*(pair[i] for pair in six), z, bias[i], True] for i in range(2))
    out, last = selective_scan_naive(*forward, lengths=lengths, initial_state=state)
    return out + selective_scan_naive(*backward, lengths=lengths, reverse=True)[0], last


def gradients(out, last, tensors):
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    return torch.autograd.grad((out * weight).sum() + last.square().sum(), tensors)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "B{}-L{}-D{}-N{}".format(*s))
def test_the_scan_of_both_directions_is_the_sum_of_two(shape, backend):
    for ragged, given in itertools.product((False, True), repeat=2):
        pairs, z, state = scan_inputs(*shape, given)
        lengths = torch.tensor([shape[1], 0, shape[1] // 2])[: shape[0]] if ragged else None
        tensors = [t for t in (*itertools.chain(*pairs), z, state) if t is not None]
        expected = two_scans(pairs, z, state, lengths)
        *six, bias = pairs
        got = bidirectional_scan(
            *six,
            z,
            bias,
            delta_softplus=True,
            lengths=lengths,
            initial_state=state,
            return_last_state=True,
            backend=backend,
        )
        expected = (*expected, *gradients(*expected, tensors))
        got = (*got, *gradients(*got, tensors))
        for a, b in zip(expected, got, strict=True):
            assert (a - b).abs().max() <= 1e-5 * max(1, a.abs().max())


@pytest.mark.parametrize("backend", available_backends())
def test_padding_of_any_content_changes_nothing_in_either_direction(backend):
    pairs, z, _ = scan_inputs(2, 12, 4, 8, given_state=False)
    lengths = torch.tensor([12, 7])

    def outcome(dirt):
        poison = torch.zeros(2, 12, 1)
        poison[1, 7:] = dirt
        leaves = [tuple(t.detach().clone() for t in pair) for pair in pairs]
        leaves = [tuple(t + poison if t.dim() == 3 else t for t in pair) for pair in leaves]
        leaves = [tuple(t.requires_grad_() for t in pair) for pair in leaves]
        gate = (z.detach() + poison).requires_grad_()
        *six, bias = leaves
        out = bidirectional_scan(
            *six, gate, bias, delta_softplus=True, lengths=lengths, backend=backend
        )
        return out, *torch.autograd.grad(out.sum(), [*itertools.chain(*leaves), gate])

    for clean, dirty in zip(outcome(0.0), outcome(float("nan")), strict=True):
        torch.testing.assert_close(clean, dirty)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", available_backends())
def test_half_precision_keeps_its_dtype_and_a_float32_state(backend, dtype):
    pairs, z, _ = scan_inputs(2, 30, 6, 16, given_state=False)
    *six, bias = ([t.detach() for t in pair] for pair in pairs)
    small = [[t.to(dtype) for t in pair] if pair[0].dim() == 3 else pair for pair in six]
    options = {"delta_softplus": True, "return_last_state": True, "backend": backend}
    out, last = bidirectional_scan(*small, z.detach().to(dtype), bias, **options)
    assert out.dtype == dtype and last.dtype == torch.float32
    wide = [[t.float() for t in pair] for pair in small]
    expected, _ = bidirectional_scan(*wide, z.detach().to(dtype).float(), bias, **options)
    error = (out.float() - expected).abs().max() / expected.abs().max()
    assert error < (1e-2 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize("missing", ["D", "z", "delta_bias"])
@pytest.mark.parametrize("backend", available_backends())
def test_optional_inputs_may_be_left_out(backend, missing):
    (u, delta, A, B, C, D, bias), z, _ = scan_inputs(2, 20, 4, 8, given_state=False)
    given = {"D": D, "z": z, "delta_bias": bias} | {missing: None}

    def one(i, reverse):
        own = {name: t if t is None or name == "z" else t[i] for name, t in given.items()}
        return selective_scan(
            u[i], delta[i], A[i], B[i], C[i], **own, delta_softplus=True, reverse=reverse
        )

    both = bidirectional_scan(u, delta, A, B, C, **given, delta_softplus=True, backend=backend)
    expected = one(0, False) + one(1, True)
    assert (both - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_one_tensor_where_a_pair_is_wanted_is_refused_by_name():
    (u, delta, A, B, C, D, _), _, _ = scan_inputs(2, 20, 4, 8, given_state=False)
    with pytest.raises(ValueError, match="D must be a pair"):
        bidirectional_scan(u, delta, A, B, C, D[0])
    with pytest.raises(ValueError, match="A must be a pair"):
        bidirectional_scan(u, delta, A[0], B, C)


def test_directions_of_different_shapes_are_refused():
    (u, delta, A, B, C, *_), _, _ = scan_inputs(2, 20, 4, 8, given_state=False)
    longer = (u[0], torch.randn(2, 21, 4))
    with pytest.raises(ValueError, match="delta must have shape"):
        bidirectional_scan(longer, delta, A, B, C)
    with pytest.raises(ValueError, match="both directions must have one shape"):
        bidirectional_scan(
            longer,
            (delta[0], longer[1]),
            A,
            (B[0], torch.randn(2, 21, 8)),
            (C[0], torch.randn(2, 21, 8)),
        )


@pytest.mark.parametrize("backend", ["cpu", "torch", "naive"])
@pytest.mark.parametrize("width", [2, 4, 7])
def test_the_convolution_of_both_directions_equals_one_call_each(width, backend):
    for ragged, given, biased in itertools.product((False, True), repeat=3):
        x = torch.randn(3, 9, 5, requires_grad=True)
        weight = [torch.randn(5, width, requires_grad=True) for _ in range(2)]
        bias = [torch.randn(5, requires_grad=True) if biased else None for _ in range(2)]
        state = torch.randn(3, 5, width, requires_grad=True) if given else None
        lengths = torch.tensor([9, 0, 4]) if ragged else None
        forward, last = causal_conv1d_naive(
            x, weight[0], bias[0], "silu", lengths=lengths, initial_state=state
        )
        backward, _ = causal_conv1d_naive(
            x, weight[1], bias[1], "silu", lengths=lengths, reverse=True
        )
        with use_backend(backend):
            got = bidirectional_conv1d(
                x, weight, bias, "silu", lengths=lengths, initial_state=state
            )
        expected = (forward, backward, last)
        tensors = [t for t in (x, *weight, *bias, state) if t is not None]
        for a, b in zip(expected, got, strict=True):
            torch.testing.assert_close(a, b)

        def slopes(results, tensors=tensors):
            loss = sum((i + 1) * r.square().sum() for i, r in enumerate(results))
            return torch.autograd.grad(loss, tensors)

        for a, b in zip(slopes(expected), slopes(got), strict=True):
            assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


def test_convolutions_of_different_widths_are_refused():
    x = torch.randn(1, 5, 2)
    with pytest.raises(ValueError, match="one width; got 3 and 4"):
        bidirectional_conv1d(x, (torch.randn(2, 3), torch.randn(2, 4)), (None, None))
