"""compare.py: its command line, its table from the files that runs leave, and two short trainings."""

import csv
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mamba_speech.evaluation.bootstrap import paired_bootstrap
from mamba_speech.evaluation.wer import UtteranceErrors
from training.results import read_rows

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
DEBUG = "hparams/CTC/conmamba_debug.yaml"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare", RECIPE / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_run(folder, errors, test_set="test", words=10, **result):
    """What a training script leaves of a test set."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    row = {"WER": 100 * sum(errors) / words / len(errors), "parameters": 1234, "train_seconds": 60}
    rows[test_set] = row | {"fidelity": "corrected"} | result
    path.write_text(json.dumps(rows))
    with open(folder / f"errors_{test_set}.csv", "w", newline="") as file:
        table = [(f"{i // 2}-{i}", words, error) for i, error in enumerate(errors)]
        csv.writer(file).writerows([("id", "words", "errors"), *table])
    return {name: UtteranceErrors(words, error) for name, words, error in table}


def test_rows_hold_each_seed_and_the_pooled_comparison_with_the_first_system(script, tmp_path):
    errors = {"base": [[2, 3, 1, 4], [3, 3, 2, 4]], "better": [[1, 1, 1, 2], [2, 1, 0, 4]]}
    runs = {name: {} for name in errors}
    tables = {name: [] for name in errors}
    for name, seeds in errors.items():
        for seed, counts in enumerate(seeds, start=1):
            runs[name][seed] = tmp_path / name / str(seed)
            tables[name].append(write_run(runs[name][seed], counts))
            write_run(runs[name][seed], counts[::-1], "dev", words=20)
    rows = script.compare(runs, resamples=200)
    assert [(row["test set"], row["system"]) for row in rows] == [
        ("test", "base"),
        ("test", "better"),
        ("dev", "base"),
        ("dev", "better"),
    ]
    base, better = rows[:2]
    assert base["WER"] == [25, 30] and base["mean"] == 27.5 and "p" not in base
    assert better["WER"] == [12.5, 17.5] and better["deviation"] == pytest.approx(12.5**0.5)
    expected = paired_bootstrap(tables["base"], tables["better"], 200)
    assert [better[key] for key in expected._fields] == pytest.approx(list(expected))
    assert rows[3]["difference"] == pytest.approx(better["difference"] / 2)
    lines = script.as_text([script.table_line(row) for row in rows]).splitlines()
    assert "27.50 ± 3.54" in lines[1] and "-12.50" in lines[2] and "1,234" in lines[2]
    assert len({line.index("1,234") for line in lines[1:]}) == 1


def test_one_seed_has_no_deviation_and_only_common_test_sets_are_compared(script, tmp_path):
    runs = {name: {1: tmp_path / name} for name in ("a", "b")}
    write_run(runs["a"][1], [1, 2])
    write_run(runs["a"][1], [1, 2], "extra")
    write_run(runs["b"][1], [1, 1])
    rows = script.compare(runs, resamples=50)
    assert [row["test set"] for row in rows] == ["test", "test"]
    assert rows[0]["deviation"] is None and "±" not in script.table_line(rows[0])["WER %"]


def test_runs_without_their_files_or_a_common_test_set_are_refused(script, tmp_path):
    runs = {name: {1: tmp_path / name} for name in ("a", "b")}
    write_run(runs["a"][1], [1, 2])
    with pytest.raises(FileNotFoundError, match="results.json"):
        script.compare(runs)
    write_run(runs["b"][1], [1, 2], "other")
    with pytest.raises(ValueError, match="no test set in common"):
        script.compare(runs)
    write_run(runs["b"][1], [1, 2])
    (runs["b"][1] / "errors_test.csv").unlink()
    with pytest.raises(FileNotFoundError, match="errors_test.csv"):
        script.compare(runs)
    write_run(runs["b"][1], [1, 2, 3])
    with pytest.raises(ValueError, match="not tested on the same utterances"):
        script.compare(runs)


def test_a_system_is_a_name_a_yaml_and_options_whose_lists_keep_their_commas(script):
    yaml = RECIPE / DEBUG
    system = script.System.parse(f"up={yaml},fidelity=upstream,test_splits=[a, b,c],lr=0.1")
    assert system.name == "up" and system.script.name == "train_CTC.py"
    assert system.options == {"fidelity": "upstream", "test_splits": "[a, b,c]", "lr": "0.1"}


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["none.yaml"], "write name=file.yaml"),
        (["a=none.yaml"], "a: none.yaml: no such YAML file"),
        (["a={yaml}", "a={yaml},seed_=1"], "a names two systems"),
        (["a={yaml},seed=3"], "a: seed is set by --seeds and --out"),
        (["a={yaml}", "--output_folder=x"], "--output_folder is set by --seeds and --out"),
        (["a={other}"], "named after its script"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_run(
    script, tmp_path, capsys, arguments, complaint
):
    other = tmp_path / "other.yaml"
    other.write_text("seed: 1\n")
    filled = [one.format(yaml=RECIPE / DEBUG, other=other) for one in arguments]
    with pytest.raises(SystemExit):
        script.main([*filled, "--out", str(tmp_path / "out")])
    assert complaint in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_with_the_run_of_another_command_is_not_touched(script, tmp_path, capsys):
    folder = tmp_path / "out" / "a" / "1"
    folder.mkdir(parents=True)
    record = {"command": ["other.yaml", "--lr", "1"], "finished": True}
    (folder / "compare.json").write_text(json.dumps(record))
    arguments = [f"a={RECIPE / DEBUG}", "--seeds", "1", "--out", str(tmp_path / "out")]
    assert script.main(arguments) == 2
    complaint = capsys.readouterr().err
    assert "other.yaml --lr 1" in complaint and "another --out" in complaint
    assert json.loads((folder / "compare.json").read_text()) == record


@pytest.mark.exhaustive
def test_the_same_command_again_goes_on_with_what_is_missing(spoken, tmp_path):
    out = tmp_path / "out"

    def run(*systems):
        command = [sys.executable, "compare.py", *systems, "--seeds", "1", "--out", str(out)]
        command += ["--data_folder", str(spoken), "--resamples", "200", "--noprogressbar"]
        command += shlex.split(
            "--train_splits [train-spoken] --dev_splits [dev-spoken] --test_splits '[dev-spoken, test-spoken]' "
            "--d_model 16 --d_ffn 16 --num_workers 0 --optimizer_step_limit 2"
        )
        return subprocess.run(
            command,
            cwd=RECIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    corrected, wrong = f"corrected={DEBUG}", f"upstream={DEBUG},fidelity=other"
    broken = run(corrected, wrong)
    assert broken.returncode == 1 and "train_CTC.py failed; run this command" in broken.stdout
    upstream = f"up={DEBUG},fidelity=upstream"
    done = run(corrected, upstream)
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.count("finished before") == 1 == done.stdout.count("\n$ ")
    report = json.loads((out / "compare.json").read_text())
    assert [row["fidelity"] for row in report["rows"]] == ["corrected", "upstream"] * 2
    assert {row["test set"] for row in report["rows"]} == {"dev-spoken", "test-spoken"}
    for row in report["rows"]:
        result = read_rows(out / row["system"] / "1")
        assert row["WER"] == [result[row["test set"]]["WER"]] and row["train_seconds"][0] > 0
        if row["system"] == "up":
            assert row["low"] <= row["difference"] <= row["high"] and 0 < row["p"] <= 1
    assert "95 % interval" in done.stdout.splitlines()[-5]
