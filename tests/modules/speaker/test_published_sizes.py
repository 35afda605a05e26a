"""Sizes of the published speaker encoders on wav2vec 2.0: trainable parameters, without their weights."""

from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

HPARAMS = Path(__file__).parents[3] / "hparams/VoxCeleb/SV"
# facebook/wav2vec2-large-xlsr-53
XLSR = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "do_normalize": True,
}
N_SPEAKERS = 468


@pytest.mark.parametrize(
    "name, ours, published",
    [
        ("mamba_wav2vec2_classification", 53_895_317, 53e6),
        ("transformer_wav2vec2", 60_621_973, 61e6),
    ],
)
def test_trainable_parameters_are_within_two_percent_of_the_published(name, ours, published):
    overrides = {"ssl_config": XLSR, "ssl_layer": "last", "data_folder": "unread"}
    with torch.device("meta"), open(HPARAMS / f"{name}.yaml") as file:
        model = load_hyperpyyaml(file, overrides)["model"]
        classifier = torch.nn.Linear(model.embedding_size, N_SPEAKERS)
    parts = (*model.parameters(), *classifier.parameters())
    assert sum(p.numel() for p in parts if p.requires_grad) == ours
    assert ours == pytest.approx(published, rel=0.02)
