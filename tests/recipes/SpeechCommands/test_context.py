"""Other speech before a training clip: where it comes from, and that training and streaming agree."""

import csv
import importlib
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch

from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.keywords import RATE, RECIPE, SPEAKERS, train_here
from tests.support.recipes import load_options

TASK = {"words": "[up]", "n_classes": 3, "split": "lists", "unknown_percentage": 100}
TASK |= {"causal": True, "other_speech_percentage": 100, "context_seconds": 0.7}
PLAIN = {"background_probability": 0, "shift_ms": 0, "white_noise_max": 0, "num_workers": 0}
# the debug recipe's frame: two hops of its features
HOP = 512


@pytest.fixture(scope="session")
def corpus(tones, tmp_path_factory):
    """The tones with other speech: a ramp a speaker, whose values tell speaker and place."""
    folder = shutil.copytree(tones, tmp_path_factory.mktemp("context") / "corpus")
    (folder / "_other_speech_").mkdir()
    for number, speaker in enumerate(SPEAKERS):
        ramp = 0.05 * number + 0.05 * (np.arange(3 * RATE) + 1) / (3 * RATE)
        path = folder / "_other_speech_" / f"{speaker}_nohash_0.wav"
        soundfile.write(path, ramp, RATE, "FLOAT")
    for name, chosen in (("testing", SPEAKERS[-2:]), ("validation", SPEAKERS[-4:-2])):
        with open(folder / f"{name}_list.txt", "a", encoding="utf-8") as file:
            file.writelines(f"_other_speech_/{one}_nohash_0.wav\n" for one in chosen)
    return folder


@pytest.fixture
def keyword_data(monkeypatch):
    """The recipe's module of data."""
    monkeypatch.syspath_prepend(str(RECIPE))
    yield importlib.import_module("keyword_data")
    for name in ("keyword_data", "waveforms", "silence", "hard_negatives"):
        sys.modules.pop(name, None)


@pytest.fixture
def prepare(keyword_data, corpus, tmp_path):
    """Hyperparameters and data sets for options."""

    def make(**options):
        options = {"data_folder": corpus, "output_folder": tmp_path} | TASK | PLAIN | options
        arguments = [str(RECIPE / "hparams" / "debug.yaml")]
        for key, value in options.items():
            arguments += [f"--{key}", str(value)]
        hparams, _ = load_options(arguments)
        return hparams, keyword_data.make_datasets(hparams, *keyword_data.prepare_clips(hparams))

    return make


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_context_is_other_speech_of_training_speakers_up_to_a_whole_frame(prepare):
    _, (train, valid, test) = prepare()
    speakers = set()
    for _ in range(6):
        for item in train:
            before = item["sig"][: item["context"]]
            assert item["samples"] == len(item["sig"]) == item["context"] + RATE
            assert item["samples"] % HOP == 0
            assert 0 <= item["context"] - 0.7 * RATE < HOP
            # a ramp: one speaker, consecutive samples
            assert torch.allclose(before.diff(), torch.tensor(0.05 / (3 * RATE)), atol=1e-7)
            speakers.add(int(before[-1] / 0.05))
    assert 1 < len(speakers) and speakers <= set(range(5))
    assert all(set(one) == {"id", "sig", "samples", "target", "wav"} for one in (valid[0], test[0]))
    assert {len(item["sig"]) for item in valid} == {RATE}


def test_half_of_the_contexts_end_with_a_pause_of_at_most_so_long(prepare):
    _, (train, *_) = prepare(context_pause=0.5)
    pauses = []
    for _ in range(12):
        for item in train:
            before = item["sig"][: item["context"]]
            silent = int((before.flip(0) != 0).float().argmax())
            assert (before[: len(before) - silent] != 0).all()
            pauses.append(silent / RATE)
    paused = [one for one in pauses if one]
    assert 0.3 < len(paused) / len(pauses) < 0.7 and 0.3 < max(paused) <= 0.5


def test_the_clip_behind_its_context_is_the_clip_itself(prepare):
    _, (train, *_) = prepare()
    _, (alone, *_) = prepare(context_seconds=0)
    for item, clip in zip(train, alone, strict=True):
        assert (item["id"], clip["context"]) == (clip["id"], 0)
        assert torch.equal(item["sig"][item["context"] :], clip["sig"])


def test_where_there_is_no_other_speech_context_is_the_training_part_of_the_noise(prepare, corpus):
    _, (train, *_) = prepare(other_speech_percentage=0)
    noise = torch.from_numpy(soundfile.read(corpus / "_background_noise_" / "hiss.wav")[0]).float()
    pieces = noise[: round(0.8 * len(noise))].unfold(0, 50, 1)
    for item in train:
        assert (pieces == item["sig"][:50]).all(1).any()


def test_without_speech_and_noise_context_is_refused_with_what_to_do(prepare, tones, tmp_path):
    bare = shutil.copytree(tones, tmp_path / "bare")
    shutil.rmtree(bare / "_background_noise_")
    options = {"data_folder": bare, "other_speech_percentage": 0, "silence_percentage": 0}
    with pytest.raises(SystemExit, match="context_seconds needs other speech or noise"):
        prepare(**options, n_classes=2)


def test_whole_batches_lose_their_context_about_as_often_as_asked(prepare, keyword_data):
    hparams, (train, *_) = prepare(context_silence=0.3)
    collate = keyword_data.training_options(hparams)["collate_fn"]
    items = [train[index] for index in range(3)]
    torch.manual_seed(0)
    # the first clip decides for all
    batches = [
        collate([items[0] | {"chance": float(torch.rand(()))}, *items[1:]]) for _ in range(400)
    ]
    silent = [batch for batch in batches if not batch.context.any()]
    assert all(batch.sig.data.shape[1] == RATE for batch in silent)
    assert all((batch.samples == RATE).all() for batch in silent)
    assert all((one.context > 0).all() for one in batches if one.context.any())
    assert 0.22 < len(silent) / 400 < 0.38


def test_contexts_begin_in_their_epoch(prepare, keyword_data):
    hparams, (train, *_) = prepare(context_silence=0, context_from_epoch=3, number_of_epochs=4)
    collate = keyword_data.training_options(hparams)["collate_fn"]
    items = [train[index] for index in range(3)]
    counted = []
    for _ in hparams["epoch_counter"]:
        counted.append(collate(items).context.bool().tolist())
    assert counted == 2 * [3 * [False]] + 2 * [3 * [True]]


def test_training_sees_the_logits_that_the_stream_gives_where_the_clip_ends(
    prepare, corpus, tmp_path
):
    folder = tmp_path / "run"
    options = TASK | {"data_folder": corpus, "number_of_epochs": 1, "num_workers": 1}
    train_here("debug", output_folder=folder, **options)
    others = [row for row in read_csv(folder / "train.csv") if row["words"] == "_other_speech_"]
    assert len(others) == 5
    classifier = KeywordSpotter.load(folder, "cpu")
    _, (train, *_) = prepare(output_folder=folder, skip_prep=True)
    features, model = classifier.compute_features, classifier.model
    for item in train:
        count = torch.tensor([item["samples"]])
        x, lengths = features(item["sig"].unsqueeze(0), count)
        with torch.inference_mode():
            before = features.frames(torch.tensor([item["context"]]))
            trained = model(x, lengths, before).softmax(-1)[0]
        # the stream goes on: what follows must not matter
        stream = torch.cat([item["sig"], torch.randn(RATE)]).split(RATE // 3)
        times, streamed = map(torch.cat, zip(*classifier.probabilities(stream), strict=True))
        (index,) = (times - (len(item["sig"]) - RATE / 2) / RATE).abs().lt(1e-6).nonzero()[0]
        torch.testing.assert_close(streamed[index], trained, rtol=0, atol=1e-4)
