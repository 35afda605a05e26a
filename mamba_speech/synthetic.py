"""Whether recordings come from a synthesiser, and whether a trained model has heard nothing else.

Folders of generated speech tell it in their records. A training hands it on to its own record and into the folder of
its checkpoints, where the commands read it.
"""

import json
from pathlib import Path

# record of a generated corpus
CORPUS_FILE = "corpus.json"
# records of folders that were made from another one, and their keys that name it
MADE_FROM = {"mixtures.json": "speech_folder", "resampled.json": "input_folder"}
# beside a run's checkpoints
NOTE_FILE = "training_speech.json"
# of the layouts here, the deepest has its recordings three folders below the record
LEVELS = 6


def all_synthetic(recordings):
    """Whether all recordings lie in folders of generated speech, or of something made from such a folder.

    Arguments
    ---------
    recordings : iterable of str or Path
        They are read up to the first one that comes from elsewhere.

    Returns
    -------
    bool or None
        None if there is no recording.

    Example
    -------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "corpus.json").write_text('{"synthetic": true}')
    >>> all_synthetic([folder / "a" / "b.wav"]), all_synthetic(["/b.wav"]), all_synthetic([])
    (True, False, None)
    """
    known = set()
    for recording in recordings:
        folder = Path(recording).absolute().parent
        if folder not in known and not _holds_synthetic(folder, LEVELS):
            return False
        known.add(folder)
    return True if known else None


def _holds_synthetic(folder, levels):
    corpus = _read(folder / CORPUS_FILE)
    if corpus is not None:
        # records of earlier versions name only the engine
        return corpus.get("synthetic", "engine" in corpus) is True
    for name, key in MADE_FROM.items():
        source = (_read(folder / name) or {}).get(key)
        if isinstance(source, str) and levels:
            return _holds_synthetic(Path(source), levels - 1)
    if not levels or folder == folder.parent:
        return False
    return _holds_synthetic(folder.parent, levels - 1)


def heard_only_synthetic(run_folder):
    """Whether the model of a run was trained on nothing but generated speech.

    Arguments
    ---------
    run_folder : str or Path
        Output folder of a training, or a folder that `mamba-speech export` wrote.

    Returns
    -------
    bool or None
        None where nothing tells.
    """
    run_folder = Path(run_folder)
    record = _read(run_folder / "results.json")
    training = record.get("training") if record else None
    found = training.get("synthetic") if isinstance(training, dict) else None
    # an exported model has the note beside its weights
    for folder in (run_folder / "save", run_folder):
        if found is None:
            found = (_read(folder / NOTE_FILE) or {}).get("synthetic")
    return found if isinstance(found, bool) else None


def warning_for(run_folder):
    """A sentence for who uses a model that has heard only generated speech; empty for any other."""
    if heard_only_synthetic(run_folder) is not True:
        return ""
    return (
        f"{run_folder}: this model has heard only synthetic speech; expect many more errors with the voices of "
        "people"
    )


def _read(path):
    """An object of a JSON file; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
