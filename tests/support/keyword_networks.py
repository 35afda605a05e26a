"""Small keyword networks that take clips of any length, and the options of their features."""

import torch

from modules.kws.depthwise import DSCNNKeywordSpotter
from modules.kws.mamba import MambaKeywordSpotter
from modules.kws.recurrent import GRUKeywordSpotter
from modules.kws.retnet import RetNetKeywordSpotter

FEATURES = {"n_mels": 24, "n_mfcc": 12, "n_fft": 256, "hop_length": 64}
SMALL = {"n_classes": 5, "d_model": 16, "n_layers": 2}
# networks without a fixed length: a constructor, and the features it takes
SEQUENCE = {
    "mamba_mel": (lambda **o: MambaKeywordSpotter(feature_dim=24, **SMALL, **o), "mel"),
    "mamba_mfcc": (
        lambda **o: MambaKeywordSpotter(feature_dim=12, kind="mfcc", **SMALL, **o),
        "mfcc",
    ),
    "bidirectional": (
        lambda **o: MambaKeywordSpotter(feature_dim=24, bidirectional=True, **SMALL, **o),
        "mel",
    ),
    "causal": (lambda **o: MambaKeywordSpotter(feature_dim=24, causal=True, **SMALL, **o), "mel"),
    "gru": (lambda **o: GRUKeywordSpotter(feature_dim=24, hidden_size=20, **SMALL, **o), "mel"),
    "ds_cnn": (lambda **o: DSCNNKeywordSpotter(feature_dim=12, **SMALL, **o), "mfcc"),
    "retnet": (lambda **o: RetNetKeywordSpotter(feature_dim=24, n_heads=2, **SMALL, **o), "mel"),
}


def perturbed(model):
    """The model in eval mode, with batch statistics and gains moved off their initial values."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "norm.bias", "gn.bias")):
            torch.nn.init.normal_(tensor, std=0.3)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(tensor, 0.5, 2.0)
    return model.eval()
