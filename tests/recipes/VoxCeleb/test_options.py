"""The speaker recipe's options: every one can be overridden and is used, wrong ones get one sentence."""

import shutil

import pytest
import torch

from tests.support.recipes import (
    another,
    call_main,
    checkpoints,
    command_line,
    override,
    plain_options,
    unused_options,
)
from tests.support.speaker_networks import TEACHERS
from tests.support.speakers import FOLDER, RECIPE
from training.options import find_options
from training.tasks import find_script

YAMLS = sorted(FOLDER.rglob("*.yaml"))
RESEMBLYZER = "distill/mamba_fbank_resemblyzer"


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: p.stem)
def test_every_option_can_be_overridden_from_the_command_line(path, tmp_path):
    fixed = {"fidelity": "upstream", "precision": "bf16", "lr_floor": 0.5, "warmup_fraction": 0.5}
    # sizes must fit one another, and small ones are quick
    fixed |= {"d_model": 24, "num_layers": 2, "nhead": 3, "n_mels": 30, "dropout": 0.4}
    fixed |= {"ssl_layer": 2, "trainable_layers": 1, "label_smoothing": 0.3}
    fixed |= {"time_stretch": [0.7, 0.8], "n_speakers": 12, "split": "utterance"}
    fixed |= {"remove_mean": "level", "cepstral_statistics": 20}
    fixed |= {"stop_after": 7, "crops_per_speaker": 3, "weight_decay": 0.03, "lr_front_end": 0.04}
    fixed |= {"other_folders": ["one", "two #2"], "trial_folders": ["three"]}
    # 121 frames, of which two are joined into one
    fixed |= {"groups": 4, "crop_seconds": 1.2, "n_frames": 61}
    fixed |= {"student": "mlp_mixer", "back_end": "linear", "prediction_heads": 2}
    fixed |= {"distillation_head": False, "embedding_size": 256} if "resembl" in path.stem else {}
    fixed |= {"trials": "none", "speeds": [100, 80], "noise_snr": [1, 2], "subsampling": 2}
    model = find_options(find_script(path.resolve()))
    wanted = {
        key: fixed.get(key, another(value, key, model))
        for key, value in plain_options(path).items()
    }
    wanted |= {"output_folder": str(tmp_path)}
    wanted |= {key: None for key in ("lr_annealing", "lr_plateau") if key in wanted}
    if "resembl" in path.stem:
        wanted["teacher"] = "resemblyzer"
    for source, config in (("ssl_source", "ssl_config"), ("student", "teacher_config")):
        if source in wanted:
            wanted[config] = TEACHERS["wavlm-layer"]
    hparams = override(path, wanted, model)
    model, classifier = hparams["model"], hparams["classifier"](n_speakers=3)
    assert model.embedding_size == wanted["embedding_size"]
    assert "subsampling" not in wanted or model.subsampling == 2
    for name in ("margin", "scale", "label_smoothing"):
        assert name not in wanted or getattr(classifier, name) == wanted[name]
    if "ssl_source" in wanted:
        assert model.front_end.layer == 2 and model.front_end.trainable_layers == 1
    elif "freq_mask_max" in wanted:
        assert hparams["freq_mask"].drop_length_high == wanted["freq_mask_max"] + 1


def test_every_option_is_used_by_the_recipe_or_its_yaml():
    assert unused_options(YAMLS, RECIPE) == {}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"data_folder": ""}, "give --data_folder"),
        ({"data_folder": "null"}, "data_folder null does not exist"),
        ({"data_folder": "{tmp}/nowhere"}, "does not exist"),
        ({"trials": "{tmp}/list.txt"}, "the trial list .*list.txt does not exist"),
        ({"valid_speakers": 5}, "valid_speakers 5 leaves 0 of 5 speakers"),
        ({"split": "sessions"}, "--split must be one of speaker, utterance"),
        ({"speeds": "[90, 110]"}, "--speeds must begin with 100"),
        ({"speeds": "[100, 0]"}, "--speeds must be a list of one or more whole numbers"),
        ({"crops_per_recording": 0}, "--crops_per_recording must be a whole number from 1"),
        ({"crop_seconds_max": 0.1}, "--crop_seconds 0.6 must not be over --crop_seconds_max 0.1"),
        ({"fine_tune_crop_seconds": 3}, "must not be over --fine_tune_crop_seconds_max"),
        (
            {
                "crop_seconds": 0.03,
                "crop_seconds_max": 0.03,
                "sample_rate": 1000,
                "time_stretch": "[1, 1]",
            },
            "too short for time_stretch",
        ),
        ({"noise_snr": "[15, 0]"}, "--noise_snr must be the lowest and the highest"),
        (
            {"valid_speakers": 1},
            "--valid_speakers must be a number of speakers, 2 or more, or a part",
        ),
        ({"d_model": ""}, "--d_model must be a whole number: only a student"),
        ({"augment_probability": 2}, "--augment_probability must be a number from 0 to 1"),
        ({"noise_folder": "{tmp}/nowhere"}, "noise_folder .*nowhere: holds no sound"),
        ({"time_stretch": "[1.2, 0.8]"}, "--time_stretch must be the lowest and the highest tempo"),
        ({"batch_size": 64}, "set --batch_size lower"),
        ({"margin": 2}, "--margin must be a number, 0 or more and below 1.57"),
        ({"stop_after": 0}, "--stop_after must be a whole number, 1 or more, or null"),
        ({"subsampling": 0}, "--subsampling must be a whole number from 1"),
        ({"skip_prep": True}, "not there; run once without --skip_prep"),
        ({"skip_train": True}, "nothing to test"),
        ({"fine_tune": "{tmp}/nowhere"}, "fine_tune: .*nowhere: no such folder"),
        ({"fidelity": "both"}, "fidelity must be one of"),
    ],
    ids=str,
)
def test_a_wrong_option_gets_one_sentence(options, message, run, tmp_path):
    with pytest.raises(SystemExit, match=message):
        run("debug", **{key: str(value).format(tmp=tmp_path) for key, value in options.items()})


def test_the_second_stage_wants_the_run_s_own_speeds_and_tells_what_else_fits(
    run, trained, voices, tmp_path
):
    with pytest.raises(SystemExit, match=r"at the speeds \[100, 90, 110\]; .*, not \[100, 110\]"):
        run("debug", fine_tune=trained, speeds="[100, 110]", output_folder=tmp_path / "other")
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    shutil.rmtree(corpus / "wav" / "id00000")
    fewer = run("debug", fine_tune=trained, data_folder=corpus, output_folder=tmp_path / "fewer")
    said = (fewer / "log.txt").read_text()
    assert "was trained on other speakers than the" in said and " 0 left new, 0 not used" in said
    wider = run("debug", fine_tune=trained, d_model=24, output_folder=tmp_path / "wider")
    said = (wider / "log.txt").read_text()
    (line,) = [line for line in said.splitlines() if "--fine_tune: from " in line]
    assert " left new (" in line and "model.encoder " in line, line


def test_the_data_never_change_under_a_trained_run(run, trained, voices, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    corpus = shutil.copytree(voices, tmp_path / "corpus")
    shutil.rmtree(corpus / "wav" / "id00000")
    with pytest.raises(SystemExit, match=r"trained with other data \(train"):
        run("debug", data_folder=corpus, output_folder=folder)


@pytest.mark.parametrize(
    ("script", "yaml", "message"),
    [
        ("train", RESEMBLYZER, "no option fine_tune.*: give it to distill.py"),
        ("distill", "debug", "no option teacher.*: give it to train.py"),
    ],
)
def test_a_yaml_of_the_other_script_is_refused_before_anything_is_written(
    script, yaml, message, tmp_path
):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit, match=message):
        call_main(RECIPE, script, *command_line(FOLDER / f"{yaml}.yaml", output_folder=folder))
    assert not folder.exists()


def test_a_resumed_run_takes_up_its_weight_decay(run, tmp_path):
    folder = run("debug", number_of_epochs=1, skip_test=True)
    run("debug", number_of_epochs=2, skip_test=True, weight_decay=0)
    saved = torch.load(checkpoints(folder)[-1] / "optimizer.ckpt", weights_only=True)
    assert {group["weight_decay"] for group in saved["param_groups"]} == {0}
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert "--weight_decay is 0.0 from here on; it was 0.02" in log


def test_a_resumed_run_refuses_what_its_model_depends_on(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    kept = (folder / "hyperparams.yaml").read_text(encoding="utf-8")
    for name, value in (("sample_rate", 8000), ("embedding_size", 24), ("speeds", "[100]")):
        for flags in ((), ("--test_only",)):
            with pytest.raises(SystemExit, match=f"its run was trained with --{name} "):
                run("debug", *flags, **{name: value}, output_folder=folder)
    assert (folder / "hyperparams.yaml").read_text(encoding="utf-8") == kept
