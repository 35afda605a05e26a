"""Sequence-to-sequence recognisers: the published ones to the last digit, and what corrected mode promises beyond."""

import json
from pathlib import Path

import pytest
import torch
from speechbrain.nnet.activations import Swish
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.losses import ctc_loss, kldiv_loss
from torch import nn

from modules.asr.s2s import S2SRecognizer
from modules.asr.transformer import S2STransformer
from modules.frontend import ConvolutionSubsampling
from modules.ssm import Mamba
from tests.support.golden import Golden

SIZES = json.loads((Path(__file__).parents[2] / "model_sizes.json").read_text())["models"]
PUBLISHED = sorted(name for name in SIZES if name.startswith("Mamba-ASR/S2S/"))
MAMBA = {"d_state": 16, "expand": 2, "d_conv": 4, "bidirectional": True}
PAIRS = [(e, d) for e in ("conmamba", "conformer") for d in ("transformer", "mamba")]
VOCABULARY = 11


def transformer(encoder="conmamba", decoder="transformer", **options):
    sizes = {"input_size": 12, "d_model": 16, "nhead": 2, "d_ffn": 24, "kernel_size": 7}
    sizes |= {"num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.1, "max_length": 40}
    modules = {"encoder_module": encoder, "decoder_module": decoder, "mamba_config": MAMBA}
    return S2STransformer(VOCABULARY, **{**sizes, **modules, **options})


def recognizer(net, features=80, channels=(64, 32), vocabulary=VOCABULARY, d_model=16, **options):
    cnn = ConvolutionSubsampling(
        (8, 10, features),
        num_blocks=2,
        num_layers_per_block=1,
        out_channels=channels,
        kernel_sizes=(3, 3),
        strides=(2, 2),
        residuals=(False, False),
    )
    outputs = (Linear(input_size=d_model, n_neurons=vocabulary) for _ in range(2))
    return S2SRecognizer(cnn, net, *outputs, **options)


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


@pytest.mark.parametrize(
    "encoder, decoder, attention",
    [
        # each encoder, decoder and attention once
        ("conmamba", "transformer", "RelPosMHAXL"),
        ("conformer", "mamba", "RoPEMHA"),
        ("conmamba", "mamba", "regularMHA"),
        pytest.param("conmamba", "mamba", "RelPosMHAXL", marks=pytest.mark.exhaustive),
        pytest.param("conformer", "mamba", "RelPosMHAXL", marks=pytest.mark.exhaustive),
        pytest.param("conformer", "transformer", "RelPosMHAXL", marks=pytest.mark.exhaustive),
        pytest.param("conformer", "transformer", "regularMHA", marks=pytest.mark.exhaustive),
    ],
)
def test_padded_batch_equals_each_utterance_alone_on_random_length_pairs(
    encoder, decoder, attention
):
    net = transformer(
        encoder, decoder, attention_type=attention, input_size=16, num_encoder_layers=1
    )
    model = recognizer(net, features=8, channels=(4, 8)).eval()
    for _ in range(50):
        lengths, counts = torch.randint(1, 60, (2,)), torch.randint(1, 9, (2,))
        features = torch.randn(2, int(lengths.max()), 8)
        tokens = torch.randint(3, VOCABULARY, (2, int(counts.max())))
        tokens[:, 0] = 1
        tokens[torch.arange(tokens.shape[1]) >= counts.unsqueeze(1)] = 0
        with torch.no_grad():
            together = model(features, lengths, tokens)
            for i, (time, length) in enumerate(zip(lengths.tolist(), counts.tolist(), strict=True)):
                item = slice(i, i + 1)
                alone = model(features[item, :time], lengths[item], tokens[item, :length])
                end = int(together.lengths[i])
                assert alone.lengths.tolist() == [end] == [alone.encoded.shape[1]]
                for key, stop in (
                    ("encoded", end),
                    ("ctc_log_probs", end),
                    ("seq_log_probs", length),
                ):
                    one, other = getattr(together, key)[i, :stop], getattr(alone, key)[0]
                    assert torch.allclose(one, other, atol=3e-5), key


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_encoding_alone_gives_what_the_whole_model_does(fidelity):
    net = transformer(input_size=16, fidelity=fidelity)
    model = recognizer(net, features=8, channels=(4, 8)).eval()
    features, lengths = torch.randn(3, 50, 8), torch.tensor([50, 31, 7])
    with torch.no_grad():
        out = model(features, lengths, torch.ones(3, 2, dtype=torch.long))
        encoded, out_lengths = model.encode(features, lengths)
    assert torch.equal(encoded, out.encoded) and torch.equal(out_lengths, out.lengths)
    assert torch.equal(model.ctc_log_probs(encoded), out.ctc_log_probs)


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_upstream_lets_neighbours_change_an_utterance(encoder, decoder):
    net = transformer(encoder, decoder, fidelity="upstream").eval()
    src, tokens = torch.randn(2, 20, 12), torch.tensor([[1, 5, 6], [1, 7, 8]])
    with torch.no_grad():
        together, _ = net(src, tokens, torch.tensor([1.0, 0.5]))
        alone, _ = net(src[1:, :10], tokens[1:], torch.ones(1))
    assert not torch.allclose(together[1, :10], alone[0], atol=1e-3)


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA"])
def test_decoding_step_by_step_equals_decoding_the_whole_prefix(attention):
    net = transformer(decoder="mamba", attention_type=attention).eval()
    assert net.has_stateful_decoder
    memory, lengths = torch.randn(3, 15, 16), torch.tensor([15, 4, 9])
    tokens = torch.randint(1, VOCABULARY, (3, 12))
    whole, attentions = net.decode(tokens, memory, lengths)
    assert attentions is None
    state, outputs = net.start_decoding(memory, lengths), []
    for column in tokens.unbind(1):
        out, state = net.decode_step(column, state)
        outputs.append(out)
    assert torch.allclose(torch.stack(outputs, 1), whole, atol=2e-5)
    assert not whole.requires_grad


def test_a_transformer_decoder_has_no_state_and_says_so():
    net = transformer()
    assert not net.has_stateful_decoder
    with pytest.raises(ValueError, match="decoder_module: mamba"):
        net.start_decoding(torch.randn(1, 4, 16))


@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_decode_is_forward_without_padding_among_tokens(encoder, decoder):
    net = transformer(encoder, decoder).eval()
    src, lengths = torch.randn(2, 20, 12), torch.tensor([17, 11])
    tokens = torch.randint(1, VOCABULARY, (2, 6))
    with torch.no_grad():
        memory, out = net(src, tokens, lengths=lengths)
        # no utterance fills the memory
        assert torch.allclose(net.decode(tokens, memory, lengths)[0], out, atol=1e-6)


@pytest.mark.parametrize("encoder", ["conmamba", "conformer"])
def test_checkpointed_encoders_give_the_same_outputs_and_gradients_with_dropout_on(encoder):
    src, lengths = torch.randn(2, 20, 12), torch.tensor([20, 11])
    tokens = torch.tensor([[1, 5, 6], [1, 7, 0]])
    plain = transformer(encoder, dropout=0.5)
    saving = transformer(encoder, dropout=0.5, gradient_checkpointing=True)
    assert plain.state_dict().keys() == saving.state_dict().keys()
    saving.load_state_dict(plain.state_dict(), strict=True)
    results, calls = [], []
    for net in (plain.train(), saving.train()):
        calls.append(0)

        def counted(module, given, out):
            calls[-1] += 1

        net.encoder.layers[0].norm1.register_forward_hook(counted)
        torch.manual_seed(3)
        out = net(src, tokens, lengths=lengths, hidden_after=1)
        sum(x.pow(2).sum() for x in out).backward()
        results.append([*out, *(p.grad for p in net.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)
    assert calls == [1, 2]  # computed again
    with torch.no_grad():
        saving.eval()(src, tokens, lengths=lengths)
    assert calls == [1, 3]


def test_a_sequence_longer_than_the_table_of_positions_is_refused_by_the_option_s_name():
    tokens, memory = torch.ones(1, 41, dtype=torch.long), torch.randn(1, 5, 16)
    for decoder in ("transformer", "mamba"):
        net = transformer(decoder=decoder).eval()
        net.decode(tokens[:, :40], memory)
        with pytest.raises(ValueError, match="41 tokens .* max_length: 40"):
            net.decode(tokens, memory)
        with pytest.raises(ValueError, match="41 tokens .* max_length: 40"):
            net(torch.randn(1, 90, 12), tokens)
    state = net.start_decoding(memory)
    for _ in range(40):
        _, state = net.decode_step(tokens[:, 0], state)
    with pytest.raises(ValueError, match="41 tokens .* max_length: 40"):
        net.decode_step(tokens[:, 0], state)
    net.encode(torch.randn(1, 90, 12))  # relative positions have no table
    with pytest.raises(ValueError, match="90 frames .* max_length: 40"):
        transformer(attention_type="regularMHA").encode(torch.randn(1, 90, 12))


def test_a_trained_model_takes_a_longer_table_of_positions():
    net, longer = transformer().eval(), transformer(max_length=80).eval()
    longer.load_state_dict(net.state_dict(), strict=True)
    tokens, memory = torch.ones(1, 60, dtype=torch.long), torch.randn(1, 5, 16)
    out, _ = longer.decode(tokens, memory)
    assert torch.allclose(out[:, :40], net.decode(tokens[:, :40], memory)[0], atol=1e-5)


@pytest.mark.parametrize("attention", ["RelPosMHAXL", "regularMHA"])
def test_a_causal_conmamba_streams_what_the_whole_gives(attention):
    net = transformer(causal=True, attention_type=attention).eval()
    src = torch.randn(2, 31, 12)
    context, pieces = net.make_streaming_context(None), []
    with torch.no_grad():
        for chunk in src.split([1, 12, 18], 1):
            pieces.append(net.encode_streaming(chunk, context))
        assert torch.allclose(torch.cat(pieces, 1), net.encode(src), atol=2e-5)


def test_an_encoder_that_hears_the_future_refuses_to_stream():
    with pytest.raises(ValueError, match="causal: True"):
        transformer().make_streaming_context(None)


@pytest.mark.parametrize("encoder", ["conmamba", "conformer"])
def test_a_causal_encoder_ignores_later_frames_and_the_other_does_not(encoder):
    src = torch.randn(1, 30, 12)
    changed = torch.cat([src[:, :20], torch.randn(1, 10, 12)], 1)
    for causal in (True, False):
        net = transformer(encoder, causal=causal).eval()
        with torch.no_grad():
            one, other = (net.encode(x)[:, :20] for x in (src, changed))
        assert torch.allclose(one, other, atol=1e-5) == causal


def test_intermediate_output_in_training_only():
    net = transformer(input_size=16)
    model = recognizer(net, features=8, channels=(4, 8), intermediate_layer=1)
    given = torch.randn(2, 40, 8), torch.tensor([40, 30]), torch.tensor([[1, 5], [1, 7]])
    out = model.train()(*given)
    assert out.intermediate.shape == out.ctc_log_probs.shape
    assert not torch.allclose(out.intermediate, out.ctc_log_probs)
    assert model.eval()(*given).intermediate is None
    with pytest.raises(ValueError, match="intermediate_layer"):
        recognizer(net, intermediate_layer=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("encoder, decoder", PAIRS)
def test_autocast_trains_every_parameter_on_speech_with_silence_in_it(encoder, decoder, dtype):
    net = transformer(encoder, decoder, input_size=16, gradient_checkpointing=True)
    model = recognizer(net, features=8, channels=(4, 8)).train()
    given = torch.randn(2, 40, 8), torch.tensor([40, 30]), torch.tensor([[1, 5], [1, 7]])
    given[0][0, 10:25] = 0
    with torch.autocast("cpu", dtype):
        out = model(*given)
        (out.ctc_log_probs.pow(2).mean() + out.seq_log_probs.pow(2).mean()).backward()
    assert out.ctc_log_probs.dtype == out.seq_log_probs.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fidelity", ["corrected", "upstream"])
def test_state_space_parameters_survive_construction_in_corrected_mode_only(fidelity):
    net = transformer(decoder="mamba", fidelity=fidelity)
    blocks = [m for m in net.modules() if isinstance(m, Mamba)]
    assert len(blocks) == 2 + 2 * 2
    for block in blocks:
        A = block.A_log.exp()
        kept = torch.allclose(A, torch.arange(1.0, 17).expand_as(A), rtol=1e-5)
        assert kept == (fidelity == "corrected")
        assert block.A_log._no_weight_decay and block.D._no_weight_decay


@pytest.mark.parametrize(
    "options, message",
    [
        ({"encoder": "branchformer"}, "encoder_module must be one of conmamba, conformer"),
        ({"decoder": "rnn"}, "decoder_module must be one of transformer, mamba"),
        ({"attention_type": "hypermixing"}, "attention_type must be one of"),
        ({"fidelity": "published"}, "corrected, upstream"),
        ({"num_decoder_layers": 0}, "num_decoder_layers must be at least 1"),
        ({"nhead": 3}, "nhead must divide d_model, 16; got 3"),
        ({"nhead": 3, "encoder": "conformer", "decoder": "mamba"}, "nhead must divide d_model, 16"),
    ],
)
def test_options_outside_their_range_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        transformer(**options)


def test_a_model_without_attention_takes_any_number_of_heads():
    net = transformer(decoder="mamba", nhead=3).eval()
    assert net(torch.randn(1, 9, 12), torch.tensor([[1, 5]]))[1].shape == (1, 2, 16)


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
