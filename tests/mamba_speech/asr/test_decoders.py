"""The joint search: the options that it takes, and texts that no special token gets into."""

import functools
import pickle

import pytest
import torch

from mamba_speech.asr.decoders import S2S_OPTIONS, S2SDecoder
from mamba_speech.asr.language_model import load_language_model
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.run import load_run, read_options
from tests.support.recognition import LM_SIZES


@pytest.fixture(scope="module")
def model(s2s):
    return load_run(s2s, [], selection_key="token_error")["model"]


@pytest.fixture(scope="module")
def tokenizer(letters):
    return Tokenizer(letters[0])


@pytest.fixture(scope="module")
def decoder(model, tokenizer):
    return functools.partial(S2SDecoder, model, tokenizer, beam_size=3)


@pytest.fixture(scope="module")
def encoded():
    lengths = torch.tensor([9, 4, 13, 1])
    return torch.randn(4, 13, 16, generator=torch.Generator().manual_seed(0)), lengths


def test_every_option_of_the_yaml_is_an_argument_that_decodes(decoder, s2s, encoded):
    run = read_options(s2s, list(S2S_OPTIONS))
    options = {argument: run[name] for name, argument in S2S_OPTIONS.items()}
    assert len(decoder(**options)(*encoded)) == len(encoded[1])


def test_exact_and_full_scoring_agree_and_pruned_with_all_candidates_too(decoder, encoded):
    texts = decoder(ctc_scoring="exact")(*encoded)
    assert texts == decoder(ctc_scoring="full")(*encoded)
    assert texts == decoder(ctc_scoring="pruned", scorer_beam_scale=1e3)(*encoded)
    assert texts != decoder(ctc_weight=0.0)(*encoded)


@pytest.mark.parametrize("kind", ["pretrained_lm", "lm_run"])
def test_a_language_model_has_its_say(kind, decoder, encoded, request):
    lm, _ = load_language_model(request.getfixturevalue(kind), sizes=LM_SIZES)
    alone = decoder()(*encoded)
    assert decoder(lm=lm, lm_weight=0.0)(*encoded) == alone
    assert decoder(lm=lm, lm_weight=5.0)(*encoded) != alone


def test_a_beam_of_one_takes_the_best_token_at_each_step(decoder, model, tokenizer, encoded):
    greedy = decoder(beam_size=1, ctc_weight=0.0, using_eos_threshold=False)(*encoded)
    states, lengths = encoded
    for text, state, count in zip(greedy, states, lengths, strict=True):
        tokens = torch.tensor([[1]])
        for _ in range(int(count)):
            decoded, _ = model.Transformer.decode(tokens, state[None, :count], count.view(1))
            token = model.seq_lin(decoded[:, -1]).argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, token], 1)
            if int(token) == 2:
                break
        # a hypothesis that has not ended at its last step ends there
        spoken = [token for token in tokens[0, 1 : count + 1].tolist() if token > 2]
        ended = int(tokens[0, -1]) <= 2
        assert text == tokenizer.decode(spoken if ended else spoken[:-1])


def test_special_tokens_and_outputs_past_the_vocabulary_give_no_text(model, tokenizer, encoded):
    class Said(S2SDecoder):
        """Reads its hypotheses instead of searching for them."""

        def _new_search(self, absorbed):
            return lambda encoded, lengths: ([[5, 0, 6, 1, 99, 7]], None, None, None)

    said = Said(model, tokenizer)(encoded[0][:1], encoded[1][:1])
    assert said == [tokenizer.decode([5, 6, 7])]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("beam_size", 0, "test_beam_size must be a whole number, 1 or more; got 0"),
        ("ctc_weight", 1.0, "ctc_weight_decode must be at least 0 and under 1"),
        ("ctc_weight", -0.1, "ctc_weight_decode must be at least 0 and under 1"),
        ("ctc_scoring", "quick", "ctc_scoring must be one of exact, pruned, full; got 'quick'"),
        ("lm_weight", -1.0, "lm_weight must be 0 or more"),
        ("temperature", 0.0, "temperature must be over 0"),
        ("lm_temperature", 0.0, "temperature_lm must be over 0"),
        ("scorer_beam_scale", 0, "scorer_beam_scale must be over 0"),
        (
            "min_decode_ratio",
            2.0,
            "min_decode_ratio must not be over max_decode_ratio, 1.0; got 2.0",
        ),
        ("min_decode_ratio", -1.0, "min_decode_ratio must be 0 or more"),
        ("max_decode_ratio", 0.0, "max_decode_ratio must be over 0"),
    ],
)
def test_an_option_outside_its_range_is_named_as_in_the_yaml(argument, value, message, decoder):
    with pytest.raises(ValueError, match=message):
        decoder(**{argument: value})


def test_a_hypothesis_longer_than_the_positional_table_names_max_length(s2s, tokenizer, encoded):
    model = load_run(s2s, [], selection_key="token_error")["model"]
    table = model.Transformer.positional_encoding_decoder
    table.pe = table.pe[:, :3]
    with torch.no_grad():
        model.seq_lin.w.bias[2] = -1e4
    with pytest.raises(ValueError, match="max_length: 3; raise max_length"):
        S2SDecoder(model, tokenizer, beam_size=2, ctc_weight=0.0)(*encoded)


def test_an_encoder_of_low_precision_is_searched_in_the_models_own(decoder, encoded):
    states, lengths = encoded
    for precision in (torch.bfloat16, torch.float16, torch.float64):
        texts = decoder()(states.to(precision), lengths)
        assert texts == decoder()(states.to(precision).float(), lengths)
        assert any(texts)


@pytest.mark.parametrize("scoring", ["exact", "full"])
def test_a_search_that_begins_within_another_disturbs_neither(scoring, decoder, model, encoded):
    """As threads do that share a decoder."""
    joint, (states, lengths) = decoder(ctc_scoring=scoring), encoded
    other = states[1:2, :4].flip(2), lengths[1:2]
    wanted = joint(*encoded), joint(*other)
    found = []

    def interrupt(module, given, out):
        hook.remove()
        found.append(joint(*other))

    hook = model.seq_lin.register_forward_hook(interrupt)
    found.insert(0, joint(*encoded))
    assert tuple(found) == wanted and wanted[0][1:2] != wanted[1]


def test_a_decoder_can_be_pickled(decoder, encoded):
    joint = decoder()
    assert pickle.loads(pickle.dumps(joint))(*encoded) == joint(*encoded)
