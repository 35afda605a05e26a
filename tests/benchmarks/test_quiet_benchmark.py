"""A spotter with classes for unknown words and silence rings at its word, and at no sound without one."""

import json

import pytest
import torch

from mamba_speech.kws.spotter import KeywordSpotter
from tests.support.benchmarks import run
from tests.support.keywords import RATE, say, train_here, write_corpus

KINDS = {"zeros", "white", "pink", "brown", "hum", "clicks", "tones", "chords", "wind", "engine"}
KINDS |= {"babble"}
TASK = {"words": "[up]", "n_classes": 3, "split": "lists", "unknown_percentage": 100}
TASK |= {"silence_percentage": 100, "other_speech_percentage": 0, "causal": True}


@pytest.mark.exhaustive
def test_a_small_spotter_with_both_classes_rings_at_its_word_and_at_no_sound_without(tmp_path):
    speakers = [f"{number:08x}" for number in range(28)]
    corpus = write_corpus(tmp_path / "corpus", speakers=speakers)
    options = TASK | {"data_folder": corpus, "number_of_epochs": 50, "checkpoint_choice": "last"}
    options |= {"computed_silence": 0.8, "silence_db": "[-40,10]", "lr": 0.01, "max_grad_norm": 5}
    options |= {"background_probability": 0.2, "freq_mask_max": 0, "time_mask_max": 0}
    folder = tmp_path / "run"
    train_here("debug", **options, batch_size=8, output_folder=folder)
    done = run("quiet.py", folder, "--seconds", 4, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    sounds = json.loads((tmp_path / "quiet.json").read_text())["sounds"]
    assert set(sounds) == KINDS
    rung = {name: row["events"] for name, row in sounds.items() if any(row["events"].values())}
    assert rung == {}
    spotter = KeywordSpotter.load(folder, "cpu")
    word = torch.from_numpy(say("up", speakers[-1])).float()
    stream = torch.cat([torch.zeros(RATE), word, torch.zeros(RATE)])
    assert [event.label for event in spotter.stream([stream])] == ["up"]
