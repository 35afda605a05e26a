"""The folder of a set of mixtures: what it was made from, and which of its files are out of date."""

import hashlib
from pathlib import Path

from data_prep.contents import changed_since, read_note, stamp
from data_prep.mixtures.lists import write_list
from mamba_speech.files import read_json, write_json

RECORD = "mixtures.json"
# Sizes and times of change of the recordings, in the folder of what was made from them.
STAMPS = "sources.json"
# Part of the record: raised when the samples change, so that old mixtures are not taken for new.
VERSION = 1


def check_folder(folder):
    """Refuse a folder that cannot hold mixtures, whatever their lists and settings.

    Raises
    ------
    ValueError
        If it is a file, holds something else, or its record is damaged.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder for the mixtures")
    if not (folder / RECORD).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"{folder} holds something else than mixtures; choose another folder")
        return
    try:
        found = read_json(folder / RECORD)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        # a fault of the file, and not of the call
        raise ValueError(f"{folder / RECORD} is damaged; delete {folder} or choose another")  # noqa: TRY004


def claim_folder(folder, lists, settings):
    """Write the lists and a record of what the folder holds; refuse one that holds other things.

    Raises
    ------
    ValueError
        If it was made from other lists or with other settings, or holds something else.
    """
    record = {"version": VERSION, "speech_folder": str(Path(settings.speech_folder).absolute())}
    record |= {"loudness": settings.loudness, "full_scale": settings.full_scale}
    for split, mixtures in lists.items():
        lines = "\n".join(repr(one) for one in mixtures)
        record[f"list {split}"] = hashlib.sha256(lines.encode()).hexdigest()
    path = folder / RECORD
    check_folder(folder)
    if path.is_file():
        found = read_json(path)
        differing = [key for key in sorted({*found, *record}) if found.get(key) != record.get(key)]
        if differing:
            raise ValueError(
                f"{folder} holds mixtures made otherwise (different: {', '.join(differing)}); "
                "choose another folder or delete that one"
            )
    (folder / "lists").mkdir(parents=True, exist_ok=True)
    write_json(path, record)
    for split, mixtures in lists.items():
        write_list(folder / "lists" / f"{split}.csv", mixtures)


def rate_folder_of(output_folder, settings):
    """`wav8k` or `wav16k` in the folder of the mixtures."""
    return Path(output_folder).absolute() / f"wav{settings.sample_rate // 1000}k"


def source_names(mixtures):
    """Folders of the sources: s1, s2 and, with three speakers, s3."""
    return [f"s{number}" for number in range(1, len(mixtures[0].sources) + 1)]


def paths_of(folder, mixture):
    """The files of a mixture in the folder of its split."""
    return [folder / name / f"{mixture.id}.wav" for name in ("mix", *source_names([mixture]))]


def remove_outdated(folder, outputs, speech_folder):
    """Remove files whose recordings have changed since they were made, and note the recordings as they are now.

    Files whose recordings are gone stay: nobody can make them again.

    Arguments
    ---------
    folder : Path
        Where the note stands.
    outputs : dict of Path to tuple of Source
        From each file to what it is made from.
    speech_folder : str or Path
    """
    files = {name for sources in outputs.values() for one in sources for name in one.files}
    stamps = {name: stamp(Path(speech_folder, name)) for name in sorted(files)}
    now = {name: one for name, one in stamps.items() if one}
    before = read_note(folder / STAMPS)
    changed = changed_since(before, now)
    for path, sources in outputs.items() if changed else ():
        if any(name in changed for one in sources for name in one.files):
            path.unlink(missing_ok=True)
    # only now: a run that is killed before this line finds the same changes again
    if before != before | now:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STAMPS, before | now)
