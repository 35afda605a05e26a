"""The resampling of mixtures: the published filter for usual rates, little time and memory for all."""

import time

import numpy as np
from scipy.signal import resample_poly

from data_prep.mixtures.loading import resample


def test_no_pair_of_rates_takes_long_and_usual_ones_keep_the_published_filter():
    wave = np.random.default_rng(0).standard_normal(2 * 16001)
    begun = time.process_time()
    for rate in (16_001, 96_001, 767_999):
        assert len(resample(wave, rate, 8000)) == -(-len(wave) * 8000 // rate)
    assert time.process_time() - begun < 1
    assert np.array_equal(resample(wave, 16000, 8000), resample_poly(wave, 1, 2))
    assert np.array_equal(resample(wave, 44100, 8000), resample_poly(wave, 80, 441))
