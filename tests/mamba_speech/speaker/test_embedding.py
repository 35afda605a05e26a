"""Embeddings of files with a model in memory, their scores, the seconds of speech, and the store."""

import shutil
import sqlite3
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.audio import AudioError
from mamba_speech.recordings import Recording
from mamba_speech.speaker.embedding import (
    embed_files,
    embed_recording,
    file_hash,
    model_hash,
    similarity,
)
from mamba_speech.speaker.speech import SpeechMeter
from mamba_speech.speaker.store import EmbeddingStore
from tests.support.verification import RATE, Timbre, say, write_voice


@pytest.fixture
def files(tmp_path):
    """Three files of two voices, two of them of one name, in folders with a space."""
    return [
        write_voice(tmp_path / "first folder" / "a.wav", 1),
        write_voice(tmp_path / "second folder" / "a.wav", 2),
        write_voice(tmp_path / "second folder" / "b.wav", 1, seconds=2.2, seed=1),
    ]


def vectors(model, files, **options):
    """Embeddings by file."""
    return {one.path: one.vector for one in embed_files(model, files, **options)}


def test_an_embedding_repeats_to_the_last_bit_in_any_order_after_any_file_and_anywhere(
    files, tmp_path
):
    model = Timbre()
    found = vectors(model, files)
    again = vectors(model, files[::-1] * 2)
    alone = {str(path): vectors(model, [path])[str(path)] for path in files}
    for path in map(str, files):
        assert np.array_equal(found[path], again[path])
        assert np.array_equal(found[path], alone[path])
    moved = shutil.copytree(tmp_path / "second folder", tmp_path / "elsewhere")
    other = vectors(model, [moved / "b.wav"])
    assert np.array_equal(other[str(moved / "b.wav")], found[str(files[2])])
    assert not np.array_equal(found[str(files[0])], found[str(files[1])])


def test_a_score_is_symmetric_to_the_bit_one_for_itself_and_never_out_of_range(files):
    model = Timbre()
    a, b, _ = vectors(model, files).values()
    assert similarity(a, b) == similarity(b, a)
    random = np.random.default_rng(0)
    for scale in (1e-30, 1.0, 1e30):
        x, y = (scale * random.standard_normal((2, 192))).astype(np.float32)
        assert similarity(x, y) == similarity(y, x)
        assert similarity(x, x) == similarity(y, y) == 1.0
        assert similarity(x, -x) == -1.0
        expected = np.dot(x.astype(float), y.astype(float))
        expected /= np.linalg.norm(x.astype(float)) * np.linalg.norm(y.astype(float))
        assert similarity(x, y) == pytest.approx(expected, abs=1e-12)
        assert abs(similarity(x, np.nextafter(x, np.float32(0)))) <= 1.0


def test_a_model_in_training_is_used_in_evaluation_and_left_as_it_was(files):
    model = torch.nn.Sequential(Timbre())
    model.sample_rate, model.crop_samples, model.min_samples = RATE, None, 64
    model.forward = lambda wavs, samples: model[0](wavs, samples)
    model.train()
    model[0].filters.eval()
    found = vectors(model, files[:1])[str(files[0])]
    assert np.array_equal(found, vectors(Timbre(), files[:1])[str(files[0])])
    assert model.training and model[0].training and not model[0].filters.training


@pytest.mark.parametrize(
    "sound, found",
    [
        (np.zeros(3 * RATE), "0.00"),
        (np.full(3 * RATE, 0.2), "0.00"),
        (1e-5 * np.random.default_rng(0).standard_normal(3 * RATE), "0.00"),
        (np.concatenate([say(1, 0.3), np.zeros(3 * RATE)]), "0.30"),
        (say(1, 0.4), "0.40"),
    ],
)
def test_too_little_speech_is_refused_with_the_file_and_the_seconds_found(
    sound, found, files, tmp_path
):
    path = tmp_path / "little speech.wav"
    soundfile.write(path, sound, RATE, "FLOAT")
    model = Timbre()
    good, bad, last = embed_files(model, [files[0], path, files[1]])
    assert bad.error == f"{path}: holds {found} s of speech; 0.5 s are needed"
    assert bad.vector is None and good.error is None and last.error is None
    with pytest.raises(AudioError, match="little speech.wav: holds"):
        embed_recording(model, Recording(path))
    # the network is not asked about silence
    assert len(model.seen) == 2


def test_speech_is_measured_alike_in_any_pieces_and_a_click_is_none():
    sound = torch.from_numpy(np.concatenate([np.zeros(RATE), say(3, 1.0), np.zeros(777)])).float()
    found = []
    for size in (100, 4567, len(sound)):
        meter = SpeechMeter(RATE)
        for block in sound.split(size):
            meter.add(block)
        found.append(meter.seconds())
    assert found[0] == found[1] == found[2] and 0.8 <= found[0] <= 1.02
    quiet = SpeechMeter(RATE)
    clicking = 0.1 * sound
    clicking[100] = 1.0
    quiet.add(clicking)
    assert quiet.seconds() >= 0.8
    assert SpeechMeter(RATE).seconds() == 0
    # beyond any recording, and without a warning
    huge = SpeechMeter(RATE)
    with warnings.catch_warnings(action="error"):
        huge.add(1e30 * sound)
    assert huge.seconds() == found[0]


class Broken(Timbre):
    """Gives embeddings that are none."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, wavs, samples):
        return torch.full((len(wavs), 12), self.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_an_embedding_that_is_none_is_an_error_with_the_files_name(value, files):
    (bad,) = embed_files(Broken(value), files[:1])
    assert bad.error.startswith(f"{files[0]}: the model made of it an embedding that is not finite")


def test_rates_and_channels_are_those_of_the_shared_reader(tmp_path):
    model = Timbre()
    wide, narrow, stereo = (
        write_voice(tmp_path / f"{rate} {channels}.wav", 1, 2.0, rate=rate, channels=channels)
        for rate, channels in ((44100, 1), (8000, 1), (16000, 2))
    )
    mono = write_voice(tmp_path / "mono.wav", 1, 2.0)
    found = vectors(model, [wide, narrow, stereo, mono])
    assert np.array_equal(found[str(stereo)], found[str(mono)])
    for path in (wide, narrow, stereo):
        sound = Recording(path).load(RATE)
        again = embed_recording(model, Recording(sound, RATE))
        assert again.path is None and again.seconds == 2.0
        np.testing.assert_allclose(again.vector, found[str(path)], rtol=1e-4)


def test_an_hour_is_read_in_windows_of_a_minute_at_most(tmp_path):
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 200, 1, "PCM_16") as file:
        for minute in range(60):
            file.write(say(1, 60.0, minute, 200))
    model = Timbre()
    model.sample_rate = 200
    (found,) = embed_files(model, [path])
    assert found.seconds == 3600 and len(model.seen) == 60
    assert max(shape[1] for shape in model.seen) == 12000


def test_a_store_gives_what_was_computed_and_computes_what_it_has_not(files, tmp_path):
    model, other = Timbre(), Timbre(seed=1)
    plain = vectors(model, files)
    with EmbeddingStore(tmp_path / "store.sqlite") as store:
        first = vectors(model, files, store=store)
    calls = len(model.seen)
    moved = shutil.copy(files[0], tmp_path / "moved.wav")
    with EmbeddingStore(tmp_path / "store.sqlite") as store:
        second = vectors(model, [*files, moved], store=store)
        assert len(model.seen) == calls
        assert np.array_equal(second[str(moved)], plain[str(files[0])])
        assert len(vectors(other, files, store=store)) == len(other.seen) == 3
        write_voice(files[0], 5)
        changed = vectors(model, files, store=store)
        assert len(model.seen) == calls + 1
    for path in map(str, files):
        assert np.array_equal(first[path], plain[path])
        assert np.array_equal(second[path], plain[path])
    assert not np.array_equal(changed[str(files[0])], plain[str(files[0])])


def test_a_store_keeps_no_error_and_refuses_too_little_speech_as_without_it(files, tmp_path):
    short = write_voice(tmp_path / "short.wav", 1, 0.3)
    with EmbeddingStore(tmp_path / "store.sqlite") as store:
        assert next(embed_files(Timbre(), [short], store, min_speech=0.0)).error is None
        assert "0.30 s of speech" in next(embed_files(Timbre(), [short], store)).error
        missing, broken = tmp_path / "missing.wav", tmp_path / "broken.wav"
        broken.write_bytes(b"no audio")
        errors = [one.error for one in embed_files(Timbre(), [missing, broken, tmp_path], store)]
        assert "missing.wav: no such file" in errors[0]
        assert "broken.wav: cannot be read as audio" in errors[1]
        assert "a folder in which there is no audio" in errors[2]
        assert store.get(model_hash(Timbre()), file_hash(broken)) is None


def test_two_writers_share_a_store(files, tmp_path):
    def fill(seed):
        with EmbeddingStore(tmp_path / "store.sqlite") as store:
            vectors(Timbre(seed=seed), files, store=store)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fill, range(3)))
    with EmbeddingStore(tmp_path / "store.sqlite") as store:
        for seed in range(3):
            weights = model_hash(Timbre(seed=seed))
            assert all(store.get(weights, file_hash(path)) is not None for path in files)


def test_a_file_that_is_no_store_is_named(tmp_path):
    text, other = tmp_path / "text.sqlite", tmp_path / "other.sqlite"
    text.write_text("no database " * 100)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE songs (name TEXT)")
    for path in (text, other):
        before = path.read_bytes()
        with pytest.raises(ValueError, match=f"{path}: "):
            EmbeddingStore(path)
        assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="its folder is not there"):
        EmbeddingStore(tmp_path / "nowhere" / "store.sqlite")
    with pytest.raises(RuntimeError, match="cannot be read or written"):
        EmbeddingStore(tmp_path)


def test_a_hash_tells_weights_and_lengths_apart():
    half = Timbre()
    half.filters.half()
    models = [Timbre(), Timbre(seed=1), Timbre(crop_samples=RATE), half]
    assert len({model_hash(model) for model in models}) == 4
    assert model_hash(Timbre()) == model_hash(Timbre().train())
