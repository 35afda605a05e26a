"""The keyword recipe's options: every one can be overridden and is used, wrong ones and bad clips get one sentence."""

import shutil

import pytest
import soundfile
import torch

from tests.support.keywords import RATE, RECIPE, say, write_corpus
from tests.support.recipes import (
    another,
    checkpoints,
    override,
    plain_options,
    read_csv,
    unused_options,
)
from training.options import find_options

FOLDER = RECIPE / "hparams"
MODEL = find_options(RECIPE / "train.py")
YAMLS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_option_can_be_overridden_from_the_command_line(path, tmp_path):
    fixed = {"fidelity": "upstream", "precision": "bf16", "kind": "mel", "lr_floor": 0.5}
    # both cannot be; sizes must fit one another, and small ones are quick
    fixed |= {"causal": False, "bidirectional": True, "warmup_fraction": 0.5, "hop_length": 128}
    fixed |= {"d_model": 24, "num_layers": 2, "nhead": 3, "n_mels": 30, "n_mfcc": 30, "n_fft": 600}
    fixed |= {"dropout": 0.4, "alpha": 0.2, "hidden_size": 12}
    # the one is for causal models only, the other for corpora without a test speaker; the others need these
    fixed |= {"context_seconds": 0.0, "other_speech_percentage": 0.0}
    fixed |= {"context_loss": 0.0, "hard_negatives": 0.0, "frequency_warp": 0.1}
    wanted = {
        key: fixed.get(key, another(value, key, MODEL))
        for key, value in plain_options(path).items()
    }
    # a text is no number of classes, where the YAML leaves it open
    wanted |= {
        "n_classes": 7,
        "words": ["up", "on"],
        "output_folder": str(tmp_path),
        "background_snr": [-5, 5],
        "gain_db": [-6, 6],
        "silence_db": [-3, 3],
    }
    wanted |= {key: None for key in ("lr_annealing", "lr_plateau") if key in wanted}
    hparams = override(path, wanted, MODEL)
    model, features = hparams["model"], hparams["compute_features"]
    assert model.fidelity == "upstream" and model.n_classes == wanted["n_classes"]
    assert (features.kind, features.hop_length, features.n_features) == ("mel", 128, 30)
    assert (hparams["freq_mask"].drop_length_high, hparams["time_mask"].drop_count_low) == (
        wanted["freq_mask_max"] + 1,
        wanted["mask_count"],
    )


def test_every_option_is_used_by_the_recipe_or_its_yaml():
    assert unused_options(YAMLS, RECIPE) == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_folder": ""}, "give --data_folder"),
        ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
        ({"data_folder": "{tmp}"}, "not laid out like Speech Commands"),
        ({"n_classes": 5}, "set --n_classes 3"),
        ({"words": "[up, left]"}, "no folder for left"),
        ({"words": "", "n_classes": 35}, "has no folder for"),
        ({"words": "null"}, "has no folder for null"),
        ({"words": "up,left"}, "no folder for left"),
        ({"split": "{tmp}/lists"}, "validation_list.txt"),
        ({"version": "0.03"}, "--version must be one of 0.01, 0.02"),
        ({"shift_ms": -1}, "--shift_ms must be a number from 0 to 60000; got -1"),
        ({"shift_ms": 1000}, "--shift_ms 1000.0 must be less than a clip of --clip_seconds 1.0"),
        ({"background_snr": "[20, 0]"}, "--background_snr must be the lowest and the highest"),
        (
            {"speed_changes": "[]"},
            "--speed_changes must be a list of one or more whole numbers, each from 10 to 1000",
        ),
        ({"gain_db": "[3, -3]"}, "--gain_db must be the lowest and the highest change"),
        ({"reverberation_probability": 2}, "--reverberation_probability must be a number from 0"),
        ({"frequency_warp": 1}, "--frequency_warp must be a number from 0 to 0.5"),
        ({"spoken_voices": 999}, "--spoken_voices must be a whole number from 0 to 275"),
        ({"balance": 0}, "--balance must be a whole number from 1"),
        ({"batch_size": 64, "drop_last": True}, "set --batch_size lower"),
        ({"skip_prep": True}, "not there; run once without --skip_prep"),
        ({"skip_train": True}, "nothing to test"),
        ({"warmup_fraction": 2}, "--warmup_fraction must be"),
        ({"kind": "wave"}, "--kind must be one of mel, mfcc"),
        ({"fidelity": "both"}, "fidelity must be one of"),
        ({"kind": "mfcc", "n_mfcc": 7}, "--kind mfcc gives 7 features a frame, .* takes 32"),
        ({"causal": True, "bidirectional": True}, "set one of them"),
        ({"causal": True, "mean_norm": True}, "--mean_norm reads the whole clip"),
        ({"context_seconds": 1}, "set --causal True"),
        (
            {"context_seconds": -1, "causal": True},
            "--context_seconds must be a number from 0 to 600",
        ),
        (
            {"context_seconds": 1, "causal": True, "context_silence": 2},
            "--context_silence must be a number from 0 to 1",
        ),
        (
            {"words": "", "n_classes": 35, "other_speech_percentage": 10},
            "needs the class _unknown_",
        ),
        ({"words": "[up]", "unknown_percentage": 0, "silence_percentage": 0}, "the only class"),
        ({"words": "", "n_classes": "null"}, "give --words or --n_classes"),
        (
            {"words": "[up]", "background": "{tmp}/nowhere"},
            "background .*nowhere does not exist: give a folder of noise",
        ),
        ({"other_speech": "{tmp}"}, "is of no use while other_speech_percentage is 0"),
        (
            {"words": "[up]", "other_speech_percentage": 10},
            "has no _other_speech_: give a folder of recordings",
        ),
        (
            {"words": "[up]", "other_speech_percentage": 10, "other_speech": "{tmp}/nowhere"},
            "other_speech .*nowhere does not exist",
        ),
        ({"test_speaker": "bob", "other_speech_percentage": 10}, "of no use with --test_speaker"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, run, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run("debug", **{key: str(value).format(tmp=tmp_path) for key, value in options.items()})


def test_background_noise_without_recordings_is_refused_with_what_to_do(run, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    shutil.rmtree(corpus / "_background_noise_")
    with pytest.raises(SystemExit, match="set --background_probability 0"):
        run("debug", data_folder=corpus)
    run("debug", data_folder=corpus, background_probability=0, number_of_epochs=1)


def test_classes_never_change_under_a_trained_run(run, trained, tones, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    (corpus / "up").rename(corpus / "left")
    for listed in corpus.glob("*_list.txt"):
        listed.write_text(listed.read_text().replace("up/", "left/"))
    with pytest.raises(SystemExit, match="trained here on other classes"):
        run("debug", data_folder=corpus, output_folder=folder)


def test_a_run_started_again_keeps_what_its_model_depends_on_and_takes_up_the_rest(
    run, trained, tmp_path
):
    folder = shutil.copytree(trained, tmp_path / "run")
    options = (folder / "hyperparams.yaml").read_text()
    changes = {"sample_rate": 8000, "n_mels": 30, "words": "up", "version": "0.01", "data_seed": 2}
    changes |= {"kind": "mfcc", "clip_seconds": 2.0, "fidelity": "upstream", "d_state": 3}
    for name, value in changes.items():
        for flags in ((), ("--skip_train",)):
            with pytest.raises(SystemExit, match=f"trained with --{name} .*, and not .*{value}"):
                run("debug", *flags, **{"output_folder": folder, name: value})
    assert (folder / "hyperparams.yaml").read_text() == options
    run("debug", output_folder=folder, weight_decay=0, number_of_epochs=2)
    assert "--weight_decay is 0.0 from here on; it was 0.00018" in (folder / "log.txt").read_text()
    state = torch.load(checkpoints(folder)[-1] / "optimizer.ckpt", weights_only=True)
    assert {group["weight_decay"] for group in state["param_groups"]} == {0.0}


def test_a_clip_that_is_no_sound_is_left_out_and_named(run, tones, tmp_path):
    corpus = shutil.copytree(tones, tmp_path / "corpus")
    path = corpus / "up" / "00000007_nohash_0.wav"
    # finite samples, whose energy is beyond float32
    soundfile.write(path, 1e30 * say("up", "00000007"), RATE, "FLOAT")
    folder = run("debug", data_folder=corpus, number_of_epochs=1)
    (reason,) = [row for file in folder.glob("skipped_*.csv") for row in read_csv(file)]
    assert reason["path"].endswith(path.name) and reason["reason"] == "samples that are no sound"


def test_bad_clips_are_left_out_counted_and_listed(run, tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    (corpus / "up" / "00000001_nohash_0.wav").write_bytes(b"no audio")
    soundfile.write(corpus / "stop" / "00000002_nohash_0.wav", torch.zeros(0).numpy(), RATE)
    soundfile.write(corpus / "down" / "00000003_nohash_0.wav", say("down", "00000003"), 8000)
    soundfile.write(corpus / "down" / "00000004_nohash_0.wav", say("down", "00000004", 10), RATE)
    folder = run("debug", data_folder=corpus, number_of_epochs=1)
    assert len(read_csv(folder / "skipped_train.csv")) == 2
