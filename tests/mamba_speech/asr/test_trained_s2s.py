"""From training to text: a run of train_S2S.py, and the command line on the files of its test set."""

import pytest
from speechbrain.utils.metric_stats import ErrorRateStats

from mamba_speech.cli import main
from tests.support.recognition import call_script, train
from training.results import read_rows


def test_the_command_hears_what_the_test_of_training_heard(audio, letters, tmp_path, capsys):
    folder = tmp_path / "run"
    options = {"token_type": "char", "output_neurons": letters[1], "number_of_epochs": 2}
    # so little training ends every hypothesis at once
    options |= {"min_decode_ratio": 0.1, "test_beam_size": 3}
    train(call_script, "S2S", "conmambamamba_debug", audio, folder, **options)
    capsys.readouterr()
    (row,) = read_rows(folder).values()

    rows = [line.split(",") for line in (audio / "test.csv").read_text().splitlines()[1:]]
    files = [str(audio / path) for path, *_ in rows]
    assert main(["transcribe", str(folder), *files, "--device", "cpu"]) == 0
    lines = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    texts = [lines[file] for file in files]
    assert all(texts)
    for name, options in (("WER", {}), ("CER", {"split_tokens": True})):
        errors = ErrorRateStats(**options)
        errors.append(files, [t.split() for t in texts], [text.split() for _, text, _ in rows])
        assert errors.summarize("error_rate") == pytest.approx(row[name], abs=1e-3)
