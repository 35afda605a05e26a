"""Preparation of WSJ0-2mix and WSJ0-3mix, or of any mixtures in their layout, for separation.

Checks every mixture against its sources and writes one CSV manifest a split. Source: Hershey et al.,
"Deep clustering: discriminative embeddings for segmentation and separation", ICASSP 2016, section 4.1;
`python -m data_prep.mixtures` makes such a tree from WSJ0 or from any other speech.
"""

import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tqdm import tqdm

from data_prep.contents import fingerprint
from data_prep.mixtures.checks import NOT_THE_SUM, check_headers, check_mixture
from data_prep.verify import (
    FULL,
    HEADER,
    NOT_UTF8,
    Skipped,
    check_verify,
    is_prepared,
    write_skipped,
)
from mamba_speech.audio.finding import PassedOver, list_files
from mamba_speech.audio.names import is_utf8
from mamba_speech.files import write_csv, write_json

logger = logging.getLogger(__name__)

SPLITS = {"train": "tr", "valid": "cv", "test": "tt"}
MODES = ("min", "max")
SUFFIXES = (".wav", ".flac", ".ogg")

RECORD = "wsj0mix_prepare.json"
# Part of the record: raised when the manifests change, so that old ones are not taken for new.
VERSION = 1


def prepare_wsj0mix(
    data_folder,
    save_folder,
    num_spks=2,
    sample_rate=8000,
    mode="min",
    skip_prep=False,
    splits=("train", "valid", "test"),
    check_sum=True,
    verify=FULL,
):
    """Write `train.csv`, `valid.csv` and `test.csv`, a row a mixture.

    A row has ID (the name of the file), duration (seconds), mix_wav, s1_wav, s2_wav and, for three
    speakers, s3_wav (absolute paths). Mixtures that cannot be used are left out, with a warning
    that counts them, and listed with the reason in `skipped_<split>.csv`: a file that is missing,
    unreadable, truncated, empty or not mono; sources of another length or sample rate than their
    mixture; values that are not finite; a silent source; an id that occurs twice; a mixture that
    is not the sum of its sources. The sum may differ by one step of 16 bit more than there
    are speakers (3/32768 for two), as each file of WSJ0-2mix is rounded, or cut, to 16 bit by
    itself; a mixture that was scaled apart from its sources differs by more. Nothing is done if an
    earlier run had the same options, and since then no file came, went, or changed its size or its
    time of change, and what that run left out is still bad.

    Arguments
    ---------
    data_folder : str or Path
        A folder D with `D/wav8k/min/{tr,cv,tt}/{mix,s1,s2[,s3]}`, the one above `2speakers` or
        `3speakers` which hold this, or the folder of `tr`, `cv`, `tt`.
    save_folder : str or Path
        Where the manifests go; made if it is not there.
    num_spks : int
        2 or 3.
    sample_rate : int
        Hz, of every file; 16000 reads `wav16k`.
    mode : str
        `min` (mixtures as long as the shortest source) or `max`.
    skip_prep : bool
        Return at once.
    splits : list of str
        Which of `train`, `valid`, `test` are wanted.
    check_sum : bool
        False for sets whose mixtures hold noise or reverberation that the sources lack.
    verify : str
        `full` reads every file. `header` reads headers and ends: damage before the end, silent sources
        and mixtures that are not the sum of their sources go unnoticed.

    Returns
    -------
    prepared : dict of str to Path
        The manifests of the splits.

    Raises
    ------
    FileNotFoundError
        If the folder, a split in it, or a source's folder in a split is missing.
    ValueError
        If an option does not fit, the sample rate is another, a split is empty or has no usable
        mixture, or more than half of its mixtures are not the sum of their sources.

    Example
    -------
    >>> prepare_wsj0mix("not/needed", "manifests", skip_prep=True)["valid"].name
    'valid.csv'
    """
    splits = [splits] if isinstance(splits, str) else list(splits)
    check_options(num_spks, sample_rate, mode, splits)
    check_verify(verify)
    save_folder = Path(save_folder)
    prepared = {split: save_folder / f"{split}.csv" for split in splits}
    if skip_prep:
        return prepared
    root = find_root(data_folder, num_spks, sample_rate, mode)
    listed = {split: list_split(root / SPLITS[split], num_spks) for split in splits}
    record = {
        "version": VERSION,
        "folder": str(root),
        "num_spks": num_spks,
        "sample_rate": sample_rate,
        "check_sum": check_sum,
        "contents": {
            split: fingerprint(path for paths in files.values() for path in paths)
            for split, files in listed.items()
        },
        "verify": verify,
        "skipped": 0,
    }
    lists = [save_folder / f"skipped_{split}.csv" for split in splits]
    written = all(path.is_file() for path in prepared.values())
    if written and is_prepared(save_folder / RECORD, record, lists):
        logger.info("the manifests in %s are up to date; preparation skipped", save_folder)
        return prepared
    save_folder.mkdir(parents=True, exist_ok=True)
    for split, files in listed.items():
        rows, skipped = check_split(files, split, sample_rate, check_sum, verify)
        skipped_list = save_folder / f"skipped_{split}.csv"
        total = len(rows) + len(skipped)
        write_skipped(skipped_list, skipped, total, split, things="mixtures")
        wrong = sum(one.reason.startswith(NOT_THE_SUM) for one in skipped)
        if wrong > total / 2:
            raise ValueError(
                f"{root / SPLITS[split]}: {wrong} mixtures are not the sum of their sources (see "
                f"{skipped_list}); if they hold noise or reverberation besides, as in noisy "
                "LibriMix, set check_sum to False, otherwise make the mixtures again"
            )
        if not rows:
            raise ValueError(f"the split {split} has no usable mixture; see {skipped_list}")
        write_rows(prepared[split], rows, num_spks)
        record["skipped"] += len(skipped)
        hours = sum(row["duration"] for row in rows) / 3600
        logger.info("%s: %d mixtures, %.2f hours", split, len(rows), hours)
    write_json(save_folder / RECORD, record)
    return prepared


def check_options(num_spks, sample_rate, mode, splits):
    """Refuse options out of range with a ValueError."""
    if num_spks not in (2, 3):
        raise ValueError(f"num_spks must be 2 or 3, not {num_spks}")
    if sample_rate < 1000 or sample_rate % 1000:
        raise ValueError(f"sample_rate must be 8000 or 16000 Hz, not {sample_rate}")
    if mode not in MODES:
        raise ValueError(f"mode must be min or max, not {mode!r}")
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise ValueError(f"splits must be some of {', '.join(SPLITS)}, not {unknown or 'none'}")


def find_root(data_folder, num_spks, sample_rate, mode):
    """The folder of `tr`, `cv`, `tt`; FileNotFoundError if there is none."""
    data_folder = Path(data_folder).absolute()
    if not data_folder.is_dir():
        raise FileNotFoundError(
            f"data_folder {data_folder} does not exist; give a folder of mixtures as WSJ0-2mix, or "
            "make one with python -m data_prep.mixtures"
        )
    inside = Path(f"wav{sample_rate // 1000}k", mode)
    choices = (data_folder / inside, data_folder / f"{num_spks}speakers" / inside, data_folder)
    for root in choices:
        if any((root / name).is_dir() for name in SPLITS.values()):
            if root == data_folder and root.name in MODES and root.name != mode:
                raise ValueError(f"data_folder {root} holds the mode {root.name}, not {mode}")
            return root
    raise FileNotFoundError(
        f"data_folder {data_folder} is not laid out like WSJ0-{num_spks}mix: there is neither "
        f"{inside}/tr, cv or tt nor {num_spks}speakers/{inside} nor tr, cv or tt in it (check "
        "--sample_rate and --mode)"
    )


def list_split(folder, num_spks):
    """The files of a split.

    Arguments
    ---------
    folder : Path
    num_spks : int

    Returns
    -------
    files : dict of str to list of Path
        The files of `mix`, `s1`, `s2`, ..., sorted.

    Raises
    ------
    FileNotFoundError
        If the split or one of its folders is missing.
    ValueError
        If there is no audio in `mix`, or one speaker's folder more.
    """
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no {folder}; a split that is not needed can be left out by the option splits"
        )
    names = ["mix", *(f"s{number}" for number in range(1, num_spks + 1))]
    for name in names:
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"there is no {folder / name}; num_spks is {num_spks}")
    if (folder / f"s{num_spks + 1}").is_dir():
        raise ValueError(f"{folder} has s{num_spks + 1} too; set num_spks to {num_spks + 1}")
    files = {name: list_audio(folder / name) for name in names}
    if not files["mix"]:
        raise ValueError(f"there is no {' or '.join(SUFFIXES)} file in {folder / 'mix'}")
    return files


def list_audio(folder):
    """The audio files of a folder by their suffix, sorted; a warning tells what is passed over."""
    passed = PassedOver()
    files = list_files(folder, SUFFIXES, passed)
    passed.warn(folder)
    return files


def check_split(files, split, sample_rate, check_sum, verify=FULL):
    """Check the mixtures of a split, with a progress bar.

    Arguments
    ---------
    files : dict of str to list of Path
        As `list_split` gives them.
    split : str
    sample_rate : int
    check_sum : bool
    verify : str
        See `prepare_wsj0mix`.

    Returns
    -------
    rows : list of dict
        With the keys ID, duration, mix_wav, s1_wav, ...
    skipped : list of Skipped

    Raises
    ------
    ValueError
        If a mixture has another sample rate.
    """
    known = {name: {path.stem: path for path in paths} for name, paths in files.items()}
    ids = sorted(set().union(*known.values()))
    counts = Counter(path.stem for path in files["mix"])
    wanted = [(one, {name: paths.get(one) for name, paths in known.items()}) for one in ids]
    if verify == HEADER:
        check = partial(check_headers, sample_rate=sample_rate)
    else:
        check = partial(check_mixture, sample_rate=sample_rate, check_sum=check_sum)
    rows, skipped = [], []
    with ThreadPoolExecutor(min(2 * (os.cpu_count() or 1), 16)) as threads:
        checked = threads.map(check, [paths for _, paths in wanted])
        progress = tqdm(
            zip(wanted, checked, strict=True),
            total=len(wanted),
            desc=f"checking {split}",
            unit="mixture",
            mininterval=0.5,
        )
        try:
            for (name, paths), (duration, reason) in progress:
                reason = "duplicate id" if counts[name] > 1 else reason
                if not all(is_utf8(str(path)) for path in paths.values()):
                    reason = NOT_UTF8
                if reason:
                    skipped.append(Skipped(name, str(paths["mix"] or ""), reason))
                    continue
                row = {"ID": name, "duration": duration}
                rows.append(row | {f"{key}_wav": str(path) for key, path in paths.items()})
        except ValueError:
            # A wrong sample rate is the whole set's: the rest need not be read.
            threads.shutdown(cancel_futures=True)
            raise
    return rows, skipped


def write_rows(path, rows, num_spks):
    """Write a manifest."""
    names = ("mix", *(f"s{number}" for number in range(1, num_spks + 1)))
    write_csv(path, ("ID", "duration", *(f"{name}_wav" for name in names)), rows)
