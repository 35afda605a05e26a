"""Mixture lists: which recordings of which speakers are mixed at which levels.

Reads and writes lists as CSV and reads those that came with WSJ0-2mix and WSJ0-3mix (Hershey et al.,
"Deep clustering", ICASSP 2016, section 4.1). A list holds no sound, so it can be handed on where the
speech cannot, and gives the same mixtures again.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mamba_speech.files import read_csv, write_csv

SPLITS = ("tr", "cv", "tt")


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
    """Read a mixture list: by the suffix `.txt` one of WSJ0's, otherwise a CSV file.

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
        mixtures = read_wsj0_list(path) if path.suffix.lower() == ".txt" else read_table(path)
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
    if not name or PurePosixPath(name).name != name or name[0] == "." or "$" in name:
        raise ValueError(f"{place}: {name!r} cannot be the name of a file; change the id")


def read_wsj0_list(path):
    """Read a list of WSJ0-2mix or WSJ0-3mix: `path1 gain1 path2 gain2 [path3 gain3]` a line.

    The ids are the official names of the mixtures, and the speaker of a recording is the folder
    that holds it.
    """
    mixtures = []
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            place = f"{path}, line {number}"
            if not fields:
                continue
            if len(fields) not in (4, 6):
                raise ValueError(
                    f"{place}: not of the form `path1 gain1 path2 gain2 [path3 gain3]`"
                )
            names, gains = fields[::2], [read_gain(text, place) for text in fields[1::2]]
            # Five digits, as Matlab's num2str prints them in the official names.
            parts = [
                f"{PurePosixPath(name).stem}_{gain:.5g}"
                for name, gain in zip(names, gains, strict=True)
            ]
            sources = (
                Source(PurePosixPath(name).parent.name, (name,), gain)
                for name, gain in zip(names, gains, strict=True)
            )
            check_id("_".join(parts), place)
            mixtures.append(Mixture("_".join(parts), tuple(sources)))
    return mixtures


def find_lists(given, num_spks=2):
    """The lists that a command line names: a folder of them, or `tr=FILE` for each.

    Arguments
    ---------
    given : list of str
        One folder with files `mix_<num_spks>_spk_{tr,cv,tt}` or `{tr,cv,tt}`, `.csv` or `.txt`,
        or entries of the form `<split>=<file>`.
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
        stems = ("{split}", "mix_{num_spks}_spk_{split}", "mix_{num_spks}spk_{split}")
        found = {}
        for split in SPLITS:
            names = [stem.format(split=split, num_spks=num_spks) for stem in stems]
            paths = [folder / f"{name}{suffix}" for name in names for suffix in (".csv", ".txt")]
            path = next((path for path in paths if path.is_file()), None)
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
        parts = PurePosixPath(file).with_suffix("").parts
        if source.speaker in parts[:-1]:
            parts = parts[parts.index(source.speaker) + 1 :]
        names.append("-".join(part for part in parts if part not in ("/", "..")))
    return re.sub(r"[^\w.+-]", "-", "_".join(names))
