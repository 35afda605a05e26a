"""Sentences without keywords: the other speech of a keyword corpus and of the recording for spotters.

Sentences come from a split's own part of the grammar, so that what trains is never what tests.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from tqdm import tqdm

from data_prep.spoken import acoustics
from data_prep.spoken.corpus import SAMPLE_RATE
from data_prep.spoken.keywords import KEYWORDS, MARGIN, speaker_name
from data_prep.spoken.texts import Grammar, SentenceSource
from data_prep.spoken.voices import Speaker

# Seconds of silence before a sentence.
SENTENCE_PAUSE = (0.2, 0.8)
# Of a passage: some ten seconds by one voice in one place.
SENTENCES = 4
# Of a passage of near misses.
MISSES = 8
# Things are spoken in batches of at most so many, until there is enough speech.
BATCH = 16


@dataclass(frozen=True)
class Said:
    """Something that was said: by whom, which words, and the samples (samples,) as int16."""

    speaker: str
    text: str
    samples: np.ndarray

    @property
    def seconds(self):
        """Duration."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Passage:
    """Sentences to be said by one speaker, for which time, and the seed of all that is random."""

    speaker: Speaker
    turn: int
    sentences: tuple
    seed: tuple


class FreeSentences:
    """An endless source of sentences of one split that hold no keyword.

    Arguments
    ---------
    split : str
        `train`, `dev` or `test`.
    words : list of str
        Forbidden besides the 35 words of Speech Commands.
    seed : int

    Example
    -------
    >>> sentence = FreeSentences("train", ["tree"], seed=1).draw()
    >>> "tree" in sentence.lower().split()
    False
    """

    def __init__(self, split, words, seed):
        self._source = SentenceSource(Grammar("en"), split, seed)
        self._forbidden = set(KEYWORDS) | set(words)

    def draw(self):
        """A new sentence; RuntimeError if the grammar has no more."""
        while True:
            sentence = self._source.draw()
            if not self._forbidden & set(sentence.lower().split()):
                return sentence


def speak_until(pool, seconds, plan, speak, description):
    """Speak one thing after another until there is enough.

    Arguments
    ---------
    pool : data_prep.spoken.corpus.SpeakerPool
    seconds : float
        What the things shall last together.
    plan : callable
        From the number of a thing to what is to be said; called in order, for some too many.
    speak : callable
        From a synthesiser and that to something with the attribute `seconds`.
    description : str
        For the progress bar.

    Returns
    -------
    said : list
        What `speak` gave, in order. The size of the batches does not alter it.
    """
    said, total = [], 0.0
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of speech [{elapsed}]"
    with tqdm(total=seconds, desc=description, bar_format=layout, mininterval=0.5) as progress:
        while total < seconds:
            start = len(said)
            # About as many as are wanting, so that little is spoken in vain.
            wanting = ceil((seconds - total) * start / total) if start else BATCH // 4
            batch = [plan(start + index) for index in range(min(wanting, BATCH))]
            for one in pool.map(speak, batch):
                # What the last batch has too much is dropped.
                if total < seconds:
                    said.append(one)
                    progress.update(min(one.seconds, seconds - total))
                    total += one.seconds
    return said


def speak_sentence(synthesiser, voice, text, random):
    """Speak a sentence, clean and trimmed; (samples,) at `SAMPLE_RATE`."""
    spoken = text[0].upper() + text[1:] + "."
    waveform = synthesiser.speak(voice, spoken, int(random.integers(2**31)))
    waveform = acoustics.resample(waveform, synthesiser.sample_rate, SAMPLE_RATE)
    return acoustics.trim_silence(waveform, SAMPLE_RATE, MARGIN)


def speak_passage(synthesiser, passage, noise):
    """Speak the sentences of a passage with pauses between, in one scene; a `Said`.

    The scene (room, noise, level) is one that a clip of a word may have too.
    """
    random = np.random.default_rng(passage.seed)
    scene = acoustics.draw_scene(random, noise)
    parts = []
    for text in passage.sentences:
        parts.append(np.zeros(int(random.uniform(*SENTENCE_PAUSE) * SAMPLE_RATE)))
        parts.append(speak_sentence(synthesiser, passage.speaker.voice, text, random))
    waveform = acoustics.apply_scene(np.concatenate(parts[1:]), SAMPLE_RATE, scene, random)
    samples = np.round(waveform * 32767).astype("<i2")
    name = speaker_name(passage.speaker, passage.seed[0])
    return Said(name, ". ".join(passage.sentences) + ".", samples)


def speak_passages(pool, speakers, split, seconds, words, seed, noise, misses=()):
    """Speak passages until there is enough, the speakers taking turns.

    With near misses, every second passage of a speaker holds these, one at a time with pauses between, as keywords are
    said.

    Arguments
    ---------
    pool : data_prep.spoken.corpus.SpeakerPool
    speakers : list of Speaker
        Of the split.
    split : str
        `train`, `dev` or `test`.
    seconds : float
    words : list of str
        The keywords.
    seed : int
    noise : bool
    misses : list of str, optional
        Words and phrases that sound like a keyword.

    Returns
    -------
    said : list of Said
    """
    source = FreeSentences(split, words, seed)

    def plan(index):
        turn, number = divmod(index, len(speakers))
        speaker = speakers[number]
        if misses and turn % 2:
            random = np.random.default_rng([seed, 8, speaker.id, turn])
            sentences = tuple(str(one) for one in random.choice(misses, MISSES))
        else:
            sentences = tuple(source.draw() for _ in range(SENTENCES))
        return Passage(speaker, turn, sentences, (seed, 7, speaker.id, turn))

    return speak_until(
        pool,
        seconds,
        plan,
        lambda lent, passage: speak_passage(lent, passage, noise),
        f"speaking sentences for {split}",
    )
