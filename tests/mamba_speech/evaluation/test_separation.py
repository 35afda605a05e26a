"""The scores of separated mixtures: what they equal, what they leave out, and the table that they are written as."""

import csv
import sys

import numpy as np
import pytest
import torch
from speechbrain.nnet.losses import get_si_snr_with_pitwrapper

from mamba_speech.evaluation.separation import (
    SeparationScores,
    check_metrics,
    signal_distortion_ratio,
)

TIME = 2000


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixtures(batch=2, speakers=2, error=0.1):
    """Targets, estimates with an error, both (batch, time, speakers), and the mixture."""
    targets = noise(batch, TIME, speakers)
    return targets, targets + error * noise(batch, TIME, speakers, seed=1), targets.sum(2)


@pytest.mark.parametrize("speakers", [2, 3])
def test_si_snr_and_its_gain_are_those_of_speechbrain_whatever_the_order_of_the_estimates(speakers):
    targets, estimates, mix = mixtures(speakers=speakers)
    scores = SeparationScores(["si-snr"])
    order = scores.add(["a", "b"], estimates.flip(2), targets, mix)
    assert order.tolist() == [list(range(speakers))[::-1]] * 2
    loss = get_si_snr_with_pitwrapper(targets, estimates)
    unseparated = get_si_snr_with_pitwrapper(targets, mix.unsqueeze(2).expand_as(targets))
    for row, one, of_mix in zip(scores.rows, loss, unseparated, strict=True):
        assert row["si-snr"] == pytest.approx(-float(one), abs=1e-3)
        assert row["si-snr_i"] == pytest.approx(float(of_mix - one), abs=1e-3)


def test_neither_padding_nor_the_order_of_the_estimates_has_a_part_in_any_score():
    pytest.importorskip("torchmetrics")
    targets, estimates, mix = mixtures(batch=1)
    signals = (estimates.flip(2), targets, mix)
    padded = [torch.cat([t, 9 * noise(*t.shape, seed=2)], dim=1) for t in signals]
    alone, among = SeparationScores(), SeparationScores()
    alone.add(["a"], estimates, targets, mix)
    among.add(["a"], *padded, samples=torch.tensor([TIME]))
    assert among.rows[0] == pytest.approx(alone.rows[0])
    assert alone.rows[0]["sdr"] > 15


@pytest.fixture
def several_threads():
    """More than one thread in torch, whatever the run of the tests has: some of its faults show only then."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("several_threads")
@pytest.mark.parametrize("samples", [TIME, 100])
def test_sdr_is_what_no_filter_of_512_taps_can_explain_of_the_estimate(samples):
    pytest.importorskip("torchmetrics")
    targets, estimates, _ = (t[:, :samples] for t in mixtures(batch=1))
    expected = []
    for target, estimate in zip(targets[0].double().T, estimates[0].double().T, strict=True):
        delayed = np.zeros((samples + 511, 512))
        for tap in range(512):
            delayed[tap : tap + samples, tap] = target
        whole = np.pad(estimate.numpy(), (0, 511))
        projection = delayed @ np.linalg.lstsq(delayed, whole, rcond=None)[0]
        ratio = np.square(projection).sum() / np.square(whole - projection).sum()
        expected.append(10 * np.log10(ratio))
    found = signal_distortion_ratio(estimates[0].double(), targets[0].double())
    assert found == pytest.approx(np.mean(expected), abs=1e-6)


def test_sdr_is_finite_for_silent_and_perfect_estimates_and_for_tones():
    pytest.importorskip("torchmetrics")
    target = noise(TIME, 2).double()
    assert signal_distortion_ratio(torch.zeros_like(target), target) == -80
    assert signal_distortion_ratio(target, target) == 80
    later = torch.nn.functional.pad(target, (0, 0, 30, 0))[:TIME]
    assert signal_distortion_ratio(later, target) > 15
    tone = torch.sin(0.3 * torch.arange(TIME, dtype=torch.float64))[:, None]
    assert 10 < signal_distortion_ratio(tone + 0.1 * target[:, :1], tone) < 60


def test_silent_sources_are_counted_and_left_out():
    targets, estimates, mix = mixtures(batch=3)
    targets[1, :, 0] = 1e-6
    scores = SeparationScores(["si-snr"])
    assert scores.add(["a", "silent", "c"], estimates, targets, mix).shape == (3, 2)
    assert [row["snt_id"] for row in scores.rows] == ["a", "c"]
    figures = scores.figures()
    assert figures["silent"] == 1 and figures["mixtures"] == 2
    only_silent = SeparationScores(["si-snr"])
    only_silent.add(["b"], estimates[1:2], targets[1:2], mix[1:2])
    with pytest.raises(ValueError, match="no mixture was scored: 1 of 1 have a silent source"):
        only_silent.figures()


def test_estimates_that_are_not_numbers_count_as_silence():
    targets, estimates, mix = mixtures()
    estimates[0, 5, 1] = float("nan")
    scores = SeparationScores(["si-snr"])
    scores.add(["a", "b"], estimates, targets, mix)
    assert scores.rows[0]["si-snr"] == pytest.approx(-80)
    assert scores.rows[1]["si-snr"] > 15
    assert scores.figures()["not_finite"] == 1


def test_the_table_has_the_published_columns_and_the_means_last(tmp_path):
    pytest.importorskip("torchmetrics")
    targets, estimates, mix = mixtures(batch=3)
    estimates[2] += 3 * noise(TIME, 2, seed=3)
    scores = SeparationScores()
    scores.add(["a", "b", "c"], estimates, targets, mix)
    scores.write(tmp_path / "test_results.csv")
    with open(tmp_path / "test_results.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["snt_id", "sdr", "sdr_i", "si-snr", "si-snr_i"]
    assert [row[0] for row in rows] == ["a", "b", "c", "avg"]
    values = np.array([row[1:] for row in rows], dtype=float)
    np.testing.assert_allclose(values[-1], values[:-1].mean(0), rtol=1e-9)
    figures = scores.figures()
    assert [figures[name] for name in header[1:]] == pytest.approx(values[-1])
    assert figures["si-snr_i_median"] == pytest.approx(np.median(values[:3, 3]))
    assert figures["below_10_dB"] == pytest.approx(100 / 3)
    assert [path.name for path in tmp_path.iterdir()] == ["test_results.csv"]


def test_a_metric_that_cannot_be_had_is_one_error_and_sdr_alone_is_left_out(monkeypatch, caplog):
    with pytest.raises(ValueError, match="--metrics: snr is unknown; write a list of si-snr, sdr"):
        check_metrics(["sdr", "snr"], 8000)
    monkeypatch.setitem(sys.modules, "pystoi", None)
    with pytest.raises(ValueError, match="--metrics: stoi needs the package pystoi: pip install"):
        check_metrics(["stoi"], 8000)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    assert check_metrics(["sdr"], 8000) == ("si-snr",)
    assert "pip install torchmetrics; without it the test has no sdr columns" in caplog.text


def speech_like(seed):
    """Two seconds of noise with the rise and fall of syllables, (samples,)."""
    time = torch.arange(16000) / 8000
    envelope = torch.sin(2 * torch.pi * (3 + seed) * time).clamp(min=0.02)
    return envelope * noise(16000, seed=seed).cumsum(0).diff(prepend=torch.zeros(1)) * 0.1


@pytest.mark.parametrize(("metric", "package"), [("stoi", "pystoi"), ("pesq", "pesq")])
def test_stoi_and_pesq_prefer_the_better_estimate_whatever_its_level(metric, package):
    pytest.importorskip(package)
    targets = torch.stack([speech_like(1), speech_like(2)], dim=1)[None]
    mix = targets.sum(2)
    found = []
    for error, level in ((0.02, 1), (0.02, 1000), (0.5, 1)):
        scores = SeparationScores([metric])
        scores.add(["a"], level * (targets + error * targets.flip(2)), targets, mix)
        found.append(scores.rows[0][metric])
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert found[0] > found[2] + 0.01


@pytest.mark.parametrize(("metric", "package"), [("stoi", "pystoi"), ("pesq", "pesq")])
def test_where_stoi_or_pesq_are_undefined_the_cell_is_empty_and_counted(metric, package, tmp_path):
    pytest.importorskip(package)
    targets = torch.stack([speech_like(1), speech_like(2)], dim=1)[None, :1600]
    scores = SeparationScores([metric])
    # too short for both
    scores.add(["a"], targets.flip(2), targets, targets.sum(2))
    assert scores.rows[0][metric] is None
    figures = scores.figures()
    assert figures["undefined"] == 1 and metric not in figures
    scores.write(tmp_path / "test_results.csv")
    assert (tmp_path / "test_results.csv").read_text().splitlines()[-1].endswith(",")
