"""A causal layer over one frame in few operations: the results of the general way, and never a stale parameter."""

import copy

import pytest
import torch
from speechbrain.nnet.activations import Swish
from torch import nn

from modules import one_frame
from modules.conmamba import ConmambaEncoder, ConmambaEncoderLayer
from modules.one_frame import takes_one_frame
from modules.ssm import MambaState
from modules.ssm.cpu.build import refusal


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """Both ways of the fast path."""
    if request.param == "torch":
        monkeypatch.setattr(one_frame, "_kernel_takes", lambda layer, x: False)
    elif refusal() is not None:
        pytest.skip("no compiled kernels here")
    return request.param


def make_layer(**options):
    torch.manual_seed(1)
    layer = ConmambaEncoderLayer(d_model=24, d_ffn=40, kernel_size=7, causal=True, **options).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer


def frame_by_frame(layer, x, state, fast):
    """Outputs and the last state; with gradients enabled the general way is taken."""
    outputs = []
    with torch.set_grad_enabled(not fast):
        for frame in x.split(1, 1):
            assert takes_one_frame(layer, frame, None, state) == (fast and state is not None)
            out, state = layer(frame, state=state, return_state=True)
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
)
def test_frame_by_frame_is_the_general_way(options, batch, way):
    layer, x = make_layer(**options), torch.randn(batch, 12, 24)
    found, state = frame_by_frame(layer, x, None, fast=True)
    wanted, kept = frame_by_frame(layer, x, None, fast=False)
    assert torch.allclose(found, wanted, atol=2e-5)
    for one, other in zip((*state[0], state[1]), (*kept[0], kept[1]), strict=True):
        assert one.shape == other.shape and torch.allclose(one, other, atol=2e-5)
        assert one.is_contiguous()
    with torch.no_grad():
        assert torch.allclose(found, layer(x), atol=2e-5)


def test_the_state_that_is_given_stays_as_it_was(way):
    layer, x = make_layer(), torch.randn(1, 3, 24)
    with torch.no_grad():
        _, state = layer(x[:, :2], return_state=True)
        before = copy.deepcopy(state)
        first, _ = layer(x[:, 2:], state=state, return_state=True)
        again, _ = layer(x[:, 2:], state=state, return_state=True)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(state[0], before[0], strict=True))
    assert torch.equal(state[1], before[1])


def test_changed_parameters_are_read_anew(way):
    layer, x = make_layer(activation=Swish), torch.randn(1, 4, 24)
    frame_by_frame(layer, x, None, fast=True)
    twin = copy.deepcopy(layer)
    for one in (layer, twin):
        with torch.no_grad():
            one.mamba.A_log += 0.5
            one.mamba.in_proj.weight = nn.Parameter(one.mamba.in_proj.weight * 1.5)
        found, _ = frame_by_frame(one, x, None, fast=True)
        wanted, _ = frame_by_frame(one, x, None, fast=False)
        assert torch.allclose(found, wanted, atol=2e-5)
    assert layer.state_dict().keys() == make_layer(activation=Swish).state_dict().keys()


def test_the_kernel_takes_what_it_knows_and_leaves_the_rest_to_torch():
    x = torch.randn(1, 1, 24)
    for activation, takes in ((nn.GELU, True), (Swish, True), (nn.ReLU, False)):
        assert one_frame._kernel_takes(make_layer(activation=activation), x) == (
            takes and refusal() is None
        )


@pytest.mark.parametrize("size", [1e-4, 30.0])
def test_small_and_large_numbers_are_as_exact_as_elsewhere(size, way):
    layer, x = make_layer(activation=nn.GELU), size * torch.randn(1, 6, 24)
    found, _ = frame_by_frame(layer, x, None, fast=True)
    wanted, _ = frame_by_frame(layer, x, None, fast=False)
    assert torch.allclose(found, wanted, atol=2e-5)
    x[0, 3, 2] = torch.nan
    found, _ = frame_by_frame(layer, x, None, fast=True)
    assert not found[:, :3].isnan().any() and found[:, 3:].isnan().all()


def test_other_cases_go_the_general_way():
    layer, x = make_layer(), torch.randn(1, 2, 24)
    with torch.no_grad():
        _, state = layer(x[:, :1], return_state=True)
        frame = x[:, 1:]
        assert takes_one_frame(layer, frame, None, state)
        assert not takes_one_frame(layer, x, None, state)
        assert not takes_one_frame(layer, frame, torch.tensor([1]), state)
        assert not takes_one_frame(layer, frame.double(), None, state)
        assert not takes_one_frame(make_layer().train(), frame, None, state)
        normed = make_layer(mamba_config={"dt_bc_norm": True})
        assert not takes_one_frame(normed, frame, None, state)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not takes_one_frame(layer, frame, None, state)
    assert not takes_one_frame(layer, frame, None, state)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, conv, ssm, inputs: (x[:1], conv, ssm, inputs),
        lambda x, conv, ssm, inputs: (x[..., :20], conv, ssm, inputs),
        lambda x, conv, ssm, inputs: (x, conv[:, :9], ssm, inputs),
        lambda x, conv, ssm, inputs: (x, conv, ssm[..., :3], inputs),
        lambda x, conv, ssm, inputs: (x, conv, ssm.double(), inputs),
        lambda x, conv, ssm, inputs: (x, conv, ssm, inputs[..., :2]),
    ],
)
def test_what_is_not_of_the_layers_sizes_never_reaches_the_kernel(change):
    layer, x = make_layer(), torch.randn(2, 2, 24)
    with torch.no_grad():
        _, ((conv, ssm), inputs) = layer(x[:, :1], return_state=True)
        frame, conv, ssm, inputs = change(x[:, 1:], conv, ssm, inputs)
        assert not takes_one_frame(layer, frame, None, (MambaState(conv, ssm), inputs))


def test_parameters_of_another_type_are_left_to_torch():
    layer, x = make_layer(), torch.randn(1, 2, 24)
    _, state = frame_by_frame(layer, x[:, :1], None, fast=True)
    conv = layer.convolution_module.conv
    conv.bias.data = conv.bias.data.double()
    with torch.no_grad():
        assert one_frame._by_kernel(layer, x[:, 1:], state) is None


def test_states_that_fade_away_become_zero(way):
    """A number too small to be a normal one costs a processor many times as much."""
    layer, x = make_layer(), torch.randn(1, 2, 24)
    _, ((conv, ssm), inputs) = frame_by_frame(layer, x[:, :1], None, fast=True)
    with torch.no_grad():
        layer.mamba.x_proj.weight.zero_()
        _, state = layer(
            x[:, 1:],
            state=(MambaState(conv, torch.full_like(ssm, 1e-39)), inputs),
            return_state=True,
        )
    assert way == "torch" or not state[0].ssm.any()


def test_an_encoder_frame_by_frame_is_the_encoder():
    torch.manual_seed(2)
    encoder = ConmambaEncoder(2, 16, 32, kernel_size=5, causal=True).eval()
    x, state, outputs = torch.randn(2, 9, 16), None, []
    with torch.no_grad():
        for frame in x.split(1, 1):
            out, state = encoder.forward_chunk(frame, state)
            outputs.append(out)
        wanted, _ = encoder(x)
    assert torch.allclose(torch.cat(outputs, 1), wanted, atol=2e-5)
