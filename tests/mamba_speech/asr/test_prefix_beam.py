"""Prefix beam search along a stream: exact where nothing is pruned, the same in pieces, bounded in time."""

import itertools
import logging
import math
import pickle

import numpy as np
import pytest
import torch
from speechbrain.decoders.ctc import CTCPrefixBeamSearcher

from mamba_speech.asr.endpoint import EndpointOptions
from mamba_speech.asr.fusion import MambaFusion
from mamba_speech.asr.prefix_beam import PrefixBeamDecoder
from mamba_speech.asr.tokenizer import Tokenizer
from modules.asr.lm import MambaLM

# nothing is pruned, nothing is final before the end
EXACT = {
    "beam_size": 5000,
    "beam_prune_logp": -1e9,
    "token_prune_min_logp": -1e9,
    "final_after": 1e9,
}
NO_END = EndpointOptions(endpoint_silence=None, max_utterance=1e6)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Six tokens: three special ones, the mark of a word's start, and two letters."""
    file = tmp_path_factory.mktemp("two letters") / "tokenizer.model"
    return Tokenizer.train(["a b"], file, "char", size=6)


@pytest.fixture(scope="module")
def lm(tokenizer):
    torch.manual_seed(3)
    lm = MambaLM(vocab=len(tokenizer), d_model=8, n_layers=2).eval()
    # far from uniform
    lm.output_proj.weight.data *= 12
    return lm.requires_grad_(False)


def random_frames(tokenizer, count, seed, spread=0.4):
    """Log-probabilities that doubt; the first frame is a sound, and control tokens are no choice."""
    probs = np.random.default_rng(seed).dirichlet(np.full(len(tokenizer), spread), size=count)
    probs[:, list(tokenizer.control)] = 1e-12
    probs[0, tokenizer.blank] = 1e-6
    return torch.tensor(probs / probs.sum(1, keepdims=True)).log().float()


def every_text(log_probs, tokenizer):
    """Log-probability of each text: the sum over all paths."""
    outputs = [one for one in range(len(tokenizer)) if one not in tokenizer.control]
    texts = {}
    for path in itertools.product(outputs, repeat=len(log_probs)):
        tokens = tuple(one for one, _ in itertools.groupby(path) if one != tokenizer.blank)
        p = math.exp(sum(log_probs[at, one].item() for at, one in enumerate(path)))
        texts[tokens] = texts.get(tokens, 0.0) + p
    return {tokens: math.log(p) for tokens, p in texts.items() if p > 0}


def lm_scores(lm, tokens, tokenizer):
    """Log-probabilities of each token and of the end."""
    start, end = tokenizer.control
    logits = lm(torch.tensor([[start, *tokens]]))
    log_probs = logits.log_softmax(-1)[0]
    return [log_probs[at, token].item() for at, token in enumerate([*tokens, end])]


def run(decoder, log_probs, pieces=1, pickled=False):
    context, updates = decoder.make_context(), []
    for piece in log_probs.tensor_split(pieces):
        updates += decoder.step(piece, None, context)
        if pickled:
            context = pickle.loads(pickle.dumps(context))
    return updates + decoder.finish(context)


def words(updates):
    return [word for update in updates for word in update.final]


def text(updates):
    return " ".join(word.text for word in words(updates))


@pytest.mark.parametrize("weight", [None, 0.7])
def test_a_wide_beam_scores_every_text_as_the_sum_over_all_paths(tokenizer, lm, weight):
    fusion = None if weight is None else MambaFusion(lm, tokenizer, weight)
    decoder = PrefixBeamDecoder(tokenizer, 0.04, NO_END, fusion, **EXACT)
    best = set()
    for seed in range(3):
        log_probs = random_frames(tokenizer, 5, seed)
        wanted = every_text(log_probs, tokenizer)
        state, _ = decoder._read(decoder._begin(0), log_probs, None)
        found = {one.tokens: one for one in state.hypotheses}
        assert found.keys() == wanted.keys()
        totals = {}
        for tokens, score in wanted.items():
            assert found[tokens].ctc == pytest.approx(score, abs=1e-4)
            totals[tokens] = score
            if fusion is not None:
                *inner, end = lm_scores(lm, tokens, tokenizer)
                assert found[tokens].lm == pytest.approx(weight * sum(inner), abs=1e-3)
                totals[tokens] += weight * (sum(inner) + end)
        tokens = max(totals, key=totals.get)
        assert text(run(decoder, log_probs, 5, pickled=True)) == " ".join(
            tokenizer.decode(tokens).split()
        )
        best.add(tokens)
    assert len(best) > 1


@pytest.mark.parametrize("weight", [None, 0.7])
def test_a_wide_beam_ranks_whole_utterances_by_the_sum_over_all_paths(tokenizer, lm, weight):
    fusion = None if weight is None else MambaFusion(lm, tokenizer, weight)
    decoder = PrefixBeamDecoder(tokenizer, 0.04, fusion=fusion, **EXACT)
    for seed in range(3):
        log_probs = random_frames(tokenizer, 5, seed)
        wanted = every_text(log_probs, tokenizer)
        if fusion is not None:
            wanted = {
                tokens: score + weight * sum(lm_scores(lm, tokens, tokenizer))
                for tokens, score in wanted.items()
            }
        found = decoder.search(log_probs)
        scores = [score for _, score in found]
        assert scores == sorted(scores, reverse=True)
        assert dict(found) == pytest.approx(wanted, abs=1e-3)


def test_speechbrains_search_finds_the_same_texts_on_the_whole(tokenizer):
    logging.getLogger("speechbrain").setLevel(logging.ERROR)
    options = {"beam_size": 100, "beam_prune_logp": -1e9, "token_prune_min_logp": -1e9}
    theirs = CTCPrefixBeamSearcher(
        tokenizer.blank, tokenizer.labels(), prune_history=False, **options
    )
    ours = PrefixBeamDecoder(tokenizer, 0.04, NO_END, final_after=1e9, **options)
    texts = []
    for seed in range(8):
        log_probs = random_frames(tokenizer, 9, seed, spread=0.2)
        # SpeechBrain's search joins texts that differ in spaces alone
        mark = tokenizer.labels().index("\u2581")
        log_probs[:, mark] = -20.0
        (found,) = theirs(log_probs[None], torch.tensor([1.0]))
        texts.append(text(run(ours, log_probs, 3)))
        assert texts[-1] == found[0].text.replace("\u2581", " ").strip()
    assert len(set(texts)) > 4


def test_pieces_of_any_size_give_the_words_of_the_whole(tokenizer, lm):
    log_probs = torch.cat([random_frames(tokenizer, 60, seed) for seed in range(2)])
    for fusion in (None, MambaFusion(lm, tokenizer, 0.3)):
        texts = set()
        for final_after in (0.2, math.inf):
            options = {"beam_size": 8, "final_after": final_after}
            decoder = PrefixBeamDecoder(tokenizer, 0.04, fusion=fusion, **options)
            wanted = words(run(decoder, log_probs))
            # times, confidences, and which doubts are settled how
            for pieces in (7, len(log_probs)):
                assert words(run(decoder, log_probs, pieces, pickled=True)) == wanted
            texts.add(" ".join(word.text for word in wanted))
        # doubts that were settled early
        assert len(texts) == 2 and len(wanted) > 10


def test_final_words_are_never_withdrawn_and_old_doubts_are_settled(tokenizer):
    decoder = PrefixBeamDecoder(tokenizer, 0.04, NO_END, beam_size=8, final_after=0.6)
    log_probs = torch.cat([random_frames(tokenizer, 50, seed) for seed in range(8)])
    context, final, sizes, latest = decoder.make_context(), [], [], 0.0
    for at, frame in enumerate(log_probs):
        for update in decoder.step(frame[None], None, context):
            final += update.final
        sizes.append(len(context.utterance.frames))
        if final:
            latest = max(latest, at * 0.04 - final[-1].end)
    assert len(final) > 40
    starts = [word.start for word in final]
    assert starts == sorted(starts)
    # a word waits for its delay and for the next word's start
    assert latest < 0.6 + 1.5 and max(sizes) < 60
    ended = [word for update in decoder.finish(context) for word in update.final]
    assert not ended or ended[0].start >= starts[-1]


def test_a_language_model_decides_where_the_sound_leaves_doubt(tokenizer, lm):
    a, b, mark = (tokenizer.labels().index(one) for one in "ab\u2581")
    probs = torch.full((2, len(tokenizer)), 1e-6)
    probs[0, mark] = 1.0
    probs[1, a] = probs[1, b] = 0.5
    log_probs = (probs / probs.sum(1, keepdim=True)).log()
    wanted = {one: sum(lm_scores(lm, [mark, one], tokenizer)) for one in (a, b)}
    best = max(wanted, key=wanted.get)
    decoder = PrefixBeamDecoder(tokenizer, 0.04, fusion=MambaFusion(lm, tokenizer, 1.0))
    assert text(run(decoder, log_probs)) == tokenizer.labels()[best]


def test_an_hour_leaves_a_context_of_constant_size(tokenizer, lm):
    """Frames of speech with pauses, over and over: what is final leaves the context."""
    fusion = MambaFusion(lm, tokenizer, 0.3)
    decoder = PrefixBeamDecoder(tokenizer, 0.04, fusion=fusion, beam_size=4)
    speech = random_frames(tokenizer, 100, 1, spread=0.1)
    pause = torch.full((25, len(tokenizer)), math.log(1e-4))
    pause[:, tokenizer.blank] = -1e-3
    minute = torch.cat([speech, pause])
    context, sizes = decoder.make_context(), []
    for _ in range(12):
        decoder.step(minute, None, context)
        sizes.append(len(pickle.dumps(context)))
    assert max(sizes) < 1.1 * sizes[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam_size": 0},
        {"beam_size": 1.5},
        {"beam_prune_logp": 1.0},
        {"token_prune_min_logp": float("nan")},
        {"final_after": None},
    ],
)
def test_options_out_of_range_are_refused_by_name(tokenizer, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PrefixBeamDecoder(tokenizer, 0.04, **wrong)


def test_a_context_of_another_search_is_refused(tokenizer, lm):
    ours = PrefixBeamDecoder(tokenizer, 0.04, beam_size=4)
    context = ours.make_context()
    for other in (
        PrefixBeamDecoder(tokenizer, 0.04, beam_size=5),
        PrefixBeamDecoder(tokenizer, 0.04, beam_size=4, fusion=MambaFusion(lm, tokenizer, 0.5)),
    ):
        with pytest.raises(ValueError, match="another decoder's"):
            other.step(random_frames(tokenizer, 3, 0), None, context)


def test_other_language_models_are_refused(tokenizer):
    with pytest.raises(ValueError, match="Mamba language model"):
        MambaFusion(torch.nn.Linear(2, 2), tokenizer, 0.5)
