"""The students that ``speaker.py`` measures, and their work.

Every student has the width and convolutions of WavLM-Large (1024 channels) and an ECAPA-TDNN as its
back-end; ``quick`` stands for a tiny one. Weights are random.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from modules.speaker.layers import LAYERS
from modules.speaker.student import Student
from modules.ssm import BiMamba

RATE, CROP = 16000, 3
NAMES = ("transformer", "mlp_mixer", "cycle_mlp", "conv_mixer", "sv_mixer", "bimamba")
# millions of parameters and billions of multiply-accumulates of a layer at 149 frames, SV-Mixer paper
PUBLISHED = {
    "transformer": (8.40, 1.25),
    "mlp_mixer": (8.58, 1.43),
    "cycle_mlp": (9.45, 1.42),
    "conv_mixer": (9.02, 1.48),
    "sv_mixer": (3.75, 0.63),
    "bimamba": (None, None),
}
CONFIGS = {
    "large": {"hidden_size": 1024, "feat_extract_norm": "layer", "do_normalize": True},
    "quick": {"hidden_size": 64, "conv_dim": [16] * 7},
}


def build_layer(name, size):
    """A layer for crops of 3 s, in evaluation mode, and frames that it takes."""
    torch.manual_seed(0)
    width, frames = CONFIGS[size]["hidden_size"], 149
    layer = LAYERS[name](width, n_frames=frames).eval()
    return layer, torch.randn(1, frames, width)


def build_student(name, size, layers):
    """A student of so many layers, in evaluation mode."""
    torch.manual_seed(0)
    options = {"channels": 16} if size == "quick" else {}
    config = CONFIGS[size] | {"num_hidden_layers": layers}
    return Student(config, name, "ecapa", crop_seconds=CROP, back_end_options=options).eval()


def parameters(module):
    """Number of a module's parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def layer_work(name, size):
    """Multiplications with addition of a layer at 149 frames: of its weights, and of what has none.

    The second are the two products of attention, or a Mamba block's recurrence (three for a frame, channel and
    state). Biases, activations and normalisation do not count.

    Returns
    -------
    (int, int)
    """
    if name == "bimamba":
        return _mamba_work(*build_layer(name, size))
    with torch.device("meta"):
        layer, x = build_layer(name, size)
        return _count(layer, x)


def student_work(name, size, layers):
    """Multiplications with addition of a student for one crop of 3 s, counted as :func:`layer_work` counts.

    Returns
    -------
    (int, int)
    """
    with torch.device("meta"):
        frame_layer, x = build_layer("cycle_mlp", size)
        one = _count(build_student("cycle_mlp", size, 1), torch.empty(1, CROP * RATE))
        outside = one[0] - _count(frame_layer, x)[0], one[1]
    layer = layer_work(name, size)
    return outside[0] + layers * layer[0], outside[1] + layers * layer[1]


def _count(module, *inputs):
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    counts = counter.get_flop_counts()["Global"]
    products = counts.pop(torch.ops.aten.bmm, 0)
    return sum(counts.values()) // 2, products // 2


def _mamba_work(layer, x):
    """As :func:`layer_work`: torch does not see the short convolutions and the recurrence."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    blocks = [one for one in layer.modules() if isinstance(one, BiMamba)]
    steps = sum(2 * x.shape[1] * one.d_inner for one in blocks)
    short = sum(2 * x.shape[1] * one.d_inner * one.d_conv for one in blocks)
    states = blocks[0].d_state
    return counter.get_total_flops() // 2 + short, 3 * steps * states
