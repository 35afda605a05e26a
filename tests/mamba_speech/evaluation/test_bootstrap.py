"""The paired bootstrap against cases whose answer is known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mamba_speech.evaluation.bootstrap import grouped_mean, paired_bootstrap
from mamba_speech.evaluation.wer import UtteranceErrors


def system(errors, words=10):
    words = np.broadcast_to(words, len(errors))
    return {
        f"{i:04d}": UtteranceErrors(int(w), int(e))
        for i, (w, e) in enumerate(zip(words, errors, strict=True))
    }


def test_interval_and_p_are_those_of_all_possible_resamples():
    words, before, after = [3, 5, 9, 4], [2, 3, 3, 2], [1, 1, 4, 2]
    change = np.subtract(after, before)
    exact = np.array(
        [
            100 * sum(change[i] for i in draw) / sum(words[i] for i in draw)
            for draw in itertools.product(range(4), repeat=4)
        ]
    )
    found = paired_bootstrap([system(before, words)], [system(after, words)], 20_000)
    assert found.difference == pytest.approx(100 * change.sum() / sum(words))
    assert [found.low, found.high] == pytest.approx(np.percentile(exact, [2.5, 97.5]), abs=0.5)
    expected = 2 * min((exact <= 0).mean(), (exact >= 0).mean())
    assert found.p == pytest.approx(expected, abs=0.02) and 0.1 < expected < 0.9


def test_a_gain_on_every_utterance_is_certain_however_much_utterances_differ():
    before = np.random.default_rng(1).integers(1, 10, 200)
    found = paired_bootstrap([system(before)], [system(before - 1)], 1000)
    assert found[:3] == pytest.approx((-10, -10, -10))
    assert found.p == pytest.approx(2 / 1001)


def test_equal_systems_do_not_differ_and_the_sign_follows_the_order():
    rng = np.random.default_rng(2)
    one, other = (system(rng.integers(0, 5, 60)) for _ in range(2))
    assert paired_bootstrap([one], [one], 500) == (0, 0, 0, 1)
    forward, back = paired_bootstrap([one], [other], 500), paired_bootstrap([other], [one], 500)
    assert forward.difference == -back.difference and forward.p == back.p
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))


def test_interval_has_the_width_of_the_normal_approximation_on_many_utterances():
    rng = np.random.default_rng(3)
    before, after = rng.binomial(20, 0.2, 1500), rng.binomial(20, 0.2, 1500)
    found = paired_bootstrap([system(before, 20)], [system(after, 20)], 4000)
    width = 2 * 1.96 * 100 * (after - before).std() / 20 / np.sqrt(1500)
    assert found.high - found.low == pytest.approx(width, rel=0.05)


def test_systems_of_equal_error_rates_seem_different_in_one_case_of_twenty():
    rng = np.random.default_rng(4)
    false = 0
    for _ in range(400):
        pair = ([system(rng.binomial(10, 0.3, 80))] for _ in range(2))
        false += paired_bootstrap(*pair, resamples=400).p < 0.05
    # five standard deviations of a binomial of 400 and 0.05 are 0.054
    assert 0.01 < false / 400 < 0.105


def test_seeds_are_averaged_and_repeating_a_run_adds_no_certainty():
    rng = np.random.default_rng(5)
    before, after = rng.integers(0, 5, (3, 80)), rng.integers(0, 5, (3, 80))
    once = paired_bootstrap([system(before[0])], [system(after[0])], 500)
    thrice = paired_bootstrap([system(before[0])] * 3, [system(after[0])] * 3, 500)
    assert thrice == pytest.approx(once)
    seeds = paired_bootstrap([system(e) for e in before], [system(e) for e in after], 500)
    expected = 100 * (after.mean() - before.mean()) / 10
    assert seeds.difference == pytest.approx(expected)
    uneven = paired_bootstrap([system(e) for e in before], [system(after[0])], 500)
    assert uneven.difference == pytest.approx(100 * (after[0].mean() - before.mean()) / 10)


def test_drawing_speakers_widens_the_interval_when_their_utterances_go_together():
    rng = np.random.default_rng(6)
    change = np.repeat(rng.integers(-2, 3, 20), 30)
    first, second = [system(np.full(600, 4))], [system(4 + change)]
    utterances = paired_bootstrap(first, second, 1000)
    speakers = paired_bootstrap(first, second, 1000, group=lambda name: int(name) // 30)
    assert speakers.difference == utterances.difference
    assert speakers.high - speakers.low > 3 * (utterances.high - utterances.low)


def test_other_utterances_or_other_references_are_refused():
    one = system([1, 2, 3])
    with pytest.raises(ValueError, match="0002 differs, and 0 more"):
        paired_bootstrap([one], [system([1, 2])])
    with pytest.raises(ValueError, match="0000 differs, and 2 more"):
        paired_bootstrap([one], [system([1, 2, 3], words=9)])
    with pytest.raises(ValueError, match="at least one run"):
        paired_bootstrap([one], [])
    with pytest.raises(ValueError, match="hold no word"):
        paired_bootstrap([system([1], words=0)], [system([0], words=0)])


@pytest.mark.parametrize("groups", [6, 12, 40])
def test_an_interval_over_speakers_holds_the_difference_in_nineteen_cases_of_twenty(groups):
    rng = np.random.default_rng(groups)
    held = 0
    for trial in range(300):
        sizes = rng.integers(10, 30, groups)
        # each speaker gains or loses by about as much as the whole difference is
        gains = np.repeat(rng.normal(2.0, 2.0, groups), sizes) + rng.normal(0, 5, sizes.sum())
        found = grouped_mean(gains, np.repeat(np.arange(groups), sizes), 1000, trial)
        held += found.low <= 2.0 <= found.high
        # never sure of a difference whose interval holds 0
        assert found.p > 0.05 or not found.low <= 0 <= found.high
    # three standard deviations of a binomial of 300 and 0.95 are 0.038; six speakers fall a little short
    assert 0.895 < held / 300 < 0.99


def test_the_interval_of_single_items_is_that_of_student():
    values = np.random.default_rng(7).normal(1, 3, 25)
    found = grouped_mean(values, range(25), 40_000)
    half = stats.t.ppf(0.975, 24) * values.std(ddof=1) / 5
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.03)


def test_groups_widen_the_interval_when_their_items_go_together():
    values = np.repeat(np.random.default_rng(8).integers(-2, 3, 20), 30)
    items = grouped_mean(values, range(600), 1000)
    groups = grouped_mean(values, np.arange(600) // 30, 1000)
    assert items.mean == groups.mean
    assert groups.high - groups.low > 3 * (items.high - items.low)


def test_one_group_or_a_wrong_number_of_them_is_refused():
    for groups in ([1, 1, 1], [1, 2]):
        with pytest.raises(ValueError, match="two groups are needed"):
            grouped_mean([1, 2, 3], groups)
