"""Preparation of VoxCeleb1 and 2, or of any corpus in their layout, for speaker verification.

Finds and checks the recordings, keeps the speakers of trial lists out of training, and writes manifests and
validation trials. Sources: Nagrani et al., "VoxCeleb: a large-scale speaker identification dataset",
arXiv 1706.08612; Chung et al., "VoxCeleb2: deep speaker recognition", arXiv 1806.05622;
https://mm.kaist.ac.kr/datasets/voxceleb/.
"""

import hashlib
import logging
import os
import re
from pathlib import Path

from data_prep.speakers.checker import SILENT
from data_prep.speakers.held_out import group_usable, name_lists, read_lists
from data_prep.speakers.manifests import write_manifests
from data_prep.speakers.recordings import NAME_REASONS, Recordings
from data_prep.speakers.splits import choose_classes, choose_valid_speakers, split_utterances
from data_prep.trials import find_list, read_trials
from data_prep.verify import (
    FULL,
    check_verify,
    is_recorded,
    still_bad,
    write_skipped,
)
from mamba_speech.audio.media_formats import has_decoder
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

RECORD = "voxceleb_prepare.json"
SKIPPED = "skipped_recordings.csv"
SPLITS = ("speaker", "utterance")
# Part of the record: raised when the manifests change, so that old ones are not taken for new.
VERSION = 3


def prepare_voxceleb(
    data_folder,
    save_folder,
    *,
    other_folders=(),
    trials=(),
    trial_folders=(),
    split="speaker",
    valid_speakers=0.05,
    n_speakers=468,
    n_utterances=45360,
    valid_fraction=0.14,
    n_valid_trials=10000,
    crop_seconds=3.0,
    seed=1234,
    num_workers=None,
    skip_prep=False,
    verify=FULL,
):
    """Write `train.csv`, `valid.csv`, `valid_trials.txt` and `speakers.json`.

    A row has ID, duration (seconds), wav, start and stop (samples of the file), speaker and session. Recordings
    that cannot be used are left out, with a warning that counts them, and listed with the reason in
    `skipped_recordings.csv`. Speakers of a trial list neither train nor validate; the log counts them. Nothing is
    done if an earlier run had the same options, and since then no file came, went, or changed its size or its time of
    change, and the files it left out are still bad.

    Arguments
    ---------
    data_folder : str or Path
        Folder of VoxCeleb1, of VoxCeleb2 or of both, in any nesting: `.../<speaker>/<session>/<file>` with `.wav`,
        `.flac`, `.ogg`. `.m4a` needs the program ffmpeg or the package PyAV.
    save_folder : str or Path
        Where the manifests go; made if it is not there.
    other_folders : list of str or Path
        Folders of more training voices, in this layout, or as `<speaker>/<file>`, Speech Commands or Free Spoken
        Digits. Their speakers get the folder's name and a colon as prefix.
    trials : list of str or Path
        Trial lists, each a file, or the name of a published list (`vox1-O-clean`), which is then looked for in
        `data_folder` and its folder `meta`.
    trial_folders : list of str or Path
        Further folders in which the recordings of the trial lists lie.
    split : str
        `speaker`: speakers for validation are no speakers of training. `utterance`: a classification, with the
        utterances of the same speakers on both sides.
    valid_speakers : int or float
        For `speaker`: number of speakers for validation, or the fraction of `data_folder`'s speakers, 2 at least.
    n_speakers, n_utterances : int, optional
        For `utterance`: the speakers with most utterances, ties by name, as many utterances of each as makes this
        total. The defaults are the published sizes. None takes all.
    valid_fraction : float
        For `utterance`: share of the utterances that is for validation.
    n_valid_trials : int
        Trials among the validation recordings at most, half of them target trials. Where there are fewer of
        these, up to ten impostor trials for each.
    crop_seconds : float
        Length of a training crop. Shorter recordings stay, and are counted in the log.
    seed : int
    num_workers : int, optional
        Files opened at a time; by default one or two for each processor, at most 16.
    skip_prep : bool
        Return at once.
    verify : str
        `full` decodes every recording, `header` reads its header and its end.

    Returns
    -------
    prepared : dict
        Paths of the manifests as `train` and `valid`; `valid_trials`, a list whose paths lie in `data_folder`
        or are absolute; `speakers`, a JSON list of the training speakers; `trials`, from the name of each given
        list to its file.

    Raises
    ------
    FileNotFoundError
        If a folder, a trial list, or a recording of a list is missing, or the layout is another.
    ValueError
        If an option is out of range, a list is malformed, or too few speakers are left.

    Example
    -------
    >>> prepare_voxceleb("not/needed", "manifests", skip_prep=True)["valid_trials"].name
    'valid_trials.txt'
    """
    save_folder = Path(save_folder)
    folders = [Path(data_folder), *map(Path, _as_list(other_folders))]
    options = {
        "version": VERSION,
        "split": split,
        "n_valid_trials": n_valid_trials,
        "crop_seconds": crop_seconds,
        "seed": seed,
    }
    if split == "utterance":
        options |= {
            "n_speakers": n_speakers,
            "n_utterances": n_utterances,
            "valid_fraction": valid_fraction,
        }
    else:
        options["valid_speakers"] = valid_speakers
    check_options(options, num_workers)
    check_verify(verify)
    prepared = {
        "train": save_folder / "train.csv",
        "valid": save_folder / "valid.csv",
        "valid_trials": save_folder / "valid_trials.txt",
        "speakers": save_folder / "speakers.json",
    }
    lists = [find_list(one, folders) for one in _as_list(trials)]
    if skip_prep:
        named = name_lists([(one, read_trials(one).name) for one in lists])
        return prepared | {"trials": named}
    recordings = find_recordings(folders)
    tested, named = read_lists(lists, [*_as_list(trial_folders), *folders], recordings)
    record = options | {
        "contents": recordings.fingerprint(),
        "trials": {
            name: hashlib.sha256(one.read_bytes()).hexdigest() for name, one in named.items()
        },
        "tested": hashlib.sha256("\n".join(sorted(tested)).encode()).hexdigest(),
        "verify": verify,
    }
    outputs = [path.is_file() for path in prepared.values()]
    skipped_list = save_folder / SKIPPED
    if all(outputs) and _is_prepared(save_folder / RECORD, record, skipped_list):
        logger.info("the manifests in %s are up to date; preparation skipped", save_folder)
        return prepared | {"trials": named}
    save_folder.mkdir(parents=True, exist_ok=True)
    (save_folder / RECORD).unlink(missing_ok=True)
    found = len(recordings) + len(recordings.skipped)
    recordings.check(num_workers, verify)
    write_skipped(skipped_list, recordings.skipped, found, str(data_folder), things="recordings")
    usable = group_usable(recordings, tested)
    rows = split_recordings(recordings, usable, options)
    write_manifests(prepared, recordings, rows, options, folders)
    write_json(save_folder / RECORD, record)
    return prepared | {"trials": named}


def _as_list(value):
    """A list of one where one path is given; nothing for None."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, Path)) else list(value)


def check_options(options, num_workers):
    """Refuse options out of range with a ValueError."""
    if options["split"] not in SPLITS:
        raise ValueError(f"split must be {' or '.join(SPLITS)}, not {options['split']!r}")
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers must be 1 or more, not {num_workers}")
    if options["n_valid_trials"] < 2:
        raise ValueError(f"n_valid_trials must be 2 or more, not {options['n_valid_trials']}")
    if options["seed"] < 0:
        raise ValueError(f"seed must be 0 or more, not {options['seed']}")
    if not options["crop_seconds"] > 0:
        raise ValueError(f"crop_seconds must be above 0, not {options['crop_seconds']}")


def find_recordings(folders):
    """The recordings of the data folder and of the folders of more voices.

    Raises
    ------
    FileNotFoundError
        If a folder does not exist, or holds no recording in a known layout.
    ValueError
        If a folder is in another one, or has `.m4a` files and nothing that decodes them is installed.
    """
    recordings, prefixes = Recordings(), set()
    places = [os.path.realpath(folder) for folder in folders]
    for number, folder in enumerate(folders):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"{'other_folders' if number else 'data_folder'} {folder} does not exist; "
                "give a folder that holds <speaker>/<session>/<file>.wav"
            )
        for other in range(number):
            if os.path.commonpath([places[number], places[other]]) in (
                places[number],
                places[other],
            ):
                raise ValueError(
                    f"{folder} and {folders[other]} are one folder or lie in one another; give each once"
                )
        prefix = prefix_of(folder, prefixes) if number else ""
        before = len(recordings)
        recordings.add_folder(folder, prefix)
        if len(recordings) == before:
            raise FileNotFoundError(
                f"{folder} is not laid out like VoxCeleb: it has no "
                "<speaker>/<session>/<file> with the ending .wav or .flac"
            )
    warn_of_other_names(recordings, data_folder=folders[0])
    if recordings.doubled:
        logger.info("%d files repeat one beside them in a better format", recordings.doubled)
    count, first = recordings.first_of(".m4a")
    if count and not has_decoder():
        raise ValueError(
            f"{first} and {count - 1} more .m4a files need a decoder: install the program ffmpeg, or pip install av"
        )
    return recordings


def warn_of_other_names(recordings, data_folder):
    """Warn of speakers unlike `id10001` among such: noise or another corpus may lie in the data folder."""
    own = [
        name
        for name, folder in zip(recordings.speakers, recordings.folder_of_speaker, strict=True)
        if folder == 0
    ]
    others = [name for name in own if not re.fullmatch(r"id\d+", name)]
    if 0 < len(others) < len(own):
        logger.warning(
            "%d of %d speakers in %s have other names than id and a number, the first is %s; if their folders hold "
            "no speakers, such as noise, move them elsewhere",
            len(others),
            len(own),
            data_folder,
            others[0],
        )


def prefix_of(folder, taken):
    """A prefix from a folder's name, different from those in `taken`, to which it is added.

    Example
    -------
    >>> prefix_of(Path("data/wake_words"), {"wake_words:"})
    'wake_words-2:'
    """
    name = folder.absolute().name
    prefix, number = f"{name}:", 1
    while prefix in taken:
        number += 1
        prefix = f"{name}-{number}:"
    taken.add(prefix)
    return prefix


def split_recordings(recordings, usable, options):
    """Choose the recordings of both manifests.

    Arguments
    ---------
    recordings : Recordings
    usable : dict of int to list of int
    options : dict
        Checked options of `prepare_voxceleb`.

    Returns
    -------
    rows : dict of str to list of int
        Recordings of `train` and `valid`, sorted.

    Raises
    ------
    ValueError
        If too few speakers are left.
    """
    own = {one: found for one, found in usable.items() if not recordings.folder_of_speaker[one]}
    if len(usable) < 2 or not own:
        raise ValueError(
            f"{len(usable)} speakers are left for training and validation, and {len(own)} of them in data_folder: "
            f"of {len(recordings.speakers)}, others are in the trial lists or have no usable recording"
        )
    if options["split"] == "utterance":
        by_name = {recordings.speakers[one]: found for one, found in usable.items()}
        counts = {name: len(found) for name, found in by_name.items()}
        shares = choose_classes(counts, options["n_speakers"], options["n_utterances"])
        logger.info(
            "classification of the %d speakers with most utterances, %d to %d utterances each, %d in all",
            len(shares),
            min(shares.values()),
            max(shares.values()),
            sum(shares.values()),
        )
        train, valid = split_utterances(by_name, shares, options["valid_fraction"], options["seed"])
        return {"train": train, "valid": valid}
    counts = {one: len(found) for one, found in own.items()}
    chosen = choose_valid_speakers(counts, options["valid_speakers"], options["seed"])
    if len(usable) - len(chosen) < 2:
        raise ValueError(
            f"valid_speakers {options['valid_speakers']} leaves {len(usable) - len(chosen)} of {len(usable)} "
            "speakers for training; at least two must train"
        )
    valid = sorted(index for one in chosen for index in usable[one])
    train = sorted(index for one in usable.keys() - set(chosen) for index in usable[one])
    return {"train": train, "valid": valid}


def _is_prepared(path, record, skipped_list):
    """Whether an earlier run's record still holds: it read as fully, and the files it left out are still bad."""
    ways = dict.fromkeys((record["verify"], FULL))
    way = next((way for way in ways if is_recorded(path, record | {"verify": way})), None)
    # a silent file that is as it was, which the record tells, is silent
    return way is not None and still_bad(skipped_list, way, (*NAME_REASONS, SILENT))
