"""Commands over many files: what a killed one has done is not done again, and the end is the same."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mamba_speech import printing
from mamba_speech.printing import print_records
from mamba_speech.results_file import ResultsFile
from tests.support.recipes import ROOT
from tests.support.run_folders import call
from tests.support.verification import write_voice

COMMANDS = {"transcribe": "ctc", "spot": "keywords", "verify": "speakers"}
MORE = {"spot": ["--threshold", "0", "--suppression", "0.1"]}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Six recordings in a folder."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(6):
        write_voice(folder / f"{number}.wav", 1 + number % 3, seed=number)
    return folder


def given(command, runs, many, path, *options):
    first = [many / "0.wav"] if command == "verify" else []
    more = MORE.get(command, [])
    return [command, runs[COMMANDS[command]], *first, many, *more, "--output_file", path, *options]


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_was_cut_anywhere_is_resumed_to_the_same_end(
    command, as_json, runs, many, tmp_path
):
    options = ["--json"] if as_json else []
    path, journal = tmp_path / "results", tmp_path / "results.progress"
    status, out, _ = call(given(command, runs, many, path, *options))
    assert status == 0 and out == ""
    whole, told = path.read_bytes(), journal.read_bytes()
    printed = call([*given(command, runs, many, path)[: -2 - 0], *options])[1]
    assert whole.decode() == printed
    lines = told.decode().splitlines(keepends=True)
    for done in range(len(lines)):
        # the command was killed while it wrote: half a line here, half a line there
        end = json.loads(lines[done])[1] if done else 0
        path.write_bytes(whole[: end + 7])
        kept = "".join(lines[: done + 1])
        journal.write_text(kept + (lines[done + 1][:9] if done + 1 < len(lines) else ""))
        status, _, err = call(given(command, runs, many, path, *options, "--resume"))
        assert status == 0 and path.read_bytes() == whole and journal.read_bytes() == told
        assert ("left out" in err) == (done > 0) and (not done or f"there: {done}" in err)


def test_a_recording_that_failed_is_tried_again_and_new_ones_are_added(runs, many, tmp_path):
    path, bad = tmp_path / "results", tmp_path / "later.wav"
    command = ["transcribe", runs["ctc"], many / "0.wav", bad, "--output_file", path]
    status, _, err = call(command)
    assert status == 1 and "later.wav: no such file" in err
    first = path.read_text()
    assert first.count("\n") == 1
    bad.write_bytes((many / "1.wav").read_bytes())
    assert call([*command, many / "2.wav", "--resume"])[0] == 0
    lines = path.read_text().splitlines()
    assert path.read_text().startswith(first)
    names = [line.split("\t")[0] for line in lines]
    assert names == [str(one) for one in (many / "0.wav", bad, many / "2.wav")]


def test_a_file_that_is_there_is_neither_replaced_nor_resumed_by_accident(runs, many, tmp_path):
    path = tmp_path / "results"
    command = ["transcribe", runs["ctc"], many / "0.wav", "--output_file", path]
    path.write_text("a user's own")
    assert "is there already" in call(command)[2]
    assert "cannot be resumed" in call([*command, "--resume"])[2]
    assert path.read_text() == "a user's own"
    assert call([*command, "--overwrite"])[0] == 0
    status, _, err = call([*command, "--json", "--resume"])
    assert status == 2 and "was begun with json False, not True" in err
    path.write_text("")
    assert "holds less than was written" in call([*command, "--resume"])[2]


@pytest.mark.parametrize(
    "options, said",
    [
        (["--resume"], "--resume is for files: give --output_f"),
        (["--overwrite"], "--overwrite is for files: give --output_f"),
        (["--output_file", "x", "--resume", "--overwrite"], "contradict one another"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_files_without_files_are_refused(command, options, said, runs, many):
    first = [many / "0.wav"] if command == "verify" else []
    status, _, err = call([command, runs[COMMANDS[command]], *first, many, *options])
    assert status == 2 and said in err


def test_a_run_that_cannot_be_loaded_leaves_no_output_file(many, tmp_path):
    path = tmp_path / "results"
    assert call(["transcribe", tmp_path, many, "--output_file", path])[0] == 2
    assert not path.exists()


def test_separation_goes_on_where_a_killed_command_stopped(runs, many, tmp_path):
    folder = tmp_path / "out"
    command = ["separate", runs["windows"], many, "--output_folder", folder, "--json"]
    assert call(command)[0] == 0
    sounds = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    assert len(sounds) == 12
    assert call(command)[0] == 1
    # one of the two sources of a recording, and none of another
    for name in ("1_s2.wav", "4_s1.wav", "4_s2.wav"):
        (folder / name).unlink()
    status, out, err = call([*command, "--resume"])
    assert status == 0 and "left out, since their sources are there: 4" in err
    assert [json.loads(line)["path"] for line in out.splitlines()] == [
        str(many / "1.wav"),
        str(many / "4.wav"),
    ]
    assert {path: path.read_bytes() for path in sorted(folder.iterdir())} == sounds


def test_embedding_takes_the_option_and_makes_nothing_anew(runs, many, tmp_path):
    command = ["embed", runs["speakers"], many, "--output_folder", tmp_path, "--json"]
    assert call(command)[0] == 0
    status, out, _ = call([*command, "--resume"])
    assert status == 0 and not any(json.loads(line)["new"] for line in out.splitlines())


def test_off_a_terminal_a_line_now_and_then_tells_the_progress(monkeypatch, capsys):
    records = [
        {"path": f"{n}.wav", "text": "x"} | ({"error": "bad"} if n == 1 else {}) for n in range(4)
    ]
    monkeypatch.setattr(printing, "EVERY_SECONDS", 0.0)
    print_records(records, lambda one: [one["path"]], "done", total=4)
    err = capsys.readouterr().err
    assert "mamba-speech: 3 of 4 files, 1 failed, about 0.0 minutes left" in err
    monkeypatch.setattr(printing, "EVERY_SECONDS", 60.0)
    print_records(records[:1], lambda one: [one["path"]], "done", total=4)
    assert capsys.readouterr().err == ""


def test_a_name_that_is_no_text_is_kept_and_known_again(tmp_path):
    path, name = tmp_path / "results", os.fsdecode(b"caf\xe9.wav")
    with_name = {"settings": {}, "existing": "refuse"}
    results = ResultsFile(path, **with_name)
    assert results.left([name], lambda one: [one]) == [name]
    results.write(name)
    results.finish(False)
    results.close()
    assert path.read_bytes() == b"caf\xe9.wav\n"
    again = ResultsFile(path, {}, "resume")
    assert again.left([name, "b.wav"], lambda one: [one]) == ["b.wav"]
    again.close()


@pytest.mark.exhaustive
def test_a_command_that_is_killed_at_any_moment_is_resumed_to_the_same_end(runs, many, tmp_path):
    command = [sys.executable, "-m", "mamba_speech"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start(path, *options):
        words = given("spot", runs, many, path, *options)
        return subprocess.Popen([*command, *map(str, words)], env=environment)

    whole = tmp_path / "whole"
    assert start(whole).wait() == 0
    for turn in range(6):
        path = tmp_path / f"killed{turn}"
        process = start(path)
        while process.poll() is None and not (path.exists() and path.stat().st_size > 200 * turn):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert start(path, "--resume").wait() == 0
        assert path.read_bytes() == whole.read_bytes()
