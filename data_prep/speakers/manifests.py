"""What a preparation of many speakers writes: manifests, the list of speakers, and validation trials."""

import logging
import re

from data_prep.speakers.pairs import draw_trials
from data_prep.trials import write_trials
from mamba_speech.files import write_csv, write_json

logger = logging.getLogger(__name__)

# Validation trials of two speakers for each of one, at most.
IMPOSTORS = 10
COLUMNS = ("ID", "duration", "wav", "start", "stop", "speaker", "session")


def write_manifests(prepared, recordings, rows, options, folders):
    """Write manifests, speakers and validation trials, and log what is in them.

    Arguments
    ---------
    prepared : dict of str to Path
        Where `train`, `valid`, `valid_trials` and `speakers` go.
    recordings : data_prep.speakers.recordings.Recordings
    rows : dict of str to list of int
        Recordings of `train` and `valid`.
    options : dict
        `n_valid_trials`, `crop_seconds` and `seed` of `prepare_voxceleb`.
    folders : list of Path
        Where the sexes of speakers are looked for.

    Raises
    ------
    ValueError
        If the validation recordings give no trials of one kind.
    """
    sessions = group_sessions(recordings, rows)
    sexes, count = read_sexes(folders), options["n_valid_trials"]
    pairs = draw_trials(sessions, sexes, count, options["seed"], ratio=IMPOSTORS)
    targets = sum(label for label, *_ in pairs)
    if not 0 < targets < len(pairs):
        raise ValueError(
            f"the {len(rows['valid'])} validation recordings give {targets} target and {len(pairs) - targets} "
            "impostor trials; take more of them"
        )
    logger.info("validation: %d target and %d impostor trials", targets, len(pairs) - targets)
    path = recordings.listed_path
    trials = [(label, path(left), path(right)) for label, left, right in pairs]
    write_trials(prepared["valid_trials"], trials)
    speakers = {recordings.speakers[recordings.speaker[index]] for index in rows["train"]}
    write_json(prepared["speakers"], sorted(speakers))
    for name, own in rows.items():
        write_csv(prepared[name], COLUMNS, (make_row(recordings, index) for index in own))
        log_counts(name, recordings, own, options["crop_seconds"])


def group_sessions(recordings, rows):
    """The validation recordings by speaker and session.

    A speaker who has one validation recording, but also trains, is joined by a training recording, of another
    session if there is one. So every speaker of a classification has a target trial.

    Arguments
    ---------
    recordings : data_prep.speakers.recordings.Recordings
    rows : dict of str to list of int

    Returns
    -------
    sessions : dict of str to dict of int to list of int
    """
    speaker, session = recordings.speaker, recordings.session
    grouped = {}
    for index in rows["valid"]:
        grouped.setdefault(speaker[index], {}).setdefault(session[index], []).append(index)
    single = {one for one, own in grouped.items() if sum(map(len, own.values())) == 1}
    partners = {}
    for index in rows["train"] if single else ():
        one = speaker[index]
        if one in single:
            here = session[index] in grouped[one]
            if one not in partners or (session[partners[one]] in grouped[one] and not here):
                partners[one] = index
    for one, index in partners.items():
        grouped[one].setdefault(session[index], []).append(index)
    return {recordings.speakers[one]: own for one, own in grouped.items()}


def make_row(recordings, index):
    """The row of a recording, with the columns `COLUMNS`."""
    frames, rate = int(recordings.frames[index]), int(recordings.rate[index])
    return (
        recordings.id(index),
        round(frames / rate, 6),
        recordings.path(index),
        0,
        frames,
        recordings.speakers[recordings.speaker[index]],
        recordings.sessions[recordings.session[index]],
    )


def log_counts(name, recordings, own, crop_seconds):
    """Log how many recordings, hours, short recordings and speakers of one recording there are."""
    seconds = recordings.frames[own] / recordings.rate[own]
    counts = {}
    for index in own:
        counts[recordings.speaker[index]] = counts.get(recordings.speaker[index], 0) + 1
    logger.info(
        "%s: %d speakers, %d recordings, %.2f hours",
        name,
        len(counts),
        len(own),
        seconds.sum() / 3600,
    )
    short = int((seconds < crop_seconds).sum())
    if short:
        logger.info(
            "%s: %d recordings are shorter than %s s; a crop repeats them",
            name,
            short,
            crop_seconds,
        )
    single = sum(count == 1 for count in counts.values())
    if single:
        logger.info("%s: %d speakers have one recording", name, single)


def read_sexes(folders):
    """Sex of the speakers, `m` or `f`, from `vox1_meta.csv` and `vox2_meta.csv` where these are.

    Arguments
    ---------
    folders : list of Path
        They are looked for in the folders and in their folder `meta`.

    Returns
    -------
    sexes : dict of str to str
    """
    sexes = {}
    for folder in folders:
        for file in sorted([*folder.glob("vox?_meta.csv"), *folder.glob("meta/vox?_meta.csv")]):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                # the columns differ between the two corpora
                cells = [cell.strip() for cell in re.split(r"[\t,]", line)]
                speaker = next((cell for cell in cells if re.fullmatch(r"id\d+", cell)), None)
                sex = next((cell for cell in cells if cell in ("m", "f")), None)
                if speaker and sex:
                    sexes[speaker] = sex
    return sexes
