"""The record of a training says whether all that its model has heard was generated."""

import csv
import json

import pytest

from mamba_speech.synthetic import heard_only_synthetic
from tests.support.training import Counting, make_brain
from training.results import read_results


@pytest.fixture
def manifest(tmp_path):
    """A function that writes a training list, all generated or with people in it."""
    (tmp_path / "spoken").mkdir()
    (tmp_path / "spoken" / "corpus.json").write_text('{"synthetic": true}')

    def write(*folders, column="wav"):
        path = tmp_path / "train.csv"
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["ID", "duration", column])
            writer.writeheader()
            for index, folder in enumerate(folders):
                row = {"ID": index, "duration": 1.0}
                writer.writerow(row | {column: tmp_path / folder / f"{index}.wav"})
        return path

    return write


def trained(folder, manifest, epochs=1, **options):
    """The record of a training, which another one may go before."""
    brain = make_brain(folder, brain_class=Counting, epochs=epochs, **options)
    brain.lists = {} if manifest is None else {"train": manifest}
    brain.run()
    return read_results(folder).training.synthetic


@pytest.mark.parametrize(
    ("folders", "synthetic"),
    [(["spoken", "spoken"], True), (["spoken", "people"], False), (["people"], False)],
)
@pytest.mark.parametrize("column", ["wav", "s1_wav"])
def test_a_training_is_synthetic_if_every_recording_is(
    folders, synthetic, column, manifest, tmp_path
):
    assert trained(tmp_path / "run", manifest(*folders, column=column)) is synthetic
    assert heard_only_synthetic(tmp_path / "run") is synthetic


def test_a_training_whose_list_is_not_known_says_nothing(tmp_path):
    assert trained(tmp_path / "run", None) is None


def test_speech_of_people_that_was_heard_once_is_never_forgotten(manifest, tmp_path):
    assert trained(tmp_path / "run", manifest("people"), epochs=1) is False
    assert trained(tmp_path / "run", manifest("spoken"), epochs=2) is False


def test_a_model_that_began_with_weights_from_elsewhere_has_heard_what_these_heard(
    manifest, tmp_path
):
    begun = tmp_path / "begun"
    begun.mkdir()
    for number, known in enumerate((True, False, None)):
        (begun / "results.json").write_text(json.dumps({"training": {"synthetic": known}}))
        brain = make_brain(tmp_path / str(number), brain_class=Counting, epochs=1)
        brain.hparams.pretrained_model = str(begun)
        brain.lists = {"train": manifest("spoken")}
        brain.run()
        assert read_results(tmp_path / str(number)).training.synthetic is (known is True)


def test_records_of_earlier_versions_are_read_without_the_field(manifest, tmp_path):
    trained(tmp_path / "run", manifest("spoken"))
    path = tmp_path / "run" / "results.json"
    found = json.loads(path.read_text())
    del found["training"]["synthetic"]
    path.write_text(json.dumps(found))
    assert read_results(path).training.synthetic is None
