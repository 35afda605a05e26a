"""A row of RESULTS.md: its file in ``docs/measured``, and the interval that a repeat of it must fall into.

A number may stand in another committed file: ``{"file": "a.json", "key": ["rows", 0, "WER"]}`` is read from there. So
no figure is written twice. docs/results.md explains the fields.
"""

import dataclasses
import re
from pathlib import Path

from mamba_speech.files import read_json

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "measured"
# texts of the page, which are no row
PAGE = "page.json"
# fewer seeds do not tell how far a training scatters
ENOUGH_SEEDS = 3
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
STAGES = ("data", "train", "test")


@dataclasses.dataclass
class Entry:
    """A measured figure, how it came about, and the commands that repeat it.

    Arguments
    ---------
    name : str
        Name of its file, and argument of ``make results``.
    section : str
        Key of a section in ``docs/measured/page.json``.
    model, trained_on, tested_on : str
    parameters : int or None
    fidelity : str or None
        ``corrected`` or ``upstream``.
    metric, unit : str
        ``WER`` and ``%``, for example.
    better : str
        ``lower`` or ``higher``.
    figure : float
        Mean over the seeds.
    interval : list of float or None
        Ends of the 95 % interval over test items.
    drawn : str or None
        Items that the interval draws, such as ``speakers``.
    seeds : list of int
    by_seed : list of float or None
        Figure of each seed.
    deviation : float or None
        Standard deviation of the seeds' figures, where these are not known.
    others : dict
        Further figures by name.
    training_minutes : float or None
    hardware, date, commit : str or None
    needs : list of str
        Folders that must be there, such as ``$SPEECH_DATA/libri_voxceleb``.
    commands : dict of str: list of str
        Lines for a shell in the project's folder, under ``data``, ``train`` and ``test``.
    minutes : float or None
        Expected time of a repeat. None: no command repeats the row.
    read : list of dict
        Places of the repeated figure; their mean counts. Each has ``file`` and ``key``, and where it differs from 1
        the ``factor`` to multiply by and the ``weight`` in the mean.
    note : str or None
    """

    name: str
    section: str
    model: str
    parameters: int | None
    fidelity: str | None
    trained_on: str
    tested_on: str
    metric: str
    unit: str
    better: str
    figure: float
    interval: list | None
    drawn: str | None
    seeds: list
    by_seed: list | None
    deviation: float | None
    others: dict
    training_minutes: float | None
    hardware: str | None
    date: str | None
    commit: str | None
    needs: list
    commands: dict
    minutes: float | None
    read: list
    note: str | None

    @property
    def output(self):
        """Folder of a repeat, as its commands name it."""
        return f"results/repeat/{self.name}"

    @property
    def lines(self):
        """All commands in their order."""
        return [line for stage in STAGES for line in self.commands.get(stage, ())]

    def shown(self, value):
        """A figure with its decimals, without its unit.

        Example
        -------
        >>> Entry(**dict.fromkeys(FIELDS) | {"unit": "dB"}).shown(3.694)
        '3.69'
        """
        return f"{value:.1f}" if self.unit == "%" else f"{value:.2f}"

    @property
    def measured(self):
        """The figure with its unit."""
        return f"{self.shown(self.figure)} {self.unit}".rstrip()


FIELDS = tuple(field.name for field in dataclasses.fields(Entry))


def read_entries(folder=FOLDER, root=ROOT):
    """Read all rows.

    Arguments
    ---------
    folder : Path
    root : Path
        Folder that references to other files begin at.

    Returns
    -------
    dict of str: Entry
        By name, in the order of the names.

    Raises
    ------
    OSError or ValueError
        If a file is damaged, lacks a field, has an unknown one, or refers to what is not there; the sentence names it.
    """
    paths = sorted(path for path in Path(folder).glob("*.json") if path.name != PAGE)
    return {path.stem: read_entry(path, root) for path in paths}


def read_entry(path, root=ROOT):
    """Read one row; errors as :func:`read_entries` raises them."""
    path = Path(path)
    if not NAME.fullmatch(path.stem):
        raise ValueError(f"{path}: name it with words of a to z and digits, joined by -")
    found = read_json(path)
    if not isinstance(found, dict):
        # a fault of the file, not of the call
        raise ValueError(f"{path}: is {type(found).__name__}, where an object belongs")  # noqa: TRY004
    wanted = set(FIELDS) - {"name"}
    for name in sorted(wanted - found.keys()):
        raise ValueError(f"{path}: {name} is missing")
    for name in sorted(found.keys() - wanted):
        raise ValueError(f"{path}: {name} is no field of a row")
    try:
        found |= {name: _number(found[name], root) for name in ("figure", "parameters")}
        found["deviation"] = _number(found["deviation"], root, which=-1)
        found["training_minutes"] = _number(found["training_minutes"], root)
        found["interval"] = _pair(found["interval"], root)
        if found["by_seed"] is not None:
            found["by_seed"] = _numbers(found["by_seed"], root)
        found["others"] = {key: _resolved(one, root) for key, one in found["others"].items()}
        return _checked(Entry(name=path.stem, **found))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def look_up(place, root=ROOT):
    """The value of a reference.

    Arguments
    ---------
    place : dict
        ``file``, seen from ``root``, and ``key``: keys and indices, one inside the other, as a list or joined by ``/``.
    root : Path

    Raises
    ------
    OSError or ValueError
        If there is no such file, or nothing under the key.
    """
    path = Path(root) / place["file"]
    value = read_json(path)
    keys = place["key"].split("/") if isinstance(place["key"], str) else place["key"]
    for key in keys:
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(f"{place['file']}: holds nothing under {keys}") from error
    return value


def repeat_interval(entry):
    """The 95 % interval that a repeated figure must fall into, and what it is made from.

    A repeat is one more training, tested on the same items. From three seeds on, Student's prediction interval of one
    more seed says where it falls. Fewer seeds do not tell how trainings scatter: then the interval over test items
    stands in for it, made wide enough to hold every seed.

    Arguments
    ---------
    entry : Entry

    Returns
    -------
    (float, float, str) or None
        Low end, high end and origin, ``seeds`` or ``test``. None where neither is known.
    """
    # here, since commands that only list begin at once
    import statistics

    count = len(entry.seeds)
    deviation = entry.deviation
    if entry.by_seed and count > 1:
        deviation = statistics.stdev(entry.by_seed)
    if count >= ENOUGH_SEEDS and deviation:
        from scipy import stats

        half = float(stats.t.ppf(0.975, count - 1)) * deviation * (1 + 1 / count) ** 0.5
        return *_possible(entry, entry.figure - half, entry.figure + half), "seeds"
    if entry.interval is None:
        return None
    known = [*entry.interval, *(entry.by_seed or [])]
    return *_possible(entry, min(known), max(known)), "test"


def _possible(entry, low, high):
    """An interval cut to what the figure can be."""
    if entry.unit == "%":
        # a word error rate can be above 100
        low, high = max(low, 0.0), min(high, 100.0) if entry.better == "higher" else high
    return low, high


def _checked(entry):
    if entry.better not in ("lower", "higher"):
        raise ValueError(f"better is {entry.better!r}, and must be lower or higher")
    unknown = set(entry.commands) - set(STAGES)
    if unknown:
        raise ValueError(f"commands has {min(unknown)}, and knows data, train and test")
    if entry.figure is None:
        raise ValueError("figure is missing")
    if entry.by_seed is not None and len(entry.by_seed) != len(entry.seeds):
        raise ValueError(f"by_seed has {len(entry.by_seed)} figures for {len(entry.seeds)} seeds")
    if entry.minutes is not None:
        if not entry.lines or not entry.read:
            raise ValueError("minutes is given, but no command or no place to read the figure from")
        if repeat_interval(entry) is None:
            raise ValueError("minutes is given, but no interval and no three seeds to compare with")
    return entry


def _resolved(value, root):
    return look_up(value, root) if isinstance(value, dict) else value


def _number(value, root, which=0):
    """A number, or one of a text: the first of ``28.2 (23.1 to 33.3)`` is 28.2, the last of ``13.6 ± 2.8`` is 2.8."""
    found = _resolved(value, root)
    return found if found is None or isinstance(found, int | float) else _read(found)[which]


def _pair(value, root):
    """Two numbers, or the last two of a text: ``28.2 (23.1 to 33.3)`` are 23.1 and 33.3."""
    if isinstance(value, list):
        low, high = (_number(one, root) for one in value)
        return [low, high]
    found = _resolved(value, root)
    if isinstance(found, list):
        low, high = found
        return [low, high]
    return None if found is None else _read(found, least=2)[-2:]


def _numbers(value, root):
    found = _resolved(value, root)
    return _read(found) if isinstance(found, str) else [_number(one, root) for one in found]


def _read(text, least=1):
    # a comma between figures separates, one before three digits groups
    found = [float(one.replace(",", "")) for one in NUMBER.findall(text.replace(", ", " "))]
    if len(found) < least:
        raise ValueError(f"{text!r} holds no {'number' if least == 1 else 'interval'}")
    return found
