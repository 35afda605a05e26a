"""The Mamba language model in SpeechBrain's beam search: its state against running the prefix again."""

import pytest
import torch
from speechbrain.decoders.scorer import CTCScorer, TransformerLMScorer
from speechbrain.decoders.seq2seq import S2STransformerBeamSearcher
from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR
from speechbrain.nnet.linear import Linear

from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.asr.lm import MambaLM

VOCAB = 14


def make_lm():
    lm = MambaLM(VOCAB, d_model=16, n_layers=2, d_state=4).eval()
    # drawn wide, so that what it has read decides what it expects
    torch.nn.init.normal_(lm.embedding.weight)
    torch.nn.init.normal_(lm.output_proj.weight, std=0.7)
    return lm


@pytest.fixture
def recogniser():
    """A network, its two heads, encoded speech of three lengths."""
    network = TransformerASR(VOCAB, 8, 16, 2, 1, 1, 16, activation=torch.nn.GELU).eval()
    heads = [Linear(input_size=16, n_neurons=VOCAB) for _ in range(2)]
    for head in heads:
        torch.nn.init.normal_(head.w.weight, std=0.5)
    return network, *heads, torch.randn(3, 18, 16), torch.tensor([1.0, 0.5, 0.7])


def search(recogniser, scorers, weights, beam):
    network, seq_lin, _, encoded, lengths = recogniser
    searcher = S2STransformerBeamSearcher(
        modules=[network, seq_lin],
        bos_index=1,
        eos_index=2,
        min_decode_ratio=0.0,
        max_decode_ratio=1.0,
        beam_size=beam,
        topk=beam,
        return_topk=True,
        using_eos_threshold=False,
        scorer=LMScorerBuilder(full_scorers=scorers, weights=weights),
    )
    with torch.no_grad():
        return searcher(encoded, lengths)


@pytest.mark.parametrize("beam", [1, 4, 9])
@pytest.mark.parametrize("with_ctc", [False, True])
def test_a_search_equals_one_that_runs_the_prefix_again(beam, with_ctc, recogniser):
    lm, results = make_lm(), []
    for scorer, name in (
        (MambaLMScorer(lm, 1.3), "mambalm"),
        (TransformerLMScorer(lm, 1.3), "transformerlm"),
    ):
        scorers, weights = [scorer], {name: 0.6}
        if with_ctc:
            scorers.append(CTCScorer(recogniser[2], blank_index=0, eos_index=2))
            weights["ctc"] = 0.4
        results.append(search(recogniser, scorers, weights, beam))
    (tokens, lengths, scores, _), (wanted, wanted_lengths, wanted_scores, _) = results
    assert torch.equal(tokens, wanted) and torch.equal(lengths, wanted_lengths)
    torch.testing.assert_close(scores, wanted_scores, atol=1e-4, rtol=0)


def test_the_language_model_changes_what_is_found(recogniser):
    found = [
        search(recogniser, [MambaLMScorer(make_lm())], {"mambalm": weight}, 4)[0]
        for weight in (0.0, 2.0)
    ]
    assert found[0].shape != found[1].shape or not torch.equal(*found)


def test_scores_are_the_log_probabilities_of_the_whole_prefix_after_any_reordering():
    lm = make_lm()
    scorer, prefixes, memory = MambaLMScorer(lm, temperature=0.8), torch.ones(5, 1).long(), None
    scorer.reset_mem(torch.zeros(5, 3, 16), torch.ones(5))
    for _ in range(12):
        scores, memory = scorer.score(prefixes[:, -1], memory, None, None)
        wanted = (lm(prefixes)[:, -1] / 0.8).log_softmax(-1)
        # float32 keeps logarithms of probabilities of e^-10 to 1e-6, and twelve steps come before
        torch.testing.assert_close(scores, wanted, atol=5e-5, rtol=0)
        index = torch.randint(0, 5, (5,))
        memory = scorer.permute_mem(memory, index)
        prefixes = torch.cat([prefixes[index], torch.randint(3, VOCAB, (5, 1))], dim=1)
    assert scores.std(dim=0).max() > 0.1


def test_scores_are_finite_float32_for_a_half_precision_model():
    scorer = MambaLMScorer(make_lm().to(torch.bfloat16))
    scores, memory = scorer.score(torch.tensor([1, 1]), None, None, None)
    scores, _ = scorer.score(torch.tensor([3, 4]), memory, None, None)
    assert scores.dtype == torch.float32 and scores.isfinite().all()


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_a_temperature_that_is_not_over_zero_is_refused_by_its_option(temperature):
    with pytest.raises(ValueError, match="temperature_lm"):
        MambaLMScorer(make_lm(), temperature)


def test_the_builder_knows_the_scorer_and_still_refuses_names_that_it_does_not():
    builder = LMScorerBuilder(full_scorers=[MambaLMScorer(make_lm())], weights={"mambalm": 0.6})
    assert builder.weights["mambalm"] == 0.6
    with pytest.raises(ValueError, match="should be named in"):
        LMScorerBuilder(
            full_scorers=[MambaLMScorer(make_lm())] * 2, weights={"mambalm": 1.0, "mamba": 1.0}
        )
