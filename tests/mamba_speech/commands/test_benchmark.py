"""The command benchmark: times and memory of every task."""

import json
import sys

import pytest

from mamba_speech.commands.memory import PeakMemory
from tests.support.run_folders import call

FIGURES = ("latency_s", "fastest_s", "real_time_factor", "audio_s_per_s", "peak_memory_mb")


SLOW = [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("ctc", "s2s")]


@pytest.mark.parametrize("name", [*SLOW, "keywords", "speakers", "windows"])
def test_every_task_is_measured_at_every_length_and_batch_size(name, runs):
    given = ["--lengths", "0.2", "0.4", "--batch_sizes", "1", "2", "--repeats", "1"]
    status, out, _ = call(["benchmark", runs[name], *given, "--device", "cpu", "--json"])
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0, out
    shapes = [(row["batch_size"], row["seconds"]) for row in rows]
    assert shapes == [(1, 0.2), (1, 0.4), (2, 0.2), (2, 0.4)]
    for row in rows:
        assert all(row[figure] > 0 for figure in FIGURES)
        audio = row["seconds"] * row["batch_size"]
        assert row["audio_s_per_s"] == pytest.approx(audio / row["latency_s"])
        assert row["real_time_factor"] * row["audio_s_per_s"] == pytest.approx(1)


def test_a_recording_is_repeated_to_the_length_and_the_table_names_the_task(runs, voices):
    given = ["--lengths", "5", "--batch_sizes", "1", "--repeats", "1", "--recording", voices[0]]
    status, out, _ = call(["benchmark", runs["keywords"], *given])
    assert status == 0 and out.startswith("keywords, cpu") and "latency_s" in out
    status, _, err = call(["benchmark", runs["keywords"], "--recording", "nowhere.wav"])
    assert status == 2 and "nowhere.wav: no such file" in err


def test_memory_is_of_the_work_since_it_was_begun():
    before = PeakMemory("cpu")
    held = bytearray(200 * 2**20)
    held[::4096] = b"1" * len(held[::4096])
    peak = before.peak_mb()
    del held
    later = PeakMemory("cpu").peak_mb()
    if sys.platform == "linux":
        assert later < peak - 150


@pytest.mark.parametrize("option", [["--lengths", "0"], ["--batch_sizes", "0"], ["--repeats", "x"]])
def test_a_number_out_of_its_range_is_refused(option, runs):
    status, _, err = call(["benchmark", runs["keywords"], *option])
    assert status == 2 and option[0] in err
