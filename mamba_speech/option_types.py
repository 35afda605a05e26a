"""Types of the plain options that loading takes from a run's YAML, which may come from anyone."""

from mamba_speech.plain_yaml import shorten

WHOLE, NUMBER, TRUTH = (int, "a whole number"), (int | float, "a number"), (bool, "true or false")
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
        If there is one.

    Example
    -------
    >>> check_types({"lm_weight": "high"}, "hyperparams.yaml", {"lm_weight": NUMBER})
    Traceback (most recent call last):
        ...
    ValueError: hyperparams.yaml: lm_weight must be a number; got 'high'
    """
    for name in types.keys() & options.keys():
        wanted, words = types[name]
        value = options[name]
        # Python takes truth for a number
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"{file}: {name} must be {words}; got {shorten(value)}")
