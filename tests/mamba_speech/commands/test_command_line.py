"""What all commands have in common: runs, tasks, where options stand, patterns, and standard input."""

import io
import json
import os
import subprocess
import sys

import pytest
import soundfile

from mamba_speech.cli import A_RUN, COMMANDS, main
from mamba_speech.task_commands import RUNS, TASKS
from tests.support.recipes import ROOT
from tests.support.run_folders import call

OF_TASK = {
    "recognition": "ctc",
    "separation": "windows",
    "keywords": "keywords",
    "speaker": "speakers",
}


def command_line(*arguments, stdin=b"", cwd=None):
    """`python -m mamba_speech` in a process of its own; its status, and what it said on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mamba_speech", *map(str, arguments)],
        check=False,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        input=stdin,
        capture_output=True,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def piped(monkeypatch):
    """The command in this process, with bytes on standard input."""

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin))))
        return call(arguments)

    return run


def test_without_a_command_the_help_is_printed_and_the_status_is_two(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    shown = capsys.readouterr()
    assert stopped.value.code == 2 and all(name in shown.err for name in COMMANDS)


@pytest.mark.parametrize("command", ["transcribe", "listen", "info", "benchmark", "verify"])
def test_without_a_run_a_command_says_what_a_run_is(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and A_RUN in error and f"usage: mamba-speech {command}" in error


@pytest.mark.parametrize("command", TASKS)
def test_a_run_of_another_task_is_answered_with_its_own_command(command, runs, voices, tmp_path):
    more = {"enroll": ["me"], "listen": []}.get(command, [])
    options = {"separate": ["--output_folder", tmp_path], "embed": ["--output_folder", tmp_path]}
    database = ["--database", tmp_path / "d.json"] if command in ("enroll", "identify") else []
    for task, name in OF_TASK.items():
        if task in TASKS[command]:
            continue
        given = [command, runs[name], *more, voices[0], *options.get(command, database)]
        status, out, err = call(given)
        assert status == 2 and out == "" and err.count("\n") == 1
        assert f"use `mamba-speech {RUNS[task][1]}`" in err and str(runs[name]) in err


def test_options_may_stand_before_between_and_after_the_files(runs, voices):
    run, (one, two) = runs["ctc"], voices
    device, json_option = ["--device", "cpu"], ["--json"]
    _, wanted, _ = call(["transcribe", run, one, two, *device, *json_option])
    assert len(wanted.splitlines()) == 2
    for given in (
        [*device, *json_option, run, one, two],
        [run, *device, one, *json_option, two],
        [run, one, *json_option, two, *device],
    ):
        assert call(["transcribe", *given])[1] == wanted


def test_a_file_whose_name_begins_with_a_dash_follows_two_dashes(
    runs, voices, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-a.wav").write_bytes(voices[0].read_bytes())
    status, out, _ = call(["transcribe", runs["ctc"], "--json", "--", "-a.wav"])
    assert status == 0 and json.loads(out)["path"] == "-a.wav"


def test_a_quoted_pattern_is_what_the_shell_would_put_in_its_place(runs, voices, tmp_path):
    folder = voices[0].parent
    deep = tmp_path / "x" / "y"
    deep.mkdir(parents=True)
    (deep / "z.wav").write_bytes(voices[0].read_bytes())
    # a name with the letters of a pattern is a name
    odd = tmp_path / "[1].wav"
    odd.write_bytes(voices[0].read_bytes())
    (tmp_path / "1.wav").write_text("not this one")
    given = [f"{folder}/*.wav", f"{tmp_path}/**/z.wav", odd, f"{tmp_path}/no*thing.wav"]
    status, out, err = call(["transcribe", runs["ctc"], *given, "--json"])
    rows = [json.loads(line) for line in out.splitlines()]
    paths = [*map(str, sorted(folder.glob("*.wav"))), str(deep / "z.wav"), str(odd), given[3]]
    assert [row["path"] for row in rows] == paths
    assert [one for one in rows if "error" in one] == rows[-1:]
    assert status == 1 and "no*thing.wav: no such file" in err


@pytest.mark.exhaustive
def test_a_real_pipe_gives_what_the_file_gives(runs, voices):
    given = ["transcribe", runs["ctc"], "--json"]
    status, wanted, err = command_line(*given, voices[0])
    assert status == 0 and err == ""
    status, out, err = command_line(*given, "-", stdin=voices[0].read_bytes())
    assert status == 0 and err == "" and json.loads(out) == json.loads(wanted) | {"path": "-"}


@pytest.mark.parametrize("kind", ["wav", "flac", "raw"])
def test_standard_input_of_any_format_gives_what_the_file_gives(
    kind, runs, voices, tmp_path, piped
):
    samples, rate = soundfile.read(voices[0], dtype="int16")
    path = tmp_path / f"x.{'wav' if kind == 'raw' else kind}"
    soundfile.write(path, samples, rate, "PCM_16")
    content = samples.astype("<i2").tobytes() if kind == "raw" else path.read_bytes()
    options = ["--raw", str(rate)] if kind == "raw" else []
    _, wanted, _ = call(["transcribe", runs["ctc"], path, "--json"])
    status, out, _ = piped("transcribe", runs["ctc"], "-", "--json", *options, stdin=content)
    assert status == 0 and json.loads(out) == json.loads(wanted) | {"path": "-"}


@pytest.mark.parametrize("command", ["separate", "spot", "verify", "embed", "identify"])
def test_every_command_takes_standard_input(command, runs, voices, tmp_path, piped):
    out = tmp_path / "out"
    tasks = {"separate": "windows", "spot": "keywords"}
    run = runs[tasks.get(command, "speakers")]
    given = [command, run, "-", "--json"]
    if command == "verify":
        given.insert(2, voices[1])
    if command in ("separate", "embed"):
        given += ["--output_folder", out]
    if command == "spot":
        given += ["--threshold", "0"]
    if command == "identify":
        assert call(["enroll", run, "me", voices[1], "--database", out])[0] == 0
        given += ["--database", out]
    status, told, err = piped(*given, stdin=voices[0].read_bytes())
    assert status == 0, err
    rows = [json.loads(line) for line in told.splitlines()]
    assert rows and {row["path"] for row in rows} == {"-"}
    if command == "separate":
        assert [path.name for path in sorted(out.iterdir())] == ["stdin_s1.wav", "stdin_s2.wav"]
    if command == "embed":
        assert (out / "stdin.npy").is_file()
        # it may be of another recording, which nobody can tell
        status, _, err = piped(*given, stdin=voices[1].read_bytes())
        assert status == 1 and "is there already" in err


def test_transcripts_of_standard_input_are_named_stdin(runs, voices, tmp_path, piped):
    given = ["transcribe", runs["ctc"], "-", voices[1], "--output_folder", tmp_path]
    status, _, err = piped(*given, "--format", "txt", stdin=voices[0].read_bytes())
    assert status == 0, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stdin.txt", "two.txt"]


@pytest.mark.parametrize(
    "content, options, status, said",
    [
        (b"", [], 2, "ended before the first sample"),
        (b"no sound at all", [], 1, "standard input: "),
        (b"", ["--raw", "16000"], 2, "ended before the first sample"),
    ],
)
def test_standard_input_without_sound_gets_one_sentence(
    content, options, status, said, runs, piped
):
    found, _, err = piped("transcribe", runs["ctc"], "-", *options, stdin=content)
    assert found == status and said in err


@pytest.mark.parametrize(
    "given, said",
    [(["x.wav", "--raw", "8000"], "--raw is of standard input"), (["-", "-"], "read once")],
)
def test_standard_input_that_cannot_be_meant_is_refused(given, said, runs, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    status, _, err = call(["transcribe", runs["ctc"], *given])
    assert status == 2 and said in err
