"""Planning and speaking a corpus: who says what in which scene, then all of it in parallel.

The plan and every utterance follow from the options alone. The number of jobs, and the order in
which they happen to finish, change nothing. A corpus is made beside its place and moved there when
it is whole, with a record of its options by which a second run recognises it.
"""

import hashlib
import json
import os
import queue
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.spoken import acoustics
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.texts import SentenceSource
from data_prep.spoken.voices import Speaker
from mamba_speech.files import read_json

SAMPLE_RATE = 16000
RECORD = "corpus.json"

# An ordinary encoder gives one frame every 40 ms, and CTC needs one for each character and one more
# between equal neighbours. Denser speech is spoken again, more slowly; the margin leaves room for
# speed perturbation.
FRAME_SECONDS = 0.04
FRAMES_PER_SYMBOL = 1.25


@dataclass(frozen=True)
class Utterance:
    """One planned utterance: the `turn`-th of its speaker, and the seed of all that is random."""

    turn: int
    speaker: Speaker
    text: str
    seed: tuple


@dataclass(frozen=True)
class SpokenUtterance:
    """A finished utterance.

    Attributes
    ----------
    utterance : Utterance
    waveform : np.ndarray
        Shape (samples,), int16 at `SAMPLE_RATE`.
    rate : int
        Words a minute: the voice's own, or less where that was too dense.
    scene : acoustics.Scene
    """

    utterance: Utterance
    waveform: np.ndarray
    rate: int
    scene: acoustics.Scene

    @property
    def seconds(self):
        """Duration."""
        return len(self.waveform) / SAMPLE_RATE

    def digest(self):
        """SHA-256 of the samples as little-endian 16-bit integers."""
        return hashlib.sha256(self.waveform.astype("<i2").tobytes()).hexdigest()


class SpeakerPool:
    """Several synthesisers at work at once, each in its own process.

    Arguments
    ---------
    jobs : int, optional
        How many; by default one for each processor, at most 8.

    Raises
    ------
    RuntimeError
        If the engine cannot start.
    """

    def __init__(self, jobs=None):
        jobs = jobs or min(os.cpu_count() or 1, 8)
        self._free = queue.SimpleQueue()
        self._synthesisers = []
        try:
            for _ in range(jobs):
                self._synthesisers.append(Synthesiser())
        except RuntimeError:
            self._close_all()
            raise
        for synthesiser in self._synthesisers:
            self._free.put(synthesiser)
        self._threads = ThreadPoolExecutor(jobs)
        self.version = self._synthesisers[0].version

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._threads.shutdown(cancel_futures=True)
        self._close_all()

    def _close_all(self):
        for synthesiser in self._synthesisers:
            synthesiser.close()

    def speak(self, utterances, noise, finish):
        """Speak utterances and pass each to `finish`; return its answers in the plan's order.

        `finish` takes a `SpokenUtterance` and runs in the worker, so that encoding and writing are
        parallel too.
        """
        return self._threads.map(lambda one: finish(self._speak_one(one, noise)), utterances)

    def map(self, work, items):
        """Call `work(synthesiser, item)` for each item, in parallel; give the answers in order."""
        return self._threads.map(lambda item: self._lend(work, item), items)

    def _lend(self, work, item):
        synthesiser = self._free.get()
        try:
            return work(synthesiser, item)
        finally:
            self._free.put(synthesiser)

    def _speak_one(self, utterance, noise):
        return self._lend(lambda lent, one: speak_utterance(lent, one, noise), utterance)


def speak_utterance(synthesiser, utterance, noise=True):
    """Synthesise one utterance and put it into its scene.

    Arguments
    ---------
    synthesiser : Synthesiser
    utterance : Utterance
    noise : bool
        Whether to add noise and reverberation.

    Returns
    -------
    spoken : SpokenUtterance

    Raises
    ------
    RuntimeError
        If the engine fails, or speaks no sound.
    """
    random = np.random.default_rng(utterance.seed)
    engine_seed = int(random.integers(2**31))
    scene = acoustics.draw_scene(random, noise)
    voice = utterance.speaker.voice
    text = utterance.text[0].upper() + utterance.text[1:] + "."
    symbols = count_symbols(utterance.text)
    while True:
        waveform = synthesiser.speak(voice, text, engine_seed)
        waveform = acoustics.resample(waveform, synthesiser.sample_rate, SAMPLE_RATE)
        waveform = acoustics.trim_silence(waveform, SAMPLE_RATE)
        if len(waveform) == 0:
            raise RuntimeError(f"voice {voice.name} spoke only silence for {utterance.text!r}")
        density = len(waveform) / SAMPLE_RATE / FRAME_SECONDS / symbols
        if density >= FRAMES_PER_SYMBOL or voice.rate <= 80:
            break
        slower = min(int(voice.rate * density / FRAMES_PER_SYMBOL), voice.rate - 5)
        voice = type(voice)(
            voice.base, voice.variant, max(slower, 80), voice.pitch, voice.pitch_range
        )
    waveform = acoustics.apply_scene(waveform, SAMPLE_RATE, scene, random)
    samples = np.round(waveform * 32767).astype(np.int16)
    return SpokenUtterance(utterance, samples, voice.rate, scene)


def count_symbols(text):
    """Frames that CTC needs at least: the characters, and one between equal neighbours."""
    return len(text) + sum(left == right for left, right in pairwise(text))


def speak_split(pool, speakers, grammar, split, seconds, *, seed, noise, finish):
    """Speak one split until it is long enough, the speakers taking turns.

    Arguments
    ---------
    pool : SpeakerPool
    speakers : list of Speaker
    grammar : data_prep.spoken.texts.Grammar
    split : str
        `train`, `dev` or `test`.
    seconds : float
        How much speech is wanted; the result is longer by at most a few utterances.
    seed : int
    noise : bool
    finish : callable
        Takes a `SpokenUtterance`, returns something with the attribute `seconds`.

    Returns
    -------
    finished : list
        What `finish` returned, in the plan's order.
    """
    source = SentenceSource(grammar, split, seed)
    finished, spoken, mean = [], 0.0, 3.0
    layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s of speech [{elapsed}]"
    with tqdm(
        total=seconds, desc=f"speaking {split}", bar_format=layout, mininterval=0.5
    ) as progress:
        while spoken < seconds:
            start = len(finished)
            # The next batch is sized by what is certain to come before it, so that a split always
            # ends at the same utterance.
            batch = [
                Utterance(
                    index // len(speakers),
                    speakers[index % len(speakers)],
                    source.draw(),
                    (seed, zlib.crc32(split.encode()), index),
                )
                for index in range(start, start + ceil((seconds - spoken) / mean))
            ]
            for one in pool.speak(batch, noise, finish):
                finished.append(one)
                progress.update(min(one.seconds, max(seconds - spoken, 0)))
                spoken += one.seconds
            mean = spoken / len(finished)
    return finished


@contextmanager
def new_folder(folder, options, overwrite=False):
    """Give a temporary folder to fill, and move it into place when the block ends well.

    Arguments
    ---------
    folder : str or Path
        Where the corpus shall stand.
    options : dict
        All that determines its content; the block must record it in `corpus.json` under `options`.
    overwrite : bool
        Replace a corpus that was made with other options.

    Yields
    ------
    temporary : Path or None
        None if the same corpus is already there.

    Raises
    ------
    ValueError
        If the folder holds a corpus made with other options and `overwrite` is not set, or holds
        something else.
    """
    folder = Path(folder).absolute()
    if is_present(folder, options, overwrite):
        yield None
        return
    temporary = folder.with_name(folder.name + ".partial")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    yield temporary
    old = folder.with_name(folder.name + ".old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    if old.exists():
        shutil.rmtree(old)


def is_present(folder, options, overwrite=False):
    """Whether a folder already holds the corpus that the options describe.

    Raises
    ------
    ValueError
        As `new_folder`.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another folder for the corpus")
    record = folder / RECORD
    if not record.is_file():
        if any(folder.iterdir()):
            raise ValueError(
                f"{folder} holds something that is not a spoken corpus; choose another folder"
            )
        return False
    try:
        found = read_json(record)["options"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{record} is damaged; delete the folder {folder} or choose another"
        ) from error
    # The record went through JSON, which turns tuples into lists and the like.
    wanted = json.loads(json.dumps(options))
    if found == wanted:
        return True
    if overwrite:
        return False
    differing = sorted(
        key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)
    )
    shown = ", ".join(f"{key} was {found.get(key)}, is {wanted.get(key)}" for key in differing)
    raise ValueError(
        f"{folder} holds a spoken corpus made with other options ({shown}); "
        "choose another folder, or --overwrite to replace it"
    )
