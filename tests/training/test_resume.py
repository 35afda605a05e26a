"""Options of a run that is started again: what a trained model depends on stays, the rest is taken up and told."""

import logging
from typing import Literal

import pytest

from training.option_schema import Count, Options, option
from training.resume import changed_options, refuse_fixed, tell_changes


class Toy(Options):
    """A size, and a length of training."""

    d_model: Count = option("Width.", resume="fixed")
    number_of_epochs: Count = option("Epochs.")
    kind: Literal["a", "b"] = option("Kind.", resume="fixed")


@pytest.fixture
def run(tmp_path):
    """A folder with options and a checkpoint, and the options as values."""
    (tmp_path / "save" / "CKPT+1").mkdir(parents=True)
    (tmp_path / "save" / "CKPT+1" / "CKPT.yaml").write_text("unixtime: 1\n")
    text = "d_model: 8\nkind: a\nnumber_of_epochs: 2\nskip_train: False\nmodel: !new:x\nlr: 1e-05\n"
    (tmp_path / "hyperparams.yaml").write_text(text)
    values = {"d_model": 8, "kind": "a", "number_of_epochs": 2, "skip_train": True, "model": None}
    folders = {"output_folder": str(tmp_path), "save_folder": str(tmp_path / "save")}
    return values | folders | {"lr": 1e-5}


def test_equal_options_change_nothing_and_a_start_is_no_part_of_the_run(run):
    assert changed_options(run) == {}


def test_a_text_that_an_earlier_run_holds_as_a_number_is_the_same(run):
    with open(f"{run['output_folder']}/hyperparams.yaml", "a", encoding="utf-8") as file:
        file.write("version: 0.02\n")
    assert changed_options(run | {"version": "0.02"}) == {}
    assert changed_options(run | {"version": "0.01"}) == {"version": (0.02, "0.01")}


def test_changes_of_what_the_model_depends_on_are_refused_together(run):
    changes = changed_options(run | {"d_model": 16, "kind": "b", "number_of_epochs": 3})
    assert changes == {"d_model": (8, 16), "kind": ("a", "b"), "number_of_epochs": (2, 3)}
    with pytest.raises(SystemExit, match="trained with --d_model 8 --kind a, and not 16, b; give"):
        refuse_fixed(changes, Toy, run["output_folder"])


def test_other_changes_are_told(run, caplog):
    changes = changed_options(run | {"number_of_epochs": 3})
    refuse_fixed(changes, Toy, run["output_folder"])
    with caplog.at_level(logging.INFO):
        tell_changes(changes)
    assert "--number_of_epochs is 3 from here on; it was 2" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\0\0", b"- a", b"d_model: [", b"\xff\xfe", b"3"])
def test_options_that_cannot_be_read_refuse_nothing(run, content):
    with open(f"{run['output_folder']}/hyperparams.yaml", "wb") as file:
        file.write(content)
    assert changed_options(run | {"d_model": 16}) == {}


def test_a_folder_without_a_checkpoint_binds_nobody(run, tmp_path):
    (tmp_path / "save" / "CKPT+1" / "CKPT.yaml").unlink()
    assert changed_options(run | {"d_model": 16}) == {}
