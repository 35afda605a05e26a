"""Distillation: what the student learns of its teacher, which only listens along."""

import pytest
import torch

from mamba_speech.run import load_run
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


def test_a_damaged_teacher_is_named(run, tmp_path, monkeypatch):
    write_voice_encoder(tmp_path / "resemblyzer")
    (tmp_path / "resemblyzer" / "pretrained.pt").write_bytes(b"no weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit, match="teacher: .*pretrained.pt: cannot be read as weights"):
        run(RESEMBLYZER)
