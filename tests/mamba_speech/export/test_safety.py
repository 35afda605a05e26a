"""Folders that mean harm, and folders that are not whole: one sentence each, and nothing of them is executed."""

import os
import pickle
import shutil

import pytest
import torch

from mamba_speech.export import export_run
from tests.support.run_folders import call, write_voices

COMMANDS = {
    "ctc": ["transcribe", "RUN", "ONE"],
    "s2s": ["transcribe", "RUN", "ONE"],
    "windows": ["separate", "RUN", "ONE", "--output_folder", "OUT"],
    "keywords": ["spot", "RUN", "ONE", "--threshold", "0"],
    "speakers": ["verify", "RUN", "ONE", "TWO"],
}


@pytest.fixture(scope="module")
def exported(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in COMMANDS:
        export_run(runs[name], folder / name)
    return folder


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    return write_voices(tmp_path_factory.mktemp("voices"))


@pytest.fixture
def use(exported, voices, tmp_path):
    """A copy of an exported folder, and a function that uses it by its command."""

    def begin(name):
        folder = tmp_path / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(exported / name, folder)
        words = {"RUN": folder, "ONE": voices[0], "TWO": voices[1], "OUT": tmp_path / "out"}
        return folder, lambda: call([words.get(word, word) for word in COMMANDS[name]])

    return begin


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def refused(done, folder, file):
    """Whether a command ended with one sentence that names the file."""
    status, out, err = done
    lines = [line for line in err.splitlines() if "error:" in line]
    assert status == 2 and not out and len(lines) == 1, err
    assert f"{folder / file}" in lines[0], err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_for_the_exported_folder_what_it_gives_for_the_run(
    name, exported, runs, voices, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = []
    for folder in (runs[name], exported / name):
        # each in a folder of its own, where a separator writes its files
        out = tmp_path / str(len(given))
        words = {"RUN": folder, "ONE": voices[0], "TWO": voices[1], "OUT": out}
        status, printed, err = call([words.get(word, word) for word in COMMANDS[name]])
        assert status == 0, err
        written = {path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else {}
        given.append((printed.replace(str(out), "OUT"), written))
    assert given[0] == given[1] and any(given[0])


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    "tag",
    [
        "!new:os.system [touch MARK]",
        "!apply:os.system [touch MARK]",
        "!name:os.system [touch MARK]",
        "!include:evil.yaml",
        "!module:os",
        "!!python/object/apply:os.system [touch MARK]",
        "!new:speechbrain.utils.superpowers.run_shell [touch MARK]",
        "!new:mamba_speech.asr.recognizer.Recognizer {}",
    ],
)
@pytest.mark.parametrize("key", ["model", "never_read"])
def test_a_yaml_that_names_anything_else_is_refused(name, tag, key, use, tmp_path):
    folder, run = use(name)
    mark, file = tmp_path / "mark", folder / "hyperparams.yaml"
    tag = tag.replace("MARK", str(mark))
    text = file.read_text()
    if key == "model":
        text = text.replace("\nmodel: ", "\nold_model: ", 1)
    file.write_text(f"{text}{key}: {tag}\n")
    (folder / "evil.yaml").write_text(f"x: !apply:os.system [touch {mark}]\n")
    refused(run(), folder, "hyperparams.yaml")
    assert not mark.exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_weights_that_hold_code_are_refused(name, use, tmp_path):
    folder, run = use(name)
    file = folder / "model.safetensors"
    for write in (
        lambda: torch.save({"model.w": Payload(tmp_path / "mark")}, file),
        lambda: file.write_bytes(pickle.dumps(Payload(tmp_path / "mark"))),
    ):
        write()
        assert "cannot be read as weights" in refused(run(), folder, file.name)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "name, file",
    [
        ("ctc", "tokenizer.model"),
        ("s2s", "tokenizer.model"),
        ("keywords", "labels.json"),
        ("speakers", "threshold.json"),
    ],
)
def test_other_files_that_hold_code_are_refused(name, file, use, tmp_path):
    folder, run = use(name)
    for content in (pickle.dumps(Payload(tmp_path / "mark")), b"__import__('os').mkdir('mark')"):
        (folder / file).write_bytes(content)
        refused(run(), folder, file)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_half_an_export_is_named(name, use, exported):
    names = [path.name for path in (exported / name).iterdir()]
    left_out = {"README.md", "label_encoder.txt", "threshold.json", "hyperparams.yaml"}
    for file in set(names) - left_out:
        folder, run = use(name)
        (folder / file).unlink()
        assert "no such file" in refused(run(), folder, file)
    folder, run = use(name)
    (folder / "hyperparams.yaml").unlink()
    refused(run(), folder, "")
    folder, run = use(name)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "damaged" in refused(run(), folder, weights.name)


def test_weights_of_another_model_are_named(use, exported):
    folder, run = use("keywords")
    shutil.copy(exported / "speakers" / "model.safetensors", folder)
    assert "is of another model than the hyperparams.yaml" in refused(
        run(), folder, "model.safetensors"
    )


def test_a_folder_of_another_task_gets_the_command_for_it(use, voices):
    folder, _ = use("keywords")
    status, _, err = call(["transcribe", folder, voices[0]])
    assert status == 2 and "use `mamba-speech spot`" in err
