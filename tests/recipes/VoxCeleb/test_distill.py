"""Distillation: what the student learns of its teacher, which only listens along."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from speechbrain.augment.time_domain import SpeedPerturb

from mamba_speech.audio import load_audio
from mamba_speech.run import load_run
from modules.speaker.back_ends import LinearBackEnd
from modules.speaker.layers import LAYERS
from modules.speaker.resemblyzer import VoiceEncoder
from tests.support.recipes import checkpoints, logged, results
from tests.support.speaker_networks import save_teacher
from tests.support.speakers import write_voice_encoder

LIST = "veri_test2"
RESEMBLYZER = "distill/mamba_fbank_resemblyzer"
# one that takes any length and one that does not; each is tried alone in the tests of modules/speaker
STUDENTS = [
    pytest.param(name, marks=() if name in ("bimamba", "sv_mixer") else pytest.mark.exhaustive)
    for name in LAYERS
]


def test_the_teacher_s_embeddings_draw_the_student_s_nearer(run):
    options = {"number_of_epochs": 8, "lr": 0.01, "distillation_weight": 5, "stop_after": "null"}
    options["skip_test"] = True
    folder = run(RESEMBLYZER, **options, crops_per_recording=3)
    distances = [figures["train distance"] for figures in logged(folder)]
    assert distances[-1] < 0.7 * distances[0]


def test_a_distilled_run_is_loaded_and_tested_without_its_teacher(run, voice_encoder, tmp_path):
    folder = run(RESEMBLYZER, number_of_epochs=1)
    saved = torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)
    assert not any("lstm" in name for name in saved)
    first = results(folder, LIST)
    weights = voice_encoder / "resemblyzer" / "pretrained.pt"
    weights.rename(tmp_path / "elsewhere.pt")
    try:
        run(RESEMBLYZER, "--test_only")
        assert results(folder, LIST)["EER"] == first["EER"]
        assert load_run(folder, [], selection_key=("EER", "error"))["model"].embedding_size == 16
        with pytest.raises(SystemExit, match="teacher: the package resemblyzer.* is not installed"):
            run(RESEMBLYZER, output_folder=tmp_path / "another")
    finally:
        (tmp_path / "elsewhere.pt").rename(weights)


def test_a_teacher_may_hear_crops_and_what_it_hears_is_one_of_the_two(run, tmp_path):
    folder = run(RESEMBLYZER, teacher_hears="crops", number_of_epochs=1, skip_test=True)
    (figures,) = logged(folder)
    assert figures["train distance"] > 0
    with pytest.raises(SystemExit, match="--teacher_hears must be one of recordings, crops"):
        run(RESEMBLYZER, teacher_hears="nothing", output_folder=tmp_path / "other")


def test_targets_are_the_teacher_s_embeddings_of_whole_recordings_at_their_speed(recipe, voices):
    teacher = VoiceEncoder(8, 1).eval()
    targets = recipe("teachers").RecordingTargets(teacher, [100, 50], seconds=0.5)
    path = str(next(voices.rglob("*.wav")))
    found = targets([path, path, path], [0, 1, 0])
    wav = load_audio(path, 16000)[:8000]
    with torch.no_grad():
        assert torch.equal(found[0], teacher(wav[None])[0])
        slow = SpeedPerturb(16000, [50])(wav[None])
        assert torch.equal(found[1], teacher(slow)[0])
    assert torch.equal(found[2], found[0]) and len(targets.kept) == 2


def test_a_resumed_distillation_ends_where_an_uninterrupted_one_does(run, tmp_path):
    options = {"total_steps": 6, "skip_test": True}
    whole = run(RESEMBLYZER, **options, number_of_epochs=2, output_folder=tmp_path / "whole")
    for epochs in (1, 2):
        parts = run(
            RESEMBLYZER, **options, number_of_epochs=epochs, output_folder=tmp_path / "parts"
        )
    for name in ("model", "classifier", "distance"):
        a, b = (
            torch.load(checkpoints(folder)[-1] / f"{name}.ckpt", weights_only=True)
            for folder in (whole, parts)
        )
        assert a and all(torch.equal(a[key], b[key]) for key in a), name


def test_a_damaged_teacher_is_named(run, tmp_path, monkeypatch):
    write_voice_encoder(tmp_path / "resemblyzer")
    (tmp_path / "resemblyzer" / "pretrained.pt").write_bytes(b"no weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match="teacher: .*pretrained.pt: cannot be read as weights"):
        run(RESEMBLYZER)


@pytest.mark.parametrize("student", STUDENTS)
def test_students_and_back_ends_are_chosen_by_one_option_and_take_the_teacher_s_shape(student, run):
    options = {"student": student, "back_end": "linear", "d_model": "null", "num_layers": "null"}
    folder = run("distill/svmixer_wavlm_large", **options, number_of_epochs=1)
    model = load_run(folder, [], selection_key=("EER", "error"))["model"]
    assert len(model.layers) == 3 and model.project[1].out_features == 16
    assert isinstance(model.layers[0], LAYERS[student]) and isinstance(
        model.back_end, LinearBackEnd
    )
    assert (model.crop_samples is None) == LAYERS[student].any_length
    assert not torch.load(checkpoints(folder)[-1] / "distance.ckpt", weights_only=True)


def test_a_student_begins_with_its_teacher_s_convolutions_and_draws_nearer_to_it(run, teacher):
    options = {"d_model": "null", "num_layers": "null", "back_end": "linear", "student": "bimamba"}
    options |= {"skip_test": True, "stop_after": "null"}
    folder = run("distill/bimamba_wavlm_large", **options, number_of_epochs=1, lr=1e-30)
    name = "conv_layers.3.conv.weight"
    theirs = load_file(teacher / "model.safetensors")[f"feature_extractor.{name}"]
    model = torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)
    assert torch.equal(model[f"front_end.{name}"], theirs)
    options |= {"lr": 0.01, "number_of_epochs": 6, "crops_per_recording": 2}
    folder = run("distill/bimamba_wavlm_large", **options, output_folder=folder.parent / "long")
    distances = [figures["train distance"] for figures in logged(folder)]
    assert distances[-1] < 0.8 * distances[0]


def test_the_rate_is_halved_where_the_error_rate_does_not_improve(run):
    options = {"number_of_epochs": 4, "lr_patience": 0, "stop_after": "null", "skip_test": True}
    folder = run("distill/svmixer_wavlm_large", back_end="linear", **options)
    rate, lowest = 0.0002, float("inf")
    for figures in logged(folder):
        assert figures["lr"] == pytest.approx(rate, rel=1e-2)
        rate = rate / 2 if figures["valid EER"] >= lowest else rate
        lowest = min(lowest, figures["valid EER"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_layers": 9, "d_model": "null"}, "n_layers must be at most the teacher's 3"),
        ({"student": "perceptron"}, "--student must be one of sv_mixer"),
        ({"back_end": "none"}, "--back_end must be one of linear"),
        ({"teacher": "{tmp}/nowhere"}, "teacher: cannot read a model from"),
        ({"teacher_config": "{{num_hidden_layers: 9}}"}, "num_hidden_layers is 3, not 9"),
        ({"teacher_config": "{{hidden_size: 32}}"}, "teacher: .*hidden_size is 16, not 32"),
        ({"teacher_config": "wavlm"}, "--teacher_config must be a mapping"),
        ({"teacher": "resemblyzer"}, "--teacher must be a network with hidden states"),
        ({"prediction_heads": 4}, "n_heads must be from 1 to the teacher's 3"),
    ],
    ids=str,
)
def test_a_wrong_option_of_a_student_gets_one_sentence(options, message, run, tmp_path):
    options = {key: str(value).format(tmp=tmp_path) for key, value in options.items()}
    with pytest.raises(SystemExit, match=message):
        run("distill/svmixer_wavlm_large", **options)


def test_a_student_of_one_length_refuses_other_crops(run):
    with pytest.raises(SystemExit, match="this model reads crops of 0.6 s alone"):
        run("distill/svmixer_wavlm_large", "--crop_seconds_max", "0.7")


def test_a_resumed_run_keeps_its_teacher(run, teacher, tmp_path):
    own, other = tmp_path / "own", tmp_path / "other"
    shutil.copytree(teacher, own)
    options = {"back_end": "linear", "number_of_epochs": 1, "skip_test": True}
    folder = run("distill/svmixer_wavlm_large", **options, teacher=own)
    options["number_of_epochs"] = 2
    # of the same shape
    save_teacher("wavlm-layer", other)
    with pytest.raises(SystemExit, match="its run was trained with --teacher .*own, and not .*oth"):
        run("distill/svmixer_wavlm_large", **options, teacher=other)
    with pytest.raises(SystemExit, match="--lr 0.1: the rate of this run falls with its results"):
        run("distill/svmixer_wavlm_large", **options, teacher=own, lr=0.1)
    # other weights under the same name
    shutil.rmtree(own)
    other.rename(own)
    with pytest.raises(SystemExit, match="teacher: .*own has other weights than the teacher of"):
        run("distill/svmixer_wavlm_large", **options, teacher=own)
    # another shape
    shutil.rmtree(own)
    save_teacher("hubert-layer", own)
    with pytest.raises(SystemExit, match="teacher: .*own is another model than the configuration"):
        run("distill/svmixer_wavlm_large", **options, teacher=own)
    assert len(list(logged(folder))) == 1
