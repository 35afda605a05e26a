"""Events are the peaks of the probabilities, however the stream is cut."""

import numpy as np
import pytest
import torch

from mamba_speech.evaluation.detection import Event, error_curve
from mamba_speech.kws.events import EventFinder, absent_classes


def course(peaks, seconds=10.0, step=0.05, labels=3):
    """Probabilities with bumps (time, class, height) on a low floor."""
    times = torch.arange(0, seconds, step, dtype=torch.float64)
    probabilities = torch.full((len(times), labels), 0.01, dtype=torch.float64)
    for time, index, height in peaks:
        bump = height * (1 - (times - time).abs() / 0.4).clamp(min=0)
        probabilities[:, index] = torch.maximum(probabilities[:, index], bump)
    return times, probabilities


def found(peaks, **options):
    finder = EventFinder(["no", "yes", "_unknown_"], 1.0, **{"smoothing": 0.0, **options})
    return finder(*course(peaks)) + finder.finish()


def test_every_peak_above_the_threshold_is_one_event():
    events = found([(2, 0, 0.9), (4, 1, 0.7), (6, 2, 0.99), (8, 0, 0.3)])
    assert [(e.label, round(e.middle, 1)) for e in events] == [("no", 2.0), ("yes", 4.0)]


def test_of_two_near_peaks_the_higher_stays_whichever_comes_first():
    for first, second, expected in [(0.9, 0.6, 2.0), (0.6, 0.9, 2.6)]:
        (event,) = found([(2, 0, first), (2.6, 1, second)], suppression=0.75)
        assert event.middle == pytest.approx(expected)
    assert len(found([(2, 0, 0.6), (2.6, 1, 0.9)], suppression=0.5)) == 2


def test_the_threshold_only_takes_events_away():
    random = np.random.default_rng(0)
    peaks = [(t, int(random.integers(2)), random.random()) for t in np.arange(0.5, 9.5, 0.37)]
    everything = found(peaks, threshold=0.0)
    for threshold in (0.2, 0.5, 0.8):
        kept = [event for event in everything if event.confidence >= threshold]
        assert found(peaks, threshold=threshold) == kept


def test_events_do_not_depend_on_how_the_stream_is_cut():
    times, probabilities = course([(2, 0, 0.9), (2.6, 1, 0.95), (5, 1, 0.8), (9.9, 0, 0.7)])
    results = []
    for size in (1, 7, 1000):
        finder = EventFinder(["no", "yes", "_unknown_"], 1.0, smoothing=0.2)
        parts = zip(times.split(size), probabilities.split(size), strict=True)
        results.append([event for part in parts for event in finder(*part)] + finder.finish())
    assert results[0] == results[1] == results[2] and len(results[0]) == 3


@pytest.mark.parametrize(
    "options",
    [
        *({"threshold": 2}, {"threshold": float("nan")}, {"suppression": 0}, {"smoothing": -1}),
        *({"suppression": float("nan")}, {"smoothing": float("nan")}, {"smoothing": float("inf")}),
        {"labels": ["_silence_"]},
        *({"refractory": -1}, {"refractory": float("nan")}, {"refractory": float("inf")}),
    ],
)
def test_an_event_finder_refuses_what_makes_no_sense(options):
    with pytest.raises(ValueError, match="must be|no keyword"):
        EventFinder(options.pop("labels", ["yes"]), 1.0, **options)


def test_events_are_those_of_the_definition_applied_moment_by_moment():
    random = np.random.default_rng(5)
    for trial in range(60):
        times = torch.arange(int(random.integers(1, 60)), dtype=torch.float64) * 0.0625
        probabilities = random.random((len(times), 3))
        if trial % 3 == 0:
            # with many that are equal
            probabilities = np.round(4 * probabilities) / 4
        smoothing, suppression = random.choice([0, 0.1, 0.25]), random.choice([0.03, 0.33, 0.77])
        finder = EventFinder(["no", "yes", "_unknown_"], 0.0, 0.4, smoothing, suppression)
        events = finder(times, torch.from_numpy(probabilities)) + finder.finish()
        seconds, peaks = times.numpy(), []
        for now in seconds:
            behind = (seconds <= now) & (now - seconds <= smoothing + 1e-9)
            means = probabilities[behind][:, :2].mean(0)
            peaks.append(((seconds[behind][0] + now) / 2, means.max(), int(means.argmax())))
        expected = [
            (("no", "yes")[index], round(middle, 3), round(height, 7))
            for number, (middle, height, index) in enumerate(peaks)
            if height >= 0.4
            and not any(
                abs(other - middle) <= suppression and (rival, -place) > (height, -number)
                for place, (other, rival, _) in enumerate(peaks)
            )
        ]
        assert [(one.label, one.start, one.confidence) for one in events] == expected


def test_a_refractory_time_silences_what_follows_a_reported_event_and_nothing_else():
    peaks = [(2, 0, 0.6), (3, 1, 0.9), (4.5, 0, 0.8), (7, 1, 0.9)]
    for refractory, expected in ((0.0, [2, 3, 4.5, 7]), (2.0, [2, 4.5, 7]), (3.0, [2, 7])):
        events = found(peaks, refractory=refractory, suppression=0.5)
        assert [round(event.middle, 1) for event in events] == expected
    # what the threshold leaves out silences nothing
    events = found(peaks, refractory=2.0, suppression=0.5, threshold=0.7)
    assert [round(event.middle, 1) for event in events] == [3, 7]


def test_a_curve_with_a_refractory_time_counts_what_each_threshold_reports():
    random = np.random.default_rng(0)
    peaks = [(t, int(random.integers(2)), random.random()) for t in np.arange(0.5, 9.5, 0.8)]
    said = [Event("yes", 1.5, 2.5, 1.0), Event("no", 6.0, 7.0, 1.0)]
    every = found(peaks, threshold=0.0, suppression=0.3)
    curve = error_curve(every, said, 10.0, refractory=1.2)
    assert len(curve) > 5
    for point in curve[1:]:
        # a confidence is rounded
        threshold = max(0.0, point["threshold"] - 5e-8)
        options = {"threshold": threshold, "suppression": 0.3, "refractory": 1.2}
        last = error_curve(found(peaks, **options), said, 10.0)[-1]
        assert (point["hits"], point["false_alarms"]) == (last["hits"], last["false_alarms"])


def test_a_model_without_unknown_or_silence_is_told_of_with_what_to_do():
    assert absent_classes(["yes", "_unknown_", "_silence_"]) is None
    for labels, options in (
        (["yes"], ("--unknown_percentage", "--silence_percentage")),
        (["yes", "_unknown_"], ("--silence_percentage",)),
    ):
        sentence = absent_classes(labels)
        assert all(option in sentence for option in options) and "\n" not in sentence
    assert "_unknown_" not in absent_classes(["yes", "_unknown_"])
