"""What holds for every format of `mamba-speech export`: a folder is written whole or not at all."""

import importlib

import pytest

from mamba_speech.export import FORMATS, export_run
from mamba_speech.run_task import task_of
from tests.support.run_folders import call


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_format_has_a_module_that_exports():
    for form in FORMATS.values():
        assert callable(importlib.import_module(form.module).export)
        assert form.tasks and form.summary


@pytest.mark.parametrize("place", [".", "CKPT+1", "save/CKPT+1"])
def test_a_folder_of_published_separators_tells_its_task(place, tmp_path):
    assert task_of(tmp_path) is None
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "masknet.ckpt").write_bytes(b"")
    assert task_of(tmp_path) == "separation"


def test_a_folder_that_holds_anything_is_left_as_it_is(runs, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "diary.txt").write_text("mine")
    status, out, err = call(["export", runs["keywords"], tmp_path / "there"])
    assert status == 2 and not out
    assert f"{tmp_path / 'there'}: is there already and holds files" in err
    assert entries(tmp_path) == ["there"] and entries(tmp_path / "there") == ["diary.txt"]
    (tmp_path / "file").write_text("mine")
    assert (
        f"{tmp_path / 'file'}: is a file"
        in call(["export", runs["keywords"], tmp_path / "file"])[2]
    )


def test_an_empty_folder_and_missing_parents_are_filled(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert call(["export", runs["keywords"], folder])[:2] == (0, f"{folder}\n")
        assert (folder / "hyperparams.yaml").is_file()
        assert entries(folder.parent) == [folder.name] or folder.parent == tmp_path


def test_a_failed_export_leaves_nothing(runs, tmp_path, monkeypatch):
    def fail(run_folder, folder, options):
        (folder / "hyperparams.yaml").write_text("half")
        raise OSError("the disk is full")

    monkeypatch.setattr(importlib.import_module(FORMATS["speechbrain"].module), "export", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_run(runs["keywords"], tmp_path / "new")
    assert not entries(tmp_path)


def test_what_is_no_run_of_a_known_task_is_refused_in_one_sentence(runs, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "hyperparams.yaml").write_text("model: !new:torch.nn.Linear [1, 2]\n")
    (tmp_path / "none").mkdir()
    for name in ("other", "none"):
        status, _, err = call(["export", tmp_path / name, tmp_path / "new"])
        assert status == 2 and err.count("\n") == 1
        assert f"{tmp_path / name}: is no run that can be exported" in err
    assert f"{runs['lm']}: is no run that" in call(["export", runs["lm"], tmp_path / "new"])[2]
    missing = call(["export", tmp_path / "missing", tmp_path / "new"])[2]
    assert f"{tmp_path / 'missing'}: no such folder" in missing
    assert entries(tmp_path) == ["none", "other"]
