"""Keyword spotting: what is learnt does not depend on the loader's workers."""

import pytest
import torch

from tests.support.keywords import train_here
from tests.support.recipes import (
    START_METHODS,
    checkpoints,
    one_thread,
    workers_started_by,
)

# everything that draws: speeds, shifts, two kinds of noise, contexts from the second epoch, and batches without one
OPTIONS = {"words": "all", "n_classes": 3, "split": "lists", "other_speech_percentage": 0}
OPTIONS |= {"speed_changes": "[90, 100, 110]", "shift_ms": 50, "white_noise_max": 0.01}
OPTIONS |= {"background_probability": 0.5, "causal": True, "context_seconds": 0.2}
OPTIONS |= {"context_silence": 0.5, "context_from_epoch": 2, "batch_size": 4, "number_of_epochs": 2}


@pytest.mark.parametrize("method", START_METHODS)
def test_what_a_spotter_learns_does_not_depend_on_workers_and_their_start(method, tones, tmp_path):
    @one_thread()
    def learnt(workers):
        folder = tmp_path / str(workers)
        options = OPTIONS | {"data_folder": tones, "output_folder": folder, "num_workers": workers}
        train_here("debug", **options)
        return torch.load(checkpoints(folder)[-1] / "model.ckpt", weights_only=True)

    alone = learnt(0)
    with workers_started_by(method):
        found = learnt(2)
    assert all(torch.equal(found[key], value) for key, value in alone.items())
