"""Sizes of the published speaker encoders on wav2vec 2.0: trainable parameters, without their weights."""

import pytest
import torch

from modules.speaker.encoder import BiMambaEncoder, SpeakerEncoder, TransformerEncoder
from modules.speaker.self_supervised import SelfSupervised

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
ENCODERS = {
    "mamba": (lambda: BiMambaEncoder(512, n_layers=3, expand=1), 53e6, 53_895_317),
    "transformer": (
        lambda: TransformerEncoder(512, n_layers=3, n_heads=8, d_ffn=2048),
        61e6,
        60_621_973,
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_trainable_parameters_are_within_two_percent_of_the_published(name):
    build, published, ours = ENCODERS[name]
    with torch.device("meta"):
        front_end = SelfSupervised(XLSR, layer="last", trainable_layers=4)
        model = SpeakerEncoder(front_end, build(), embedding_size=192)
        classifier = torch.nn.Linear(192, N_SPEAKERS)
    counts = [
        p.numel() for part in (model, classifier) for p in part.parameters() if p.requires_grad
    ]
    assert sum(counts) == ours == pytest.approx(published, rel=0.02)
