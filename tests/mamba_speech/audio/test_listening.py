"""Channels that hurt when they are averaged, and floating-point numbers on the scale of integers."""

import numpy as np
import pytest
import soundfile

from mamba_speech.audio import collected_warnings, load_audio
from mamba_speech.audio.reading import _file_verdict
from mamba_speech.blocks import AudioBlocks
from mamba_speech.recordings import Recording
from tests.support.odd_audio import RATE, speech_like

VOICE, OTHER = speech_like(20), speech_like(20, seed=1)


def decibels(level):
    return np.float32(10 ** (level / 20))


def read_everywhere(samples, path, subtype="PCM_16"):
    """One channel and kinds of warnings; the same whole, in blocks, in part, and from memory."""
    soundfile.write(path, samples, RATE, subtype)
    odd = []
    whole = load_audio(path, RATE, warnings=odd).numpy()
    blocks = AudioBlocks(path, RATE)
    assert np.array_equal(np.concatenate(list(blocks)), whole)
    assert list(blocks.warnings) == odd
    for start, stop in ((0, 1000), (3 * RATE, 4 * RATE), (19 * RATE, None)):
        part_odd = []
        part = load_audio(path, RATE, start, stop, warnings=part_odd).numpy()
        assert np.array_equal(part, whole[start:stop]) and part_odd == odd
    assert all(one.text.startswith(f"{path}: ") for one in odd)
    return whole, [one.kind for one in odd]


@pytest.mark.parametrize("weaker", [1.0, 0.7, 0.3])
@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_of_opposite_channels_the_louder_is_taken(weaker, noise, tmp_path):
    hiss = noise * np.random.default_rng(2).standard_normal(len(VOICE))
    samples = np.stack([-weaker * VOICE + hiss, VOICE], 1)
    found, kinds = read_everywhere(samples, tmp_path / "a.wav")
    assert kinds == ["opposite_channels"]
    assert np.allclose(found, VOICE if weaker < 1 else found, atol=1e-4)
    assert np.sqrt(np.mean(found**2)) > 0.99 * np.sqrt(np.mean(VOICE**2))


@pytest.mark.parametrize("level", [-np.inf, -90, -60, -41])
@pytest.mark.parametrize("offset", [0.0, 0.2])
def test_a_silent_channel_is_left_out(level, offset, tmp_path):
    quiet = decibels(level) * OTHER + np.float32(offset)
    found, kinds = read_everywhere(np.stack([quiet, VOICE], 1), tmp_path / "a.flac")
    assert kinds == ["silent_channel"] and np.allclose(found, VOICE, atol=1e-4)


@pytest.mark.parametrize(
    "channels",
    [
        [VOICE, VOICE],
        [VOICE, OTHER],
        [VOICE, decibels(-39) * OTHER],
        # two people on one line: each is silent while the other speaks
        [VOICE * (np.arange(len(VOICE)) < 19 * RATE), OTHER * (np.arange(len(VOICE)) >= 19 * RATE)],
        [0 * VOICE, 0 * VOICE],
        # a delay, as of two microphones
        [VOICE, np.roll(VOICE, 8)],
    ],
    ids=["same", "different", "quiet", "turns", "silence", "delayed"],
)
def test_other_channels_are_averaged(channels, tmp_path):
    found, kinds = read_everywhere(np.stack(channels, 1), tmp_path / "a.wav")
    assert kinds == [] and np.allclose(found, (channels[0] + channels[1]) / 2, atol=1e-4)


@pytest.mark.parametrize("start, stop", [(0.5, 1.0), (0.0, 0.3), (0.4, 0.7), (0.85, 1.0)])
@pytest.mark.parametrize("others", [[], [OTHER]], ids=["two", "three"])
def test_channels_that_are_opposite_in_a_part_of_the_file_lose_no_part(
    start, stop, others, tmp_path
):
    place = np.arange(len(VOICE)) / len(VOICE)
    turned = np.where((start <= place) & (place < stop), -0.9, 0.9).astype("float32") * VOICE
    quiet = [np.float32(0.5) * other for other in others]
    found, kinds = read_everywhere(np.stack([VOICE, turned, *quiet], 1), tmp_path / "a.flac")
    assert kinds == ["opposite_channels"] and np.allclose(found, VOICE, atol=1e-4)


def test_channels_that_are_opposite_for_a_moment_are_averaged(tmp_path):
    turned = VOICE.copy()
    turned[8 * RATE : 9 * RATE] *= -1
    found, kinds = read_everywhere(np.stack([VOICE, turned], 1), tmp_path / "a.wav")
    assert kinds == [] and np.allclose(found, (VOICE + turned) / 2, atol=1e-4)


def test_a_phase_shift_of_a_quarter_is_no_opposite(tmp_path):
    shifted = np.fft.irfft(np.fft.rfft(VOICE) * -1j, len(VOICE)).astype("float32")
    found, kinds = read_everywhere(np.stack([VOICE, shifted], 1), tmp_path / "a.wav")
    assert kinds == [] and np.allclose(found, (VOICE + shifted) / 2, atol=1e-4)


def test_of_many_channels_the_silent_are_left_out_and_opposite_ones_leave_the_loudest(tmp_path):
    silence = np.zeros_like(VOICE)
    film = np.stack([silence, silence, VOICE, silence, OTHER, silence], 1)
    found, kinds = read_everywhere(film, tmp_path / "film.flac")
    assert kinds == ["silent_channel"] and np.allclose(found, (VOICE + OTHER) / 2, atol=1e-4)
    odd = np.stack([0.5 * VOICE, -VOICE, OTHER], 1)
    found, kinds = read_everywhere(odd, tmp_path / "odd.wav")
    assert kinds == ["opposite_channels"] and np.allclose(found, -VOICE, atol=1e-4)


def test_a_verdict_that_stays_open_reads_the_file_twice_and_decides_by_all_of_it(tmp_path):
    # longer than what is kept: the second channel is heard at the very end alone
    long = np.zeros((90 * RATE, 2), "float32")
    long[:, 0] = np.resize(VOICE, len(long))
    assert read_everywhere(long, tmp_path / "a.wav")[1] == ["silent_channel"]
    long[-2 * RATE :, 1] = OTHER[: 2 * RATE]
    found, kinds = read_everywhere(long, tmp_path / "b.wav")
    assert kinds == [] and np.allclose(found, long.mean(1), atol=1e-4)


def test_the_verdict_on_a_file_is_found_once_and_anew_when_the_file_changes(tmp_path):
    _file_verdict.cache_clear()
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([VOICE, -VOICE], 1), RATE)
    for start in (0, 100, 200):
        assert load_audio(path, RATE, start, start + 100, warnings=[]).any()
    assert _file_verdict.cache_info().misses == 1
    soundfile.write(path, np.stack([VOICE, OTHER, OTHER], 1), RATE)
    assert np.allclose(load_audio(path, RATE, 0, 100), (VOICE + 2 * OTHER)[:100] / 3, atol=1e-4)
    # one channel of integers is read without a verdict
    soundfile.write(path, VOICE, RATE)
    load_audio(path, RATE, 5, 100)
    assert _file_verdict.cache_info().misses == 2


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2])
def test_floats_on_the_scale_of_integers_are_the_integers_file(bits, channels, tmp_path):
    samples = np.stack([VOICE, OTHER][:channels], 1)
    integers = np.rint(samples.astype(np.float64) * 2 ** (bits - 1))
    soundfile.write(
        tmp_path / "a.wav", (integers * 2 ** (32 - bits)).astype("int32"), RATE, f"PCM_{bits}"
    )
    wanted = load_audio(tmp_path / "a.wav", RATE).numpy()
    for subtype in ("FLOAT", "DOUBLE"):
        found, kinds = read_everywhere(integers, tmp_path / "b.wav", subtype)
        assert kinds == ["integer_scale"] and np.array_equal(found, wanted)
    # as another program leaves them that changed the rate
    found, kinds = read_everywhere(integers + 0.25, tmp_path / "c.wav", "DOUBLE")
    assert kinds == ["integer_scale"] and np.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("peak", [0.1, 1.0, 1.5, 2.0, 4.0, 20.0])
def test_floats_that_are_merely_loud_stay_as_they_are(peak, tmp_path):
    samples = VOICE / abs(VOICE).max() * np.float32(peak)
    found, kinds = read_everywhere(samples, tmp_path / "a.wav", "FLOAT")
    assert kinds == [] and np.array_equal(found, samples)


def test_a_sum_of_integer_recordings_has_their_scale(tmp_path):
    # its peak is over the integers of 16 bits
    loud = np.rint(VOICE / abs(VOICE).max() * 45000)
    found, kinds = read_everywhere(loud, tmp_path / "sum.wav", "FLOAT")
    assert kinds == ["integer_scale"] and np.allclose(found, loud / 2**15, atol=1e-4)


@pytest.mark.parametrize("peak, count", [(50.0, 1), (700.0, 1), (9000.0, 200)])
def test_clicks_make_no_integers_of_floats(peak, count, tmp_path):
    samples = VOICE.copy()
    samples[7 * RATE : 7 * RATE + count] = peak + 0.3
    found, kinds = read_everywhere(samples, tmp_path / "a.wav", "FLOAT")
    assert kinds == [] and np.array_equal(found, samples)


def test_whole_numbers_up_to_one_are_no_integers(tmp_path):
    found, kinds = read_everywhere(np.sign(VOICE), tmp_path / "a.wav", "FLOAT")
    assert kinds == [] and set(np.unique(found)) <= {-1.0, 0.0, 1.0}


def test_integers_after_a_long_silence_are_still_integers(tmp_path):
    samples = np.concatenate([np.zeros(40 * RATE, "float32"), np.rint(VOICE * 2**15)])
    found, kinds = read_everywhere(samples, tmp_path / "a.wav", "FLOAT")
    assert kinds == ["integer_scale"] and abs(found).max() <= 0.5


@pytest.mark.parametrize("scale, dtype", [(1.0, "float32"), (2.0**15, "int16")])
def test_a_waveform_in_memory_has_the_same_verdict_as_a_file(scale, dtype):
    waveform = (np.stack([VOICE, -VOICE], 1) * scale).astype(dtype)
    with collected_warnings() as odd:
        found = Recording(waveform, RATE).load(RATE).numpy()
    assert np.allclose(found, VOICE, atol=1e-4)
    assert odd[0] == (
        "opposite_channels",
        "the waveform: its channels cancel out: only channel 1 is used",
    )
    with collected_warnings() as odd:
        Recording(np.rint(VOICE * 2**15), RATE).load(RATE)
    assert [one.kind for one in odd] == ["integer_scale"]
