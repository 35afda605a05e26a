"""One's own speech: a table or a JSON-lines list of recordings becomes a manifest for the recipes.

The list names audio files and their texts, in any language and any format that soundfile reads;
the result has the same columns as that of a corpus, so the same recipes train on it.
"""

import hashlib
import json
import logging
from pathlib import Path, PurePath

from data_prep.contents import fingerprint
from data_prep.verify import (
    FULL,
    Candidate,
    check_utterances,
    check_verify,
    is_prepared,
    write_manifest,
    write_skipped,
)
from mamba_speech.files import read_csv, write_json
from mamba_speech.text import TextChanges

logger = logging.getLogger(__name__)

# What a list may call its columns; the first name is the one that we advise.
NAMES = {
    "path": ("path", "wav", "audio_filepath", "audio", "file"),
    "text": ("text", "wrd", "transcript", "transcription", "sentence"),
    "speaker": ("speaker", "spk_id", "speaker_id"),
    "id": ("id", "utt_id", "utterance_id"),
}
UNKNOWN_SPEAKER = "unknown"
VERSION = 2


def prepare_manifest(manifest, save_folder, name, *, skip_prep=False, verify=FULL, policy=None):
    """Write `<save_folder>/<name>.csv` with ID, duration, wav, spk_id and wrd.

    Utterances that cannot be used are left out, with a warning that counts them, and listed with
    the reason in `<save_folder>/skipped_<name>.csv`. What the policy changes in texts is counted in
    `<save_folder>/text_changes_<name>.csv`. Nothing is done if the list is that of an
    earlier run, and since then no recording came, went, or changed its size or its time of change,
    and what that run left out is still bad.

    Arguments
    ---------
    manifest : str or Path
        A `.csv` or `.tsv` file with a header, or a `.jsonl` or `.json` file with an object a line.
        Columns or keys: `path` and `text`, and if you like `speaker` and `id` (`wav`,
        `audio_filepath`, `wrd`, `transcript`, `spk_id` are understood too, others ignored). Paths
        are relative to the file's own folder. UTF-8, with or without a byte order mark.
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

    Returns
    -------
    path : Path
        The manifest.

    Raises
    ------
    FileNotFoundError
        If the list does not exist.
    ValueError
        If it lacks a column, is not UTF-8, holds a broken line or no usable utterance, or the name
        is not a plain file name.

    Example
    -------
    >>> prepare_manifest("speech.csv", "manifests", "train", skip_prep=True).name
    'train.csv'
    """
    check_verify(verify)
    name = name.removesuffix(".csv")
    if not name or PurePath(name).name != name:
        raise ValueError(f"name must be a plain file name such as train, not {name!r}")
    save_folder = Path(save_folder)
    target = save_folder / f"{name}.csv"
    if skip_prep:
        return target
    manifest = Path(manifest).absolute()
    if not manifest.is_file():
        raise FileNotFoundError(f"the manifest {manifest} does not exist")
    texts = TextChanges(policy)
    record = {
        "version": VERSION,
        "manifest": str(manifest),
        "sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "verify": verify,
        "skipped": 0,
        "texts": texts.policy.options(),
    }
    candidates = read_candidates(manifest)
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
        reason = f"; see {skipped_list}" if skipped else ": it lists none"
        raise ValueError(f"the manifest {manifest} has no usable utterance{reason}")
    texts.write(save_folder / f"text_changes_{name}.csv", manifest.name)
    write_manifest(target, rows)
    write_json(record_path, record | {"skipped": len(skipped)})
    return target


def read_candidates(manifest):
    """Read a list of recordings.

    Arguments
    ---------
    manifest : Path

    Returns
    -------
    candidates : list of Candidate
        Where the list has no id, it is made from the path and numbered if need be.

    Raises
    ------
    ValueError
        As `prepare_manifest`.
    """
    readers = {".csv": read_table, ".tsv": read_table, ".jsonl": read_lines, ".json": read_lines}
    if manifest.suffix.lower() not in readers:
        raise ValueError(f"{manifest} must end in one of {', '.join(readers)}")
    try:
        entries = readers[manifest.suffix.lower()](manifest)
    except UnicodeDecodeError as error:
        raise ValueError(f"{manifest} is not UTF-8 text; save it as UTF-8") from error
    given = {entry["id"] for entry in entries if entry.get("id")}
    taken = set(given)
    candidates = []
    for entry in entries:
        name = entry.get("id") or make_id(entry["path"], taken)
        path = manifest.parent / entry["path"] if entry["path"] else None
        speaker = entry.get("speaker") or UNKNOWN_SPEAKER
        candidates.append(Candidate(name, path, speaker, entry["text"]))
    return candidates


def make_id(path, taken):
    """An id from a path, different from all those in `taken`, to which it is added.

    Example
    -------
    >>> make_id("clips/a.wav", {"clips-a"})
    'clips-a-2'
    """
    parts = [part for part in PurePath(path).with_suffix("").parts if part not in ("/", "..")]
    stem = "-".join(parts) if path else "utterance"
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def read_table(manifest):
    """Read a CSV or TSV file as a list of dicts with the keys of `NAMES`."""
    delimiter = "\t" if manifest.suffix.lower() == ".tsv" else ","
    header, rows = read_csv(manifest, delimiter=delimiter, skip_spaces=delimiter == ",")
    columns = find_columns(header, manifest)
    return [{key: row[column].strip() for key, column in columns.items()} for _, row in rows]


def read_lines(manifest):
    """Read a JSON-lines file as a list of dicts with the keys of `NAMES`."""
    entries = []
    with open(manifest, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{manifest}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{place}: not a JSON object on one line ({error})") from error
            if not isinstance(row, dict):
                # A fault of the file, like the one above, and not of the call.
                raise ValueError(f"{place}: not a JSON object")  # noqa: TRY004
            if row.get("offset"):
                raise ValueError(
                    f"{place}: segments (offset {row['offset']}) are not supported; "
                    "cut the recording into one file an utterance"
                )
            columns = find_columns(list(row), place)
            entries.append(
                {
                    key: "" if row[column] is None else str(row[column]).strip()
                    for key, column in columns.items()
                }
            )
    return entries


def find_columns(header, place):
    """Which columns of a list hold path, text, speaker and id.

    Arguments
    ---------
    header : list of str
    place : str or Path
        What an error calls the list.

    Returns
    -------
    columns : dict of str to str
        From the keys of `NAMES` to the list's own names; upper case does not matter.

    Raises
    ------
    ValueError
        If there is no path or no text.

    Example
    -------
    >>> find_columns(["ID", "wav", "wrd"], "speech.csv")
    {'path': 'wav', 'text': 'wrd', 'id': 'ID'}
    """
    lower = {column.lower(): column for column in reversed(header)}
    columns = {}
    for key, names in NAMES.items():
        known = [lower[name] for name in names if name in lower]
        if known:
            columns[key] = known[0]
    missing = [key for key in ("path", "text") if key not in columns]
    if missing:
        raise ValueError(
            f"{place}: no column {' and no column '.join(missing)} among "
            f"{', '.join(header) or 'none'}; needed are path and text"
        )
    return columns
