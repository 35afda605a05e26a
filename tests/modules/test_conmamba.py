"""ConMamba: the published encoder to the last digit, and what corrected mode promises beyond it."""

import pytest
import torch
from speechbrain.nnet.activations import Swish
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig
from torch import nn

from modules.asr.ctc import ConformerCTCEncoder, ConmambaCTCEncoder
from modules.conmamba import ConmambaEncoder, ConmambaEncoderLayer
from modules.ssm import BiMamba, Mamba
from tests.support.golden import Golden
from tests.support.pairs import random_pairs

MAMBA = {"d_state": 16, "expand": 2, "d_conv": 4, "bidirectional": True}


@pytest.mark.parametrize("name", ["noncausal", "causal", "unidirectional_noncausalconv"])
def test_golden_layers(name):
    with Golden(f"conmamba_layer_{name}") as golden:
        meta = golden.meta
        config = dict(MAMBA, bidirectional=name == "noncausal")
        layer = ConmambaEncoderLayer(
            32, 48, meta["kernel_size"], nn.GELU, causal=name == "causal", mamba_config=config
        )
        golden.compare_module(layer)


@pytest.mark.parametrize("causal", [False, True])
def test_golden_encoders_let_padding_in_as_upstream_does(causal):
    name = "conmamba_encoder_causal" if causal else "conmamba_encoder_noncausal"
    with Golden(name) as golden, torch.no_grad():
        options = {"activation": nn.GELU, "causal": causal, "mamba_config": MAMBA}
        kernel = golden.meta["kernel_size"]
        encoder = ConmambaEncoder(2, 32, 48, kernel, fidelity="upstream", **options).eval()
        encoder.load_state_dict(golden.state_dict(), strict=True)
        x, mask = golden["input/x"], golden["input/key_padding_mask"]
        golden.compare("output/out", encoder(x)[0])
        golden.compare("output/out_with_padding_mask", encoder(x, src_key_padding_mask=mask)[0])

        corrected = ConmambaEncoder(2, 32, 48, kernel, **options).eval()
        corrected.load_state_dict(golden.state_dict(), strict=True)
        golden.compare("output/out", corrected(x)[0])
        valid = ~mask[1]
        masked = corrected(x, src_key_padding_mask=mask)[0][1, valid]
        alone = corrected(x[1:, valid])[0][0]
        assert torch.allclose(masked, alone, atol=1e-5)
        upstream = golden["output/out_with_padding_mask"][1, valid]
        assert causal or not torch.allclose(masked, upstream, atol=1e-2)


def test_golden_ctc_transformer():
    with Golden("asr_conmamba_ctc") as golden, torch.no_grad():
        encoder = ConmambaCTCEncoder(
            24,
            32,
            48,
            2,
            activation=nn.GELU,
            mamba_config=MAMBA,
            max_length=64,
            fidelity="upstream",
        ).eval()
        encoder.load_state_dict(golden.state_dict(), strict=True)
        out, _ = encoder.encode(golden["input/src"], wav_lens=golden["input/wav_len"])
        for key in ("encode", "encode_nolen", "forward_enc"):
            golden.compare(f"output/{key}", out)


def test_golden_conformer_encoder():
    golden = Golden("asr_conformer_transformer")
    state = {
        k: v for k, v in golden.state_dict().items() if not k.startswith(("decoder", "custom_tgt"))
    }
    for fidelity in ("upstream", "corrected"):
        encoder = ConformerCTCEncoder(
            24, 32, 4, 48, 2, activation=Swish, max_length=64, fidelity=fidelity
        ).eval()
        encoder.load_state_dict(state, strict=True)
        src, wav_len = golden["input/src"], golden["input/wav_len"]
        with torch.no_grad():
            out, _ = encoder.encode(src, wav_lens=wav_len)
            whole, _ = encoder.encode(src)
        golden.compare("output/encode_nolen", whole)
        if fidelity == "upstream":
            golden.compare("output/encode", out)


def encoders(**options):
    sizes = {"input_size": 12, "d_model": 16, "d_ffn": 24, "num_encoder_layers": 3}
    return {
        "conmamba": ConmambaCTCEncoder(**sizes, kernel_size=7, **options),
        "causal conmamba": ConmambaCTCEncoder(**sizes, kernel_size=7, causal=True, **options),
        "conformer": ConformerCTCEncoder(**sizes, nhead=4, kernel_size=7, **options),
        "conformer, RoPE": ConformerCTCEncoder(
            **sizes, nhead=4, kernel_size=7, attention_type="RoPEMHA", **options
        ),
    }


@pytest.mark.parametrize("name", list(encoders()))
def test_padded_batch_equals_each_utterance_alone_on_random_length_pairs(name):
    encoder = encoders()[name].eval()
    lengths, x = torch.randint(1, 40, (20,)), torch.randn(20, 40, 12)
    with torch.no_grad():
        every = zip(x.split(1), lengths.split(1), strict=True)
        alone = [encoder.encode(one[:, :count], count, hidden_after=2) for one, count in every]
        for pair in map(list, random_pairs(20, 50)):
            counts = lengths[pair]
            padded, hidden = encoder.encode(x[pair, : counts.max()], counts, hidden_after=2)
            for place, (item, count) in enumerate(zip(pair, counts.tolist(), strict=True)):
                wanted, own = alone[item]
                assert torch.allclose(padded[place, :count], wanted[0], atol=2e-5)
                assert torch.allclose(hidden[place, :count], own[0], atol=2e-5)


@pytest.mark.parametrize("name", ["conmamba", "conformer"])
def test_upstream_lets_neighbours_change_an_utterance(name):
    encoder = encoders(fidelity="upstream")[name].eval()
    x, wav_lens = torch.randn(2, 40, 12), torch.tensor([1.0, 0.5])
    with torch.no_grad():
        padded, _ = encoder.encode(x, torch.tensor([40, 20]), wav_lens)
        alone, _ = encoder.encode(x[1:, :20], torch.tensor([20]), torch.ones(1))
    assert not torch.allclose(padded[1, :20], alone[0], atol=1e-3)


def test_causal_encoder_in_chunks_with_carried_state_equals_the_whole():
    encoder = encoders()["causal conmamba"].encoder.eval()
    x, state, pieces = torch.randn(2, 31, 16), None, []
    with torch.no_grad():
        whole, _ = encoder(x)
        for start, stop in ((0, 1), (1, 2), (2, 13), (13, 31)):
            out, state = encoder.forward_chunk(x[:, start:stop], state)
            pieces.append(out)
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=2e-5)


@pytest.mark.parametrize("d_model, kib", [(144, 40), (256, 140), (512, 140)])
@pytest.mark.parametrize("causal", [True, False])
def test_a_streaming_layer_of_a_published_size_carries_little(d_model, kib, causal):
    layer = ConmambaEncoderLayer(d_model, 16, 31, causal=causal, mamba_config=MAMBA).eval()
    chunks = None if causal else DynChunkTrainConfig(2)
    with torch.no_grad():
        _, (mamba, conv) = layer(torch.randn(1, 4, d_model), None, chunks, return_state=True)
    carried = sum(tensor.nbytes for tensor in (*mamba, conv))
    assert carried <= kib * 1024
    # no tensor is a view of something larger
    assert carried == sum(tensor.untyped_storage().nbytes() for tensor in (*mamba, conv))


def test_causal_encoder_ignores_later_frames_and_the_other_does_not():
    for name, causal in (("conmamba", False), ("causal conmamba", True)):
        encoder = encoders()[name].eval()
        x = torch.randn(1, 30, 12)
        changed = torch.cat([x[:, :20], torch.randn(1, 10, 12)], 1)
        with torch.no_grad():
            a, b = encoder.encode(x)[0][:, :20], encoder.encode(changed)[0][:, :20]
        assert torch.allclose(a, b, atol=1e-5) == causal


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_state_space_parameters_survive_construction_in_corrected_mode_only(fidelity):
    encoder = ConmambaCTCEncoder(40, d_model=64, d_ffn=64, num_encoder_layers=2, fidelity=fidelity)
    blocks = [m for m in encoder.modules() if isinstance(m, Mamba)]
    assert len(blocks) == 2 and all(isinstance(block, BiMamba) for block in blocks)
    for block in blocks:
        A = block.A_log.exp()
        kept = torch.allclose(A, torch.arange(1.0, 17).expand_as(A), rtol=1e-5)
        # uniform within 1/2 both, unless Xavier's rule ran over them
        drawn = torch.stack([block.dt_proj.weight.std(), block.conv1d.weight.std()])
        own = torch.allclose(drawn, torch.tensor(12**-0.5), rtol=0.1)
        assert kept == own == (fidelity == "corrected")
        assert torch.equal(block.D, torch.ones_like(block.D))
        # the plain projections are drawn by Xavier's rule in both modes
        assert abs(block.in_proj.weight.std() / (2 / (64 + 256)) ** 0.5 - 1) < 0.1


def test_an_unknown_fidelity_is_refused():
    with pytest.raises(ValueError, match="corrected, upstream"):
        ConmambaEncoder(1, 16, 16, fidelity="published")


def test_encoder_exports_with_any_number_of_frames():
    encoder = ConmambaEncoder(1, 8, 16, kernel_size=7, activation=nn.GELU).eval()
    time = torch.export.Dim("time", min=2, max=4000)
    with torch.no_grad():
        program = torch.export.export(
            encoder, (torch.randn(1, 30, 8),), dynamic_shapes={"src": {1: time}}
        )
        x = torch.randn(1, 700, 8)
        assert torch.allclose(program.module()(x)[0], encoder(x)[0], atol=1e-5)
