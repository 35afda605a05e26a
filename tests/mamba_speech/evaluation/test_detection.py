"""Misses and false alarms against counts by hand."""

from itertools import pairwise

import numpy as np
import pytest

from mamba_speech.evaluation.detection import Event, at_threshold, error_curve, miss_rate_at


def event(label, middle, confidence=1.0):
    return Event(label, middle - 0.3, middle + 0.3, confidence)


def test_misses_and_false_alarms_are_counted_as_by_hand():
    reference = [event("yes", 10), event("no", 20), event("yes", 30)]
    events = [
        event("yes", 10.1, 0.9),  # right
        event("yes", 9.9, 0.8),  # the same word again
        event("yes", 20, 0.7),  # another word
        event("no", 40, 0.6),  # nothing there
        event("yes", 30.5, 0.5),  # right, within the tolerance
    ]
    curve = error_curve(events, reference, seconds=1800)
    counts = [(point["hits"], point["false_alarms"]) for point in curve]
    assert counts == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 3)]
    assert at_threshold(curve, 0.65)["false_alarms_per_hour"] == 4
    assert at_threshold(curve, 0.0)["miss_rate"] == pytest.approx(1 / 3)
    assert at_threshold(curve, 0.95)["hits"] == 0
    assert [miss_rate_at(curve, rate) for rate in (0, 5.9, 6)] == pytest.approx(
        [2 / 3, 2 / 3, 1 / 3]
    )
    far = error_curve([event("yes", 30.7)], reference, 1800, tolerance=0.25)
    assert far[-1]["hits"] == 0


def test_misses_fall_and_false_alarms_rise_along_the_curve():
    random = np.random.default_rng(1)
    events = [event("yes", 100 * random.random(), round(random.random(), 1)) for _ in range(200)]
    curve = error_curve(events, [event("yes", t) for t in range(5, 100, 5)], 100)
    for before, after in pairwise(curve):
        assert after["threshold"] < before["threshold"] or before is curve[0]
        assert after["miss_rate"] <= before["miss_rate"]
        assert after["false_alarms"] >= before["false_alarms"]


def test_events_that_are_certain_leave_the_point_at_which_nothing_is_reported():
    curve = error_curve([event("yes", 3, 1.0), event("yes", 9, 1.0)], [event("yes", 9)], 10)
    assert [(one["hits"], one["false_alarms"]) for one in curve] == [(0, 0), (1, 1)]
    assert at_threshold(curve, 1.0)["hits"] == 1
