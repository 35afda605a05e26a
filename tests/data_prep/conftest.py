"""Corpora for the tests of `data_prep`: one spoken once for all of them, and plain tones."""

import numpy as np
import pytest
import soundfile

from data_prep.speechcommands_prepare import prepare_speechcommands
from data_prep.spoken import generate_librispeech
from tests.support.keyword_manifests import SPEAKERS
from tests.support.mixing import write_noise

TINY = {"hours": 0.006, "dev_minutes": 0.15, "test_minutes": 0.25, "seed": 3, "train_voices": 4}


@pytest.fixture(scope="session")
def tiny_options():
    """Options of `spoken_corpus`: some ten training utterances, fewer of the others."""
    return dict(TINY)


@pytest.fixture(scope="session")
def spoken_corpus(tmp_path_factory):
    """A tiny spoken corpus; tests must not alter it."""
    return generate_librispeech(tmp_path_factory.mktemp("spoken") / "corpus", jobs=2, **TINY)


@pytest.fixture
def write_tone():
    """A function that writes a short audio file of any format and rate, and makes its folder."""

    def write(path, seconds=0.5, sample_rate=16000, channels=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(seconds * sample_rate)) / sample_rate
        tone = 0.1 * np.sin(2 * np.pi * 300 * time)
        soundfile.write(path, np.stack(channels * [tone], axis=1), sample_rate)
        return path

    return write


@pytest.fixture
def speech(tmp_path):
    """Eight speakers, each with three recordings of 0.3, 0.4 and 0.5 s."""
    for speaker in "abcdefgh":
        for index in range(3):
            scale = 0.02 * (index + 1)
            write_noise(tmp_path / f"speech/{speaker}/{index}.wav", 0.3 + 0.1 * index, scale=scale)
    return tmp_path / "speech"


@pytest.fixture
def make_word_corpus(tmp_path, write_tone):
    """A function that makes a corpus of words, each said once by everybody in `SPEAKERS`."""

    def make(words, noise_seconds=20.0):
        root = tmp_path / "corpus"
        for word in words:
            for speaker in SPEAKERS:
                write_tone(root / word / f"{speaker}_nohash_0.wav", seconds=1.0)
        if noise_seconds:
            write_tone(root / "_background_noise_" / "hum.wav", noise_seconds)
        return root

    return make


@pytest.fixture
def word_corpus(make_word_corpus):
    """Three words and a noise."""
    return make_word_corpus(["yes", "no", "cat"])


@pytest.fixture
def prepare_words(word_corpus, tmp_path):
    """A function that prepares the corpus of three words."""

    def run(**options):
        return prepare_speechcommands(
            word_corpus, tmp_path / "save", **({"n_classes": "all"} | options)
        )

    return run
