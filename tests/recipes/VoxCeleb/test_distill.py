"""Distillation: what the student learns of its teacher, which only listens along."""

import pytest
import torch
from speechbrain.augment.time_domain import SpeedPerturb

from mamba_speech.audio import load_audio
from mamba_speech.run import load_run
from modules.speaker.resemblyzer import VoiceEncoder
from tests.support.recipes import checkpoints, logged, results
from tests.support.speakers import write_voice_encoder

LIST = "veri_test2"
RESEMBLYZER = "distill/mamba_fbank_resemblyzer"


def test_the_teacher_s_embeddings_draw_the_student_s_nearer(run):
    options = {"number_of_epochs": 8, "lr": 0.01, "distillation_weight": 5, "stop_after": "null"}
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
    with pytest.raises(SystemExit, match="teacher_hears must be one of recordings, crops"):
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
