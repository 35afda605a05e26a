"""The causal convolution against its loop, and its contract on lengths, direction and state."""

import itertools

import pytest
import torch

from modules.ssm import causal_conv1d, depthwise_conv1d, use_backend
from modules.ssm.conv.naive import causal_conv1d_naive
from tests.support.golden import Golden


def results(conv, tensors, **options):
    x, weight, bias, state = tensors
    out, last = conv(x, weight, bias, "silu", initial_state=state, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    loss = (out * weights).sum() + last.square().sum()
    return out, last, *torch.autograd.grad(loss, [t for t in tensors if t is not None])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    "shape", [(2, 1, 3, 4), (3, 9, 5, 4), (2, 3, 4, 5), (1, 12, 1, 2), (2, 7, 3, 3)], ids=str
)
def test_equals_the_loop_in_output_state_and_every_gradient(shape, dtype, tolerance):
    batch, time, channels, width = shape
    for ragged, reverse, given, biased in itertools.product((False, True), repeat=4):
        tensors = [
            torch.randn(batch, time, channels),
            torch.randn(channels, width),
            torch.randn(channels) if biased else None,
            torch.randn(batch, channels, width) if given else None,
        ]
        tensors = [None if t is None else t.to(dtype).requires_grad_() for t in tensors]
        lengths = torch.tensor([time, 0, time // 2])[:batch] if ragged else None
        options = {"lengths": lengths, "reverse": reverse}
        expected = results(causal_conv1d_naive, tensors, **options)
        got = results(causal_conv1d, tensors, **options, return_last_state=True)
        for a, b in zip(expected, got, strict=True):
            assert (a - b).abs().max() <= tolerance * max(1, a.abs().max())


def test_padding_of_any_content_changes_nothing():
    x, weight = torch.randn(2, 8, 3), torch.randn(3, 4)
    dirty = x.clone()
    dirty[1, 5:] = float("nan")
    lengths = torch.tensor([8, 5])
    for reverse in (False, True):
        a = causal_conv1d(x, weight, lengths=lengths, reverse=reverse)
        b = causal_conv1d(dirty, weight, lengths=lengths, reverse=reverse)
        alone = causal_conv1d(x[1:, :5], weight, reverse=reverse)
        assert torch.equal(a, b) and b[1, 5:].abs().max() == 0
        assert torch.allclose(b[1, :5], alone[0], atol=1e-6)


def test_chunks_with_carried_state_equal_the_whole():
    x, weight, state = torch.randn(2, 11, 3), torch.randn(3, 4), None
    pieces = []
    for start, stop in ((0, 2), (2, 3), (3, 11)):
        y, state = causal_conv1d(
            x[:, start:stop], weight, initial_state=state, return_last_state=True
        )
        pieces.append(y)
    assert torch.allclose(torch.cat(pieces, 1), causal_conv1d(x, weight), atol=1e-6)


def test_golden_operation():
    with Golden("op_causal_conv1d_silu") as golden:
        x, weight, bias = (
            golden[f"input/{k}"].clone().requires_grad_() for k in ("x", "weight", "bias")
        )
        out = causal_conv1d(x.transpose(1, 2), weight, bias, "silu").transpose(1, 2)
        golden.compare("output/out", out)
        (out * golden["input/w"]).sum().backward()
        for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
            golden.compare(f"grad/{name}", tensor.grad)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"activation": "relu"}, "activation must be"),
        ({"weight": torch.zeros(4, 4)}, "weight must be"),
        ({"initial_state": torch.zeros(2, 3, 3)}, "initial_state must have shape"),
        ({"lengths": torch.tensor([9, 1])}, r"0\.\.8"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": torch.randn(2, 8, 3), "weight": torch.randn(3, 4)} | change)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("width, ahead", [(3, 0), (3, 1), (3, 2), (4, 2), (31, 15)])
def test_looking_ahead_is_the_causal_convolution_of_a_longer_utterance(width, ahead, backend):
    x, weight = torch.randn(2, 9, 3, requires_grad=True), torch.randn(3, width, requires_grad=True)
    bias = torch.randn(3, requires_grad=True)
    longer = torch.cat([x, torch.zeros(2, ahead, 3)], 1)
    expected = causal_conv1d_naive(longer, weight, bias)[0][:, ahead:]
    with use_backend(backend):
        got = depthwise_conv1d(x, weight, bias, ahead=ahead)
    torch.testing.assert_close(expected, got, rtol=1e-4, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(expected.square().sum(), (x, weight, bias)),
        torch.autograd.grad(got.square().sum(), (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_looking_further_ahead_than_the_kernel_is_wide_is_refused():
    with pytest.raises(ValueError, match="ahead must lie in 0..3"):
        depthwise_conv1d(torch.randn(1, 5, 2), torch.randn(2, 4), ahead=4)


def test_a_bias_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\)"):
        causal_conv1d(torch.randn(1, 6, 4), torch.randn(4, 3), torch.randn(3))
