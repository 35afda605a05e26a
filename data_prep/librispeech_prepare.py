"""Preparation of LibriSpeech, or of any corpus in its layout, for the recipes.

Finds the splits, checks every utterance and writes one CSV manifest a split. Any subset of the
splits may be present. The corpus is at https://www.openslr.org/12 (Panayotov et al., ICASSP 2015).
"""

import logging
import os
from pathlib import Path

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
from mamba_speech.audio import finding
from mamba_speech.audio.finding import list_folders
from mamba_speech.files import write_json
from mamba_speech.text import TextChanges

logger = logging.getLogger(__name__)

RECORD = "librispeech_prepare.json"
# Part of the record: raised when the manifests change, so that old ones are not taken for new.
VERSION = 2
TRANSCRIPTS = ".trans.txt"
USED = (".flac", TRANSCRIPTS)


def prepare_librispeech(
    data_folder,
    save_folder,
    tr_splits=(),
    dev_splits=(),
    te_splits=(),
    select_n_sentences=None,
    merge_lst=(),
    merge_name=None,
    create_lexicon=False,
    skip_prep=False,
    verify=FULL,
    policy=None,
):
    """Write `<save_folder>/<split>.csv` for each split, with ID, duration, wav, spk_id and wrd.

    Utterances that cannot be used are left out, with a warning that counts them, and listed with
    the reason in `<save_folder>/skipped_<split>.csv`. What the policy changes in texts is counted in
    `<save_folder>/text_changes_<split>.csv`. The sample rate is free: audio is resampled
    when it is loaded. Nothing is done if an earlier run had the same options, and since then no file
    came, went, or changed its size or its time of change, and what it left out is still bad.

    Arguments
    ---------
    data_folder : str or Path
        The folder of the splits, or the folder above it that holds `LibriSpeech`.
    save_folder : str or Path
        Where the manifests go; made if it is not there.
    tr_splits, dev_splits, te_splits : list of str
        Names of splits for training, validation and test, such as `train-clean-100`. A split may
        be named more than once.
    select_n_sentences : int or list of int, optional
        Keep only so many utterances of each split, the first by id; a list gives one number for
        each split in the order train, dev, test.
    merge_lst : list of str
        Splits to join into one manifest more; the training splits by default.
    merge_name : str, optional
        Name of that manifest, `train.csv` for example; without a name none is written.
    create_lexicon : bool
        Argument of the published function, which then writes lists for grapheme-to-phoneme models.
        No recipe here reads such lists, so only False is taken.
    skip_prep : bool
        Return at once.
    verify : str
        `full` decodes every recording, `header` reads its header and its end.
    policy : mamba_speech.text.TextPolicy, optional
        What happens to the texts; by default the policy of no option.

    Raises
    ------
    FileNotFoundError
        If the folder is missing, is not laid out like LibriSpeech, or has no such split.
    ValueError
        If no split is named, a split has no usable utterance, or an option does not fit.

    Example
    -------
    >>> prepare_librispeech("not/needed", "manifests", skip_prep=True)
    """
    if create_lexicon:
        raise ValueError(
            "create_lexicon writes lists for grapheme-to-phoneme models, which no recipe here reads; "
            "leave it out, or use librispeech_prepare.py of SpeechBrain's recipes"
        )
    check_verify(verify)
    if skip_prep:
        return
    tr_splits, dev_splits, te_splits, merge_lst = (
        [splits] if isinstance(splits, str) else list(splits)
        for splits in (tr_splits, dev_splits, te_splits, merge_lst)
    )
    splits = list(dict.fromkeys(tr_splits + dev_splits + te_splits))
    limits = sentence_limits(select_n_sentences, splits)
    merged_splits = check_merge(merge_lst or tr_splits, merge_name, splits)
    folders = find_splits(data_folder, splits)
    save_folder = Path(save_folder)
    save_folder.mkdir(parents=True, exist_ok=True)
    chapters = {split: list_chapters(folder) for split, folder in folders.items()}
    record = {
        "version": VERSION,
        "folders": {split: str(folder) for split, folder in folders.items()},
        "limits": limits,
        "merged_splits": merged_splits,
        "merge_name": merge_name,
        "contents": {split: fingerprint(list_files(found)) for split, found in chapters.items()},
        "verify": verify,
        "skipped": 0,
        "texts": TextChanges(policy).policy.options(),
    }
    outputs = [f"{split}.csv" for split in splits] + ([merge_name] if merge_name else [])
    lists = [save_folder / f"skipped_{split}.csv" for split in splits]
    written = all((save_folder / name).is_file() for name in outputs)
    if written and is_prepared(save_folder / RECORD, record, lists):
        logger.info("the manifests in %s are up to date; preparation skipped", save_folder)
        return
    rows, seen = {}, set()
    for split in splits:
        rows[split], skipped = prepare_split(
            split, folders[split], chapters[split], save_folder, limits[split], seen, verify, policy
        )
        record["skipped"] += skipped
    if merge_name:
        joined = [row for split in merged_splits for row in rows[split]]
        write_manifest(save_folder / merge_name, joined)
    write_json(save_folder / RECORD, record)


def prepare_split(split, folder, chapters, save_folder, limit, seen, verify=FULL, policy=None):
    """Check and write one split; return its rows and how many utterances were skipped.

    Raises
    ------
    ValueError
        If no utterance is left.
    """
    passed = finding.PassedOver()
    candidates = [one for chapter in chapters for one in read_chapter(chapter, passed)]
    passed.warn(folder)
    candidates.sort(key=lambda one: one.id)
    texts = TextChanges(policy)
    rows, skipped = check_utterances(candidates[:limit], split, seen, verify=verify, texts=texts)
    skipped_list = save_folder / f"skipped_{split}.csv"
    write_skipped(skipped_list, skipped, len(candidates[:limit]), split)
    if not rows:
        reason = f"; see {skipped_list}" if skipped else " under */*/*.flac"
        raise ValueError(f"the split {split} in {folder} has no usable utterance{reason}")
    texts.write(save_folder / f"text_changes_{split}.csv", split)
    write_manifest(save_folder / f"{split}.csv", rows)
    hours = sum(row["duration"] for row in rows) / 3600
    logger.info("%s: %d utterances, %.2f hours", split, len(rows), hours)
    return rows, len(skipped)


def find_splits(data_folder, splits):
    """Find the folder of each split, directly in `data_folder` or in its folder `LibriSpeech`.

    Arguments
    ---------
    data_folder : str or Path
    splits : list of str

    Returns
    -------
    folders : dict of str to Path

    Raises
    ------
    FileNotFoundError
        As `prepare_librispeech`; the message lists the splits that are there.
    """
    present = present_splits(data_folder)
    if not Path(data_folder).is_dir():
        raise FileNotFoundError(
            f"data_folder {data_folder} does not exist; give the folder that holds LibriSpeech"
        )
    if not present:
        raise FileNotFoundError(
            f"data_folder {data_folder} is not laid out like LibriSpeech: neither it nor its "
            "folder LibriSpeech has <split>/<speaker>/<chapter>/*.trans.txt"
        )
    missing = [split for split in splits if split not in present]
    if missing:
        raise FileNotFoundError(
            f"data_folder {data_folder} has no split {', '.join(missing)}; "
            f"the splits there are {', '.join(sorted(present))}: name some of them in the options"
        )
    return {split: present[split] for split in splits}


def present_splits(data_folder):
    """The splits that lie in `data_folder` or in its folder `LibriSpeech`.

    Arguments
    ---------
    data_folder : str or Path

    Returns
    -------
    folders : dict of str to Path
        None if there is no such folder.
    """
    present = {}
    for root in (Path(data_folder), Path(data_folder) / "LibriSpeech"):
        for folder in list_folders(root):
            if any(finding.list_files(chapter, [TRANSCRIPTS]) for chapter in list_chapters(folder)):
                present[folder.name] = folder.absolute()
    return present


def list_chapters(folder):
    """The chapter folders `<split>/<speaker>/<chapter>`, sorted."""
    return [chapter for speaker in list_folders(folder) for chapter in list_folders(speaker)]


def list_files(chapters):
    """The recordings and transcripts of chapters, sorted by chapter."""
    for chapter in chapters:
        yield from finding.list_files(chapter, USED)


def read_chapter(chapter, passed=None):
    """All utterances of a chapter, those with only audio or only a transcript included.

    Arguments
    ---------
    chapter : Path
    passed : PassedOver, optional
        Told what else lies in the chapter.

    Returns
    -------
    candidates : list of Candidate

    Raises
    ------
    ValueError
        If a transcript file is not UTF-8 text.
    """
    texts = []
    for path in finding.list_files(chapter, [TRANSCRIPTS]):
        try:
            # not splitlines: a text may hold U+2028, which is white space here
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text; repair it or leave it out") from error
        for line in filter(str.strip, lines):
            name, *text = line.split(maxsplit=1)
            texts.append((name, "".join(text)))
    audio = {path.stem: path for path in finding.list_files(chapter, [".flac"], passed)}
    speaker = chapter.parent.name
    candidates = [Candidate(name, audio.get(name), speaker, text) for name, text in texts]
    transcribed = {name for name, _ in texts}
    return candidates + [
        Candidate(name, path, speaker, None)
        for name, path in audio.items()
        if name not in transcribed
    ]


def sentence_limits(select_n_sentences, splits):
    """How many utterances of each split to keep at most; None for all.

    Raises
    ------
    ValueError
        If no split is named, or the numbers are not positive or not one for each split.
    """
    if not splits:
        raise ValueError("name at least one split in tr_splits, dev_splits or te_splits")
    limits = select_n_sentences
    if limits is None or isinstance(limits, int):
        limits = len(splits) * [limits]
    if len(limits) != len(splits):
        raise ValueError(
            f"select_n_sentences has {len(limits)} numbers for the {len(splits)} splits {splits}"
        )
    if any(limit is not None and limit < 1 for limit in limits):
        raise ValueError(f"select_n_sentences must be 1 or more, not {select_n_sentences}")
    return dict(zip(splits, limits, strict=True))


def check_merge(merge_lst, merge_name, splits):
    """The splits to join, none without a name.

    Raises
    ------
    ValueError
        If they are not among the splits, or a split's own manifest has the name.
    """
    if merge_name is None:
        return []
    foreign = [split for split in merge_lst if split not in splits]
    if foreign or not merge_lst:
        raise ValueError(
            f"merge_lst must name some of the splits {splits}, not {foreign or 'none'}"
        )
    if merge_name in [f"{split}.csv" for split in splits] or os.path.basename(merge_name) == "":
        raise ValueError(f"merge_name {merge_name!r} is taken; choose another, such as train.csv")
    return list(dict.fromkeys(merge_lst))
