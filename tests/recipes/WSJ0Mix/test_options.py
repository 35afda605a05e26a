"""The separation recipe's options: published values, every one can be overridden, wrong ones get one sentence."""

import shutil

import numpy
import pytest
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml

from tests.support.recipes import (
    another,
    checkpoints,
    override,
    plain_options,
    read_csv,
    unused_options,
)
from tests.support.separation import (
    FOLDER,
    RATE,
    RECIPE,
    SMALL,
    YAMLS,
    write_speakers,
)
from tests.support.separation_networks import SIZES
from training.aliases import ALIASES
from training.experiment import count_parameters
from training.options import find_options

MODEL = find_options(RECIPE / "train.py")


@pytest.mark.parametrize("name", SIZES)
def test_a_published_network_has_the_published_values_and_as_many_parameters(name, tmp_path):
    path = FOLDER / f"{name}.yaml"
    with open(path, encoding="utf-8") as file, torch.device("meta"):  # sizes without numbers
        hparams = load_hyperpyyaml(file, {"output_folder": str(tmp_path)})
    # each under its name here
    named = {key: ALIASES[key].option for key in SIZES[name]["hparams"] if key in ALIASES}
    published = {named.get(key, key): value for key, value in SIZES[name]["hparams"].items()}
    scheduler, arguments = (published.pop(key, {}) for key in ("lr_scheduler", "lr_scheduler_args"))
    # torch.optim.Adam; mambatasnet_L names a schedule by intervals, whose place the cosine takes
    assert published.pop("optimizer") == "Adam"
    if scheduler == "ReduceLROnPlateau":
        published["lr_factor"], published["lr_patience"] = (
            arguments["factor"],
            arguments["patience"],
        )
        published["dont_halve_until_epoch"] = arguments["dont_halve_until_epoch"]
    assert {key: hparams[key] for key in published} == published
    assert count_parameters(hparams["model"]) == SIZES[name]["total_trainable"]
    for part, count in SIZES[name]["modules"].items():
        assert count_parameters(getattr(hparams["model"], part)) == count


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_option_can_be_overridden_from_the_command_line(path, tmp_path):
    fixed = {"fidelity": "upstream", "precision": "bf16", "lr_floor": 0.5, "dropout": 0.1}
    # sizes must fit one another, and small ones are quick
    fixed |= SMALL | {"num_workers": 7, "n_warmup_steps": 77, "nhead": 4, "kernel_size": 20}
    fixed |= {
        "drop_freq_high": 0.5,
        "drop_freq_low": 0.25,
        "drop_freq_width": 0.06,
        "kernel_stride": 10,
    }
    wanted = {
        key: fixed.get(key, another(value, key, MODEL))
        for key, value in plain_options(path).items()
    }
    wanted |= {"output_folder": str(tmp_path)}
    hparams = override(path, wanted, MODEL)
    model = hparams["model"]
    assert (model.fidelity, model.num_spks) == ("upstream", 3)
    assert (model.kernel_size, model.stride) == (20, 10)
    assert hparams["lr_annealing"].floor == 0.5 and hparams["lr_annealing"].n_warmup_steps == 77
    assert hparams["lr_plateau"].patience == wanted["lr_patience"]
    assert hparams["epoch_counter"].limit == wanted["number_of_epochs"]
    assert hparams["opt_class"].keywords["weight_decay"] == wanted["weight_decay"]
    assert hparams["drop_chunk"].drop_length_high == wanted["drop_chunk_length_high"]
    assert hparams["drop_freq"].drop_freq_width == 0.06


def test_every_option_is_used_by_the_recipe_or_its_yaml():
    assert unused_options(YAMLS, RECIPE) == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_folder": ""}, "give --data_folder"),
        ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
        ({"data_folder": "{tmp}"}, "not laid out like WSJ0-2mix"),
        ({"num_spks": 3}, "s3"),
        ({"num_spks": 5}, "--num_spks must be one of 2, 3; got 5"),
        ({"sample_rate": 16000}, "not laid out like WSJ0-2mix"),
        ({"mode": "median"}, "--mode must be one of min, max"),
        ({"skip_prep": True}, "not there; run once without --skip_prep"),
        ({"skip_train": True}, "nothing to test"),
        ({"dynamic_mixing": True, "base_folder_dm": ""}, "needs --base_folder_dm"),
        ({"dynamic_mixing": True, "base_folder_dm": "{tmp}/nowhere"}, "no such folder"),
        (
            {"metrics": "[si-snr, wer]"},
            "--metrics must be a list of values, each one of si-snr, sdr, stoi, pesq",
        ),
        ({"drop_freq_low": 0.9, "drop_freq_high": 0.5}, "--drop_freq_low 0.9 must not be over"),
        ({"drop_freq_high": 0}, "--drop_freq_high must be a number from 0.001 to 1"),
        (
            {"dynamic_mixing": True, "loudness": "lufs", "training_signal_len": 3199},
            "--training_signal_len 3199 is too short for --loudness lufs, .*: set it to 3200",
        ),
        (
            {"use_rand_shift": True, "min_shift": 9, "max_shift": 9},
            "--min_shift 9 must be less than --max_shift 9",
        ),
        ({"limit_training_signal_len": True, "training_signal_len": 15}, "hold a window .* of 16"),
        ({"batch_size": 0}, "--batch_size must be a whole number, 1 or more"),
        ({"number_of_epochs": 0}, "--number_of_epochs must be a whole number, 1 or more"),
        ({"avg_checkpoints": 0}, "--avg_checkpoints must be a whole number, 1 or more"),
        ({"checkpoint_choice": "worst"}, "--checkpoint_choice must be one of best, last"),
        ({"speed_changes": "[]"}, "--speed_changes must be a list of one or more whole numbers"),
        ({"batch_size": 64, "drop_last": True}, "set --batch_size lower"),
        ({"pretrained_separator": "{tmp}/nowhere"}, "--pretrained_separator: .*no such folder"),
        ({"pretrained_separator": "{tmp}"}, "--pretrained_separator: .*holds no separator"),
        ({"fidelity": "both"}, "fidelity must be one of"),
        ({"kernel_size": 15}, "kernel_size must be even"),
        ({"kernel_stride": 4}, "kernel_stride"),
        ({"lr_floor": 2}, "--lr_floor must be a number from 0 to 1"),
        ({"num_layers": 0}, "--num_layers must be a whole number from 1 to 1000"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, run, tmp_path):
    with pytest.raises(SystemExit, match=message):
        options = {key: str(value).format(tmp=tmp_path) for key, value in options.items()}
        run("mambatasnet_debug", **options)


def test_too_few_speakers_for_dynamic_mixing_are_refused_with_what_to_do(run, tmp_path):
    speech = write_speakers(tmp_path / "speech", speakers=1)
    with pytest.raises(SystemExit, match="too few speakers for dynamic mixing"):
        run("mambatasnet_debug", dynamic_mixing=True, base_folder_dm=speech)


def test_recordings_of_another_rate_are_refused_with_the_command_that_resamples_them(run, tmp_path):
    speech = write_speakers(tmp_path / "speech", speakers=3)
    for path in speech.glob("*/*.wav"):
        soundfile.write(path, numpy.random.randn(9000) / 9, 16000)
    with pytest.raises(SystemExit, match="data_prep.resample_speech"):
        run("mambatasnet_debug", dynamic_mixing=True, base_folder_dm=speech)


def test_unusable_mixtures_are_left_out_counted_and_listed(run, tree, tmp_path):
    tree = shutil.copytree(tree, tmp_path / "tree")
    split = tree / "wav8k" / "min" / "tr"
    sound, _ = soundfile.read(split / "s1" / "tr0.wav", dtype="int16")
    for name, second in (("unequal", sound[:-9]), ("silent", 0 * sound)):
        for part, part_sound in (("mix", sound), ("s1", sound), ("s2", second)):
            soundfile.write(split / part / f"{name}.wav", part_sound, RATE, "PCM_16")
    folder = run("mambatasnet_debug", data_folder=tree, number_of_epochs=1)
    assert len(read_csv(folder / "train.csv")) == 8
    assert len(read_csv(folder / "skipped_train.csv")) == 2
    soundfile.write(split / "mix" / "tr0.wav", sound, 2 * RATE, "PCM_16")
    with pytest.raises(SystemExit, match="tr0.wav is at 16000 Hz, not 8000"):
        run("mambatasnet_debug", data_folder=tree, output_folder=tmp_path / "another")


def test_a_run_started_again_keeps_what_its_model_depends_on_and_takes_up_the_rest(
    run, trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "run")
    options = (folder / "hyperparams.yaml").read_text()
    changes = {"sample_rate": 16000, "num_spks": 3, "encoder_init": "fourier", "d_state": 3}
    for name, value in changes.items():
        for flags in ((), ("--skip_train",)):
            with pytest.raises(SystemExit, match=f"trained with --{name} .*, and not {value}"):
                run("mambatasnet_debug", *flags, **{"output_folder": folder, name: value})
    assert (folder / "hyperparams.yaml").read_text() == options
    run("mambatasnet_debug", output_folder=folder, weight_decay=0.25, number_of_epochs=2)
    assert "--weight_decay is 0.25 from here on; it was 0" in (folder / "log.txt").read_text()
    state = torch.load(checkpoints(folder)[-1] / "optimizer.ckpt", weights_only=True)
    assert 0.25 in {group["weight_decay"] for group in state["param_groups"]}


def test_weights_of_another_network_are_refused_with_one_sentence(run, trained, tmp_path):
    first = shutil.copytree(trained, tmp_path / "run")
    other = {"pretrained_separator": checkpoints(first)[-1], "output_folder": tmp_path / "another"}
    with pytest.raises(SystemExit, match="another network than this YAML describes"):
        run("mambatasnet_debug", **other, N_encoder_out=24, skip_train=True)
    with pytest.raises(SystemExit, match="trained with --N_encoder_out 16, and not 24"):
        run("mambatasnet_debug", N_encoder_out=24, number_of_epochs=2)
