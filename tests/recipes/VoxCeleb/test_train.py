"""The speaker recipe: every YAML, resuming, the second stage, early stopping, the threshold and the test."""

import json
import shutil

import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file

from mamba_speech.evaluation.verification import TrialErrors, read_trial_scores
from mamba_speech.run import load_run, read_options
from mamba_speech.speaker.embedding import embed_files, similarity
from tests.support.recipes import (
    TORCHRUN,
    check_output,
    check_record,
    checkpoints,
    command_line,
    logged,
    read_csv,
    results,
    run_script,
)
from tests.support.speakers import FOLDER, RECIPE, SMALL
from training.provenance import hash_list
from training.results import read_results

LIST = "veri_test2"
# the debug recipe is trained in every run of the tests, the others in the exhaustive one
EACH = [
    pytest.param(
        p.relative_to(FOLDER).with_suffix("").as_posix(),
        id=p.stem,
        marks=() if p.stem == "debug" else pytest.mark.exhaustive,
    )
    for p in sorted(FOLDER.rglob("*.yaml"))
]


def weights(folder, name="model"):
    return torch.load(checkpoints(folder)[-1] / f"{name}.ckpt", weights_only=True)


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", EACH)
def test_every_yaml_trains_saves_resumes_and_tests(name, run):
    folder = run(name, number_of_epochs=1, avg_checkpoints=2)
    before = weights(folder)
    run(name, number_of_epochs=2, avg_checkpoints=2)
    assert len(list(logged(folder))) == 2
    assert not same(before, weights(folder))
    found = results(folder, LIST)
    assert found["fidelity"] == "corrected" and found["trials"] == 4 and 0 <= found["EER"] <= 100
    script = "distill.py" if name.startswith("distill/") else "train.py"
    check_record(folder, script, {"train", "valid", "valid_trials"})
    scores = read_trial_scores(folder / f"scores_{LIST}.csv")
    assert len(scores) == 4 and all(-1 <= one.score <= 1 for one in scores.values())
    assert not list(folder.rglob("*.partial"))


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, sounds, tmp_path):
    options = {"total_steps": 6, "augment_probability": 1}
    options |= {"noise_folder": sounds / "noise", "rir_folder": sounds / "rooms"}
    whole = run("debug", **options, number_of_epochs=2, output_folder=tmp_path / "whole")
    for epochs in (1, 2):
        parts = run("debug", **options, number_of_epochs=epochs, output_folder=tmp_path / "parts")
    assert same(weights(whole), weights(parts))
    assert same(weights(whole, "classifier"), weights(parts, "classifier"))
    # but for the date and what the machine spent, nothing in a result tells the two apart
    spent = {"train_seconds": 0, "peak_memory_mb": 0}
    assert {**results(whole, LIST), **spent} == {**results(parts, LIST), **spent}


def test_an_epoch_resumed_in_its_middle_is_logged_as_a_whole_one(run):
    options = {"total_steps": 6, "number_of_epochs": 2, "checkpoint_choice": "last"}
    options |= {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 2}
    folder = run("debug", **options)
    within, last = checkpoints(folder)
    assert "EER" not in yaml.safe_load((within / "CKPT.yaml").read_text())
    before = weights(folder)
    shutil.rmtree(last)
    run("debug", **options)
    _, whole, resumed = ({**figures, "train seconds": 0} for figures in logged(folder))
    assert resumed == whole and same(before, weights(folder))


def test_the_threshold_is_that_of_the_validation_trials_and_scores_are_those_of_use(
    trained, voices
):
    kept = json.loads((trained / "save" / "threshold.json").read_text())
    assert kept["trials"] == 24 and kept["speakers"] == 2
    # by which score.py knows the list again
    assert kept["list_hash"] == hash_list(trained / "valid_trials.txt")
    model = load_run(trained, [], selection_key=("EER", "error"))["model"]
    trials = [line.split() for line in (trained / "valid_trials.txt").read_text().splitlines()]
    files = sorted({path for _, *pair in trials for path in pair})
    found = embed_files(model, [voices / path for path in files], min_speech=0)
    found = {path: one.vector for path, one in zip(files, found, strict=True)}
    scores = [similarity(*(found[path] for path in pair)) for _, *pair in trials]
    errors = TrialErrors([int(label) for label, *_ in trials], scores)
    rate, threshold = errors.eer()
    assert kept["eer"] == pytest.approx(rate)
    assert kept["threshold"] == pytest.approx(threshold, abs=1e-6)
    row = next(iter(read_trial_scores(trained / f"scores_{LIST}.csv").values()))
    pair = embed_files(model, [voices / "wav" / row.enrolment, voices / "wav" / row.test])
    assert row.score == pytest.approx(similarity(*(one.vector for one in pair)), abs=1e-6)


def test_testing_again_changes_nothing_and_other_lists_are_named(run, voices, tmp_path):
    folder = run("debug", number_of_epochs=1)
    saved, first = weights(folder), results(folder, LIST)
    mine = tmp_path / "my list.txt"
    mine.write_text((voices / f"{LIST}.txt").read_text())
    lists = f"['{mine}', '{voices / LIST}.txt']"
    run("debug", "--test_only", trials=lists)
    again = results(folder, LIST)
    assert again["EER"] == first["EER"] == results(folder, "my list")["EER"]
    assert (folder / "scores_my list.csv").is_file() and same(saved, weights(folder))


def test_lists_that_are_not_scored_keep_their_speakers_out_all_the_same(run):
    folder = run("debug", number_of_epochs=1, skip_test=True)
    assert not list(folder.glob("scores_*.csv")) and not read_results(folder).tests
    assert (folder / "save" / "threshold.json").is_file()
    for name in ("train", "valid"):
        heard = {row["speaker"] for row in read_csv(folder / f"{name}.csv")}
        assert heard and not heard & {"id00005", "id00006"}


def test_training_stops_early_and_started_again_has_nothing_to_add(run):
    # two voices that are told apart at once: no epoch is better than the first
    options = {"number_of_epochs": 9, "stop_after": 2, "lr": 1e-30, "checkpoint_choice": "last"}
    folder = run("debug", **options)
    assert len(list(logged(folder))) == 3
    first = results(folder, LIST)
    run("debug", **options)
    assert len(list(logged(folder))) == 3
    again = results(folder, LIST)
    assert again["date"] >= first["date"] and again["EER"] == first["EER"]


def test_the_second_stage_keeps_each_speakers_own_class_and_takes_its_own_options(
    run, trained, tmp_path
):
    options = {"fine_tune": trained, "fine_tune_lr": 1e-30, "fine_tune_epochs": 1}
    options |= {"fine_tune_crop_seconds": 0.9, "fine_tune_crop_seconds_max": 0.9}
    folder = run("debug", **options, output_folder=tmp_path / "second")
    # running statistics move without a rate
    learnt = {key: one for key, one in weights(trained).items() if ".norm." not in key}
    assert same(learnt, weights(folder))
    rows = weights(trained, "classifier")["centres"]
    assert torch.equal(weights(folder, "classifier")["centres"], rows[: len(rows) // 3])
    kept = read_options(folder, ["margin", "speeds", "number_of_epochs"])
    assert kept["margin"] == 0.5 and kept["speeds"] == [100] and kept["number_of_epochs"] == 1
    kept = read_options(folder, ["crop_seconds", "crop_seconds_max", "threshold_file"])
    assert kept["crop_seconds"] == kept["crop_seconds_max"] == 0.9
    assert kept["threshold_file"].is_file()


def test_a_run_on_a_pretrained_network_starts_from_it_and_needs_it_never_again(
    run, teacher, tmp_path
):
    source = shutil.copytree(teacher, tmp_path / "source")
    options = {"ssl_source": source, "number_of_epochs": 1, "lr_front_end": 1e-30}
    folder = run("mamba_wav2vec2", **options)
    weight = "encoder.layers.2.feed_forward.output_dense.weight"
    theirs = load_file(source / "model.safetensors")[weight]
    assert torch.allclose(weights(folder)[f"front_end.network.{weight}"], theirs)
    shutil.rmtree(source)
    first = results(folder, LIST)
    run("mamba_wav2vec2", "--test_only", **options)
    assert results(folder, LIST)["EER"] == first["EER"]
    run("mamba_wav2vec2", **options | {"number_of_epochs": 2})
    assert len(list(logged(folder))) == 2
    model = load_run(folder, [], selection_key=("EER", "error"))["model"]
    assert model.front_end.config["hidden_size"] == 16
    # nor does the second stage
    second = run("mamba_wav2vec2", **options, fine_tune=folder, output_folder=tmp_path / "second")
    kept = [read_options(one, ["ssl_config"])["ssl_config"] for one in (folder, second)]
    assert kept[0] == kept[1]


def test_a_classification_is_judged_by_known_speakers_and_has_error_rates_beside(run):
    folder = run("mamba_wav2vec2_classification", number_of_epochs=1)
    (figures,) = logged(folder)
    assert figures["valid accuracy"] + figures["valid error"] == pytest.approx(100, abs=0.1)
    assert figures["valid loss"] > 0 and 0 <= figures["valid EER"] <= 100
    meta = yaml.safe_load((checkpoints(folder)[-1] / "CKPT.yaml").read_text())
    assert meta["error"] == pytest.approx(figures["valid error"], rel=1e-2)
    assert len(json.loads((folder / "speakers.json").read_text())) == 5


@pytest.mark.parametrize("kind", ["missing", "another"])
def test_a_pretrained_network_that_cannot_be_read_is_named(kind, run, tmp_path):
    source = tmp_path / "source"
    if kind == "another":
        source.mkdir()
        (source / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SystemExit, match=f"ssl_source: .*{source.name}"):
        run("mamba_wav2vec2", ssl_source=source)


@pytest.mark.exhaustive
def test_a_small_network_learns_voices(run):
    folder = run("debug", number_of_epochs=12, lr=0.01, crops_per_recording=4, margin=0.1)
    accuracies = [figures["train accuracy"] for figures in logged(folder)]
    assert accuracies[-1] > 2 * accuracies[0]
    assert results(folder, LIST)["EER"] == 0


@pytest.mark.exhaustive
def test_a_run_says_what_is_worth_saying(voices, tmp_path, monkeypatch):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    folder = tmp_path / "a run"
    options = SMALL | {"data_folder": voices, "output_folder": folder, "number_of_epochs": 1}
    # SpeechBrain reports it
    del options["grad_accumulation_factor"]
    arguments = command_line(FOLDER / "debug.yaml", small=SMALL, **options)
    check_output(run_script(RECIPE, "train.py", *arguments).output, folder)


@pytest.mark.exhaustive
def test_torchrun_trains_on_two_processes(voices, tmp_path):
    options = SMALL | {"data_folder": voices, "output_folder": tmp_path, "number_of_epochs": 1}
    options |= {"batch_size": 2}
    arguments = command_line(FOLDER / "debug.yaml", small=SMALL, **options, device="cpu")
    run_script(RECIPE, "train.py", *arguments, launcher=TORCHRUN)
    assert results(tmp_path, LIST)["trials"] == 4
    assert not any(name.startswith("module.") for name in weights(tmp_path))
    assert (checkpoints(tmp_path)[-1] / "random_state.rank1.ckpt").exists()


def test_a_silent_recording_of_a_list_is_named_and_the_other_lists_are_scored(
    run, voices, tmp_path
):
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    silent = corpus / "wav" / "id00005" / "s0" / "00000.wav"
    soundfile.write(silent, torch.zeros(16000).numpy(), 16000)
    good = corpus / "good.txt"
    lines = (corpus / f"{LIST}.txt").read_text().splitlines(keepends=True)
    good.write_text("".join(line for line in lines if "id00005/s0/00000" not in line))
    lists = f"['{corpus / LIST}.txt', '{good}']"
    with pytest.raises(SystemExit, match=f"{LIST}: 1 recording .*{silent.name}: holds 0.00 s"):
        run("debug", data_folder=corpus, number_of_epochs=1, trials=lists)
    assert set(read_results(tmp_path / "run").tests) == {"good"}
    # another list of a name that is there would replace its scores
    with pytest.raises(SystemExit, match="holds the scores of another list called good"):
        good.write_text("".join(reversed(good.read_text().splitlines(keepends=True))))
        run("debug", "--test_only", data_folder=corpus, trials=f"['{good}']")


def test_a_silent_validation_recording_leaves_its_trials_out(run, voices, tmp_path):
    first = run("debug", number_of_epochs=1, skip_test=True, output_folder=tmp_path / "first")
    line = (first / "valid_trials.txt").read_text().splitlines()[0]
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    silent = corpus / line.split()[1]
    soundfile.write(silent, torch.zeros(16000).numpy(), 16000)
    # a full check would leave the recording out before
    folder = run("debug", data_folder=corpus, number_of_epochs=1, skip_test=True, verify="header")
    kept = json.loads((folder / "save" / "threshold.json").read_text())
    assert 0 < kept["trials"] < 24 and 0 <= kept["eer"] <= 1
    assert (
        f"validation trials do not count for the threshold: {silent}"
        in (folder / "log.txt").read_text()
    )
