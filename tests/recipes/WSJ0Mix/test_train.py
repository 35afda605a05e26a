"""The separation recipe: every YAML, resuming, what is learnt from and what is not, the one test at the end."""

import math
import shutil

import numpy
import pytest
import soundfile
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.damage import overwrite_middle
from tests.support.recipes import (
    check_record,
    checkpoints,
    logged,
    read_csv,
    results,
)
from tests.support.separation import (
    SMALL,
    YAMLS,
    same_weights,
    say,
    weights,
    write_mixture,
    write_tree,
)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=p.stem, marks=() if "debug" in p.stem else pytest.mark.exhaustive)
        for p in YAMLS
    ],
)
def test_every_yaml_trains_saves_resumes_and_tests(path, run):
    options = SMALL | {"optimizer_step_limit": 2, "number_of_epochs": 1, "metrics": "[si-snr, sdr]"}
    options["n_audio_to_save"] = 0
    folder = run(path.stem, **options)
    (before,) = checkpoints(folder)
    kept = shutil.copytree(before, folder / "before")
    run(
        path.stem,
        **options | {"optimizer_step_limit": 4, "number_of_epochs": 2, "avg_checkpoints": 2},
    )
    assert [figures["steps"] for figures in logged(folder)] == [2, 4]
    assert not same_weights(kept, checkpoints(folder)[-1])
    found = results(folder)
    assert found["fidelity"] == "corrected" and found["mixtures"] == 4
    check_record(folder, "train.py", {"train", "valid"})
    rows = read_csv(folder / "test_results.csv")
    assert [row["snt_id"] for row in rows] == ["tt0", "tt1", "tt2", "tt3", "avg"]
    assert float(rows[-1]["si-snr_i"]) == pytest.approx(found["si-snr_i"], abs=1e-3)
    assert not list(folder.rglob("*.partial"))


@pytest.mark.exhaustive
def test_a_network_learns_to_take_tones_apart(run):
    folder = run("mambatasnet_debug", number_of_epochs=12, lr=0.01, use_speedperturb=False)
    ratios = [figures["valid si-snr"] for figures in logged(folder)]
    assert max(ratios) > ratios[0] + 5
    assert results(folder)["si-snr"] == pytest.approx(max(ratios), abs=5)


def test_three_speakers_are_separated_by_the_same_script(run, tmp_path):
    tree = write_tree(tmp_path / "three", counts=(2, 2, 2), speakers=3)
    folder = run(
        "mambatasnet_debug", data_folder=tree, num_spks=3, number_of_epochs=1, n_audio_to_save=1
    )
    assert results(folder)["mixtures"] == 2
    assert (folder / "audio_results" / "item1_source3hat.wav").is_file()


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_every_figure_of_the_log_has_its_name_and_sign(fidelity, run):
    # as upstream trains, padding counts in the loss: in no other figure
    options = {
        "fidelity": fidelity,
        "valid_batch_size": 4,
        "number_of_epochs": 1,
        "use_tensorboard": True,
    }
    folder = run("mambatasnet_debug", **options)
    (epoch,) = logged(folder)
    assert epoch["valid loss"] > 5 and epoch["valid si-snr"] < -5
    if fidelity == "corrected":
        assert epoch["valid si-snr"] == pytest.approx(-epoch["valid loss"], abs=1e-2)
    (place,) = checkpoints(folder)
    meta = yaml.safe_load((place / "CKPT.yaml").read_text())
    assert meta["loss"] == pytest.approx(epoch["valid loss"], abs=1e-2) and "si-snr" not in meta
    assert results(folder)["si-snr"] < -5
    drawn = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert drawn.Scalars("si-snr/valid")[0].value == pytest.approx(epoch["valid si-snr"], abs=1e-2)
    assert drawn.Scalars("loss/valid")[0].value == pytest.approx(epoch["valid loss"], abs=1e-2)


def test_the_rate_in_the_log_is_that_of_the_last_step(run):
    folder = run("mambatasnet_debug", number_of_epochs=1, n_warmup_steps=0, lr_floor=0)
    (epoch,) = logged(folder)
    # where the cosine has come to its end, the rate of the next step is 0
    assert epoch["steps"] == 4 and epoch["lr"] > 0


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run, tmp_path):
    options = {"total_steps": 8, "use_rand_shift": True, "checkpoint_choice": "last"}
    whole = run(
        "mambatasnet_debug", **options, number_of_epochs=2, output_folder=tmp_path / "whole"
    )
    for epochs in (1, 2):
        parts = run(
            "mambatasnet_debug",
            **options,
            number_of_epochs=epochs,
            output_folder=tmp_path / "parts",
        )
    assert same_weights(checkpoints(whole)[-1], checkpoints(parts)[-1])
    spent = {"train_seconds": 0, "peak_memory_mb": 0}
    assert {**results(whole), **spent} == {**results(parts), **spent}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_run_resumed_within_an_epoch_ends_where_an_uninterrupted_one_does(dynamic, run):
    options = {
        "total_steps": 8,
        "number_of_epochs": 2,
        "checkpoint_choice": "last",
        "use_wavedrop": True,
    }
    options |= {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 3, "num_workers": 1}
    options |= {"threshold": 21.5}
    options |= {
        "dynamic_mixing": dynamic,
        "epoch_mixtures": 8 * dynamic,
        "drop_chunk_length_low": 9,
    }
    folder = run("mambatasnet_debug", **options | {"drop_chunk_length_high": 99})
    within, last = checkpoints(folder)
    kept = shutil.copytree(last, folder / "kept")
    shutil.rmtree(last)
    assert "loss" not in yaml.safe_load((within / "CKPT.yaml").read_text())
    run("mambatasnet_debug", **options | {"drop_chunk_length_high": 99})
    assert checkpoints(folder)[-1] != within and same_weights(kept, checkpoints(folder)[-1])
    # the log tells of the whole epoch, and not of what was left of it
    _, whole, resumed = ({**figures, "train seconds": 0} for figures in logged(folder))
    assert resumed == whole and whole["train dropped mixtures"] > 0


@pytest.mark.exhaustive
def test_recordings_that_dynamic_mixing_cannot_read_are_listed_and_a_resume_is_the_same(
    run, singles, tmp_path
):
    voices = shutil.copytree(singles, tmp_path / "voices")
    sound, rate = soundfile.read(voices / "speaker1/0.wav")
    damaged = voices / "speaker1/damaged.flac"
    soundfile.write(damaged, sound, rate)
    # with its header and its end as they were
    overwrite_middle(damaged)
    (voices / "speaker2/broken.wav").write_bytes(b"no sound")
    options = {"dynamic_mixing": True, "epoch_mixtures": 16, "base_folder_dm": voices}
    options |= {"total_steps": 8, "number_of_epochs": 2, "checkpoint_choice": "last"}
    options |= {"ckpt_interval_minutes": 0, "ckpt_interval_steps": 3, "num_workers": 1}
    folder = run("mambatasnet_debug", **options)
    listed = read_csv(folder / "unreadable.csv")
    assert [row["path"] for row in listed] == [str(damaged)]
    assert listed[0]["error"].startswith(f"{damaged}: ")
    skipped = read_csv(folder / "skipped_speech.csv")
    assert [row["path"] for row in skipped] == [str(voices / "speaker2/broken.wav")]
    last = checkpoints(folder)[-1]
    kept = shutil.copytree(last, folder / "kept")
    shutil.rmtree(last)
    run("mambatasnet_debug", **options)
    assert same_weights(kept, checkpoints(folder)[-1])
    assert read_csv(folder / "unreadable.csv") == listed


def test_a_batch_of_padded_mixtures_is_worth_what_each_is_alone(run, tmp_path):
    figures = []
    for size in (1, 4):
        options = {"valid_batch_size": size, "test_batch_size": size, "number_of_epochs": 1}
        folder = run("mambatasnet_debug", **options, output_folder=tmp_path / str(size))
        (epoch,) = logged(folder)
        figures.append([epoch["valid si-snr"], epoch["valid si-snr_i"]])
        figures[-1] += [float(row["si-snr"]) for row in read_csv(folder / "test_results.csv")]
    assert figures[0] == pytest.approx(figures[1], abs=1e-2)


@pytest.mark.parametrize("option", [{"threshold": 999}, {"loss_upper_lim": -999}], ids=str)
def test_what_is_not_learnt_from_moves_nothing_and_is_counted(option, run):
    # the second epoch begins with the momentum of the first
    shared = {"total_steps": 8, "checkpoint_choice": "last"}
    folder = run("mambatasnet_debug", **shared, number_of_epochs=1)
    kept = shutil.copytree(checkpoints(folder)[-1], folder / "kept")
    run("mambatasnet_debug", **shared, number_of_epochs=2, **option)
    assert [figures["train dropped mixtures"] for figures in logged(folder)] == [0, 8]
    assert same_weights(kept, checkpoints(folder)[-1])


def test_a_mixture_that_is_separated_well_enough_adds_nothing_to_the_gradient(recipe):
    brain = recipe("train").SeparationBrain.__new__(recipe("train").SeparationBrain)
    brain.hparams = type("Options", (), {"threshold_byloss": True, "threshold": -30})
    brain.hparams.loss_upper_lim = 999
    brain.dropped_mixtures = brain.kept_mixtures = 0
    losses = torch.tensor([-31.0, 4.0, -30.0, 2.0], requires_grad=True)
    loss = brain._training_loss(losses)
    loss.backward()
    assert loss.item() == 3 and losses.grad.tolist() == [0, 0.5, 0, 0.5]
    assert (brain.dropped_mixtures, brain.kept_mixtures) == (2, 2)
    # what is no number is no good separation: it must be seen
    assert math.isnan(float(brain._training_loss(torch.tensor([math.nan, -31.0]))))


def test_a_mixture_that_is_no_sound_is_left_out_and_counted(run, tree, tmp_path):
    tree = shutil.copytree(tree, tmp_path / "tree")
    # finite samples, whose energy is beyond float32
    loud = 3e19 * say(1, 0.5, numpy.random.default_rng(0)).astype("float32")
    write_mixture(tree / "wav8k" / "min" / "tr", "loud", [loud, loud], "FLOAT")
    options = {
        "data_folder": tree,
        "batch_size": 1,
        "number_of_epochs": 1,
        "use_speedperturb": False,
    }
    folder = run("mambatasnet_debug", verify="header", **options)
    (figures,) = logged(folder)
    # the next mixture takes its place, so that no step is lost
    assert figures["train unreadable mixtures"] == 1 and figures["steps"] == 9
    assert "tr/mix/loud.wav" in (folder / "unreadable.csv").read_text()
    assert all(torch.isfinite(value).all() for value in weights(checkpoints(folder)[-1]).values())


def test_mixed_precision_trains_and_keeps_the_weights_in_float32(run):
    folder = run("mambatasnet_debug", precision="bf16", number_of_epochs=1)
    assert results(folder)["precision"] == "bf16"
    for value in weights(checkpoints(folder)[-1]).values():
        assert value.dtype == torch.float32 and torch.isfinite(value).all()


def test_upstream_fidelity_trains_and_its_result_says_so(run):
    folder = run("mambatasnet_debug", fidelity="upstream", number_of_epochs=1)
    assert results(folder)["fidelity"] == "upstream"


def test_a_validation_that_is_no_number_is_not_the_best(run, recipe, monkeypatch):
    brain = recipe("train").SeparationBrain
    separate = brain.compute_forward

    def fail_in_the_second_epoch(self, batch, stage):
        estimates = separate(self, batch, stage)
        failing = stage.name == "VALID" and self.hparams.epoch_counter.current == 2
        return estimates * math.nan if failing else estimates

    monkeypatch.setattr(brain, "compute_forward", fail_in_the_second_epoch)
    folder = run("mambatasnet_debug", number_of_epochs=2)
    first, second = logged(folder)
    assert math.isnan(second["valid loss"]) and math.isnan(second["valid si-snr"])
    kept = [yaml.safe_load((path / "CKPT.yaml").read_text()) for path in checkpoints(folder)]
    assert [(meta["epoch"], meta["loss"]) for meta in kept] == [
        (1, pytest.approx(first["valid loss"], abs=1e-2)),
        (2, math.inf),
    ]
    assert math.isfinite(results(folder)["si-snr"])


def test_a_warm_up_longer_than_the_training_is_said(run, capsys):
    run("mambatasnet_debug", number_of_epochs=1, n_warmup_steps=4)
    assert "the 4 steps of the schedule are all warm-up" in "".join(capsys.readouterr())


def test_without_the_cosine_the_rate_falls_only_after_epochs_without_gain(run):
    options = {"use_cosine_schedule": False, "dont_halve_until_epoch": 0, "lr_patience": 0}
    folder = run("mambatasnet_debug", **options, number_of_epochs=8, lr=0.05, n_warmup_steps=0)
    rate, lowest, halved = 0.05, math.inf, 0
    for figures in logged(folder):
        assert figures["lr"] == pytest.approx(rate, rel=1e-2)
        if figures["valid loss"] > lowest:
            rate, halved = rate / 2, halved + 1
        lowest = min(lowest, figures["valid loss"])
    assert halved
