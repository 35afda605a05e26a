"""Layers of student networks: SV-Mixer, the four that its paper compares with it, and BiMamba.

Every layer maps frames (batch, time, d_model) and frame counts (batch,) to frames of the same shape:
``Layer(d_model, n_frames=None, ...)(x, lengths)``. A layer whose ``any_length`` is false takes exactly ``n_frames``
frames. Source: the SV-Mixer paper (arXiv 2509.14136). Its text gives sizes of layers; each class says how it is read.
"""

from modules.speaker.layers.mixers import ConvMixerLayer, CycleMLPLayer, MLPMixerLayer
from modules.speaker.layers.sequence import BiMambaLayer, TransformerLayer
from modules.speaker.layers.sv_mixer import SVMixerLayer

LAYERS = {
    "sv_mixer": SVMixerLayer,
    "mlp_mixer": MLPMixerLayer,
    "cycle_mlp": CycleMLPLayer,
    "conv_mixer": ConvMixerLayer,
    "transformer": TransformerLayer,
    "bimamba": BiMambaLayer,
}

__all__ = [
    "LAYERS",
    "BiMambaLayer",
    "ConvMixerLayer",
    "CycleMLPLayer",
    "MLPMixerLayer",
    "SVMixerLayer",
    "TransformerLayer",
]
