"""The Triton convolution: in interpreter mode against the loop in float64, and compiled for cards that are not here.

The interpreter is slow: one small case of both kernels runs with the other tests, the rest are exhaustive.
"""

import importlib
import itertools

import pytest
import torch

from modules.ssm.conv import triton_backend
from modules.ssm.conv.naive import causal_conv1d_naive
from modules.ssm.conv.triton_backend import (
    CONV,
    ConvPlan,
    bidirectional_conv1d_triton,
    causal_conv1d_triton,
    triton_refusal,
)
from modules.ssm.triton import refusal as triton_refusals
from tests.support.triton import resources

needs_triton = pytest.mark.skipif(
    not triton_refusals.installed() or triton_refusals.interpreted(),
    reason="Triton is not installed, or only its interpreter is on",
)
# several programs along time and several tiles in each of them, at a handful of frames
TINY = ConvPlan(block=32, frames=3, grad_block=32, grad_frames=2, tiles=2, warps=1)


def make(batch, time, channels, width, biased=True, given=True, dtype=torch.float32):
    tensors = (
        torch.randn(batch, time, channels, dtype=dtype),
        torch.randn(channels, width),
        torch.randn(channels) if biased else None,
        torch.randn(batch, channels, width, dtype=dtype) if given else None,
    )
    return [None if t is None else t.requires_grad_() for t in tensors]


def double(tensors):
    return [None if t is None else t.detach().double().requires_grad_() for t in tensors]


def results(conv, tensors, activation="silu", **options):
    """Output, last state and the gradient of every tensor given."""
    x, weight, bias, state = tensors
    out, last = conv(x, weight, bias, activation, initial_state=state, **options)
    return out, last, *gradients((out, last), tensors)


def gradients(outputs, tensors):
    loss = 0
    for y in outputs:
        wide = y if y.dtype == torch.float64 else y.float()
        loss = loss + (wide * torch.linspace(-1, 1, y.numel()).view_as(y)).sum()
    given = [t for t in tensors if t is not None]
    # the oldest column of a state reaches no output
    return torch.autograd.grad(loss, given, materialize_grads=True)


def assert_close(expected, got, tolerance):
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        assert not a.numel() or (a - b).abs().max() <= tolerance * max(1.0, a.abs().max().item())


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "shape", [(2, 1, 3, 4), (3, 7, 3, 4), (1, 2, 34, 5), (1, 5, 2, 1), (1, 2, 3, 9)], ids=str
)
def test_equals_the_loop_in_output_state_and_every_gradient(shape, interpreted):
    batch, time = shape[:2]
    for ragged, reverse, given in itertools.product((False, True), repeat=3):
        if time < 7 and ragged == reverse:
            continue  # the interpreter is slow: half of the combinations elsewhere
        tensors = make(*shape, biased=ragged != given, given=given)
        options = {
            "lengths": torch.tensor([time, 0, time // 2])[:batch] if ragged else None,
            "reverse": reverse,
            "activation": None if ragged and given else "silu",
        }
        expected = results(causal_conv1d_naive, double(tensors), **options)
        assert_close(expected, results(causal_conv1d_triton, tensors, plan=TINY, **options), 2e-6)


@pytest.mark.parametrize("given", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_both_directions_in_one_launch_equal_two_loops(given, interpreted):
    x, *forward, state = make(2, 7, 5, 4, given=given)
    _, *backward, _ = make(2, 7, 5, 4)
    lengths = torch.tensor([7, 4])

    def both(tensors):
        x, weight, bias, weight_b, bias_b, state = tensors
        options = {"activation": "silu", "lengths": lengths}
        y, last = causal_conv1d_naive(x, weight, bias, initial_state=state, **options)
        return y, causal_conv1d_naive(x, weight_b, bias_b, reverse=True, **options)[0], last

    tensors = [x, *forward, *backward, state]
    wide = double(tensors)
    expected = both(wide)
    pairs = (forward[0], backward[0]), (forward[1], backward[1])
    got = bidirectional_conv1d_triton(
        x, *pairs, "silu", lengths=lengths, initial_state=state, plan=TINY
    )
    expected = *expected, *gradients(expected, wide)
    assert_close(expected, (*got, *gradients(got, tensors)), 2e-6)
    # a loss of one direction leaves the other one's weight without a gradient
    (only,) = torch.autograd.grad(
        bidirectional_conv1d_triton(x, *pairs, plan=TINY)[0].sum(), backward[:1]
    )
    assert not only.any()


@pytest.mark.exhaustive
def test_a_wide_convolution_is_unrolled_by_the_plan_of_its_width(interpreted):
    tensors = make(1, 2, 3, 31, given=False)
    expected = results(causal_conv1d_naive, double(tensors))
    plan = ConvPlan(block=32, frames=2, grad_block=32, grad_frames=2, tiles=1, warps=1)
    assert_close(expected, results(causal_conv1d_triton, tensors, plan=plan), 2e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_half_precision_is_rounded_only_on_the_way_in_and_out(dtype, tolerance, interpreted):
    tensors = make(2, 5, 3, 4, dtype=dtype)
    lengths = torch.tensor([5, 3])
    got = results(causal_conv1d_triton, tensors, lengths=lengths, plan=TINY)
    assert got[0].dtype == got[1].dtype == dtype and got[3].dtype == torch.float32
    assert_close(results(causal_conv1d_naive, double(tensors), lengths=lengths), got, tolerance)


@pytest.mark.exhaustive
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_of_any_content_changes_nothing(reverse, interpreted):
    x, weight, _, _ = make(2, 6, 3, 4)
    dirty = x.detach().clone()
    dirty[1, 3:] = float("nan")
    options = {"lengths": torch.tensor([6, 3]), "reverse": reverse, "plan": TINY}
    runs = []
    for tensor in (x, dirty.requires_grad_()):
        y, last = causal_conv1d_triton(tensor, weight, activation="silu", **options)
        upstream = torch.ones_like(y)
        upstream[1, 3:] = float("nan")
        runs.append((y, last, *torch.autograd.grad(y, (tensor, weight), upstream)))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert not runs[1][0][1, 3:].any() and not runs[1][2][1, 3:].any()


@pytest.mark.exhaustive
def test_strided_views_and_empty_tensors(interpreted):
    weight = torch.randn(3, 4)
    wide = torch.randn(2, 5, 6)
    for x in (wide[..., 3:], wide[:, :, :3].transpose(0, 1), torch.randn(2, 3, 5).transpose(1, 2)):
        expected = causal_conv1d_triton(x.contiguous(), weight, plan=TINY)
        assert all(map(torch.equal, expected, causal_conv1d_triton(x, weight, plan=TINY)))
    state = torch.randn(2, 3, 4)
    for shape in ((2, 0, 3), (0, 5, 3)):
        before = state[: shape[0]]
        y, last = causal_conv1d_triton(torch.zeros(shape), weight, initial_state=before, plan=TINY)
        assert y.shape == shape and torch.equal(last, before)


@pytest.mark.exhaustive
def test_operator_passes_opcheck_and_compiles_into_one_graph(interpreted):
    x, weight, bias, state = make(2, 3, 2, 4)
    arguments = (x, weight, bias, None, None, state, torch.tensor([3, 1]), True, list(TINY))
    torch.library.opcheck(CONV.operator, arguments)

    def model(x, weight):
        return causal_conv1d_triton(2 * x, weight, activation="silu", plan=TINY)[0].sin()

    expected = model(x, weight)
    got = torch.compile(model, fullgraph=True, backend="aot_eager")(x, weight)
    assert torch.allclose(expected, got)
    both = [torch.autograd.grad(y.sum(), (x, weight)) for y in (expected, got)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*both, strict=True))


def test_what_the_kernels_cannot_take_is_refused_with_a_reason(monkeypatch):
    x, weight = torch.zeros(1, 2, 3), torch.zeros(3, 4)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_refusals, "installed", lambda: True)
    assert "on cpu" in triton_refusal(x, weight)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_refusal(x, weight) is None
    assert "float32" in triton_refusal(x.double(), weight)
    assert "wide" in triton_refusal(x, torch.zeros(3, 65))
    assert "on meta" in triton_refusal(x.to("meta"), weight.to("meta"))
    monkeypatch.setattr(triton_refusals, "installed", lambda: False)
    assert "not installed" in triton_refusal(x, weight)


# width, directions, activation, states, dtype, capability
VARIANTS = [
    (4, (True, True), True, False, "bf16", 90),
    (4, (True, True), True, True, "fp32", 80),
    (4, (False, True), True, True, "fp16", 90),
]


def compile_variant(kernel, width, directions, silu, states, dtype, capability):
    """Compile for a card by Triton's own tool chain; gives :func:`tests.support.triton.resources`."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    plan = triton_backend.conv_plan(1024, width)
    forward = kernel.__name__ == "conv_forward"
    constants = {
        "WIDTH": width,
        "FRAMES": plan.frames if forward else plan.grad_frames,
        "TILES": plan.tiles,
        "BLOCK": plan.block if forward else plan.grad_block,
        "FORWARD": directions[0],
        "BACKWARD": directions[1],
        "SILU": silu,
        "weight_f_tap": 1,
        "weight_b_tap": 1,
    }
    absent = {"initial", "grad_initial", "grad_last"} if not states else set()
    for present, side in zip(directions, "fb", strict=True):
        names = {f"weight_{side}", f"bias_{side}", f"out_{side}", f"grad_{side}"}
        absent |= set() if present else names
    if forward:
        absent |= {"grad_f", "grad_b"}
    float32 = {"weight_f", "weight_b", "bias_f", "bias_b", "partials"}
    pointers = {"x", "initial", "out_f", "out_b", "last", "grad_f", "grad_b"}
    pointers |= {"grad_last", "grad_x", "grad_initial"}
    signature, values, hints = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants or name in absent:
            signature[name], values[i,] = "constexpr", constants.get(name)
        elif name in float32 | pointers | {"lengths"}:
            kind = "i64" if name == "lengths" else "fp32" if name in float32 else dtype
            signature[name], hints[i,] = f"*{kind}", [["tt.divisibility", 16]]
        else:
            signature[name] = "i32"
    compiled = triton.compile(
        ASTSource(kernel, signature, values, hints),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": plan.warps},
    )
    return resources(compiled.asm["cubin"])


@needs_triton
@pytest.mark.exhaustive
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("name", ["conv_forward", "conv_backward"])
def test_the_plans_variants_compile_for_cards_without_spilling(name, variant):
    kernel = getattr(importlib.import_module(f"modules.ssm.triton.{name}"), name)
    used = compile_variant(kernel, *variant)
    assert used["stack"] == used["local"] == 0 and used["registers"] <= 255


@pytest.mark.exhaustive
@needs_triton
@pytest.mark.parametrize("reverse", [False, True])
def test_counts_outside_the_utterance_are_read_as_its_ends(reverse, interpreted):
    """On a card no check looks at them, and no kernel may touch memory outside."""
    tensors = make(3, 9, 5, 4)
    lying, true = torch.tensor([1000, -1000, 10]), torch.tensor([9, 0, 9])
    wanted, got = (
        results(causal_conv1d_triton, tensors, lengths=lengths, reverse=reverse)
        for lengths in (true, lying)
    )
    for one, other in zip(wanted, got, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
