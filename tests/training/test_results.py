"""The record of a run: its layout, its reader, and the document that explains it."""

import dataclasses
import json
import math
import os
import re
import typing
from pathlib import Path

import pytest

from tests.support.training import Counting, make_brain
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
        ("[]", "is not the record of a run, since it names no version; remove it"),
        ('{"test": {"WER": 12.5}}', "is not the record of a run, since it names no version"),
        ('{"version": {"WER": 12.5}}', "is of version {'WER': 12.5}"),
        ('{"version": 2, "new": 1}', "is of version 2, and only 1 can be read here: use the"),
        ('{"version": "1"}', "is of version '1'"),
        ('{"version": true}', "is of version True"),
        ("[" * 200_000, "is no JSON file"),
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
def test_a_record_that_cannot_be_read_is_refused_by_name(text, complaint, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/results.json: .*{complaint}"):
        read_results(tmp_path)
    with pytest.raises(SystemExit, match="results.json: is"):
        make_brain(tmp_path, brain_class=Counting).run()
    assert not list(tmp_path.glob("CKPT*"))


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
    # three columns: the table of an entry of RESULTS.md has two
    named = re.findall(r"^\| `([^`]+)` \|[^|]*\|[^|]*\|$", text, re.MULTILINE)
    wanted = {*fields(Record), *(f"session.{name}" for name in fields(Session))}
    assert len(named) == len(set(named)) and set(named) == wanted


def test_the_documents_example_is_a_record(tmp_path):
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "results.json").write_text(example)
    assert is_tested(tmp_path) and read_results(tmp_path).training.sessions
