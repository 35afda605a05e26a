"""Mixture lists: the recordings of each mixture, their speakers, and their levels.

Reads and writes lists as CSV and reads those that came with WSJ0-2mix and WSJ0-3mix (Hershey et al.,
"Deep clustering", ICASSP 2016, section 4.1). A list holds no sound, so it can be handed on where the
speech cannot. It gives the same mixtures again.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data_prep.mixtures.locate import speaker_and_stem
from mamba_speech.files import read_csv, write_csv

SPLITS = ("tr", "cv", "tt")
NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
# a recording of WSJ0 with its gain, as the names of the official mixtures have them
OFFICIAL = rf"\d[0-9a-z]{{2}}[a-z][0-9a-z]{{4}}_{NUMBER}"
# What a list is called, without its ending; the last are those that the official scripts write.
STEMS = (
    "{split}",
    "mix_{num_spks}_spk_{split}",
    "mix_{num_spks}spk_{split}",
    "mix_{num_spks}_spk_min_{split}",
    "mix_{num_spks}_spk_max_{split}",
    "mix_{num_spks}_spk_min_{split}_mix",
    "mix_{num_spks}_spk_max_{split}_mix",
)


@dataclass(frozen=True)
class Source:
    """One speaker's part in a mixture.

    Arguments
    ---------
    speaker : str
    files : tuple of str
        Recordings to be played one after the other, relative to the speech folder.
    gain : float
        dB, on top of the level that all sources are brought to.
    """

    speaker: str
    files: tuple
    gain: float


@dataclass(frozen=True)
class Mixture:
    """A mixture that is to be made; `id` is the name of its files.

    Example
    -------
    >>> voices = (Source("anna", ("anna/1.wav",), 1.5), Source("ben", ("ben/7.wav",), -1.5))
    >>> Mixture("tr_0000", voices).speakers
    ('anna', 'ben')
    """

    id: str
    sources: tuple

    @property
    def speakers(self):
        """Who speaks, in the order of the sources."""
        return tuple(source.speaker for source in self.sources)


def read_list(path):
    """Read a mixture list: one of WSJ0's, or a CSV file, which has the suffix `.csv` or a column `mix_id`.

    The columns of the CSV file are `mix_id`, `spk1`, `spk2`, `s1_wavs`, `s2_wavs` (recordings with
    `+` between them follow each other), `s1_gain_db`, `s2_gain_db`, and for three speakers `spk3`,
    `s3_wavs`, `s3_gain_db`; others are ignored.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    mixtures : list of Mixture

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the list is empty, a line has the wrong form, an id occurs twice, a mixture has one
        speaker twice, or not all mixtures have as many speakers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no mixture list {path}")
    try:
        mixtures = read_table(path) if is_table(path) else read_wsj0_list(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    if not mixtures:
        raise ValueError(f"the mixture list {path} is empty")
    seen = set()
    for mixture in mixtures:
        if mixture.id in seen:
            raise ValueError(f"{path}: the mixture {mixture.id} is listed twice")
        seen.add(mixture.id)
        if len(set(mixture.speakers)) < len(mixture.speakers):
            raise ValueError(f"{path}: the mixture {mixture.id} has one speaker twice")
        if len(mixture.sources) != len(mixtures[0].sources):
            raise ValueError(f"{path}: {mixture.id} has not as many speakers as those before it")
    return mixtures


def read_table(path):
    """Read the CSV form of `read_list`."""
    mixtures = []
    header, rows = read_csv(path, skip_spaces=True)
    columns = source_columns(3 if "s3_wavs" in header else 2)
    missing = [name for name in ("mix_id", *sum(columns, ())) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; a mixture list has the columns "
            f"{', '.join(('mix_id', *sum(source_columns(2), ())))}"
        )
    for number, row in rows:
        place = f"{path}, line {number}"
        name = row["mix_id"].strip()
        check_id(name, place)
        sources = (read_source(*(row[key] for key in keys), place) for keys in columns)
        mixtures.append(Mixture(name, tuple(sources)))
    return mixtures


def is_table(path):
    """Whether a mixture list is a CSV file."""
    if path.suffix.lower() == ".csv":
        return True
    with open(path, encoding="utf-8-sig") as file:
        return "mix_id" in file.readline().split(",")


def source_columns(num_spks):
    """The three columns of each source in the CSV form.

    Example
    -------
    >>> source_columns(2)[1]
    ('spk2', 's2_wavs', 's2_gain_db')
    """
    numbers = range(1, num_spks + 1)
    return tuple((f"spk{n}", f"s{n}_wavs", f"s{n}_gain_db") for n in numbers)


def read_source(speaker, wavs, gain, place):
    """A `Source` from its three cells."""
    files = tuple(name.strip() for name in wavs.split("+"))
    if not speaker.strip() or not all(files):
        raise ValueError(f"{place}: a source has no speaker or no recording")
    check_id(speaker.strip(), place)
    return Source(speaker.strip(), files, read_gain(gain, place))


def read_gain(text, place):
    """A gain in dB."""
    try:
        gain = float(text)
    except ValueError:
        gain = float("nan")
    if not abs(gain) <= 100:
        raise ValueError(f"{place}: {text!r} is not a gain in dB")
    return gain


def check_id(name, place):
    """Refuse an id that cannot be the name of a file."""
    if not name or PurePosixPath(name).name != name or name[0] == ".":
        raise ValueError(f"{place}: {name!r} cannot be the name of a file; change the id")


def read_wsj0_list(path):
    """Read a list of WSJ0-2mix or WSJ0-3mix: `path1 gain1 path2 gain2 [path3 gain3]` a line.

    The ids are the official names of the mixtures. The speaker of a recording is told by its name
    or is the folder that holds it. A line may be such an id alone, as in the lists
    `mix_2_spk_min_tr_mix` that the official scripts write: `011a0101_1.2_022b0202_-1.2`.
    """
    mixtures = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path}, line {number}"
            if not line.strip():
                continue
            pairs = split_line(line.strip())
            if len(pairs) not in (2, 3):
                raise ValueError(
                    f"{place}: not of the form `path1 gain1 path2 gain2 [path3 gain3]`"
                )
            names, gains = [one for one, _ in pairs], [read_gain(one, place) for _, one in pairs]
            found = [speaker_and_stem(name) for name in names]
            # Five digits, as Matlab's num2str prints them in the official names.
            parts = [f"{stem}_{gain:.5g}" for (_, stem), gain in zip(found, gains, strict=True)]
            check_id("_".join(parts), place)
            sources = (
                Source(speaker, (name,), gain)
                for (speaker, _), name, gain in zip(found, names, gains, strict=True)
            )
            mixtures.append(Mixture("_".join(parts), tuple(sources)))
    return mixtures


def split_line(line):
    """The recordings and gains of a line of an official list; a path may hold spaces.

    Example
    -------
    >>> split_line("/my speech/011a0101.wav 1.2 b/022b0202.wav -1.2")
    [('/my speech/011a0101.wav', '1.2'), ('b/022b0202.wav', '-1.2')]
    >>> split_line("011a0101_1.2_022b0202_-1.2")
    [('011a0101', '1.2'), ('022b0202', '-1.2')]
    """
    official = re.fullmatch(rf"({OFFICIAL})(_{OFFICIAL})+", line, re.IGNORECASE)
    if official:
        parts = line.split("_")
        return list(zip(parts[::2], parts[1::2], strict=True))
    pair = rf"(\S.*?)\s+({NUMBER})(?:\s+|$)"
    if not re.sub(pair, "", line):
        return re.findall(pair, line)
    # what is wrong with a gain is told by the gain
    fields = line.split()
    return list(zip(fields[::2], fields[1::2], strict=True)) if len(fields) in (4, 6) else []


def find_lists(given, num_spks=2):
    """The lists that a command line names: a folder of them, or `tr=FILE` for each.

    Arguments
    ---------
    given : list of str
        One folder with files `mix_<num_spks>_spk_{tr,cv,tt}` or `{tr,cv,tt}`, or another of `STEMS`,
        `.csv`, `.txt` or without ending, in any case; or entries of the form `<split>=<file>`.
    num_spks : int

    Returns
    -------
    paths : dict of str to Path
        In the order of `SPLITS`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no list.
    ValueError
        If an entry has another form or names another split.
    """
    if len(given) == 1 and "=" not in given[0]:
        folder = Path(given[0])
        there = {path.name.lower(): path for path in sorted(folder.glob("[!.]*")) if path.is_file()}
        found = {}
        for split in SPLITS:
            names = [stem.format(split=split, num_spks=num_spks) for stem in STEMS]
            names = [f"{name}{suffix}" for name in names for suffix in (".csv", ".txt", "")]
            path = next((there[name] for name in names if name in there), None)
            if path:
                found[split] = path
        if not found:
            raise FileNotFoundError(
                f"{folder} holds no list such as mix_{num_spks}_spk_tr.txt or tr.csv; give the "
                "folder of the lists, or tr=FILE cv=FILE tt=FILE; --num_spks 3 finds those of three"
            )
        return found
    paths = {}
    for entry in given:
        split, sign, path = entry.partition("=")
        if split not in SPLITS or not sign or not path or split in paths:
            raise ValueError(f"--lists {entry}: give one folder, or tr=FILE cv=FILE tt=FILE")
        paths[split] = Path(path)
    return {split: paths[split] for split in SPLITS if split in paths}


def write_list(path, mixtures):
    """Write the CSV form of `read_list`."""
    columns = source_columns(len(mixtures[0].sources))
    write_csv(path, ("mix_id", *sum(columns, ())), map(_cells, mixtures))


def _cells(mixture):
    cells = [mixture.id]
    for source in mixture.sources:
        cells += [source.speaker, "+".join(source.files), repr(source.gain)]
    return cells


def natural_name(source):
    """A file name for a source's speech, from its recordings.

    Example
    -------
    >>> natural_name(Source("id7", ("wav/id7/b/1.wav", "wav/id7/b/2.wav"), 0.0))
    'b-1_b-2'
    """
    names = []
    for file in source.files:
        parts = PurePosixPath(file.replace("\\", "/")).with_suffix("").parts
        if source.speaker in parts[:-1]:
            parts = parts[parts.index(source.speaker) + 1 :]
        names.append("-".join(part for part in parts if part not in ("/", "..")))
    return re.sub(r"[^\w.+-]", "-", "_".join(names))
