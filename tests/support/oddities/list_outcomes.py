"""What becomes of an odd list: in preparation and training, and in a command."""

import csv
import json
import os

import soundfile

from data_prep.manifest import prepare_manifest
from mamba_speech.audio import load_audio
from tests.support.oddities.consumers import USES
from tests.support.oddities.inputs import RATE
from tests.support.run_folders import call
from training.manifests import part


def disagreement_of_preparation(odd, path, folder):
    """What preparation makes of a list that is not as declared; None if nothing is.

    Arguments
    ---------
    odd : OddList
    path : Path
        The list.
    folder : Path
        New folder for the manifest.
    """
    try:
        manifest = prepare_manifest(path, folder, "train", max_skipped=1)
    except (OSError, ValueError) as error:
        text = str(error)
        said = odd.refused and odd.refused in text and str(path) in text and "\n" not in text
        return None if said else f"is refused: {text!r}"
    if odd.refused:
        return f"is not refused ({odd.refused!r})"
    rows, skipped = _rows(manifest), _rows(folder / "skipped_train.csv")
    # as training reads them
    heard = [
        (row["wrd"], len(load_audio(row["wav"], RATE, *part(row["start"], row["stop"]))) / RATE)
        for row in rows
    ]
    if heard != odd.expected:
        return f"the texts and seconds are {heard}, and not {odd.expected}; left out: {skipped}"
    if any(
        abs(float(row["duration"]) - seconds) > 1e-6
        for row, (_, seconds) in zip(rows, heard, strict=True)
    ):
        return f"the durations are {[row['duration'] for row in rows]}"
    return _faults(odd, [row["reason"] for row in skipped])


def disagreement_of_command(odd, path, command, runs, out):
    """What a command makes of a list that is not as declared; None if nothing is.

    Arguments
    ---------
    odd, path
        See :func:`disagreement_of_preparation`.
    command : str
        `transcribe` or `separate`, which print a line a row.
    runs : dict of str to Path
    out : Path
        New folder.
    """
    run, more = USES[command]
    words = [command, runs[run], path, *(one.format(out=out) for one in more), "--json"]
    status, said, errors = call(words)
    if "Traceback" in errors:
        return errors
    if odd.refused and odd.results is None:
        error = json.loads(said)["error"] if said.count("\n") == 1 else said
        right = status == 1 and (odd.told or odd.refused) in error and str(path) in error
        return None if right and error in errors else f"status {status}: {errors}"
    records = [json.loads(line) for line in said.splitlines()]
    results = len(odd.texts) if odd.results is None else odd.results
    found = [one for one in records if "error" not in one]
    if len(found) != results:
        return f"{len(found)} results, and not {results}: {records}"
    failed = [one["error"] for one in records if "error" in one]
    if odd.results is not None:
        # a text is not needed here
        whole = status == bool(failed) and all(odd.refused in error for error in failed)
        return None if whole else f"status {status}: {errors}"
    wanted = [seconds for _, seconds in odd.expected]
    heard = [_seconds(one) for one in found]
    if any(abs(one - other) > 1e-4 for one, other in zip(heard, wanted, strict=True)):
        return f"the seconds are {heard}, and not {wanted}"
    return _faults(odd, failed)


def _seconds(record):
    """Duration of what a command has read."""
    if "sources" in record:
        return soundfile.info(os.fsencode(record["sources"][0])).duration
    return record["seconds"]


def _faults(odd, reasons):
    agree = len(reasons) == len(odd.faults) and all(
        words in reason for words, reason in zip(odd.faults, reasons, strict=True)
    )
    return None if agree else f"the reasons are {reasons}, and not {odd.faults}"


def _rows(path):
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
