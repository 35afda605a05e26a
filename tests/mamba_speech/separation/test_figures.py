"""Pictures of separated mixtures and of runs."""

import matplotlib.image
import numpy as np
import torch

from mamba_speech.figures import curves, separation_spectrograms

RATE = 8000


def test_all_spectrograms_share_one_colour_scale(tmp_path):
    targets = 0.1 * torch.randn(RATE // 2, 2, generator=torch.Generator().manual_seed(0))
    pictures = []
    for name, level in (("loud", 1.0), ("quiet", 0.03)):
        png = tmp_path / f"{name}.png"
        separation_spectrograms(targets.sum(1), targets, level * targets, RATE, png)
        pictures.append(matplotlib.image.imread(png)[..., :3])
    loud, quiet = pictures
    half, width = loud.shape[0] // 2, int(loud.shape[1] * 0.9)
    # the mixture and the sources above look the same, the quieter estimates below darker
    np.testing.assert_array_equal(loud[:half, :width], quiet[:half, :width])
    assert quiet[half:, :width].mean() < loud[half:, :width].mean() - 0.05


def test_long_and_very_short_mixtures_have_a_picture(tmp_path):
    for samples in (100, 60 * RATE):
        signal = 0.1 * torch.randn(samples, 2, generator=torch.Generator().manual_seed(0))
        png = tmp_path / f"{samples}.png"
        separation_spectrograms(signal.sum(1), signal, signal, RATE, png)
        assert matplotlib.image.imread(png)[..., :3].std() > 0.05


def test_curves_of_several_runs_stand_in_one_picture(tmp_path):
    png = tmp_path / "curves.png"
    one, two = [(1.0, 2.0), (2.0, 3.0)], [(1.5, 1.0)]
    curves({"one": one, "two": two}, png, "minutes", "dB", "Validation")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]
    assert matplotlib.image.imread(png)[..., :3].std() > 0.02
