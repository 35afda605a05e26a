"""The record of a run: what training, resuming and testing write into it."""

import os
import platform
import shutil
from pathlib import Path

import pytest
import speechbrain as sb

from tests.support.training import Counting, Killed, make_brain
from training.provenance import hash_list
from training.recording import begin_training, record_result
from training.results import (
    Recipe,
    is_tested,
    read_results,
    write_results,
)


def test_a_finished_run_whose_record_cannot_be_read_is_refused_before_it_is_tested(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    (tmp_path / "results.json").write_text('{"version": 2}')
    again = make_brain(tmp_path, brain_class=Counting, epochs=1)
    for stage in (again.on_fit_start, again.on_evaluate_start):
        with pytest.raises(SystemExit, match="results.json: is of version 2"):
            stage()


def test_a_trained_run_has_a_record_before_any_test_and_a_resumed_one_adds_to_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="results.json: no such file"):
        read_results(tmp_path)
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    first = read_results(tmp_path)
    assert not is_tested(tmp_path) and first.training.epochs == 1
    assert first.recipe == Recipe("tests/support", "training.py")
    killed = make_brain(tmp_path, brain_class=Counting, epochs=2, ckpt_interval_steps=2)
    killed.stop_after_batches = 5
    with pytest.raises(Killed):
        killed.run()
    seconds = make_brain(tmp_path, brain_class=Counting, epochs=2).run().cost.seconds
    record = read_results(tmp_path)
    training = record.training
    assert training.started == first.training.started == training.sessions[0].started
    assert [one.ended is None for one in training.sessions] == [False, True, False]
    assert training.sessions[0] == first.training.sessions[0]
    assert (training.epochs, training.optimizer_steps) == (2, 12)
    assert training.seconds == round(seconds, 3) >= first.training.seconds
    # a finished run that is started again has nothing to add
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    assert read_results(tmp_path) == record


def measure(brain, test_set, **options):
    """Test a Brain of its run's checkpoints."""
    brain.on_evaluate_start()
    record_result(brain, test_set, {"WER": 20.0}, items=4, **options)


def test_a_test_adds_its_entry_and_leaves_the_training_as_it_was(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=3).run()
    trained = read_results(tmp_path)
    for test_set in ("one", "other", "one"):
        fresh = make_brain(tmp_path, brain_class=Counting, choice="best")
        fresh.test_lists = {"other": Path(__file__)}
        measure(fresh, test_set, decoding={"beam": 3})
    record = read_results(tmp_path)
    assert record.training == trained.training and list(record.tests) == ["one", "other"]
    other = record.tests["other"]
    assert other.manifest == hash_list(Path(__file__)) and record.tests["one"].manifest is None
    assert (other.items, other.decoding, other.optimizer_steps) == (4, {"beam": 3}, 18)
    assert other.checkpoints.epochs == [3, 2] and other.checkpoints.choice == "best"
    assert other.checkpoints.values == sorted(other.checkpoints.values)


def test_results_are_of_the_model_that_is_there_now(tmp_path):
    brain = make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    measure(brain, "test")
    before = read_results(tmp_path)
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    assert read_results(tmp_path) == before
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    assert not is_tested(tmp_path)
    assert read_results(tmp_path / "results_before_step_7.json") == before


def test_a_model_that_is_trained_anew_owes_nothing_to_the_one_before(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    first = read_results(tmp_path).training
    for checkpoint in tmp_path.glob("CKPT*"):
        shutil.rmtree(checkpoint)
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    anew = read_results(tmp_path).training
    assert (first.optimizer_steps, anew.optimizer_steps, anew.epochs) == (12, 6, 1)
    assert len(anew.sessions) == 1 and anew.started == anew.sessions[0].started >= first.started


@pytest.mark.parametrize("writes", [0, 1])
def test_a_training_killed_as_it_begins_loses_no_results(writes, tmp_path, monkeypatch):
    measure(make_brain(tmp_path, brain_class=Counting, epochs=1).run(), "test")
    before, replace, left = read_results(tmp_path), os.replace, [writes]

    def die(*paths):
        if Path(paths[1]).suffix == ".json":
            if not left[0]:
                raise Killed
            left[0] -= 1
        replace(*paths)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "replace", die)
        make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    assert read_results(tmp_path) == before
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    assert read_results(tmp_path / "results_before_step_7.json") == before
    assert len(list(tmp_path.glob("results_before*"))) == 1
    training = read_results(tmp_path).training
    assert training.started == before.training.started and len(training.sessions) == 2


def test_a_slow_look_at_the_machine_loses_nothing_that_is_written_meanwhile(tmp_path, monkeypatch):
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    tester = make_brain(tmp_path, brain_class=Counting)
    tester.on_evaluate_start()
    look = platform.platform

    def train_meanwhile():
        monkeypatch.setattr(platform, "platform", look)
        make_brain(tmp_path, brain_class=Counting, epochs=3).run()
        return look()

    monkeypatch.setattr(platform, "platform", train_meanwhile)
    record_result(tester, "test", {"WER": 1.0}, items=1)
    record = read_results(tmp_path)
    assert (record.training.epochs, len(record.training.sessions)) == (3, 2)
    assert list(record.tests) == ["test"]


def test_results_set_aside_twice_are_both_kept_and_the_recipe_is_of_who_trained_last(tmp_path):
    for name in ("first", "second"):
        brain = make_brain(tmp_path, brain_class=Counting, epochs=1).run()
        measure(brain, name)
        record = read_results(tmp_path)
        assert record.recipe == Recipe("tests/support", "training.py")
        record.recipe = Recipe("recipes/a", "train.py")
        write_results(tmp_path, record)
        for checkpoint in tmp_path.glob("CKPT*"):
            shutil.rmtree(checkpoint)
    begin_training(make_brain(tmp_path, brain_class=Counting))
    kept = [tmp_path / f"results_before_step_1{end}.json" for end in ("", "_2")]
    assert [list(read_results(path).tests) for path in kept] == [["first"], ["second"]]


class Worsening(Counting):
    """Is at its best after the first epoch."""

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": epoch, "epoch": epoch})


def test_a_lost_record_counts_the_epochs_after_the_best_one(tmp_path):
    make_brain(tmp_path, brain_class=Worsening, epochs=4, choice="best").run()
    (tmp_path / "results.json").unlink()
    measure(make_brain(tmp_path, brain_class=Worsening, choice="best"), "test")
    record = read_results(tmp_path)
    assert record.tests["test"].checkpoints.epochs == [1, 2] and record.training.epochs == 4


def test_a_lost_record_is_made_anew_of_what_the_checkpoints_tell(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    (tmp_path / "results.json").unlink()
    measure(make_brain(tmp_path, brain_class=Counting), "test")
    training = read_results(tmp_path).training
    assert (training.epochs, training.optimizer_steps, training.started) == (2, 12, None)
