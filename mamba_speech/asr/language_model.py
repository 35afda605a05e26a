"""Language models for the joint search: runs of `train_LM.py`, and SpeechBrain's pretrained TransformerLM.

A source is the output folder of a run of `train_LM.py`, or a folder or a name on the Hugging Face Hub that holds
`lm.ckpt` and `tokenizer.ckpt`, as `speechbrain/asr-transformer-transformerlm-librispeech` does. A name on the Hub is
`owner/model`, without a folder `owner` here.
"""

import logging
import re
import warnings
from pathlib import Path

import torch
from speechbrain.lobes.models.transformer.TransformerLM import TransformerLM
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.fetching import fetch

from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.checkpoints import read_tensors
from mamba_speech.run import OPTIONS_FILE, load_run, read_options
from mamba_speech.text import TEXT_OPTIONS, TextPolicy

logger = logging.getLogger(__name__)

# The YAML's names of the sizes of a pretrained TransformerLM, and the published one's.
PUBLISHED_SIZES = {"lm_d_model": 768, "lm_nhead": 12, "lm_num_layers": 12, "lm_d_ffn": 3072}
# Keys of a recogniser's YAML that language_model_of_run reads, those that there are.
# An exported run has the language model itself as `lm`.
LM_OPTIONS = ("pretrained_lm_tokenizer_path", "lm", "no_lm", *PUBLISHED_SIZES, *TEXT_OPTIONS)
WEIGHTS_FILE, TOKENIZER_FILE = "lm.ckpt", "tokenizer.ckpt"
# the statistic by which train_LM.py compares its checkpoints
_SELECTION_KEY = "loss"
# a name on the Hub: `owner/model`
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_EMBEDDING = "custom_src_module.emb.Embedding.weight"


def load_language_model(
    source, tokenizer=None, save_folder=None, vocab=None, sizes=None, policy=None
):
    """Load a language model and its tokenizer.

    Arguments
    ---------
    source : str or Path
        See the module.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer, optional
        The recogniser's, which the language model's has to equal.
    save_folder : str or Path, optional
        Where files of the Hub are linked; by default they stay in its cache. A local folder is read in place.
    vocab : int, optional
        Size of the recogniser's output (`output_neurons`), which has to be the language model's.
    sizes : dict of str: int, optional
        Sizes of a pretrained TransformerLM, under the names of :data:`PUBLISHED_SIZES`, which are the default. A run
        brings its own.
    policy : mamba_speech.text.TextPolicy, optional
        The recogniser's policy of texts. The log tells of a run with another one.

    Returns
    -------
    (torch.nn.Module, mamba_speech.asr.tokenizer.Tokenizer)
        The model on the CPU in evaluation mode, from tokens (batch, tokens) to logits (batch, tokens,
        vocabulary); its tokenizer.

    Raises
    ------
    FileNotFoundError
        If the source is no folder of either kind and cannot be had from the Hub.
    ValueError
        If the weights are damaged or of another network, or tokenizer or vocabulary are not the recogniser's.

    Example
    -------
    Not run here, since it needs a trained language model::

        lm, tokenizer = load_language_model("results/LM/mamba_mini/1")
        logits = lm(torch.tensor([[1, *tokenizer.encode("HOW DO YOU DO")]]))
    """
    own_tokenizer = Tokenizer(find_tokenizer(source, save_folder))
    if tokenizer is not None:
        _check_tokenizer(source, own_tokenizer, tokenizer)
    if policy is not None:
        tell_other_policy(policy, source)
    if _is_run(source):
        lm = load_run(source, wanted=["tokenizer_file"], selection_key=_SELECTION_KEY)["model"]
        _check_vocabulary(source, lm.vocab, vocab)
        return lm, own_tokenizer
    file = _find(WEIGHTS_FILE, source, save_folder)
    weights = read_tensors(file)
    if not isinstance(weights, dict) or _EMBEDDING not in weights:
        raise ValueError(f"{file}: holds no weights of SpeechBrain's TransformerLM")
    _check_vocabulary(source, len(weights[_EMBEDDING]), vocab)
    return _transformer_lm(file, weights, PUBLISHED_SIZES | (sizes or {})), own_tokenizer


def _transformer_lm(file, weights, sizes):
    """Build SpeechBrain's TransformerLM with weights, in evaluation mode."""
    _ignore_mask_warning()
    # building a network draws random weights: the caller's random state stays as it was
    with torch.random.fork_rng(devices=[]):
        lm = TransformerLM(
            len(weights[_EMBEDDING]),
            d_model=sizes["lm_d_model"],
            nhead=sizes["lm_nhead"],
            num_encoder_layers=sizes["lm_num_layers"],
            num_decoder_layers=0,
            d_ffn=sizes["lm_d_ffn"],
            activation=torch.nn.GELU,
            normalize_before=False,
        )
    try:
        lm.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(
            f"{file}: is of another network than lm_d_model {sizes['lm_d_model']}, lm_num_layers "
            f"{sizes['lm_num_layers']} and lm_d_ffn {sizes['lm_d_ffn']} describe ({reason})"
        ) from error
    return lm.eval().requires_grad_(False)


def _ignore_mask_warning():
    # SpeechBrain gives torch one mask of numbers and one of truth values: right, and not for the user to change
    warnings.filterwarnings(
        "ignore", "Support for mismatched key_padding_mask and attn_mask is deprecated"
    )


def language_model_of_run(run, run_folder, tokenizer, source=None):
    """Load the language model that a recogniser was tested with, or another in its place.

    Arguments
    ---------
    run : dict
        From :func:`mamba_speech.run.load_run`: an S2S run's `model`, and the options in :data:`LM_OPTIONS` that it has.
    run_folder : str or Path
        Where it is from.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer
        The recogniser's.
    source : str or Path, optional
        Instead of the run's own.

    Returns
    -------
    lm : torch.nn.Module or None
        None, if there is none.

    Raises
    ------
    FileNotFoundError, ValueError
        See :func:`load_language_model`.
    """
    if source is None and isinstance(run.get("lm"), torch.nn.Module):
        _ignore_mask_warning()
        return None if run.get("no_lm") else run["lm"]
    recorded = None if run.get("no_lm") else run.get("pretrained_lm_tokenizer_path")
    if source is None and not recorded:
        return None
    sizes = {name: run[name] for name in PUBLISHED_SIZES if name in run}
    outputs = run["model"].seq_lin.w.out_features
    try:
        chosen = source or source_of_language_model(run, run_folder)
        policy = TextPolicy.of(run) if set(TEXT_OPTIONS) <= run.keys() else None
        return load_language_model(chosen, tokenizer, None, outputs, sizes, policy)[0]
    except FileNotFoundError as error:
        if source is not None:
            raise
        raise FileNotFoundError(
            f"{run_folder}: the language model that it was tested with cannot be loaded: give --lm FOLDER, or --no_lm "
            f"to go without one ({error})"
        ) from error


def source_of_language_model(run, run_folder):
    """The folder, or name on the Hub, of the language model that an S2S run was tested with.

    It is recorded from where training was started; the run's own folder may tell where that was.

    Arguments
    ---------
    run, run_folder
        See :func:`language_model_of_run`.
    """
    recorded = run["pretrained_lm_tokenizer_path"]
    output, folder = Path(run["output_folder"]).parts, Path(run_folder).resolve().parts
    if folder[-len(output) :] == output and not Path(run["output_folder"]).is_absolute():
        beside = Path(*folder[: -len(output)]) / recorded
        if beside.is_dir():
            return beside
    return recorded


def find_tokenizer(source, save_folder=None):
    """The path of a language model's SentencePiece model.

    Arguments
    ---------
    source, save_folder
        See :func:`load_language_model`. A run need not have been trained yet.

    Returns
    -------
    path : Path

    Raises
    ------
    FileNotFoundError, ValueError
        If there is none; see :func:`load_language_model`.
    """
    if not _is_run(source):
        return _find(TOKENIZER_FILE, source, save_folder)
    file = read_options(source, wanted=["tokenizer_file"])["tokenizer_file"]
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; the run {source} has lost its tokenizer")
    return file


def _is_run(source):
    """Whether it is the folder of a run; pretrained models bring a hyperparams.yaml of their own."""
    folder = Path(source)
    return (folder / OPTIONS_FILE).is_file() and not (folder / WEIGHTS_FILE).is_file()


def _find(name, source, save_folder):
    """One file of a pretrained language model."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{source}: is not the folder of a language model, since it holds no {name}: give the output "
                f"folder of train_LM.py, or a folder with {WEIGHTS_FILE} and {TOKENIZER_FILE}"
            )
        return folder / name
    # beside other folders of its parent it is one that was misspelt: the Hub would take half a minute to say no
    if not _HUB_NAME.fullmatch(str(source)) or folder.parent.is_dir():
        raise FileNotFoundError(
            f"{source}: no such folder; give the folder of a language model, or its name on the Hugging Face Hub "
            "(owner/model, and no folder of that owner's name here)"
        )
    # a folder for each model: what is there already is not fetched again
    linked = None if save_folder is None else Path(save_folder) / str(source).replace("/", "--")
    try:
        return run_on_main(
            fetch, kwargs={"filename": name, "source": str(source), "savedir": linked}
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"{source}: is no folder here, and {name} of a model of this name cannot be had from the Hugging Face Hub "
            f"({reason})"
        ) from error


def tell_other_policy(policy, run):
    """Warn of another run whose texts were written in another way; a folder without a policy tells nothing.

    Arguments
    ---------
    policy : mamba_speech.text.TextPolicy
        This run's policy.
    run : str or Path
        Folder of the other run, or what is no run.
    """
    try:
        options = read_options(run, wanted=[], optional=TEXT_OPTIONS) if _is_run(run) else {}
    except (OSError, ValueError):
        # of another project, or damaged: whoever loads the run says so
        return
    mine = policy.options()
    other = {name: options[name] for name in mine if options.get(name, mine[name]) != mine[name]}
    if other:
        logger.warning(
            "%s: its texts were written in another way (%s; here %s), so its words may not be those of this run",
            run,
            " ".join(f"--{name} {value}" for name, value in other.items()),
            " ".join(f"--{name} {mine[name]}" for name in other),
        )


def _check_tokenizer(source, own, wanted):
    if difference := own.difference(wanted):
        raise ValueError(
            f"{source}: the language model has another tokenizer ({len(own)} tokens) than the recogniser "
            f"({len(wanted)} tokens; {difference}): train the recogniser with --pretrained_lm_tokenizer_path {source}, "
            "or a language model by train_LM.py with --pretrained_tokenizer_file, the recogniser's save/tokenizer.model"
        )


def _check_vocabulary(source, vocab, wanted):
    if wanted is not None and vocab != wanted:
        raise ValueError(
            f"{source}: the language model scores {vocab} tokens, but the recogniser's output_neurons is {wanted}: "
            "give a language model of the same size, or go without (no_lm)"
        )
