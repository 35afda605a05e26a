"""Separation along a stream gives what the whole mixture gives, as early as it says, from a state of fixed size."""

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork
from modules.separation.streaming import StreamingSeparator
from tests.support.golden import Golden

KERNEL, CHANNELS = 16, 12


def around(masknet, kernel=KERNEL, bias=False):
    """The mask net between an encoder and a decoder of its own channels."""
    return SeparationNetwork(
        Encoder(kernel_size=kernel, out_channels=CHANNELS),
        masknet,
        Decoder(CHANNELS, 1, kernel_size=kernel, stride=kernel // 2, bias=bias),
    ).eval()


def causal(kernel=KERNEL, speakers=2, **options):
    return around(MaskNet(CHANNELS, 10, speakers, 2, bidirectional=False, **options), kernel)


def in_blocks(separator, mix, sizes):
    """Sources of a mixture that is pushed in blocks, the sizes in turn over and over."""
    stream = StreamingSeparator(separator)
    state, sources, read, turn = stream.initial_state(len(mix)), [], 0, 0
    while read < mix.shape[1]:
        block = mix[:, read : read + sizes[turn % len(sizes)]]
        ready, state = stream.push(block, state)
        sources.append(ready)
        read, turn = read + block.shape[1], turn + 1
    return torch.cat([*sources, stream.finish(state)], dim=1)


def difference(given, wanted):
    assert given.shape == wanted.shape
    return float((given - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("sizes", [[1], [7], [8], [16], [1000], [3, 0, 40, 1, 16, 161]], ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_blocks_of_any_size_give_what_the_whole_mixture_gives(sizes, batch):
    mix = torch.randn(batch, 333)
    separator = causal()
    with torch.no_grad():
        assert difference(in_blocks(separator, mix, sizes), separator(mix)) < 1e-5
        separator, mix = separator.double(), mix.double()
        assert difference(in_blocks(separator, mix, sizes), separator(mix)) < 1e-10


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 23, 24, 25, 40])
def test_a_mixture_of_any_length_has_all_its_sources_at_the_end(samples):
    separator, mix = causal().double(), torch.randn(2, samples).double()
    with torch.no_grad():
        assert difference(in_blocks(separator, mix, [5]), separator(mix)) < 1e-10


@pytest.mark.parametrize(
    "options",
    [
        {"speakers": 3},
        {"kernel": 2},
        {"kernel": 20, "mask_nonlinear": "softmax"},
        {"rms_norm": False, "dt_bc_norm": True, "residual_in_fp32": True},
        {"d_state": 4, "expand": 1, "d_conv": 2},
    ],
    ids=str,
)
def test_every_option_of_the_causal_network_streams(options):
    separator, mix = causal(**options), torch.randn(2, 211)
    with torch.no_grad():
        assert difference(in_blocks(separator, mix, [13]), separator(mix)) < 1e-5


def test_the_published_causal_network_gives_the_recorded_sources_block_by_block():
    golden = Golden("sep_mambatasnet_causal")
    separator = around_recorded(golden)
    given = in_blocks(separator, golden["input/mix"], [37])
    golden.compare("output/est_source", given, tolerance=1e-4)


def around_recorded(golden):
    """A separator of the recorded sizes with the recorded weights."""
    state = golden.state_dict()
    channels, _, kernel = state["encoder.conv1d.weight"].shape
    bottleneck, *_ = state["masknet.bottleneck_conv1x1.conv.weight"].shape
    wide, *_ = state["masknet.mask_conv1x1.conv.weight"].shape
    blocks = {name.split(".")[3] for name in state if name.startswith("masknet.mamba_net.layers.")}
    masknet = MaskNet(channels, bottleneck, wide // channels, len(blocks), bidirectional=False)
    separator = SeparationNetwork(
        Encoder(kernel_size=kernel, out_channels=channels),
        masknet,
        Decoder(channels, 1, kernel_size=kernel, stride=kernel // 2, bias=False),
    )
    separator.load_state_dict(state, strict=True)
    return separator.eval()


def test_a_source_depends_on_samples_before_its_latency_and_on_none_after():
    separator = causal().double()
    latency = StreamingSeparator(separator).latency
    assert latency == KERNEL
    mix = torch.randn(1, 200).double()
    with torch.no_grad():
        whole = separator(mix)
        for at in (0, 1, 56, 63, 64):  # both ends of a stride
            later = mix.clone()
            later[:, at + latency :] += torch.randn(later[:, at + latency :].shape)
            assert torch.allclose(separator(later)[:, : at + 1], whole[:, : at + 1], atol=1e-12)
        # the first sample of a frame waits for the frame's last: the latency is no less
        last = mix.clone()
        last[:, 64 + latency - 1] += 1
        assert not torch.allclose(separator(last)[:, 64], whole[:, 64], atol=1e-6)


@pytest.mark.parametrize("kernel", [2, 16, 20])
def test_sources_are_given_no_later_than_the_latency(kernel):
    stream = StreamingSeparator(causal(kernel))
    state, given = stream.initial_state(1), 0
    for read in range(1, 100):
        ready, state = stream.push(torch.randn(1, 1), state)
        given += ready.shape[1]
        assert read - stream.latency < given <= max(0, read - stream.latency // 2)


def test_the_state_keeps_no_more_memory_after_a_long_stream_than_after_a_short_one():
    stream = StreamingSeparator(causal())

    def held(*blocks):
        state = stream.initial_state(2)
        for block in blocks:
            _, state = stream.push(torch.randn(2, block), state)
        tensors = [
            state.unfinished,
            state.overlap,
            *(one for layer in state.stack for one in layer),
        ]
        assert not any(one.requires_grad for one in tensors)
        # what a view keeps alive counts too
        return [one.untyped_storage().nbytes() for one in tensors]

    assert held(24) == held(*[80] * 50, 24) == held(8000, 24) == held(8024)


def test_a_state_can_be_gone_on_from_twice():
    stream = StreamingSeparator(causal())
    _, state = stream.push(torch.randn(1, 50), stream.initial_state(1))
    block = torch.randn(1, 50)
    first, _ = stream.push(block, state)
    stream.push(torch.randn(1, 90), state)
    again, _ = stream.push(block, state)
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaskNet(CHANNELS, 8, 2, 1, bidirectional=True),
        lambda: DPMambaMaskNet(
            2, CHANNELS, 8, 1, K=8, n_mamba=1, skip_around_intra=True, bidirectional=False
        ),
        lambda: SepFormerMaskNet(
            2, CHANNELS, 8, 1, K=8, intra_layers=1, inter_layers=1, nhead=2, d_ffn=8
        ),
    ],
    ids=["bidirectional", "dual-path Mamba", "SepFormer"],
)
def test_a_network_that_reads_ahead_is_refused_by_name(make):
    masknet = make()
    with pytest.raises(ValueError, match=f"{type(masknet).__name__} reads the whole mixture"):
        StreamingSeparator(around(masknet))


def test_a_decoder_with_a_bias_is_refused():
    masknet = MaskNet(CHANNELS, 8, 2, 1, bidirectional=False)
    with pytest.raises(ValueError, match="bias=False"):
        StreamingSeparator(around(masknet, bias=True))


@pytest.mark.parametrize("shape", [(2, 20), (20,), (1, 1, 20)])
def test_a_block_of_other_streams_than_the_states_is_refused(shape):
    stream = StreamingSeparator(causal())
    with pytest.raises(ValueError, match="batch of 1"):
        stream.push(torch.randn(shape), stream.initial_state(1))
