"""The loggers of a training's figures."""

from training.loggers import TrainLoggers


def test_tensorboard_gets_the_numbers_and_the_file_everything(tmp_path):
    loggers = TrainLoggers(str(tmp_path / "log.txt"), tensorboard_folder=str(tmp_path / "tb"))
    loggers.log_stats({"epoch": 1, "name": "x"}, {"loss": 2.0}, {"loss": 1.0})
    assert "name: x - train loss: 2.0000 - valid loss: 1.0000" in (tmp_path / "log.txt").read_text()
    assert list((tmp_path / "tb").iterdir())
