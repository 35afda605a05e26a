"""The record of a run: its layout, the reader of it, and what training, resuming and testing write into it."""

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import shutil
import subprocess
import typing
from pathlib import Path

import pytest
import speechbrain as sb

from mamba_speech.asr.tokenizer import Tokenizer
from tests.training.test_training import Counting, Killed, make_brain
from training.lists import hash_list
from training.machine import find_commit, git_environment
from training.options import given_options
from training.recording import begin_training, record_result
from training.results import (
    Checkpoints,
    Commit,
    Recipe,
    Record,
    Result,
    Session,
    Training,
    Versions,
    is_tested,
    read_results,
    read_rows,
    write_results,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"
FLAT = {"WER": 12.5, "utterances": 8, "decoding": {"search": "greedy"}, "fidelity": "corrected"}
FLAT |= {"parameters": 1234, "seed": 3, "optimizer_steps": 6, "train_seconds": 1.5, "device": "cpu"}
FLAT |= {"peak_memory_mb": 100, "precision": "fp32", "torch": "2.11.0", "speechbrain": "1.1.2"}
FLAT |= {"date": "2026-11-21"}


def make_record():
    """A record in which every field has a value."""
    versions = Versions("3.11.2", "2.11.0", "2.11.0", "1.1.2", "0.1.0", "Linux")
    session = Session("2026-11-28T00:00:00+00:00", "2026-11-28T00:10:00+00:00", "hparams/a.yaml")
    session.overrides, session.seeds, session.lists = {"seed": "3"}, {"seed": 3}, {"train": "0f"}
    session.commit, session.versions = Commit("c0ffee", True), versions
    session.fidelity, session.device, session.processor = "corrected", "cpu", "a processor"
    session.threads, session.world_size, session.precision = 2, 1, "bf16"
    session.eval_precision, session.load_start, session.load_end = "fp32", 0.5, 1
    training = Training(session.started, session.ended, 9.5, 2, 6, 1234, 100, [session])
    figures = {"WER": 12.5, "perplexity": math.inf, "loss": math.nan, "gain": -math.inf}
    checkpoints = Checkpoints("best", "WER", [1, 2], [50, math.inf])
    result = Result(
        figures, 8, "1e", {"beam": 4}, {}, checkpoints, 1234, 6, 9.5, 110, None, session
    )
    result.date = session.ended
    return Record(1, Recipe("recipes/a", "train.py"), training, {"test": result})


def strict(path):
    """The JSON of a file, by a reader that knows no other words than the standard's."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(path.read_text(), parse_constant=refuse)


def test_a_record_comes_back_as_it_was_written_whatever_its_numbers(tmp_path):
    record = make_record()
    write_results(tmp_path, record)
    written = strict(tmp_path / "results.json")
    assert written["tests"]["test"]["figures"]["perplexity"] == "inf"
    assert repr(read_results(tmp_path)) == repr(read_results(tmp_path / "results.json"))
    assert repr(read_results(tmp_path)) == repr(record)
    row = read_rows(tmp_path, ["WER"])["test"]
    assert (row["seed"], row["date"], row["precision"]) == (3, "2026-11-28", "bf16")
    assert math.isinf(row["perplexity"]) and math.isnan(row["loss"])


def test_the_flat_layout_gives_the_rows_that_it_held(tmp_path):
    flat = {"test": FLAT, "version": FLAT | {"loss": math.nan, "clips": 3}}
    (tmp_path / "results.json").write_text(json.dumps(flat))
    rows = read_rows(tmp_path)
    assert rows["test"] == FLAT and math.isnan(rows["version"].pop("loss"))
    assert rows["version"] == FLAT | {"clips": 3}
    record = read_results(tmp_path)
    assert record.tests["test"].items == 8 and record.training.optimizer_steps == 6
    # and so does the record that it becomes
    write_results(tmp_path, record)
    assert strict(tmp_path / "results.json")["version"] == 1
    assert read_rows(tmp_path)["test"] == FLAT
    with pytest.raises(ValueError, match=r"results.json: tells of test without RTF; test the run"):
        read_rows(tmp_path, ["RTF"])


def damage(place, value):
    """The text of a record with another value in one place, or without it."""
    found = json.loads(json.dumps(dataclasses.asdict(make_record()) | {"tests": {}}))
    *parents, name = place.split(".")
    inner = found
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    if value is None:
        del inner[name]
    else:
        inner[name] = value
    return json.dumps(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is no JSON file"),
        ("[]", "is not the record of a run .no entry a test set"),
        ('{"test": 3}', "is not the record of a run .no entry a test set"),
        ('{"version": 2, "new": 1}', "is of version 2, and only 0 to 1 can be read here: use the"),
        ('{"version": "1"}', "is of version '1'"),
        ('{"version": true}', "is of version True"),
        ("[" * 200_000, "is no JSON file"),
        ('{"test": {"clips": [1]}}', r"test.clips is \[1\], where a count belongs"),
        ('{"test": {"clips": Infinity}}', "test.clips is inf, where a count belongs"),
        ('{"test": {"clips": NaN}}', "test.clips is nan, where a count belongs"),
        (damage("training.seconds", None), "training.seconds is missing"),
        (damage("training.hours", 1), "training.hours is no field"),
        (damage("training.epochs", 1.5), "training.epochs is 1.5, where a int belongs"),
        (damage("training.seconds", "long"), "training.seconds is 'long', where a float belongs"),
        (damage("training.epochs", True), "training.epochs is True"),
        (damage("recipe", "train.py"), "recipe is 'train.py', where an object belongs"),
        (damage("training.sessions", {}), "training.sessions is {}, where a list belongs"),
        (
            damage("training.sessions.0.seeds", {"seed": "3"}),
            r"training.sessions\[0\].seeds.seed is '3'",
        ),
    ],
)
def test_a_record_that_can_not_be_read_is_refused_by_name(text, complaint, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/results.json: .*{complaint}"):
        read_results(tmp_path)
    with pytest.raises(SystemExit, match="results.json: is"):
        make_brain(tmp_path, brain_class=Counting).run()
    assert not list(tmp_path.glob("CKPT*"))


def test_a_finished_run_whose_record_can_not_be_read_is_refused_before_it_is_tested(tmp_path):
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
    assert first.recipe == Recipe("tests/training", "test_training.py")
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
        fresh.test_lists = {"other": DOCUMENT}
        measure(fresh, test_set, decoding={"beam": 3})
    record = read_results(tmp_path)
    assert record.training == trained.training and list(record.tests) == ["one", "other"]
    other = record.tests["other"]
    assert other.manifest == hash_list(DOCUMENT) and record.tests["one"].manifest is None
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


def test_a_run_of_the_flat_layout_goes_on(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    (tmp_path / "results.json").write_text(json.dumps({"test": FLAT}))
    make_brain(tmp_path, brain_class=Counting, epochs=2).run()
    record = read_results(tmp_path)
    assert record.training.started is None and len(record.training.sessions) == 2
    assert record.training.optimizer_steps == 12 and not record.tests
    assert read_rows(tmp_path / "results_before_step_7.json")["test"] == FLAT


def test_a_record_of_the_flat_layout_keeps_seed_and_precision_when_it_is_tested_again(tmp_path):
    make_brain(tmp_path, brain_class=Counting, epochs=1).run()
    bare = {name: value for name, value in FLAT.items() if name not in ("seed", "precision")}
    flat = {"bare": bare, "test": FLAT | {"precision": "bf16"}}
    (tmp_path / "results.json").write_text(json.dumps(flat))
    fresh = make_brain(tmp_path, brain_class=Counting)
    fresh.hparams.seed = 1
    measure(fresh, "test")
    row = read_rows(tmp_path)["test"]
    assert (row["seed"], row["precision"], row["WER"]) == (3, "bf16", 20.0)


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
        assert record.recipe == Recipe("tests/training", "test_training.py")
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


def test_a_list_is_known_by_what_it_says_and_not_by_where_it_lies(tmp_path):
    def manifest(name, wav, text="yes"):
        path = tmp_path / name
        path.write_text(f"ID,mix_wav,wav,wrd\n1,{wav}/1.wav,{wav}/1.wav,{text}\n")
        return hash_list(path)

    assert (
        manifest("a.csv", "here") == manifest("b.csv", "there") != manifest("c.csv", "here", "no")
    )
    # as in the list of clips beside the checkpoints of earlier versions
    rows = [{"ID": "1", "mix_wav": "", "wav": "", "wrd": "yes"}]
    assert manifest("d.csv", "") == hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    texts = ["one two three four", "five six seven"]
    models = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        models.append(tmp_path / name / "tokenizer.model")
        Tokenizer.train(texts, models[-1], "char", 40)
    assert models[0].read_bytes() != models[1].read_bytes()
    assert hash_list(models[0]) == hash_list(models[1])
    Tokenizer.train([*texts, "eight"], models[0], "char", 40)
    assert hash_list(models[0]) != hash_list(models[1])


def test_the_commit_is_told_with_whether_tracked_files_differ_and_never_an_error(
    tmp_path, monkeypatch
):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", *identity, *arguments]
        options = {"cwd": tmp_path, "env": git_environment(), "capture_output": True}
        return subprocess.run(command, check=True, text=True, **options)

    find = find_commit.__wrapped__
    assert find(tmp_path) is None
    git("init", "-q")
    assert find(tmp_path) is None
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py"), git("commit", "-qm", "first")
    (tmp_path / "untracked").write_text("1")
    sha = git("rev-parse", "HEAD").stdout.strip()
    assert find(tmp_path) == (sha, False)
    (tmp_path / "code.py").write_text("2")
    assert find(tmp_path) == (sha, True)
    # as a hook of another repository would set it
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))
    assert find(tmp_path) == (sha, True)
    monkeypatch.setenv("PATH", "")
    assert find(tmp_path) is None
    monkeypatch.setattr(subprocess, "run", lambda *a, **o: pytest.fail("a process was started"))
    assert find(tmp_path / "nowhere") is None


def test_options_are_told_as_they_were_given():
    words = [
        "--seed",
        "3",
        "--test_only",
        "--lr=-0.1",
        "--jit_module_keys",
        "a",
        "b",
        "--shift",
        "-5",
    ]
    wanted = {"seed": "3", "test_only": "True", "lr": "-0.1", "jit_module_keys": "a b"}
    assert given_options(words) == wanted | {"shift": "-5"}


def test_a_write_that_fails_leaves_the_record_as_it_was(tmp_path, monkeypatch):
    write_results(tmp_path, make_record())
    before = (tmp_path / "results.json").read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_results(tmp_path, Record(1, None, None, {}))
    assert (tmp_path / "results.json").read_bytes() == before


def fields(kind, prefix=""):
    """Names of all fields of a record as the document writes them: ``tests.*.items``, ``training.sessions[].yaml``."""
    for name, hint in typing.get_type_hints(kind).items():
        parts = [hint, *typing.get_args(hint)]
        inner = [part for part in parts if dataclasses.is_dataclass(part)]
        mark = {dict: ".*", list: "[]"}.get(typing.get_origin(hint), "") if inner else ""
        yield f"{prefix}{name}"
        for part in inner:
            # a session is explained once
            if not (part is Session and prefix):
                yield from fields(part, f"{prefix}{name}{mark}.")


def test_the_document_names_every_field_and_no_other():
    text = DOCUMENT.read_text(encoding="utf-8")
    named = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    wanted = {*fields(Record), *(f"session.{name}" for name in fields(Session))}
    assert len(named) == len(set(named)) and set(named) == wanted


def test_the_documents_example_is_a_record(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "results.json").write_text(example)
    assert is_tested(tmp_path) and read_results(tmp_path).training.sessions
