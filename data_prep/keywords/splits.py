"""Who is in which split of a keyword corpus: by the hash of the speaker's name, or by list files.

Source: Warden, "Speech Commands", arXiv 1804.03209, section 7.1, and the `which_set` that its archives carry.
"""

import hashlib
import os
import re
import unicodedata

from data_prep.keywords.clips import OTHER_SPEECH
from data_prep.verify import Candidate

SPLITS = ("train", "valid", "test")
LISTS = {"train": "training_list.txt", "valid": "validation_list.txt", "test": "testing_list.txt"}


def which_set(name, validation_percentage=10, testing_percentage=10):
    """The split of a clip by the hash of its speaker, so that nobody is in two of them.

    Arguments
    ---------
    name : str or Path
        File name; what stands before `_nohash_` is the speaker.
    validation_percentage, testing_percentage : float

    Returns
    -------
    split : str
        `train`, `valid` or `test`; as the corpus' own lists have it with 10 and 10.

    Example
    -------
    >>> which_set("bed/0a7c2a8d_nohash_0.wav") == which_set("yes/0a7c2a8d_nohash_4.wav")
    True
    """
    buckets = 2**27 - 1
    speaker = re.sub(r"_nohash_.*$", "", os.path.basename(name))
    # a name need not be text
    hashed = int(hashlib.sha1(speaker.encode("utf-8", "surrogateescape")).hexdigest(), 16)
    percentage = hashed % (buckets + 1) * (100.0 / buckets)
    if percentage < validation_percentage:
        return "valid"
    return "test" if percentage < validation_percentage + testing_percentage else "train"


def composed(name):
    """A name with each accent and its letter as one code point, where they are one: lists and disks differ in it."""
    return unicodedata.normalize("NFC", name)


def clip_of(path):
    """The candidate of a clip `<word>/<speaker>_nohash_<n>.wav`."""
    word = path.parent.name
    return Candidate(f"{word}_{path.stem}", path, path.stem.partition("_nohash_")[0], word)


def assign(clips):
    """Split clips by the hash of their speaker: a dict of split to list of Candidate."""
    splits = {name: [] for name in SPLITS}
    for clip in clips:
        splits[which_set(clip.path)].append(clip)
    return splits


def read_lists(folder, root, clips, words):
    """Split clips by the list files of a folder.

    Arguments
    ---------
    folder : Path
        Holds `validation_list.txt`, `testing_list.txt` and perhaps `training_list.txt`, each with
        lines `<word>/<file>`. Without the last, what the others leave is for training.
    root : Path
        The corpus.
    clips : list of Candidate
    words : set of str
        What a line may name, wanted or not.

    Returns
    -------
    splits : dict of str to list of Candidate
        A clip that is listed but not there is among them, for `verify` to skip and to list.

    Raises
    ------
    FileNotFoundError
        If a list is missing.
    ValueError
        If a line is no clip, its word is unknown, or another line names it already.
    """
    known = {composed(clip.path.relative_to(root).as_posix()): clip for clip in clips}
    wanted = {clip.text for clip in clips}
    splits, listed = {name: [] for name in SPLITS}, read_entries(folder, words)
    meant = find_listed(listed, known)
    for entry, name in listed.items():
        if entry.partition("/")[0] in map(composed, wanted):
            splits[name].append(known.get(meant.get(entry)) or clip_of(root / entry))
    if not (folder / LISTS["train"]).is_file():
        held_out = set(meant.values())
        splits["train"] = [clip for entry, clip in known.items() if entry not in held_out]
    return splits


def find_listed(listed, known):
    """Which files the entries of lists mean: the same name, or else the only one in another case or format.

    A corpus whose files were renamed to `.WAV`, or written anew as FLAC, keeps its splits.

    Arguments
    ---------
    listed, known : iterable of str
        Entries `<folder>/<file>` of the lists, and of the files that are there.

    Returns
    -------
    meant : dict of str to str
        Entry of the file for each entry of the lists; entries without a file are missing.

    Example
    -------
    >>> find_listed(["yes/a.wav", "yes/b.wav", "yes/c.wav"], ["yes/a.wav", "yes/B.flac"])
    {'yes/a.wav': 'yes/a.wav', 'yes/b.wav': 'yes/B.flac'}
    """
    known = dict.fromkeys(known)
    meant = {entry: entry for entry in listed if entry in known}
    others = {}
    for entry in known:
        if entry not in meant:
            others.setdefault(_without_form(entry), []).append(entry)
    for entry in listed:
        found = others.get(_without_form(entry), ())
        if entry not in meant and len(found) == 1:
            meant[entry] = found[0]
    return meant


def _without_form(entry):
    return os.path.splitext(entry)[0].casefold()


def read_entries(folder, words):
    """What the list files of a folder name, `<word>/<file>`, in composed form, with the split of each.

    Returns
    -------
    listed : dict of str to str

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_lists`.
    """
    listed, places = {}, {}
    for name, file_name in LISTS.items():
        path = folder / file_name
        if name == "train" and not path.is_file():
            continue
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}; set split to official, lists or a folder that has such lists"
            )
        # bytes that are not UTF-8 are marked, and match no clip
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            entry, place = composed(line.strip()), f"{path}, line {number}"
            if "/" not in entry:
                # as Windows writes it
                entry = entry.replace("\\", "/")
            word, slash, file = entry.partition("/")
            if not entry:
                continue
            if not (word and slash and file and "/" not in file):
                raise ValueError(f"{place}: {entry!r} is not of the form <word>/<file>")
            if word not in {OTHER_SPEECH, *map(composed, words)}:
                raise ValueError(f"{place}: {entry} is of the unknown class {word!r}")
            if entry in places:
                raise ValueError(f"{place}: {entry} stands already in {places[entry]}")
            listed[entry], places[entry] = name, place
    return listed
