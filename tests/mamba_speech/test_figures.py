"""The pictures: what they read, and that they are drawn without a display."""

import matplotlib.image
import pytest

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.figures import learning_curve, read_train_log, spectrogram_with_alignment

LINE = (
    "epoch: {}, lr: 1.0000e-03, steps: 5 - train loss: {}, train seconds: 2.6912 "
    "- valid loss: 3.9568, valid WER: 1.0000e+02, valid CER: 1.0000e+02\n"
)


def test_an_epoch_that_was_run_twice_counts_once_and_tests_do_not(tmp_path):
    log = tmp_path / "train_log.txt"
    test = "test set: test-clean - test loss: 3.9568, test WER: 1.0000e+02\n"
    log.write_text(LINE.format(1, 4.5) + LINE.format(2, 9.9) + LINE.format(2, 3.5) + test)
    epochs = read_train_log(log)
    assert [figures["train loss"] for figures in epochs] == [4.5, 3.5]
    assert epochs[0]["lr"] == 0.001 and epochs[0]["valid WER"] == 100


def test_a_log_without_epochs_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_log.txt: no such file"):
        read_train_log(tmp_path / "train_log.txt")
    (tmp_path / "train_log.txt").write_text("")
    with pytest.raises(ValueError, match="train_log.txt: tells of no finished epoch"):
        learning_curve(tmp_path / "train_log.txt", tmp_path / "curve.png")


def test_both_pictures_are_drawn_and_leave_nothing_else(trained, audio, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    recognizer = Recognizer.load(trained, device="cpu", decoding="greedy")
    learning_curve(trained / "train_log.txt", tmp_path / "curve.png")
    for index in (0, 7):
        png = tmp_path / f"{index}.png"
        spectrogram_with_alignment(recognizer, audio / f"{index}.wav", png, "one two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "7.png", "curve.png"]
    for path in tmp_path.iterdir():
        picture = matplotlib.image.imread(path)
        assert picture.shape[1] > 900 and picture[..., :3].std() > 0.05
