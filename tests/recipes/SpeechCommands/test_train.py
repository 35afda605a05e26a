"""The keyword recipe: every YAML, resuming, what is learnt, the one test at the end."""

import json
import shutil

import pytest
import soundfile
import torch
import yaml

from tests.support.keywords import RATE, RECIPE, SMALL, SPEAKERS, TASK, say
from tests.support.recipes import (
    TORCHRUN,
    check_output,
    check_record,
    checkpoints,
    command_line,
    load_options,
    logged,
    read_csv,
    results,
    run_pasted,
    run_script,
)

FOLDER = RECIPE / "hparams"
YAML = FOLDER / "debug.yaml"
# the debug recipe is trained in every run of the tests, the others in the exhaustive one
EACH = [
    pytest.param(p, id=p.stem, marks=() if p.stem == "debug" else pytest.mark.exhaustive)
    for p in sorted(FOLDER.glob("*.yaml"))
]


def weights(folder):
    return torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)


@pytest.mark.parametrize("path", EACH)
def test_every_yaml_trains_saves_resumes_and_tests(path, run):
    folder = run(path.stem, **SMALL, number_of_epochs=1, avg_checkpoints=2)
    before = weights(folder)
    run(path.stem, **SMALL, number_of_epochs=2, avg_checkpoints=2)
    assert len(list(logged(folder))) == 2
    assert any(not torch.equal(before[key], value) for key, value in weights(folder).items())
    found = results(folder)
    assert found["fidelity"] == "corrected" and found["clips"] == 6
    check_record(folder, "train.py", {"train", "valid", "labels"})
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert (folder / "confusion_test.png").stat().st_size > 1000
    assert not list(folder.rglob("*.partial"))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, tmp_path):
    options = {"total_steps": 10, "white_noise_max": 0.01}
    whole = run("debug", **options, number_of_epochs=2, output_folder=tmp_path / "whole")
    for epochs in (1, 2):
        parts = run("debug", **options, number_of_epochs=epochs, output_folder=tmp_path / "parts")
    a, b = weights(whole), weights(parts)
    assert all(torch.equal(a[key], b[key]) for key in a)
    # but for the date and what the machine spent, nothing in a result tells the two apart
    spent = {"train_seconds": 0, "peak_memory_mb": 0}
    assert {**results(whole), **spent} == {**results(parts), **spent}


def test_an_epoch_resumed_in_its_middle_is_logged_as_a_whole_one(run):
    options = {"total_steps": 8, "number_of_epochs": 2, "checkpoint_choice": "last"}
    options |= {"batch_size": 4, "ckpt_interval_minutes": 0, "ckpt_interval_steps": 3}
    folder = run("debug", **options)
    within, last = checkpoints(folder)
    assert "error" not in yaml.safe_load((within / "CKPT.yaml").read_text())
    shutil.rmtree(last)
    run("debug", **options)
    _, whole, resumed = ({**figures, "train seconds": 0} for figures in logged(folder))
    assert resumed == whole


def test_the_test_takes_the_best_epoch_and_testing_again_changes_nothing(run):
    folder = run("debug", number_of_epochs=4, avg_checkpoints=1, lr=0.03)
    epochs = list(logged(folder))
    best = max(figures["valid accuracy"] for figures in epochs)
    (kept,) = checkpoints(folder)
    meta = yaml.safe_load((kept / "CKPT.yaml").read_text())
    assert meta["error"] == pytest.approx(100 - best, abs=1e-2)
    first, saved = results(folder), weights(folder)
    (folder / "results.json").unlink()
    for flags in (("--test_only",), ("--skip_train", "True")):
        run("debug", *flags)
        again = results(folder)
        assert {**again, "peak_memory_mb": 0} == {**first, "peak_memory_mb": 0}
    assert all(torch.equal(saved[key], value) for key, value in weights(folder).items())


@pytest.mark.exhaustive
def test_a_small_network_learns_words_of_unseen_speakers(run):
    folder = run("debug", number_of_epochs=25, lr=0.01, max_grad_norm=5, background_probability=0.2)
    assert results(folder)["accuracy"] == 100
    rows = read_csv(folder / "per_class_test.csv")
    assert [row["class"] for row in rows] == ["down", "stop", "up"]
    assert all(float(row["F1"]) == 100 for row in rows)


def test_a_speaker_of_the_spoken_digits_is_left_out(run, tmp_path):
    digits = tmp_path / "digits" / "recordings"
    digits.mkdir(parents=True)
    for name in ("ann", "bob", "cat"):
        for digit in range(10):
            for index in (0, 1):
                sound = say("up", SPEAKERS[digit % 9], 0.3 + 0.1 * digit)[::2]
                soundfile.write(digits / f"{digit}_{name}_{index}.wav", sound, 8000)
    options = {"data_folder": digits.parent, "test_speaker": "bob", "n_classes": 10}
    folder = run("debug", **options, background_probability=0, number_of_epochs=1)
    assert {row["speaker"] for row in read_csv(folder / "test.csv")} == {"bob"}
    assert "bob" not in {row["speaker"] for row in read_csv(folder / "train.csv")}
    assert results(folder)["clips"] == 20
    assert json.loads((folder / "save" / "labels.json").read_text())[:2] == ["zero", "one"]


def test_chosen_words_are_told_from_unknown_ones_and_silence(run):
    folder = run("debug", words="[up]", n_classes=3, number_of_epochs=1, unknown_percentage=100)
    labels = json.loads((folder / "save" / "labels.json").read_text())
    assert labels == ["up", "_unknown_", "_silence_"]
    assert results(folder)["clips"] > 2


@pytest.mark.exhaustive
def test_a_run_says_what_is_worth_saying_and_ends_with_a_command_that_works(
    tones, tmp_path, monkeypatch
):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    folder = tmp_path / "a run"
    options = TASK | {"data_folder": tones, "output_folder": folder, "number_of_epochs": 1}
    output = run_script(RECIPE, "train.py", *command_line(YAML, **options)).output
    check_output(output, folder)
    done = run_pasted(output, RECIPE)
    assert done.returncode == 0
    # the tones have neither unknown words nor silence
    (line,) = done.stderr.splitlines()
    assert "the model has no class _unknown_ and no class _silence_" in line


def test_the_plateau_schedule_halves_the_rate_only_after_epochs_without_gain(run):
    folder = run("keyword_cnn", **SMALL, number_of_epochs=6, lr_patience=0, lr=0.05)
    rate, lowest = 0.05, float("inf")
    for figures in logged(folder):
        assert figures["lr"] == pytest.approx(rate, rel=1e-2)
        rate = rate / 2 if figures["valid loss"] > lowest else rate
        lowest = min(lowest, figures["valid loss"])


def test_upstream_fidelity_trains_and_its_result_says_so(run):
    folder = run("debug", fidelity="upstream", number_of_epochs=1)
    assert results(folder)["fidelity"] == "upstream"


def test_clips_keep_their_lengths_where_they_are_not_padded(recipe, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    path = corpus / "up" / "00000000_nohash_0.wav"
    soundfile.write(path, say("up", "00000000", 0.4), RATE)
    options = {"data_folder": corpus, "output_folder": tmp_path, "pad_clips": False, **TASK}
    arguments = [str(FOLDER / "debug.yaml")]
    for key, value in options.items():
        arguments += [f"--{key}", str(value)]
    hparams, _ = load_options(arguments)
    data = recipe("keyword_data")
    found, labels = data.prepare_clips(hparams)
    train, *_ = data.make_datasets(hparams, found, labels)
    assert {item["samples"] for item in train} == {int(0.4 * RATE), int(0.9 * RATE)}
    hparams["pad_clips"] = True
    train, *_ = data.make_datasets(hparams, found, labels)
    assert {len(item["sig"]) for item in train} == {RATE}


@pytest.mark.exhaustive
def test_torchrun_trains_networks_with_batch_norm_on_two_processes(tones, tmp_path):
    options = TASK | {"data_folder": tones, "output_folder": tmp_path, "number_of_epochs": 1}
    arguments = command_line(YAML, **options, device="cpu")
    run_script(RECIPE, "train.py", *arguments, launcher=TORCHRUN)
    assert results(tmp_path)["clips"] == 6
    assert not any(name.startswith("module.") for name in weights(tmp_path))
    assert (checkpoints(tmp_path)[-1] / "random_state.rank1.ckpt").exists()
