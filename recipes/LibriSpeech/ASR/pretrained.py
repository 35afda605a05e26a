"""Starting a recogniser from the weights of another one, whose tokenizer may be another.

The other one is a run of this recipe, of either script, or of the published one.
"""

import logging

from mamba_speech.asr.published import is_published, load_published_recogniser
from mamba_speech.asr.tokenizer import Tokenizer
from mamba_speech.checkpoints import CompleteCheckpoints, average_model, checkpoints_to_average
from mamba_speech.run import read_options
from mamba_speech.run_errors import errors_name_run
from training.warm_start import load_fitting

logger = logging.getLogger(__name__)

# the statistics by which train_CTC.py and train_S2S.py compare checkpoints
_SELECTION_KEYS = ("WER", "token_error")
# what weights are named that have a row for each token
_OF_TOKENS = ("ctc_lin.", "seq_lin.", "Transformer.custom_tgt_module.")


def start_from(model, source, tokenizer):
    """Give a recogniser the weights of another one that fit by name and shape.

    With another tokenizer, the output layers and the embeddings of tokens stay new, whatever their shapes.

    Arguments
    ---------
    model : torch.nn.Module
    source : str
        Output folder of a run.
    tokenizer : mamba_speech.asr.tokenizer.Tokenizer

    Raises
    ------
    SystemExit
        If the folder holds no recogniser, or nothing of it fits.
    """
    try:
        with errors_name_run(source):
            weights, file = _weights_of(source, model)
            other = bool(Tokenizer(file).difference(tokenizer))
    except (OSError, RuntimeError, ValueError) as error:
        raise SystemExit(f"--pretrained_model: {error}") from error
    if other:
        # under other names they are not used, and the log counts them
        weights = {_unused(name): weight for name, weight in weights.items()}
        logger.info("--pretrained_model: %s has another tokenizer: its tokens are not used", source)
    load_fitting(model, weights, source, "pretrained_model")


def _unused(name):
    return f"tokens of {name}" if name.startswith(_OF_TOKENS) else name


def _weights_of(source, model):
    """The averaged weights of a run, and the path of its tokenizer."""
    if is_published(source):
        run = load_published_recogniser(source)
        return run["model"].state_dict(), run["tokenizer_file"]
    wanted = ["save_folder", "avg_checkpoints", "checkpoint_choice", "tokenizer_file"]
    run = read_options(source, wanted)
    checkpoints = checkpoints_to_average(
        CompleteCheckpoints(run["save_folder"]),
        run["checkpoint_choice"],
        run["avg_checkpoints"],
        _SELECTION_KEYS,
    )
    if not checkpoints:
        raise FileNotFoundError(f"{source}: holds no checkpoint of a whole epoch; train it first")
    return average_model(checkpoints, model), run["tokenizer_file"]
