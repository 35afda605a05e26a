"""One's own speech: a list of recordings, or of parts of recordings, becomes a manifest for the recipes.

`mamba_speech.lists` reads the list. The result has the same columns as a manifest of a corpus, so the
same recipes train on it.
"""

import hashlib
import logging
import os
from pathlib import Path, PurePath

from data_prep.contents import fingerprint
from data_prep.verify import (
    FULL,
    OF_A_LINE,
    Candidate,
    check_utterances,
    check_verify,
    is_prepared,
    write_manifest,
    write_skipped,
)
from mamba_speech.audio.names import printable
from mamba_speech.files import write_json
from mamba_speech.lists import read_list
from mamba_speech.lists.kaldi import SCRIPT
from mamba_speech.text import HAS_DIGITS, TextChanges

logger = logging.getLogger(__name__)

UNKNOWN_SPEAKER = "unknown"
# share of a list's rows that may be left out
MAX_SKIPPED = 0.05
VERSION = 3


def prepare_manifest(
    manifest,
    save_folder,
    name,
    *,
    skip_prep=False,
    verify=FULL,
    policy=None,
    max_skipped=MAX_SKIPPED,
):
    """Write `<save_folder>/<name>.csv` with the columns of `data_prep.verify.COLUMNS`.

    Rows that cannot be used are left out, with a warning that counts them, and listed with the line
    and the reason in `<save_folder>/skipped_<name>.csv`. What the policy changes in texts is counted in
    `<save_folder>/text_changes_<name>.csv`.

    Nothing is done if an earlier run had the same list and options. Since that run, no recording may
    have come, gone, or changed its size or its time of change. What it left out must still be bad.

    Arguments
    ---------
    manifest : str or Path
        List of recordings with their texts, see `mamba_speech.lists.read_list`. A row may mean a part
        of a recording. `speaker` and `id` may be missing.
    save_folder : str or Path
        Where the manifest goes; made if it is not there.
    name : str
        Name of the result, with or without `.csv`: `train`, for example.
    skip_prep : bool
        Return at once.
    verify : str
        `full` decodes every recording, `header` reads its header and its end.
    policy : mamba_speech.text.TextPolicy, optional
        What happens to the texts; by default the policy of no option.
    max_skipped : float
        Share of the rows, from 0 to 1, that may be left out.

    Returns
    -------
    path : Path
        The manifest.

    Raises
    ------
    FileNotFoundError
        If the list does not exist.
    ValueError
        If nothing can be made of the list, it holds no usable utterance, or too many rows are left
        out; or the name is not a plain file name.

    Example
    -------
    >>> prepare_manifest("speech.csv", "manifests", "train", skip_prep=True).name
    'train.csv'
    """
    check_verify(verify)
    if not 0 <= max_skipped <= 1:
        raise ValueError(f"max_skipped must be from 0 to 1; got {max_skipped}")
    name = name.removesuffix(".csv")
    if not name or PurePath(name).name != name:
        raise ValueError(f"name must be a plain file name such as train, not {name!r}")
    save_folder = Path(save_folder)
    target = save_folder / f"{name}.csv"
    if skip_prep:
        return target
    manifest = Path(manifest).absolute()
    if not manifest.exists():
        raise FileNotFoundError(f"the manifest {manifest} does not exist")
    texts = TextChanges(policy)
    listed = list(read_list(manifest, needed=("path", "text")))
    candidates = make_candidates(listed)
    record = {
        "version": VERSION,
        "manifest": str(manifest),
        "sha256": hashlib.sha256(repr(listed).encode("utf-8", "surrogateescape")).hexdigest(),
        "verify": verify,
        "max_skipped": max_skipped,
        "skipped": 0,
        "texts": texts.policy.options(),
    }
    record["recordings"] = fingerprint(one.path or "" for one in candidates)
    record_path = save_folder / f"{name}_prepare.json"
    skipped_list = save_folder / f"skipped_{name}.csv"
    if target.is_file() and is_prepared(record_path, record, [skipped_list]):
        logger.info("the manifest %s is up to date; preparation skipped", target)
        return target
    save_folder.mkdir(parents=True, exist_ok=True)
    rows, skipped = check_utterances(candidates, manifest.name, verify=verify, texts=texts)
    write_skipped(skipped_list, skipped, len(candidates), manifest.name)
    if not rows:
        reason = f" ({_told(skipped[0])}); see {skipped_list}" if skipped else ": it lists none"
        raise ValueError(f"the manifest {manifest} has no usable utterance{reason}")
    # texts with digits go because the policy says so
    faults = [one for one in skipped if one.reason != HAS_DIGITS]
    if len(faults) > max_skipped * len(candidates):
        raise ValueError(
            f"{manifest}: {len(faults)} of {len(candidates)} rows cannot be used, more than --max_skipped "
            f"{max_skipped:g} allows (the first: {_told(faults[0])}); mend what {skipped_list} lists, or set "
            "the option higher"
        )
    texts.write(save_folder / f"text_changes_{name}.csv", manifest.name)
    write_manifest(target, rows)
    write_json(record_path, record | {"skipped": len(skipped)})
    return target


def _told(skipped):
    """What was left out and why; a line of the list says enough."""
    if OF_A_LINE.match(skipped.reason) or not (skipped.path or skipped.id):
        return skipped.reason
    return f"{printable(skipped.path or skipped.id)}: {skipped.reason}"


def list_name(path):
    """The name of a list without endings; of a Kaldi folder, the folder's, however it is given.

    Arguments
    ---------
    path : str or Path

    Example
    -------
    >>> list_name("lists/cuts.jsonl.gz"), list_name("kaldi/test/wav.scp"), list_name("kaldi/test/.")
    ('cuts', 'test', 'test')
    """
    path = Path(os.path.abspath(path))
    if path.name == SCRIPT:
        path = path.parent
    elif path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    return path.stem


def make_candidates(rows):
    """Utterances of a list's rows.

    Arguments
    ---------
    rows : list of mamba_speech.lists.ListRow

    Returns
    -------
    candidates : list of Candidate
        Where the list has no id, it is made from the path, and from the times of a part, and numbered
        if need be.
    """
    taken = {row.id for row in rows if row.id}
    candidates = []
    for row in rows:
        speaker = row.speaker or UNKNOWN_SPEAKER
        if row.fault is not None:
            fault = f"{row.place}: {row.fault}"
            name = row.path or row.name
            candidates.append(Candidate(row.id or "", name, speaker, row.text, fault=fault))
            continue
        name = row.id or make_id(row.name, taken, (row.start, row.stop))
        part = Part(row) if row.is_segment else None
        candidates.append(Candidate(name, row.path, speaker, row.text, part))
    return candidates


class Part:
    """The part of a file that a row means; errors name the row's place in its list.

    Arguments
    ---------
    row : mamba_speech.lists.ListRow
    """

    def __init__(self, row):
        self.row = row

    def __call__(self, rate, frames):
        """The first sample and the end, or None for the whole file."""
        try:
            return self.row.samples(rate, frames)
        except ValueError as error:
            raise ValueError(f"{self.row.place}: {error}") from error


def make_id(path, taken, times=(None, None)):
    """An id from a path and times, different from all those in `taken`, to which it is added.

    Example
    -------
    >>> make_id("clips/a.wav", {"clips-a"})
    'clips-a-2'
    >>> make_id("a.wav", set(), (0.5, 2.0))
    'a-0.5-2'
    """
    parts = [part for part in PurePath(path).with_suffix("").parts if part not in ("/", "..")]
    stem = "-".join(parts) if path else "utterance"
    stem += "".join(f"-{time:.10g}" for time in times if time is not None)
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name
