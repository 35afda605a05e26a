"""Types of the plain options that transcription takes from a run's YAML, which may come from anyone."""

from mamba_speech.plain_yaml import shorten

_WHOLE = (
    "sample_rate",
    "output_neurons",
    "avg_checkpoints",
    "test_beam_size",
    "beam_size",
    "lm_d_model",
    "lm_nhead",
    "lm_num_layers",
    "lm_d_ffn",
)
_NUMBERS = (
    "ctc_weight_decode",
    "scorer_beam_scale",
    "lm_weight",
    "temperature",
    "temperature_lm",
    "min_decode_ratio",
    "max_decode_ratio",
    "eos_threshold",
    "ngram_weight",
    "word_bonus",
    "beam_prune_logp",
    "token_prune_min_logp",
)
_TRUTH = ("length_normalization", "using_eos_threshold", "prune_history")
_TYPES = dict.fromkeys(_WHOLE, (int, "a whole number"))
_TYPES |= dict.fromkeys(_NUMBERS, (int | float, "a number"))
_TYPES |= dict.fromkeys(_TRUTH, (bool, "true or false"))


def check_types(options, file):
    """Refuse an option of another type than its use needs; options that are not known here may be anything.

    Arguments
    ---------
    options : dict
    file : str or Path
        Named in the error.

    Raises
    ------
    ValueError
        If there is one.

    Example
    -------
    >>> check_types({"lm_weight": "high"}, "hyperparams.yaml")
    Traceback (most recent call last):
        ...
    ValueError: hyperparams.yaml: lm_weight must be a number; got 'high'
    """
    for name in _TYPES.keys() & options.keys():
        wanted, words = _TYPES[name]
        value = options[name]
        # Python takes truth for a number
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"{file}: {name} must be {words}; got {shorten(value)}")
