"""The networks and options of a trained recogniser's run, and the size of its chunks."""

from pathlib import Path

from mamba_speech.asr.option_types import OPTION_TYPES
from mamba_speech.asr.published import is_published, load_published_recogniser
from mamba_speech.asr.run_decoder import DECODING_OPTIONS
from mamba_speech.option_types import check_types
from mamba_speech.run import OPTIONS_FILE, load_run
from modules.causal_frontend import CausalFilterbankFeatures
from modules.ssm.checks import check_count

# What checkpoints are compared by, in runs of train_CTC.py and of train_S2S.py.
_SELECTION_KEYS = ("WER", "token_error")


def load_recogniser(folder):
    """The options of a run of this project, or of the published recipes."""
    if is_published(folder):
        return load_published_recogniser(folder)
    options = load_run(
        folder,
        wanted=["compute_features", "normalize", "sample_rate", "fidelity", "tokenizer_file"],
        optional=DECODING_OPTIONS,
        selection_key=_SELECTION_KEYS,
    )
    check_types(options, Path(folder) / OPTIONS_FILE, OPTION_TYPES)
    return options


def set_chunks(options, chunk_size):
    """Give the model of a streaming run chunks of another size."""
    model = options["model"]
    if not isinstance(options["compute_features"], CausalFilterbankFeatures):
        raise ValueError(  # noqa: TRY004 - a run's parts are values to its user
            "chunk_size is for runs of the streaming recipes, and this run is of another: leave it out"
        )
    if getattr(model.Transformer, "causal", False):
        raise ValueError("the run's encoder is causal and has no chunks: leave chunk_size out")
    check_count("chunk_size", chunk_size)
    model.chunk_size = chunk_size
