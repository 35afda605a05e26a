"""`--resume PATH`: the checkpoint that it names, and what it refuses."""

import pytest
import yaml

from training.option_schema import FIXED, Count, Options, option
from training.resume_path import StartingPoint, take_resume


class Toy(Options):
    """Options of a script."""

    layers: Count = option("Layers of the network.", resume=FIXED)


def write_run(folder, *times, **options):
    """A run with checkpoints of these times, the first of which is called CKPT+0, and its options."""
    for number, time in enumerate(times):
        checkpoint = folder / "save" / f"CKPT+{number}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "model.ckpt").write_bytes(b"weights")
        meta = {"unixtime": time, "end-of-epoch": True, "files": ["model.ckpt"]}
        (checkpoint / "CKPT.yaml").write_text(yaml.safe_dump(meta))
    (folder / "save" / "tokenizer.model").write_text("tokens")
    (folder / "hyperparams.yaml").write_text(yaml.safe_dump(options))
    return folder


@pytest.fixture
def run(tmp_path):
    """A run with three checkpoints, of which the second is the newest."""
    return write_run(tmp_path / "run", 1, 3, 2, layers=4, data_folder="corpus")


def values(folder, **options):
    """Values of the options of a run that is started."""
    return {
        "output_folder": str(folder),
        "save_folder": str(folder / "save"),
        "layers": 4,
    } | options


@pytest.mark.parametrize(
    "words, paths",
    [
        (["a.yaml", "--seed", "1"], []),
        (["a.yaml", "--resume", "x"], ["x"]),
        (["--resume=x", "a.yaml"], ["x", "a.yaml"]),
        (["a.yaml", "--resume", "x", "y", "--seed", "1"], ["x", "y"]),
    ],
)
def test_the_option_has_one_path_or_what_a_shell_makes_of_a_pattern(words, paths):
    others, taken = take_resume(words)
    assert taken == paths and "--resume" not in " ".join(others)


@pytest.mark.parametrize("words", [["--resume"], ["--resume="], ["--resume", "--seed", "1"]])
def test_an_option_without_its_path_is_refused(words):
    with pytest.raises(SystemExit, match="--resume has no value"):
        take_resume(["a.yaml", *words])


def test_a_checkpoint_is_named_by_its_folder_a_file_a_run_or_a_pattern(run):
    save = run / "save"
    assert StartingPoint([str(save / "CKPT+0")]).checkpoint == save / "CKPT+0"
    assert StartingPoint([str(save / "CKPT+0" / "model.ckpt")]).checkpoint == save / "CKPT+0"
    for path in (run, save, save / "CKPT+*", save / "CKPT+*.ckpt"):
        assert StartingPoint([str(path)]).checkpoint == save / "CKPT+1", path
    both = [str(save / "CKPT+0"), str(save / "CKPT+2")]
    assert StartingPoint(both).checkpoint == save / "CKPT+2"
    # cut short
    (save / "CKPT+1" / "model.ckpt").unlink()
    assert StartingPoint([str(run)]).checkpoint == save / "CKPT+2"


@pytest.mark.parametrize(
    "path", ["nothing", "run/hyperparams.yaml", "empty", "", "run/save/CKPT+9"]
)
def test_where_no_checkpoint_is_one_sentence_says_so(run, path, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SystemExit, match="there is no whole checkpoint; give a folder CKPT"):
        StartingPoint([str(tmp_path / path) if path else path])


def test_a_new_run_gets_a_copy_and_the_tokenizer_and_the_other_run_stays(run, tmp_path):
    start, save = StartingPoint([str(run)]), tmp_path / "new" / "save"
    before = sorted(run.rglob("*"))
    assert start.data_of({"data_folder": None}) == {"data_folder": "corpus"}
    assert start.data_of({"data_folder": "mine"}) == {} == start.data_of({})
    start.check(values(tmp_path / "new"), Toy)
    start.take_up(save)
    names = {path.name for path in save.iterdir()}
    assert names == {"CKPT+1", "tokenizer.model"} and sorted(run.rglob("*")) == before
    assert (save / "CKPT+1" / "model.ckpt").read_bytes() == b"weights"
    # the same command again goes on from the run's own checkpoints
    (save / "CKPT+1").rename(save / "CKPT+5")
    start.take_up(save)
    assert {path.name for path in save.glob("CKPT*")} == {"CKPT+5"}


def test_another_model_and_an_older_checkpoint_of_the_same_run_are_refused(run, tmp_path):
    start = StartingPoint([str(run)])
    with pytest.raises(SystemExit, match="trained with --layers 4, and not 5"):
        start.check(values(tmp_path / "new", layers=5), Toy)
    start.check(values(run), Toy)
    with pytest.raises(SystemExit, match="its run has gone on to CKPT.1; leave --resume out"):
        StartingPoint([str(run / "save" / "CKPT+0")]).check(values(run), Toy)
    assert not (tmp_path / "new").exists()
