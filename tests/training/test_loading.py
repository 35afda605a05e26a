"""Items whose random draws depend on seed, epoch and index alone, and workers that are not forked."""

import logging
import multiprocessing
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mamba_speech.audio import resampling
from tests.support.recipes import START_METHODS, workers_started_by
from training.loading import SeededItems, item_seed, seeded, worker_options


class Draws(Dataset):
    """An item is a draw from each global generator."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), float(np.random.rand()), float(torch.rand(())), index


class Logs(Dataset):
    """An item reports a sample rate, and says something."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        logging.getLogger("training.example").info("item %d", index)
        resampling.warn_of_rate((44100, 22050)[index], 16000)
        return index


def read(items, workers, epoch=1):
    items.set_epoch(epoch)
    loader = DataLoader(items, batch_size=2, num_workers=workers)
    return [[part.tolist() for part in batch] for batch in loader]


@pytest.mark.parametrize("method", START_METHODS)
def test_items_are_the_same_for_every_number_of_workers_and_start_method(method):
    items = SeededItems(Draws(), seed=3)
    alone = read(items, 0)
    with workers_started_by(method):
        assert read(items, 2) == alone != read(items, 2, epoch=2)


def test_items_differ_by_seed_epoch_and_index_and_come_back_in_any_order():
    first, other = SeededItems(Draws(), 1), SeededItems(Draws(), 2)
    seen = set()
    for items in (first, other):
        for epoch in (1, 2):
            items.set_epoch(epoch)
            forth = [items[index] for index in range(6)]
            assert forth == [items[index] for index in reversed(range(6))][::-1]
            seen |= {row[:3] for row in forth}
    assert len(seen) == 24
    assert [len({row[column] for row in seen}) for column in range(3)] == [24, 24, 24]


def test_reading_an_item_leaves_the_generators_of_the_process_as_they_were():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    items = SeededItems(Draws(), 1)
    before = states()
    items[0]
    assert states() == before
    with pytest.raises(ZeroDivisionError), seeded(1):
        torch.rand(1 // 0)
    assert states() == before


def test_seeds_of_neighbouring_items_are_all_different():
    numbers = [(s, e, i) for s in range(10) for e in range(10) for i in range(100)]
    assert len({item_seed(*three) for three in numbers}) > 9990


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_worker_that_is_not_forked_logs_to_the_run_and_shares_its_warnings(method, tmp_path):
    hparams = {"num_workers": 1, "output_folder": tmp_path}
    before = resampling.resampled_rates.clone()
    try:
        resampling.resampled_rates.zero_()
        with workers_started_by(method):
            for _ in range(2):
                assert [int(one) for one in DataLoader(Logs(), **worker_options(hparams))] == [0, 1]
        assert resampling.resampled_rates[:3].tolist() == [44100, 22050, 0]
    finally:
        resampling.resampled_rates.copy_(before)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    # the second epoch's worker warns no more
    assert [line.split(" - ", 1)[1] for line in lines] == [
        "training.example - INFO - item 0",
        "mamba_speech.audio.resampling - WARNING - audio at 44100 Hz is resampled to 16000 Hz",
        "training.example - INFO - item 1",
        "mamba_speech.audio.resampling - WARNING - audio at 22050 Hz is resampled to 16000 Hz",
        "training.example - INFO - item 0",
        "training.example - INFO - item 1",
    ]
    assert multiprocessing.get_start_method(allow_none=True) != method
