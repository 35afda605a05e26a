"""The live decoder of a run: as the run was tested, or as the user says."""

from mamba_speech.asr.best_path import GreedyDecoder
from mamba_speech.asr.endpoint import is_number
from mamba_speech.asr.fusion import MambaFusion, NgramFusion
from mamba_speech.asr.language_model import language_model_of_run, load_language_model
from mamba_speech.asr.live_joint import JointDecoder
from mamba_speech.asr.prefix_beam import PrefixBeamDecoder
from mamba_speech.asr.run_decoder import (
    DECODING_OPTIONS,
    LM_WEIGHT,
    PREFIX_BEAM_OPTIONS,
    decoder_of_run,
)
from modules.asr.s2s import S2SRecognizer
from modules.ssm.checks import check_count

DECODINGS = ("greedy", "beam", "joint")
# Keys of a run's YAML that live_decoder_of_run reads, where they are there.
LIVE_OPTIONS = ("output_folder", *DECODING_OPTIONS)


def live_decoder_of_run(
    recognizer,
    options,
    run_folder,
    endpoint,
    *,
    decoding=None,
    beam_size=None,
    lm=None,
    no_lm=False,
    lm_weight=None,
    final_after=2.0,
):
    """The live decoder that a run's tests call for, or as the arguments say.

    Arguments
    ---------
    recognizer : mamba_speech.asr.streaming.StreamingRecognizer
    options : dict
        The run's; of them :data:`LIVE_OPTIONS` are read, where they are there.
    run_folder : str or Path
        Where the run is from.
    endpoint : mamba_speech.asr.endpoint.EndpointOptions
    decoding, beam_size, lm, no_lm, lm_weight, final_after
        See :meth:`mamba_speech.asr.live.LiveRecognizer.load`.

    Returns
    -------
    mamba_speech.asr.live_decoder.LiveDecoder

    Raises
    ------
    FileNotFoundError
        If the language model is not there.
    RuntimeError
        If an n-gram is wanted and the package kenlm is not installed.
    ValueError
        If an argument is unknown, out of its range, contradicts another, or is not for runs of this kind.
    """
    is_s2s = isinstance(options["model"], S2SRecognizer)
    decoding = _checked_decoding(decoding, options, is_s2s, beam_size, lm, no_lm, lm_weight)
    if lm_weight is not None:
        options = options | {"lm_weight": lm_weight}
    tokenizer, frame_seconds = recognizer.tokenizer, recognizer.frame_seconds
    if decoding == "greedy":
        return GreedyDecoder(tokenizer, frame_seconds, endpoint)
    if decoding == "joint":
        decode = decoder_of_run(
            options, run_folder, tokenizer, beam_size=beam_size, lm=lm, no_lm=no_lm
        )
        return JointDecoder(decode, frame_seconds, endpoint)
    fusion = None if no_lm else _fusion(options, run_folder, tokenizer, lm, is_s2s)
    given = (
        {} if is_s2s else {name: options[name] for name in PREFIX_BEAM_OPTIONS if name in options}
    )
    if beam_size is not None:
        given["beam_size"] = beam_size
    return PrefixBeamDecoder(
        tokenizer, frame_seconds, endpoint, fusion, final_after=final_after, **given
    )


def _checked_decoding(decoding, options, is_s2s, beam_size, lm, no_lm, lm_weight):
    """The decoding that is wanted, if the other arguments fit it."""
    searches = beam_size is not None or lm is not None
    if decoding is None and is_s2s:
        decoding = "joint"
    elif decoding is None:
        decoding = "beam" if searches else options.get("test_decoding", "greedy")
    if decoding not in DECODINGS:
        raise ValueError(f"decoding must be one of {', '.join(DECODINGS)}; got {decoding!r}")
    if lm is not None and no_lm:
        raise ValueError("lm and no_lm contradict one another: give one of them")
    if beam_size is not None:
        check_count("beam_size", beam_size)
    if lm_weight is not None and not (is_number(lm_weight) and lm_weight >= 0):
        raise ValueError(f"lm_weight must be 0 or more; got {lm_weight!r}")
    if decoding == "greedy" and (searches or no_lm or lm_weight is not None):
        raise ValueError(
            "greedy decoding takes the best path, without a search: leave out beam_size, lm, no_lm and lm_weight"
        )
    if decoding == "joint" and not is_s2s:
        raise ValueError(
            "decoding joint needs the decoder of a run of train_S2S.py, and this run has none: give greedy or beam"
        )
    return decoding


def _fusion(options, run_folder, tokenizer, lm, is_s2s):
    """The language model of a prefix beam search, or None."""
    weight = options.get("lm_weight", LM_WEIGHT)
    if is_s2s:
        model = language_model_of_run(options, run_folder, tokenizer, lm)
    elif lm is not None:
        model, _ = load_language_model(lm, tokenizer)
    elif options.get("ngram_lm"):
        weights = {"weight": "ngram_weight", "word_bonus": "word_bonus"}
        given = {name: options[key] for name, key in weights.items() if key in options}
        return NgramFusion(options["ngram_lm"], tokenizer, **given)
    else:
        model = None
    if model is None:
        return None
    return MambaFusion(model.to(next(options["model"].parameters()).device), tokenizer, weight)
