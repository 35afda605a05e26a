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


@pytest.mark.parametrize("causal", [True, False])
def test_a_stream_of_chunks_equals_the_whole_and_carries_no_more_than_it_reads(causal):
    module = MaskedConvolutionModule(16, 7, causal=causal).eval()
    chunks = None if causal else DynChunkTrainConfig(4)
    x, state, pieces = torch.randn(2, 18, 16), None, []
    padding = torch.arange(18).view(1, 18, 1) >= torch.tensor([18, 10]).view(2, 1, 1)
    with torch.no_grad():
        for start in range(0, 18, 8):
            out, state = module(x[:, start : start + 8], None, chunks, state, return_state=True)
            pieces.append(out)
        whole = module(x, None, chunks)
        # of an utterance that ends earlier, the state of its own end
        _, padded = module(x, padding, chunks, return_state=True)
        _, alone = module(x[1:, :10], None, chunks, return_state=True)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    assert state.shape == (2, 16, 6 if causal else 3)
    assert torch.allclose(padded[0], state[0], atol=1e-6)
    assert torch.allclose(padded[1], alone[0], atol=1e-6)


@pytest.mark.parametrize("kernel", [1, 2, 8])
def test_chunks_suit_every_kernel_and_one_chunk_is_no_chunk(kernel):
    module, x = MaskedConvolutionModule(16, kernel).eval(), torch.randn(2, 18, 16)
    with torch.no_grad():
        # however long the chunk is, padding up to its end takes no memory
        for size in (18, 10**9):
            assert torch.allclose(module(x, None, DynChunkTrainConfig(size)), module(x), atol=1e-5)
        chunks, state, pieces = DynChunkTrainConfig(4), None, []
        for piece in x.split(8, 1):
            out, state = module(piece, None, chunks, state, return_state=True)
            pieces.append(out)
        assert torch.allclose(torch.cat(pieces, 1), module(x, None, chunks), atol=1e-5)


def test_only_a_causal_module_carries_state_and_only_the_other_takes_chunks():
    x = torch.randn(1, 8, 16)
    with pytest.raises(ValueError, match="causal=True"):
        MaskedConvolutionModule(16, 7)(x, return_state=True)
    with pytest.raises(ValueError, match="no chunks"):
        MaskedConvolutionModule(16, 7, causal=True)(x, None, DynChunkTrainConfig(4))
