"""Types of the plain options that loading takes from a run's YAML, which may come from anyone."""

import math

from mamba_speech.plain_yaml import shorten

WHOLE, NUMBER, TRUTH = (int, "a whole number"), (int | float, "a number"), (bool, "true or false")
# what numbers of any run may be, where others would take hours or all memory
RANGES = {
    "sample_rate": (1000, 768_000),
    "avg_checkpoints": (1, 1000),
    "clip_seconds": (0.001, 3600),
    "beam_size": (1, 10_000),
    "test_beam_size": (1, 10_000),
}
# the options of a run of any task
OF_EVERY_RUN = {"sample_rate": WHOLE, "avg_checkpoints": WHOLE}


def check_types(options, file, types):
    """Refuse an option of another type than its use needs; options without a type may be anything.

    Arguments
    ---------
    options : dict
    file : str or Path
        Named in the error.
    types : dict
        From names of options to ``WHOLE``, ``NUMBER`` or ``TRUTH``.

    Raises
    ------
    ValueError
        If there is one, or a number is out of its range in ``RANGES``.

    Example
    -------
    >>> check_types({"lm_weight": "high"}, "hyperparams.yaml", {"lm_weight": NUMBER})
    Traceback (most recent call last):
        ...
    ValueError: hyperparams.yaml: lm_weight must be a number; got 'high'
    """
    for name in sorted(types.keys() & options.keys()):
        wanted, words = types[name]
        value = options[name]
        # Python takes truth for a number
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"{file}: {name} must be {words}; got {shorten(value)}")
        least, most = RANGES.get(name, (-math.inf, math.inf))
        if wanted is not bool and not least <= value <= most:
            raise ValueError(
                f"{file}: {name} must be from {least:g} to {most:g}; got {shorten(value)}"
            )
