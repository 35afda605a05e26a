"""Two runs in one folder, and disks that take nothing: the first run is not disturbed, and nobody sees a traceback."""

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch

from mamba_speech.checkpoints import CompleteCheckpoints
from tests.support.faults import refusal
from tests.support.keywords import RECIPE
from tests.support.recipes import ROOT, TORCHRUN, command_line, run_script
from tests.support.training import Counting, make_brain
from training import run_lock
from training.script import script, tell

pytestmark = pytest.mark.exhaustive

HOLD = """
import os, sys, time
from training import run_lock
run_lock.hold(sys.argv[1])
if sys.argv[2] == "fork" and os.fork() == 0:
    time.sleep(60)
    os._exit(0)
print("held", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(folder, kind="alone"):
    """Another process that trains in a folder, as far as the lock tells."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), kind],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(autouse=True)
def released():
    yield
    run_lock.release()


@pytest.mark.parametrize("kind", ("CTC", "KWS"))
def test_a_second_training_is_refused_with_host_and_process_of_the_first(kind, copy_run):
    run = copy_run(kind)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files if path.name != run_lock.LOCK_FILE}
    with holder(run.folder) as first:
        sentence = refusal(run.start, number_of_epochs=3)
        assert str(first.pid) in sentence and socket.gethostname() in sentence
        assert all(path.read_bytes() == content for path, content in before.items())
        run.start("--test_only")
    run.start(number_of_epochs=3)
    assert len(run.checkpoints) >= 2


@pytest.mark.parametrize("kind", ("alone", "fork"))
@pytest.mark.parametrize("end", (signal.SIGKILL, signal.SIGTERM))
def test_a_lock_ends_with_its_process_whatever_its_workers_do(end, kind, tmp_path):
    with holder(tmp_path, kind) as first:
        with pytest.raises(run_lock.FolderInUse, match=f"process {first.pid} on "):
            run_lock.hold(tmp_path)
        # the forked worker lives on
        os.kill(first.pid, end)
        first.wait()
        run_lock.hold(tmp_path)


def test_one_process_trains_in_a_folder_as_often_as_it_likes(tmp_path):
    for _ in range(3):
        run_lock.hold(tmp_path)
        run_lock.hold(tmp_path / ".." / tmp_path.name)
    run_lock.release(tmp_path)
    run_lock.release(tmp_path)
    with holder(tmp_path), run_lock.held(tmp_path) as mine:
        assert not mine
    with run_lock.held(tmp_path) as mine:
        assert mine


@pytest.mark.parametrize("error", (None, SystemExit, KeyboardInterrupt, ValueError))
def test_a_script_releases_its_folders_however_it_ends(error, tmp_path):
    @script
    def main():
        run_lock.hold(tmp_path)
        if error is not None:
            raise error

    with contextlib.suppress(SystemExit, KeyboardInterrupt, ValueError):
        main()
    with holder(tmp_path):
        pass


def test_a_lock_of_a_holder_that_says_nothing_is_told_too(tmp_path):
    with holder(tmp_path):
        (tmp_path / run_lock.LOCK_FILE).write_text("")
        with pytest.raises(run_lock.FolderInUse, match="does not say who"):
            run_lock.hold(tmp_path)


def test_a_test_beside_a_training_sets_nothing_aside(tmp_path):
    brain = make_brain(tmp_path, epochs=2, brain_class=Counting).run()
    last = brain.checkpointer.find_checkpoint()
    (last.path / "model.ckpt").write_bytes(b"PK")
    with holder(tmp_path):
        tested = make_brain(tmp_path, epochs=2, brain_class=Counting)
        tested.on_evaluate_start()
        assert tested.averaged.epochs == [1] and last.path.exists()


def test_a_checkpoint_that_a_training_deletes_meanwhile_is_let_go(tmp_path):
    brain = make_brain(tmp_path, epochs=2, brain_class=Counting).run()
    checkpointer = brain.checkpointer
    found = checkpointer.find_checkpoints()

    def find():
        # what was listed a moment ago
        chosen = [one for one in found if one.path.exists()][:1] if doomed else found[1:]
        while doomed:
            shutil.rmtree(doomed.pop())
        return chosen

    doomed = [found[0].path]
    assert checkpointer.verified(find) == found[1:]
    assert not list(tmp_path.glob("damaged-*"))


@pytest.mark.parametrize("place", ("file", "below a file"))
@pytest.mark.parametrize("kind", ("CTC", "KWS"))
def test_an_output_folder_that_is_a_file_is_refused(kind, place, copy_run, tmp_path):
    file = tmp_path / "a file"
    file.write_text("mine")
    folder = file if place == "file" else file / "run"
    assert str(file) in refusal(copy_run(kind).start, output_folder=folder)
    assert file.read_text() == "mine"


@contextlib.contextmanager
def mounted(folder, *options):
    """A small file system in memory, where root may mount one."""
    folder.mkdir(exist_ok=True)
    words = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(words, check=False, capture_output=True).returncode
    ):
        pytest.skip("no file system can be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("left", (0, 5_000, 20_000, 60_000))
def test_a_full_disk_ends_training_in_one_sentence_and_keeps_the_checkpoint_before(left, tmp_path):
    with mounted(tmp_path / "disk", "-o", "size=1m") as disk:
        make_brain(disk, epochs=1, brain_class=Counting).run()
        before = CompleteCheckpoints(disk).find_checkpoint()
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
        brain = make_brain(disk, epochs=3, brain_class=Counting)
        sentence = refusal(brain.run)
        assert "no space left on device" in sentence and str(before.path) in sentence
        assert CompleteCheckpoints(disk).find_checkpoint().path == before.path
        (disk / "filler").unlink()
        make_brain(disk, epochs=3, brain_class=Counting).run()


@pytest.mark.parametrize("kind", ("CTC", "KWS"))
@pytest.mark.parametrize("left", (0, 40_000, 150_000))
def test_a_full_disk_ends_a_recipe_in_one_sentence(left, kind, copy_run, tmp_path):
    with mounted(tmp_path / "disk", "-o", "size=12m") as disk:
        run = copy_run(kind).copy(disk / "run")
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - left)))
        sentence = refusal(run.start, number_of_epochs=3)
        assert "o space left on device" in sentence and str(disk) in sentence
        assert len(run.checkpoints) == 2
        (disk / "filler").unlink()
        run.start(number_of_epochs=3)


@pytest.mark.parametrize("flags", ((), ("--test_only",)), ids=("training", "test"))
@pytest.mark.parametrize("kind", ("CTC", "KWS"))
def test_a_read_only_folder_is_told_in_one_sentence(kind, flags, copy_run, tmp_path):
    with mounted(tmp_path / "disk", "-o", "size=12m") as disk:
        run = copy_run(kind).copy(disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        sentence = refusal(run.start, *flags, number_of_epochs=3)
        assert "ead-only file system" in sentence and str(disk) in sentence


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "run: no space left on device"),
        (OSError(errno.EROFS, "Read-only file system", "a"), "a: read-only file system"),
        # of a copy the second file is written
        (OSError(errno.ENOSPC, "No space", "from", None, "to"), "to: no space left on device"),
    ],
)
def test_an_error_of_the_disk_names_what_was_written(error, sentence):
    assert tell(error, "run") == sentence


@pytest.mark.parametrize("moment", range(6))
def test_a_training_that_is_killed_goes_on_as_if_it_had_not_been(moment, tmp_path):
    script_file = tmp_path / "train.py"
    script_file.write_text(TRAIN)
    process = subprocess.Popen(
        [sys.executable, script_file, str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begins\n"
    time.sleep(0.02 * moment)
    process.kill()
    process.wait()
    torch.manual_seed(0)
    resumed = make_brain(tmp_path / "run", epochs=4, brain_class=Counting).run()
    torch.manual_seed(0)
    whole = make_brain(tmp_path / "whole", epochs=4, brain_class=Counting).run()
    ours, theirs = (brain.hparams.model.state_dict() for brain in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith("de")]


def test_processes_of_one_run_take_the_same_whole_checkpoint_and_are_refused_together(copy_run):
    run = copy_run("KWS")

    def start(epochs, check=True):
        options = run.options | {"output_folder": run.folder, "number_of_epochs": epochs}
        line = command_line(RECIPE / "hparams" / "debug.yaml", **options)
        return run_script(RECIPE, "train.py", *line, launcher=TORCHRUN, check=check)

    start(3)
    last = run.checkpoints[-1]
    (last / "random_state.rank1.ckpt").write_bytes(b"PK")
    assert start(4).output.count(f"{last} is damaged") == 1
    assert (last.parent / f"damaged-{last.name}").is_dir()
    with holder(run.folder) as first:
        refused = start(4, check=False)
    assert refused.returncode and f"process {first.pid} on" in refused.output


TRAIN = """
import sys
import torch
from tests.support.training import Counting, make_brain
torch.manual_seed(0)
torch.set_num_threads(1)
brain = make_brain(sys.argv[1], epochs=4, brain_class=Counting)
print("begins", flush=True)
brain.run()
"""
