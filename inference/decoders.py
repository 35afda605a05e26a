"""From what a recogniser's network gives to text: CTC's best path and beam search, and joint CTC/attention search.

Sources: Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2 (best path); Watanabe et
al., "Hybrid CTC/attention architecture for end-to-end speech recognition", 2017, section III (joint search).
"""

import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher
from speechbrain.decoders.scorer import CTCScorer as FullCTCScorer
from speechbrain.decoders.scorer import TransformerLMScorer

from modules.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.decoding.ctc_scorer import CTCScorer
from modules.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.lengths import relative_lengths
from modules.lm import MambaLM

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
# How CTC scores hypotheses in the joint search: see S2SDecoder.
CTC_SCORINGS = ("exact", "pruned", "full")
# The YAML's names of the joint search's options, and the arguments of S2SDecoder that they are.
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


class CTCDecoder:
    """From log-probabilities to text: the best path, or SpeechBrain's beam search.

    Arguments
    ---------
    units : inference.units.Units
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
    >>> from inference.units import Units
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     units = Units.train(["ab"], f"{folder}/units.model", "char", size=10)
    >>> best = torch.tensor([[units.labels().index(unit) for unit in "aab"]])
    >>> log_probs = torch.nn.functional.one_hot(best, len(units)).float().log()
    >>> CTCDecoder(units)(log_probs, torch.tensor([3]))
    ['ab']
    """

    def __init__(self, units, decoding="greedy", **options):
        if decoding not in DECODINGS:
            raise ValueError(f"decoding must be {' or '.join(DECODINGS)}; got {decoding!r}")
        self.units, self.decoding = units, decoding
        self._search = _ctc_beam_searcher(units, options) if decoding == "beam" else None

    def __call__(self, log_probs, frames):
        """Decode a batch.

        Arguments
        ---------
        log_probs : torch.Tensor
            (batch, time, units); wider than there are units is allowed.
        frames : torch.Tensor
            (batch,) frame counts.

        Returns
        -------
        texts : list of str
        """
        known = log_probs[..., : len(self.units)]
        if self._search is None:
            relative = relative_lengths(frames, known.shape[1])
            best = ctc_greedy_decode(known, relative, blank_id=self.units.blank)
            return [self.units.decode(indices) for indices in best]
        # start and end of a sentence are never targets, and have no text
        known = known.clone()
        known[..., list(self.units.control)] = -torch.inf
        # one utterance at a time and cut to its frames: the searcher rounds relative lengths down
        pairs = zip(known, frames, strict=True)
        return [self._search(item[None, :count])[0][0].text for item, count in pairs]


def _ctc_beam_searcher(units, options):
    options = {BEAM_OPTIONS[name]: value for name, value in options.items()}
    if options.get("beam_size", 1) < 1:
        raise ValueError(f"beam_size must be 1 or more; got {options['beam_size']}")
    try:
        return CTCBeamSearcher(blank_index=units.blank, vocab_list=units.labels(), **options)
    except ImportError as error:
        raise RuntimeError("ngram_lm needs the package kenlm: pip install kenlm") from error
    except OSError as error:
        raise FileNotFoundError(
            f"ngram_lm {options['kenlm_model_path']} can not be read; give a KenLM file ({error})"
        ) from error


class S2SDecoder:
    """From encoder states to text: beam search by the decoder, CTC and, where there is one, a language model.

    A hypothesis scores (1 - ctc_weight) log p of the decoder + ctc_weight log p of CTC + lm_weight log p of the
    language model. A Mamba decoder carries its state from token to token; a Transformer decoder reads the
    whole prefix again.

    Arguments
    ---------
    model : modules.s2s.S2SRecognizer
    units : inference.units.Units
    beam_size : int
        Hypotheses an utterance; 1 takes the best token at each step.
    ctc_weight : float
        At least 0, under 1.
    ctc_scoring : str
        `exact` scores all units at every step, by one matrix product; `pruned` only those that the decoder and the
        language model put foremost, `scorer_beam_scale * beam_size` of them for each hypothesis; `full` is
        SpeechBrain's own scoring of all units, with the results of `exact` at many times its cost.
    lm : torch.nn.Module, optional
        From tokens (batch, tokens) to logits (batch, tokens, units), see :mod:`inference.language_model`. A
        :class:`modules.lm.MambaLM` carries its state.
    lm_weight : float
        At least 0.
    min_decode_ratio, max_decode_ratio : float
        Fewest and most tokens of a hypothesis, as shares of the number of encoder frames.
    temperature, lm_temperature : float
        They divide the logits of decoder and language model; over 1 is softer.
    length_normalization : bool
        Compare hypotheses by their scores a token.
    eos_threshold : float
        With `using_eos_threshold`: a hypothesis may end only where the end's log-probability is over this many times
        the best token's.
    using_eos_threshold : bool
    scorer_beam_scale : float

    Raises
    ------
    ValueError
        If an option is outside its range; the YAML's name of the option is given.
    """

    def __init__(
        self,
        model,
        units,
        beam_size=66,
        ctc_weight=0.4,
        ctc_scoring="exact",
        lm=None,
        lm_weight=0.6,
        min_decode_ratio=0.0,
        max_decode_ratio=1.0,
        temperature=1.0,
        lm_temperature=1.0,
        length_normalization=True,
        eos_threshold=1.5,
        using_eos_threshold=True,
        scorer_beam_scale=1.5,
    ):
        _check_s2s_options(
            beam_size=beam_size,
            ctc_weight=ctc_weight,
            ctc_scoring=ctc_scoring,
            lm_weight=lm_weight,
            min_decode_ratio=min_decode_ratio,
            max_decode_ratio=max_decode_ratio,
            temperature=temperature,
            lm_temperature=lm_temperature,
            scorer_beam_scale=scorer_beam_scale,
        )
        self.units = units
        weights, full, partial = {}, [], []
        if ctc_weight > 0:
            scorer = _ctc_scorer(model.ctc_lin, units, ctc_scoring)
            (partial if ctc_scoring == "pruned" else full).append(scorer)
            weights["ctc"] = ctc_weight
        if lm is not None and lm_weight > 0:
            carries = isinstance(lm, MambaLM)
            scorer_class = MambaLMScorer if carries else TransformerLMScorer
            full.append(scorer_class(lm, lm_temperature))
            weights["mambalm" if carries else "transformerlm"] = lm_weight
        network = model.Transformer
        searcher = MambaBeamSearcher if network.has_stateful_decoder else TransformerBeamSearcher
        start, end = units.control
        self._search = searcher(
            modules=[network, model.seq_lin],
            temperature=temperature,
            bos_index=start,
            eos_index=end,
            min_decode_ratio=min_decode_ratio,
            max_decode_ratio=max_decode_ratio,
            beam_size=beam_size,
            scorer=LMScorerBuilder(weights, full, partial, scorer_beam_scale) if weights else None,
            using_eos_threshold=using_eos_threshold,
            eos_threshold=eos_threshold,
            length_normalization=length_normalization,
        )

    @torch.no_grad()
    def __call__(self, encoded, frames):
        """Decode a batch.

        Arguments
        ---------
        encoded : torch.Tensor
            (batch, time, d_model), the encoder's output.
        frames : torch.Tensor
            (batch,) frame counts.

        Returns
        -------
        texts : list of str

        Raises
        ------
        ValueError
            If a hypothesis grows longer than the model's `max_length`.
        """
        hypotheses, *_ = self._search(encoded, relative_lengths(frames, encoded.shape[1]))
        # outputs past the units are never trained, and the special ones have no text
        spoken = set(range(len(self.units))) - {self.units.blank, *self.units.control}
        return [
            self.units.decode([index for index in map(int, tokens) if index in spoken])
            for tokens in hypotheses
        ]


def _ctc_scorer(ctc_lin, units, scoring):
    # the end of a sentence is where all frames have been read
    _, end = units.control
    scorer_class = FullCTCScorer if scoring == "full" else CTCScorer
    return scorer_class(ctc_lin, blank_index=units.blank, eos_index=end)


def _check_s2s_options(**options):
    """Refuse what is outside its range, by the YAML's name of the option."""
    yaml_name = {argument: name for name, argument in S2S_OPTIONS.items()}

    def refuse(argument, rule):
        raise ValueError(f"{yaml_name[argument]} must be {rule}; got {options[argument]!r}")

    if options["ctc_scoring"] not in CTC_SCORINGS:
        refuse("ctc_scoring", f"one of {', '.join(CTC_SCORINGS)}")
    if options["beam_size"] < 1:
        refuse("beam_size", "1 or more")
    if not 0 <= options["ctc_weight"] < 1:
        refuse(
            "ctc_weight",
            "at least 0 and under 1 (at 1 the decoder would have no say: train_CTC.py trains such recognisers)",
        )
    if not options["lm_weight"] >= 0:
        refuse("lm_weight", "0 or more")
    for argument in ("temperature", "lm_temperature"):
        if not options[argument] > 0:
            refuse(argument, "over 0")
    if not options["scorer_beam_scale"] > 0:
        refuse("scorer_beam_scale", "over 0")
    if not 0 <= options["min_decode_ratio"] <= options["max_decode_ratio"]:
        refuse("min_decode_ratio", "between 0 and max_decode_ratio")
    if not options["max_decode_ratio"] > 0:
        refuse("max_decode_ratio", "over 0")
