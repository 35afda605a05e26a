"""CTC prefix beam search along a stream, with a language model's state in each hypothesis.

SpeechBrain's ``CTCPrefixBeamSearcher`` can go on from its beams, but keeps the whole text in each, caches scores of all
texts for ever, and knows n-grams only. Here a hypothesis holds the tokens behind the final words.

Source: Hannun et al., "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs"
(arXiv 1408.2873), algorithm 1.
"""

import heapq
import math
from dataclasses import dataclass, replace

import numpy as np

from mamba_speech.asr.alignment import align_roughly, words_of
from mamba_speech.asr.live_decoder import LiveDecoder
from modules.ssm.checks import check_count

_NEVER = -math.inf
# in place of the logarithm of a probability that the search has left out
_LEAST = -1e4


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A text behind the final words.

    Attributes
    ----------
    tokens : tuple of int
    blank, token : float
        Log-probabilities of the paths that spell it and end in a blank, and in its last token.
    lm : float
        What the language model has added.
    node : object
        The language model's node of the text; None without one.
    """

    tokens: tuple
    blank: float
    token: float
    lm: float = 0.0
    node: object = None

    @property
    def ctc(self):
        """Log-probability of all paths that spell the text."""
        return _add(self.blank, self.token)

    @property
    def score(self):
        """What hypotheses are compared by."""
        return self.ctc + self.lm


@dataclass(frozen=True)
class BeamState:
    """Hypotheses, best first; the frame behind the final words, and what each frame since may hold.

    ``frames`` has the log-probability of the blank, tokens, and their log-probabilities. ``last`` is the last final
    token.
    """

    start: int
    hypotheses: tuple
    frames: tuple = ()
    last: int | None = None


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True)
class BeamOptions:
    """Options of the prefix beam search.

    Arguments
    ---------
    beam_size : int
        Hypotheses.
    beam_prune_logp : float
        Least score of a hypothesis, relative to the best; at most 0.
    token_prune_min_logp : float
        Least log-probability of a token in a frame, but for the best one; at most 0.
    final_after : float
        Seconds after which a word of the best hypothesis is final, and hypotheses without it are dropped.

    Raises
    ------
    ValueError
        If an option is outside its range.
    """

    beam_size: int = 16
    beam_prune_logp: float = -12.0
    token_prune_min_logp: float = -6.0
    final_after: float = 2.0

    def __post_init__(self):
        check_count("beam_size", self.beam_size)
        for name in ("beam_prune_logp", "token_prune_min_logp"):
            value = getattr(self, name)
            if not (_is_number(value) and value <= 0):
                raise ValueError(f"{name} must be 0 or less; got {value!r}")
        if not (_is_number(self.final_after) and self.final_after > 0):
            raise ValueError(f"final_after must be seconds over 0; got {self.final_after!r}")


class PrefixBeamDecoder(LiveDecoder):
    """CTC prefix beam search.

    A word is final when all hypotheses hold it and begin another word behind it. That changes no result. A word of the
    best hypothesis is also final ``final_after`` seconds after the next word began; hypotheses without it are
    dropped then. At an utterance's end the best hypothesis is final.

    Arguments
    ---------
    tokenizer, frame_seconds, endpoint
        See :class:`mamba_speech.asr.live_decoder.LiveDecoder`.
    fusion : mamba_speech.asr.fusion.MambaFusion or mamba_speech.asr.fusion.NgramFusion, optional
        A language model, which begins each utterance anew.
    **options
        Options of :class:`BeamOptions`.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> from mamba_speech.asr.tokenizer import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer = Tokenizer.train(["a b"], f"{folder}/tokenizer.model", "char", size=10)
    >>> best = torch.tensor([tokenizer.labels().index(token) for token in "▁aa▁b"])
    >>> log_probs = torch.nn.functional.one_hot(best, len(tokenizer)).float().clamp(min=1e-3).log()
    >>> decoder = PrefixBeamDecoder(tokenizer, frame_seconds=0.04)
    >>> context = decoder.make_context()
    >>> decoder.step(log_probs, None, context)[0].partial, decoder.finish(context)[0].final_text
    ('a b', 'a b')
    """

    def __init__(self, tokenizer, frame_seconds, endpoint=None, fusion=None, **options):
        self.fusion, self.options = fusion, BeamOptions(**options)
        super().__init__(tokenizer, frame_seconds, endpoint)

    def search(self, log_probs):
        """The hypotheses of a whole utterance, in which nothing is final before its end.

        Arguments
        ---------
        log_probs : torch.Tensor
            (time, outputs), at most as many outputs as there are tokens.

        Returns
        -------
        list of (tuple of int, float)
            Tokens and score, the best first. Scores hold the language model's end of the sentence.
        """
        hypotheses = self._begin(0).hypotheses
        for frame in self._candidates(log_probs):
            hypotheses = self._advance_frame(hypotheses, None, *frame)
        found = [(one.tokens, one.score + added) for one, added in self._ends(hypotheses)]
        return sorted(found, key=lambda one: -one[1])

    def _ends(self, hypotheses):
        """Pairs of a hypothesis and what its end adds."""
        if self.fusion is None:
            return [(one, 0.0) for one in hypotheses]
        self.fusion.prepare([one.node for one in hypotheses])
        return [(one, self.fusion.end(one.node)) for one in hypotheses]

    def _told(self):
        return (self.options, self.fusion and self.fusion.told())

    def _begin(self, start):
        node = None if self.fusion is None else self.fusion.start()
        return BeamState(start, (Hypothesis((), 0.0, _NEVER, 0.0, node),))

    def _read(self, state, log_probs, encoded):
        words = []
        for frame in self._candidates(log_probs):
            hypotheses = self._advance_frame(state.hypotheses, state.last, *frame)
            state = replace(state, hypotheses=hypotheses, frames=(*state.frames, frame))
            # after each frame, so that no result depends on where pieces end
            state, new = self._settle(state)
            words += new
        return state, words

    def _candidates(self, log_probs):
        """Of each frame the blank's log-probability, the tokens that hypotheses go on with, and theirs."""
        log_probs = log_probs.clone()
        blanks = log_probs[:, self.tokenizer.blank].tolist()
        log_probs[:, list(self.silent_tokens)] = -math.inf
        count = min(self.options.beam_size + 1, log_probs.shape[1])
        values, tokens = log_probs.topk(count)
        frames, least = [], self.options.token_prune_min_logp
        for blank, value, token in zip(blanks, values.tolist(), tokens.tolist(), strict=True):
            kept = [
                (one, p)
                for one, p in zip(token, value, strict=True)
                if p >= least or (p > blank and one == token[0])
            ]
            frames.append((blank, [one for one, _ in kept], [p for _, p in kept]))
        return frames

    def _advance_frame(self, hypotheses, last_final, blank, tokens, values):
        """The best hypotheses after a frame more."""
        if self.fusion is not None and tokens:
            self.fusion.prepare([one.node for one in hypotheses])
        # tokens: log-probabilities of paths that end in a blank and in a token, the hypothesis, and the token it adds
        found = {one.tokens: [_NEVER, _NEVER, one, None] for one in hypotheses}
        for one in hypotheses:
            total, last = one.ctc, one.tokens[-1] if one.tokens else last_final
            own = found[one.tokens]
            own[0] = _add(own[0], total + blank)
            for token, value in zip(tokens, values, strict=True):
                before = total
                if token == last:
                    own[1] = _add(own[1], one.token + value)
                    # a token after itself needs a blank between
                    before = one.blank
                if before > _NEVER:
                    longer = found.setdefault((*one.tokens, token), [_NEVER, _NEVER, one, token])
                    longer[1] = _add(longer[1], before + value)
        return self._kept(found)

    def _kept(self, found):
        """The best of all, as hypotheses; a language model's node is made for these alone."""
        scored = []
        for tokens, (blank, token, parent, added) in found.items():
            lm = parent.lm
            if self.fusion is not None and added is not None:
                lm += self.fusion.score(parent.node, added)
            scored.append((_add(blank, token) + lm, tokens, blank, token, lm, parent, added))
        best = heapq.nlargest(self.options.beam_size, scored, key=lambda one: one[0])
        least = best[0][0] + self.options.beam_prune_logp
        kept = []
        for score, tokens, blank, token, lm, parent, added in best:
            if score < least:
                break
            node = parent.node
            if self.fusion is not None and added is not None:
                node = self.fusion.after(node, added)
            kept.append(Hypothesis(tokens, blank, token, lm, node))
        return tuple(kept)

    def _settle(self, state):
        """The state behind the words that are final now, and those words."""
        tokens = state.hypotheses[0].tokens
        starts = [at for at, token in enumerate(tokens) if at and self._starts[token]]
        same = min(_common(tokens, one.tokens) for one in state.hypotheses)
        cut = max((at for at in starts if at < same), default=0)
        spans = None
        age = len(state.frames) - self.options.final_after / self.frame_seconds
        if age > 0 and starts and starts[-1] > cut:
            spans = self._spans(state, tokens)
            cut = max([cut, *(at for at in starts if spans[at].start <= age)])
        if not cut:
            return state, []
        spans = spans or self._spans(state, tokens)
        words = self._words(state, spans[:cut])
        behind = spans[cut - 1].end
        hypotheses = tuple(
            replace(one, tokens=one.tokens[cut:])
            for one in state.hypotheses
            if one.tokens[:cut] == tokens[:cut]
        )
        start, frames = state.start + behind, state.frames[behind:]
        return BeamState(start, hypotheses, frames, tokens[cut - 1]), words

    def _spans(self, state, tokens):
        """Where the tokens of a hypothesis lie, in frames since the state's start."""
        columns = {token: at for at, token in enumerate(dict.fromkeys(tokens), start=1)}
        table = np.full((len(state.frames), len(columns) + 1), _LEAST)
        for row, (blank, found, values) in zip(table, state.frames, strict=True):
            row[0] = blank
            for token, value in zip(found, values, strict=True):
                if token in columns:
                    row[columns[token]] = value
        # the words before may have ended earlier in this hypothesis, so that frames lack
        spans = align_roughly(table, [columns[token] for token in tokens])
        return [one._replace(token=token) for one, token in zip(spans, tokens, strict=True)]

    def _words(self, state, spans):
        offset = state.start * self.frame_seconds
        return words_of(spans, self.tokenizer, self.frame_seconds, offset)

    def _partial(self, state):
        return " ".join(self.tokenizer.decode(state.hypotheses[0].tokens).split())

    def _end(self, state):
        best = max(self._ends(state.hypotheses), key=lambda pair: pair[0].score + pair[1])[0]
        return self._words(state, self._spans(state, best.tokens)) if best.tokens else []


def _add(a, b):
    """log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == _NEVER else a + math.log1p(math.exp(b - a))


def _common(one, other):
    """Length of the common beginning."""
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
