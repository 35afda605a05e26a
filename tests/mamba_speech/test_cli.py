"""The command mamba-speech, as it is typed."""

import json
import os
import subprocess
import sys
import time

import pytest

from mamba_speech.cli import COMMANDS, main
from tests.support.recipes import ROOT, check_output, next_command


def test_every_good_file_is_printed_and_the_status_is_zero(trained, audio, capsys):
    files = [str(audio / f"{index}.wav") for index in (3, 1)]
    assert main(["transcribe", str(trained), *files, "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert [path for path, _ in rows] == files and all(text for _, text in rows)
    assert shown.err == ""


def test_a_training_says_what_is_worth_saying_and_ends_with_a_command_that_works(trained, capsys):
    output = (trained.parent / "output.txt").read_text(encoding="utf-8")
    check_output(output, trained)
    command = next_command(output)
    arguments = command[command.index("transcribe") :]
    assert arguments[1] == str(trained)
    assert main([*arguments, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"{arguments[2]}\t")


def test_an_error_names_the_file_once_and_what_is_wrong_with_it(trained, tmp_path, capsys):
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    assert main(["transcribe", str(trained), str(bad)]) == 1
    message = capsys.readouterr().err
    assert message.count(str(bad)) == 1 and "Format not recognised" in message


def test_a_bad_file_is_named_at_the_end_and_the_rest_printed(trained, audio, tmp_path, capsys):
    bad, good = str(tmp_path / "missing.wav"), str(audio / "2.wav")
    assert main(["transcribe", str(trained), bad, good]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{good}\t") and shown.out.count("\n") == 1
    assert f"1 file was not transcribed:\n  {bad}: no such file" in shown.err


def test_json_lines_hold_text_or_error_of_every_file(trained, audio, tmp_path, capsys):
    files = [str(tmp_path / "missing.wav"), str(audio / "2.wav")]
    assert main(["transcribe", str(trained), *files, "--json"]) == 1
    bad, good = map(json.loads, capsys.readouterr().out.splitlines())
    assert bad["path"] == files[0] and "text" not in bad and "no such file" in bad["error"]
    assert good["path"] == files[1] and good["text"] and "error" not in good


def test_a_folder_that_is_no_run_gives_one_line_and_status_two(tmp_path, capsys):
    assert main(["transcribe", str(tmp_path), "a.wav"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and str(tmp_path) in shown.err


@pytest.mark.parametrize(
    "arguments", [[], ["transcripe"], ["transcribe"], ["transcribe", "run"], ["--no_such_option"]]
)
def test_mistakes_in_the_arguments_give_the_usage_and_status_two(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "usage: mamba-speech" in capsys.readouterr().err


def test_it_runs_from_any_folder_and_prints_nothing_but_its_results(run, audio, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    paths = [os.path.relpath(run, elsewhere), os.path.relpath(audio / "5.wav", elsewhere)]
    done = subprocess.run(
        [sys.executable, "-m", "mamba_speech.cli", "transcribe", *paths],
        check=False,
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith(f"{paths[1]}\t") and done.stdout.count("\n") == 1
    assert list(elsewhere.iterdir()) == []


def test_help_and_version_do_not_wait_for_torch():
    for option, expected in (("--help", "transcribe"), ("--version", "mamba-speech ")):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "mamba_speech.cli", option],
            check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert expected in done.stdout
        assert "torch" not in done.stderr and time.monotonic() - began < 10


def test_a_misspelt_option_gets_the_usage_of_its_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["transcribe", "run", "a.wav", "--beamsize", "3"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "usage: mamba-speech transcribe" in error
    assert "unrecognized arguments: --beamsize 3" in error


@pytest.mark.parametrize(
    "backend, said",
    [("fast", "unknown backend 'fast'"), ("mamba_ssm", "mamba_ssm runs on CUDA only")],
)
def test_a_backend_of_the_environment_that_cannot_run_is_blamed_on_no_recording(
    backend, said, spotters, audio, monkeypatch, capsys
):
    monkeypatch.setenv("MAMBA_SPEECH_BACKEND", backend)
    recordings = sorted(map(str, audio.glob("*.wav")))
    assert main(["spot", str(spotters / "causal"), *recordings, "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "MAMBA_SPEECH_BACKEND" in line and ".wav" not in line


def test_ctrl_c_while_a_command_is_loaded_ends_with_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "slow_to_load.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS, "slow", ("slow_to_load", "load for a long time"))
    assert main(["slow", "x.wav"]) == 130
    assert capsys.readouterr().err == "mamba-speech: interrupted\n"
