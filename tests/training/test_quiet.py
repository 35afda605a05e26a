"""What a training's log leaves out, and what it never does; how it ends."""

import logging
import shlex
import sys
from pathlib import Path

import pytest

from training.experiment import load_experiment, suggest
from training.quiet import make_log_file_robust


@pytest.mark.parametrize(
    "name, level, text, passed",
    [
        ("speechbrain.utils.quirks", logging.INFO, "Applied quirks (see `x`): [allow_tf32]", False),
        ("speechbrain.utils.quirks", logging.INFO, "Excluded quirks specified by x: []", False),
        ("speechbrain.utils.quirks", logging.INFO, "Excluded quirks specified by x: [y]", True),
        ("speechbrain.core", logging.INFO, "ASR Model Statistics:\n* Total Number: 3", False),
        ("speechbrain.core", logging.WARNING, "ASR Model Statistics: there are none", True),
        ("speechbrain.core", logging.INFO, "Gradscaler enabled: `True`", True),
        ("speechbrain.core", logging.WARNING, "Loss is not finite", True),
        ("speechbrain.utils.superpowers", logging.DEBUG, "torch==2.11.0", False),
        ("speechbrain.utils.superpowers", logging.ERROR, "git failed", True),
        (
            "speechbrain.utils.train_logger",
            logging.WARNING,
            "torchvision is not available - cannot save figures",
            False,
        ),
        ("speechbrain.utils.train_logger", logging.WARNING, "torchvision is broken", True),
    ],
)
def test_only_remarks_that_tell_nothing_are_left_out(name, level, text, passed):
    record = logging.LogRecord(name, level, __file__, 1, text, None, None)
    assert bool(logging.getLogger(name).filter(record)) is passed


def test_the_log_file_holds_a_name_that_is_no_text(tmp_path, capsys):
    root, handler = logging.getLogger(), logging.FileHandler(tmp_path / "log.txt", encoding="utf-8")
    root.addHandler(handler)
    try:
        make_log_file_robust()
        # to the file alone: pytest cannot read back what is no text
        handler.handle(logging.makeLogRecord({"msg": "left out: caf\udce9.wav"}))
    finally:
        root.removeHandler(handler)
        handler.close()
    assert "left out: caf\\udce9.wav" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "Logging error" not in capsys.readouterr().err


def test_the_next_command_can_be_pasted_whatever_its_paths_hold(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    inside, outside = Path("my runs") / "it's", tmp_path.parent / "a file.wav"
    suggest("mamba-speech", "transcribe", inside, outside, Path("-1"))
    *program, command, first, second, third = shlex.split(caplog.messages[-1].splitlines()[-1])
    assert program in (["mamba-speech"], [sys.executable, "-m", "mamba_speech.cli"])
    assert (command, first, second, third) == ("transcribe", str(inside), str(outside), "./-1")


YAML = """
fidelity: corrected
output_folder: !PLACEHOLDER
d_model: 8
"""


def test_the_log_holds_our_details_and_no_other_librarys(tmp_path, monkeypatch):
    # for which SpeechBrain starts pip and git
    monkeypatch.setattr("speechbrain.utils.logger.get_environment_description", lambda: "")
    yaml = tmp_path / "hparams.yaml"
    yaml.write_text(YAML)
    load_experiment([str(yaml), "--output_folder", str(tmp_path / "run")])
    for name in ("training.brain", "speechbrain.core", "matplotlib.font_manager", "urllib3"):
        logging.getLogger(name).log(logging.INFO, "%s informs", name)
    logging.getLogger("mamba_speech.run").debug("a detail of ours")
    logging.getLogger("matplotlib.font_manager").debug("a detail of theirs")
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count(" informs") == 4
    assert "a detail of ours" in log and "a detail of theirs" not in log
