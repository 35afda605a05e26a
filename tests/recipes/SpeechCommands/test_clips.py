"""Clips of a keyword run: the same ones until its end, and a prediction of each that is tested."""

import shutil
import statistics
from pathlib import Path

import pytest

from mamba_speech.evaluation.classification import macro_f1, read_predictions
from tests.support.keywords import RECIPE, SPEAKERS, TASK, train_here
from tests.support.recipes import results, scripts


def test_training_goes_on_with_the_same_clips_only_wherever_they_lie(tmp_path, monkeypatch):
    with scripts(monkeypatch, RECIPE) as load:
        keep_clips = load("keyword_data").keep_clips
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


def test_mistakes_add_up_to_the_accuracy_and_other_clips_are_refused(trained, tones, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
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
