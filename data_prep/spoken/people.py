"""Who a corpus of speakers is made of: voices that differ enough to be different people.

The engine's variants are few and some resemble each other, so a person also has a length of the vocal tract. Two
people with the same variant never share both the tract and the pitch. In each session a person speaks a little
faster or slower and higher or lower, and stays far nearer to itself than to others of that variant.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from data_prep.spoken import acoustics
from data_prep.spoken.corpus import SAMPLE_RATE
from data_prep.spoken.voices import Voice, speaker_table

# Formants and pitch, times the engine's own: a long, a middle and a short vocal tract.
TRACTS = (0.89, 1.0, 1.12)
TRACT_SPREAD = 0.015
# The engine's own is 50.
PITCHES = (36, 64)
PITCH_SPREAD = 5
CELLS = [(tract, pitch) for tract in TRACTS for pitch in PITCHES]

# How far a session and an utterance may be from the person.
SESSION_RATE, SESSION_PITCH = 0.12, 3
UTTERANCE_RATE, UTTERANCE_PITCH = 0.06, 1

SLOWEST, FASTEST = 80, 450


@dataclass(frozen=True)
class Person:
    """Somebody who speaks.

    Arguments
    ---------
    id : int
    split : str
        `train` or `test`.
    sex : str
        `M` or `F`.
    voice : Voice
    tract : float
        All frequencies of the voice are multiplied by it.
    """

    id: int
    split: str
    sex: str
    voice: Voice
    tract: float

    @property
    def name(self):
        """The name in VoxCeleb's form, beyond the numbers of VoxCeleb's and LibriSpeech's own speakers.

        Example
        -------
        >>> Person(1001, "train", "F", Voice("en-us", "f3"), 1.0).name
        'id21001'
        """
        return f"id{20000 + self.id}"


def people(split, count, seed):
    """Draw people.

    Arguments
    ---------
    split : str
        `train` or `test`; they share no accent and no variant of the vocal tract.
    count : int
        Up to 330 for training and 48 for test.
    seed : int

    Returns
    -------
    people : list of Person
        Women and men by turns, while there are.

    Raises
    ------
    ValueError
        If there are not so many.

    Example
    -------
    >>> [person.sex for person in people("test", 4, seed=1)]
    ['F', 'M', 'F', 'M']
    """
    pairs = speaker_table("en", split, None, seed)
    most = len({one.voice.variant for one in pairs}) * len(CELLS)
    if not 2 <= count <= most:
        raise ValueError(f"there are 2 to {most} voices for {split}, not {count}")
    random = np.random.default_rng([seed, 21, len(split)])
    cells = {one.voice.variant: random.permutation(CELLS).tolist() for one in pairs}
    found, uses = [], Counter()
    for turn in range(count * len(CELLS)):
        one = pairs[turn % len(pairs)]
        variant = one.voice.variant
        if len(found) == count or uses[variant] == len(CELLS):
            continue
        tract, pitch = cells[variant][uses[variant]]
        uses[variant] += 1
        tract = round(tract * (1 + random.uniform(-TRACT_SPREAD, TRACT_SPREAD)), 4)
        pitch = int(pitch + random.integers(-PITCH_SPREAD, PITCH_SPREAD + 1))
        voice = replace(one.voice, pitch=pitch)
        found.append(Person(pairs[0].id + len(found), split, one.sex, voice, tract))
    return found


@dataclass(frozen=True)
class Session:
    """One time and place at which a person speaks.

    Arguments
    ---------
    rate : float
        The voice's rate is multiplied by it.
    pitch : int
        Added to the voice's pitch.
    scene : acoustics.Scene
    tilt : float
        Of the microphone: the spectrum falls by so many dB an octave, or rises.
    room : tuple
        Seed of the room's fine structure.
    """

    rate: float
    pitch: int
    scene: acoustics.Scene
    tilt: float
    room: tuple


def draw_session(seed, noise):
    """Draw a session from its seed, a tuple of int; without noise there is no room and no tilt either."""
    random = np.random.default_rng(seed)
    rate = 1 + float(random.uniform(-SESSION_RATE, SESSION_RATE))
    pitch = int(random.integers(-SESSION_PITCH, SESSION_PITCH + 1))
    scene = acoustics.draw_scene(random, noise)
    tilt = round(float(random.uniform(-1.5, 1.5)), 2) if noise else 0.0
    return Session(rate, pitch, scene, tilt, (*seed, 1))


def speak_in_session(synthesiser, person, session, text, random):
    """Let a person say something in a session.

    Arguments
    ---------
    synthesiser : data_prep.spoken.synthesiser.Synthesiser
    person : Person
    session : Session
    text : str
        Sentences with their punctuation.
    random : np.random.Generator

    Returns
    -------
    waveform : np.ndarray
        Shape (samples,), float32 at `SAMPLE_RATE`, silence at the ends cut to 50 ms.

    Raises
    ------
    RuntimeError
        If the engine fails, or speaks no sound.
    """
    own = person.voice
    rate = own.rate * session.rate * (1 + random.uniform(-UTTERANCE_RATE, UTTERANCE_RATE))
    pitch = own.pitch + session.pitch + random.integers(-UTTERANCE_PITCH, UTTERANCE_PITCH + 1)
    # Playing it faster moves formants and pitch; the engine speaks so much slower.
    voice = replace(
        own,
        rate=int(np.clip(rate / person.tract, SLOWEST, FASTEST)),
        pitch=int(np.clip(pitch, 0, 99)),
    )
    waveform = synthesiser.speak(voice, text, int(random.integers(2**31)))
    # A multiple of 100 keeps the filter of the resampling short.
    played_at = round(synthesiser.sample_rate * person.tract / 100) * 100
    waveform = acoustics.resample(waveform, played_at, SAMPLE_RATE)
    waveform = acoustics.trim_silence(waveform, SAMPLE_RATE)
    if len(waveform) == 0:
        raise RuntimeError(f"voice {voice.name} spoke only silence for {text!r}")
    scene = session.scene
    if scene.rt60 is not None:
        room = np.random.default_rng(session.room)
        waveform = acoustics.reverberate(waveform, SAMPLE_RATE, scene.rt60, scene.direct_db, room)
    waveform = tilt_spectrum(waveform, session.tilt)
    return acoustics.apply_scene(waveform, SAMPLE_RATE, replace(scene, rt60=None), random)


def tilt_spectrum(waveform, decibels):
    """Let the spectrum rise by so many dB an octave around 1 kHz, within three octaves on both sides.

    Arguments
    ---------
    waveform : np.ndarray
        Shape (samples,), at `SAMPLE_RATE`.
    decibels : float

    Returns
    -------
    waveform : np.ndarray
        Same shape.

    Example
    -------
    >>> tone = np.sin(2 * np.pi * 2000 / SAMPLE_RATE * np.arange(16000))
    >>> round(float(np.abs(tilt_spectrum(tone, 6.0206)).max()), 2)
    2.0
    """
    if not decibels:
        return waveform
    length = next_fast_len(len(waveform), real=True)
    frequency = rfftfreq(length, 1 / SAMPLE_RATE)
    octaves = np.clip(np.log2(np.maximum(frequency, 1.0) / 1000), -3, 3)
    spectrum = rfft(waveform, n=length) * 10 ** (decibels * octaves / 20)
    return irfft(spectrum, n=length)[: len(waveform)]
