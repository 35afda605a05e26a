"""From what a recogniser's network gives to text: CTC's best path and beam search, and joint CTC/attention search.

Sources: Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2 (best path); Watanabe et
al., "Hybrid CTC/attention architecture for end-to-end speech recognition", 2017, section III (joint search).
"""

import copy
from dataclasses import dataclass
from functools import partial

import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher
from speechbrain.decoders.scorer import CTCScorer as FullCTCScorer
from speechbrain.decoders.scorer import TransformerLMScorer

from mamba_speech.asr.nbest import Hypothesis, check_nbest, distinct_texts
from modules.asr.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.ctc_scorer import CTCScorer
from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.asr.lm import MambaLM
from modules.lengths import relative_lengths

DECODINGS = ("greedy", "beam")
# The options of CTC's beam search, by the names that SpeechBrain's searcher has for them.
BEAM_OPTIONS = {
    "ngram_lm": "kenlm_model_path",
    "ngram_weight": "alpha",
    "word_bonus": "beta",
    "beam_size": "beam_size",
    "beam_prune_logp": "beam_prune_logp",
    "token_prune_min_logp": "token_prune_min_logp",
    "prune_history": "prune_history",
}
# How CTC scores hypotheses in the joint search: see JointSearch.
CTC_SCORINGS = ("exact", "pruned", "full")
# The YAML's names of the joint search's options, and JointSearch's.
S2S_OPTIONS = {
    "test_beam_size": "beam_size",
    "ctc_weight_decode": "ctc_weight",
    "ctc_scoring": "ctc_scoring",
    "scorer_beam_scale": "scorer_beam_scale",
    "lm_weight": "lm_weight",
    "temperature": "temperature",
    "temperature_lm": "lm_temperature",
    "min_decode_ratio": "min_decode_ratio",
    "max_decode_ratio": "max_decode_ratio",
    "length_normalization": "length_normalization",
    "using_eos_threshold": "using_eos_threshold",
    "eos_threshold": "eos_threshold",
}
# Options of JointSearch: whether a value will do, and what is said of one that will not.
_RULES = {
    "beam_size": (lambda value: value >= 1 and value % 1 == 0, "a whole number, 1 or more"),
    "ctc_weight": (lambda value: 0 <= value < 1, "at least 0 and under 1"),
    "ctc_scoring": (lambda value: value in CTC_SCORINGS, f"one of {', '.join(CTC_SCORINGS)}"),
    "scorer_beam_scale": (lambda value: value > 0, "over 0"),
    "lm_weight": (lambda value: value >= 0, "0 or more"),
    "temperature": (lambda value: value > 0, "over 0"),
    "lm_temperature": (lambda value: value > 0, "over 0"),
    "max_decode_ratio": (lambda value: value > 0, "over 0"),
    "min_decode_ratio": (lambda value: value >= 0, "0 or more"),
}
_ANYTHING = (lambda value: True, "")
# Options of JointSearch that SpeechBrain's searchers take, by the same names.
_SEARCHER_OPTIONS = (
    "beam_size",
    "temperature",
    "min_decode_ratio",
    "max_decode_ratio",
    "using_eos_threshold",
    "eos_threshold",
    "length_normalization",
)


class CTCDecoder:
    """From log-probabilities to text: the best path, or SpeechBrain's beam search.

    Arguments
    ---------
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    decoding : str
        `greedy` or `beam`.
    **options
        Of beam search, see :data:`BEAM_OPTIONS`; `ngram_lm`, a KenLM file, may be None.

    Raises
    ------
    ValueError
        If the decoding is unknown or the beam is empty.
    FileNotFoundError
        If there is no such n-gram file.
    RuntimeError
        If an n-gram is given and the package kenlm is not installed.

    Example
    -------
    >>> import tempfile
    >>> import torch
    >>> from mamba_speech.asr.tokenizer import Tokenizer
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tokenizer = Tokenizer.train(["ab"], f"{folder}/tokenizer.model", "char", size=10)
    >>> best = torch.tensor([[tokenizer.labels().index(token) for token in "aab"]])
    >>> log_probs = torch.nn.functional.one_hot(best, len(tokenizer)).float().log()
    >>> CTCDecoder(tokenizer)(log_probs, torch.tensor([3]))
    ['ab']
    """

    def __init__(self, tokenizer, decoding="greedy", **options):
        if decoding not in DECODINGS:
            raise ValueError(f"decoding must be {' or '.join(DECODINGS)}; got {decoding!r}")
        self.tokenizer, self.decoding = tokenizer, decoding
        self._search = _ctc_beam_searcher(tokenizer, options) if decoding == "beam" else None

    def __call__(self, log_probs, lengths):
        """Decode a batch.

        Arguments
        ---------
        log_probs : torch.Tensor
            (batch, time, outputs); outputs past the vocabulary are never read.
        lengths : torch.Tensor
            (batch,) frame counts.

        Returns
        -------
        texts : list of str
        """
        known = log_probs[..., : len(self.tokenizer)]
        if self._search is None:
            relative = relative_lengths(lengths, known.shape[1])
            best = ctc_greedy_decode(known, relative, blank_id=self.tokenizer.blank)
            return [self.tokenizer.decode(indices) for indices in best]
        return [one[0].text for one in self.nbest(log_probs, lengths, 1)]

    def check_nbest(self, count):
        """Refuse to look for more texts than the decoding finds, with a ValueError."""
        most = 1 if self._search is None else self._search.beam_size
        check_nbest(count, most, "decoding beam with a beam_size")

    def nbest(self, log_probs, lengths, count):
        """Decode a batch by the beam search.

        Arguments
        ---------
        log_probs, lengths
            See :meth:`__call__`.
        count : int
            Most texts of an utterance.

        Returns
        -------
        list of list of Hypothesis
            Different texts, the best first.

        Raises
        ------
        ValueError
            See :meth:`check_nbest`.
        """
        self.check_nbest(count)
        if self._search is None:
            return [[Hypothesis(text, 0.0)] for text in self(log_probs, lengths)]
        # start and end of a sentence are never targets, and have no text
        known = log_probs[..., : len(self.tokenizer)].clone()
        known[..., list(self.tokenizer.control)] = -torch.inf
        # a copy, since other threads may want other counts
        search = copy.copy(self._search)
        search.topk = count
        # one utterance at a time and cut to its frames: the searcher rounds relative lengths down
        found = (
            search(item[None, :frames])[0] for item, frames in zip(known, lengths, strict=True)
        )
        return [distinct_texts((one.text, one.score) for one in beams) for beams in found]


def _ctc_beam_searcher(tokenizer, options):
    options = {BEAM_OPTIONS[name]: value for name, value in options.items()}
    fits, wanted = _RULES["beam_size"]
    if not fits(options.get("beam_size", 1)):
        raise ValueError(f"beam_size must be {wanted}; got {options['beam_size']}")
    try:
        return CTCBeamSearcher(
            blank_index=tokenizer.blank, vocab_list=tokenizer.labels(), **options
        )
    except ImportError as error:
        raise RuntimeError("ngram_lm needs the package kenlm: pip install kenlm") from error
    except OSError as error:
        raise FileNotFoundError(
            f"ngram_lm {options['kenlm_model_path']} cannot be read; give a KenLM file ({error})"
        ) from error


@dataclass(frozen=True)
class JointSearch:
    """Options of the joint search.

    Arguments
    ---------
    beam_size : int
        Hypotheses an utterance; 1 takes the best token at each step.
    ctc_weight : float
        Weight of CTC, at least 0, under 1; the decoder has the rest.
    ctc_scoring : str
        `exact` scores all tokens at every step, by one matrix product; `pruned` only those that the decoder and the
        language model put foremost, `scorer_beam_scale * beam_size` of them for each hypothesis; `full` is
        SpeechBrain's own scoring of all tokens, with the results of `exact` at many times its cost.
    scorer_beam_scale : float
        Tokens that `pruned` scores, as a multiple of the beam.
    lm_weight : float
        Weight of the language model, at least 0.
    min_decode_ratio, max_decode_ratio : float
        Fewest and most tokens of a hypothesis, as shares of the number of encoder frames.
    temperature, lm_temperature : float
        Divisors of the logits of decoder and language model; over 1 is softer.
    length_normalization : bool
        Whether hypotheses are compared by their scores a token.
    using_eos_threshold : bool
        Whether a hypothesis may end only where the end is likely enough; see `eos_threshold`.
    eos_threshold : float
        Least log-probability of the end, as a multiple of the best token's.

    Raises
    ------
    ValueError
        If an option is outside its range; the error gives the YAML's name of the option.
    """

    beam_size: int = 66
    ctc_weight: float = 0.4
    ctc_scoring: str = "exact"
    scorer_beam_scale: float = 1.5
    lm_weight: float = 0.6
    min_decode_ratio: float = 0.0
    max_decode_ratio: float = 1.0
    temperature: float = 1.0
    lm_temperature: float = 1.0
    length_normalization: bool = True
    using_eos_threshold: bool = True
    eos_threshold: float = 1.5

    def __post_init__(self):
        for name, option in S2S_OPTIONS.items():
            value = getattr(self, option)
            is_good, wanted = _RULES.get(option, _ANYTHING)
            if not is_good(value):
                raise ValueError(f"{name} must be {wanted}; got {value!r}")
        least, most = self.min_decode_ratio, self.max_decode_ratio
        if least > most:
            raise ValueError(
                f"min_decode_ratio must not be over max_decode_ratio, {most}; got {least}"
            )


class S2SDecoder:
    """From encoder states to text: beam search by the decoder, CTC and, where there is one, a language model.

    A hypothesis scores (1 - ctc_weight) log p of the decoder + ctc_weight log p of CTC + lm_weight log p of the
    language model. A Mamba decoder carries its state from token to token; a Transformer decoder reads the
    whole prefix again.

    Arguments
    ---------
    model : modules.asr.s2s.S2SRecognizer
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    lm : torch.nn.Module, optional
        Language model from tokens (batch, tokens) to logits (batch, tokens, vocabulary), see
        :mod:`mamba_speech.asr.language_model`. A :class:`modules.asr.lm.MambaLM` carries its state.
    **options
        Options of :class:`JointSearch`.

    Raises
    ------
    ValueError
        If an option is outside its range.

    Example
    -------
    Not run here, since it needs a trained run::

        run = load_run("results/S2S/conmamba_mini/1", ["tokenizer_file"], selection_key="token_error")
        decoder = S2SDecoder(run["model"], Tokenizer(run["tokenizer_file"]), beam_size=10)
        texts = decoder(*run["model"].encode(normalised_features, lengths))
    """

    def __init__(self, model, tokenizer, lm=None, **options):
        self.tokenizer, self.options = tokenizer, JointSearch(**options)
        self.model = model
        self._lm = lm if self.options.lm_weight > 0 else None

    def __call__(self, encoded, lengths):
        """Decode a batch; arguments and errors are those of :meth:`tokens`.

        Returns
        -------
        texts : list of str
        """
        return [self.tokenizer.decode(tokens) for tokens in self.tokens(encoded, lengths)]

    @torch.no_grad()
    def tokens(self, encoded, lengths, absorbed=None):
        """The tokens of a batch that have a text.

        Arguments
        ---------
        encoded : torch.Tensor
            (batch, time, d_model), the encoder's output, of any precision.
        lengths : torch.Tensor
            (batch,) frame counts.
        absorbed : modules.asr.transformer.DecodingState, optional
            A Mamba decoder's state behind the encoder's output, which it would read first.

        Returns
        -------
        list of list of int

        Raises
        ------
        ValueError
            If a hypothesis grows longer than the model's `max_length`.
        """
        hypotheses, *_ = self._run_search(encoded, lengths, absorbed=absorbed)
        return [self._spoken(tokens) for tokens in hypotheses]

    def check_nbest(self, count):
        """Refuse to look for more texts than the beam holds, with a ValueError."""
        check_nbest(count, int(self.options.beam_size), "a beam_size")

    @torch.no_grad()
    def nbest(self, encoded, lengths, count):
        """The best texts of a batch; `count` is the most of an utterance, see :meth:`CTCDecoder.nbest`."""
        self.check_nbest(count)
        found = self._run_search(encoded, lengths, return_topk=True, topk=count)
        hypotheses, relative, scores, _ = found
        counts = (relative * hypotheses.shape[-1]).round().int()
        return [
            distinct_texts(
                (self.tokenizer.decode(self._spoken(tokens[:length])), score)
                for tokens, length, score in zip(*one, strict=True)
                # what an utterance lacks has no probability
                if score > float("-inf")
            )
            or [Hypothesis("", float("-inf"))]
            for one in zip(hypotheses, counts, scores, strict=True)
        ]

    def _run_search(self, encoded, lengths, absorbed=None, **options):
        # a searcher and its scorers keep in themselves what they are at: each batch has its own, in any thread
        search = self._new_search(absorbed, **options)
        # the encoder may have run under autocast, and the search be outside of it
        encoded = encoded.to(next(self.model.seq_lin.parameters()).dtype)
        return search(encoded, relative_lengths(lengths, encoded.shape[1]))

    def _spoken(self, tokens):
        # outputs past the vocabulary are never trained, and the special tokens have no text
        silent = {self.tokenizer.blank, *self.tokenizer.control}
        return [one for one in map(int, tokens) if one < len(self.tokenizer) and one not in silent]

    def _new_search(self, absorbed, **changes):
        options, network = self.options, self.model.Transformer
        searcher = TransformerBeamSearcher
        if network.has_stateful_decoder:
            searcher = partial(MambaBeamSearcher, absorbed=absorbed)
        start, end = self.tokenizer.control
        return searcher(
            modules=[network, self.model.seq_lin],
            scorer=self._new_scorer(),
            bos_index=start,
            eos_index=end,
            **{name: getattr(options, name) for name in _SEARCHER_OPTIONS},
            **changes,
        )

    def _new_scorer(self):
        """What scores hypotheses beside the decoder, or None."""
        options, tokenizer = self.options, self.tokenizer
        weights, full, pruned = {}, [], []
        if options.ctc_weight > 0:
            ctc_scorer = FullCTCScorer if options.ctc_scoring == "full" else CTCScorer
            scorer = ctc_scorer(
                self.model.ctc_lin, blank_index=tokenizer.blank, eos_index=tokenizer.control[1]
            )
            (pruned if options.ctc_scoring == "pruned" else full).append(scorer)
            weights["ctc"] = options.ctc_weight
        if self._lm is not None:
            carries = isinstance(self._lm, MambaLM)
            scorer_class = MambaLMScorer if carries else TransformerLMScorer
            full.append(scorer_class(self._lm, options.lm_temperature))
            weights["mambalm" if carries else "transformerlm"] = options.lm_weight
        if not weights:
            return None
        return LMScorerBuilder(weights, full, pruned, options.scorer_beam_scale)
