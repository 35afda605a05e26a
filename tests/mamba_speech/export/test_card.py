"""The model card, and the record that goes along: all that the run recorded, and no place of the machine."""

import json
import shutil

import pytest
import yaml

from mamba_speech.export import export_run
from mamba_speech.export.record import hide_places
from mamba_speech.run_task import task_of
from tests.support.run_folders import call
from tests.support.tested_runs import write_record
from training.results import read_results


@pytest.fixture
def recorded(runs, tmp_path):
    """A keyword run that was tested."""
    run = tmp_path / "run"
    shutil.copytree(runs["keywords"], run)
    write_record(run, "test", accuracy=91.25)
    record = json.loads((run / "results.json").read_text())
    session = record["training"]["sessions"][0]
    session |= {"yaml": "hparams/SpeechCommands/KWS/mini.yaml"}
    session["overrides"] = {"data_folder": "/home/ada/words", "output_folder": "/home/ada/out"}
    record["recipe"] = {"folder": "recipes/SpeechCommands/KWS", "script": "train.py"}
    record["training"]["synthetic"] = True
    (run / "results.json").write_text(json.dumps(record))
    return run


def test_the_card_tells_data_figures_command_and_the_ways_to_load(recorded, tmp_path):
    export_run(recorded, tmp_path / "exported")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "heard only synthetic speech" in card
    assert "| test | accuracy | 91.25 |" in card
    assert "python train.py hparams/mini.yaml --data_folder .../words" in card
    for way in (
        "mamba-speech spot FOLDER",
        "KeywordSpotter.load(",
        "EncoderClassifier.from_hparams(",
    ):
        assert way in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "speechbrain" and "keywords" in head["tags"]


def test_nothing_in_the_folder_names_a_place_of_the_machine(recorded, tmp_path):
    export_run(recorded, tmp_path / "exported")
    for path in (tmp_path / "exported").iterdir():
        content = path.read_bytes()
        assert b"/home/ada" not in content and str(tmp_path).encode() not in content, path
    record = read_results(tmp_path / "exported")
    assert record.tests["test"].figures == {"accuracy": 91.25}


def test_every_task_has_a_card_and_its_folder_tells_the_task(runs, tmp_path):
    for name, run in runs.items():
        if name != "lm":
            export_run(run, tmp_path / name)
            card = (tmp_path / name / "README.md").read_text()
            assert "The run recorded no test." in card and "did not record" in card
            assert task_of(tmp_path / name) == task_of(run)


def test_commands_warn_of_an_exported_model_that_heard_only_synthetic_speech(recorded, tmp_path):
    export_run(recorded, tmp_path / "exported")
    (tmp_path / "exported" / "results.json").unlink()
    _, _, err = call(["spot", tmp_path / "exported", tmp_path / "none.wav"])
    assert f"{tmp_path / 'exported'}: this model has heard only synthetic speech" in err


def test_absolute_paths_of_every_kind_lose_all_but_their_names():
    texts = {
        "/data/x.csv": ".../x.csv",
        "~/x": ".../x",
        r"C:\\Users\\ada\\x": ".../x",
        "['/a/b', '/c/d']": "['.../b', '.../d']",
        "recipes/x": "recipes/x",
        "https://example.org/a": "https://example.org/a",
        "1/2": "1/2",
        "/": "/",
    }
    assert {text: hide_places(text) for text in texts} == texts
