"""Sequence-to-sequence recognisers: padding, decoding, streaming and training in corrected mode."""

import pytest
import torch

from modules.ssm import Mamba
from tests.support.recognition_networks import PAIRS, VOCABULARY, recognizer, transformer


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


@pytest.mark.parametrize(
    "encoder, attention",
    [("conmamba", "RelPosMHAXL")]
    + [("conformer", attention) for attention in ("RelPosMHAXL", "regularMHA", "RoPEMHA")],
)
def test_a_causal_encoder_ignores_later_frames_and_the_other_does_not(encoder, attention):
    src, lengths = torch.randn(2, 30, 12), torch.tensor([30, 24])
    changed = torch.cat([src[:, :20], torch.randn(2, 10, 12)], 1)
    for causal in (True, False):
        net = transformer(encoder, causal=causal, attention_type=attention).eval()
        with torch.no_grad():
            one, other = (net.encode(x, lengths=lengths)[:, :20] for x in (src, changed))
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
