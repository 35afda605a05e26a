"""A layer over one chunk in few calls: the results of the general way, and never a stale parameter."""

import copy

import pytest
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from torch import nn

from modules.conmamba import ConmambaEncoder, ConmambaEncoderLayer
from modules.one_chunk import takes_one_chunk

CHUNKS = DynChunkTrainConfig(5)


def make_layer(**options):
    torch.manual_seed(1)
    sizes = {"d_model": 24, "d_ffn": 40, "kernel_size": 7}
    layer = ConmambaEncoderLayer(**sizes, **options).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer


def chunk_by_chunk(layer, x, fast):
    """Outputs and the last state; with gradients enabled the general way is taken. The last chunk is shorter."""
    outputs, state = [], None
    with torch.set_grad_enabled(not fast):
        for chunk in x.split(CHUNKS.chunk_size, 1):
            taken = takes_one_chunk(layer, chunk, None, CHUNKS, state)
            assert taken == (fast and state is not None)
            out, state = layer(chunk, None, CHUNKS, state, True)
            outputs.append(out.detach())
    return torch.cat(outputs, 1), state


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": nn.GELU},
        {"activation": nn.ReLU, "bias": False},
        {"mamba_config": {"d_state": 5, "d_conv": 3, "expand": 1, "bias": True}},
        {"mamba_config": {"conv_bias": False, "bidirectional": True}},
    ],
    ids=str,
)
def test_chunk_by_chunk_is_the_general_way_and_the_whole(options, batch):
    layer, x = make_layer(**options), torch.randn(batch, 17, 24)
    found, state = chunk_by_chunk(layer, x, fast=True)
    wanted, kept = chunk_by_chunk(layer, x, fast=False)
    assert torch.allclose(found, wanted, atol=2e-5)
    for one, other in zip((*state[0], state[1]), (*kept[0], kept[1]), strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=2e-5)
        assert one.is_contiguous()
    with torch.no_grad():
        assert torch.allclose(found, layer(x, None, CHUNKS), atol=2e-5)


def test_the_state_that_is_given_stays_as_it_was():
    layer, x = make_layer(), torch.randn(1, 10, 24)
    with torch.no_grad():
        _, state = layer(x[:, :5], None, CHUNKS, None, True)
        before = copy.deepcopy(state)
        first, _ = layer(x[:, 5:], None, CHUNKS, state, True)
        again, _ = layer(x[:, 5:], None, CHUNKS, state, True)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(state[0], before[0], strict=True))
    assert torch.equal(state[1], before[1])


@pytest.mark.parametrize("name", ["A_log", "A_b_log"])
def test_changed_parameters_are_read_anew(name):
    layer, x = make_layer(), torch.randn(1, 10, 24)
    chunk_by_chunk(layer, x, fast=True)
    for one in (layer, copy.deepcopy(layer)):
        with torch.no_grad():
            getattr(one.mamba, name).add_(0.5)
        found, _ = chunk_by_chunk(one, x, fast=True)
        wanted, _ = chunk_by_chunk(one, x, fast=False)
        assert torch.allclose(found, wanted, atol=2e-5)
    assert layer.state_dict().keys() == make_layer().state_dict().keys()


def test_other_cases_go_the_general_way():
    layer, x = make_layer(), torch.randn(1, 10, 24)
    with torch.no_grad():
        _, state = layer(x[:, :5], None, CHUNKS, None, True)
        chunk = x[:, 5:]
        assert takes_one_chunk(layer, chunk, None, CHUNKS, state)
        assert not takes_one_chunk(layer, x, None, CHUNKS, state)
        assert not takes_one_chunk(layer, chunk, None, None, state)
        assert not takes_one_chunk(layer, chunk, torch.tensor([3]), CHUNKS, state)
        assert not takes_one_chunk(layer, chunk.double(), None, CHUNKS, state)
        assert not takes_one_chunk(make_layer().train(), chunk, None, CHUNKS, state)
        assert not takes_one_chunk(make_layer(causal=True), chunk, None, CHUNKS, state)
        normed = make_layer(mamba_config={"dt_bc_norm": True})
        assert not takes_one_chunk(normed, chunk, None, CHUNKS, state)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not takes_one_chunk(layer, chunk, None, CHUNKS, state)
    assert not takes_one_chunk(layer, chunk, None, CHUNKS, state)


def test_an_encoder_chunk_by_chunk_is_the_encoder():
    torch.manual_seed(2)
    encoder = ConmambaEncoder(2, 16, 32, kernel_size=5).eval()
    x, state, outputs = torch.randn(2, 13, 16), None, []
    with torch.no_grad():
        for chunk in x.split(5, 1):
            out, state = encoder.forward_chunk(chunk, state, dynchunktrain_config=CHUNKS)
            outputs.append(out)
        wanted, _ = encoder(x, dynchunktrain_config=CHUNKS)
    assert torch.allclose(torch.cat(outputs, 1), wanted, atol=2e-5)
