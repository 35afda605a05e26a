"""VoxCeleb's size: the published classification, the memory of many recordings, and kills."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from data_prep.speakers.checker import MANY, Checkers
from data_prep.speakers.splits import choose_classes, split_utterances
from data_prep.voxceleb_prepare import prepare_voxceleb

# Prints by how many KiB the process's peak grew; getrusage would begin with the peak of the process that starts it.
PREPARE = r"""
import pathlib, re, sys
from data_prep.voxceleb_prepare import prepare_voxceleb
status = pathlib.Path("/proc/self/status")
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) if status.is_file() else 0
before = peak()
prepare_voxceleb(sys.argv[1], sys.argv[2])
print(peak() - before)
"""


def count_rows(path):
    """Rows of a manifest without its heading."""
    return len(path.read_text(encoding="utf-8").splitlines()) - 1


def link_corpus(root, speakers, write_tone):
    """A hundred hard links to one recording for each speaker, in ten sessions."""
    write_tone(root / "first.wav", 0.05)
    for speaker in range(speakers):
        for session in range(10):
            folder = root / "dev" / "aac" / f"id{speaker:05d}" / f"session{session:04d}"
            folder.mkdir(parents=True)
            for index in range(10):
                os.link(root / "first.wav", folder / f"{index:05d}.wav")
    os.rename(root / "first.wav", root / "dev" / "first.txt")


def test_the_published_sizes_give_468_speakers_and_14_per_cent_to_validation():
    random = np.random.default_rng(0)
    # 1,211 speakers of 45 to 250 utterances, as VoxCeleb1 has them
    counts = {f"id1{k:04d}": int(count) for k, count in enumerate(random.integers(45, 251, 1211))}
    shares = choose_classes(counts, 468, 45360)
    assert len(shares) == 468 and sum(shares.values()) == 45360
    assert set(shares.values()) == {96, 97}
    assert min(counts[one] for one in shares) >= max(
        count for one, count in counts.items() if one not in shares
    )
    start, utterances = 0, {}
    for one, count in counts.items():
        utterances[one] = list(range(start, start + count))
        start += count
    train, valid = split_utterances(utterances, shares, 0.14, seed=1)
    assert (len(train), len(valid)) == (39010, 6350) and not set(train) & set(valid)
    assert sum(choose_classes(counts, None, None).values()) == sum(counts.values())


def test_threads_and_processes_find_the_same_faults_and_a_dead_process_is_one_error(
    tmp_path, write_tone
):
    paths = [str(write_tone(tmp_path / "whole é.wav")), str(tmp_path / "none.wav")]
    (tmp_path / "empty.flac").touch()
    paths.append(str(tmp_path / "empty.flac"))
    found = {}
    for total in (3, MANY):
        with Checkers(total, workers=2) as checkers:
            found[total] = list(checkers.map([paths, paths[1:]]))
    assert found[3] == found[MANY]
    assert found[3][0] == [
        (8000, 16000, None),
        (0, 1, "audio file not found"),
        (0, 1, "empty audio file"),
    ]
    with Checkers(MANY, workers=1) as checkers, pytest.raises(RuntimeError, match="has ended"):
        list(checkers.map([[1.5]]))


@pytest.mark.exhaustive
def test_memory_of_many_recordings_is_small(tmp_path, write_tone):
    link_corpus(tmp_path / "corpus", 200, write_tone)
    command = [sys.executable, "-c", PREPARE, tmp_path / "corpus", tmp_path / "save"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    # 2 GiB for 200,000 recordings would be 10 KiB each
    assert int(run.stdout) < 20000
    rows = [count_rows(tmp_path / "save" / name) for name in ("train.csv", "valid.csv")]
    assert rows == [19000, 1000]


@pytest.mark.exhaustive
def test_a_killed_preparation_leaves_no_half_manifest_and_the_next_one_is_whole(
    tmp_path, write_tone
):
    link_corpus(tmp_path / "corpus", 100, write_tone)
    save = tmp_path / "save"
    command = [sys.executable, "-c", PREPARE, tmp_path / "corpus", save]
    for seconds in (0, 0.3, 1.0):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not save.is_dir():
            time.sleep(0.02)
        time.sleep(seconds)
        process.kill()
        process.wait()
        for name, count in (("train.csv", 9500), ("valid.csv", 500)):
            assert not (save / name).is_file() or count_rows(save / name) == count
    found = prepare_voxceleb(tmp_path / "corpus", save)
    assert [count_rows(found[name]) for name in ("train", "valid")] == [9500, 500]
