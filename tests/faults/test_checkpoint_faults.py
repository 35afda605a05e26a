"""Checkpoints spoiled in every way: a run goes on from the newest whole one, says so, and loses nothing."""

import logging
import shutil
import time

import pytest
import torch
import yaml

from mamba_speech.checkpoint_files import find_damage
from mamba_speech.checkpoints import CompleteCheckpoints
from tests.support.checkpoints import forget_checksums
from tests.support.faults import refusal
from tests.support.training import Counting, make_brain

pytestmark = pytest.mark.exhaustive

FILES = ("model", "optimizer", "counter", "random_state", "brain", "cost")


def halved(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


def emptied(path):
    path.write_bytes(b"")


def missing(path):
    path.unlink()


def one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grown(path):
    path.write_bytes(path.read_bytes() + b"\n")


def garbage(path):
    path.write_bytes(torch.randint(256, (path.stat().st_size,), dtype=torch.uint8).numpy())


def a_folder(path):
    path.unlink()
    path.mkdir()


def of_another(path):
    """The file holds another object's state."""
    other = "optimizer" if path.stem == "cost" else "cost"
    shutil.copyfile(path.with_name(f"{other}.ckpt"), path)


DAMAGES = (halved, zeroed, emptied, missing, one_bit, grown, garbage, a_folder, of_another)
# what a checkpoint without checksums shows when it is loaded
SEEN_IN_OLD = (halved, zeroed, emptied, missing, garbage, of_another)
METAS = {
    "NULs": "\0" * 200,
    "empty": "",
    "truncated": 'unixtime: 1700000000.0\nfiles: {model.ckpt: {bytes: 12, crc32: "',
    "no YAML": "a: [1\n",
    "a list": "- 1\n- 2\n",
    "a text": "checkpoint\n",
    "code": "x: !!python/name:os.system ''\n",
    "no date": "d: 2024-13-45\n",
}
CHANGED_METAS = {
    "time is a text": {"unixtime": "yesterday"},
    "time is no number": {"unixtime": float("nan")},
    "time is missing": {"unixtime": None},
    "time is a switch": {"unixtime": True},
    "end of epoch is a text": {"end-of-epoch": "maybe"},
    "epoch is a text": {"epoch": "two"},
    "epoch is a fraction": {"epoch": 1.5},
    "figure is a text": {"WER": "low"},
    "files are a number": {"files": 5},
    "files are numbers": {"files": [1, 2]},
    "files lie elsewhere": {"files": ["../../model.ckpt"]},
    "files have no size": {"files": {"model.ckpt": {"crc32": "00000000"}}},
    "files have sizes of text": {"files": {"model.ckpt": {"bytes": "12", "crc32": "0"}}},
    "a file is not there": {"files": ["another.ckpt"]},
}


def open_brain(folder, epochs=3, **options):
    torch.manual_seed(0)
    return make_brain(folder, epochs=epochs, brain_class=Counting, lr=0.01, **options)


def weights(brain):
    return brain.hparams.model.state_dict()


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def newest(folder):
    found = CompleteCheckpoints(folder).find_checkpoint()
    return found and found.path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of two epochs with both checkpoints, and the weights that a third one leads to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    open_brain(folder / "two", epochs=2).run()
    return folder / "two", weights(open_brain(folder / "three").run())


@pytest.fixture
def run(undisturbed, tmp_path):
    """A copy of the run, its newest checkpoint, and the weights that it must come to."""
    folder = shutil.copytree(undisturbed[0], tmp_path / "run")
    return folder, newest(folder), undisturbed[1]


def goes_on(run, caplog):
    """A spoiled run goes on from the checkpoint before, and ends where the undisturbed one does."""
    folder, spoiled, expected = run
    content = {path.name: path.read_bytes() for path in spoiled.iterdir() if path.is_file()}
    with caplog.at_level(logging.WARNING):
        brain = open_brain(folder).run()
    assert same(weights(brain), expected)
    assert f"{spoiled} is damaged" in caplog.text and "damaged-CKPT" in caplog.text
    (aside,) = folder.glob("damaged-CKPT+*")
    kept = {path.name: path.read_bytes() for path in aside.iterdir() if path.is_file()}
    assert kept == content and len(CompleteCheckpoints(folder).list_checkpoints()) == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", DAMAGES, ids=lambda spoil: spoil.__name__)
def test_a_spoiled_file_makes_training_go_on_from_the_checkpoint_before(spoil, name, run, caplog):
    spoil(run[1] / f"{name}.ckpt")
    goes_on(run, caplog)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", SEEN_IN_OLD, ids=lambda spoil: spoil.__name__)
def test_so_does_one_of_a_checkpoint_without_checksums(spoil, name, run, caplog):
    if (spoil, name) == (of_another, "model"):
        pytest.skip("is a checkpoint of another model")
    for checkpoint in run[0].glob("CKPT+*"):
        forget_checksums(checkpoint)
    spoil(run[1] / f"{name}.ckpt")
    goes_on(run, caplog)


@pytest.mark.parametrize("content", METAS.values(), ids=METAS)
def test_so_does_a_spoiled_meta_file(content, run, caplog):
    (run[1] / "CKPT.yaml").write_text(content)
    goes_on(run, caplog)


@pytest.mark.parametrize("changes", CHANGED_METAS.values(), ids=CHANGED_METAS)
def test_so_does_a_meta_file_of_wrong_values(changes, run, caplog):
    file = run[1] / "CKPT.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    goes_on(run, caplog)


def test_so_does_a_meta_file_that_is_not_there(run, caplog):
    (run[1] / "CKPT.yaml").unlink()
    goes_on(run, caplog)


@pytest.mark.parametrize("changes", ({}, {"files": None}), ids=("whole", "without a list"))
def test_older_whole_checkpoints_are_loaded(changes, run):
    folder, _, expected = run
    for checkpoint in folder.glob("CKPT+*"):
        file = forget_checksums(checkpoint) / "CKPT.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    assert same(weights(open_brain(folder).run()), expected)
    assert not list(folder.glob("damaged-*"))


@pytest.mark.parametrize("spoil", DAMAGES, ids=lambda spoil: spoil.__name__)
def test_without_a_whole_checkpoint_training_does_not_begin_anew(spoil, run):
    folder, *_ = run
    for checkpoint in list(folder.glob("CKPT+*")):
        spoil(checkpoint / "model.ckpt")
    for _ in range(2):
        sentence = refusal(open_brain(folder).run)
        assert str(folder) in sentence and "model.ckpt" in sentence and "remove them" in sentence
        assert len(list(folder.glob("*CKPT+*"))) == 2


def test_nor_does_it_when_all_were_set_aside_before(run):
    folder, *_ = run
    for checkpoint in list(folder.glob("CKPT+*")):
        checkpoint.rename(checkpoint.with_name(f"damaged-{checkpoint.name}"))
    assert "set aside" in refusal(open_brain(folder).run)
    for aside in folder.glob("damaged-*"):
        shutil.rmtree(aside)
    open_brain(folder, epochs=1).run()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("spoil", (halved, zeroed, missing), ids=lambda spoil: spoil.__name__)
def test_a_test_takes_the_whole_checkpoints(spoil, name, run, caplog):
    folder, last, _ = run
    spoil(last / f"{name}.ckpt")
    brain = open_brain(folder, epochs=2)
    brain.on_evaluate_start()
    (other,) = CompleteCheckpoints(folder).list_checkpoints()
    assert same(weights(brain), torch.load(other.paramfiles["model"], weights_only=True))
    assert "damaged" in caplog.text and brain.averaged.epochs == [1]


def test_a_checkpoint_of_another_model_is_refused_and_stays(run):
    folder, last, _ = run
    brain = open_brain(folder)
    brain.hparams.model.extra = torch.nn.Linear(2, 2)
    assert "of another model" in refusal(brain.run)
    assert last.exists() and not list(folder.glob("damaged-*"))


CHOICES = [
    (choice, count) for choice in ("best", "last", "foo") for count in (1, 2, 0, -3, 1.5, None)
]


@pytest.mark.parametrize(("choice", "count"), CHOICES)
def test_no_option_leaves_a_run_without_its_best_and_its_last(choice, count, run):
    folder, *_ = run
    brain = open_brain(folder, epochs=4, choice=choice, avg_checkpoints=count)
    brain.on_fit_start()
    # the second epoch of four is the best, the last the worst
    for epoch, error in ((3, 5.0), (4, 9.0)):
        brain.save_epoch({"WER": error - 4 * (epoch == 3), "epoch": epoch})
        found = CompleteCheckpoints(folder).list_checkpoints()
        metas = [one.meta for one in found]
        assert max(meta["epoch"] for meta in metas) == epoch
        assert any(meta["WER"] == min(1.0, *(m["WER"] for m in metas)) for meta in metas)
    brain.on_evaluate_start()
    assert brain.averaged.epochs


@pytest.mark.parametrize("back", (1, 3600, 30 * 365 * 86400))
def test_after_a_clock_was_set_back_the_last_checkpoint_is_the_last(back, run, monkeypatch):
    folder, last, expected = run
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - back)
    brain = open_brain(folder).run()
    assert same(weights(brain), expected)
    found = CompleteCheckpoints(folder).find_checkpoint()
    assert found.meta["epoch"] == 3 and last.exists()
    brain.save_epoch({"WER": 0.5, "epoch": 4})
    assert CompleteCheckpoints(folder).find_checkpoint().meta["epoch"] == 4


def test_a_clock_that_is_set_back_puts_off_no_checkpoint_within_an_epoch(run, monkeypatch):
    brain = open_brain(run[0], ckpt_interval_minutes=10)
    now, monotonic = time.time(), time.monotonic()
    for wall, passed, due in ((0, 0, False), (-3600, 300, False), (-3000, 601, True)):
        monkeypatch.setattr(time, "time", lambda wall=wall: now + wall)
        monkeypatch.setattr(time, "monotonic", lambda passed=passed: monotonic + passed)
        assert brain._should_save_intra_epoch_ckpt(now, 1) == due


def test_a_saved_checkpoint_tells_sizes_and_checksums_of_all_its_files(run):
    _, last, _ = run
    files = yaml.safe_load((last / "CKPT.yaml").read_text())["files"]
    assert files.keys() == {path.name for path in last.glob("*.ckpt")}
    assert all(facts["bytes"] == (last / name).stat().st_size for name, facts in files.items())
    assert find_damage(last) is None and not list(last.glob("*.partial"))
