"""Odd recordings in training: each kind is logged once, with counts at the end of a stage, whoever reads them."""

import logging

import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader, Dataset

from mamba_speech.audio import load_audio
from tests.support.odd_audio import RATE, speech_like
from training.odd_recordings import OddRecordings
from training.unreadable import ReadableBatch, ReadableItems


class Waves(Dataset):
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return load_audio(self.paths[index], RATE, 100, 8000)


@pytest.mark.parametrize("workers", [0, 2])
def test_each_kind_is_logged_once_and_recordings_are_counted_once(workers, tmp_path, caplog):
    paths = []
    for index in range(6):
        voice = speech_like(1, seed=index)
        other = -voice if index % 2 else 0 * voice
        paths.append(tmp_path / f"{index}.wav")
        soundfile.write(paths[-1], np.stack([voice, other], 1), RATE)
    soundfile.write(paths[0], speech_like(1), RATE)
    items = ReadableItems(Waves(paths), True, 9)
    odd = OddRecordings()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for batch in DataLoader(
                items, batch_size=2, collate_fn=ReadableBatch(list), num_workers=workers
            ):
                assert len(batch.batch) == 2 and not batch.failures
                odd.note(batch.warnings)
            odd.tell()
    assert odd.counts() == {"opposite_channels": 3, "silent_channel": 2}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3 and lines[0].startswith(str(paths[1])) and str(paths[2]) in lines[1]
    assert lines[2].endswith("so far: 3 opposite_channels, 2 silent_channel")
