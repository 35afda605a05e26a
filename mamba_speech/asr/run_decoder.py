"""The decoder of a trained recogniser: as the run was tested, or as the user says."""

from mamba_speech.asr.decoders import BEAM_OPTIONS, S2S_OPTIONS, CTCDecoder, S2SDecoder
from mamba_speech.asr.language_model import LM_OPTIONS, language_model_of_run
from modules.asr.ctc import CTCRecognizer
from modules.asr.s2s import S2SRecognizer

# Keys of a run's YAML that decoder_of_run reads, those that there are.
DECODING_OPTIONS = ("test_decoding", "ctc_weight", *BEAM_OPTIONS, *S2S_OPTIONS, *LM_OPTIONS)


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
        check_tokenizer_size(run_folder, tokenizer, model, few_is_well=True)
        given = {"lm": lm is not None, "no_lm": no_lm, "ctc_only": ctc_only}
        _refuse(run_folder, "train_CTC.py", given, "give decoding greedy or beam")
        return _ctc_decoder(run, tokenizer, decoding, beam_size)
    if isinstance(model, S2SRecognizer):
        instead = "give beam_size (1: the best token at each step), or ctc_only"
        _refuse(run_folder, "train_S2S.py", {"decoding": decoding is not None}, instead)
        check_tokenizer_size(run_folder, tokenizer, model)
        if not ctc_only:
            return _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm)
        if beam_size is None and lm is None and not no_lm:
            return CTCDecoder(tokenizer)
        raise ValueError(
            "ctc_only takes the best path, without a search: leave out beam_size, lm and no_lm"
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


def _s2s_decoder(run, run_folder, tokenizer, beam_size, lm, no_lm):
    if lm is not None and no_lm:
        raise ValueError("lm and no_lm contradict one another: give one of them")
    options = {S2S_OPTIONS[name]: run[name] for name in S2S_OPTIONS if name in run}
    if beam_size is not None:
        options["beam_size"] = beam_size
    if not no_lm:
        options["lm"] = language_model_of_run(run, run_folder, tokenizer, lm)
    return S2SDecoder(run["model"], tokenizer, **options)
