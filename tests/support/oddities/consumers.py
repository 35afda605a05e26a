"""What reads recordings: each command, and preparation with training. All inputs go through each of them at once."""

import csv
import json
import os
from dataclasses import dataclass, field

import numpy as np
import soundfile

from mamba_speech.audio import load_audio
from tests.support import recognition
from tests.support.oddities.inputs import RATE
from tests.support.run_folders import call

USES = {
    "transcribe": ("ctc", ()),
    "spot": ("keywords", ("--threshold", "0", "--hop_seconds", "0.5")),
    "separate": ("windows", ("--output_folder", "{out}")),
    "embed": ("speakers", ("--output_folder", "{out}")),
}


@dataclass
class Found:
    """What became of an input.

    Attributes
    ----------
    result : object
        Text, events, sources or embedding; the duration of what is trained on. None where there is none.
    error : str or None
        Why there is none.
    warnings : set of str
    """

    result: object = None
    error: str | None = None
    warnings: set = field(default_factory=set)


def through_command(name, paths, runs, out):
    """Give all inputs to a command.

    Arguments
    ---------
    name : str
    paths : dict of str to Path
    runs : dict of str to Path
        Run folders; see :func:`tests.support.run_folders.write_task_runs`.
    out : Path
        New folder.

    Returns
    -------
    found : dict of str to Found
        By the names of the inputs.
    """
    run, more = USES[name]
    more = [one.format(out=out) for one in more]
    status, said, errors = call([name, runs[run], *paths.values(), *more, "--json"])
    assert "Traceback" not in errors, errors
    records = {}
    for line in said.splitlines():
        record = json.loads(line)
        records.setdefault(record["path"], []).append(record)
    assert status == int(any("error" in one for these in records.values() for one in these))
    return {name_: _found(name, records.get(str(path), [])) for name_, path in paths.items()}


def through_folder(name, folder, runs, out):
    """Give a folder to a command.

    Returns
    -------
    found, broken : set of str
        Paths in the folder of the recordings that have a result, and of those that have an error.
    refused : bool
        Whether the folder itself has an error.
    """
    run, more = USES[name]
    more = [one.format(out=out) for one in more]
    status, said, errors = call([name, runs[run], folder, *more, "--json"])
    assert "Traceback" not in errors, errors
    records = [json.loads(line) for line in said.splitlines()]
    broken = {os.path.relpath(one["path"], folder) for one in records if "error" in one}
    assert status == bool(broken), errors
    sources = [path for one in records for path in one.get("sources", ())]
    assert len({path.casefold() for path in sources}) == len(sources) and all(
        map(os.path.isfile, sources)
    )
    found = {os.path.relpath(one["path"], folder) for one in records if "error" not in one}
    return found, broken - {"."}, "." in broken


def _found(command, records):
    errors = [one["error"] for one in records if "error" in one]
    found = Found(
        error=errors[0] if errors else None,
        warnings={kind for one in records for kind in one.get("warnings", ())},
    )
    if errors:
        return found
    if command == "transcribe" and records:
        found.result = records[0]["text"]
    elif command == "spot":
        found.result = [
            (one["start"], one["end"], one["label"]) for one in records if "label" in one
        ]
    elif command == "separate" and records:
        found.result = np.stack(
            [soundfile.read(os.fsencode(path))[0] for path in records[0]["sources"]]
        )
    elif records:
        found.result = np.load(records[0]["embedding"])
    return found


def through_training(paths, folder):
    """Prepare all inputs as a list, and train a recogniser on it for an epoch.

    Returns
    -------
    found : dict of str to Found
        By the names of the inputs.
    """
    folder.mkdir()
    for name, chosen in (("train", paths), ("valid", dict([next(iter(paths.items()))]))):
        rows = (
            {"id": f"odd-{number}", "audio_filepath": str(path), "text": "one two three"}
            for number, path in enumerate(chosen.values())
        )
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    run = folder / "run"
    recognition.call_script(
        "CTC",
        recognition.DEBUG["CTC"],
        train_manifest=folder / "train.jsonl",
        valid_manifest=folder / "valid.jsonl",
        output_folder=run,
        number_of_epochs=1,
        num_workers=0,
        max_skipped=1,
    )
    kept, skipped = _rows(run / "train.csv", "ID"), _rows(run / "skipped_train.csv", "id")
    failed = _rows(run / "unreadable.csv", "id")
    found = {}
    for number, name in enumerate(paths):
        one = f"odd-{number}"
        assert (one in kept) != (one in skipped), name
        assert one not in failed, failed[one]
        duration = float(kept[one]["duration"]) if one in kept else None
        found[name] = Found(duration, skipped[one]["reason"] if one in skipped else None)
    return found


def _rows(path, key):
    if not path.is_file():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


def likeness(path, samples):
    """Signal-to-noise ratio of a recording in dB, at the delay at which it is best.

    Arguments
    ---------
    path : Path
    samples : numpy.ndarray
        (samples,), what should be heard.
    """
    heard = load_audio(path, RATE).double().numpy()
    if len(heard) == len(samples) and np.array_equal(heard, samples):
        return np.inf
    size = 2 * max(len(heard), len(samples))
    spectra = np.fft.rfft(samples, size), np.fft.rfft(heard, size)
    cross = np.fft.irfft(spectra[0].conj() * spectra[1], size)
    delay = int(cross.argmax())
    moved = np.roll(np.pad(heard, (0, size - len(heard))), -delay)
    noise = np.pad(samples, (0, size - len(samples))) - moved
    return 10 * np.log10((samples**2).sum() / max((noise**2).sum(), 1e-30))
