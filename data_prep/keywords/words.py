"""The words of a keyword corpus: its word folders, the classes made of them, and their clips.

Source of the sets of words: Warden, "Speech Commands", arXiv 1804.03209, sections 5 to 7.
"""

import logging
import os
from collections import defaultdict
from pathlib import Path

from data_prep.keywords.clips import SILENCE, SUFFIXES, UNKNOWN
from data_prep.keywords.splits import clip_of, composed
from data_prep.verify import NOT_UTF8
from mamba_speech.audio.finding import PassedOver, list_files, list_folders
from mamba_speech.audio.names import is_utf8, printable

logger = logging.getLogger(__name__)

COMMANDS = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
OTHERS = ["bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow"]
ADDED = ["backward", "follow", "forward", "learn", "visual"]
WORDS = {
    "0.01": sorted(COMMANDS + DIGITS + OTHERS),
    "0.02": sorted(COMMANDS + DIGITS + OTHERS + ADDED),
}


def find_root(data_folder, version):
    """The folder of the word folders, itself `data_folder` or in it; FileNotFoundError if none."""
    data_folder = Path(data_folder).absolute()
    if not data_folder.is_dir():
        raise FileNotFoundError(
            f"data_folder {data_folder} does not exist; give the unpacked Speech Commands"
        )
    archive = f"speech_commands_v{version}"
    for root in (data_folder, data_folder / archive, data_folder / "SpeechCommands" / archive):
        if root.is_dir() and any(list_audio(folder) for folder in word_folders(root)):
            return root
    raise FileNotFoundError(
        f"data_folder {data_folder} is not laid out like Speech Commands: neither it nor its "
        f"folder {archive} has <word>/*.wav (or .flac, or another audio format)"
    )


def word_folders(root):
    """The folders that may be a word's, sorted."""
    return list_folders(root, hidden="._")


def list_audio(folder, passed=None):
    """The audio files of a folder by their suffix, sorted; see `mamba_speech.audio.finding.list_files`."""
    return list_files(folder, SUFFIXES, passed)


def choose_labels(root, version, n_classes, percentages, other_speech_percentage=0):
    """The classes in order: words, then unknown and silence if they are asked for.

    Raises
    ------
    ValueError
        If `n_classes` is none of those that `prepare_speechcommands` describes, two word folders differ by
        case alone, or one word would be the only class.
    """
    words = WORDS[version]
    extra = [label for label, percentage in percentages.items() if percentage > 0]
    _refuse_equal_names(root)
    if n_classes == "all":
        if not other_speech_percentage:
            extra = []
        elif UNKNOWN not in extra:
            extra = [UNKNOWN, *extra]
        return _refuse_one(all_words(root) + extra)
    if isinstance(n_classes, (int, float)):
        if n_classes == len(words):
            return list(words)
        if n_classes == len(words) + 1 and SILENCE in extra:
            return [*words, SILENCE]
        if n_classes == len(COMMANDS) + 2 == len(COMMANDS) + len(extra):
            return COMMANDS + extra
        raise ValueError(
            f"n_classes {n_classes} does not fit version {version}: choose {len(words)} for every "
            f"word, {len(words) + 1} for silence too, 12 for ten commands, unknown and silence "
            "(their percentages above 0), a list of words, or all for one's own words"
        )
    if isinstance(n_classes, str):
        n_classes = [word.strip() for word in n_classes.split(",")]
    chosen = [str(word) for word in n_classes]
    if not chosen or len(set(chosen)) < len(chosen) or {"", UNKNOWN, SILENCE} & set(chosen):
        raise ValueError(f"n_classes must list different words, not {', '.join(chosen) or 'none'}")
    # a folder's name may have its accents in another form than the option
    there = {composed(folder.name): folder.name for folder in word_folders(root)}
    return _refuse_one([there.get(composed(word), word) for word in chosen] + extra)


def all_words(root):
    """The names of all word folders; folders with files of another kind alone are no words, which the log tells."""
    folders = word_folders(root)
    # an empty one was meant as a word, and is refused later
    found = [one for one in folders if list_audio(one) or not os.listdir(one)]
    silent = [printable(one.name) for one in folders if one not in found]
    if silent:
        logger.warning(
            "%d folders hold no audio and are no words: %s", len(silent), ", ".join(silent)
        )
    strange = [printable(str(one)) for one in found if not is_utf8(one.name)]
    if strange:
        logger.warning("%d words are left out, %s first: %s", len(strange), *strange[:1], NOT_UTF8)
    return [one.name for one in found if is_utf8(one.name)]


def _refuse_equal_names(root):
    """Refuse word folders whose names differ by case or by the form of an accent alone."""
    alike = defaultdict(list)
    for folder in word_folders(root):
        if is_utf8(folder.name) and list_audio(folder):
            alike[composed(folder.name).casefold()].append(folder.name)
    for names in alike.values():
        if len(names) > 1:
            raise ValueError(
                f"{root}: the word folders {' and '.join(names)} differ by case alone, so one word would be two "
                "classes: put their recordings into one folder, or rename one"
            )


def _refuse_one(labels):
    if len(labels) == 1:
        raise ValueError(
            f"{labels[0]} would be the only class, and everything be taken for it: set other_speech_percentage above "
            "0, or add another word"
        )
    return labels


def list_clips(root, labels):
    """The clips of the words, of all words there are if `_unknown_` is a class.

    Returns
    -------
    clips : list of Candidate
        The speaker is what stands before `_nohash_` in the file's name, the text its folder.

    Raises
    ------
    FileNotFoundError
        If a word has no folder.
    ValueError
        If a word's folder has no clip.
    """
    words = [label for label in labels if label not in (UNKNOWN, SILENCE)]
    present = [folder.name for folder in word_folders(root)]
    missing = [word for word in words if word not in present]
    if missing:
        raise FileNotFoundError(
            f"{root} has no folder for {', '.join(missing)} ({len(present)} folders are there); "
            "set version and n_classes to what it holds"
        )
    if UNKNOWN in labels:
        words += [name for name in present if name not in words and list_audio(root / name)]
    passed = PassedOver()
    audio = {word: list_audio(root / word, passed) for word in words}
    passed.warn(root)
    empty = [word for word in words if not audio[word]]
    if empty:
        raise ValueError(
            f"{root}: no {' or '.join(SUFFIXES)} file in the word folder {', '.join(empty)}; "
            "unpack the corpus again, or remove the folder if the word is your own"
        )
    return [clip_of(path) for word in words for path in audio[word]]
