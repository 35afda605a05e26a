"""A compiled step of the Mamba decoder: every output and state of the plain way, and nothing where it cannot run."""

import copy

import pytest
import torch
from speechbrain.nnet.activations import Swish
from torch import nn

from modules.asr import decoder_step
from modules.asr.decoder_step import takes_step
from modules.asr.mamba_decoder import MambaDecoder, reorder_state
from modules.ssm import use_backend
from modules.ssm.cpu.build import refusal

pytestmark = pytest.mark.skipif(refusal() is not None, reason="no compiled kernels here")


def make_decoder(d_model=24, d_ffn=40, **options):
    torch.manual_seed(1)
    decoder = MambaDecoder(2, d_model, d_ffn, **options).eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return decoder


def tensors(state):
    return [one for layer in state for block in layer for one in block]


def taken(decoder, x, state, parents):
    return takes_step(decoder.layers[0], x, state[0], parents)


@torch.no_grad()
def compare(decoder, hypotheses, steps=5, batch=3):
    """Steps with random parents, by the kernel and by copies of states."""
    width = decoder.norm.norm.normalized_shape[0]
    state = plain_state = decoder.prefill(torch.randn(batch, 7, width), torch.tensor([7, 3, 5]))
    spare = None
    for step in range(steps):
        parents = torch.randint(0, len(state[0].self_state.ssm), (hypotheses,))
        x = torch.randn(hypotheses, width)
        assert taken(decoder, x, state, parents)
        before = copy.deepcopy(state)
        found, new = decoder.step(x, state, parents, spare)
        assert all(map(torch.equal, tensors(state), tensors(before)))
        wanted, plain_state = decoder.step(x, reorder_state(plain_state, parents))
        assert torch.allclose(found, wanted, atol=2e-5)
        for one, other in zip(tensors(new), tensors(plain_state), strict=True):
            assert one.shape == other.shape and torch.allclose(one, other, atol=2e-5)
        spare, state = state if step else None, new


@pytest.mark.parametrize("hypotheses", [1, 3, 10, 60])
def test_the_kernel_gives_every_output_and_state_of_the_plain_way(hypotheses):
    compare(make_decoder(), hypotheses)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": Swish},
        {"d_model": 33, "d_ffn": 17},
        {"mamba_config": {"d_state": 5, "d_conv": 3, "expand": 1, "bias": True}},
        {"mamba_config": {"conv_bias": False, "d_state": 40, "d_conv": 1, "dt_rank": 7}},
    ],
)
def test_the_kernel_knows_sizes_and_options(options):
    compare(make_decoder(**options), 9)


def test_a_changed_parameter_is_seen():
    decoder = make_decoder()
    compare(decoder, 4)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(1.1)
    compare(decoder, 4)
    decoder.load_state_dict(make_decoder(activation=nn.GELU).state_dict())
    compare(decoder, 4)


def test_what_no_parent_precedes_is_zero_and_changes_nothing():
    decoder, x = make_decoder(), torch.randn(5, 24)
    with torch.no_grad():
        state = decoder.prefill(torch.randn(2, 4, 24))
        parents = torch.tensor([1, 0, 1, 0, 1])
        wanted, _ = decoder.layers[0].step(x, state[0], parents)
        found, _ = decoder.layers[0].step(x, state[0], parents.where(parents == 1, -1))
    assert torch.equal(found[::2], wanted[::2]) and not found[1::2].any()


@pytest.mark.parametrize(
    "options",
    [
        {"normalize_before": False},
        {"activation": nn.ReLU},
        {"mamba_config": {"dt_bc_norm": True}},
    ],
)
def test_layers_that_the_kernel_does_not_know_are_left_to_the_plain_way(options):
    decoder, x, parents = make_decoder(**options), torch.randn(4, 24), torch.tensor([1, 0, 1, 1])
    with torch.no_grad():
        state = decoder.prefill(torch.randn(2, 4, 24))
        assert not taken(decoder, x, state, parents)
        found, _ = decoder.step(x, state, parents)
        assert torch.equal(found, decoder.step(x, reorder_state(state, parents))[0])


def test_gradients_training_autocast_other_dtypes_and_backends_are_left_to_the_plain_way():
    decoder, x, parents = make_decoder(), torch.randn(4, 24), torch.tensor([1, 0, 1, 1])
    state = decoder.prefill(torch.randn(2, 4, 24))
    assert not taken(decoder, x, state, parents)
    with torch.no_grad():
        state = decoder.prefill(torch.randn(2, 4, 24))
        assert taken(decoder, x, state, parents)
        with use_backend("torch"):
            assert not taken(decoder, x, state, parents)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not taken(decoder, x, state, parents)
        assert not taken(decoder.train(), x, state, parents)
        assert not taken(decoder.eval().double(), x, state, parents)
        state = decoder.prefill(torch.randn(2, 4, 24, dtype=torch.float64))
        found, _ = decoder.step(x.double(), state, parents)
        assert torch.equal(found, decoder.step(x.double(), reorder_state(state, parents))[0])


def test_several_threads_multiply_large_matrices(monkeypatch):
    decoder, x, parents = make_decoder(), torch.randn(4, 24), torch.tensor([1, 0, 1, 1])
    with torch.no_grad():
        state = decoder.prefill(torch.randn(2, 4, 24))
        monkeypatch.setattr(decoder_step, "_MOST_FOR_ONE_THREAD", 100)
        assert taken(decoder, x, state, parents) == (torch.get_num_threads() == 1)


def test_a_parent_that_is_not_there_is_an_error():
    decoder = make_decoder()
    with torch.no_grad(), pytest.raises(IndexError):
        decoder.step(
            torch.randn(2, 24), decoder.prefill(torch.randn(2, 4, 24)), torch.tensor([0, 2])
        )
