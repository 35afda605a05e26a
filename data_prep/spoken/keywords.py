"""Single words by the voices of a corpus: what the keyword layouts have in common.

A word is spoken at a rate and a pitch near the voice's own, drawn for each time it is said, and
trimmed. Everything random about it follows from its seed.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from data_prep.keywords.splits import which_set
from data_prep.keywords.words import WORDS
from data_prep.spoken import acoustics
from data_prep.spoken.corpus import SAMPLE_RATE
from data_prep.spoken.voices import Speaker

KEYWORDS = WORDS["0.02"]
# What the voices' splits are called in a keyword corpus.
SPLITS = {"train": "train", "dev": "valid", "test": "test"}

# Silence that trimming leaves before and after a word, in seconds, where there is so much.
MARGIN = 0.05

# A word that does not fit into its time is spoken again, so much faster, at most so often.
FASTER, ATTEMPTS = 1.25, 4

# The engine's own limits; pitch and its range go from 0 to 99.
SLOWEST, FASTEST = 80, 450


@dataclass(frozen=True)
class SpokenWord:
    """A word to be said: by whom, for which time, and the seed of all that is random."""

    word: str
    speaker: Speaker
    turn: int
    seed: tuple


def speaker_name(speaker, seed):
    """Eight hexadecimal digits that the corpus' hash rule puts into the speaker's split."""
    for attempt in count():
        text = f"{seed} {speaker.id} {attempt}"
        name = hashlib.sha256(text.encode()).hexdigest()[:8]
        if which_set(f"{name}_nohash_0.wav") == SPLITS[speaker.split]:
            return name


def check_words(words):
    """The words as a list, the 35 of Speech Commands by default.

    Raises
    ------
    ValueError
        If there is none, one is there twice, or one is not made of lower-case letters.
    """
    words = list(KEYWORDS if words is None else words)
    bad = [word for word in words if not (word.isalpha() and word.islower())]
    if not words or bad or len(set(words)) < len(words):
        raise ValueError(
            f"words must be different and in lower-case letters, not {' '.join(bad or words)!r}"
        )
    return words


def speak_word(synthesiser, spoken, seconds, random):
    """Say a word, faster if need be.

    Arguments
    ---------
    synthesiser : data_prep.spoken.synthesiser.Synthesiser
    spoken : SpokenWord
    seconds : float
        Longest duration.
    random : np.random.Generator

    Returns
    -------
    waveform : np.ndarray
        Shape (samples,), at `SAMPLE_RATE`, with at most `MARGIN` of silence on both sides.
    voice : data_prep.spoken.voices.Voice
        As it was spoken.

    Raises
    ------
    RuntimeError
        If the engine fails, or speaks no sound.
    """
    own = spoken.speaker.voice
    voice = replace(
        own,
        rate=int(np.clip(own.rate * random.uniform(0.85, 1.3), SLOWEST, FASTEST)),
        pitch=int(np.clip(own.pitch + random.integers(-12, 13), 0, 99)),
        pitch_range=int(np.clip(own.pitch_range + random.integers(-15, 16), 0, 99)),
    )
    # A statement, a call and a question differ in their melody.
    text = spoken.word.capitalize() + str(random.choice([".", "!", "?"]))
    engine_seed = int(random.integers(2**31))
    longest = int(seconds * SAMPLE_RATE)
    for _ in range(ATTEMPTS):
        waveform = synthesiser.speak(voice, text, engine_seed)
        waveform = acoustics.resample(waveform, synthesiser.sample_rate, SAMPLE_RATE)
        waveform = acoustics.trim_silence(waveform, SAMPLE_RATE, MARGIN)
        if len(waveform) == 0:
            raise RuntimeError(f"voice {voice.name} spoke only silence for {spoken.word!r}")
        if len(waveform) <= longest:
            break
        voice = replace(voice, rate=min(int(voice.rate * FASTER), FASTEST))
    return waveform[:longest], voice
