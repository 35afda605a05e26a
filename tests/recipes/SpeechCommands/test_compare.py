"""compare.py: what its table says and covers, which runs it takes for finished, and running several side by side."""

import csv
import fcntl
import importlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mamba_speech.evaluation.classification import (
    Prediction,
    macro_f1,
    read_predictions,
    wilson_interval,
    write_predictions,
)
from tests.support.keywords import RECIPE, SPEAKERS, TASK, say
from tests.support.recipes import results

DEBUG, CNN = (str(RECIPE / "hparams" / f"{name}.yaml") for name in ("debug", "keyword_cnn"))
SCRIPTS = ("compare", "runs", "scores", "rate", "train", "keyword_data", "waveforms")


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, their folder being where Python looks first."""
    for name in SCRIPTS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(RECIPE))
    yield importlib.import_module
    for name in SCRIPTS:
        sys.modules.pop(name, None)


def clips_of(right, speaker=lambda clip: clip):
    """A test's clips from whether each was right."""
    return {
        f"{clip:03d}": Prediction(
            f"{clip:03d}", f"{clip}.wav", str(speaker(clip)), "yes", "yes" if hit else "no", 0.5
        )
        for clip, hit in enumerate(right)
    }


def finish(run, right, speaker, **result):
    """What train.py leaves of a finished run."""
    run.note(finished=True)
    clips = {
        f"{speaker}_{name}": one._replace(clip=f"{speaker}_{name}")
        for name, one in clips_of(right, lambda _: speaker).items()
    }
    write_predictions(run.folder / "predictions_test.csv", list(clips.values()))
    row = {"accuracy": 100 * np.mean(right), "parameters": 1234, "fidelity": "corrected"}
    row |= {"device": "cpu", "train_seconds": 60.0, "optimizer_steps": 7} | result
    run.result.write_text(json.dumps({"test": row}))


def digits(folder, names=("ann", "bob", "cat")):
    """Recordings in the layout of Free Spoken Digits; gives the folder above them."""
    (folder / "recordings").mkdir(parents=True)
    for name in names:
        for digit in range(10):
            for index in (0, 1):
                sound = say("up", SPEAKERS[digit % 9], 0.3 + 0.1 * digit)[::2]
                path = folder / "recordings" / f"{digit}_{name}_{index}.wav"
                soundfile.write(path, sound, 8000)
    return folder


def test_more_seeds_of_the_same_clips_do_not_narrow_the_interval(recipe):
    scores = recipe("scores")
    right = [True] * 30 + [False] * 10
    once = scores.score({1: clips_of(right, lambda clip: clip % 4)})
    thrice = scores.score({seed: clips_of(right, lambda clip: clip % 4) for seed in (1, 2, 3)})
    assert (once["low"], once["high"]) == (thrice["low"], thrice["high"])
    assert [once["low"], once["high"]] == pytest.approx([100 * e for e in wilson_interval(30, 40)])
    assert once["deviation"] is None and thrice["deviation"] == 0
    assert thrice["clips"] == 40 and thrice["drawn"] == "clips"


def test_seeds_are_averaged_and_their_deviation_is_told(recipe):
    scores = recipe("scores")
    by_seed = {1: clips_of([1, 1, 0, 0]), 2: clips_of([1, 1, 1, 0])}
    found = scores.score(by_seed)
    assert found["accuracy"] == 62.5 and found["accuracies"] == [50, 75]
    assert found["deviation"] == pytest.approx(statistics.stdev([50, 75]))
    assert found["macro_F1"] == pytest.approx(
        np.mean([macro_f1(run.values()) for run in by_seed.values()])
    )


def test_few_speakers_give_their_range_and_enough_of_them_are_drawn(recipe):
    scores = recipe("scores")
    row = {"recipe": "a", "parameters": 1, "runs": 1, "train_seconds": [1], "optimizer_steps": [1]}
    # half the speakers are always right, the others in one clip of two
    for speakers in (scores.FEWEST_SPEAKERS - 1, scores.FEWEST_SPEAKERS):
        right = [clip % 2 or clip // 60 % 2 for clip in range(60 * speakers)]
        found = scores.score({1: clips_of(right, lambda clip: clip // 60)})
        line = scores.table_line(row | found, False)
        low, high = wilson_interval(sum(right), len(right))
        assert (min(found["speakers"].values()), max(found["speakers"].values())) == (50, 100)
        if speakers < scores.FEWEST_SPEAKERS:
            assert line["speakers %"] == "50.0 to 100.0" and "other clips" in line["95 % interval"]
            assert (found["low"], found["high"]) == pytest.approx((100 * low, 100 * high))
        else:
            assert "speakers %" not in line and "other speakers" in line["95 % interval"]
            assert found["low"] < 100 * low - 5 and found["high"] > 100 * high + 5


def test_speakers_who_are_all_right_leave_the_interval_that_so_many_clips_do(recipe):
    found = recipe("scores").score({1: clips_of([True] * 80, lambda clip: clip // 8)})
    assert found["drawn"] == "speakers" and found["high"] == 100
    assert found["low"] == pytest.approx(100 * wilson_interval(80, 80)[0])


def test_a_difference_is_paired_by_clip_averaged_over_seeds_and_turns_with_the_order(recipe):
    scores = recipe("scores")
    rng = np.random.default_rng(0)
    one = {seed: clips_of(rng.random(200) < 0.6) for seed in (1, 2)}
    other = {seed: clips_of(rng.random(200) < 0.8) for seed in (1, 2, 3)}
    found, back = scores.difference(one, other), scores.difference(other, one)
    expected = scores.score(other)["accuracy"] - scores.score(one)["accuracy"]
    assert found["difference"] == pytest.approx(expected) == pytest.approx(-back["difference"])
    assert found["low"] < expected < found["high"] and found["p"] < 0.01
    assert (found["low"], found["high"]) == pytest.approx((-back["high"], -back["low"]), abs=1)
    same = scores.difference(one, one)
    assert (same["difference"], same["low"], same["high"], same["p"]) == (0, 0, 0, 1)
    # the same errors on the same clips, and one more that is right: a paired difference is sure of that
    better = {1: clips_of([*([False] * 100), *([True] * 100)])}
    worse = {1: clips_of([*([False] * 130), *([True] * 70)])}
    assert scores.difference(worse, better)["p"] < 0.001


def test_tests_on_other_clips_are_refused_with_the_first_of_them(recipe):
    scores = recipe("scores")
    with pytest.raises(ValueError, match="002 is in one of them only, and 1 more"):
        scores.difference({1: clips_of([1, 1])}, {1: clips_of([1, 1, 0, 0])})


def compare(recipe, arguments, right, out):
    """Run compare.py on runs of which ``right(recipe, speaker, seed)`` gives the right clips; gives its status."""
    module = recipe("compare")
    options, passed_on = module.read_arguments([*arguments, "--out", str(out)])
    for yaml in options.yamls:
        for run in module.training_runs(yaml, options, passed_on, {}):
            hits = right(run.recipe, run.speaker, run.seed)
            if hits is not None:
                finish(run, hits, run.speaker or "all")
    return module.main([*arguments, "--out", str(out)])


def test_clips_of_left_out_speakers_are_pooled_and_each_speaker_has_a_column(
    recipe, tmp_path, capsys
):
    arguments = [DEBUG, CNN, "--seeds", "1", "2", "--test_speakers", "all", "--against", "debug"]
    arguments += ["--data_folder", str(digits(tmp_path / "data")), "--n_classes", "10"]

    def right(name, speaker, seed):
        # fewer clips of one speaker: pooled clips, not the mean of speakers
        count = 10 if speaker == "ann" else 30
        return [name == "debug" or speaker != "bob" or clip % 2 for clip in range(count)]

    assert compare(recipe, arguments, right, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    debug, cnn = found["rows"]
    assert (debug["accuracy"], debug["clips"], debug["runs"]) == (100, 70, 6)
    assert cnn["accuracy"] == pytest.approx(100 * 55 / 70)
    assert cnn["speakers"] == {"ann": 100, "bob": 50, "cat": 100}
    assert list(found["differences"]) == ["keyword_cnn"]
    assert found["differences"]["keyword_cnn"]["difference"] == pytest.approx(-100 * 15 / 70)
    printed = capsys.readouterr().out
    assert "6 of 6" not in printed and "12 of 12 finished before" in printed
    assert "0 of 3 speakers" in printed and "bob %" in printed
    table = (tmp_path / "out" / "compare.md").read_text()
    assert "| keyword_cnn | 1,234 | 6 | 70 |" in table and "compare.py" in table
    assert not list((tmp_path / "out").glob("*.partial"))


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["none.yaml"], "no such YAML file: none.yaml"),
        ([DEBUG, DEBUG], "two YAML files are named debug"),
        ([DEBUG, "--seed=3"], "--seed is set by"),
        ([DEBUG, "--output_folder", "x"], "--output_folder is set by"),
        ([DEBUG, "--test_speaker", "ann"], "--test_speaker is set by"),
        ([DEBUG, "--against", "retnet"], "--against retnet is not among the recipes: debug"),
        ([DEBUG, "--test_speakers", "ann"], "--test_speakers needs --data_folder"),
        ([DEBUG, "--test_speakers", "ann", "--data_folder", "none"], "does not exist"),
        (
            [DEBUG, "--test_speakers", "ann", "zoe", "--data_folder", "{data}"],
            "zoe not in .*; choose of ann, bob, or all",
        ),
        ([DEBUG, "--seeds", "1", "1"], "--seeds names one twice"),
        ([DEBUG, "--budget_seconds", "0"], "--budget_seconds must be above 0"),
        ([DEBUG, "--budget_seconds", "9", "--number_of_epochs", "3"], "is set by --budget_seconds"),
        ([DEBUG, "--jobs", "0"], "--jobs must be 1 or more"),
    ],
    ids=lambda value: "-".join(value[1:3]) if isinstance(value, list) else "",
)
def test_a_wrong_option_gets_one_sentence(recipe, tmp_path, capsys, arguments, complaint):
    data = digits(tmp_path / "data", ("ann", "bob"))
    with pytest.raises(SystemExit) as stopped:
        recipe("compare").main([part.format(data=data) for part in arguments])
    assert stopped.value.code == 2
    assert re.search(complaint, capsys.readouterr().err)


@pytest.fixture
def script(tmp_path):
    """A script that does what its option --do says, and ends by writing a result."""
    path = tmp_path / "script.py"
    path.write_text(
        """import json, os, pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output_folder") + 1])
do = sys.argv[sys.argv.index("--do") + 1]
(folder / "threads").write_text(os.environ.get("OMP_NUM_THREADS", ""))
if do == "fail":
    raise SystemExit("the disk is full")
if do == "sleep":
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(60)
(folder / "results.json").write_text(json.dumps({"test": {"accuracy": 50}}))
"""
    )
    return path


def run_of(recipe, script, do, folder):
    return recipe("runs").Run(str(script), do, DEBUG, folder, ("--do", do), None, 1)


def test_a_failed_run_is_named_with_its_last_line_and_the_others_go_on(recipe, script, tmp_path):
    works = [run_of(recipe, script, "work", tmp_path / str(number)) for number in range(3)]
    fails = run_of(recipe, script, "fail", tmp_path / "fails")
    said = []
    assert recipe("runs").run_all([fails, *works], 2, said.append) == [fails]
    (line,) = [line for line in said if "fail" in line]
    assert "the disk is full" in line and str(fails.log) in line
    assert len(said) == 4 and sum("accuracy 50.00 %" in line for line in said) == 3
    assert {(run.folder / "threads").read_text() for run in works} == {"1"}
    # the same runs again: only what failed is run
    said.clear()
    assert recipe("runs").run_all([fails, *works], 2, said.append) == [fails]
    assert said[0] == "3 of 4 finished before" and len(said) == 2


def test_an_interruption_stops_what_runs_and_the_runs_do_not_count_as_finished(
    recipe, script, tmp_path
):
    sleeps = run_of(recipe, script, "sleep", tmp_path / "sleeps")
    works = run_of(recipe, script, "work", tmp_path / "works")

    def interrupt(line):
        while not (sleeps.folder / "pid").exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe("runs").run_all([sleeps, works], 2, interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((sleeps.folder / "pid").read_text()), 0)
    assert works.is_finished() and not sleeps.is_finished()


def test_a_run_that_outlived_its_command_is_not_started_again_beside_itself(
    recipe, script, tmp_path
):
    runs, sleeps = recipe("runs"), run_of(recipe, script, "sleep", tmp_path / "sleeps")
    code = "import pathlib, runs, sys; script, yaml, folder = sys.argv[1:]; "
    code += "options = (pathlib.Path(folder), ('--do', 'sleep'), None, 1); "
    code += "runs.run_all([runs.Run(script, 'debug', yaml, *options)], 1)"
    command = [sys.executable, "-c", code, script, DEBUG, sleeps.folder]
    path = os.environ | {"PYTHONPATH": str(RECIPE.parents[2])}
    first = subprocess.Popen([str(part) for part in command], env=path, cwd=RECIPE)
    while not (sleeps.folder / "pid").exists() or not (sleeps.folder / "pid").read_text():
        time.sleep(0.05)
    first.kill()
    first.wait()
    number = int((sleeps.folder / "pid").read_text())
    try:
        with pytest.raises(ValueError, match="sleeps: its run is still going on"):
            runs.run_all([sleeps], 1)
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
    assert runs.run_all([sleeps], 1) == [sleeps]
    ends.join()


def test_a_run_of_other_options_is_never_taken_for_this_one(recipe, tmp_path):
    yaml = tmp_path / "mine.yaml"
    shutil.copy(DEBUG, yaml)
    runs = recipe("runs")

    def run(*options):
        return runs.Run("train.py", "mine", str(yaml), tmp_path / "run", options, None, 1)

    first = run("--data_folder", "here", "--debug")
    finish(first, [1, 0], "all")
    assert first.is_finished() and run("--data_folder=here", "--debug").is_finished()
    with pytest.raises(ValueError, match="a run with --data_folder here, and not there"):
        run("--data_folder", "there", "--debug").is_finished()
    with pytest.raises(ValueError, match="a run with --debug: give the options"):
        run("--data_folder", "here").is_finished()
    with pytest.raises(ValueError, match="a run without --jit"):
        run("--data_folder", "here", "--debug", "--jit").is_finished()
    yaml.write_text(yaml.read_text().replace("lr: 0.003", "lr: 0.004"))
    with pytest.raises(ValueError, match=r"a run with --lr 0\.003, and not 0\.004"):
        first.is_finished()
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(ValueError, match="that this command did not start"):
        first.is_finished()


def test_a_recipe_without_all_its_runs_has_no_row_and_the_status_tells(
    recipe, tmp_path, capsys, monkeypatch
):
    # in the place of train.py, for the one recipe that is not finished
    (tmp_path / "train.py").write_text("raise SystemExit('the disk is full')")
    monkeypatch.setattr(recipe("runs"), "HERE", tmp_path)
    arguments = [DEBUG, CNN, "--seeds", "1", "--against", "keyword_cnn"]
    arguments += ["--data_folder", str(tmp_path / "none")]

    def right(name, speaker, seed):
        return [1, 0, 1] if name == "debug" else None

    assert compare(recipe, arguments, right, tmp_path / "out") == 1
    seen = capsys.readouterr()
    assert "keyword_cnn seed 1: failed: " in seen.out and "keyword_cnn seed 1 failed" in seen.err
    assert "no differences to it" in seen.err
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["recipe"] for row in found["rows"]] == ["debug"] and not found["differences"]


def test_training_goes_on_with_the_same_clips_only_wherever_they_lie(recipe, tmp_path):
    keep_clips = recipe("train").keep_clips
    found = {name: tmp_path / f"{name}.csv" for name in ("train", "valid")}

    def write(name, folder="here", start=0):
        found[name].write_text(f"ID,wav,start,label\na,{folder}/a.wav,{start},yes\n")

    write("train"), write("valid")
    save = tmp_path / "save"
    keep_clips(found, save)
    write("train", start=5)
    # nothing is trained yet
    keep_clips(found, save)
    (save / "CKPT+1").mkdir()
    write("train", folder="there", start=5)
    keep_clips(found, save)
    write("valid", start=1)
    with pytest.raises(SystemExit, match=r"other clips \(valid changed\): give another"):
        keep_clips(found, save)


@pytest.mark.exhaustive
def test_one_command_trains_for_a_budget_several_seeds_and_makes_one_table(
    train_kws, recipe, tones, tmp_path, monkeypatch, capsys
):
    options = TASK | {"data_folder": tones, "num_workers": 0, "budget_seconds": 1, "jobs": 2}
    flags = ("--seeds", "1", "2", "--out", str(tmp_path / "out"))
    done = train_kws("debug", *flags, script="compare.py", **options)
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    (row,) = found["rows"]
    rate = json.loads((tmp_path / "out" / "debug" / "rate" / "rate.json").read_text())
    steps = max(1, round(1 / rate["seconds_a_step"]))
    assert row["optimizer_steps"] == [steps, steps] and row["clips"] == 6
    assert "[2/2] debug seed" in done.output and "other" in row["drawn"] + done.output
    with open(tmp_path / "out" / "debug" / "1" / "predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["speaker"] for row in rows} == set(SPEAKERS[-2:])
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    # the path as the recipe's folder has it, with which the runs were made
    yaml = str(Path("hparams", "debug.yaml"))
    monkeypatch.chdir(RECIPE)
    assert recipe("compare").main([yaml, "--noprogressbar", *flags, *arguments]) == 0
    assert "2 of 2 finished before" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found


def test_mistakes_add_up_to_the_accuracy_and_other_clips_are_refused(
    spotters, train_here, tones, tmp_path
):
    folder = shutil.copytree(spotters / "whole", tmp_path / "run")
    clips = read_predictions(folder / "predictions_test.csv")
    found = results(folder)
    assert len(clips) == found["clips"] and found["data_folder"] == str(tones)
    right = statistics.fmean(one.correct for one in clips.values())
    assert found["accuracy"] == pytest.approx(100 * right, abs=1e-3)
    assert macro_f1(clips.values()) == pytest.approx(found["macro_F1"], abs=1e-3)
    assert all(one.said in Path(one.wav).parts for one in clips.values())
    other = shutil.copytree(tones, tmp_path / "other")
    (other / "up" / f"{SPEAKERS[0]}_nohash_0.wav").unlink()
    options = TASK | {"data_folder": other, "output_folder": folder}
    with pytest.raises(SystemExit, match=r"trained with other clips \(train changed\)"):
        train_here("debug", number_of_epochs=2, **options)
    assert results(folder) == found
