"""The masked convolution module: the published one to the last digit, whole and in chunks."""

import pytest
import torch
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from torch import nn

from modules.convolution import MaskedConvolutionModule
from tests.support.golden import Golden


def test_golden_convolution_module_whole_and_in_chunks():
    with Golden("conmamba_convmodule_chunked") as golden, torch.no_grad():
        module = MaskedConvolutionModule(32, 7, activation=nn.GELU).eval()
        module.load_state_dict(golden.state_dict(), strict=True)
        golden.compare("output/out", module(golden["input/x"]))
        chunked = module(golden["input/x"], dynchunktrain_config=DynChunkTrainConfig(8))
        golden.compare("output/out_chunk8", chunked)


def test_only_a_causal_module_carries_state_and_only_the_other_takes_chunks():
    x = torch.randn(1, 8, 16)
    with pytest.raises(ValueError, match="causal=True"):
        MaskedConvolutionModule(16, 7)(x, return_state=True)
    with pytest.raises(ValueError, match="no chunks"):
        MaskedConvolutionModule(16, 7, causal=True)(x, None, DynChunkTrainConfig(4))
