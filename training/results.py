"""The record of a run, ``results.json`` in its output folder: its fields, and the one reader of it.

docs/results.md explains the fields with their units. ``training/recording.py`` fills them in.
"""

import dataclasses
import json
import types
import typing
from pathlib import Path

from mamba_speech.files import NOT_FINITE, write_json

FILE_NAME = "results.json"
VERSION = 1


@dataclasses.dataclass
class Recipe:
    """The script that trained, and its folder."""

    folder: str
    script: str


@dataclasses.dataclass
class Commit:
    """The commit of the code, and whether files that git tracks differed from it."""

    sha: str
    dirty: bool


@dataclasses.dataclass
class Versions:
    """Versions of the software that ran."""

    python: str | None = None
    torch: str | None = None
    torchaudio: str | None = None
    speechbrain: str | None = None
    mamba_speech: str | None = None
    platform: str | None = None


@dataclasses.dataclass
class Session:
    """One start of the script: with which options, code and lists, and on which machine."""

    started: str | None = None
    ended: str | None = None
    yaml: str | None = None
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)
    fidelity: str | None = None
    seeds: dict[str, int] = dataclasses.field(default_factory=dict)
    lists: dict[str, str] = dataclasses.field(default_factory=dict)
    commit: Commit | None = None
    versions: Versions = dataclasses.field(default_factory=Versions)
    device: str | None = None
    processor: str | None = None
    threads: int | None = None
    world_size: int | None = None
    precision: str | None = None
    eval_precision: str | None = None
    load_start: float | None = None
    load_end: float | None = None


@dataclasses.dataclass
class Training:
    """What training came to, over all sessions."""

    started: str | None
    ended: str | None
    seconds: float | None
    epochs: int | None
    optimizer_steps: int | None
    parameters: int | None
    peak_memory_mb: float | None
    sessions: list[Session]
    # whether it has heard nothing but generated speech; records of earlier versions do not tell
    synthetic: bool | None = dataclasses.field(default=None, metadata={"may_lack": True})


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints whose average was tested."""

    choice: str
    selection_key: str
    epochs: list[int]
    values: list[float]


@dataclasses.dataclass
class Result:
    """The figures of one test set, and how they were obtained."""

    figures: dict[str, float]
    items: int | None
    manifest: str | None
    decoding: dict[str, typing.Any] | None
    conditions: dict[str, typing.Any]
    checkpoints: Checkpoints | None
    parameters: int | None
    optimizer_steps: int | None
    train_seconds: float | None
    peak_memory_mb: float | None
    date: str | None
    session: Session


@dataclasses.dataclass
class Record:
    """A run: its training, if it was trained here, and its tests by test set."""

    version: int
    recipe: Recipe | None
    training: Training | None
    tests: dict[str, Result]


def read_results(place):
    """Read the record of a run.

    Arguments
    ---------
    place : str or Path
        The run's output folder, or the file.

    Returns
    -------
    Record

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it names another version or none, or is not such a record; the sentence names the file and the field.
    """
    path = _path(place)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; the training script writes it")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: is no JSON file ({error}); remove it, and test the run again"
        ) from error
    version = found.get("version") if isinstance(found, dict) else None
    if version is None:
        raise ValueError(
            f"{path}: is not the record of a run, since it names no version; remove it, and test the run again"
        )
    if version != VERSION or isinstance(version, bool):
        raise ValueError(
            f"{path}: is of version {version!r}, and only {VERSION} can be read here: use the mamba-speech that wrote "
            "it or a newer one"
        )
    try:
        return _build(Record, found, "")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: is not the record of a run ({error}); remove it, and test the run again"
        ) from error


def write_results(folder, record):
    """Write the record of a run, whole or not at all.

    Arguments
    ---------
    folder : str or Path
        The run's output folder.
    record : Record
    """
    write_json(_path(folder), dataclasses.asdict(record))


def is_tested(folder):
    """Whether a run's record holds a test.

    Raises
    ------
    ValueError
        If the record cannot be read; see :func:`read_results`.
    """
    return _path(folder).is_file() and bool(read_results(folder).tests)


def read_rows(place, needed=()):
    """Read a run's tests as flat rows for a table.

    Arguments
    ---------
    place : str or Path
        See :func:`read_results`.
    needed : iterable of str
        Columns that every row must have.

    Returns
    -------
    dict of str: dict
        By test set: its figures, conditions and ``decoding``; ``parameters``, ``fidelity``, ``optimizer_steps``,
        ``train_seconds``, ``peak_memory_mb``, ``device``, ``torch``, ``speechbrain`` and ``date`` (YYYY-MM-DD);
        ``seed`` and ``precision`` of the training. What the record does not know is left out.

    Raises
    ------
    OSError or ValueError
        If the record cannot be read, or lacks a column that is needed.
    """
    record = read_results(place)
    rows = {name: _row(result, record.training) for name, result in record.tests.items()}
    for name, row in rows.items():
        for column in needed:
            if column not in row:
                raise ValueError(
                    f"{_path(place)}: tells of {name} without {column}; test the run again"
                )
    return rows


def _path(place):
    place = Path(place)
    return place / FILE_NAME if place.is_dir() or place.suffix != ".json" else place


def _row(result, training):
    # a test alone may have been started without the seed of the training
    trained = training.sessions[-1] if training and training.sessions else result.session
    row = {
        **result.figures,
        **result.conditions,
        "decoding": result.decoding,
        "fidelity": result.session.fidelity,
        "parameters": result.parameters,
        "seed": trained.seeds.get("seed"),
        "optimizer_steps": result.optimizer_steps,
        "train_seconds": result.train_seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "precision": trained.precision,
        "device": result.session.device,
        "torch": result.session.versions.torch,
        "speechbrain": result.session.versions.speechbrain,
        "date": result.date and result.date[:10],
    }
    return {name: value for name, value in row.items() if value is not None}


def _build(kind, value, where):
    """A value read from JSON as the type that the schema wants; ``where`` names it in errors."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if dataclasses.is_dataclass(kind):
        return _build_object(kind, value, where)
    container, parts = typing.get_origin(kind), typing.get_args(kind)
    if container is dict and isinstance(value, dict):
        return {key: _build(parts[1], one, f"{where}.{key}") for key, one in value.items()}
    if container is list and isinstance(value, list):
        return [_build(parts[0], one, f"{where}[{index}]") for index, one in enumerate(value)]
    if kind is float and isinstance(value, str) and value in NOT_FINITE:
        return float(value)
    wanted = (int, float) if kind is float else container or kind
    if kind is not typing.Any and (
        not isinstance(value, wanted) or isinstance(value, bool) and kind is not bool
    ):
        raise ValueError(f"{where} is {value!r}, where a {(container or kind).__name__} belongs")
    return value


def _build_object(kind, value, where):
    if not isinstance(value, dict):
        # a fault of the file, not of the call
        raise ValueError(f"{where or 'the whole'} is {value!r}, where an object belongs")  # noqa: TRY004
    prefix, hints = f"{where}." if where else "", typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in hints.keys() - value.keys():
        if fields[name].metadata.get("may_lack"):
            continue
        raise ValueError(f"{prefix}{name} is missing")
    for name in value.keys() - hints.keys():
        raise ValueError(f"{prefix}{name} is no field of it")
    return kind(
        **{
            name: _build(hint, value[name], f"{prefix}{name}")
            for name, hint in hints.items()
            if name in value
        }
    )
