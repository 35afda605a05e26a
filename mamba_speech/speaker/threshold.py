"""The threshold of a run: the score above which two recordings count as one speaker, and the trials it was set on."""

from dataclasses import dataclass
from pathlib import Path

from mamba_speech.files import read_json, write_json


@dataclass(frozen=True)
class Threshold:
    """A threshold and where it comes from.

    Attributes
    ----------
    value : float
        Score above which two recordings are of one speaker.
    source : str
        Where it comes from, in words.

    Example
    -------
    >>> Threshold(0.4, "given as --threshold").value
    0.4
    """

    value: float
    source: str


def given_threshold(value):
    """The threshold that a caller gives.

    Arguments
    ---------
    value : float
        A score.

    Returns
    -------
    Threshold

    Raises
    ------
    ValueError
        If no score can be above it, or every score is.

    Example
    -------
    >>> given_threshold(0.4).source
    'given by the caller'
    """
    if not -1 <= value <= 1:
        raise ValueError(f"threshold must be a score, from -1 to 1; got {value!r:.60}")
    return Threshold(float(value), "given by the caller")


def write_threshold(file, value, trials_list, trials, speakers, eer, **more):
    """Write the threshold of a run, whole or not at all.

    Arguments
    ---------
    file : str or Path
        ``threshold.json`` in the run.
    value : float
        Score at which misses and false alarms are equally frequent on the list; what lies above is one speaker. One
        outside -1 to 1, as a list of equal scores gives, is written as the nearer of these.
    trials_list : str
        Name of the list of trials.
    trials, speakers : int
        Trials on the list, and speakers in them.
    eer : float
        Equal error rate on the list, from 0 to 1.
    **more
        Further plain values, such as the seed.
    """
    value = max(-1.0, min(1.0, float(value)))
    content = {"threshold": value, "list": trials_list, "trials": trials, "speakers": speakers}
    write_json(file, content | {"eer": eer} | more)


def read_threshold(file):
    """The threshold of a run; see :func:`write_threshold`.

    Arguments
    ---------
    file : str or Path

    Returns
    -------
    Threshold or None
        None if the file is not there.

    Raises
    ------
    ValueError
        If it is no JSON file, or holds no score as ``threshold``.

    Example
    -------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_threshold(f"{folder}/threshold.json", 0.4, "valid_trials.txt", 900, 12, 0.0325)
    ...     read_threshold(f"{folder}/threshold.json").source
    'equal error rate (3.25 %) on valid_trials.txt (900 trials, 12 speakers)'
    """
    file = Path(file)
    try:
        content = read_json(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    value = content.get("threshold") if isinstance(content, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
        raise ValueError(
            f"{file}: must hold a score from -1 to 1 as `threshold`; let the recipe write it again, or give a threshold"
        )
    return Threshold(float(value), _source(content, file))


def _source(content, file):
    eer, name = content.get("eer"), content.get("list")
    counts = (content.get(key) for key in ("trials", "speakers"))
    counts = [f"{count:,}" if isinstance(count, int) else "?" for count in counts]
    rate = f" ({100 * eer:.2f} %)" if isinstance(eer, int | float) else ""
    if not isinstance(name, str):
        return str(file)
    return f"equal error rate{rate} on {name} ({counts[0]} trials, {counts[1]} speakers)"
