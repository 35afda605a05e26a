"""Background recordings without speech for a keyword corpus: its own, a folder's, or computed ones.

Silence is cropped from them, and training mixes them into the clips.
"""

import logging
from pathlib import Path

import numpy as np
import soundfile

from data_prep.keywords.clips import NOISE_FOLDER, SUFFIXES
from data_prep.keywords.phrases import Phrases
from data_prep.keywords.words import list_audio
from mamba_speech.audio.finding import walk_files
from mamba_speech.files import read_json, to_pcm16, write_json

logger = logging.getLogger(__name__)

COMPUTED = "computed"
FOLDER = "background"
RECORD = "background.json"
# raised when the same seed gives other noise than before
VERSION = 1
RATE = 16000
SECONDS = 40.0
# the level changes every so often, between these in dB of full scale
STEP_SECONDS, LEVELS_DB = 2.0, (-60.0, -12.0)


def list_noise(root, background, words, save_folder, seed):
    """The noise recordings of a corpus, without files whose name or folder holds a keyword.

    Arguments
    ---------
    root : Path
        The corpus, whose `_background_noise_` counts in every case.
    background : str or Path or None
        `computed` adds computed noises, and any other name the recordings of that folder, at any depth.
    words : list of str
        The keywords.
    save_folder : Path
        Where computed noises go, into the folder `background`.
    seed : int
        Of computed noises.

    Returns
    -------
    noise : list of Path

    Raises
    ------
    FileNotFoundError
        If the folder is not there, or holds no recording.
    """
    own = list_audio(root / NOISE_FOLDER)
    found = _without_words(own, root / NOISE_FOLDER, words)
    if str(background) == COMPUTED:
        return found + compute_backgrounds(Path(save_folder) / FOLDER, seed)
    if background is None:
        return found
    folder = Path(background).absolute()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"background {folder} does not exist: give a folder of noise, or set it to {COMPUTED}"
        )
    more = _without_words(walk_files(folder, SUFFIXES), folder, words)
    if not more:
        raise FileNotFoundError(
            f"background {folder} holds no recording without a keyword in its name: give another folder, or set it to "
            f"{COMPUTED}"
        )
    return found + more


def _without_words(paths, folder, words):
    phrases = Phrases(words)
    free = [path for path in paths if not phrases.named(path, folder)]
    if len(free) < len(paths):
        named = next(path for path in paths if path not in set(free))
        logger.warning(
            "%d of %d background recordings have a keyword in their names and are left out, %s first",
            len(paths) - len(free),
            len(paths),
            named,
        )
    return free


def compute_backgrounds(folder, seed, seconds=SECONDS):
    """Write a recording of each kind of noise, and one of digital silence, unless they are there already.

    Arguments
    ---------
    folder : Path
    seed : int
    seconds : float
        Length of each.

    Returns
    -------
    paths : list of Path

    Example
    -------
    >>> import tempfile
    >>> [path.stem for path in compute_backgrounds(Path(tempfile.mkdtemp()) / "noise", 1, 2.0)][:3]
    ['blue_noise', 'brown_noise', 'clicks']
    """
    from data_prep.spoken.backgrounds import BACKGROUNDS

    kinds = {name: _known(name) for name in BACKGROUNDS} | {
        "blue_noise": _coloured(-1.0),
        "brown_noise": _coloured(2.0),
        "clicks": _clicks,
        "digital_silence": _nothing,
        "tones": _tones,
    }
    paths = [folder / f"{name}.wav" for name in sorted(kinds)]
    record = {"version": VERSION, "seed": seed, "seconds": seconds}
    if _is_there(folder, record) and all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        random = np.random.default_rng([seed, 3, number])
        noise = kinds[path.stem](round(seconds * RATE), random)
        soundfile.write(path, to_pcm16(_levelled(noise, random)), RATE, subtype="PCM_16")
    write_json(folder / RECORD, record)
    return paths


def _is_there(folder, record):
    try:
        return read_json(folder / RECORD) == record
    except (OSError, ValueError):
        return False


def _levelled(noise, random):
    """The noise at levels that change from step to step."""
    from data_prep.spoken.acoustics import rms

    size = round(STEP_SECONDS * RATE)
    steps = random.uniform(*LEVELS_DB, -(-len(noise) // size))
    noise = noise / max(rms(noise), 1e-8)
    # through the levels in a straight line, so that no step is heard as a click
    levels = np.interp(np.arange(len(noise)), np.arange(len(steps)) * size, steps)
    return np.clip(noise * 10 ** (levels / 20), -0.98, 0.98).astype(np.float32)


def _known(name):
    from data_prep.spoken.backgrounds import BACKGROUNDS

    return lambda samples, random: BACKGROUNDS[name](samples, RATE, random)


def _coloured(slope):
    from data_prep.spoken.acoustics import coloured_noise

    return lambda samples, random: coloured_noise(samples, slope, random)


def _clicks(samples, random):
    """Single impulses, at random some five a second."""
    return random.standard_normal(samples) * (random.random(samples) < 5 / RATE)


def _nothing(samples, random):
    return np.zeros(samples)


def _tones(samples, random):
    """Steady tones and beeps, each half a second long, with pauses."""
    size = RATE // 2
    time = np.arange(size) / RATE
    pieces = [
        np.sin(2 * np.pi * random.uniform(80, 6000) * time) * np.hanning(size) ** 0.25
        if random.random() < 0.7
        else np.zeros(size)
        for _ in range(-(-samples // size))
    ]
    return np.concatenate(pieces)[:samples]
