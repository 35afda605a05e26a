"""The keyword networks' benchmark: it measures every network that it is asked for, and counts work rightly."""

import json

import pytest

from tests.support.benchmarks import fill_readme, run


@pytest.fixture
def kws(load):
    return load("kws")


@pytest.mark.exhaustive
def test_a_short_run_writes_tables_that_a_readme_can_hold(tmp_path):
    done = run(
        *("kws.py", "--models", "mamba_mfcc_small", "keyword_cnn", "--lengths", 1, 2),
        *("--rounds", 1, "--threads", 1, "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "kws.json").read_text())
    assert {"processor", "torch", "date", "command"} <= set(result["machine"])
    assert result["models"]["mamba_mfcc_small"]["parameters"] == 268259
    assert set(result["clip_lengths"]) == {"1", "2"}
    assert all(row["median"] <= row["p95"] for row in result["latency"]["1"].values())
    assert (tmp_path / "kws.png").stat().st_size > 10_000
    text = fill_readme(tmp_path, ["kws_latency", "kws_lengths"])
    assert text.count("| keyword_cnn |") == 2


@pytest.mark.parametrize("name", ["mamba_mfcc_small", "keyword_cnn"])
@pytest.mark.parametrize("seconds, batch", [(1, 2), (2, 1)])
def test_every_clip_gets_the_scores_of_all_classes(kws, name, seconds, batch):
    scores = kws.classifier(name, seconds, batch)()
    assert scores.shape == (batch, 35) and scores.isfinite().all()


def test_tables_give_times_rates_and_growth_by_network(kws):
    latency = {"median": 0.002, "p95": 0.003, "calls": 9}
    clips = {1: {"seconds": 0.002, "bytes": 2**21}, 2: {"seconds": 0.004, "bytes": None}}
    result = {
        "models": {"retnet": {"parameters": 7, "multiply_accumulates": 2_500_000}},
        "latency": {1: {"retnet": latency}},
        "throughput": {1: {"retnet": 480.4}},
        "clip_lengths": {seconds: {"retnet": figures} for seconds, figures in clips.items()},
    }
    made = kws.tables(result | {"claims": kws.check_claims(result)})
    assert list(made["latency"][0].values()) == ["retnet", 7, "2.5", "2.0 (3.0)", "480"]
    assert list(made["lengths"][0].values()) == ["retnet", "2 / 2", "4 / ?", "?"]


def test_the_work_of_a_mamba_network_is_what_its_layers_add_up_to(kws):
    frames, d, inner, states, rank, classes = 63, 64, 128, 16, 4, 35
    block = d * 2 * inner + inner * (rank + 2 * states) + rank * inner + inner * d
    block += inner * (3 * states + 4)
    head = d * d // 2 + d // 2 * classes
    expected = frames * (40 * d + 8 * block) + head
    assert kws.multiply_accumulates("mamba_mfcc_small") == expected


def test_twice_the_audio_is_twice_the_work_but_for_the_classifier(kws):
    one, two = (kws.multiply_accumulates("mamba_mfcc_small", seconds) for seconds in (8, 16))
    assert two / one == pytest.approx(2, rel=0.01)


def test_claims_are_judged_by_the_measured_figures(kws):
    result = {
        "models": {"mamba_mel_small": {}, "retnet": {}},
        "latency": {1: {"mamba_mel_small": {"median": 2.0}, "retnet": {"median": 3.0}}},
        "clip_lengths": {
            30: {"mamba_mel_small": {"bytes": 100}, "retnet": {"bytes": 100}},
            60: {"mamba_mel_small": {"bytes": 200}, "retnet": {"bytes": 400}},
        },
    }
    claims = kws.check_claims(result)
    assert claims["memory_growth"] == pytest.approx({"mamba_mel_small": 1, "retnet": 2})
    assert claims["faster_than"] == {"mamba_mel_small": ["retnet"]}


def test_percentiles_are_values_that_were_measured(kws):
    values = list(range(1, 101))
    assert kws.percentile(values, 0.95) == 95 and kws.percentile([3.0], 0.95) == 3.0
