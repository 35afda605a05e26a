"""The encoders' benchmark: it measures what it names, and says what it could not measure."""

import json

import pytest

from tests.support.benchmarks import fill_readme, run


@pytest.mark.exhaustive
def test_a_short_run_measures_every_encoder_and_writes_tables_that_the_readme_can_hold(tmp_path):
    done = run(
        *("encoder.py", "--lengths", 1, "--training", "2x1", "--rounds", 1, "--out", tmp_path)
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "encoder.json").read_text())
    assert {"processor", "threads", "torch", "date", "command"} <= set(result["machine"])
    assert [row["audio"] for row in result["forward"]] == [1]
    for row in result["forward"]:
        assert set(row["seconds"]) == {"ConMamba", "ceiling", "RelPosMHAXL", "RoPEMHA"}
        assert all(seconds > 0 for seconds in row["seconds"].values())
    assert all(len(row["bytes"]) == 3 for row in result["memory"])
    assert result["difference_from_the_reference_backend"] < 1e-4
    assert (tmp_path / "encoder.png").stat().st_size > 10_000
    names = ("forward", "speedup", "memory", "training")
    text = fill_readme(tmp_path, [f"encoder_{name}" for name in names])
    assert text.count("\n| 1 |") == 3 and "\n| 2 x 1 s |" in text


def test_every_encoder_is_timed_forwards_and_in_training(load):
    encoder = load("encoder")
    options = encoder.options_of(["--rounds", "1", "--threads", "1"])
    names = ("ConMamba", "RelPosMHAXL", "RoPEMHA")
    (row,) = encoder.measure_forward([1], (*names, "ceiling"), options)
    assert row["audio"] == 1 and set(row["seconds"]) == {*names, "ceiling"}
    assert all(seconds > 0 for seconds in row["seconds"].values())
    (row,) = encoder.measure_training([(1, 1)], names[:1], options)
    assert (row["batch"], row["audio"]) == (1, 1) and row["seconds"]["ConMamba"] > 0


def test_a_batch_that_is_none_is_refused_by_name(load, capsys):
    with pytest.raises(SystemExit):
        load("encoder").options_of(["--training", "4*15"])
    assert "4*15 is not utterances x seconds" in capsys.readouterr().err


def test_goals_are_compared_with_the_ratio_of_the_measured_times(load):
    def row(seconds, relative, rotary):
        times = {"ConMamba": seconds, "ceiling": seconds / 2}
        times |= {"RelPosMHAXL": relative, "RoPEMHA": rotary}
        return {"audio": 60, "seconds": {n: t for n, t in times.items() if t is not None}}

    rows = [row(1.0, 4.5, 0.9), row(1.0, 3.9, 1.1), row(1.0, None, 1.1)]
    table = load("encoder_tables").speedup_table({"forward": rows})
    assert [r["goal of RelPosMHAXL"] for r in table] == [
        "at least 4: met",
        "at least 4: missed",
        "at least 4",
    ]
    assert [r["goal of RoPEMHA"] for r in table] == ["at least 1: missed", *["at least 1: met"] * 2]
    assert [r["RelPosMHAXL / ceiling"] for r in table] == ["9.00", "7.80", "-"]
    forward = load("encoder_tables").forward_table({"forward": rows})
    assert forward[0]["real-time factor of ConMamba"] == "0.0167"
    assert forward[2]["RelPosMHAXL, ms"] == "-"


@pytest.mark.parametrize(("share", "verdict"), [(0.24, "met"), (0.26, "missed")])
def test_memory_at_two_minutes_is_held_to_a_quarter(load, share, verdict):
    used = {"ConMamba": share * 1e9, "RelPosMHAXL": 1e9, "RoPEMHA": 1e8}
    rows = load("encoder_tables").memory_table({"memory": [{"audio": 120, "bytes": used}]})
    assert rows[0]["goal"] == f"at most 0.25: {verdict}"
    assert rows[0]["ConMamba / RelPosMHAXL"] == f"{share:.3f}"
