"""The compiled causal convolution against the loop in float64, and as an operator of PyTorch."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from modules.ssm import causal_conv1d
from modules.ssm.conv.cpu import (
    BIDIRECTIONAL_CONV,
    CONV,
    bidirectional_conv1d_cpu,
    causal_conv1d_cpu,
    cpu_refusal,
)
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.cpu import refusal

pytestmark = pytest.mark.skipif(refusal() is not None, reason=f"no compiled kernels: {refusal()}")


def make(batch, time, channels, width, biased=True, given=True):
    tensors = (
        torch.randn(batch, time, channels),
        torch.randn(channels, width),
        torch.randn(channels) if biased else None,
        torch.randn(batch, channels, width) if given else None,
    )
    return [None if t is None else t.requires_grad_() for t in tensors]


def to(tensors, dtype):
    return [None if t is None else t.detach().to(dtype).requires_grad_() for t in tensors]


def run(conv, tensors, activation="silu", **options):
    x, weight, bias, state = tensors
    out, last = conv(x, weight, bias, activation, initial_state=state, **options)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
    loss = (out * weights).sum() + last.square().sum()
    given = [t for t in tensors if t is not None]
    # a state of width 1 reaches no output
    return out, last, *torch.autograd.grad(loss, given, materialize_grads=True)


@pytest.mark.parametrize(
    "shape", [(2, 1, 3, 4), (3, 140, 21, 4), (2, 3, 4, 5), (1, 12, 70, 1), (2, 9, 8, 31)], ids=str
)
def test_equals_the_loop_in_float64_in_output_state_and_every_gradient(shape):
    for ragged, reverse, given, biased in itertools.product((False, True), repeat=4):
        if shape[1] > 20 and ragged != reverse:
            continue  # the loop is slow: two of four combinations at this length
        tensors = make(*shape, biased=biased, given=given)
        lengths = torch.tensor([shape[1], 0, shape[1] // 2])[: shape[0]] if ragged else None
        for activation in ("silu", None) if shape[1] < 20 else ("silu",):
            options = {"activation": activation, "lengths": lengths, "reverse": reverse}
            expected = run(causal_conv1d_naive, to(tensors, torch.float64), **options)
            got = run(causal_conv1d_cpu, tensors, **options)
            for a, b in zip(expected, got, strict=True):
                assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("width, ahead", [(5, 2), (4, 3), (31, 15), (7, 1)])
def test_a_view_ahead_is_a_shift_of_an_utterance_that_goes_on_with_zeros(width, ahead, reverse):
    for time, given in ((135, reverse), (3, not reverse)):
        x, weight, bias, state = make(2, time, 11, width, given=given)
        leaves = [t for t in (x, weight, bias, state) if t is not None]
        for lengths in (None, torch.tensor([time, time // 3])):
            outs = []
            for item, length in enumerate([time, time] if lengths is None else lengths.tolist()):
                zeros = (0, 0, ahead, 0) if reverse else (0, 0, 0, ahead)
                padded = F.pad(x[item : item + 1, :length].double(), zeros)
                one = None if state is None else state[item : item + 1].double()
                options = {"reverse": reverse, "initial_state": one}
                y, _ = causal_conv1d_naive(
                    padded, weight.double(), bias.double(), "silu", **options
                )
                y = y[:, :length] if reverse else y[:, ahead:]
                outs.append(F.pad(y, (0, 0, 0, time - length)))
            options = {"lengths": lengths, "reverse": reverse, "initial_state": state}
            got = causal_conv1d_cpu(x, weight, bias, "silu", ahead=ahead, **options)[0]
            expected = torch.cat(outs)
            scale = torch.linspace(-1, 1, got.numel()).view_as(got)
            gradients = [torch.autograd.grad((y * scale).sum(), leaves) for y in (expected, got)]
            for a, b in zip((expected, *gradients[0]), (got, *gradients[1]), strict=True):
                assert (a - b).abs().max() <= 1e-5 * max(1.0, a.abs().max().item())


def test_a_view_ahead_beyond_the_width_is_refused():
    x, weight = torch.zeros(1, 2, 3), torch.zeros(3, 4)
    for ahead in (-1, 4):
        with pytest.raises(ValueError, match="ahead"):
            causal_conv1d_cpu(x, weight, ahead=ahead)


def run_both(conv, x, weights, biases, state, lengths):
    """Both outputs, the last state, and the gradient of every leaf."""
    y, y_b, last = conv(x, weights, biases, "silu", lengths=lengths, initial_state=state)
    scale = torch.linspace(-1, 1, y.numel()).view_as(y)
    loss = (y.float() * scale).sum() + (y_b.float() * scale.flip(1)).sum() + last.float().sum()
    leaves = [t for t in (x, *weights, *biases, state) if t is not None]
    return y, y_b, last, *torch.autograd.grad(loss, leaves, materialize_grads=True)


def composed(x, weights, biases, activation, *, lengths, initial_state):
    options = {"activation": activation, "lengths": lengths}
    y, last = causal_conv1d_cpu(x, weights[0], biases[0], initial_state=initial_state, **options)
    return y, causal_conv1d_cpu(x, weights[1], biases[1], reverse=True, **options)[0], last


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (3, 300, 21, 4), (2, 9, 8, 31)], ids=str)
def test_both_directions_at_once_equal_two_calls_in_outputs_state_and_every_gradient(shape):
    for ragged, given, biased in itertools.product((False, True), repeat=3):
        x, weight, bias, state = make(*shape, biased=biased, given=given)
        _, weight_b, bias_b, _ = make(*shape, biased=biased)
        lengths = torch.tensor([shape[1], 0, shape[1] // 2])[: shape[0]] if ragged else None
        arguments = (x, (weight, weight_b), (bias, bias_b), state, lengths)
        expected, got = (run_both(f, *arguments) for f in (composed, bidirectional_conv1d_cpu))
        for a, b in zip(expected, got, strict=True):
            assert (a - b).abs().max() <= 1e-6 * max(1.0, a.abs().max().item())


def test_the_input_s_gradient_of_both_directions_is_rounded_once_to_half_precision():
    x, weight, bias, _ = make(2, 150, 19, 4)
    half = x.detach().bfloat16().requires_grad_()
    wide = half.detach().float().requires_grad_()
    pairs, lengths = ((weight, weight.flip(1)), (bias, -bias)), torch.tensor([150, 40])
    ours, exact = (
        torch.autograd.grad(sum(y.float().sum() for y in ys[:2]), leaf)[0]
        for leaf in (half, wide)
        for ys in [bidirectional_conv1d_cpu(leaf, *pairs, "silu", lengths=lengths)]
    )
    assert torch.equal(ours, exact.to(torch.bfloat16))


def test_both_directions_are_one_operator_that_passes_opcheck_and_compiles():
    x, weight, bias, state = make(2, 12, 5, 4)
    tensors = (x, weight, bias, weight.detach().flip(1).requires_grad_(), None, state)
    torch.library.opcheck(BIDIRECTIONAL_CONV.operator, (*tensors, torch.tensor([12, 3]), True))

    def model(x):
        y, back, _ = bidirectional_conv1d_cpu(x, (weight, weight), None, "silu")
        return (y * back).sin()

    expected = model(x)
    got = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    assert torch.allclose(expected, got)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (expected, got)]
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision_is_rounded_only_on_the_way_in_and_out(dtype, tolerance):
    x, weight, bias, state = make(2, 40, 19, 4)
    x, state = to([x, state], dtype)
    got = run(causal_conv1d_cpu, [x, weight, bias, state], lengths=torch.tensor([40, 13]))
    wide = to([x, weight, bias, state], torch.float32)
    expected = run(causal_conv1d_cpu, wide, lengths=torch.tensor([40, 13]))
    assert got[0].dtype == got[1].dtype == dtype and got[3].dtype == torch.float32
    # the loss squares a rounded state, so that gradients differ by a rounding or two
    for a, b in zip(expected, got, strict=True):
        assert (a - b).abs().max() <= 2 * tolerance * a.abs().max()


def test_every_float16_number_is_read_and_rounded_as_torch_does():
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16).view(1, -1, 64)
    # 1 gives each number back; the others round into normal, denormal and infinite ones, ties among them
    for factor in (1.0, 1.5, 1.2345, 2**-9 * 1.001, 2**-24, 3e4):
        weight = torch.full((64, 1), factor)
        wanted = (numbers.float() * factor).half()
        got, _ = causal_conv1d_cpu(numbers, weight)
        assert torch.equal(got.isnan(), wanted.isnan())
        # infinities included
        assert torch.equal(got[~wanted.isnan()], wanted[~wanted.isnan()]), factor


def test_strided_views_give_what_their_copies_give():
    _, weight, bias, _ = make(2, 10, 6, 4)
    for x in (torch.randn(2, 10, 12)[..., 6:], torch.randn(2, 6, 10).transpose(1, 2)):
        expected = causal_conv1d_cpu(x.contiguous(), weight, bias, "silu")[0]
        assert torch.equal(causal_conv1d_cpu(x, weight, bias, "silu")[0], expected)


def test_results_are_the_same_bits_for_any_number_of_threads():
    tensors, before, runs = make(3, 300, 70, 4), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            runs.append(run(causal_conv1d_cpu, tensors))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_operator_passes_opcheck_and_compiles_into_one_graph():
    x, weight, bias, state = make(2, 12, 5, 4)
    torch.library.opcheck(
        CONV.operator, (x, weight, bias, state, torch.tensor([12, 3]), True, True, 2)
    )

    def model(x, weight):
        return causal_conv1d(2 * x, weight, activation="silu").sin()

    expected = model(x, weight)
    got = torch.compile(model, fullgraph=True, backend="aot_eager")(x, weight)
    assert torch.allclose(expected, got)
    gradients = [torch.autograd.grad(y.sum(), (x, weight)) for y in (expected, got)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_what_the_kernel_cannot_take_is_refused_with_a_reason():
    x, weight = torch.zeros(1, 2, 3), torch.zeros(3, 4)
    assert cpu_refusal(x, weight) is None
    assert "float32" in cpu_refusal(x.double(), weight)
    assert "meta" in cpu_refusal(x.to("meta"), weight.to("meta"))
    assert "wide" in cpu_refusal(x, torch.zeros(3, 65))
