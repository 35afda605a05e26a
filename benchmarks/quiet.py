#!/usr/bin/env python3
"""How often a spotter rings at sounds without a word: digital silence, ten kinds of computed noise, recorded noise.

    python benchmarks/quiet.py results/spotter_mini/1 [--noise FOLDER] [--seconds 30] [--out FOLDER]

Each kind is heard at three levels as one stream, from a seed of its own. The recordings of `--noise` are joined in the
order of their names. Babble is speech of eSpeak NG's test voices, cut to pieces of a quarter of a second, shuffled and
laid over itself six times. Writes quiet.json and quiet_table.json.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import torch
from measure import machine, parse

from data_prep.spoken.acoustics import coloured_noise, rms
from data_prep.spoken.passages import FreeSentences, speak_sentence
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.voices import speaker_table
from mamba_speech.arguments import given_path, number
from mamba_speech.audio import load_audio
from mamba_speech.audio.finding import walk_files
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_json
from mamba_speech.kws.spotter import KeywordSpotter

RATE = 16000
LEVELS_DB = (-60, -30, -12)
SENTENCES, VOICES, PIECE_SECONDS = 24, 6, 0.25


def zeros(samples, random):
    """Digital silence."""
    return np.zeros(samples)


def white(samples, random):
    """White noise."""
    return random.standard_normal(samples)


def pink(samples, random):
    """Pink noise."""
    return coloured_noise(samples, 1.0, random)


def brown(samples, random):
    """Brown noise."""
    return coloured_noise(samples, 2.0, random)


def hum(samples, random):
    """Mains hum: 50 Hz with odd harmonics."""
    time = np.arange(samples) / RATE
    return sum(np.sin(2 * np.pi * 50 * k * time + k) / k for k in (1, 3, 5, 7, 9))


def clicks(samples, random):
    """Single clicks at random times, four a second."""
    sound = np.zeros(samples)
    sound[random.integers(samples, size=4 * samples // RATE + 1)] = random.choice([-1.0, 1.0])
    return sound


def tones(samples, random):
    """A new sine tone every half second, 150 to 4000 Hz."""
    pitch = np.repeat(random.uniform(150, 4000, 2 * samples // RATE + 1), RATE // 2)[:samples]
    return np.sin(2 * np.pi * np.cumsum(pitch) / RATE)


def chords(samples, random):
    """A plucked chord of three notes every 0.6 s, as of music."""
    step = int(0.6 * RATE)
    time = np.arange(step) / RATE
    sound = np.zeros(samples + step)
    for start in range(0, samples, step):
        root = 110 * 2 ** (random.integers(24) / 12)
        for interval in (0, random.choice([3, 4]), 7):
            note = root * 2 ** (interval / 12)
            sound[start : start + step] += sum(
                np.sin(2 * np.pi * note * k * time) / k**1.5 for k in range(1, 7)
            ) * np.exp(-3 * time)
    return sound[:samples]


def wind(samples, random):
    """Brown noise in gusts of some seconds."""
    gusts = np.interp(
        np.arange(samples),
        np.arange(0, samples + RATE, RATE),
        random.random(len(np.arange(0, samples + RATE, RATE))),
    )
    return coloured_noise(samples, 1.8, random) * gusts


def engine(samples, random):
    """A motor: harmonics of a pitch that rises and falls, and noise in its rhythm."""
    time = np.arange(samples) / RATE
    turns = np.cumsum(35 + 15 * np.sin(2 * np.pi * time / 7)) / RATE
    sound = sum(np.sin(2 * np.pi * k * turns + k) / k for k in range(1, 20))
    return sound + 0.3 * random.standard_normal(samples) * (1 + np.sin(2 * np.pi * turns))


def shuffled_babble(speech, samples, random):
    """Pieces of speech in random order, six at a time: the sound of many voices, and no word.

    Arguments
    ---------
    speech : np.ndarray
        (samples,)
    samples : int
    random : np.random.Generator

    Returns
    -------
    np.ndarray
        (samples,)
    """
    length = int(PIECE_SECONDS * RATE)
    pieces = speech[: len(speech) // length * length].reshape(-1, length) * np.hanning(length)
    count = -(-samples // length)
    layers = (
        np.roll(pieces[random.integers(len(pieces), size=count)].ravel(), random.integers(length))
        for _ in range(VOICES)
    )
    return sum(layers)[:samples]


KINDS = {
    one.__name__: one
    for one in (zeros, white, pink, brown, hum, clicks, tones, chords, wind, engine)
}


def spoken_babble(samples, random):
    """Babble of sentences that the test voices say."""
    source = FreeSentences("test", [], seed=99)
    speakers = speaker_table("en", "test", seed=99)
    with Synthesiser() as synthesiser:
        said = [
            speak_sentence(
                synthesiser, speakers[index % len(speakers)].voice, source.draw(), random
            )
            for index in range(SENTENCES)
        ]
    return shuffled_babble(np.concatenate(said), samples, random)


def sounds(seconds, folder=None):
    """Pairs of a kind's name and its sound (samples,): computed ones at full level, a folder's as recorded."""
    samples = round(seconds * RATE)
    for name, kind in {**KINDS, "babble": spoken_babble}.items():
        yield name, kind(samples, np.random.default_rng(zlib.crc32(name.encode())))
    if folder is not None:
        paths = sorted(walk_files(folder, (".wav", ".flac", ".ogg")))
        if not paths:
            raise SystemExit(f"--noise {folder}: holds no recording")
        yield "recorded", np.concatenate([load_audio(path, RATE).numpy() for path in paths])


def at_level(sound, level_db):
    """A sound at a level in dB below full scale, by its root mean square; peaks are cut at full scale."""
    loud = rms(sound)
    scaled = sound * 10 ** (level_db / 20) / loud if loud > 1e-9 else sound
    return torch.from_numpy(np.clip(scaled, -1, 1)).float()


def count(spotter, sound, threshold):
    """Events that a spotter reports in a sound at each level, and the surest of them."""
    events = {
        level: list(spotter.stream(at_level(sound, level).split(RATE), threshold=0.0))
        for level in LEVELS_DB
    }
    surest = max((one.confidence for found in events.values() for one in found), default=0.0)
    rung = {
        level: sum(one.confidence >= threshold for one in found) for level, found in events.items()
    }
    return {"events": rung, "surest": surest, "seconds": len(sound) / RATE}


def table(result):
    """Rows for Markdown."""
    return [
        {"sound": name, "seconds at each level": f"{row['seconds']:.0f}"}
        | {f"events at {level} dB": number for level, number in row["events"].items()}
        | {"surest confidence": f"{row['surest']:.3f}"}
        for name, row in result["sounds"].items()
    ]


def main():
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=given_path, help="output folder of a run of the keyword recipe")
    parser.add_argument("--noise", type=Path, help="folder of recordings without speech")
    parser.add_argument("--seconds", type=number(1, 3600), default=30.0, help="of each sound")
    parser.add_argument("--threshold", type=number(0, 1), default=0.5, help="of an event")
    options = parse(parser, None, rounds=1, threads=1)
    spotter = KeywordSpotter.load(options.run, "cpu")
    found = {
        name: count(spotter, sound, options.threshold)
        for name, sound in sounds(options.seconds, options.noise)
    }
    result = {"machine": machine(), "threshold": options.threshold, "sounds": found}
    write_json(options.out / "quiet.json", result)
    write_json(options.out / "quiet_table.json", table(result))
    print(as_text(table(result)))


if __name__ == "__main__":
    main()
