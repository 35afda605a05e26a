"""The comparison of systems: wrong command lines, failed trainings, and runs that cannot be compared."""

import json
from pathlib import Path

import pytest

from tests.support.tested_runs import (
    write_recogniser,
    write_record,
    write_separator,
    write_spotter,
)
from training import compare

HPARAMS = Path(__file__).parents[2] / "hparams"
CTC = HPARAMS / "LibriSpeech/ASR/CTC/conmamba_debug.yaml"
LM = HPARAMS / "LibriSpeech/ASR/LM/mamba_debug.yaml"
KWS = HPARAMS / "SpeechCommands/KWS/debug.yaml"


def test_a_misspelt_option_is_refused_before_anything_is_trained(tmp_path, compare_runs, capsys):
    wrong = ["--data_foldr", "digits", "--seeds", "1"]
    assert compare_runs(f"a={KWS}", f"b={KWS},epochs=1", *wrong) == 2
    assert (
        compare_runs(f"a={KWS}", f"b={KWS},epochs=1", "--seeds", "1", "--number_of_epochs", "2")
        == 2
    )
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a: --data_foldr: ") and "did you mean --data_folder" in first
    assert second.startswith("b: --epochs and --number_of_epochs are two names")
    assert not (tmp_path / "out").exists()


def test_a_system_without_all_its_runs_has_no_row_and_the_status_tells(
    tmp_path, compare_runs, capsys, monkeypatch
):
    # in the place of train.py
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('the disk is full')")
    monkeypatch.setattr(compare, "find_script", lambda yaml: script)
    monkeypatch.setattr(compare, "task_of_script", lambda script: compare.task_of_run(done))
    done = write_spotter(tmp_path / "done", [1, 0, 1])
    systems = [f"done={done}", f"fails={KWS}"]
    assert compare_runs(*systems, "--seeds", "1", "--against", "fails") == 1
    seen = capsys.readouterr()
    assert (
        "fails seed 1: failed: the disk is full" in seen.out and "fails seed 1 failed" in seen.err
    )
    assert "no differences to it" in seen.err
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["system"] for row in found["rows"]] == ["done"] and "difference" not in found[
        "rows"
    ][0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["{ctc}"], "write NAME=FILE.yaml"),
        (["a=none.yaml"], "a: none.yaml: no such YAML file or folder"),
        (["a={run},none"], "a: none: no such folder"),
        (["a={run},{run}"], "a: names one folder twice"),
        (["a={ctc}", "a={ctc},lr=1"], "a names two systems"),
        (["a={ctc},lr"], "a: lr: write option=value"),
        (["a={ctc},lr=1,lr=2"], "a: lr is given twice"),
        (["a={ctc},seed=3"], "a: seed is set by --seeds"),
        (["a={ctc},lr=3", "--lr", "4"], "a: lr is set by --lr, too"),
        (["a={ctc}", "--output_folder=x"], "--output_folder is set by --out"),
        (["a={ctc}", "--lr", "1", "--each", "lr=1,2"], "--lr is set by --each"),
        (["a={ctc}", "--each", "lr"], "argument --each: lr: write option=value"),
        (["a={ctc}", "--each", "lr=1,1"], "'1' stands there twice"),
        (["a={ctc}", "--seeds", "1,1"], "argument --seeds: names 1 twice"),
        (
            ["a={ctc}", "--seeds", "one"],
            "argument --seeds: must be a whole number; got one; write seeds such as 1,2,3",
        ),
        (["a={ctc}", "--jobs", "0"], "--jobs: must be a whole number from 1"),
        (["a={ctc}", "--against", "b"], "--against b is not among the systems: a"),
        (["a={ctc}", "--metric", "dB"], "--metric dB: speech recognition has WER"),
        (["a={ctc}", "b={run}"], "a is of speech recognition and b, {run}, of keyword spotting"),
        (["a={lm}"], "train_LM.py: its systems cannot be compared"),
        (["a={own}"], "does not lie in a recipe's folder of hparams: give its script as --script"),
        (["a={empty}"], "is not the folder of a tested run"),
        (["a={run}", "--lr", "3"], "nothing is trained with --lr 3"),
        (["a={run}", "--seeds", "3"], "nothing is trained with --seeds"),
        (
            ["a={ctc}", "--choose", "lr_modl"],
            "conmamba_debug.yaml has no such option; did you mean",
        ),
        (["a={run}", "--speakers", "{own}"], "--speakers .* needs the columns mix_id or ID"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_command_line_gets_one_sentence_before_anything_is_run(
    tmp_path, compare_runs, capsys, arguments, complaint
):
    own, empty = tmp_path / "own.yaml", tmp_path / "empty"
    own.write_text("seed: 1\n")
    empty.mkdir()
    names = {"run": write_spotter(tmp_path / "run", [1, 0]), "ctc": CTC, "lm": LM}
    names |= {"own": own, "empty": empty}
    with pytest.raises(SystemExit) as stopped:
        compare_runs(*(part.format(**names) for part in arguments))
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=complaint.format(**names)):
        raise ValueError(capsys.readouterr().err)


NO_TESTS = '{"version": 1, "recipe": null, "training": null, "tests": {}}'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test_results.csv", "snt_id,si-snr_i\nm9,1\n", "not tested on the same items: m0 differs"),
        ("test_results.csv", "snt_id,si-snr_i\nm0,much\n", "line 2: is no mixture"),
        ("train_log.txt", "", "train_log.txt: tells of no finished epoch"),
        ("results.json", None, "results.json: no such file"),
        ("results.json", "{}", "since it names no version"),
        ("results.json", NO_TESTS, "results.json: tells of no test"),
    ],
)
def test_a_damaged_or_foreign_run_is_one_sentence(
    tmp_path, compare_runs, capsys, name, text, message
):
    good, bad = (write_separator(tmp_path / which, [1.0, 2.0]) for which in ("good", "bad"))
    path = tmp_path / "bad" / name
    path.unlink() if text is None else path.write_text(text)
    assert compare_runs(f"a={good}", f"b={bad}") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_record_without_a_column_of_the_table_is_refused_by_name(tmp_path, compare_runs, capsys):
    folder = write_separator(tmp_path / "a", [1.0, 2.0], train_seconds=None)
    assert compare_runs(f"a={folder}") == 2
    assert "results.json: tells of test without train_seconds" in capsys.readouterr().err


def test_tests_on_other_items_and_without_a_common_set_are_refused(tmp_path, compare_runs, capsys):
    base = f"a={write_recogniser(tmp_path / 'a', [1, 2])}"
    for name, errors, words, test_set, message in (
        ("more", [1, 2, 3], 10, "test", "1-2 differs, and 0 more"),
        ("words", [1, 2], 9, "test", "0-0 differs, and 1 more"),
        ("other", [1, 2], 10, "dev", "no test set in common"),
    ):
        assert (
            compare_runs(base, f"b={write_recogniser(tmp_path / name, errors, test_set, words)}")
            == 2
        )
        assert message in capsys.readouterr().err
    write_record(tmp_path / "a", "second")
    assert compare_runs(base) == 2 and "errors_second.csv: no such file" in capsys.readouterr().err
