"""Small separation networks of every kind, the published sizes among them by name, and a folder of speech."""

import json
import sys
from pathlib import Path

import pytest
import torch
from speechbrain.lobes.models.dual_path import Decoder, Encoder

from modules.separation.dual_path import DPMambaMaskNet, SepFormerMaskNet
from modules.separation.mask_net import MaskNet
from modules.separation.separator import SeparationNetwork
from tests.support import recipes
from tests.support.mixing import write_noise
from tests.support.separation import RECIPE, command_line, write_speakers, write_tree

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


def tiny(name, speakers=2, **options):
    return perturbed(around(MASK_NETS[name](speakers, **options)))


@pytest.fixture(params=MASK_NETS)
def kind(request):
    """The name of every kind of mask net in turn."""
    return request.param


def assert_near(value, wanted, tolerance=1e-4):
    """Relative to the largest magnitude that is wanted."""
    assert value.shape == wanted.shape
    error = (value - wanted).abs().max().item() if wanted.numel() else 0.0
    assert error <= tolerance * max(wanted.abs().max().item() if wanted.numel() else 0.0, 1e-6)


@pytest.fixture
def speech(tmp_path):
    """Eight speakers, each with three recordings of 0.3, 0.4 and 0.5 s."""
    for speaker in "abcdefgh":
        for index in range(3):
            scale = 0.02 * (index + 1)
            write_noise(tmp_path / f"speech/{speaker}/{index}.wav", 0.3 + 0.1 * index, scale=scale)
    return tmp_path / "speech"


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Mixtures of two speakers; tests must not alter them."""
    return write_tree(tmp_path_factory.mktemp("mixtures"))


@pytest.fixture(scope="session")
def singles(tmp_path_factory):
    """Recordings of single speakers for dynamic mixing; tests must not alter them."""
    return write_speakers(tmp_path_factory.mktemp("singles"))


@pytest.fixture(scope="session")
def trained(tree, tmp_path_factory):
    """Output folder of one epoch of the debug recipe; tests must not alter it."""
    options = {"data_folder": tree, "output_folder": tmp_path_factory.mktemp("trained") / "run"}
    options |= {"number_of_epochs": 1, "n_audio_to_save": 0, "metrics": "[si-snr]"}
    with pytest.MonkeyPatch.context() as patch, recipes.scripts(patch, RECIPE) as load:
        patch.setattr(sys, "argv", ["train.py", *command_line("mambatasnet_debug", **options)])
        load("train").main()
    return options["output_folder"]
