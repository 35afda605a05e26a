"""Recognisers in the run folders of xi-j/Mamba-ASR: its classes are built as ours, its checkpoints load as they are.

Such a folder has a `hyperparams.yaml` whose `model` is a list of modules, and under `save` checkpoints with
`model.ckpt` and `normalizer.ckpt`, compared by `ACC` or `WER`, and the tokenizer. Sources: the recipes
train_CTC.py and train_S2S.py of that repository.
"""

from pathlib import Path

from speechbrain.nnet.activations import Swish
from torch import nn

from mamba_speech.asr.option_types import OPTION_TYPES
from mamba_speech.checkpoints import load_whole
from mamba_speech.network_yaml import OptionsLoader, arguments_of, construct_network, read_keys
from mamba_speech.option_types import check_types
from mamba_speech.plain_yaml import read_tag, read_within, shorten
from mamba_speech.run import (
    OPTIONS_FILE,
    given_folder,
    load_weights,
    moved,
    open_checkpoints,
)
from modules.asr.ctc import ConformerCTCEncoder, ConmambaCTCEncoder, CTCRecognizer
from modules.asr.normalization import GlobalNormalization
from modules.asr.s2s import S2SRecognizer
from modules.asr.transformer import S2STransformer
from modules.frontend import ConvolutionSubsampling, FilterbankFeatures

# The statistics by which the two recipes compare checkpoints, and the way that find_checkpoints is told.
_SELECTION = (("ACC", "max_key"), ("WER", "min_key"))
# What our searches call the values within the published searcher and language model.
_SEARCH_OPTIONS = {
    name: name
    for name in ("temperature", "length_normalization", "using_eos_threshold", "eos_threshold")
}
_LM_OPTIONS = {
    "d_model": "lm_d_model",
    "nhead": "lm_nhead",
    "num_encoder_layers": "lm_num_layers",
    "d_ffn": "lm_d_ffn",
}
# Where a pretrained language model is collected, with its tokenizer.
_LM_FILE, _TOKENIZER_FILE = "lm.ckpt", "tokenizer.ckpt"


def is_published(folder):
    """Whether a folder is a run of the published recipes: its model is a list of modules.

    Raises
    ------
    ValueError
        If its YAML cannot be read.
    """
    file = given_folder(folder) / OPTIONS_FILE
    return file.is_file() and read_tag(file, "model") == "!new:torch.nn.ModuleList"


def load_published_recogniser(folder):
    """Build the recogniser of a published run, and give it the weights that the run's own test used.

    The network pays no heed to padding, as `fidelity: corrected` has it: an utterance gets what it gets alone.

    Arguments
    ---------
    folder : str or Path
        The run's output folder, wherever it lies now; nothing in it is executed.

    Returns
    -------
    options : dict
        As of :func:`mamba_speech.run.load_run`, under the names of this project's own recipes.

    Raises
    ------
    FileNotFoundError
        If it has no checkpoint of a whole epoch, or no tokenizer.
    ValueError
        If the YAML cannot be read, describes another network, or names anything but networks; if a checkpoint is
        damaged or of another model.
    """
    folder = Path(folder)
    file = folder / OPTIONS_FILE
    scalars = read_within(file)
    needed = ("output_folder", "save_folder", "sample_rate", "output_neurons")
    missing = [name for name in needed if name not in scalars]
    networks = read_keys(file, {"compute_features", "normalize", "model"}, PublishedLoader)
    missing += sorted({"compute_features", "normalize", "model"} - set(networks))
    if missing:
        raise ValueError(f"{file}: lacks {', '.join(missing)}; it is a run of another task")
    check_types(scalars, file, OPTION_TYPES)
    save_folder = moved(scalars["save_folder"], scalars["output_folder"], folder)
    checkpointer = open_checkpoints(save_folder)
    load_whole(
        checkpointer,
        lambda: _find_checkpoints(folder, save_folder, checkpointer),
        lambda checkpoints: load_weights(folder, networks, checkpoints),
    )
    options = scalars | networks | {"fidelity": "corrected", "save_folder": save_folder}
    options["tokenizer_file"] = _find_tokenizer(folder, save_folder, scalars)
    if isinstance(networks["model"], CTCRecognizer):
        return options | {"test_decoding": "beam"}
    options |= _renamed(read_within(file, "test_search"), _SEARCH_OPTIONS)
    options |= _renamed(
        read_within(file, "transformerlm_scorer"), {"temperature": "temperature_lm"}
    )
    options |= _renamed(read_within(file, "lm_model"), _LM_OPTIONS)
    if (save_folder / _LM_FILE).is_file():
        options["pretrained_lm_tokenizer_path"] = str(save_folder)
    check_types(options, file, OPTION_TYPES)
    return options


def _renamed(values, names):
    return {ours: values[theirs] for theirs, ours in names.items() if theirs in values}


def _find_checkpoints(folder, save_folder, checkpointer):
    """The checkpoints that the run's test averaged: all that were kept, the foremost first.

    SpeechBrain keeps the N best and the newest besides; the published test averages whatever is there.
    """
    if checkpointer is not None:
        for key, order in _SELECTION:
            found = checkpointer.find_checkpoints(
                **{order: key},
                ckpt_predicate=lambda checkpoint, key=key: isinstance(
                    checkpoint.meta.get(key), int | float
                ),
            )
            if found:
                return found
    keys = " or ".join(key for key, _ in _SELECTION)
    raise FileNotFoundError(
        f"{folder}: holds no checkpoint with {keys} in its CKPT.yaml (looked in {save_folder})"
    )


def _find_tokenizer(folder, save_folder, scalars):
    """The SentencePiece model: learnt by the run (CTC), or collected with its language model."""
    learnt = f"{scalars['output_neurons']}_{scalars.get('token_type', 'unigram')}.model"
    for name in (_TOKENIZER_FILE, learnt):
        if (save_folder / name).is_file():
            return save_folder / name
    source = scalars.get("pretrained_lm_tokenizer_path")
    advice = f"the {_TOKENIZER_FILE} of {source}" if source else f"the run's own {learnt}"
    raise FileNotFoundError(f"{folder}: has no tokenizer: put {advice} into {save_folder}")


def _transformer(**options):
    """The published TransformerASR: of a recogniser with a decoder, or of one without.

    What the YAML leaves out has the published class's default.
    """
    defaults = {"activation": nn.ReLU, "causal": True, "attention_type": "regularMHA"}
    defaults |= {"encoder_module": "transformer", "decoder_module": "transformer"}
    defaults |= {"num_encoder_layers": 6, "num_decoder_layers": 6, "normalize_before": False}
    options = defaults | options
    positions = options.pop("positional_encoding", "fixed_abs_sine")
    if positions != "fixed_abs_sine":
        raise ValueError(f"positional_encoding must be fixed_abs_sine; got {shorten(positions)}")
    if options["num_decoder_layers"] > 0:
        return S2STransformer(**options)
    # these are the decoder's
    for name in ("tgt_vocab", "num_decoder_layers", "decoder_module", "normalize_before"):
        options.pop(name, None)
    encoder_module = options.pop("encoder_module")
    if encoder_module == "conmamba":
        # nothing attends
        del options["attention_type"]
        options.pop("nhead", None)
        return ConmambaCTCEncoder(**options)
    if encoder_module != "conformer" or options.pop("causal"):
        raise ValueError(
            "without a decoder, encoder_module must be conmamba, or conformer with causal False; "
            f"got {shorten(encoder_module)}"
        )
    # published Conformers have an activation of their own
    options["activation"] = options.pop("conformer_activation", Swish)
    options.pop("mamba_config", None)
    return ConformerCTCEncoder(**options)


def _recogniser(parts):
    """The published list of modules, in its order."""
    if len(parts) == 3 and isinstance(parts[1], ConmambaCTCEncoder | ConformerCTCEncoder):
        return CTCRecognizer(*parts)
    if len(parts) == 4 and isinstance(parts[1], S2STransformer):
        return S2SRecognizer(*parts)
    raise ValueError(
        "the model must be [CNN, Transformer, ctc_lin], without a decoder, or "
        f"[CNN, Transformer, seq_lin, ctc_lin]; got {[type(part).__name__ for part in parts]}"
    )


def _normalisation(norm_type="global", update_until_epoch=2):
    if norm_type != "global":
        raise ValueError(f"norm_type must be global; got {shorten(norm_type)}")
    return GlobalNormalization(update_until_epoch)


# What is built for a published class path. Everything else is built, or refused, as in any run.
PUBLISHED_CLASSES = {
    "modules.TransformerASR.TransformerASR": _transformer,
    "speechbrain.lobes.models.transformer.TransformerASR.TransformerASR": _transformer,
    "speechbrain.lobes.models.convolution.ConvolutionFrontEnd": ConvolutionSubsampling,
    "speechbrain.lobes.features.Fbank": FilterbankFeatures,
    "speechbrain.processing.features.InputNormalization": _normalisation,
    "torch.nn.ModuleList": _recogniser,
}


class PublishedLoader(OptionsLoader):
    """The YAML of a run, with the published classes replaced."""


def _construct(loader, target, node):
    if target not in PUBLISHED_CLASSES:
        return construct_network(loader, target, node)
    arguments, options = arguments_of(loader, node)
    try:
        return PUBLISHED_CLASSES[target](*arguments, **options)
    except TypeError as error:
        raise ValueError(
            f"!new:{target} does not take these arguments; the run is of another version ({error})"
        ) from error


PublishedLoader.add_multi_constructor("!new:", _construct)
