"""Generated speech is known as such wherever it was copied to, and so are models that heard nothing else."""

import json

import pytest

from mamba_speech import cli
from mamba_speech.synthetic import all_synthetic, heard_only_synthetic, warning_for


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    """The record of a generated corpus, and a recording three folders below it."""
    write(tmp_path / "spoken" / "corpus.json", {"synthetic": True})
    return tmp_path / "spoken" / "LibriSpeech" / "train-spoken" / "1" / "2" / "1-2-3.flac"


@pytest.mark.parametrize(
    ("record", "synthetic"),
    [
        ({"synthetic": True}, True),
        ({"synthetic": False, "engine": "eSpeak NG 1.52.0"}, False),
        ({"engine": "eSpeak NG 1.52.0", "splits": {}}, True),
        ({"synthetic": "yes"}, False),
        ({"documents": []}, False),
        ([], False),
        ("{", False),
    ],
)
def test_only_the_record_of_a_generated_corpus_makes_recordings_synthetic(
    record, synthetic, tmp_path
):
    write(tmp_path / "corpus.json", record)
    assert all_synthetic([tmp_path / "a" / "1.wav", str(tmp_path / "2.wav")]) is synthetic


def test_one_recording_from_elsewhere_is_enough_to_make_speech_real(corpus, tmp_path):
    assert all_synthetic([corpus, corpus]) is True
    assert all_synthetic([corpus, tmp_path / "people" / "1.wav"]) is False
    assert all_synthetic([]) is None


def test_mixtures_and_resampled_copies_are_what_their_sources_are(corpus, tmp_path):
    spoken = str(tmp_path / "spoken" / "LibriSpeech" / "train-spoken")
    write(tmp_path / "8k" / "resampled.json", {"input_folder": spoken})
    write(tmp_path / "mixtures" / "mixtures.json", {"speech_folder": str(tmp_path / "8k")})
    assert all_synthetic([tmp_path / "mixtures" / "tr" / "mix" / "1.wav"]) is True
    write(tmp_path / "8k" / "resampled.json", {"input_folder": str(tmp_path / "people")})
    assert all_synthetic([tmp_path / "mixtures" / "tr" / "mix" / "1.wav"]) is False


def test_a_copy_that_was_made_from_itself_ends(tmp_path):
    write(tmp_path / "resampled.json", {"input_folder": str(tmp_path)})
    assert all_synthetic([tmp_path / "1.wav"]) is False


def test_a_run_tells_by_its_record_or_else_by_the_note_beside_its_checkpoints(tmp_path):
    assert heard_only_synthetic(tmp_path / "nowhere") is None
    write(tmp_path / "save" / "training_speech.json", {"synthetic": True})
    assert heard_only_synthetic(tmp_path) is True
    write(tmp_path / "results.json", {"training": {"synthetic": False}})
    assert heard_only_synthetic(tmp_path) is False and warning_for(tmp_path) == ""
    for damaged in ("{", [], {"training": None}, {"training": {"synthetic": "no"}}):
        write(tmp_path / "results.json", damaged)
        assert heard_only_synthetic(tmp_path) is not False


def test_commands_warn_once_and_before_they_load_the_model(tmp_path, capsys):
    write(tmp_path / "save" / "training_speech.json", {"synthetic": True})
    assert cli.main(["transcribe", str(tmp_path), "speech.wav"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"mamba-speech: {warning_for(tmp_path)}" and "only synthetic speech" in first
    assert "is not the output folder of a run" in second
