"""One embedding of a recording of any length: windows, crops, and SpeechBrain's form."""

import pytest
import torch

from modules.speaker.windows import RecordingEmbedding, cut_crops, cut_windows, embed_blocks
from tests.support.verification import RATE, Timbre


def blocks_of(waveform, size):
    """The waveform in pieces."""
    return waveform.split(size)


@pytest.mark.parametrize("samples", [1, 9, 10, 11, 19, 20, 21, 30, 31, 95])
@pytest.mark.parametrize("size", [1, 4, 10, 100])
def test_windows_cover_a_stream_without_a_gap_whatever_its_pieces(samples, size):
    stream = torch.arange(samples)
    windows = list(cut_windows(blocks_of(stream, size), 10))
    assert torch.equal(torch.cat(windows), stream)
    assert max(map(len, windows)) <= 10
    if samples > 10:
        assert min(map(len, windows)) >= 5
    assert [len(one) for one in windows] == [len(one) for one in cut_windows([stream], 10)]


def test_a_stream_is_read_two_windows_ahead_at_most():
    read = 0

    def blocks():
        nonlocal read
        for _ in range(1000):
            read += 7
            yield torch.zeros(7)

    given = 0
    for window in cut_windows(blocks(), 50):
        assert read - given <= 2 * 50 + 7
        given += len(window)
    assert given == read == 7000


@pytest.mark.parametrize("samples", [1, 3, 7, 8, 14, 15, 100])
def test_crops_have_one_length_and_cover_the_waveform_in_even_steps(samples):
    waveform = torch.arange(samples)
    crops = cut_crops(waveform, 7)
    assert crops.shape == (-(-samples // 7), 7)
    assert set(crops.flatten().tolist()) == set(range(samples))
    steps = crops[1:, 0] - crops[:-1, 0]
    assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_a_long_recording_is_the_mean_of_its_windows_by_duration_whatever_its_pieces():
    model = Timbre().eval()
    model.sample_rate = 1000
    waveform = torch.randn(150 * 1000)
    with torch.no_grad():
        whole = embed_blocks(model, [waveform])
        pieces = embed_blocks(model, waveform.split(7777))
    assert torch.equal(whole, pieces)
    lengths = [shape[1] for shape in model.seen[:3]]
    assert lengths == [60000, 45000, 45000]
    parts = waveform.split(lengths)
    with torch.no_grad():
        vectors = [embed_blocks(model, [part]) * len(part) for part in parts]
    torch.testing.assert_close(whole, sum(vectors) / len(waveform))


def test_a_network_of_one_length_reads_crops_of_it_and_nothing_else():
    model = Timbre(crop_samples=RATE).eval()
    waveform = torch.randn(round(2.5 * RATE))
    with torch.no_grad():
        found = embed_blocks(model, [waveform])
        assert model.seen == [(3, RATE)]
        alone = [embed_blocks(model, [crop]) for crop in cut_crops(waveform, RATE)]
        short = embed_blocks(model, [waveform[: RATE // 3]])
        assert model.seen[-1] == (1, RATE)
        repeated = embed_blocks(model, [waveform[: RATE // 3].repeat(4)[:RATE]])
    torch.testing.assert_close(found, torch.stack(alone).mean(0))
    assert torch.equal(short, repeated)


def test_too_few_samples_are_refused():
    for blocks, message in (([torch.zeros(63)], "has 63 samples"), ([], "holds no samples")):
        with pytest.raises(ValueError, match=message):
            embed_blocks(Timbre().eval(), blocks)


def test_a_batch_in_speechbrains_form_gives_each_recording_what_it_gets_alone():
    model = Timbre().eval()
    wavs = torch.randn(3, RATE)
    samples = [RATE, RATE // 2, 5000]
    with torch.no_grad():
        found = RecordingEmbedding(model)(wavs, torch.tensor(samples) / RATE)
        alone = [embed_blocks(model, [wav[:n]]) for wav, n in zip(wavs, samples, strict=True)]
    assert torch.equal(found, torch.stack(alone)[:, None])
