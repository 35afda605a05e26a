"""From what a recogniser's network gives to text: CTC's best path and beam search, and joint CTC/attention search.

Sources: Graves et al., "Connectionist temporal classification", ICML 2006, section 3.2 (best path); Watanabe et
al., "Hybrid CTC/attention architecture for end-to-end speech recognition", 2017, section III (joint search).
"""

from functools import partial

import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.decoders.ctc import CTCBeamSearcher
from speechbrain.decoders.scorer import CTCScorer as FullCTCScorer
from speechbrain.decoders.scorer import TransformerLMScorer

from mamba_speech.asr.language_model import LM_OPTIONS, language_model_of_run
from modules.asr.ctc import CTCRecognizer
from modules.asr.decoding.beam_search import MambaBeamSearcher, TransformerBeamSearcher
from modules.asr.decoding.ctc_scorer import CTCScorer
from modules.asr.decoding.lm_scorer import LMScorerBuilder, MambaLMScorer
from modules.asr.lm import MambaLM
from modules.asr.s2s import S2SRecognizer
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
# Keys of a run's YAML that decoder_of_run reads, those that there are.
DECODING_OPTIONS = ("test_decoding", *BEAM_OPTIONS, *S2S_OPTIONS, *LM_OPTIONS)


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
        # start and end of a sentence are never targets, and have no text
        known = known.clone()
        known[..., list(self.tokenizer.control)] = -torch.inf
        # one utterance at a time and cut to its frames: the searcher rounds relative lengths down
        pairs = zip(known, lengths, strict=True)
        return [self._search(item[None, :count])[0][0].text for item, count in pairs]


def _ctc_beam_searcher(tokenizer, options):
    options = {BEAM_OPTIONS[name]: value for name, value in options.items()}
    if options.get("beam_size", 1) < 1:
        raise ValueError(f"beam_size must be 1 or more; got {options['beam_size']}")
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


class S2SDecoder:
    """From encoder states to text: beam search by the decoder, CTC and, where there is one, a language model.

    A hypothesis scores (1 - ctc_weight) log p of the decoder + ctc_weight log p of CTC + lm_weight log p of the
    language model. A Mamba decoder carries its state from token to token; a Transformer decoder reads the
    whole prefix again.

    Arguments
    ---------
    model : modules.asr.s2s.S2SRecognizer
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    beam_size : int
        Hypotheses an utterance; 1 takes the best token at each step.
    ctc_weight : float
        At least 0, under 1.
    ctc_scoring : str
        `exact` scores all tokens at every step, by one matrix product; `pruned` only those that the decoder and the
        language model put foremost, `scorer_beam_scale * beam_size` of them for each hypothesis; `full` is
        SpeechBrain's own scoring of all tokens, with the results of `exact` at many times its cost.
    lm : torch.nn.Module, optional
        From tokens (batch, tokens) to logits (batch, tokens, vocabulary), see :mod:`mamba_speech.asr.language_model`. A
        :class:`modules.asr.lm.MambaLM` carries its state.
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

    Example
    -------
    Not run here, since it needs a trained run::

        run = load_run("results/S2S/conmamba_mini/1", ["tokenizer_file"], selection_key="token_error")
        decoder = S2SDecoder(run["model"], Tokenizer(run["tokenizer_file"]), beam_size=10)
        texts = decoder(*run["model"].encode(normalised_features, lengths))
    """

    def __init__(
        self,
        model,
        tokenizer,
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
        self.tokenizer = tokenizer
        self._output = model.seq_lin
        if lm_weight == 0:
            lm = None
        self._new_scorer = partial(
            _scorer,
            *(model.ctc_lin, tokenizer, ctc_weight, ctc_scoring),
            *(lm, lm_weight, lm_temperature, scorer_beam_scale),
        )
        network, (start, end) = model.Transformer, tokenizer.control
        searcher = MambaBeamSearcher if network.has_stateful_decoder else TransformerBeamSearcher
        self._new_search = partial(
            searcher,
            modules=[network, model.seq_lin],
            temperature=temperature,
            bos_index=start,
            eos_index=end,
            min_decode_ratio=min_decode_ratio,
            max_decode_ratio=max_decode_ratio,
            beam_size=beam_size,
            using_eos_threshold=using_eos_threshold,
            eos_threshold=eos_threshold,
            length_normalization=length_normalization,
        )

    @torch.no_grad()
    def __call__(self, encoded, lengths):
        """Decode a batch.

        Arguments
        ---------
        encoded : torch.Tensor
            (batch, time, d_model), the encoder's output, of any precision.
        lengths : torch.Tensor
            (batch,) frame counts.

        Returns
        -------
        texts : list of str

        Raises
        ------
        ValueError
            If a hypothesis grows longer than the model's `max_length`.
        """
        # a searcher and its scorers keep in themselves what they are at: each batch has its own, in any thread
        search = self._new_search(scorer=self._new_scorer())
        # the encoder may have run under autocast, and the search be outside of it
        encoded = encoded.to(next(self._output.parameters()).dtype)
        hypotheses, *_ = search(encoded, relative_lengths(lengths, encoded.shape[1]))
        # outputs past the vocabulary are never trained, and the special tokens have no text
        spoken = set(range(len(self.tokenizer))) - {self.tokenizer.blank, *self.tokenizer.control}
        return [
            self.tokenizer.decode([index for index in map(int, tokens) if index in spoken])
            for tokens in hypotheses
        ]


def _scorer(
    ctc_lin, tokenizer, ctc_weight, ctc_scoring, lm, lm_weight, lm_temperature, scorer_beam_scale
):
    """What scores hypotheses beside the decoder, or None."""
    weights, full, pruned = {}, [], []
    if ctc_weight > 0:
        ctc_scorer = FullCTCScorer if ctc_scoring == "full" else CTCScorer
        scorer = ctc_scorer(ctc_lin, blank_index=tokenizer.blank, eos_index=tokenizer.control[1])
        (pruned if ctc_scoring == "pruned" else full).append(scorer)
        weights["ctc"] = ctc_weight
    if lm is not None:
        carries = isinstance(lm, MambaLM)
        scorer_class = MambaLMScorer if carries else TransformerLMScorer
        full.append(scorer_class(lm, lm_temperature))
        weights["mambalm" if carries else "transformerlm"] = lm_weight
    return LMScorerBuilder(weights, full, pruned, scorer_beam_scale) if weights else None


# Arguments of S2SDecoder: whether a value will do, and what is said of one that will not.
_RULES = {
    "beam_size": (lambda value: value >= 1, "1 or more"),
    "ctc_weight": (lambda value: 0 <= value < 1, "at least 0 and under 1"),
    "ctc_scoring": (lambda value: value in CTC_SCORINGS, f"one of {', '.join(CTC_SCORINGS)}"),
    "scorer_beam_scale": (lambda value: value > 0, "over 0"),
    "lm_weight": (lambda value: value >= 0, "0 or more"),
    "temperature": (lambda value: value > 0, "over 0"),
    "lm_temperature": (lambda value: value > 0, "over 0"),
    "max_decode_ratio": (lambda value: value > 0, "over 0"),
    "min_decode_ratio": (lambda value: value >= 0, "0 or more"),
}


def _check_s2s_options(**options):
    """Refuse what is outside its range, by the YAML's name of the option."""
    for name, argument in S2S_OPTIONS.items():
        if argument in options and not _RULES[argument][0](options[argument]):
            raise ValueError(f"{name} must be {_RULES[argument][1]}; got {options[argument]!r}")
    least, most = options["min_decode_ratio"], options["max_decode_ratio"]
    if least > most:
        raise ValueError(f"min_decode_ratio must not be over max_decode_ratio, {most}; got {least}")


def decoder_of_run(
    run, run_folder, tokenizer, decoding=None, beam_size=None, lm=None, no_lm=False, ctc_only=False
):
    """The decoder that a run was tested with, or as the arguments say.

    Arguments
    ---------
    run : dict
        From :func:`mamba_speech.run.load_run`: `model`, and those of :data:`DECODING_OPTIONS` that there are.
    run_folder : str or Path
        Where it is from.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    decoding, beam_size, lm, no_lm, ctc_only
        See :class:`mamba_speech.asr.recognizer.Recognizer`.

    Returns
    -------
    decoder : S2SDecoder or CTCDecoder

    Raises
    ------
    FileNotFoundError
        If the language model is not there.
    ValueError
        If an argument is unknown, contradicts another or is not for runs of this kind; if the run holds no recogniser.
    """
    model = run["model"]
    if isinstance(model, CTCRecognizer):
        _check_tokenizer_size(run_folder, tokenizer, model, few_is_well=True)
        given = {"--lm": lm is not None, "--no_lm": no_lm, "--ctc_only": ctc_only}
        _refuse(run_folder, "train_CTC.py", given, "give --decoding greedy or beam")
        return _ctc_decoder(run, tokenizer, decoding, beam_size)
    if isinstance(model, S2SRecognizer):
        instead = "give --beam_size (1: the best token at each step), or --ctc_only"
        _refuse(run_folder, "train_S2S.py", {"--decoding": decoding is not None}, instead)
        _check_tokenizer_size(run_folder, tokenizer, model)
        if not ctc_only:
            return _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm)
        if beam_size is None and lm is None and not no_lm:
            return CTCDecoder(tokenizer)
        raise ValueError(
            "--ctc_only takes the best path, without a search: leave out --beam_size, --lm and --no_lm"
        )
    raise ValueError(f"{run_folder}: holds no recogniser; it is a run of another task")


def _check_tokenizer_size(run_folder, tokenizer, model, few_is_well=False):
    """Refuse a tokenizer of another size than the output layer; CTC never reads outputs past the last token."""
    outputs = model.ctc_lin.w.out_features
    if len(tokenizer) > outputs or (len(tokenizer) < outputs and not few_is_well):
        raise ValueError(
            f"{run_folder}: its tokenizer_file holds {len(tokenizer)} tokens, but its model was trained with "
            f"output_neurons {outputs}: put the run's own tokenizer back"
        )


def _refuse(run_folder, script, given, instead):
    names = [name for name, is_given in given.items() if is_given]
    if names:
        raise ValueError(
            f"{run_folder}: is a run of {script}, for which there is no {', '.join(names)}: {instead}"
        )


def _ctc_decoder(run, tokenizer, decoding, beam_size):
    decoding = decoding or run.get("test_decoding", "greedy")
    options = {name: run[name] for name in BEAM_OPTIONS if name in run}
    if beam_size is not None:
        if decoding == "greedy":
            raise ValueError("--beam_size needs --decoding beam: the best path has no beam")
        options["beam_size"] = beam_size
    return CTCDecoder(tokenizer, decoding, **options)


def _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm):
    if lm is not None and no_lm:
        raise ValueError("--lm and --no_lm contradict one another: give one of them")
    options = {S2S_OPTIONS[name]: run[name] for name in S2S_OPTIONS if name in run}
    if beam_size is not None:
        options["beam_size"] = beam_size
    if not no_lm:
        options["lm"] = language_model_of_run(run, run_folder, tokenizer, lm)
    return S2SDecoder(run["model"], tokenizer, **options)
