"""The comparison of speaker verification systems, whose metric is no mean over trials."""

import numpy as np
import pytest

from mamba_speech.evaluation.verification import TrialErrors
from tests.support.tested_runs import write_verifier


def make_trials(speakers, separations, seed=0):
    """Labels, files of both sides, and scores for each separation of targets from impostors, with common noise."""
    random = np.random.default_rng(seed)
    first = np.repeat(np.arange(speakers), 40)
    labels = np.tile([1, 0], 20 * speakers)
    second = np.where(labels, first, (first + random.integers(1, speakers, len(first))) % speakers)
    files = [[f"id{who}/s{n}/1.wav" for n, who in enumerate(own)] for own in (first, second)]
    noise = random.normal(size=len(labels)) + random.normal(size=speakers)[first] / 2
    return labels, *files, [noise + by * labels for by in separations]


def test_equal_error_rates_of_runs_are_compared_by_drawing_speakers(tmp_path, compare_runs, capsys):
    *trials, scores = make_trials(10, (2, 2.2, 3, 3.2))
    runs = [
        write_verifier(tmp_path / str(n), *trials, own, seed=n // 2 + 1)
        for n, own in enumerate(np.array(scores)[[0, 2, 1, 3]])
    ]
    rows = compare_runs(f"base={runs[0]},{runs[2]}", f"better={runs[1]},{runs[3]}")
    base, better = rows["mine", "base"], rows["mine", "better"]
    for row, own in ((base, scores[:2]), (better, scores[2:])):
        errors = [TrialErrors(trials[0], one) for one in own]
        assert row["by_seed"] == pytest.approx([100 * one.eer()[0] for one in errors])
        assert row["mean"] == pytest.approx(np.mean(row["by_seed"]))
        assert row["low"] < row["mean"] < row["high"] and row["drawn"] == "speakers"
        for name, p_target in (("minDCF", 0.01), ("minDCF 0.05", 0.05)):
            costs = [one.min_dcf(p_target, normalise=True)[0] for one in errors]
            assert row["others"][name]["estimate"] == pytest.approx(np.mean(costs))
    found = better["difference"]
    assert found["estimate"] == pytest.approx(better["mean"] - base["mean"])
    # the noise is common, so the difference is surer than either figure
    assert found["high"] < 0 and found["p"] < 0.05
    assert found["high"] - found["low"] < base["high"] - base["low"]
    printed = capsys.readouterr().out
    assert "EER %" in printed and "minDCF 0.01" in printed and "other speakers" in printed
    assert "points" in printed


def test_equal_systems_do_not_differ_and_any_metric_can_be_compared(tmp_path, compare_runs):
    *trials, (scores,) = make_trials(8, (2,))
    a, b = (write_verifier(tmp_path / name, *trials, scores) for name in "ab")
    for metric in ("EER", "minDCF 0.05"):
        rows = compare_runs(f"a={a}", f"b={b}", "--metric", metric)
        found = rows["mine", "b"]["difference"]
        assert (found["estimate"], found["low"], found["high"], found["p"]) == (0, 0, 0, 1)


def test_trials_are_drawn_where_speakers_are_few_or_unknown(tmp_path, compare_runs):
    *trials, (scores,) = make_trials(5, (2,))
    few = write_verifier(tmp_path / "few", *trials, scores)
    (row,) = compare_runs(f"a={few}").values()
    assert row["drawn"] == "items" and row["low"] < row["mean"] < row["high"]
    labels, first, second, (scores,) = make_trials(10, (2,))
    flat = [[file.replace("/", "_") for file in own] for own in (first, second)]
    unknown = write_verifier(tmp_path / "unknown", labels, *flat, scores)
    (row,) = compare_runs(f"a={unknown}").values()
    assert row["drawn"] == "items"


def test_runs_on_other_trials_or_labels_are_not_compared(tmp_path, compare_runs, capsys):
    labels, first, second, (scores,) = make_trials(8, (2,))
    a = write_verifier(tmp_path / "a", labels, first, second, scores)
    others = {
        "flipped": (1 - labels, first, second, scores),
        "order": (labels[::-1], first[::-1], second[::-1], scores),
    }
    for name, own in others.items():
        b = write_verifier(tmp_path / name, *own)
        assert compare_runs(f"a={a}", f"b={b}") == 2
        assert "not tested on the same items" in capsys.readouterr().err
