"""The separation recipe: every YAML, resuming, what is learnt from and what is not, the one test at the end."""

import math
import shutil
import subprocess
import sys

import numpy
import pytest
import soundfile
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.recipes import (
    check_output,
    check_record,
    checkpoints,
    logged,
    read_csv,
    results,
    run_pasted,
    scripts,
)
from tests.support.separation import (
    RATE,
    RECIPE,
    SMALL,
    YAMLS,
    command_line,
    say,
    weights,
    write_mixture,
    write_tree,
)
from training.schedules import WarmupCosine


@pytest.fixture
def recipe(monkeypatch):
    """The recipe's scripts as modules, by name."""
    with scripts(monkeypatch, RECIPE) as load:
        yield load


@pytest.fixture
def run(recipe, tree, singles, tmp_path, monkeypatch):
    """Run a script of the recipe within this process; gives the output folder."""

    def train(name, *flags, **options):
        paths = {"data_folder": tree, "base_folder_dm": singles, "output_folder": tmp_path / "run"}
        # a figure takes longer than the rest of such a run
        options = paths | {"n_audio_to_save": 0, "metrics": "[si-snr]"} | options
        monkeypatch.setattr(sys, "argv", ["train.py", *command_line(name, *flags, **options)])
        recipe("train").main()
        return options["output_folder"]

    return train


def same(first, second):
    """Whether two checkpoints hold the same weights."""
    a, b = weights(first), weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


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
    assert not same(kept, checkpoints(folder)[-1])
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
    assert same(checkpoints(whole)[-1], checkpoints(parts)[-1])
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
    assert checkpoints(folder)[-1] != within and same(kept, checkpoints(folder)[-1])
    # the log tells of the whole epoch, and not of what was left of it
    _, whole, resumed = ({**figures, "train seconds": 0} for figures in logged(folder))
    assert resumed == whole and whole["train dropped mixtures"] > 0


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
    assert same(kept, checkpoints(folder)[-1])


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


def test_a_step_that_is_not_finite_is_skipped_and_counted(run, tree, tmp_path):
    tree = shutil.copytree(tree, tmp_path / "tree")
    # finite samples, that the network can still normalise but whose energy is beyond float32
    loud = 3e19 * say(1, 0.5, numpy.random.default_rng(0)).astype("float32")
    write_mixture(tree / "wav8k" / "min" / "tr", "loud", [loud, loud], "FLOAT")
    options = {
        "data_folder": tree,
        "batch_size": 1,
        "number_of_epochs": 1,
        "use_speedperturb": False,
    }
    # the clipping of estimates would keep the loss finite
    options["clip_wav_max"] = "1.0e+38"
    folder = run("mambatasnet_debug", "--skip_nonfinite_grads", **options)
    (figures,) = logged(folder)
    assert figures["train skipped steps"] == 1 and figures["steps"] == 9
    assert all(torch.isfinite(value).all() for value in weights(checkpoints(folder)[-1]).values())


def test_mixed_precision_trains_and_keeps_the_weights_in_float32(run):
    folder = run("mambatasnet_debug", precision="bf16", number_of_epochs=1)
    assert results(folder)["precision"] == "bf16"
    for value in weights(checkpoints(folder)[-1]).values():
        assert value.dtype == torch.float32 and torch.isfinite(value).all()


def test_upstream_fidelity_trains_and_its_result_says_so(run):
    folder = run("mambatasnet_debug", fidelity="upstream", number_of_epochs=1)
    assert results(folder)["fidelity"] == "upstream"


def test_a_pretrained_separator_is_tested_as_it_is_and_trained_on(run, trained, tmp_path):
    (saved,) = checkpoints(trained)
    tested = {"skip_train": True, "output_folder": tmp_path / "tested"}
    for source in (trained, saved):
        folder = run("mambatasnet_debug", pretrained_separator=source, **tested)
        assert results(folder)["si-snr"] == pytest.approx(results(trained)["si-snr"], abs=1e-4)
    further = run(
        "mambatasnet_debug",
        pretrained_separator=saved,
        output_folder=tmp_path / "further",
        lr=0,
        number_of_epochs=1,
    )
    assert same(saved, checkpoints(further)[-1])


def test_a_pretrained_separator_is_not_tested_for_a_record_that_can_not_be_read(
    run, trained, tmp_path
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text('{"version": 2}')
    with pytest.raises(SystemExit, match="results.json: is of version 2"):
        run("mambatasnet_debug", pretrained_separator=trained, skip_train=True)
    assert not (tmp_path / "run" / "test_results.csv").exists()


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


def test_of_a_run_with_checkpoints_no_other_weights_are_tested_unsaid(
    run, trained, tmp_path, capsys
):
    folder = shutil.copytree(trained, tmp_path / "run")
    run("mambatasnet_debug", number_of_epochs=1, skip_train=True, pretrained_separator=folder)
    assert f"testing the checkpoints of {folder} and not {folder}" in "".join(capsys.readouterr())


def test_a_warm_up_longer_than_the_training_is_said(run, capsys):
    run("mambatasnet_debug", number_of_epochs=1, n_warmup_steps=4)
    assert "the 4 steps of the schedule are all warm-up" in "".join(capsys.readouterr())


def test_testing_again_changes_nothing(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    first = results(folder)
    for flags in (("--test_only",), ("--skip_train", "True")):
        (folder / "results.json").unlink()
        run("mambatasnet_debug", *flags)
        assert {**results(folder), "peak_memory_mb": 0} == {**first, "peak_memory_mb": 0}


def test_what_happens_to_a_mixture_follows_from_seed_epoch_and_index_alone(recipe):
    augmentation = recipe("augmentation")
    sounds = {"mix_sig": torch.randn(900), "s1_sig": torch.randn(900), "s2_sig": torch.randn(900)}
    items = [{"id": str(number), **sounds} for number in range(4)]
    augment = augmentation.MixtureAugmenter(RATE, [90, 100, 110], (-50, 50), longest=700)

    def epoch(seed, number, workers):
        mixtures = augmentation.AugmentedMixtures(items, 2, augment, seed)
        mixtures.set_epoch(number)
        loader = torch.utils.data.DataLoader(mixtures, batch_size=None, num_workers=workers)
        return [item["s1_sig"] for item in loader]

    def same(a, b):
        # workers have one thread, which rounds the change of speed otherwise than several do
        return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)

    here = epoch(1, 1, 0)
    torch.randn(7)
    assert all(map(same, here, epoch(1, 1, 2)))
    others = [epoch(1, 2, 0), epoch(2, 1, 0), [here[1], here[2], here[3], here[0]]]
    for other in others:
        assert not any(map(same, here, other))


def test_changed_sources_still_add_up_to_their_mixture(recipe):
    augmentation = recipe("augmentation")
    for speeds in (None, [90, 110]):
        for shifts in (None, (-9, 9)):
            augment = augmentation.MixtureAugmenter(RATE, speeds, shifts, longest=500)
            sources = torch.randn(800, 2)
            mix, changed = augment(sources.sum(1), sources, torch.Generator())
            assert len(mix) == 500 and torch.allclose(mix, changed.sum(1))


def test_a_rate_follows_warm_up_and_cosine_as_torch_has_them():
    parameter = torch.zeros(1, requires_grad=True)
    ours, theirs = (torch.optim.SGD([parameter], lr=0.1) for _ in range(2))
    schedule = WarmupCosine(0.1, n_warmup_steps=10, total_steps=100, floor=0.01)
    warm = torch.optim.lr_scheduler.LinearLR(theirs, 1e-9, total_iters=10)
    # the published cosine begins after the warm-up and ends with the training
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 90, eta_min=0.1 * 0.01)
    chain = torch.optim.lr_scheduler.SequentialLR(theirs, [warm, cosine], milestones=[10])
    for _ in range(100):
        theirs.step()
        chain.step()
        schedule(ours)
        # ours is one of 90 steps longer, so that the last step of all is not lost
        assert ours.param_groups[0]["lr"] == pytest.approx(chain.get_last_lr()[0], abs=0.1 / 50)
    assert ours.param_groups[0]["lr"] == pytest.approx(0.001, rel=0.05)


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


@pytest.mark.exhaustive
def test_a_run_says_what_is_worth_saying_and_ends_with_a_command_that_works(
    tree, tmp_path, monkeypatch
):
    # an earlier training in this process has left its own there
    monkeypatch.delenv("SB_LOG_LEVEL", raising=False)
    folder = tmp_path / "a run"
    options = {"data_folder": tree, "output_folder": folder, "number_of_epochs": 1}
    command = [sys.executable, "train.py", *command_line("mambatasnet_debug", **options)]
    done = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True, check=True)
    check_output(done.stderr + done.stdout, folder)
    pasted = run_pasted(done.stdout, RECIPE)
    assert pasted.returncode == 0 and pasted.stderr == "", pasted.stderr
    assert len(list((folder / "separated").glob("*.wav"))) == 2


def test_the_published_name_and_paths_work_and_say_the_new_ones(
    run, recipe, tree, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(RECIPE)
    options = ["--data_folder", tree, "--output_folder", tmp_path / "out", "--eval_only", "True"]
    command = ["hparams/WSJ0Mix/mambatasnet_debug.yaml", *map(str, options)]
    monkeypatch.setattr(sys, "argv", ["train_wsj0mix.py", *command])
    with pytest.raises(SystemExit, match="nothing to test"):
        recipe("train_wsj0mix").main()
    (line,) = capsys.readouterr().err.splitlines()[:1]
    assert "hparams/WSJ0Mix/mambatasnet_debug.yaml is hparams/mambatasnet_debug.yaml" in line


@pytest.mark.exhaustive
def test_torchrun_trains_on_two_processes_to_the_end(tree, tmp_path):
    # how processes share dynamic mixtures is tested with the data set
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "train.py"]
    options = {"data_folder": tree, "output_folder": tmp_path, "num_workers": 1}
    options |= {
        "distributed_backend": "gloo",
        "batch_size": 1,
        "number_of_epochs": 2,
        "device": "cpu",
    }
    command += command_line("mambatasnet_debug", **options)
    done = subprocess.run(
        command, check=False, cwd=RECIPE, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert results(tmp_path)["mixtures"] == 4
    assert [figures["steps"] for figures in logged(tmp_path)] == [4, 8]
    assert not any(name.startswith("module.") for name in weights(checkpoints(tmp_path)[-1]))
    assert (checkpoints(tmp_path)[-1] / "random_state.rank1.ckpt").exists()


def test_the_saved_sources_neither_clip_nor_vanish(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run") / "audio_results"
    run("mambatasnet_debug", "--test_only", n_audio_to_save=2)
    names = ("mix", "source1", "source1hat", "source2", "source2hat")
    saved = sorted(file.name for file in folder.glob("*.wav"))
    assert saved == [f"item{number}_{name}.wav" for number in (1, 2) for name in names]
    for number in (1, 2):
        mix, _ = soundfile.read(folder / f"item{number}_mix.wav")
        for speaker in (1, 2):
            source, rate = soundfile.read(folder / f"item{number}_source{speaker}hat.wav")
            assert rate == RATE and len(source) == len(mix) and 0 < abs(source).max() < 1
