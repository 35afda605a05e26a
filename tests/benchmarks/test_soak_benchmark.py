"""Commands over many short recordings of many sample rates keep no more memory than over a few."""

import json

import pytest

from mamba_speech.asr.tokenizer import Tokenizer
from tests.support import recognition
from tests.support.benchmarks import run
from tests.support.run_folders import write_keyword_run


@pytest.mark.exhaustive
def test_memory_stays_where_it_was_after_the_first_recordings(tmp_path):
    Tokenizer.train(["one two"], tmp_path / "tokenizer.model", "char", size=10)
    recogniser = recognition.write_run(
        tmp_path / "ctc", "CTC/conmamba_debug.yaml", tmp_path / "tokenizer.model", {"WER": 50.0}
    )
    runs = {"transcribe": (recogniser, 500), "spot": (write_keyword_run(tmp_path / "kws"), 50)}
    for command, (folder, first) in runs.items():
        options = ("--files", 3 * first, "--first", first, "--folder", tmp_path / "recordings")
        done = run("soak.py", command, folder, *options, "--out", tmp_path / "row.json")
        assert done.returncode == 0, done.stdout + done.stderr
        row = json.loads((tmp_path / "row.json").read_text())
        assert row["growth, MB"] <= 20 and row["files"] == 3 * first


def test_a_command_that_fails_is_said(tmp_path):
    done = run("soak.py", "spot", tmp_path / "missing", "--files", 3, "--first", 1)
    assert done.returncode != 0 and "ended with status" in done.stderr
    assert run("soak.py", "spot", tmp_path, "--files", 3).returncode == 2
