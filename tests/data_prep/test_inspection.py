"""One verdict about a recording: what preparation says of a file is what commands and training find in it."""

import logging

import numpy as np
import pytest
import soundfile

from data_prep.inspection import FULL, HEADER, examine, inspect
from data_prep.mixtures.checks import read_header, read_mono
from data_prep.mixtures.speech import fault_of
from data_prep.speakers.checker import MANY, Checkers
from data_prep.verify import Candidate, check_utterances
from mamba_speech.audio import load_audio
from tests.support.odd_audio import (
    LENGTHS,
    RATE,
    cut,
    forget_flac_length,
    set_data_size,
    speech_like,
    write_format,
)


@pytest.mark.parametrize("verify", [FULL, HEADER])
@pytest.mark.parametrize("name", LENGTHS)
def test_a_cut_recording_is_truncated_for_preparation_as_for_a_command(name, verify, tmp_path):
    path = write_format(tmp_path / "cut", name, speech_like(10))
    assert inspect(path, verify) == (10 * RATE, RATE, None)
    cut(path)
    assert inspect(path, verify) == (0, 1, "truncated audio")
    assert fault_of(path, 0.1) == ("truncated", 0.0)
    assert read_header(path)[2] == read_mono(path)[2] == "is truncated"
    odd = []
    assert len(load_audio(path, RATE, warnings=odd)) and [one.kind for one in odd] == ["truncated"]


@pytest.mark.parametrize("verify", [FULL, HEADER])
def test_recordings_of_unknown_length_are_kept_with_the_length_that_they_have(verify, tmp_path):
    flac, wav = write_format(tmp_path / "a.flac", "flac"), write_format(tmp_path / "b.wav", "wav")
    forget_flac_length(flac)
    set_data_size(wav, 0)
    for path in (flac, wav):
        found = examine(path, verify)
        assert (found.frames, found.reason) == (2 * RATE, None)
        assert [one.kind for one in found.warnings] == ["unknown_length"]


def test_odd_recordings_of_a_corpus_are_kept_and_told_once_a_kind(tmp_path, caplog):
    voice, other = speech_like(3), speech_like(3, seed=1)
    sounds = {
        "opposite": (np.stack([voice, -voice], 1), "PCM_16"),
        "opposite too": (np.stack([other, -other], 1), "PCM_16"),
        "silent": (np.stack([voice, 0 * voice], 1), "PCM_16"),
        "integers": (np.rint(voice * 2**15), "FLOAT"),
        "usual": (np.stack([voice, other], 1), "PCM_16"),
    }
    for name, (samples, subtype) in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype)
    candidates = [Candidate(name, tmp_path / f"{name}.wav", "1", "YES") for name in sounds]
    with caplog.at_level(logging.WARNING):
        rows, skipped = check_utterances(candidates, "train")
    assert len(rows) == 5 and not skipped
    lines = sorted(record.getMessage() for record in caplog.records)
    assert [line.split("; ")[0] for line in lines] == [
        "train: 1 recording is used with the warning integer_scale",
        "train: 1 recording is used with the warning silent_channel",
        "train: 2 recordings are used with the warning opposite_channels",
    ]


@pytest.mark.parametrize("total", [3, pytest.param(MANY, marks=pytest.mark.exhaustive)])
def test_recordings_of_speakers_tell_their_oddities_from_threads_and_processes(total, tmp_path):
    voice = speech_like(1)
    soundfile.write(tmp_path / "a.wav", np.stack([voice, -voice], 1), RATE)
    soundfile.write(tmp_path / "b.wav", voice, RATE)
    write_format(tmp_path / "cut.flac", "flac", speech_like(5))
    cut(tmp_path / "cut.flac")
    paths = [str(tmp_path / name) for name in ("a.wav", "b.wav", "cut.flac")]
    with Checkers(total, workers=1) as checkers:
        (found,) = checkers.map([paths])
    assert found == [(RATE, RATE, None), (RATE, RATE, None), (0, 1, "truncated audio")]
    assert [one.kind for one in checkers.odd] == ["opposite_channels"]
