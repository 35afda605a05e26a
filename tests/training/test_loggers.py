"""The loggers of a training's figures."""

import sys

import pytest

from tests.support.recipes import ROOT, load_options
from training.common_options import RunOptions
from training.loggers import TrainLoggers, check_installed

YAML = ROOT / "hparams" / "LibriSpeech" / "ASR" / "CTC" / "conmamba_debug.yaml"
# stands in for the package, which needs an account
WANDB = """
import json

class Run:
    def log(self, figures, step=None):
        with open("logged", "a") as file:
            print(json.dumps(figures), file=file)

def init(**options):
    if options["project"] == "refused":
        raise RuntimeError("no API key\\nconfigured")
    with open("started", "w") as file:
        json.dump(options, file)
    return Run()
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """Weights & Biases, installed."""
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("wandb", None)


def load(folder, *words):
    """Options of a training that asks for Weights & Biases as published quick starts do."""
    words = ["--use_wandb", "True", "--output_folder", str(folder / "run"), *words]
    return load_options([str(YAML), *words], RunOptions)[0]


def test_wandb_gets_its_project_and_the_figures(wandb):
    hparams = load(wandb, "--wandb_project", "my speech")
    TrainLoggers.from_hparams(hparams).log_stats({"epoch": 1, "name": "x"}, {"loss": 2.0})
    assert '"project": "my speech"' in (wandb / "started").read_text()
    assert '"epoch": 1' in (wandb / "logged").read_text()


def test_a_wandb_that_does_not_start_ends_in_one_sentence(wandb):
    hparams = load(wandb, "--wandb_project", "refused")
    with pytest.raises(SystemExit, match=r"--use_wandb: .*\(no API key configured\); log in by"):
        TrainLoggers.from_hparams(hparams)


def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch):
    # a folder that a logger has left is no package
    (tmp_path / "left_by_a_logger").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("left_by_a_logger", "no_such_logger"):
        with pytest.raises(SystemExit, match=f"--use_{name}: .*; pip install {name} first"):
            check_installed(name)


def test_tensorboard_gets_the_numbers_and_the_file_everything(tmp_path):
    loggers = TrainLoggers(str(tmp_path / "log.txt"), tensorboard_folder=str(tmp_path / "tb"))
    loggers.log_stats({"epoch": 1, "name": "x"}, {"loss": 2.0}, {"loss": 1.0})
    assert "name: x - train loss: 2.0000 - valid loss: 1.0000" in (tmp_path / "log.txt").read_text()
    assert list((tmp_path / "tb").iterdir())
