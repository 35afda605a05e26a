"""Trainings side by side: what is started, stopped and started again, and which runs count as finished."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.tested_runs import write_record
from training.launch import Run, run_all

ROOT = Path(__file__).parents[2]
YAML = ROOT / "hparams" / "SpeechCommands" / "KWS" / "debug.yaml"


@pytest.fixture
def script(tmp_path):
    """A script that does what its option --do says, and ends by writing a result."""
    path = tmp_path / "script.py"
    write_record(tmp_path / "tested", "test", accuracy=50)
    path.write_text(
        """import os, pathlib, shutil, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output_folder") + 1])
do = sys.argv[sys.argv.index("--do") + 1]
(folder / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
if do == "fail":
    raise SystemExit("the disk is full")
if do == "sleep":
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(60)
shutil.copy(pathlib.Path(__file__).with_name("tested") / "results.json", folder)
"""
    )
    return path


def run_of(script, do, folder):
    return Run(do, script, YAML, ("--do", do), folder, 1)


def test_a_failed_run_is_named_with_its_last_line_and_the_others_go_on(
    script, tmp_path, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    works = [run_of(script, "work", tmp_path / str(number)) for number in range(3)]
    fails = run_of(script, "fail", tmp_path / "fails")
    said = []
    assert run_all([fails, *works], 2, "accuracy", said.append) == [fails]
    (line,) = [line for line in said if "fail" in line]
    assert "the disk is full" in line and str(fails.log) in line
    assert len(said) == 4 and sum("test: accuracy 50.00" in line for line in said) == 3
    assert {(run.folder / "threads").read_text() for run in works} == {"1"}
    # the same runs again: only what failed is run
    said.clear()
    assert run_all([fails, *works], 2, "accuracy", said.append) == [fails]
    assert said[0] == "3 of 4 finished before" and len(said) == 2


def test_an_interruption_stops_what_runs_and_the_runs_do_not_count_as_finished(script, tmp_path):
    sleeps = run_of(script, "sleep", tmp_path / "sleeps")
    works = run_of(script, "work", tmp_path / "works")

    def interrupt(line):
        while not (sleeps.folder / "pid").exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_all([sleeps, works], 2, "accuracy", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((sleeps.folder / "pid").read_text()), 0)
    assert works.is_finished() and not sleeps.is_finished()


def test_a_run_that_outlived_its_command_is_not_started_again_beside_itself(script, tmp_path):
    sleeps = run_of(script, "sleep", tmp_path / "sleeps")
    code = "import sys; from pathlib import Path; from training.launch import Run, run_all; "
    code += "script, yaml, folder = sys.argv[1:]; options = (('--do', 'sleep'), Path(folder), 1); "
    code += "run_all([Run('sleep', script, yaml, *options)], 1, 'accuracy')"
    command = [sys.executable, "-c", code, *map(str, (script, YAML, sleeps.folder))]
    first = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while not (sleeps.folder / "pid").exists() or not (sleeps.folder / "pid").read_text():
        time.sleep(0.05)
    first.kill()
    first.wait()
    number = int((sleeps.folder / "pid").read_text())
    try:
        with pytest.raises(ValueError, match="sleeps: its run is still going on"):
            run_all([sleeps], 1, "accuracy")
    finally:
        os.kill(number, signal.SIGKILL)
    # once it has ended, which its lock tells, the run is started again
    with open(sleeps.log, encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
    (sleeps.folder / "pid").unlink()

    def end():
        while not (sleeps.folder / "pid").exists() or not (sleeps.folder / "pid").read_text():
            time.sleep(0.05)
        os.kill(int((sleeps.folder / "pid").read_text()), signal.SIGKILL)

    ends = threading.Thread(target=end)
    ends.start()
    assert run_all([sleeps], 1, "accuracy") == [sleeps]
    ends.join()


def test_a_run_of_other_options_is_never_taken_for_this_one(tmp_path):
    yaml = tmp_path / "mine.yaml"
    shutil.copy(YAML, yaml)
    folder = tmp_path / "run"

    def run(*options, script="train.py", yaml=yaml):
        return Run("mine", script, yaml, options, folder, 1)

    first = run("--data_folder", "here", "--debug")
    first.note(finished=True)
    assert not first.is_finished()
    write_record(folder, "test", accuracy=50)
    assert first.is_finished() and run("--data_folder=here", "--debug").is_finished()
    with pytest.raises(ValueError, match="a run with --data_folder here, and not there"):
        run("--data_folder", "there", "--debug").is_finished()
    with pytest.raises(ValueError, match="a run with --debug: give the options"):
        run("--data_folder", "here").is_finished()
    with pytest.raises(ValueError, match="a run without --jit"):
        run("--data_folder", "here", "--debug", "--jit").is_finished()
    # what has learned nothing binds nobody
    results, kept = folder / "results.json", tmp_path / "kept"
    results.rename(kept)
    assert not run("--data_folder", "there").is_finished()
    (folder / "save" / "CKPT+1").mkdir(parents=True)
    with pytest.raises(ValueError, match="a run with --data_folder here, and not there"):
        run("--data_folder", "there", "--debug").is_finished()
    kept.rename(results)
    with pytest.raises(ValueError, match=r"holds a run of train\.py"):
        run("--data_folder", "here", "--debug", script="train_CTC.py").is_finished()
    other = shutil.copy(yaml, tmp_path / "other.yaml")
    with pytest.raises(ValueError, match=r"holds a run of mine\.yaml"):
        run("--data_folder", "here", "--debug", yaml=other).is_finished()
    yaml.write_text(yaml.read_text().replace("lr: 0.003", "lr: 0.004"))
    with pytest.raises(ValueError, match=r"a run with --lr 0\.003, and not 0\.004"):
        first.is_finished()
    (folder / "run.json").unlink()
    with pytest.raises(ValueError, match="that this command did not start"):
        first.is_finished()
