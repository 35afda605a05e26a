"""Errors of speaker verification: as SpeechBrain has them, as counted by hand, and exact with ties and weights."""

import time

import numpy as np
import pytest
import torch
from scipy import stats
from speechbrain.utils.metric_stats import EER, minDCF

from mamba_speech.evaluation.bootstrap import figure_intervals
from mamba_speech.evaluation.verification import (
    TrialErrors,
    check_list,
    eer,
    min_dcf,
    read_trial_scores,
    speakers_of,
    write_trial_scores,
)


def draw(random, targets, impostors, digits):
    """Overlapping scores in float32; few digits make many of them equal."""
    sets = random.normal(1, 1, targets), random.normal(0, 1, impostors)
    return [own.round(digits).astype(np.float32) for own in sets]


def roc_by_counting(targets, impostors):
    """Miss and false alarm rate at every distinct score and below all of them, one threshold at a time."""
    thresholds = [-np.inf, *np.unique([*targets, *impostors])]
    return np.array([[(targets <= t).mean(), (impostors > t).mean()] for t in thresholds])


# numbers of trials for which no two thresholds are equally close, or float32 counts exactly
@pytest.mark.parametrize(("targets", "impostors"), [(37, 101), (16, 64), (5, 3), (1, 1)])
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_figures_equal_speechbrain(targets, impostors, digits):
    random = np.random.default_rng(targets + digits)
    for _ in range(10):
        ours = draw(random, targets, impostors, digits)
        theirs = [torch.from_numpy(own) for own in ours]
        rate, threshold = eer(*ours)
        assert rate == pytest.approx(EER(*theirs)[0], abs=1e-6)
        rates = (ours[0] <= threshold).mean(), (ours[1] > threshold).mean()
        assert rate == pytest.approx(np.mean(rates))
        for p_target in (0.01, 0.05, 0.5):
            cost, threshold = min_dcf(*ours, p_target)
            assert cost == pytest.approx(minDCF(*theirs, p_target=p_target)[0], abs=1e-6)
            rates = (ours[0] <= threshold).mean(), (ours[1] > threshold).mean()
            assert cost == pytest.approx(np.dot((p_target, 1 - p_target), rates))


@pytest.mark.parametrize("digits", [1, 6])
def test_every_operating_point_is_that_of_the_roc(digits):
    targets, impostors = draw(np.random.default_rng(3), 60, 90, digits)
    expected = roc_by_counting(targets, impostors)
    labels = np.repeat([1, 0], [60, 90])
    scores = np.concatenate([targets, impostors])
    found = np.stack(TrialErrors(labels, scores).rates(), axis=1)
    np.testing.assert_allclose(found, expected[1:], atol=1e-12)
    closest = np.abs(expected[:, 0] - expected[:, 1]).argmin()
    assert eer(targets, impostors)[0] == pytest.approx(expected[closest].mean())
    assert min_dcf(targets, impostors, 0.2, 2, 3)[0] == pytest.approx(
        (expected @ [0.2 * 2, 0.8 * 3]).min()
    )


def test_the_roc_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    targets, impostors = draw(np.random.default_rng(4), 70, 110, 1)
    labels, scores = np.repeat([1, 0], [70, 110]), np.concatenate([targets, impostors])
    alarms, hits, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    miss, false_alarm = TrialErrors(labels, scores).rates()
    # its last point accepts every trial; its first is our highest threshold
    np.testing.assert_allclose(miss[::-1], 1 - hits[:-1], atol=1e-12)
    np.testing.assert_allclose(false_alarm[::-1], alarms[:-1], atol=1e-12)


def test_normalised_costs_are_those_of_papers_and_at_most_one():
    random = np.random.default_rng(5)
    targets, impostors = draw(random, 50, 50, 6)
    assert min_dcf(targets, impostors, normalise=True)[0] == pytest.approx(
        100 * min_dcf(targets, impostors)[0]
    )
    for p_target in (0.01, 0.9):
        cost, threshold = min_dcf(-targets, -impostors - 5, p_target, normalise=True)
        assert cost <= 1 and np.isfinite(threshold)
    # where targets are frequent, accepting all is the cheapest of bad decisions
    cost, threshold = min_dcf([0, 0], [1, 1], 0.9, normalise=True)
    assert cost == 1 and threshold < 0


def test_weights_count_as_repeated_trials():
    random = np.random.default_rng(6)
    labels, scores = random.integers(0, 2, 300), random.normal(size=300).round(1)
    weights = random.integers(0, 4, 300)
    errors = TrialErrors(labels, scores)
    repeated = TrialErrors(np.repeat(labels, weights), np.repeat(scores, weights))
    before, found = errors.eer(), errors.weighted(weights)
    assert found.eer()[0] == repeated.eer()[0] and errors.eer() == before
    assert found.min_dcf(0.05)[0] == repeated.min_dcf(0.05)[0]
    assert errors.weighted(labels) is None and errors.weighted(1 - labels) is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("speakers", [9, 30])
def test_an_interval_over_speakers_holds_the_error_rate_in_nineteen_lists_of_twenty(speakers):
    random = np.random.default_rng(speakers)
    # scores of a list depend on who speaks, for targets and for impostors
    spread, distance, count = 0.7, 2.5, 24 * speakers
    truth = stats.norm.sf(distance / 2 / np.hypot(1, spread))
    first = np.repeat(np.arange(speakers), 24)
    labels, held = np.repeat([1, 0], count), 0
    for _ in range(100):
        ease, likeness = random.normal(0, spread, (2, speakers))
        second = (first + random.integers(1, speakers, count)) % speakers
        targets = distance + ease[first] + random.normal(size=count)
        pairs = (likeness[first] + likeness[second]) / np.sqrt(2)
        scores = np.concatenate([targets, pairs + random.normal(size=count)])
        errors = TrialErrors(labels, scores)

        def rate(weights, errors=errors):
            drawn = errors if weights is None else errors.weighted(weights)
            return None if drawn is None else [drawn.eer()[0]]

        sides = np.concatenate([first, first]), np.concatenate([first, second])
        groups = list(zip(*(side.tolist() for side in sides), strict=True))
        (found,) = figure_intervals(rate, 2 * count, groups, resamples=200, student=True)
        held += found.low <= truth <= found.high
    assert 88 <= held


def test_580_000_trials_are_scored_within_five_seconds():
    random = np.random.default_rng(7)
    labels = random.integers(0, 2, 580_000)
    scores = random.normal(size=580_000) + 3 * labels
    start = time.process_time()
    errors = TrialErrors(labels, scores)
    rate, _ = errors.eer()
    errors.min_dcf(0.01), errors.min_dcf(0.05)
    assert time.process_time() - start < 5
    assert rate == pytest.approx(0.0668, abs=0.002)


def test_the_three_systems_of_the_check_score_0_50_and_50():
    speakers = np.arange(400) % 20, np.arange(400) // 20
    labels = (speakers[0] == speakers[1]).astype(np.int8)
    found = check_list(labels, speakers)
    assert found["perfect"] == 0 and found["constant"] == 50
    assert found["permuted"] == pytest.approx(50, abs=25)
    assert check_list([1, 0])["perfect"] == 0


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([1, 1, 1, 1], "no impostor trial"),
        ([0, 0, 0, 0], "no target trial"),
        ([1, 2, 0, 0], "must be 1"),
        ([0, 0, 1, 1], "every label is flipped"),
        ([1, 0, 0, 0], "1 of 4 labels contradict .* first in trial 2"),
        ([], "no target trial"),
    ],
)
def test_a_broken_list_is_found(labels, reason):
    speakers = [["a", "b", "a", "b"][: len(labels)], ["a", "b", "b", "a"][: len(labels)]]
    with pytest.raises(ValueError, match=f"^mine.txt: .*{reason}"):
        check_list(labels, speakers, name="mine.txt")


@pytest.mark.parametrize(
    ("targets", "impostors", "reason"),
    [
        ([], [0.1], "no target"),
        ([0.1], [], "no impostor"),
        ([0.1, np.nan], [0.2], "1 of 3 trials"),
        ([0.1], [np.inf], "1 of 2 trials"),
    ],
)
def test_scores_without_a_rate_are_refused(targets, impostors, reason):
    for metric in (eer, min_dcf):
        with pytest.raises(ValueError, match=reason):
            metric(targets, impostors)


def test_labels_and_scores_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="3 labels, 2 scores"):
        TrialErrors([1, 0, 1], [0.1, 0.2])


def test_speakers_are_known_only_where_every_path_names_one():
    assert speakers_of(["a/1/x.wav", "/data/wav/b/2/y.wav"]) == ["a", "b"]
    assert speakers_of(["a/1/x.wav", "y.wav"]) is None


def test_trial_scores_are_read_as_they_were_written(tmp_path):
    files = ["a b/1/x, y.wav", "c/2/z.wav"], ["a b/1/q.wav", "d/2/w.wav"]
    scores = np.array([0.1 + 0.2, -1e-17])
    write_trial_scores(tmp_path / "scores_x.csv", [1, 0], *files, scores)
    found = read_trial_scores(tmp_path / "scores_x.csv")
    assert list(found) == ["1", "2"] and found["1"] == (1, files[0][0], files[1][0], scores[0])
    assert found["2"].score == scores[1]
    (tmp_path / "scores_x.csv").write_text("trial,label,enrolment,test,score\n1,3,a,b,0.5\n")
    with pytest.raises(ValueError, match="line 2: is no trial"):
        read_trial_scores(tmp_path / "scores_x.csv")
