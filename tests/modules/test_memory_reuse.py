"""Activations in place and frames in blocks: the same results, and neither where something watches."""

import pytest
import torch
from speechbrain.nnet.activations import Swish
from torch import nn
from torch.utils.checkpoint import checkpoint

from modules.conmamba import ConmambaEncoder, HalfFeedForward
from modules.convolution import MaskedConvolutionModule
from modules.memory_reuse import BLOCK, activate, in_blocks


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_frames_run_in_blocks_outside_training_where_no_gradient_is_wanted(gradients, training):
    seen = []

    def doubled(frames):
        seen.append(frames.shape[1])
        return 2 * frames

    x = torch.randn(2, BLOCK + 3, 4)
    with torch.set_grad_enabled(gradients):
        assert torch.equal(in_blocks(doubled, x, training), 2 * x)
    assert seen == ([BLOCK + 3] if gradients or training else [BLOCK, 3])


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.GELU(approximate="tanh"), Swish(), Swish(beta=2), nn.ReLU()]
)
def test_an_activation_in_place_gives_the_same_and_a_gradient_forbids_it(activation):
    x = torch.randn(2, 5, 8)
    kept, wanted = x.clone(), activation(x.clone())
    assert torch.equal(activate(activation, x), wanted) and torch.equal(x, kept)
    with torch.no_grad():
        assert torch.equal(activate(activation, x), wanted)


@pytest.mark.parametrize("activation", [nn.GELU, Swish, nn.ReLU])
def test_encoder_gives_the_same_with_and_without_gradients_and_leaves_its_input_alone(activation):
    encoder = ConmambaEncoder(2, 8, 16, kernel_size=7, activation=activation).eval()
    x = torch.randn(2, 2 * BLOCK + 76, 8)
    kept = x.clone()
    expected, _ = encoder(x)
    with torch.no_grad():
        out, _ = encoder(x)
    assert torch.allclose(out, expected, atol=1e-5)
    assert torch.equal(x, kept) and expected.requires_grad and not out.requires_grad


def test_convolution_modules_mask_and_output_survive_activations_written_in_place():
    module = MaskedConvolutionModule(8, 7, activation=nn.GELU).eval()
    x, padding = torch.randn(1, 9, 8), torch.arange(9).view(1, 9, 1) >= 6
    kept = x.clone()
    with torch.no_grad():
        out = module(x, padding)
    assert torch.equal(x, kept) and not out[0, 6:].any()
    assert torch.allclose(out, module(x, padding), atol=1e-6)


def test_recomputing_a_long_feed_forward_draws_the_dropout_of_its_first_pass():
    feed_forward = HalfFeedForward(8, 16, 0.5, nn.GELU).train()
    x = torch.randn(1, BLOCK + 188, 8, requires_grad=True)
    seen = []
    feed_forward[2].register_forward_hook(lambda module, given, out: seen.append(out.detach()))
    checkpoint(feed_forward, x, use_reentrant=True).sum().backward()
    first, again = seen
    # the passes, without and with gradients, may take different matrix products
    assert torch.equal(first == 0, again == 0) and torch.allclose(first, again, atol=1e-5)


def test_a_feed_forward_traced_at_one_length_runs_at_another():
    feed_forward = HalfFeedForward(8, 16, 0.0, nn.GELU).eval()
    with torch.no_grad():
        traced = torch.jit.trace(feed_forward, torch.randn(1, BLOCK + 188, 8))
        x = torch.randn(1, 3 * BLOCK, 8)
        assert torch.allclose(traced(x), feed_forward(x), atol=1e-6)
