"""The decoder of a trained recogniser: as the run was tested, or as the user says."""

from mamba_speech.asr.ctc_fusion import FusedCTCDecoder
from mamba_speech.asr.decoders import BEAM_OPTIONS, S2S_OPTIONS, CTCDecoder, S2SDecoder
from mamba_speech.asr.endpoint import is_number
from mamba_speech.asr.fusion import MambaFusion
from mamba_speech.asr.language_model import LM_OPTIONS, language_model_of_run, load_language_model
from modules.asr.ctc import CTCRecognizer
from modules.asr.s2s import S2SRecognizer

# Keys of a run's YAML that decoder_of_run reads, those that there are.
# Options of the prefix beam search that a run of train_CTC.py has.
PREFIX_BEAM_OPTIONS = ("beam_size", "beam_prune_logp", "token_prune_min_logp")
# Weight of a language model beside CTC, unless the user gives another.
LM_WEIGHT = 0.5
DECODING_OPTIONS = ("test_decoding", "ctc_weight", *BEAM_OPTIONS, *S2S_OPTIONS, *LM_OPTIONS)


def decoder_of_run(
    run,
    run_folder,
    tokenizer,
    decoding=None,
    beam_size=None,
    lm=None,
    no_lm=False,
    ctc_only=False,
    lm_weight=None,
):
    """The decoder that a run was tested with, or as the arguments say.

    Arguments
    ---------
    run : dict
        From :func:`mamba_speech.run.load_run`: `model`, and those of :data:`DECODING_OPTIONS` that there are.
    run_folder : str or Path
        Where it is from.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
    decoding, beam_size, lm, no_lm, ctc_only, lm_weight
        See :class:`mamba_speech.asr.recognizer.Recognizer`.

    Returns
    -------
    decoder : S2SDecoder, CTCDecoder or FusedCTCDecoder

    Raises
    ------
    FileNotFoundError
        If the language model is not there.
    ValueError
        If an argument is unknown, contradicts another or is not for runs of this kind; if the run holds no recogniser.
    """
    model = run["model"]
    if lm_weight is not None and not (is_number(lm_weight) and lm_weight >= 0):
        raise ValueError(f"lm_weight must be 0 or more; got {lm_weight!r}")
    if isinstance(model, CTCRecognizer):
        check_tokenizer_size(run_folder, tokenizer, model, few_is_well=True)
        given = {"no_lm": no_lm, "ctc_only": ctc_only}
        _refuse(run_folder, "train_CTC.py", given, "give decoding greedy or beam")
        if lm is not None:
            return _fused_decoder(run, tokenizer, decoding, beam_size, lm, lm_weight)
        if lm_weight is not None:
            raise ValueError("lm_weight weighs a language model: give lm too, or leave it out")
        return _ctc_decoder(run, tokenizer, decoding, beam_size)
    if isinstance(model, S2SRecognizer):
        instead = "give beam_size (1: the best token at each step), or ctc_only"
        _refuse(run_folder, "train_S2S.py", {"decoding": decoding is not None}, instead)
        check_tokenizer_size(run_folder, tokenizer, model)
        if not ctc_only:
            return _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm, lm_weight)
        if beam_size is None and lm is None and not no_lm and lm_weight is None:
            return CTCDecoder(tokenizer)
        raise ValueError(
            "ctc_only takes the best path, without a search: leave out beam_size, lm, no_lm and lm_weight"
        )
    raise ValueError(f"{run_folder}: holds no recogniser; it is a run of another task")


def check_tokenizer_size(run_folder, tokenizer, model, few_is_well=False):
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
            raise ValueError("beam_size needs decoding beam: the best path has no beam")
        options["beam_size"] = beam_size
    return CTCDecoder(tokenizer, decoding, **options)


def _fused_decoder(run, tokenizer, decoding, beam_size, lm, lm_weight):
    """The search of a CTC run with a language model of the user's."""
    if decoding == "greedy":
        raise ValueError("lm needs decoding beam: the best path has no language model")
    options = {name: run[name] for name in PREFIX_BEAM_OPTIONS if name in run}
    if beam_size is not None:
        options["beam_size"] = beam_size
    model, _ = load_language_model(lm, tokenizer)
    model = model.to(next(run["model"].parameters()).device)
    weight = LM_WEIGHT if lm_weight is None else lm_weight
    return FusedCTCDecoder(tokenizer, MambaFusion(model, tokenizer, weight), **options)


def _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm, lm_weight):
    given = {"lm": lm is not None, "lm_weight": lm_weight is not None}
    if no_lm and any(given.values()):
        name = next(name for name, is_given in given.items() if is_given)
        raise ValueError(f"{name} and no_lm contradict one another: give one of them")
    options = {S2S_OPTIONS[name]: run[name] for name in S2S_OPTIONS if name in run}
    if beam_size is not None:
        options["beam_size"] = beam_size
    if lm_weight is not None:
        options["lm_weight"] = lm_weight
    if not no_lm:
        options["lm"] = language_model_of_run(run, run_folder, tokenizer, lm)
    return S2SDecoder(run["model"], tokenizer, **options)
