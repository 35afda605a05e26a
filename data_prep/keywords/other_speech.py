"""Other speech for a keyword corpus: long recordings without a keyword, whose pieces become clips.

A spotter that was trained on single words takes any speech for one of them. Pieces of fluent speech among the clips of
`_unknown_` teach it better.
"""

import logging
from pathlib import Path

import numpy as np

from data_prep.keywords.clips import COLUMNS, OTHER_SPEECH, SUFFIXES, UNKNOWN
from data_prep.keywords.phrases import Phrases
from data_prep.keywords.splits import SPLITS, composed, find_listed, which_set
from data_prep.verify import FULL, Candidate, Skipped, check_utterances, write_skipped
from mamba_speech.audio import AudioError, open_audio
from mamba_speech.audio.finding import PassedOver, walk_files

logger = logging.getLogger(__name__)

# A piece is nearly silent, and not taken, if its level is so far below its whole recording's.
QUIET_DB = -20.0


def list_other_speech(root, folder, words):
    """The recordings of other speech, wherever they lie below their folder.

    The speaker is the part of a file's name before `_nohash_`. Where names have no such part, a folder
    counts as one speaker (in LibriSpeech, a chapter). Each file directly in `folder` then counts as a
    speaker of its own.

    Recordings in which a keyword is said are left out, and a warning counts them. The keyword is
    found in a transcript beside the recording, in the file's name, or in its folder's name.
    Transcripts are `*.trans.txt`, as in LibriSpeech, `<name>.txt` and `<name>.lab`.

    Arguments
    ---------
    root : Path
        The keyword corpus.
    folder : str or Path or None
        None: `_other_speech_` of the corpus.
    words : list of str
        The keywords.

    Returns
    -------
    recordings : list of Candidate

    Raises
    ------
    FileNotFoundError
        If there is no folder, or no recording in it.
    ValueError
        If the folder holds recordings of the corpus itself, which are words or noise.
    """
    given = folder is not None
    folder = Path(folder).absolute() if given else root / OTHER_SPEECH
    if not folder.is_dir():
        place = (
            f"other_speech {folder} does not exist" if given else f"{root} has no {OTHER_SPEECH}"
        )
        raise FileNotFoundError(
            f"{place}: give a folder of recordings without keywords, or set other_speech_percentage to 0"
        )
    paths = walk_files(folder, SUFFIXES)
    own = root.resolve()
    words_or_noise = [
        path
        for path in (path.resolve() for path in paths)
        if own in path.parents and own / OTHER_SPEECH not in path.parents
    ]
    if words_or_noise:
        raise ValueError(
            f"other_speech {folder} holds the keyword corpus' own recordings ({words_or_noise[0]}): give a folder of "
            "other recordings"
        )
    free = without_words(paths, folder, words)
    if not free:
        raise FileNotFoundError(
            f"{folder} holds no recording ({', '.join(SUFFIXES)}) without a keyword; add some, or set "
            "other_speech_percentage to 0"
        )
    return [_recording(path, folder) for path in free]


def without_words(paths, folder, words):
    """The recordings in whose transcripts, names and folders' names no keyword stands; the log counts the others.

    Arguments
    ---------
    paths : list of Path
    folder : Path
        Above the recordings; transcripts stand beside them.
    words : list of str

    Returns
    -------
    list of Path
    """
    phrases = Phrases(words)
    said = {}
    for file in walk_files(folder, [".trans.txt"], PassedOver()):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, text = line.partition(" ")
            said[file.parent, name] = text
    for file in walk_files(folder, [".txt", ".lab"], PassedOver()):
        if not file.name.endswith(".trans.txt"):
            said[file.parent, file.stem] = file.read_text(encoding="utf-8", errors="replace")
    free = [
        path
        for path in paths
        if not (
            phrases.named(path, folder) or phrases.within(said.get((path.parent, path.stem), ""))
        )
    ]
    if len(free) < len(paths):
        logger.warning(
            "%d of %d recordings of other speech hold a keyword, by transcript or name, and are left out, %s first",
            len(paths) - len(free),
            len(paths),
            next(path for path in paths if path not in set(free)),
        )
    return free


def _recording(path, folder):
    below = path.relative_to(folder)
    speaker, marked, _ = path.stem.partition("_nohash_")
    if not marked and below.parent.parts:
        speaker = "-".join(below.parent.parts)
    name = "-".join(below.with_suffix("").parts)
    return Candidate(f"{OTHER_SPEECH}{name}", path, speaker, OTHER_SPEECH)


def split_other_speech(recordings, listed, clips):
    """Split recordings by list files where these name them, else as their speaker's words or by the hash.

    Arguments
    ---------
    recordings : list of Candidate
    listed : dict of str to str
        Split of each entry `_other_speech_/<file>`, as `read_entries` gives it.
    clips : dict of str to list of Candidate
        The clips of words in each split, with which a speaker stays.

    Returns
    -------
    splits : dict of str to list of Candidate
    """
    known = {clip.speaker: name for name, own in clips.items() for clip in own}
    splits = {name: [] for name in SPLITS}
    entries = [composed(f"{one.path.parent.name}/{one.path.name}") for one in recordings]
    meant = find_listed(listed, entries)
    listed = {there: listed[entry] for entry, there in meant.items()}
    for one, entry in zip(recordings, entries, strict=True):
        name = listed.get(entry) or known.get(one.speaker) or which_set(one.speaker)
        splits[name].append(one)
    return splits


def check_other_speech(splits, save_folder, seconds, verify=FULL):
    """Check the recordings, and list those that are bad or too short in `skipped_other_speech.csv`.

    Returns
    -------
    found : dict of str to list of dict
        For each split, rows as `verify` gives them.
    skipped : int

    Raises
    ------
    ValueError
        If no recording for training is usable.
    """
    every = [one for recordings in splits.values() for one in recordings]
    rows, skipped = check_utterances(every, "other speech", verify=verify)
    short = [row for row in rows if row["duration"] < seconds]
    reason = f"shorter than {seconds} s"
    skipped += [Skipped(row["ID"], row["wav"], reason) for row in short]
    path = save_folder / "skipped_other_speech.csv"
    write_skipped(path, skipped, len(every), "other speech", things="recordings")
    whose = {one.id: name for name, recordings in splits.items() for one in recordings}
    found = {name: [] for name in SPLITS}
    for row in rows:
        if row["duration"] >= seconds:
            found[whose[row["ID"]]].append(row)
    if not found["train"]:
        reason = f"see {path}" if skipped else "all recordings fall into validation and test"
        raise ValueError(f"no other speech is usable for training: {reason}")
    return found, len(skipped)


def crop_other_speech(recordings, split, count, seconds, random):
    """Draw pieces for the class `_unknown_`: the recordings' consecutive pieces, in random order, each once.

    Pieces whose root mean square is more than 20 dB below their whole recording's are not taken.

    Arguments
    ---------
    recordings : list of dict
        Of one split, as `check_other_speech` gives them.
    split : str
    count : int
        How many, above 0; a warning tells if there are fewer.
    seconds : float
    random : np.random.Generator

    Returns
    -------
    rows : list of dict
        With the keys `COLUMNS`, ordered by recording and place; `words` is `_other_speech_`.

    Raises
    ------
    ValueError
        If every piece for training is nearly silent.
    """
    whole = np.array([int(row["duration"] / seconds + 1e-6) for row in recordings], dtype=int)
    ends, levels, rows, quiet = np.cumsum(whole), {}, [], 0
    for slot in random.permutation(int(whole.sum())):
        if len(rows) == count:
            break
        index = int(np.searchsorted(ends, slot, side="right"))
        row, number = recordings[index], int(slot - ends[index] + whole[index])
        if index not in levels:
            levels[index] = measure_pieces(row["wav"], seconds)
        loud, rate, length = levels[index]
        if number >= len(loud) or not loud[number]:
            quiet += 1
            continue
        start = number * length
        values = (f"{row['ID']}_{number:05d}", round(length / rate, 6), row["wav"])
        values += (start, start + length, UNKNOWN, row["spk_id"], OTHER_SPEECH)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    if split == "train" and not rows:
        raise ValueError(
            f"no other speech is usable for training: its pieces are nearly silent ({quiet}), such as those of "
            f"{recordings[0]['wav']}"
        )
    if quiet:
        logger.info("%s: %d pieces of other speech are nearly silent, not taken", split, quiet)
    if len(rows) < count:
        logger.warning("%s: only %d pieces of other speech, not %d", split, len(rows), count)
    return sorted(rows, key=lambda row: row["ID"])


def measure_pieces(path, seconds):
    """Which consecutive pieces of a recording are not nearly silent.

    Returns
    -------
    loud : list of bool
        For each whole piece; none of a recording that cannot be read.
    rate, length : int
        Samples a second, and of a piece.
    """
    try:
        with open_audio(path) as file:
            rate = file.rate
            length = round(seconds * rate)
            energies = [
                (float(np.square(block, dtype=np.float64).sum()), len(block))
                for block in file.blocks(frames=length)
            ]
    except (AudioError, OSError, MemoryError) as error:
        # which only a reading of the whole file shows
        logger.warning("%s: cannot be read, and gives no other speech (%s)", path, error)
        return [], 1, 1
    mean = sum(energy for energy, _ in energies) / sum(size for _, size in energies)
    least = mean * 10 ** (QUIET_DB / 10)
    return [energy / size > least for energy, size in energies if size == length], rate, length
