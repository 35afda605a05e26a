"""Making mixtures from a list: loading, levels, cutting or padding, and writing, in parallel.

The files stand as in WSJ0-2mix, `wav8k/min/{tr,cv,tt}/{mix,s1,s2[,s3]}/<id>.wav`, 16 bit. Every
mixture follows from its line in the list alone, so neither the number of processes nor a kill and a
second run change anything.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.mixtures.folder import (
    claim_folder,
    paths_of,
    rate_folder_of,
    remove_outdated,
    source_names,
)
from data_prep.mixtures.levels import MEASURES, loudness_meter
from data_prep.mixtures.lists import SPLITS, Mixture, natural_name
from data_prep.mixtures.loading import UnusableError, load_files, load_source, resample
from data_prep.mixtures.locate import locate
from data_prep.mixtures.workers import Workers
from data_prep.verify import Skipped, write_skipped
from mamba_speech.files import to_pcm16, write_wav

logger = logging.getLogger(__name__)

MODES = ("min", "max")
SAMPLE_RATES = (8000, 16000)
# Largest amplitude in a mixture or source; WSJ0-2mix has this one.
PEAK = 0.9


@dataclass(frozen=True)
class Settings:
    """What the samples of a mixture depend on, apart from its line in the list.

    Arguments
    ---------
    speech_folder : str
        What the list's paths are relative to.
    sample_rate : int
        Hz, 8000 or 16000; recordings of another rate are resampled.
    mode : str
        `min`: all sources are cut to the shortest; `max`: padded with zeros to the longest.
    loudness : str
        A measure of `level_of`, by which sources are brought to one level.
    full_scale : bool
        Bring the peak of every mixture to 0.9, as WSJ0-2mix; otherwise only those that exceed it.
    """

    speech_folder: str
    sample_rate: int = 8000
    mode: str = "min"
    loudness: str = "rms"
    full_scale: bool = False


def build_mixtures(output_folder, lists, settings, jobs=None, progress=True):
    """Make the mixtures of some lists; those that an earlier run finished are left as they are.

    A mixture is made again if the size or the time of change of one of its recordings is another than when it was made.

    Writes the lists themselves to `lists/<split>.csv`, and mixtures that cannot be made, with the
    reason, to `<folder>/skipped_<split>.csv`. Sources are rounded to 16 bit and the mixture is their sum, so
    it is so exactly; in the official WSJ0-2mix all three are rounded.

    Arguments
    ---------
    output_folder : str or Path
        New, empty, or made by an earlier run with the same lists, level and speech; another mode
        or sample rate goes into folders of its own.
    lists : dict of str to list of Mixture
        The keys are some of `tr`, `cv`, `tt`.
    settings : Settings
    jobs : int, optional
        Processes; by default one for each processor, at most 16.
    progress : bool
        Show a progress bar.

    Returns
    -------
    folder : Path
        The folder that holds `tr`, `cv`, `tt`.

    Raises
    ------
    FileNotFoundError
        If there is no speech folder, or every mixture of a list lacks a recording. Where only some do, these are
        left out; `data_prep.mixtures.locate.Locator` says how recordings are found.
    ImportError
        If the loudness needs a library that is not installed.
    ValueError
        If an option does not fit, the folder holds something else, or no mixture of a list can be
        made.
    """
    check_settings(settings)
    check_lists(lists)
    whole, lacking = find_files(lists, settings.speech_folder)
    output_folder = Path(output_folder).absolute()
    rate_folder = rate_folder_of(output_folder, settings)
    with Workers(jobs, progress) as workers:
        claim_folder(output_folder, lists, settings)
        outputs = {
            path: one.sources
            for split, mixtures in whole.items()
            for one in mixtures
            for path in paths_of(rate_folder / settings.mode / split, one)
        }
        remove_outdated(rate_folder / settings.mode, outputs, settings.speech_folder)
        for split, mixtures in lists.items():
            folder = rate_folder / settings.mode / split
            for name in ("mix", *source_names(mixtures)):
                (folder / name).mkdir(parents=True, exist_ok=True)
            waiting = [
                one for one in whole[split] if not all(map(Path.is_file, paths_of(folder, one)))
            ]
            work = partial(make_mixture, settings=settings, folder=folder)
            skipped = workers.run(work, waiting, len(mixtures), f"mixing {split}")
            skipped += [
                Skipped(name, str(folder / "mix" / f"{name}.wav"), fault)
                for name, fault in lacking[split]
                if not (folder / "mix" / f"{name}.wav").is_file()
            ]
            # beside the split: what is silent where `min` cuts it is not in `max`
            skipped_list = folder.with_name(f"skipped_{split}.csv")
            write_skipped(skipped_list, skipped, len(mixtures), split, things="mixtures")
            if len(skipped) == len(mixtures):
                raise ValueError(f"no mixture of {split} can be made; see {skipped_list}")
    return folder.parent


def check_settings(settings):
    """Refuse settings out of range with a ValueError, a missing library with an ImportError."""
    if settings.sample_rate not in SAMPLE_RATES:
        raise ValueError(f"sample_rate must be 8000 or 16000, not {settings.sample_rate}")
    if settings.mode not in MODES:
        raise ValueError(f"mode must be min or max, not {settings.mode!r}")
    if settings.loudness not in MEASURES:
        raise ValueError(f"loudness must be one of {', '.join(MEASURES)}, not {settings.loudness}")
    if settings.loudness == "lufs":
        loudness_meter(settings.sample_rate)


def check_lists(lists):
    """Refuse lists of unknown splits, and empty ones, with a ValueError."""
    unknown = sorted(lists.keys() - set(SPLITS))
    if unknown or not lists or not all(lists.values()):
        raise ValueError(f"lists must be mixtures for some of {', '.join(SPLITS)}, none empty")


def find_files(lists, speech_folder):
    """The lists with the paths of their recordings on this machine, and mixtures that lack one.

    Returns
    -------
    lists : dict of str to list of Mixture
        Without these mixtures.
    lacking : dict of str to list of (str, str)
        For each split the ids of these mixtures, with the reason.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or every mixture of a split lacks a recording.
    """
    if not Path(speech_folder).is_dir():
        raise FileNotFoundError(f"the speech folder {speech_folder} does not exist")
    found, faults = locate(lists, speech_folder)
    whole, lacking = {}, {}
    for split, mixtures in lists.items():
        whole[split], lacking[split] = [], []
        for one in mixtures:
            missing = [name for source in one.sources for name in source.files if name in faults]
            if missing:
                lacking[split].append((one.id, faults[missing[0]]))
                continue
            sources = (
                replace(source, files=tuple(found[name] for name in source.files))
                for source in one.sources
            )
            whole[split].append(replace(one, sources=tuple(sources)))
        if not whole[split]:
            files = {name for one in mixtures for source in one.sources for name in source.files}
            raise FileNotFoundError(
                f"the list of {split} names {len(files & faults.keys())} recordings of {len(files)} that are not "
                f"found, and no mixture has all of its own: {lacking[split][0][1]}"
            )
    return whole, lacking


def make_mixture(mixture, settings, folder):
    """Write one mixture and its sources, the mixture last.

    Returns
    -------
    skipped : Skipped or None
        Why it could not be made.
    """
    try:
        samples = mix([load_source(source, settings) for source in mixture.sources], settings)
    except UnusableError as error:
        return Skipped(mixture.id, str(folder / "mix" / f"{mixture.id}.wav"), str(error))
    names = [f"s{number}" for number in range(1, len(samples) + 1)]
    for name, waveform in zip((*names, "mix"), (*samples, samples.sum(axis=0)), strict=True):
        path = folder / name / f"{mixture.id}.wav"
        # the next run overwrites what a killed run left
        write_wav(path, waveform.astype(np.int16), settings.sample_rate, unique=False)
    return None


def mix(sources, settings):
    """Bring loaded sources to one length and a common scale.

    Arguments
    ---------
    sources : list of np.ndarray
        Shape (samples,) each, with their gains.
    settings : Settings

    Returns
    -------
    samples : np.ndarray
        Shape (speakers, samples), 16-bit values as int32; their sum is within 16 bit too.

    Raises
    ------
    UnusableError
        If a source is silent in what is left of it.
    """
    lengths = [len(source) for source in sources]
    length = min(lengths) if settings.mode == "min" else max(lengths)
    sources = np.stack([np.pad(one[:length], (0, max(length - len(one), 0))) for one in sources])
    peak = max(np.abs(sources).max(), np.abs(sources.sum(axis=0)).max())
    # a peak of 0 has no scale: all sources are silent, which is found below
    if peak and (settings.full_scale or peak > PEAK):
        sources *= PEAK / peak
    samples = np.round(sources * 32768).astype(np.int32)
    silent = [f"s{number}" for number, one in enumerate(samples, start=1) if not one.any()]
    if silent:
        raise UnusableError(f"{silent[0]} is silent")
    return samples


def write_speech(output_folder, sources, settings, jobs=None, progress=True):
    """Write single speakers for dynamic mixing, `wav8k/speech/<speaker>/<utterance>.wav`.

    They have the sample rate of the mixtures, and their own level. What is there already is left
    as it is; what cannot be used is listed in `wav8k/skipped_speech.csv`.

    Arguments
    ---------
    output_folder : str or Path
    sources : iterable of Source
        Each set of recordings is written once.
    settings : Settings
    jobs : int, optional
        As for `build_mixtures`.
    progress : bool

    Returns
    -------
    folder : Path

    Raises
    ------
    ValueError
        If there are no sources.
    """
    folder = rate_folder_of(output_folder, settings) / "speech"
    paths = {source.files: (source, folder / source.speaker) for source in sources}
    taken = Counter()
    listed = {"": [Mixture("", tuple(source for source, _ in paths.values()))]}
    found, faults = locate(listed, settings.speech_folder)
    skipped = []
    for files, (source, place) in list(paths.items()):
        name = natural_name(source)
        taken[place / name] += 1
        # a/b.wav and a/b.flac, or a/b-c.wav and a/b/c.wav, would be one file
        number = "" if taken[place / name] == 1 else f"_{taken[place / name]}"
        path = place / f"{name}{number}.wav"
        missing = [one for one in files if one in faults]
        if missing:
            skipped.append(Skipped(path.stem, str(path), faults[missing[0]]))
            del paths[files]
            continue
        paths[files] = replace(source, files=tuple(found[one] for one in files)), path
    total = len(paths) + len(skipped)
    if not total:
        raise ValueError("there is no speech for dynamic mixing: no mixtures for training")
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {path: (source,) for source, path in paths.values()}
    remove_outdated(folder, outputs, settings.speech_folder)
    waiting = [one for one in paths.values() if not one[1].is_file()]
    work = partial(write_single, settings=settings)
    with Workers(jobs, progress) as workers:
        skipped += workers.run(work, waiting, len(paths), "speech for dynamic mixing")
    skipped_list = folder.with_name("skipped_speech.csv")
    write_skipped(skipped_list, skipped, total, str(folder), things="recordings")
    return folder


def write_single(item, settings):
    """Write one source at the sample rate of the mixtures and at its own level."""
    source, path = item
    try:
        waveform, rate = load_files(source.files, settings.speech_folder)
    except UnusableError as error:
        return Skipped(path.stem, str(path), str(error))
    waveform = resample(waveform, rate, settings.sample_rate)
    # Resampling may overshoot full scale by a little.
    waveform = waveform * min(32767 / 32768 / max(np.abs(waveform).max(), 1e-9), 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_wav(path, to_pcm16(waveform), settings.sample_rate, unique=False)
    return None
