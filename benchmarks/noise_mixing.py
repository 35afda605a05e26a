"""Test clips and test noises: which noise each clip gets, and how loud, for the measurement under noise.

The ratio of speech to noise (SNR) is the clip's active speech level (ITU-T P.56, without pauses) over the mean power of
the noise. A clip gets the same piece of noise at every ratio and for every system.
"""

import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.keywords.clips import SILENCE, UNKNOWN
from data_prep.mixtures.levels import active_power
from data_prep.speechcommands_prepare import prepare_speechcommands
from mamba_speech.audio import AudioError, find_audio, load_audio
from training.manifests import read_manifest

COLUMNS = ("wav", "start", "stop", "label", "speaker")
PARTS = ("train", "valid", "test")
# talkers of a babble, and its recordings
TALKERS, BABBLES = 6, 6
SECONDS = 5.0
# a piece this far below its recording's mean level holds none of the noise
QUIET_DB = 10.0


@dataclass(frozen=True)
class Clip:
    """A word of a test set: where it stands, and who says which."""

    name: str
    wav: str
    start: int
    stop: int
    label: str
    speaker: str

    def load(self, rate):
        """The waveform (samples,) at so many samples a second."""
        return load_audio(self.wav, rate, self.start, self.stop)


@dataclass(frozen=True)
class Noise:
    """A noise recording (samples,), and its kind."""

    kind: str
    waveform: np.ndarray


def run_clips(run):
    """The test clips of a finished run, silence left out.

    Raises
    ------
    SystemExit
        If the run has no manifest of its test.
    """
    path = Path(run) / "test.csv"
    if not path.is_file():
        raise SystemExit(
            f"{path} is missing: name a finished run of the keyword recipe, or give --data_folder"
        )
    return _clips(path)


def corpus_clips(folder, labels, split, parts, clip_seconds):
    """The clips of a corpus that a run was not trained on, by the run's classes.

    Arguments
    ---------
    folder : str or Path
    labels : list of str
        Classes of the run.
    split : str
        See :func:`data_prep.speechcommands_prepare.prepare_speechcommands`.
    parts : list of str
        Of ``PARTS``, what of the corpus is tested on.
    clip_seconds : float

    Raises
    ------
    SystemExit
        If the corpus cannot be used.
    """
    words = [label for label in labels if label not in (UNKNOWN, SILENCE)]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = prepare_speechcommands(
                folder,
                scratch,
                n_classes=words,
                split=split,
                unknown_percentage=10 if UNKNOWN in labels else 0,
                silence_percentage=0,
                clip_seconds=clip_seconds,
            )
        except (OSError, ValueError) as error:
            raise SystemExit(f"--data_folder: {error}") from error
        return [clip for part in parts for clip in _clips(found[part])]


def _clips(path):
    rows = read_manifest(path, COLUMNS)
    return [
        Clip(name, row["wav"], int(row["start"]), int(row["stop"]), row["label"], row["speaker"])
        for name, row in sorted(rows.items())
        if row["label"] != SILENCE
    ]


def read_noises(folders, rate, fold=None):
    """The noise recordings in folders, searched through and through.

    Arguments
    ---------
    folders : list of str
    rate : int
        Samples a second.
    fold : str, optional
        Beginning of a file's name, before the first ``-``: in ESC-10 it is the fold. Other files are left out. By
        default every recording is taken.

    Returns
    -------
    list of Noise
        The kind is the name of the recording's folder.

    Raises
    ------
    SystemExit
        If there is no recording that can be read, or one cannot be.
    """
    noises = []
    try:
        for path in map(Path, find_audio(folders)):
            if fold is None or path.name.partition("-")[0] == fold:
                noises.append(Noise(path.parent.name, load_audio(path, rate).numpy()))
    except (AudioError, OSError) as error:
        raise SystemExit(f"--noises: {error}") from error
    noises = [noise for noise in noises if noise.waveform.any()]
    if not noises:
        which = "" if fold is None else f" of fold {fold}"
        raise SystemExit(f"--noises {' '.join(folders)}: there is no noise recording{which}")
    return noises


def make_babble(folder, rate, seed):
    """Babble: several talkers at once, of recordings in which the keywords are of no account.

    Arguments
    ---------
    folder : str
        Recordings of speech; each folder in it counts as one talker.
    rate, seed : int

    Returns
    -------
    list of Noise
    """
    try:
        paths = [Path(path) for path in find_audio([folder])]
    except (AudioError, OSError) as error:
        raise SystemExit(f"--babble: {error}") from error
    by_talker = {}
    for path in paths:
        by_talker.setdefault(path.parent, []).append(path)
    if len(by_talker) < 3:
        raise SystemExit(f"--babble {folder}: three folders of talkers are needed at least")
    random, noises = np.random.default_rng(seed), []
    talkers = sorted(by_talker)
    for _ in range(BABBLES):
        total = np.zeros(round(SECONDS * rate))
        for index in random.permutation(len(talkers))[:TALKERS]:
            own = by_talker[talkers[index]]
            voice = load_audio(own[random.integers(len(own))], rate).numpy()
            voice = np.resize(voice, len(total)) if len(voice) < len(total) else voice
            start = random.integers(len(voice) - len(total) + 1)
            voice = voice[start : start + len(total)].astype(float)
            total += voice / max(np.sqrt(np.square(voice).mean()), 1e-8)
        noises.append(Noise("babble", total.astype(np.float32)))
    return noises


def draw_noise(noises, name, samples, seed):
    """The noise of a clip: which recording, and a piece (samples,) of power 1.

    Arguments
    ---------
    noises : list of Noise
    name : str
        Name of the clip, on which and on the seed the draw depends.
    samples, seed : int

    Returns
    -------
    (str, np.ndarray)
        Kind and piece.
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    # every kind as often as the others, however many recordings it has
    kinds = sorted({noise.kind for noise in noises})
    kind = kinds[random.integers(len(kinds))]
    own = [noise.waveform for noise in noises if noise.kind == kind]
    waveform = own[random.integers(len(own))]
    if len(waveform) < samples:
        waveform = np.resize(waveform, samples)
    least = 10 ** (-QUIET_DB / 10) * np.square(waveform).mean()
    for _ in range(50):
        start = random.integers(len(waveform) - samples + 1)
        piece = waveform[start : start + samples]
        if np.square(piece).mean() >= least:
            break
    return kind, piece / max(np.sqrt(np.square(piece).mean()), 1e-8)


def mix(clip, piece, snr, rate):
    """A clip (samples,) with a noise of power 1 at a ratio in dB to its active speech."""
    power = active_power(np.asarray(clip, dtype=float), rate)
    noisy = np.asarray(clip, dtype=float) + piece * np.sqrt(power * 10 ** (-snr / 10))
    return noisy.astype(np.float32)


def default_noises():
    """Where test noises are looked for: real ones in ``$SPEECH_DATA``, if it is set.

    Returns
    -------
    (list of str, str or None)
        Folders of noise, and a folder of talkers.
    """
    data = os.environ.get("SPEECH_DATA")
    if not data:
        return [], None
    return [str(Path(data) / "noise_rir" / "noise")], str(Path(data) / "librispeech_asr")
