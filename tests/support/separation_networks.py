"""Small separation networks of every kind, and the sizes of the published ones."""

import json
import math
from pathlib import Path

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork

SIZES = json.loads((Path(__file__).parents[1] / "model_sizes.json").read_text())["models"]
SIZES = {Path(k).stem: v for k, v in SIZES.items() if k.startswith("Mamba-TasNet/WSJ0Mix/")}
CHANNELS, CHUNK = 12, 10
STACK = {"d_state": 4, "n_mamba": 1}
DUAL = {"in_channels": CHANNELS, "out_channels": 8, "num_layers": 2, "K": CHUNK}
TRANSFORMER = {"intra_layers": 1, "inter_layers": 1, "nhead": 2, "d_ffn": 16}
# a constructor each: (speakers, fidelity and other options) to a mask net
MASK_NETS = {
    "mambatasnet": lambda n=2, **o: MaskNet(CHANNELS, 8, n, **{**STACK, **o}),
    "softmax": lambda n=2, **o: MaskNet(CHANNELS, 8, n, mask_nonlinear="softmax", **{**STACK, **o}),
    "causal": lambda n=2, **o: MaskNet(CHANNELS, 8, n, bidirectional=False, **{**STACK, **o}),
    "dpmamba": lambda n=2, **o: DPMambaMaskNet(n, skip_around_intra=False, **DUAL, **STACK, **o),
    "dpmamba_skip": lambda n=2, **o: DPMambaMaskNet(
        n, skip_around_intra=True, skip_n_block=1, **DUAL, **STACK, **o
    ),
    "sepformer": lambda n=2, **o: SepFormerMaskNet(n, **DUAL, **TRANSFORMER, **o),
}

# samples at either end that no two frames cover
EDGE = 16

every_kind = pytest.mark.parametrize("kind", MASK_NETS)


def around(masknet, channels=CHANNELS, kernel=16):
    """The mask net between an encoder and a decoder, in eval mode."""
    encoder = Encoder(kernel_size=kernel, out_channels=channels)
    decoder = Decoder(channels, 1, kernel_size=kernel, stride=kernel // 2, bias=False)
    return SeparationNetwork(encoder, masknet, decoder, fidelity=masknet.fidelity).eval()


def perturbed(model):
    """The model moved off its initial values, with which padding, and most of what a state holds, goes unnoticed."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.3 * torch.randn_like(parameter)
            if "dt_proj" in name and name.endswith("bias"):
                parameter += 4.0
            if "x_proj" in name:
                parameter *= 5.0
    return model


class Bands(torch.nn.Module):
    """Masks that part low from high frequencies; with ``moody``, in any order, level and sign, anew each time."""

    num_spks, fidelity = 2, "corrected"

    def __init__(self, moody):
        super().__init__()
        self.moody, self.random = moody, torch.Generator().manual_seed(0)

    def forward(self, mix_w, lengths=None):
        low = (torch.arange(32) % 16 < 5).float().view(1, 32, 1).expand_as(mix_w)
        masks = torch.stack([low, 1 - low])
        if self.moody:
            masks = masks[torch.randperm(2, generator=self.random)]
            levels = torch.exp(torch.randn(2, 1, 1, 1, generator=self.random))
            signs = 1.0 - 2 * torch.randint(2, (2, 1, 1, 1), generator=self.random)
            masks = masks * levels * signs
        return masks


def bands(moody=False):
    """A separator whose right answer is known: windowed cosine transforms, a positive and a negative part of each."""
    number, time = torch.arange(16)[:, None], torch.arange(16)[None] + 0.5
    cosines = torch.cos(math.pi * number * time / 16) * torch.where(number == 0, 0.25, 8**-0.5)
    filters = cosines * torch.sin(math.pi * time / 16)
    filters = torch.cat([filters, -filters])[:, None]
    encoder = Encoder(kernel_size=16, out_channels=32)
    decoder = Decoder(32, 1, kernel_size=16, stride=8, bias=False)
    with torch.no_grad():
        encoder.conv1d.weight.copy_(filters)
        decoder.weight.copy_(filters)
    return SeparationNetwork(encoder, Bands(moody), decoder).eval().requires_grad_(False)


def tiny(name, speakers=2, **options):
    return perturbed(around(MASK_NETS[name](speakers, **options)))


def assert_near(value, wanted, tolerance=1e-4):
    """Relative to the largest magnitude that is wanted."""
    assert value.shape == wanted.shape
    error = (value - wanted).abs().max().item() if wanted.numel() else 0.0
    assert error <= tolerance * max(wanted.abs().max().item() if wanted.numel() else 0.0, 1e-6)
