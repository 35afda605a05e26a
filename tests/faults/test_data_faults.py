"""Faults of recordings and lists around a run: what fails is left out by name and the rest goes on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mamba_speech.files import read_csv
from tests.support.damage import cut_short, overwrite_middle
from tests.support.faults import refusal

ROOT = Path(__file__).parents[2]
KINDS = ("CTC", "KWS")


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def fill_with_zeros(path):
    path.write_bytes(bytes(path.stat().st_size))


def make_a_folder_of(path):
    path.unlink()
    path.mkdir()


def hold_no_numbers(path):
    rate = soundfile.info(path).samplerate
    soundfile.write(path, np.full(rate, np.nan), rate, format="WAV", subtype="FLOAT")


def be_absurdly_loud(path):
    rate = soundfile.info(path).samplerate
    soundfile.write(path, np.full(rate, 3e38), rate, format="WAV", subtype="FLOAT")


def link_to_itself(path):
    path.unlink()
    path.symlink_to(path)


def promise_terabytes(path):
    """A header that claims far more than memory holds, and no samples."""
    riff = b"RIFF" + (2**32 - 2).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = (1).to_bytes(2, "little") + (1).to_bytes(2, "little") + (16000).to_bytes(4, "little")
    form += (32000).to_bytes(4, "little") + (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    path.write_bytes(riff + form + b"data" + (2**32 - 40).to_bytes(4, "little"))


DAMAGES = (
    delete,
    empty,
    fill_with_zeros,
    make_a_folder_of,
    hold_no_numbers,
    be_absurdly_loud,
    link_to_itself,
    promise_terabytes,
)


@pytest.fixture
def fresh(copy_run, tmp_path):
    """A run that is prepared and not yet trained, with a corpus of its own."""

    def make(kind):
        run = copy_run(kind)
        corpus = tmp_path / f"corpus-{kind}"
        shutil.copytree(run.options["data_folder"], corpus)
        shutil.rmtree(run.folder)
        run.options |= {"data_folder": corpus, "number_of_epochs": 1, "avg_checkpoints": 1}
        if kind == "CTC":
            run.options["total_steps"] = 4
        return run

    return make


def word_of(run):
    """A recording that a run trains on or tests, and no noise."""
    folder = Path(run.options["data_folder"])
    noise = {path for path in folder.rglob("_background_noise_/*")}
    found = [path for suffix in ("wav", "flac") for path in folder.rglob(f"*.{suffix}")]
    return min(path for path in found if path not in noise)


def recordings(run, split="train"):
    """The files of a manifest that the run has written."""
    names = {"CTC": {"train": "train.csv"}, "KWS": {"train": "train.csv", "test": "test.csv"}}
    name = names[run.kind].get(split)
    manifest = run.folder / name if name else max(run.folder.glob("test-*.csv"))
    rows = [row for _, row in read_csv(manifest)[1]]
    return [Path(path) for path in dict.fromkeys(row["wav"] for row in rows)]


def listed(run):
    return [row["path"] for _, row in read_csv(run.folder / "unreadable.csv")[1]]


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_preparation_cannot_use_is_listed_and_the_run_goes_on(fresh, kind, damage):
    run = fresh(kind)
    damage(word_of(run))
    run.start()
    lists = list(run.folder.glob("skipped_*.csv"))
    assert run.checkpoints and (lists or damage in (delete, make_a_folder_of, link_to_itself))
    assert not (run.folder / "unreadable.csv").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_after_the_preparation_is_skipped_and_listed(
    copy_run, fresh, kind, split, damage
):
    run = fresh(kind)
    source = copy_run(kind, "prepared")
    run.folder.mkdir()
    for file in [*source.folder.glob("*.csv"), *source.folder.glob("*.json")]:
        if "results" not in file.name:
            text = file.read_text().replace(
                str(source.options["data_folder"]), str(run.options["data_folder"])
            )
            (run.folder / file.name).write_text(text)
    bad = recordings(run, split)[0]
    damage(bad)
    run.start(skip_prep=True)
    assert run.checkpoints and listed(run) == [str(bad)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", [overwrite_middle, cut_short])
def test_a_flac_whose_middle_is_damaged_is_left_out_at_once_or_on_the_way(fresh, damage):
    run = fresh("CTC")
    bad = run.recording
    damage(bad)
    run.start()
    skipped = [
        row["path"] for file in run.folder.glob("skipped_*.csv") for _, row in read_csv(file)[1]
    ]
    assert skipped == [str(bad)]


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_of_bad_recordings_alone_is_one_sentence(fresh, kind):
    run = fresh(kind)
    for suffix in ("wav", "flac"):
        for path in Path(run.options["data_folder"]).rglob(f"*.{suffix}"):
            fill_with_zeros(path)
    assert "skipped_" in refusal(run.start)
    assert not run.checkpoints


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [0, 2])
def test_more_bad_recordings_than_may_be_end_the_run_with_its_list(fresh, kind, most):
    run = fresh(kind)
    run.start(skip_train=False)
    for path in recordings(run)[: most + 3]:
        path.unlink()
    shutil.rmtree(run.folder / "save")
    for file in run.folder.glob("results*"):
        file.unlink()
    sentence = refusal(run.start, skip_prep=True, max_unreadable=most)
    assert "unreadable.csv" in sentence and f"--max_unreadable {most}" in sentence


SPOILT = {
    "unclosed": lambda line: line.replace(",", ',"', 1),
    "a cell too few": lambda line: line.rpartition(",")[0],
    "a cell too many": lambda line: line + ",more",
    "a zero byte": lambda line: line + "\0",
    "no duration": lambda line: line.replace(line.split(",")[1], "soon"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("fault", SPOILT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_line_of_a_manifest_is_named(copy_run, kind, fault):
    run = copy_run(kind)
    file = run.folder / "train.csv"
    lines = file.read_text().splitlines()
    lines[2] = SPOILT[fault](lines[2])
    file.write_text("\n".join(lines) + "\n")
    sentence = refusal(run.start, skip_prep=True, number_of_epochs=3)
    # where the clips are compared first, other clips are refused
    compared = kind == "KWS" and fault == "no duration"
    assert ("trained with other clips" if compared else "train.csv, line 3: ") in sentence


LOADER = """
import os, sys, time, multiprocessing
from torch.utils.data import DataLoader, Dataset
from training.loading import worker_options

class Slow(Dataset):
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        if index > 3:
            time.sleep(30)
        return os.getpid()

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    options = worker_options({"num_workers": 2, "output_folder": sys.argv[2]})
    loader = iter(DataLoader(Slow(), batch_size=2, **options))
    print(*next(loader).tolist(), *next(loader).tolist(), flush=True)
    time.sleep(60)
"""


def alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.exhaustive
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_end_soon_after_their_process_is_killed(tmp_path, method):
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    command = [sys.executable, str(script), method, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        workers = {int(one) for one in process.stdout.readline().split()}
        assert len(workers) == 2 and all(map(alive, workers))
        process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    while any(map(alive, workers)):
        assert time.monotonic() - killed < 3
        time.sleep(0.05)
