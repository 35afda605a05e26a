"""Builds streams: clips at random places in other speech, every piece at one level, with the truth in a list.

As in Picovoice's wake-word benchmark (github.com/Picovoice/wake-word-benchmark), words stand in a long recording of
other people's speech, with noise at a signal-to-noise ratio. Here the noise lies under the whole stream.
"""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from data_prep.mixtures.levels import level_of
from data_prep.spoken.backgrounds import SteadyNoise
from data_prep.spoken.corpus import RECORD, new_folder
from data_prep.streams.sources import PARTS, SHORTEST, clips_of, noise_of, seconds_of, speech_of
from mamba_speech.audio import AudioError, load_audio
from mamba_speech.files import write_json

logger = logging.getLogger(__name__)

# Part of the options: raised whenever the same options give another stream than before.
VERSION = 1
SAMPLE_RATE = 16000
# Seconds between two pieces of speech, and around a clip.
SPEECH_PAUSE, CLIP_PAUSE = (0.2, 0.8), (0.4, 1.5)
# Active speech level of the pieces (ITU-T P.56), dB below full scale, and how far a piece may be from it.
LEVEL_DB, SPREAD_DB = -26.0, 3.0
# A soft noise lies under every stream: no room is as silent as digital zeros.
FLOOR_DB = -60.0
LOUDEST = 0.95
# Every piece fades in and out, so that nothing clicks.
FADE_SECONDS = 0.01
CLEAN, TRUTH = "clean", "events.json"


@dataclass(frozen=True)
class Settings:
    """What streams are built from, and how."""

    words: str
    background: tuple
    noise: str | None = None
    snrs: tuple = ()
    seed: int = 1
    data_seed: int = 1
    clips_per_word: int | None = None
    minutes: float | None = None


def build_streams(output_folder, settings, parts=PARTS, overwrite=False):
    """Build the streams of some parts.

    `OUTPUT/<part>/clean.flac`, and `snr_<dB>.flac` for each ratio, hold the same speech; `OUTPUT/<part>/events.json`
    says what is where. Running it again with the same options does nothing.

    Arguments
    ---------
    output_folder : str or Path
    settings : Settings
    parts : sequence of str
        Of `PARTS`.
    overwrite : bool
        Replace streams made with other options.

    Returns
    -------
    truths : dict of str to Path
        The file `events.json` of each part. It has `audio` (the clean file), `sample_rate`, `seconds`,
        `background_seconds` (without the clips), `labels`, `events` (each with `start`, `end`, `label`, `speaker`,
        `clip` and `level_db`), `speech` (the other pieces likewise), `streams` (by condition the file and the `sha256`
        of its samples), `noise` (which recording begins when) and `skipped` (files that could not be read).

    Raises
    ------
    FileNotFoundError, ValueError
        If a folder is missing or holds too little, or the output folder holds something else.
    """
    truths = {}
    for part in parts:
        clips = clips_of(settings.words, part, settings.data_seed)
        words = sorted({clip.word for clip in clips})
        speech = speech_of(settings.background, part, words)
        clips, speech = limited(clips, speech, settings)
        noise = noise_of(settings.noise, part) if settings.snrs else []
        options = {
            "layout": "streams",
            "version": VERSION,
            "part": part,
            "snrs": [float(snr) for snr in settings.snrs],
            "seed": settings.seed,
            "sources": fingerprint([*(one.path for one in [*clips, *speech]), *noise]),
        }
        truths[part] = Path(output_folder) / part / TRUTH
        with new_folder(truths[part].parent, options, overwrite) as folder:
            if folder is None:
                logger.info("%s already holds this stream; nothing to do", truths[part].parent)
                continue
            found = write_streams(folder, clips, speech, noise, settings, part)
            write_json(folder / TRUTH, found | {"part": part, "labels": words})
            write_json(folder / RECORD, {"options": options, "seconds": found["seconds"]})
        logger.info(
            "%s: %d clips in %.2f h of other speech",
            truths[part].parent,
            len(found["events"]),
            found["background_seconds"] / 3600,
        )
    return truths


def limited(clips, speech, settings):
    """Clips and speech, of both no more than the settings allow; the same ones whatever is asked of the other."""
    if settings.clips_per_word:
        random = np.random.default_rng([settings.seed, 4])
        drawn, counts = [clips[index] for index in random.permutation(len(clips))], Counter()
        clips = []
        for clip in drawn:
            counts[clip.word] += 1
            clips += [clip] if counts[clip.word] <= settings.clips_per_word else []
    if settings.minutes:
        random = np.random.default_rng([settings.seed, 5])
        drawn, seconds = [speech[index] for index in random.permutation(len(speech))], 0.0
        speech = []
        for piece in drawn:
            if seconds >= 60 * settings.minutes:
                break
            speech.append(piece)
            seconds += seconds_of(piece.path)
    return clips, speech


def fingerprint(paths):
    """A digest of files' names and sizes, by which streams of other files are told apart."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def in_order(clips, speech, random):
    """Clips and speech in random order, no clip depending on what is around it; a list of Piece."""
    speech = [speech[index] for index in random.permutation(len(speech))]
    clips = [clips[index] for index in random.permutation(len(clips))]
    slots = np.sort(random.integers(len(speech) + 1, size=len(clips)))
    # Backwards, so that the places still to come stay where they are.
    for slot, clip in reversed(list(zip(slots, clips, strict=True))):
        speech.insert(int(slot), clip)
    return speech


def levelled(path, random):
    """A recording at its level in the stream, with soft ends; samples (n,), and the level in dB.

    Raises
    ------
    AudioError
        If it cannot be read, is silent, or shorter than `SHORTEST` seconds.
    """
    wanted = LEVEL_DB + random.uniform(-SPREAD_DB, SPREAD_DB)
    samples = load_audio(path, SAMPLE_RATE).numpy().astype(np.float64)
    level = level_of(samples, SAMPLE_RATE, "active")
    if not np.isfinite(level) or len(samples) < SHORTEST * SAMPLE_RATE:
        raise AudioError(f"{path}: silent, or shorter than {SHORTEST} s")
    gain = min(10 ** ((wanted - level) / 20), LOUDEST / np.abs(samples).max())
    fade = np.linspace(0, 1, round(FADE_SECONDS * SAMPLE_RATE))
    samples[: len(fade)] *= fade
    samples[-len(fade) :] *= fade[::-1]
    return gain * samples, level + 20 * np.log10(gain)


class NoiseTrack:
    """Endless noise of root mean square 1, one recording after another in random order, each at the same power.

    Arguments
    ---------
    paths : list of Path
    random : numpy.random.Generator

    Attributes
    ----------
    told : list of dict
        Which recording begins at which `start` in seconds.
    """

    def __init__(self, paths, random):
        self.told, self._random, self._at = [], random, 0
        self._sounds = {path: self._load(path) for path in paths}
        self._sounds = {path: one for path, one in self._sounds.items() if one is not None}
        if not self._sounds:
            raise ValueError(f"no noise recording is usable, such as {paths[0]}")
        self._queue, self._rest = [], np.zeros(0)

    @staticmethod
    def _load(path):
        try:
            samples = load_audio(path, SAMPLE_RATE).numpy().astype(np.float64)
        except AudioError as error:
            logger.warning("left out: %s", error)
            return None
        power = np.square(samples).mean()
        return samples / np.sqrt(power) if power > 0 else None

    def next(self, count):
        """So many samples more, (count,)."""
        while len(self._rest) < count:
            if not self._queue:
                paths = list(self._sounds)
                self._queue = [paths[index] for index in self._random.permutation(len(paths))]
            path = self._queue.pop()
            start = (self._at + len(self._rest)) / SAMPLE_RATE
            self.told.append({"start": round(start, 4), "file": f"{path.parent.name}/{path.name}"})
            self._rest = np.concatenate([self._rest, self._sounds[path]])
        samples, self._rest = self._rest[:count], self._rest[count:]
        self._at += count
        return samples


class Writer:
    """One stream's file with its digest; what passes full scale is cut off."""

    def __init__(self, path, gain):
        self.path, self.gain = path, gain
        self.digest = hashlib.sha256()
        self._file = soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16")

    def write(self, samples, noise):
        """Append speech (n,), with the noise (n,) at this stream's gain."""
        mixed = samples if noise is None else samples + self.gain * noise
        whole = np.round(np.clip(mixed, -1, 1) * 32767).astype("<i2")
        self._file.write(whole)
        self.digest.update(whole.tobytes())

    def close(self):
        """End the file."""
        self._file.close()


def write_streams(folder, clips, speech, noise, settings, part):
    """Write the streams of one part; the fields of `events.json` but for `part` and `labels`."""
    # every kind of chance has its own source, so that noise does not alter the speech
    randoms = [np.random.default_rng([settings.seed, PARTS.index(part), kind]) for kind in range(4)]
    order, levels, floor = in_order(clips, speech, randoms[0]), randoms[1], randoms[2]
    floor = SteadyNoise(FLOOR_DB, floor)
    writers = {CLEAN: Writer(folder / f"{CLEAN}.flac", 0.0)}
    for snr in settings.snrs:
        gain = 10 ** ((LEVEL_DB - snr) / 20)
        writers[f"{snr:g}"] = Writer(folder / f"snr_{snr:g}.flac", gain)
    track = NoiseTrack(noise, randoms[3]) if noise else None
    found = {"events": [], "speech": [], "skipped": []}
    position, was_clip = 0, False

    def append(samples):
        nonlocal position
        samples = samples + floor.next(len(samples))
        under = track.next(len(samples)) if track else None
        for name, writer in writers.items():
            writer.write(samples, None if name == CLEAN else under)
        position += len(samples)

    try:
        for piece in order:
            pause = levels.uniform(*(CLIP_PAUSE if piece.word or was_clip else SPEECH_PAUSE))
            try:
                samples, level = levelled(piece.path, levels)
            except AudioError as error:
                logger.warning("left out: %s", error)
                found["skipped"].append(str(piece.path))
                continue
            append(np.zeros(round(pause * SAMPLE_RATE)))
            told = {"start": round(position / SAMPLE_RATE, 7)}
            append(samples)
            told["end"] = round(position / SAMPLE_RATE, 7)
            told |= {"speaker": piece.speaker, "level_db": round(level, 2)}
            told["clip"] = f"{piece.path.parent.name}/{piece.path.name}"
            found["events" if piece.word else "speech"].append(
                ({"label": piece.word} if piece.word else {}) | told
            )
            was_clip = bool(piece.word)
        # so that a window around the last clip is whole
        append(np.zeros(2 * SAMPLE_RATE))
    finally:
        for writer in writers.values():
            writer.close()
    if not found["events"]:
        raise ValueError(f"no clip of {part} can be read, such as {clips[0].path}")
    said = sum(one["end"] - one["start"] for one in found["events"])
    streams = {
        name: {"audio": writer.path.name, "sha256": writer.digest.hexdigest()}
        for name, writer in writers.items()
    }
    return {
        "audio": f"{CLEAN}.flac",
        "sample_rate": SAMPLE_RATE,
        "seconds": position / SAMPLE_RATE,
        "background_seconds": round(position / SAMPLE_RATE - said, 4),
        "level_db": LEVEL_DB,
        "streams": streams,
        **found,
        "noise": track.told if track else [],
    }
