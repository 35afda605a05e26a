"""Bootstrap intervals and paired differences against cases whose answer is known."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mamba_speech.evaluation.bootstrap import figure_intervals, mean_interval, paired_difference

# estimate, low, high and p of an earlier version with three bootstraps
RECORDED = {
    "items": (5.849056603773585, -9.820949027854612, 19.314720949529185, 0.4845961698584513),
    "speakers": (5.849056603773585, -5.95021420660789, 15.65915344200095, 0.324729392173189),
    "student": (0.5166666666666667, -0.6895385547273435, 1.6722906966566409, 0.3803273596385015),
    "crossed": (0.5166666666666667, -1.6011764705882352, 2.8632694938440464, 0.6611157368859284),
    "mean": (61.320754716981135, 50.55334890965732, 71.59367938466886),
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
    found = paired_difference(before, after, words, resamples=20_000, scale=100)
    assert found.estimate == pytest.approx(100 * change.sum() / sum(words))
    assert [found.low, found.high] == pytest.approx(np.percentile(exact, [2.5, 97.5]), abs=0.5)
    expected = 2 * min((exact <= 0).mean(), (exact >= 0).mean())
    assert found.p == pytest.approx(expected, abs=0.02) and 0.1 < expected < 0.9


def test_draws_of_one_seed_give_the_recorded_figures_again():
    rng = np.random.default_rng(11)
    words, before, after = (rng.integers(low, 12, 60) for low in (6, 0, 0))
    speakers = [str(n // 7) for n in range(60)]
    pairs = [tuple(str(n) for n in rng.choice(14, 2, replace=False)) for _ in range(60)]
    options = {"resamples": 1200, "seed": 3}
    found = {
        "items": paired_difference(before, after, words, scale=100, **options),
        "speakers": paired_difference(before, after, words, speakers, scale=100, **options),
        "student": paired_difference(before, after, None, speakers, student=True, **options),
        "crossed": paired_difference(before, after, None, pairs, **options),
        "mean": mean_interval(after, words, scale=100, **options),
    }
    for name, recorded in RECORDED.items():
        assert found[name][: len(recorded)] == pytest.approx(recorded, rel=1e-9), name


def test_a_gain_on_every_utterance_is_certain_however_much_utterances_differ():
    before = np.random.default_rng(1).integers(1, 10, 200)
    found = paired_difference(before, before - 1, [10] * 200, resamples=1000, scale=100)
    assert found[:3] == pytest.approx((-10, -10, -10))
    assert found.p == pytest.approx(2 / 1001)


@pytest.mark.parametrize("groups", [None, [(str(n % 9), str(n % 5)) for n in range(60)]])
def test_equal_systems_do_not_differ_and_the_sign_is_that_of_the_second(groups):
    one, other = np.random.default_rng(2).integers(0, 5, (2, 60))
    draw = {"groups": groups, "resamples": 500}
    assert paired_difference(one, one, **draw) == (0, 0, 0, 1)
    forward, back = paired_difference(one, other, **draw), paired_difference(other, one, **draw)
    assert forward.estimate == -back.estimate == pytest.approx((other - one).mean())
    assert forward.p == back.p
    assert (forward.low, forward.high) == pytest.approx((-back.high, -back.low))


def test_interval_has_the_width_of_the_normal_approximation_on_many_utterances():
    before, after = np.random.default_rng(3).binomial(20, 0.2, (2, 1500))
    found = paired_difference(before, after, [20] * 1500, resamples=4000, scale=100)
    width = 2 * 1.96 * 100 * (after - before).std() / 20 / np.sqrt(1500)
    assert found.high - found.low == pytest.approx(width, rel=0.05)
    alone = mean_interval(before, [20] * 1500, resamples=4000, scale=100)
    width = 2 * 1.96 * 100 * before.std() / 20 / np.sqrt(1500)
    assert alone.high - alone.low == pytest.approx(width, rel=0.05) and alone.p is None


def test_systems_of_equal_error_rates_seem_different_in_one_case_of_twenty():
    rng = np.random.default_rng(4)
    pairs = (rng.binomial(10, 0.3, (2, 80)) for _ in range(400))
    false = sum(paired_difference(*pair, resamples=400).p < 0.05 for pair in pairs)
    # five standard deviations of a binomial of 400 and 0.05 are 0.054
    assert 0.01 < false / 400 < 0.105


@pytest.mark.parametrize("student", [False, True])
def test_drawing_speakers_widens_the_interval_when_their_items_go_together(student):
    change = np.repeat(np.random.default_rng(6).integers(-2, 3, 20), 30)
    items = mean_interval(change, resamples=1000, student=student)
    speakers = mean_interval(change, groups=np.arange(600) // 30, resamples=1000, student=student)
    assert speakers.estimate == items.estimate
    assert speakers.high - speakers.low > 3 * (items.high - items.low)


def test_what_cannot_be_drawn_from_is_refused():
    with pytest.raises(ValueError, match="not tested on the same items: 3 and 2"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="hold nothing to count errors by"):
        mean_interval([1], [0])
    with pytest.raises(ValueError, match="there are no items"):
        mean_interval([])
    for wrong in ({"sizes": [1]}, {"groups": ["a"]}):
        with pytest.raises(ValueError, match="each of the 3 items needs"):
            mean_interval([1, 2, 3], **wrong)
    with pytest.raises(ValueError, match="two groups are needed"):
        mean_interval([1, 2, 3], groups=[1, 1, 1], student=True)
    with pytest.raises(ValueError, match="1 of 2 items have no speaker"):
        mean_interval([1, 2], groups=[("a", "b"), ()])


@pytest.mark.parametrize("groups", [6, 12, 40])
def test_an_interval_over_speakers_holds_the_difference_in_nineteen_cases_of_twenty(groups):
    rng = np.random.default_rng(groups)
    held = 0
    for trial in range(300):
        sizes = rng.integers(10, 30, groups)
        # each speaker gains or loses by about as much as the whole difference is
        gains = np.repeat(rng.normal(2.0, 2.0, groups), sizes) + rng.normal(0, 5, sizes.sum())
        draw = {"groups": np.repeat(np.arange(groups), sizes), "resamples": 1000, "seed": trial}
        found = paired_difference(np.zeros(len(gains)), gains, student=True, **draw)
        held += found.low <= 2.0 <= found.high
        # never sure of a difference whose interval holds 0
        assert found.p > 0.05 or not found.low <= 0 <= found.high
    # three standard deviations of a binomial of 300 and 0.95 are 0.038; six speakers fall a little short
    assert 0.895 < held / 300 < 0.99


def test_the_interval_of_single_items_is_that_of_student():
    values = np.random.default_rng(7).normal(1, 3, 25)
    found = paired_difference(np.zeros(25), values, resamples=40_000, student=True)
    half = stats.t.ppf(0.975, 24) * values.std(ddof=1) / 5
    assert found.estimate == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.03)


def test_where_speakers_of_mixtures_differ_only_the_interval_over_speakers_holds_the_truth():
    truth_held = {"speakers": 0, "mixtures": 0}
    for trial in range(60):
        random = np.random.default_rng(trial)
        effects = random.normal(0, 1, 14)
        pairs = [tuple(random.choice(14, 2, replace=False)) for _ in range(30)]
        values = [effects[list(pair)].sum() for pair in pairs]
        for name, groups in (("speakers", pairs), ("mixtures", None)):
            found = mean_interval(values, groups=groups, resamples=300)
            truth_held[name] += found.low <= 0 <= found.high
    assert truth_held["speakers"] >= 52
    assert truth_held["mixtures"] <= 48


@pytest.mark.parametrize(
    "groups",
    [
        None,
        [str(n // 7) for n in range(60)],
        [(str(n % 9), str(n % 5)) for n in range(60)],
        [(str(n % 9),) for n in range(60)],
    ],
)
def test_a_mean_as_any_other_figure_has_the_interval_of_a_mean(groups):
    values = np.random.default_rng(8).integers(0, 9, 60)
    mean = mean_interval(values, groups=groups, resamples=4000)

    def both(weights):
        weights = np.ones(60) if weights is None else weights
        if not weights.any():
            return None
        value = np.average(values, weights=weights)
        return value, -value

    found, mirrored = figure_intervals(both, 60, groups, resamples=4000, seed=1)
    assert found.estimate == mean.estimate == -mirrored.estimate
    assert (found.low, found.high) == pytest.approx((mean.low, mean.high), abs=0.12)
    assert (found.low, found.high) == pytest.approx((-mirrored.high, -mirrored.low))
    wider = figure_intervals(both, 60, groups, resamples=4000, seed=1, student=True)[0]
    assert wider.low < found.low and found.high < wider.high


def test_an_item_counts_as_the_product_of_its_speakers_draws():
    pairs, seen = [("a", "a"), ("b", "b"), ("c", "c"), ("a", "b"), ("c", "b")], []

    def keep(weights):
        seen.append(weights)
        return [0.0]

    figure_intervals(keep, 5, pairs, resamples=200)
    drawn = np.array([weights for weights in seen if weights is not None])
    # the three speakers are drawn three times in all
    counts = np.sqrt(drawn[:, :3])
    assert (counts.sum(1) == 3).all() and counts.max() == 3
    np.testing.assert_array_equal(drawn[:, 3:], counts[:, [0, 2]] * counts[:, [1, 1]])


def test_figures_that_no_draw_has_are_refused():
    def only_whole(weights):
        return [1.0] if weights is None else None

    with pytest.raises(ValueError, match="too few speakers"):
        figure_intervals(only_whole, 3, ["a", "a", "b"], resamples=10)
    with pytest.raises(ValueError, match="no items"):
        figure_intervals(only_whole, 0)
    with pytest.raises(ValueError, match="each of the 3 items needs"):
        figure_intervals(only_whole, 3, ["a"])
    with pytest.raises(ValueError, match="1 of 2 items have no speaker"):
        figure_intervals(only_whole, 2, [("a", "b"), ()])
