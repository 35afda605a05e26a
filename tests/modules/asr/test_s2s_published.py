"""Sequence-to-sequence recognisers as published: their sizes, their recorded outputs, their checkpoints."""

import json
from pathlib import Path

import pytest
import torch
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.losses import ctc_loss, kldiv_loss
from torch import nn

from modules.asr.transformer import S2STransformer
from tests.support.golden import Golden
from tests.support.recognition_networks import MAMBA, PAIRS, recognizer, transformer

SIZES = json.loads((Path(__file__).parents[2] / "model_sizes.json").read_text())["models"]
PUBLISHED = sorted(name for name in SIZES if name.startswith("Mamba-ASR/S2S/"))


def count(module):
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def from_meta(meta, **options):
    # the published code hands its activation to ConMamba and the decoders; Conformer keeps Swish
    names = ("d_model", "nhead", "num_encoder_layers", "num_decoder_layers", "d_ffn", "kernel_size")
    names += ("encoder_module", "decoder_module", "attention_type", "normalize_before")
    names += ("max_length", "causal", "mamba_config")
    given = {name: meta[name] for name in names if name in meta}
    return S2STransformer(20, activation=nn.GELU, **{**given, **options}).eval()


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_to_the_unit(name):
    wanted, stem = SIZES[name], Path(name).stem
    h = wanted["hparams"]
    with torch.device("meta"):  # sizes without numbers
        net = S2STransformer(
            h["output_neurons"],
            640,
            h["d_model"],
            h["nhead"],
            h["num_encoder_layers"],
            h["num_decoder_layers"],
            h["d_ffn"],
            encoder_module="conformer" if stem.startswith("conformer") else "conmamba",
            decoder_module="mamba" if stem.startswith("conmambamamba") else "transformer",
            mamba_config=MAMBA,
        )
        model = recognizer(net, vocabulary=h["output_neurons"], d_model=h["d_model"])
    assert count(model) == wanted["total_trainable"]
    for part in ("CNN", "Transformer", "seq_lin", "ctc_lin"):
        assert count(getattr(model, part)) == wanted["modules"][part]
    for part, size in wanted["Transformer_children"].items():
        assert count(getattr(net, part)) == size
    for layers, kind in ((net.encoder.layers, "encoder"), (net.decoder.layers, "decoder")):
        for layer in layers:
            assert count(layer) == wanted[f"per_{kind}_layer"]
        for part, size in wanted[f"{kind}_layer_children"].items():
            assert size == 0 or count(getattr(layers[0], part)) == size


@pytest.mark.parametrize("fidelity", ["upstream", "corrected"])
@pytest.mark.parametrize(
    "name",
    [
        "conformer_transformer",
        "conmamba_transformer",
        "conmamba_mamba",
        "conmamba_mamba_absposenc",
        "conmamba_causal_mamba",
    ],
)
def test_golden_transformers_with_padding_as_upstream_and_without_in_both_modes(name, fidelity):
    golden = Golden(f"asr_{name}")
    net = from_meta(golden.meta, input_size=24, fidelity=fidelity)
    net.load_state_dict(golden.state_dict(), strict=True)
    src, tgt, wav_len = (golden[f"input/{key}"] for key in ("src", "tgt", "wav_len"))
    lengths = torch.round(wav_len * src.shape[1]).long()
    with torch.no_grad():
        golden.compare("output/encode_nolen", net.encode(src))
        prefix, _ = net.decode(tgt[:, :4], golden["output/encode"])
        golden.compare("output/decode_prefix4_nolen", prefix)
        if fidelity == "corrected":
            return
        golden.compare("output/encode", net.encode(src, wav_len))
        golden.compare("output/encode", net.encode(src, lengths=lengths))
        encoded, decoded = net(src, tgt, wav_len)
        golden.compare("output/forward_enc", encoded)
        golden.compare("output/forward_dec", decoded)
        golden.compare("output/decode", net.decode(tgt, encoded, lengths)[0])
    assert not golden.left


@pytest.mark.parametrize("decoder", ["transformer", "mamba"])
def test_golden_pipelines_from_features_to_losses(decoder):
    with Golden(f"pipeline_s2s_{decoder}") as golden, torch.no_grad():
        meta = golden.meta
        net = from_meta(meta, input_size=640, mamba_config=MAMBA, fidelity="upstream")
        model = recognizer(net, vocabulary=20, d_model=meta["d_model"]).eval()
        model.load_state_dict(golden.state_dict(), strict=True)
        g = {key.removeprefix("input/"): value for key, value in golden.entries.items()}
        feats, wav_lens = g["feats"], g["wav_lens"]
        lengths = (wav_lens * feats.shape[1]).round().long()
        golden.compare("output/cnn", model.CNN(feats)[0].view(golden["output/cnn"].shape))
        out = model(feats, lengths, g["tokens_bos"], wav_lens)
        golden.compare("output/p_ctc", out.ctc_log_probs)
        golden.compare("output/p_seq", out.seq_log_probs)
        golden.compare("output/enc", out.encoded)
        x, _ = model.subsample(feats, lengths, wav_lens)
        golden.compare("output/dec", net(x, g["tokens_bos"], wav_lens)[1])
        assert torch.equal(out.lengths, (wav_lens * x.shape[1]).round().long())
        loss_ctc = ctc_loss(
            out.ctc_log_probs, g["tokens"], wav_lens, g["tokens_lens"], 0, "batchmean"
        )
        golden.compare("output/loss_ctc", loss_ctc)
        for smoothing in (0, 0.1):
            loss = kldiv_loss(
                out.seq_log_probs,
                g["tokens_eos"],
                g["tokens_eos_lens"],
                label_smoothing=smoothing,
                reduction="batchmean",
            )
            golden.compare(f"output/loss_seq_ls{smoothing}", loss)
        total = meta["ctc_weight"] * loss_ctc + (1 - meta["ctc_weight"]) * loss
        golden.compare("output/loss_total_ls0.1", total)


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_upstream_lets_neighbours_change_an_utterance(encoder, decoder):
    net = transformer(encoder, decoder, fidelity="upstream").eval()
    src, tokens = torch.randn(2, 20, 12), torch.tensor([[1, 5, 6], [1, 7, 8]])
    with torch.no_grad():
        together, _ = net(src, tokens, torch.tensor([1.0, 0.5]))
        alone, _ = net(src[1:, :10], tokens[1:], torch.ones(1))
    assert not torch.allclose(together[1, :10], alone[0], atol=1e-3)


@pytest.mark.parametrize("decoder", ["transformer", "mamba"])
def test_checkpoints_of_the_published_recipes_load_as_they_are(decoder):
    model, other = (recognizer(transformer(decoder=decoder)).eval() for _ in range(2))
    # the published YAML: !new:torch.nn.ModuleList [[CNN, Transformer, seq_lin, ctc_lin]]
    parts = nn.ModuleList([other.CNN, other.Transformer, other.seq_lin, other.ctc_lin])
    saved = parts.state_dict()
    names = list(saved)
    model.load_state_dict(saved, strict=True)
    assert all(torch.equal(model.state_dict()[key], x) for key, x in other.state_dict().items())
    assert list(saved) == names
    del saved["2.w.bias"]
    with pytest.raises(RuntimeError, match="seq_lin.w.bias"):
        model.load_state_dict(saved, strict=True)


def test_the_conformer_s_activation_is_its_own_as_published():
    net = transformer("conformer", activation=nn.GELU)
    assert isinstance(net.encoder.layers[0].ffn_module1[1].ffn[1], Swish)
    assert isinstance(net.decoder.layers[0].pos_ffn.ffn[1], nn.GELU)
