"""Student layers: published sizes, what each of them mixes, and padding that leaves no trace."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modules.speaker.layers import LAYERS, BiMambaLayer, ConvMixerLayer, SVMixerLayer
from modules.speaker.layers.mixers import CycleLinear, CycleMLPLayer
from modules.speaker.layers.parts import GroupedMLP
from modules.speaker.layers.sequence import TransformerLayer
from modules.speaker.layers.sv_mixer import LocalGlobalMixing, MultiScaleMixing

WIDTH, FRAMES = 1024, 149
# millions of parameters and billions of multiply-accumulates of a layer, SV-Mixer paper
PUBLISHED = {
    "transformer": (8.40, 1.25),
    "mlp_mixer": (8.58, 1.43),
    "cycle_mlp": (9.45, 1.42),
    "conv_mixer": (9.02, 1.48),
    "sv_mixer": (3.75, 0.63),
}
ANY_LENGTH = [name for name, layer in LAYERS.items() if layer.any_length]
FIXED = [name for name, layer in LAYERS.items() if not layer.any_length]


def count_parameters(layer):
    return sum(parameter.numel() for parameter in layer.parameters())


def billions_of_multiply_accumulates(layer):
    """Work of a layer without weights on the meta device: layers with weights, and products of attention."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        layer(torch.empty(1, FRAMES, WIDTH))
    counts = counter.get_flop_counts()["Global"]
    products = counts.pop(torch.ops.aten.bmm, 0)
    return sum(counts.values()) / 2e9, products / 2e9


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layer_has_the_published_parameters_and_work_within_two_per_cent(name):
    with torch.device("meta"):
        layer = LAYERS[name](WIDTH, n_frames=FRAMES)
    parameters, multiply_accumulates = PUBLISHED[name]
    assert count_parameters(layer) / 1e6 == pytest.approx(parameters, rel=0.02)
    with_weights, products = billions_of_multiply_accumulates(layer)
    assert with_weights == pytest.approx(multiply_accumulates, rel=0.02)
    # the published work of the Transformer leaves out the products of attention
    assert products == (2 * FRAMES**2 * WIDTH / 1e9 if name == "transformer" else 0)


def test_a_bimamba_layer_has_sv_mixers_parameters_within_two_per_cent():
    assert count_parameters(BiMambaLayer(WIDTH)) / 1e6 == pytest.approx(3.75, rel=0.02)


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_an_utterance_does_not_depend_on_neighbours_in_the_batch(name):
    torch.manual_seed(1)
    layer = LAYERS[name](16).double().eval()
    for _ in range(50):
        lengths = torch.randint(1, 31, (2,))
        x = torch.randn(2, int(lengths.max()), 16, dtype=torch.float64)
        together = layer(x, lengths)
        for item, length in enumerate(lengths):
            alone = layer(x[item : item + 1, :length])[0]
            torch.testing.assert_close(together[item, :length], alone)


@pytest.mark.parametrize("name", FIXED)
def test_a_layer_of_fixed_length_refuses_every_other(name):
    layer = LAYERS[name](16, n_frames=6)
    with pytest.raises(ValueError, match="exactly 6 frames; got an utterance of 7"):
        layer(torch.randn(1, 7, 16))
    with pytest.raises(ValueError, match="exactly 6 frames; got an utterance of 4"):
        layer(torch.randn(2, 6, 16), torch.tensor([6, 4]))
    with pytest.raises(ValueError, match="n_frames must be 1 or more; got None"):
        LAYERS[name](16)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_learns_under_bfloat16_autocast(name):
    torch.manual_seed(2)
    layer = LAYERS[name](16, n_frames=9, dropout=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(torch.randn(3, 9, 16), torch.tensor([9, 9, 9]))
    out.float().square().mean().backward()
    for parameter_name, parameter in layer.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.any(), parameter_name


def test_a_cycle_layer_reads_each_channel_from_its_own_frame():
    torch.manual_seed(3)
    layer, x, lengths = CycleLinear(5, step_size=3), torch.randn(2, 6, 5), [6, 4]
    out = layer(x, torch.tensor(lengths))
    for item, length in enumerate(lengths):
        for frame in range(length):
            read = [(frame + channel % 3 - 1, channel) for channel in range(5)]
            taken = torch.tensor(
                [float(x[item, t, c]) if 0 <= t < length else 0.0 for t, c in read]
            )
            torch.testing.assert_close(out[item, frame], layer.weight @ taken + layer.bias)


def test_a_group_of_channels_sees_no_other_group():
    mlp = GroupedMLP(8, groups=4, expansion=4.5)
    x = torch.randn(1, 3, 8, requires_grad=True)
    mlp(x)[..., 2:4].sum().backward()
    seen = x.grad.abs().sum((0, 1)) > 0
    assert seen.tolist() == [False, False, True, True, False, False, False, False]


def test_mixing_at_half_the_rate_is_interpolated_between_pairs_of_frames():
    torch.manual_seed(4)
    mixing, x = MultiScaleMixing(4, groups=2, expansion=4), torch.randn(1, 5, 4)
    pairs = torch.stack([x[0, :2].mean(0), x[0, 2:4].mean(0), x[0, 4]])
    slow = mixing.slow(pairs[None])[0]
    out = (mixing(x) - mixing.fast(x))[0]
    torch.testing.assert_close(out[0], slow[0])
    torch.testing.assert_close(out[2], slow[1])
    torch.testing.assert_close(out[4], slow[2])
    assert bool(((out[1] - slow[0]) * (slow[1] - out[1]) >= 0).all())


def test_local_global_mixing_is_a_convolution_and_one_mlp_over_time_for_all_channels():
    torch.manual_seed(5)
    mixing, x = LocalGlobalMixing(4, n_frames=6), torch.randn(1, 6, 4)
    kernels = mixing.local.weight[:, 0]
    padded = torch.nn.functional.pad(x[0], (0, 0, 1, 1))
    for channel in range(4):
        local = torch.stack([padded[t : t + 3, channel] @ kernels[channel] for t in range(6)])
        expected = torch.nn.Sequential(*mixing.mlp)(local + mixing.local.bias[channel])
        torch.testing.assert_close(mixing(x)[0, :, channel], expected)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: SVMixerLayer(20, n_frames=5), "groups must divide d_model = 20; got 8"),
        (lambda: SVMixerLayer(8, n_frames=5), "expansion must give a group of 1 channels a whole"),
        (lambda: ConvMixerLayer(12, n_frames=5), "groups must divide d_model = 12; got 8"),
        (lambda: ConvMixerLayer(8, n_frames=5, kernel_size=4), "kernel_size must be an odd number"),
        (lambda: CycleMLPLayer(8, step_size=2), "step_size must be an odd number"),
        (lambda: TransformerLayer(10, n_heads=3), "n_heads must divide d_model = 10; got 3"),
    ],
)
def test_an_option_that_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
