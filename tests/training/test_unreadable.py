"""Recordings that fail to be read while a run works: what a batch keeps, what is listed, and when it ends."""

import logging

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from torch.utils.data import DataLoader, Dataset

from mamba_speech.audio import AudioError, load_audio
from mamba_speech.files import read_csv
from tests.support.training import Counting, Killed, make_brain
from training.loading import SeededItems
from training.unreadable import Failure, ReadableBatch, ReadableItems, UnreadableList


class Files(Dataset):
    """Items are read from numbered files, and hold a draw."""

    def __init__(self, folder, count):
        self.paths = [folder / f"{index}.wav" for index in range(count)]
        for index, path in enumerate(self.paths):
            soundfile.write(path, np.full(48, 0.01 * index), 16000)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        wave = load_audio(self.paths[index], 16000)
        return wave.view(6, 8) + 0.1 * torch.rand(())


def stack(items):
    return [torch.stack(items)]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path, 8)


def spoil(files, *indices):
    for index in indices:
        files.paths[index].unlink()


def loaded(files, size, workers=0, training=True, most=9):
    items = SeededItems(files, 1)
    items.set_epoch(1)
    items = ReadableItems(items, training, most)
    collate = ReadableBatch(stack)
    batches = DataLoader(items, batch_size=size, num_workers=workers, collate_fn=collate)
    return [
        (None if one.batch is None else one.batch[0].tolist(), [f.path for f in one.failures])
        for one in batches
    ]


def test_a_batch_keeps_its_other_items(files):
    whole = loaded(files, 4)
    spoil(files, 1)
    first, second = loaded(files, 4)
    assert first == ([whole[0][0][index] for index in (0, 2, 3)], [str(files.paths[1])])
    assert second == whole[1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_batch_of_training_is_never_empty_and_two_items_stay_two(files, size):
    spoil(files, 0, 1, 2, 3)
    found = loaded(files, size)
    assert len(found) == 8 // size
    assert all(len(batch) >= min(2, size) for batch, _ in found)


def test_a_batch_of_a_test_is_not_filled_up(files):
    spoil(files, 0, 1, 2)
    found = loaded(files, 2, training=False)
    assert [batch and len(batch) for batch, _ in found] == [None, 1, 2, 2]
    assert [len(failures) for _, failures in found] == [2, 1, 0, 0]


@pytest.mark.parametrize("bad", [(0,), (0, 1), (2, 3, 7), tuple(range(7))])
def test_workers_do_not_matter(files, bad):
    spoil(files, *bad)
    assert loaded(files, 2, workers=2) == loaded(files, 2)


def test_what_reads_nothing_gives_up(files):
    spoil(files, *range(8))
    assert [batch for batch, _ in loaded(files, 2)] == 4 * [None]
    assert len(loaded(files, 2, most=3)[0][1]) == 4


@pytest.mark.parametrize(
    "error",
    [
        AudioError("a.wav: no such file"),
        PermissionError(13, "Permission denied", "a.wav"),
        OSError(5, "Input/output error", "a.wav"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        soundfile.SoundFileRuntimeError("flac decoder lost sync"),
    ],
)
def test_whatever_reading_raises_is_a_failure_with_a_sentence(error):
    class Bad(Dataset):
        def __getitem__(self, index):
            raise error

    failure = ReadableItems(Bad(), False, 1)[3]
    assert isinstance(failure, Failure) and failure.id == "3" and failure.error


def test_an_error_of_the_program_is_not_hidden():
    class Wrong(Dataset):
        def __getitem__(self, index):
            raise KeyError("wav")

    with pytest.raises(KeyError):
        ReadableItems(Wrong(), True, 1)[0]


def test_each_recording_is_listed_and_logged_once(tmp_path, caplog):
    found = UnreadableList(tmp_path, 2)
    one, two, three = (
        Failure(str(number), f"{tmp_path}/{number}.wav", f"{number}.wav: no such\nfile")
        for number in range(3)
    )
    with caplog.at_level(logging.WARNING):
        found.note([one, one])
        found.note([one, two])
    assert len(caplog.records) == 2 and len(found) == 2
    rows = [row for _, row in read_csv(tmp_path / "unreadable.csv")[1]]
    assert [row["id"] for row in rows] == ["0", "1"]
    with pytest.raises(SystemExit, match="unreadable.csv: 3 recordings .* --max_unreadable 2"):
        found.note([three])


def test_a_later_start_counts_what_still_fails(tmp_path):
    failures = [Failure(str(n), f"{tmp_path}/{n}.wav", f"{n}.wav: bad") for n in range(3)]
    UnreadableList(tmp_path, 5).note(failures)
    soundfile.write(tmp_path / "1.wav", np.zeros(100), 16000)
    assert len(UnreadableList(tmp_path, 5)) == 2
    (tmp_path / "unreadable.csv").write_text('id,path,error\n"a,b,c\n')
    assert len(UnreadableList(tmp_path, 5)) == 0


class Reading(Counting):
    """Learns from files."""

    def on_stage_end(self, stage, stage_loss, epoch=None):
        sb.Brain.on_stage_end(self, stage, stage_loss, epoch)
        if stage == sb.Stage.VALID:
            self.save_epoch({"WER": 1.0, "epoch": epoch})

    def run_on(self, files):
        items = SeededItems(files, 1)
        options = {"batch_size": 2, "collate_fn": stack}
        loaders = {"train_loader_kwargs": options, "valid_loader_kwargs": dict(options)}
        self.fit(self.hparams.epoch_counter, items, items, **loaders)
        return self


def weights(brain):
    return torch.cat([p.detach().flatten() for p in brain.modules.parameters()])


def test_a_resumed_run_with_bad_recordings_is_the_undisturbed_one(files, tmp_path):
    spoil(files, 1, 4, 5)
    options = {"brain_class": Reading, "epochs": 2, "ckpt_interval_steps": 1}
    torch.manual_seed(0)
    whole = make_brain(tmp_path / "a", **options).run_on(files)
    torch.manual_seed(0)
    stopped = make_brain(tmp_path / "b", **options)
    stopped.stop_after_batches = 2
    with pytest.raises(Killed):
        stopped.run_on(files)
    resumed = make_brain(tmp_path / "b", **options).run_on(files)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.unreadable_items == resumed.unreadable_items == 3
    assert len(whole.unreadable) == 3


def test_a_run_without_a_readable_recording_ends_with_a_sentence(files, tmp_path):
    spoil(files, *range(8))
    with pytest.raises(SystemExit, match="unreadable.csv: 8 recordings could not be read"):
        make_brain(tmp_path / "a", brain_class=Reading).run_on(files)
