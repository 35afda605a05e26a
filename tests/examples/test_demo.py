"""examples/demo.py: its figures, its control, and the whole of it in small."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from speechbrain.utils.metric_stats import ErrorRateStats

from tests.support.recipes import ROOT

EXAMPLES = ROOT / "examples"


@pytest.fixture
def demo(monkeypatch):
    """The script's modules, imported as Python imports them for the script."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import demo
    import demo_report

    return demo, demo_report


@pytest.fixture
def alignments(tmp_path):
    """A file of alignments of 40 utterances of 4 voices, and what is in it."""
    random = np.random.default_rng(0)
    words = np.array(["ONE", "TWO", "THREE", "FOUR", "ÄÖ", "ДА"])
    said = [list(random.choice(words, random.integers(1, 9))) for _ in range(40)]
    heard = [[word for word in text if random.random() < 0.8] for text in said]
    heard[0], heard[1] = [], ["ONE", "TWO", *said[1], "THREE"]
    names = [f"{7000 + index % 4}-100-{index:04d}" for index in range(40)]
    stats = ErrorRateStats()
    stats.append(names, heard, said)
    with open(tmp_path / "wer.txt", "w", encoding="utf-8") as file:
        stats.write_stats(file)
    truth = {
        name: (" ".join(a), " ".join(b)) for name, a, b in zip(names, said, heard, strict=True)
    }
    return tmp_path / "wer.txt", truth, stats.summarize("error_rate")


def test_alignments_give_back_the_texts_and_their_error_rate(demo, alignments):
    path, truth, wer = alignments
    utterances = demo[1].read_alignments(path)
    assert {one.id: (one.said, one.heard) for one in utterances} == truth
    assert demo[1].error_rate(utterances) == pytest.approx(wer)
    (path.parent / "none.txt").write_text("%WER 0.00\n")
    with pytest.raises(ValueError, match="none.txt: holds no alignments"):
        demo[1].read_alignments(path.parent / "none.txt")


def test_the_interval_holds_the_rate_and_voices_are_what_varies(demo, alignments):
    report = demo[1]
    utterances = report.read_alignments(alignments[0])
    low, high = report.interval(utterances, seed=1)
    assert low < report.error_rate(utterances) < high
    assert report.interval(utterances, seed=1) == (low, high)
    one_voice = report.by_voice(utterances)["7001"]
    rate = report.error_rate(one_voice)
    assert report.interval(one_voice, seed=1) == pytest.approx((rate, rate))


def test_pairs_are_drawn_by_seed_alone(demo, alignments):
    utterances = demo[1].read_alignments(alignments[0])
    drawn = demo[1].draw_pairs(utterances, 10, 3)
    assert len({one.id for one in drawn}) == 10
    assert demo[1].draw_pairs(utterances[::-1], 10, 3) == drawn
    assert demo[1].draw_pairs(utterances, 10, 4) != drawn


@pytest.mark.parametrize("count", [130, 51, 2])
def test_shuffled_transcripts_stay_the_same_texts_and_all_move(count, demo, tmp_path):
    rows = [{"ID": f"{i:03d}", "duration": 1 + i / 10, "wrd": f"TEXT {i}"} for i in range(count)]
    with open(tmp_path / "train.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    demo[0].shuffle_transcripts(tmp_path / "train.csv", tmp_path / "shuffled.csv", seed=1)
    with open(tmp_path / "shuffled.csv", newline="", encoding="utf-8") as file:
        shuffled = {row["ID"]: row["wrd"] for row in csv.DictReader(file)}
    assert Counter(shuffled.values()) == Counter(row["wrd"] for row in rows)
    moves = [abs(int(name) - int(text.split()[1])) for name, text in shuffled.items()]
    assert 0 < min(moves) and max(moves) < 2 * demo[0].SHUFFLE_GROUP


def test_a_folder_with_a_demo_of_other_options_is_refused(demo, tmp_path, capsys):
    folder = str(tmp_path / "demo")
    demo[0].Demo(demo[0].parse_arguments(["--output_folder", folder]))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert demo[0].main(["--output_folder", folder, "--seed", "2"]) == 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert "with other options (--seed was 1)" in capsys.readouterr().err


def start(folder, *options, **process_options):
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--output_folder", str(folder)]
    command += ["--hours", "0.02", "--test_minutes", "0.2", "--number_of_epochs", "1", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder.parent, env=environment, **pipes, **process_options)


@pytest.mark.exhaustive
def test_a_demo_that_was_stopped_goes_on_and_a_finished_one_only_reports(tmp_path):
    folder = tmp_path / "demo"
    process = start(folder)
    deadline = time.monotonic() + 120
    while not (folder / "run" / "hyperparams.yaml").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "The same command goes on" in output, output
    for expected in (1, 2):
        process = start(folder)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        assert output.count("Done before; nothing to do.") == expected, output
    assert "unseen voices" in output and "mamba-speech transcribe" in output
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    low, high = report["WER_interval_95"]
    assert 0 <= low <= report["WER"] <= high and report["voices"] and report["pairs"]
    assert report["stages"]["training and test"]["starts"] == 2
    assert (folder / "learning_curve.png").exists() and (folder / "alignment.png").exists()
