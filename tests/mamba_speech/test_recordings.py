"""What a user may give for one recording and for many, and what becomes of unusable ones."""

import io

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech import AudioError
from mamba_speech.recordings import (
    Recording,
    RecordingResult,
    each_result,
    one_or_each,
    recordings_of,
)

RATE = 8000
TONE = (0.5 * np.sin(np.arange(800) / 3)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Three recordings at two depths, and something else."""
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "a.flac", "deep/c.wav"):
        soundfile.write(tmp_path / name, TONE, RATE)
    (tmp_path / "notes.txt").write_text("no audio")
    return tmp_path


def names(audio, **options):
    recordings, many = recordings_of(audio, **options)
    return [one.name for one in recordings], many


def test_one_path_is_one_recording_and_never_its_letters(folder):
    path = folder / "b.wav"
    assert names(str(path)) == names(path) == ([str(path)], False)
    assert names("ab") == (["ab"], False)


def test_a_folder_is_its_recordings_and_a_list_what_is_in_it(folder):
    expected = [str(folder / name) for name in ("a.flac", "b.wav", "deep/c.wav")]
    assert names(folder) == names(str(folder)) == (expected, True)
    assert names([folder, folder / "b.wav"]) == ([*expected, str(folder / "b.wav")], True)
    assert names(folder / name for name in ("b.wav",)) == (expected[1:2], True)
    for array in (np.array([str(folder)]), np.array([folder], dtype=object)):
        assert names(array) == (expected, True)
    assert names([]) == ([], True)


def test_an_iterator_is_read_no_further_than_asked():
    def endless():
        while True:
            yield TONE

    recordings, many = recordings_of(endless(), RATE)
    assert many and [next(recordings).name for _ in range(2)] == ["waveform 0", "waveform 1"]


@pytest.mark.parametrize(
    "waveform",
    [
        TONE,
        TONE.astype(np.float64),
        TONE.astype(np.longdouble),
        TONE.astype(">f4"),
        np.stack([TONE, TONE], axis=1),
        TONE[::-1].copy()[::-1],
        torch.from_numpy(TONE),
        torch.from_numpy(TONE).requires_grad_(),
        torch.from_numpy(TONE)[:, None],
    ],
    ids=[
        "float32",
        "float64",
        "longdouble",
        "big endian",
        "stereo",
        "reversed",
        "tensor",
        "grad",
        "one channel",
    ],
)
def test_a_waveform_of_any_kind_is_mono_float32(waveform):
    found = Recording(waveform, RATE).load(RATE)
    assert found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(found, torch.from_numpy(TONE))


def test_integers_of_16_and_32_bits_are_scaled_and_others_refused(folder):
    for dtype in ("int16", "int32"):
        samples, _ = soundfile.read(folder / "b.wav", dtype=dtype)
        found = Recording(samples, RATE).load(RATE)
        assert torch.equal(found, Recording(folder / "b.wav").load(RATE))
    for dtype in (np.uint8, np.int64, np.uint16, bool, object, np.complex64):
        with pytest.raises(AudioError, match="the waveform: holds"):
            Recording(np.zeros(9, dtype), RATE).load(RATE)


@pytest.mark.parametrize(
    "waveform, message",
    [
        (np.zeros(0), "holds no samples"),
        (np.array([0.0, np.inf]), "not finite"),
        (np.zeros((2, 800)), "more channels than samples; give .samples, channels., its transpose"),
        (np.zeros((5, 4, 3)), "must be .samples,. or .samples, channels."),
        (np.zeros(()), "must be .samples,."),
    ],
)
def test_unusable_waveforms_are_refused_by_what_is_wrong(waveform, message):
    with pytest.raises(AudioError, match=f"the waveform: .*{message}"):
        Recording(waveform, RATE).load(RATE)


def test_another_rate_is_resampled_and_none_refused():
    assert len(Recording(TONE, RATE).load(2 * RATE)) == 1600
    for rate in (None, 0, -1, 0.5, "16000", "x", float("nan"), float("inf"), [RATE], {}):
        with pytest.raises(ValueError, match="give sample_rate=16000"):
            recordings_of(TONE, rate)
    with pytest.raises(ValueError, match="waveform 0 needs its samples a second"):
        list(recordings_of([TONE])[0])


@pytest.mark.parametrize(
    "given",
    [
        *(None, 3, object(), range(3), b"a.wav", bytearray(b"a.wav"), memoryview(TONE)),
        *(io.BytesIO(b"RIFF"), {"array": TONE, "sampling_rate": RATE}),
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_recording_is_refused(given):
    with pytest.raises(ValueError, match="a recording is a path, or a waveform"):
        recordings_of(given)
    with pytest.raises(ValueError, match="a recording is a path, or a waveform"):
        list(recordings_of([given])[0])


def test_pieces_are_the_whole(folder):
    for one in (Recording(folder / "b.wav"), Recording(np.tile(TONE, 99), RATE)):
        assert torch.equal(torch.cat(list(one.blocks(RATE))), one.load(RATE))


def test_of_many_a_bad_one_is_a_result_and_of_one_an_error(folder):
    def work(recording):
        recording.load(RATE)
        return RecordingResult(path=recording.path, seconds=0.1)

    def results(audio):
        recordings, many = recordings_of(audio, RATE)
        return one_or_each(each_result(recordings, work, RecordingResult), many)

    missing = folder / "missing.wav"
    bad, good, empty = results([missing, folder / "b.wav", np.zeros(0)])
    assert bad.path == str(missing) and bad.error == f"{missing}: no such file"
    assert good.error is None and empty.path is None
    assert empty.error == "waveform 2: holds no samples"
    with pytest.raises(AudioError, match="no such file"):
        results(missing)
