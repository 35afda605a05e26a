"""From a voice and a text to a waveform, by eSpeak NG in a process of its own.

The result depends on the arguments alone, not on what was spoken before: see `engine` for how.
"""

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

from data_prep.spoken.engine import WORD

ENGINE = Path(__file__).with_name("engine.py")


class Synthesiser:
    """A running eSpeak NG that speaks one text after another.

    The library (GPL-3) is loaded by a separate process. Two calls with equal arguments give equal
    samples, in any order and in any process of the same machine.

    Arguments
    ---------
    events : bool
        Whether :meth:`speak_with_words` may be called. The speech is the same.

    Attributes
    ----------
    sample_rate : int
        Samples per second, 22050 for the stock engine.
    version : str
        The version of eSpeak NG.

    Raises
    ------
    RuntimeError
        If the wheel `espeakng-loader` is not installed, the system cannot fork, or the engine does
        not start.

    Example
    -------
    >>> from data_prep.spoken.voices import Voice
    >>> with Synthesiser() as synthesiser:
    ...     samples = synthesiser.speak(Voice("en-us", "f3"), "good morning")
    >>> samples.ndim, len(samples) > synthesiser.sample_rate // 4
    (1, True)
    """

    def __init__(self, events=False):
        if importlib.util.find_spec("espeakng_loader") is None:
            raise RuntimeError(
                "speaking a corpus needs eSpeak NG: run `pip install espeakng-loader` first"
            )
        if not hasattr(os, "fork"):
            raise RuntimeError("speaking a corpus needs a system with fork: Linux, macOS or WSL")
        self._events = events
        self._process = subprocess.Popen(
            [sys.executable, str(ENGINE), *(["events"] if events else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            info = json.loads(self._reply())
        except RuntimeError:
            self.close()
            raise
        self.sample_rate = info["sample_rate"]
        self.version = info["version"]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def speak(self, voice, text, seed=0):
        """Speak a text.

        Arguments
        ---------
        voice : data_prep.spoken.voices.Voice
            Who speaks, how fast and how high.
        text : str
            Words and punctuation in the language of the voice.
        seed : int
            Seed of the engine's own random numbers (breath, flutter), below 2 ** 31.

        Returns
        -------
        samples : np.ndarray
            Shape (samples,), float32 in [-1, 1), at `sample_rate`.

        Raises
        ------
        RuntimeError
            If the engine knows no such voice or variant, or cannot speak the text.
        """
        return _samples(self._ask(_request(voice, text, seed)))

    def speak_with_words(self, voice, text, seed=0):
        """Speak a text, and tell where its words begin.

        Arguments
        ---------
        voice, text, seed
            See :meth:`speak`.

        Returns
        -------
        samples : np.ndarray
            See :meth:`speak`.
        starts : dict of int to float
            From a word's place among ``text.split()`` to the second at which its first phoneme begins. A word that
            the engine speaks together with the one before is not told.

        Raises
        ------
        RuntimeError
            See :meth:`speak`; if this object was made without `events`.

        Example
        -------
        >>> from data_prep.spoken.voices import Voice
        >>> with Synthesiser(events=True) as synthesiser:
        ...     samples, starts = synthesiser.speak_with_words(Voice("en-us"), "good morning")
        >>> list(starts), 0 <= starts[0] < starts[1] < len(samples) / synthesiser.sample_rate
        ([0, 1], True)
        """
        if not self._events:
            raise RuntimeError("where words begin is told by Synthesiser(events=True)")
        payload = self._ask(_request(voice, text, seed) | {"events": True})
        (length,) = struct.unpack("<I", payload[:4])
        events = json.loads(payload[4 : 4 + length])
        places = _word_starts(events, text)
        starts = {place: sample / self.sample_rate for place, sample in places.items()}
        return _samples(payload[4 + length :]), starts

    def phonemes(self, voice, texts):
        """Transcribe texts.

        Arguments
        ---------
        voice : data_prep.spoken.voices.Voice
            Who would speak them; the accent counts.
        texts : list of str

        Returns
        -------
        phonemes : list of str
            In the engine's notation, with ``_`` between phonemes and marks of stress before vowels.

        Raises
        ------
        RuntimeError
            If the engine knows no such voice.

        Example
        -------
        >>> from data_prep.spoken.voices import Voice
        >>> with Synthesiser() as synthesiser:
        ...     synthesiser.phonemes(Voice("en-us"), ["goat", "ago"])
        ["g_'oU_t", "a#_g_'oU"]
        """
        return json.loads(self._ask({"voice": voice.name, "phonemes": list(texts)}))

    def close(self):
        """End the engine's process."""
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    def _ask(self, request):
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise RuntimeError("the eSpeak NG process has ended; start a new one") from error
        return self._reply()

    def _reply(self):
        header = self._process.stdout.read(5)
        if len(header) < 5:
            raise RuntimeError(
                f"the eSpeak NG process ended unexpectedly (status {self._process.wait()}); "
                "its messages stand above"
            )
        payload = self._process.stdout.read(struct.unpack("<I", header[1:])[0])
        if header[:1] == b"E":
            raise RuntimeError(payload.decode())
        return payload


def _request(voice, text, seed):
    return {
        "voice": voice.name,
        "rate": voice.rate,
        "pitch": voice.pitch,
        "range": voice.pitch_range,
        # Louder settings clip in several variants.
        "volume": 50,
        "text": text,
        "seed": seed,
    }


def _samples(payload):
    return np.frombuffer(payload, dtype="<i2").astype(np.float32) / 32768


def _word_starts(events, text):
    """From the places of words to the samples at which their first phonemes begin.

    A word's own event stands before the pause that may precede it.
    """
    places = {match.start(): place for place, match in enumerate(re.finditer(r"\S+", text))}
    starts, place = {}, None
    for kind, sample, position, name in events:
        if kind == WORD:
            place = places.get(position - 1)
        elif place is not None and name.strip("_:"):
            starts.setdefault(place, sample)
            place = None
    return starts
