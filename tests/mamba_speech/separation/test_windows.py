"""Streams in pieces: windows, the order and level of speakers over them, resampling; on networks of known answers."""

import pytest
import soundfile
import torch

from mamba_speech.audio import load_audio
from mamba_speech.blocks import AudioBlocks
from mamba_speech.separation.loudness import Loudness
from mamba_speech.separation.windows import align, cut, separate_windows
from tests.support.separation import RATE, joined, tones
from tests.support.separation_networks import EDGE, assert_near, bands


def test_windows_of_a_local_network_give_what_the_whole_gives():
    mix, network = tones(10.003).sum(1), bands()
    whole = network(mix[None])[0]
    for window, overlap, block in ((4000, 1000, 1234), (3001, 999, 10**6), (3000, 2400, 7000)):
        sources, back = joined(separate_windows(network, mix.split(block), window, overlap))
        assert torch.equal(back, mix)
        assert_near(sources[EDGE:-EDGE], whole[EDGE:-EDGE], 2e-3)


def test_speakers_keep_their_place_level_and_sign_over_windows_of_a_network_that_swaps_them():
    mix, whole = tones(22).sum(1), bands()(tones(22).sum(1)[None])[0]
    pieces = list(separate_windows(bands(moody=True), mix.split(5000), 2 * RATE, RATE))
    sources, _ = joined(pieces)
    assert len(pieces) > 20
    order, signs = align(whole, sources)
    assert (signs == 1).all()
    assert_near(sources[EDGE:-EDGE, order], whole[EDGE:-EDGE], 0.01)


def test_windows_cover_a_stream_without_gaps_and_start_on_whole_frames():
    for samples in (1, 99, 100, 101, 160, 161, 163, 399, 1000):
        stream = torch.arange(samples, dtype=torch.float32)
        for size in (1, 7, 1000):
            windows = list(cut(stream.split(size), 100, 60, 4))
            covered = torch.zeros(samples)
            for start, window in windows:
                assert start % 4 == 0 and torch.equal(window, stream[start : start + len(window)])
                covered[start : start + len(window)] = 1
            assert covered.all()
            assert all(100 <= len(window) < 104 for _, window in windows) or samples < 100


def test_silence_keeps_the_order_and_signs_of_speakers():
    order, signs = align(torch.zeros(5, 3), torch.zeros(5, 3))
    assert order == [0, 1, 2] and signs.tolist() == [1.0, 1.0, 1.0]


def test_a_source_is_turned_over_only_where_it_is_plainly_upside_down():
    before = torch.randn(4000, 2)
    order, signs = align(before, before.flip(1) * torch.tensor([1.0, -1.0]))
    assert (order, signs.tolist()) == ([1, 0], [-1.0, 1.0])
    noise = torch.randn(4000, 2) - 0.2 * before
    assert align(before, noise)[1].tolist() == [1.0, 1.0]


def test_windows_that_cannot_be_are_refused():
    for window, overlap in ((20, 8), (23, 0), (400, 400)):
        with pytest.raises(ValueError, match="a window must be at least"):
            next(separate_windows(bands(), [torch.zeros(1000)], window, overlap))


@pytest.mark.parametrize("gains", [(0.5, 2.0), (-0.5, -2.0), (0.01, 30.0)])
def test_the_level_of_a_stream_is_that_of_the_whole(gains):
    sources = tones(1)
    given = sources / torch.tensor(gains)
    loudness = Loudness("mixture")
    for piece, mix in zip(given.split(777), sources.sum(1).split(777), strict=True):
        loudness.add(piece, mix)
        loudness.hear(piece)
    found, factor = loudness.gains()
    assert_near(given * found, sources, 1e-3)
    assert factor == 1


def test_a_silent_source_of_a_stream_stays_silent():
    loudness = Loudness("mixture")
    sources = tones(1) * torch.tensor([1.0, 0.0])
    loudness.add(sources, sources.sum(1))
    loudness.hear(sources)
    gains, _ = loudness.gains()
    assert torch.isfinite(gains).all() and gains[0] == pytest.approx(1, abs=1e-3)


def test_blocks_of_a_file_are_the_file(tmp_path):
    wave = torch.randn(8 * 16000, 2)
    soundfile.write(tmp_path / "a.wav", wave.numpy(), 16000, "FLOAT")
    blocks = list(AudioBlocks(tmp_path / "a.wav", RATE))
    assert len(blocks) == 3
    assert_near(torch.cat(blocks), load_audio(tmp_path / "a.wav", RATE), 1e-5)
