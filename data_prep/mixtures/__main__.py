"""Command line of the mixtures: `python -m data_prep.mixtures OUTPUT_FOLDER --speech FOLDER [options]`."""

import argparse
import logging
import os
import sys
from functools import partial
from pathlib import Path

from data_prep.mixtures.build import (
    MODES,
    SAMPLE_RATES,
    Settings,
    build_mixtures,
    check_settings,
    write_speech,
)
from data_prep.mixtures.draw import are_told_apart, choose_splits, draw_mixtures
from data_prep.mixtures.folder import check_folder, claim_folder
from data_prep.mixtures.halves import halve_speakers
from data_prep.mixtures.levels import MEASURES
from data_prep.mixtures.lists import SPLITS, Source, find_lists, read_list
from data_prep.mixtures.sources import CheckedSpeech
from data_prep.mixtures.speech import LAYOUTS, find_speech
from data_prep.verify import FULL, HEADER, write_skipped
from mamba_speech.arguments import jobs, seed, share, some_seconds, whole_number
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

COUNTS = {"train": 2000, "valid": 200, "test": 200}
# What only drawing needs, and nothing else understands.
DRAWING = (
    "layout",
    *COUNTS,
    *(f"{name}_speech" for name in COUNTS),
    "valid_fraction",
    "test_fraction",
    "min_seconds",
    "verify",
    "seed",
)
# What was found out about the recordings, and the list of those that are left out, in the folder of the mixtures.
NOTE, SKIPPED = "recordings.json", "skipped_recordings.csv"


def main(arguments=None):
    """Run the command line; bad options and failures end it with one line on stderr."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    check_options(parser, options)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(options)
    except (ValueError, ImportError, OSError) as error:
        sys.exit(f"error: {error}")


def run(options):
    """Read or draw the lists, then make their mixtures at every rate and in every mode."""
    speech_folder, lists, training = read_lists(options) if options.lists else draw(options)
    for sample_rate in dict.fromkeys(options.sample_rate):
        for mode in dict.fromkeys(options.mode):
            settings = settings_of(options, speech_folder, sample_rate, mode)
            folder = build_mixtures(options.output_folder, lists, settings, options.jobs)
            logger.info("the mixtures are in %s", folder)
        if options.speech_for_dynamic_mixing:
            folder = write_speech(options.output_folder, training, settings, options.jobs)
            logger.info("the speech for dynamic mixing is in %s", folder)


def settings_of(options, speech_folder, sample_rate, mode):
    """What the mixtures of a rate and a mode shall be like."""
    loudness = options.loudness or ("active" if options.wsj0 else "rms")
    return Settings(str(speech_folder), sample_rate, mode, loudness, full_scale=bool(options.wsj0))


def make_parser():
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.mixtures",
        description="Mix single-speaker recordings into a folder like WSJ0-2mix: "
        "wav8k/min/{tr,cv,tt}/{mix,s1,s2}/*.wav, with the lists from which it can be made again. "
        "The same command again makes what is missing.",
    )
    parser.add_argument("output_folder", help="where the mixtures shall stand")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--speech", metavar="FOLDER", help="recordings of single speakers")
    source.add_argument("--wsj0", metavar="FOLDER", help="recordings of WSJ0, with --lists")
    parser.add_argument(
        "--lists",
        nargs="+",
        metavar="FOLDER or SPLIT=FILE",
        help="make the mixtures of these lists: a folder of mix_2_spk_{tr,cv,tt}.txt (WSJ0-2mix) "
        "or of tr.csv, cv.csv, tt.csv (as in OUTPUT_FOLDER/lists), or tr=FILE cv=FILE tt=FILE",
    )
    parser.add_argument("--num_spks", type=int, choices=(2, 3), default=2)
    parser.add_argument(
        "--sample_rate",
        type=int,
        nargs="+",
        choices=SAMPLE_RATES,
        default=[8000],
        help="Hz, one or both (default: 8000)",
    )
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=MODES,
        default=["min"],
        help="cut sources to the shortest, pad them to the longest, or both (default: min)",
    )
    parser.add_argument(
        "--loudness",
        choices=MEASURES,
        help="by which sources are brought to one level before their gains (default: rms, with "
        "--wsj0 active, the level of ITU-T P.56; lufs needs pyloudnorm)",
    )
    parser.add_argument(
        "--speech_for_dynamic_mixing",
        action="store_true",
        help="write the speech of the training speakers, unmixed, as wav8k/speech/<speaker>/*.wav too",
    )
    parser.add_argument(
        "--halve_valid_speakers",
        action="store_true",
        help="with --lists without tt: let half of the validation speakers be test speakers; "
        "mixtures of speakers from both halves are dropped, so the halves are chosen to have few",
    )
    parser.add_argument("--jobs", type=jobs, help="processes (default: one for each processor)")
    add_drawing(parser.add_argument_group("drawing new lists"))
    return parser


def add_drawing(group):
    """Options that only new lists have; None where they were not given."""
    group.add_argument("--layout", choices=LAYOUTS, help="of the speech (default: auto)")
    for split, count in COUNTS.items():
        group.add_argument(
            f"--{split}",
            type=whole_number(0, 10_000_000),
            metavar="N",
            help=f"mixtures; 0: no such split ({count})",
        )
    for split in COUNTS:
        group.add_argument(
            f"--{split}_speech", metavar="FOLDER", help=f"speech for {split}, instead of --speech"
        )
    for split in ("valid", "test"):
        group.add_argument(
            f"--{split}_fraction",
            type=share,
            help="of the speakers, where the folder tells no sets apart (0.1)",
        )
    group.add_argument(
        "--min_seconds", type=some_seconds, help="leave out shorter recordings (default: 1)"
    )
    group.add_argument(
        "--verify",
        choices=(FULL, HEADER),
        help="full: every recording is read before mixtures are drawn, so that none is silent or broken "
        "(default); header: only its header, and such mixtures are left out",
    )
    group.add_argument("--seed", type=seed, help="default: 1234")


def check_options(parser, options):
    """Refuse combinations that mean nothing, and values out of range."""
    given = [name for name in DRAWING if getattr(options, name) is not None]
    folders = [name for name in COUNTS if getattr(options, f"{name}_speech")]
    if not (options.speech or options.wsj0 or folders):
        parser.error("give --speech FOLDER, or --wsj0 FOLDER with --lists")
    if options.wsj0 and not options.lists:
        parser.error("--wsj0 needs the official lists: --lists FOLDER")
    if options.lists and given:
        parser.error(f"--{given[0]} is for new lists, not for those of --lists")
    if options.halve_valid_speakers and not options.lists:
        parser.error("--halve_valid_speakers is for --lists")
    if folders and options.speech:
        parser.error(f"give --speech or --{folders[0]}_speech, not both")
    for name in (*COUNTS, "seed", "min_seconds"):
        if (getattr(options, name) or 0) < 0:
            parser.error(f"--{name} must be 0 or more")
    for name in ("valid_fraction", "test_fraction"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1:
            parser.error(f"--{name} must be between 0 and 1, not {value}")


def read_lists(options):
    """The speech folder, the lists that `--lists` names, and the sources of training."""
    paths = find_lists(options.lists, options.num_spks)
    lists = {split: read_list(path) for split, path in paths.items()}
    for split, mixtures in lists.items():
        found = len(mixtures[0].sources)
        if found != options.num_spks:
            raise ValueError(f"{paths[split]} mixes {found} speakers; set --num_spks {found}")
    if options.halve_valid_speakers:
        if "tt" in lists or "cv" not in lists:
            raise ValueError("--halve_valid_speakers needs a list for cv and none for tt")
        lists["cv"], lists["tt"], across = halve_speakers(lists["cv"])
        logger.info(
            "validation speakers halved: %d mixtures for cv, %d for tt, %d dropped as they are "
            "across",
            len(lists["cv"]),
            len(lists["tt"]),
            len(across),
        )
    warn_of_known_speakers(lists)
    speech_folder = Path(options.wsj0 or options.speech)
    # The official paths begin with the corpus' own folder, which may be the one that was given.
    firsts = [mixtures[0].sources[0].files[0] for mixtures in lists.values()]
    if options.wsj0 and all(name.startswith("wsj0/") for name in firsts):
        speech_folder = speech_folder.absolute()
        if speech_folder.name == "wsj0" and not (speech_folder / "wsj0").is_dir():
            speech_folder = speech_folder.parent
    return speech_folder, lists, [one for mixed in lists.get("tr", ()) for one in mixed.sources]


def warn_of_known_speakers(lists):
    """Say how many test speakers are trained or validated on; in WSJ0-2mix only tr and cv share speakers."""
    heard = {who for split in ("tr", "cv") for one in lists.get(split, ()) for who in one.speakers}
    tested = {who for one in lists.get("tt", ()) for who in one.speakers}
    if heard & tested:
        logger.warning(
            "%d of the %d speakers of tt, %s first, are in tr or cv too: the test will not be of unseen speakers",
            len(heard & tested),
            len(tested),
            min(heard & tested),
        )


def draw(options):
    """The speech folder, new lists, and all recordings of the training speakers."""
    folders = {
        split: getattr(options, f"{name}_speech")
        for name, split in zip(COUNTS, SPLITS, strict=True)
        if getattr(options, f"{name}_speech")
    }
    counts = {
        split: COUNTS[name] if getattr(options, name) is None else getattr(options, name)
        for name, split in zip(COUNTS, SPLITS, strict=True)
    }
    layout = options.layout or "auto"
    if options.speech:
        base = options.speech
        speech = find_speech(base, layout)
    else:
        base, speech = find_separately(folders, layout)
        unwanted = [name for name in COUNTS if getattr(options, name) is None]
        # Without a folder for it, a split is wanted only if it is asked for by number.
        for name, split in zip(COUNTS, SPLITS, strict=True):
            if split not in folders and name in unwanted:
                counts[split] = 0
    seconds = 1.0 if options.min_seconds is None else options.min_seconds
    rates = dict.fromkeys(options.sample_rate)
    checked = CheckedSpeech(
        base,
        seconds,
        [settings_of(options, base, rate, options.mode[0]) for rate in rates],
        options.verify or FULL,
        Path(options.output_folder, NOTE),
        options.jobs,
    )
    # before recordings are read, which may take long
    check_folder(Path(options.output_folder).absolute())
    for one in checked.settings:
        check_settings(one)
    wanted = [split for split in SPLITS if counts[split]]
    choose(options, speech, wanted)
    if are_told_apart(speech, wanted):
        speech = {name: speakers for name, speakers in speech.items() if name in wanted}
    speech = {name: checked.usable(speakers) for name, speakers in speech.items()}
    try:
        lists, training = draw_lists(options, speech, counts, checked.spans)
    except ValueError as error:
        raise ValueError(f"{error}{checked.left_out()}") from error
    claim_folder(Path(options.output_folder).absolute(), lists, checked.settings[0])
    write_json(Path(options.output_folder, NOTE), checked.to_note())
    skipped_list = Path(options.output_folder, SKIPPED)
    write_skipped(skipped_list, checked.skipped, checked.total, str(base), things="recordings")
    return base, lists, training


def draw_lists(options, speech, counts, spans):
    """New lists of the wanted splits, and all recordings of the training speakers."""
    number = seed_of(options)
    splits = choose(options, speech, [split for split in SPLITS if counts[split]])
    # what is padded to the longest holds the sound of all
    fits = partial(overlap, spans) if "min" in options.mode else None
    lists = {
        split: draw_mixtures(speakers, split, counts[split], options.num_spks, number, fits)
        for split, speakers in splits.items()
    }
    speakers = splits.get("tr", {}).items()
    return lists, [Source(name, (file,), 0.0) for name, files in speakers for file in files]


def choose(options, speech, wanted):
    """Who speaks in which split."""
    fractions = {"cv": options.valid_fraction, "tt": options.test_fraction}
    fractions = {split: value for split, value in fractions.items() if value is not None}
    return choose_splits(speech, wanted, options.num_spks, seed_of(options), fractions)


def seed_of(options):
    """The seed of all that is drawn."""
    return 1234 if options.seed is None else options.seed


def overlap(spans, files):
    """Whether each of some recordings has begun to sound before the first of them ends."""
    found = [spans[name] for name in files]
    return max(one.onset for one in found) < min(one.seconds for one in found)


def find_separately(folders, layout):
    """Speech of splits that have a folder each, relative to what these have in common."""
    absolute = {split: os.path.abspath(folder) for split, folder in folders.items()}
    base = os.path.commonpath(absolute.values())
    speech = {}
    for split, folder in absolute.items():
        prefix = os.path.relpath(folder, base)
        for speakers in find_speech(folder, layout).values():
            for speaker, files in speakers.items():
                found = [Path(prefix, file).as_posix() for file in files]
                speech.setdefault(split, {}).setdefault(speaker, []).extend(found)
    return base, speech


if __name__ == "__main__":
    main()
