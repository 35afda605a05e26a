"""Types of the plain options that recognition takes from a run's YAML."""

from mamba_speech.option_types import NUMBER, OF_EVERY_RUN, TRUTH, WHOLE

_WHOLE = (
    "output_neurons",
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
_TRUTH = (
    "length_normalization",
    "using_eos_threshold",
    "prune_history",
)
OPTION_TYPES = OF_EVERY_RUN | dict.fromkeys(_WHOLE, WHOLE)
OPTION_TYPES |= dict.fromkeys(_NUMBERS, NUMBER) | dict.fromkeys(_TRUTH, TRUTH)
