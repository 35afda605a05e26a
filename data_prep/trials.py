"""Trial lists of speaker verification: which pairs of recordings are of one speaker, and where these lie.

Reads the lists of VoxCeleb1 (Nagrani et al., arXiv 1706.08612, and Chung et al., arXiv 1806.05622), VoxSRC and
VCMix, whose lines are `label path path`, and the keys of VOiCES (Nandwana et al., arXiv 1902.10828), whose lines
are `model path label`.
"""

import logging
import os
import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mamba_speech.audio import AudioError, find_named
from mamba_speech.files import write_text

logger = logging.getLogger(__name__)

LABELS = {"1": 1, "0": 0, "target": 1, "nontarget": 0, "tgt": 1, "imp": 0}

# Names of published lists by file name and number of trials; other lists are called by their file name.
OFFICIAL = {
    ("veri_test.txt", 37720): "vox1-O",
    ("veri_test2.txt", 37611): "vox1-O-clean",
    ("list_test_all.txt", 581480): "vox1-E",
    ("list_test_all2.txt", 579818): "vox1-E-clean",
    ("list_test_hard.txt", 552536): "vox1-H",
    ("list_test_hard2.txt", 550894): "vox1-H-clean",
    ("VoxSRC2023_val.txt", 49987): "voxsrc23-val",
    ("VoxSRC2023_Track12_val.txt", 49987): "voxsrc23-val",
    ("vcmix_test.txt", 159536): "vcmix",
}
FILES = {name: file for (file, _), name in reversed(OFFICIAL.items())}
ADDRESS = "https://mm.kaist.ac.kr/datasets/voxceleb/"

# Other endings that a recording may have than its list says, and how deep a list's folders may lie.
SUFFIXES = (".wav", ".flac", ".m4a")
DEPTH = 4


@dataclass(frozen=True)
class Trials:
    """A trial list.

    Arguments
    ---------
    labels : np.ndarray
        Shape (trials,), int8: 1 for a target trial, 0 for an impostor trial.
    enrolment, test : np.ndarray
        Shape (trials,), int32: places in `files`.
    files : list of str
        Recordings as the list writes them, each once.
    name : str
        `vox1-O-clean` and the like for a published list, else the file's name without its ending.
    paths : list of str, optional
        Where the files lie; None where nobody looked.
    duplicates : int
        Trials that repeat an earlier one. They stay in the list, as published results count them.
    """

    labels: np.ndarray = field(repr=False)
    enrolment: np.ndarray = field(repr=False)
    test: np.ndarray = field(repr=False)
    files: list = field(repr=False)
    name: str
    paths: list | None = field(default=None, repr=False)
    duplicates: int = 0

    def __len__(self):
        return len(self.labels)


def read_trials(file, folder=None):
    """Read a trial list.

    Arguments
    ---------
    file : str or Path
        One trial a line: `label path path`, or `path path label` as in Kaldi and VOiCES. The label is 1 or 0,
        `target` or `nontarget`, `tgt` or `imp`. Blanks or tabs lie between; paths with blanks need tabs. The keys
        of VOiCES name models: their list, `*enroll*.lst`, must lie beside them.
    folder : str, Path or list of these, optional
        Folders that the files of the list lie in or below; see `locate`.

    Returns
    -------
    trials : Trials
        580,000 trials take about a second.

    Raises
    ------
    FileNotFoundError
        If the list does not exist, or names recordings that are not in the folders; the error names the first and
        counts the others.
    ValueError
        If a line is no trial, or the list has no target or no impostor trial.

    Example
    -------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), "mine.txt")
    >>> _ = file.write_text("1 a/1.wav a/2.wav\\n0 a/1.wav b/1.wav\\n")
    >>> trials = read_trials(file)
    >>> trials.labels.tolist(), trials.test.tolist(), trials.files, trials.name
    ([1, 0], [1, 2], ['a/1.wav', 'a/2.wav', 'b/1.wav'], 'mine')
    """
    file = Path(file)
    lines = _read_lines(file)
    models = _read_models(file) if _names_models(lines) else {}
    labels, pairs, index = [], [], {}
    for number, line in enumerate(lines, start=1):
        fields = line.split() if "\t" not in line else _split_at_tabs(line)
        if not fields:
            continue
        if len(fields) == 3 and fields[0] not in LABELS and fields[2] in LABELS:
            model = fields[0]
            if models and model not in models:
                raise ValueError(
                    f"{file}, line {number}: the model {model} is not in its list of enrolments"
                )
            fields = (fields[2], models.get(model, model), fields[1])
        if len(fields) != 3 or fields[0] not in LABELS:
            raise ValueError(f"{file}, line {number}: {_fault(fields)}")
        label, enrolment, test = fields
        labels.append(LABELS[label])
        pairs.append(index.setdefault(enrolment, len(index)))
        pairs.append(index.setdefault(test, len(index)))
    labels = np.array(labels, dtype=np.int8)
    pairs = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    _check_classes(file, labels)
    repeated = len(pairs) - len(np.unique(pairs.astype(np.int64) @ (len(index), 1)))
    if repeated:
        logger.warning("%s: %d of %d trials repeat an earlier one", file, repeated, len(pairs))
    files = list(index)
    paths = None if folder is None else locate(files, folder, file)
    enrolment, test = np.ascontiguousarray(pairs.T)
    name = OFFICIAL.get((file.name, len(labels)), file.stem)
    return Trials(labels, enrolment, test, files, name, paths, repeated)


def _read_lines(file):
    if not file.is_file():
        raise FileNotFoundError(
            f"the trial list {file} does not exist; official lists are at {ADDRESS}"
        )
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"the trial list {file} is not UTF-8 text") from error


def _split_at_tabs(line):
    """The fields of a line with tabs; blanks then belong to the paths, but for one after the label."""
    fields = [one for one in (part.strip() for part in line.split("\t")) if one]
    if len(fields) == 2:
        first = fields[0].split(None, 1)
        fields = [*first, fields[1]] if len(first) == 2 else line.split()
    return fields


def _fault(fields):
    """What is wrong with the fields of a line."""
    if len(fields) > 3:
        return (
            f"{len(fields)} fields instead of label, path and path; where paths hold blanks, "
            "separate the fields with tabs"
        )
    if len(fields) < 3:
        return "not a trial; a line is label, path and path"
    return f"no label in {' '.join(fields)!r}; it is 1 or 0, target or nontarget, tgt or imp"


def _check_classes(file, labels):
    if not len(labels):
        raise ValueError(f"the trial list {file} is empty")
    targets = int(labels.sum())
    if targets in (0, len(labels)):
        missing, present = ("impostor", "target") if targets else ("target", "impostor")
        raise ValueError(
            f"the trial list {file} has {len(labels)} {present} trials and no {missing} trial; "
            "error rates need both"
        )


def _names_models(lines):
    """Whether the first trial is `model path label` with a model that is no file name."""
    for line in lines:
        fields = line.split()
        if fields:
            return len(fields) == 3 and fields[2] in ("tgt", "imp") and "/" not in fields[0]
    return False


def _read_models(file):
    """The file of each model in VOiCES' list of enrolments beside the keys; empty if models are files."""
    lists = sorted(file.parent.glob("*enroll*.lst"))
    if not lists:
        if re.search(r"\.\w{2,4}(\s|$)", file.read_text(encoding="utf-8-sig").split(None, 1)[0]):
            return {}
        raise FileNotFoundError(
            f"{file} names models; put its list of enrolments, such as dev-enroll.lst, beside it"
        )
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise ValueError(f"{file}: more than one list of enrolments lies beside it ({names})")
    models = {}
    for number, line in enumerate(_read_lines(lists[0]), start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or fields[0] in models:
            raise ValueError(
                f"{lists[0]}, line {number}: not a model with its one recording; "
                "models of several recordings are not supported"
            )
        models[fields[0]] = fields[1]
    return models


def locate(files, folders, source="the list"):
    """Find the recordings of a list in folders of any nesting.

    A list's paths begin somewhere below a folder: in itself, in `wav`, in `vox1_test_wav/wav`, at most four folders
    deep. A recording may also be a `.flac` or an `.m4a` file where the list says `.wav`, or the other way around.

    Arguments
    ---------
    files : list of str
        Paths relative to these places, or absolute.
    folders : str, Path or list of these
    source : str or Path
        What an error calls the list.

    Returns
    -------
    paths : list of str
        Absolute, in the order of the files.

    Raises
    ------
    FileNotFoundError
        If a folder or a recording is not there.
    """
    folders = [folders] if isinstance(folders, (str, Path)) else list(folders)
    for folder in folders:
        if not os.path.isdir(folder):
            raise FileNotFoundError(f"the folder {folder} does not exist")
    firsts = {_composed(re.split(r"[/\\]", one, maxsplit=1)[0]) for one in files}
    roots = [root for folder in folders for root in _find_roots(os.path.abspath(folder), firsts)]
    paths, missing = [], []
    for one in files:
        path = _find(one, roots)
        if path is None:
            missing.append(one)
        paths.append(path)
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        places = ", ".join(map(str, folders))
        raise FileNotFoundError(
            f"{source} names {missing[0]}{others} of {len(files)} recordings, which are not in {places}; "
            "give the folder that they lie in"
        )
    return paths


def _find_roots(folder, firsts):
    """The folders that hold the first part of one of the paths, the given one before deeper ones."""
    roots, level = [], [folder]
    for _ in range(DEPTH + 1):
        below = []
        for place in level:
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            # a list of plain file names begins where the files lie
            if place == folder or any(_composed(entry.name) in firsts for entry in found):
                roots.append(place)
            # a speaker's folder holds no corpus
            below += [
                entry.path
                for entry in found
                if _composed(entry.name) not in firsts
                and not re.fullmatch(r"id\d+|\..*", entry.name)
                # a link in a circle is no folder
                and os.path.isdir(entry.path)
            ]
        level = below
    return roots


def _composed(name):
    return unicodedata.normalize("NFC", name)


def _find(file, roots):
    """The path of a file under the first root that has it, with another suffix if need be; None if none has."""
    stem, suffix = os.path.splitext(file)
    for ending in (suffix, *(other for other in SUFFIXES if other != suffix)):
        for root in roots:
            path = os.path.join(root, stem + ending)
            if os.path.isfile(path):
                return path
    if file.isascii() and "\\" not in file:
        return None
    # a list's letters with accents, and its separators, may be of another system
    for ending in (suffix, *SUFFIXES):
        for root in roots:
            with suppress(AudioError):
                return str(find_named(stem + ending, root))
    return None


def speaker_of(file):
    """The speaker of a recording in VoxCeleb's layout, two folders above it; None without such a folder.

    Example
    -------
    >>> speaker_of("id10270/5r0dWxy17C8/00001.wav"), speaker_of("eabc.wav")
    ('id10270', None)
    """
    parts = file.rsplit("/", 3)
    return parts[-3] if len(parts) >= 3 else None


def find_list(trials, folders):
    """Find a trial list by its path or by the name of a published one.

    Arguments
    ---------
    trials : str or Path
        A path, or `vox1-O`, `vox1-E-clean`, ...
    folders : list of str or Path
        Where a published list is looked for by its file name, and a file that is not found here. Their folders `meta`
        are looked into too.

    Returns
    -------
    file : Path

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    file = FILES.get(str(trials))
    if file is None and Path(trials).is_file():
        return Path(trials)
    for folder in map(Path, folders):
        for place in (folder, folder / "meta"):
            found = place / (file or trials)
            if found.is_file():
                return found
    places = ", ".join(map(str, folders))
    if file is None:
        raise FileNotFoundError(
            f"the trial list {trials} does not exist, neither here nor in {places}; give a file, or one of "
            f"{', '.join(FILES)}"
        )
    raise FileNotFoundError(
        f"the trial list {trials} is the file {file}, which is neither in {places} nor in a folder meta there; "
        f"get it from {ADDRESS}"
    )


def write_trials(path, rows):
    """Write a trial list, whole or not at all; with tabs where a path holds a blank.

    Arguments
    ---------
    path : str or Path
    rows : list of (int, str, str)
        Label, enrolment and test.
    """
    blanks = any(re.search(r"\s", file) for row in rows for file in row[1:])
    between = "\t" if blanks else " "
    write_text(path, "".join(between.join(map(str, row)) + "\n" for row in rows))
