"""The command info: what a run tells of itself."""

import json
import re
import shutil

import pytest

from mamba_speech.commands.citing import PROJECT, WORKS
from mamba_speech.commands.info import describe_run
from tests.support.recipes import ROOT
from tests.support.run_folders import call

TASKS = {
    "ctc": ("recognition", "transcribe"),
    "s2s": ("recognition", "transcribe"),
    "keywords": ("keywords", "spot"),
    "speakers": ("speaker", "verify"),
    "windows": ("separation", "separate"),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_tells_its_size_rate_licence_and_works_to_cite(name, runs):
    status, out, err = call(["info", runs[name], "--json"])
    found = json.loads(out)
    assert status == 0 and err == ""
    assert (found["task"], found["command"].split()[1]) == TASKS[name]
    assert found["parameters"] > 1000 and found["sample_rate"] in (8000, 16000)
    assert "MIT" in found["licence"] and found["cite"][0] == PROJECT and len(found["cite"]) > 1
    _, text, _ = call(["info", runs[name]])
    assert f"{found['parameters']:,}" in text and found["task"] in text


def test_a_training_tells_its_command_data_figures_and_versions(trained):
    found = describe_run(trained)
    record = json.loads((trained / "results.json").read_text())
    assert found["tests"] == {name: one["figures"] for name, one in record["tests"].items()}
    assert found["parameters"] == record["training"]["parameters"]
    assert found["training"]["epochs"] == 2 and found["versions"]["torch"]
    command = found["training"]["command"]
    assert command.startswith("python train_CTC.py hparams/CTC/conmamba_debug.yaml ")
    assert "--number_of_epochs 2" in command
    assert (ROOT / found["training"]["folder"] / command.split()[2]).is_file()
    assert found["data"]["train_manifest"].endswith("train.csv")
    assert found["validation"]["WER"] >= 0 and found["validation"]["epoch"] in (1, 2)


def test_weights_that_cannot_be_loaded_leave_the_rest_and_status_one(runs, tmp_path):
    folder = shutil.copytree(runs["ctc"], tmp_path / "run")
    for file in folder.glob("save/CKPT*/model.ckpt"):
        file.write_bytes(b"torn")
    status, out, _ = call(["info", folder, "--json"])
    found = json.loads(out)
    assert status == 1 and found["task"] == "recognition" and str(folder) in found["fault"]


def test_a_language_model_tells_its_size_and_who_uses_it(runs):
    found = describe_run(runs["lm"])
    assert found["task"] == "language model" and found["parameters"] > 1000
    assert "--lm" in found["command"] and "fault" not in found
    status, _, err = call(["benchmark", runs["lm"]])
    assert status == 2 and "a language model" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "name, content, said",
    [
        (None, None, "no such folder"),
        ("other.txt", "", "is not the output folder of a run"),
        ("hyperparams.yaml", "a: [", "hyperparams.yaml"),
    ],
)
def test_what_is_no_run_gets_one_sentence(name, content, said, tmp_path):
    folder = tmp_path / "folder"
    if name:
        folder.mkdir()
        (folder / name).write_text(content)
    status, out, err = call(["info", folder])
    assert status == 2 and out == "" and said in err and err.count("\n") == 1


@pytest.mark.parametrize("record", ["[]", '{"training": "x"}', '{"tests": {"a": 3}}', "{"])
def test_a_record_that_is_none_gets_one_sentence(record, runs, tmp_path):
    folder = shutil.copytree(runs["keywords"], tmp_path / "run")
    (folder / "results.json").write_text(record)
    status, out, err = call(["info", folder])
    assert status == 2 and out == "" and "results.json" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["ctc", "keywords", "speakers", "windows"])
def test_an_exported_folder_tells_what_its_run_tells(name, runs, tmp_path):
    assert call(["export", runs[name], tmp_path / "exported"])[0] == 0
    before, after = describe_run(runs[name]), describe_run(tmp_path / "exported")
    for fact in ("task", "network", "parameters", "sample_rate", "cite"):
        assert after[fact] == before[fact]


def test_citations_are_those_of_the_citation_file():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    titles = re.findall(r'^ {2,4}title: "(.+)"$', text, re.MULTILINE)
    addresses = re.findall(r'url: "(.+)"', text)
    cited = {work for works in WORKS.values() for work in works}
    assert len(titles) == len(addresses) == len(cited)
    for title, address in zip(titles, addresses, strict=True):
        assert any(title in work and work.endswith(address) for work in cited), title
