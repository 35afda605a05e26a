"""The separated mixtures that a test leaves to listen to and to look at."""

import numpy as np
import pytest
import soundfile
import torch

from tests.support.recipes import scripts
from tests.support.separation import RECIPE

RATE = 8000


def sources(speakers=2, level=0.1):
    """Glides of different pitch, (samples, speakers), and their sum."""
    time = torch.arange(RATE) / RATE
    pitches = [500 * (n + 1) + 200 * n * time for n in range(speakers)]
    targets = torch.stack([torch.sin(6.283 * pitch.cumsum(0) / RATE) for pitch in pitches], dim=1)
    return level * targets, level * targets.sum(1)


@pytest.fixture
def save_example(monkeypatch):
    """The recipe's function of that name."""
    with scripts(monkeypatch, RECIPE) as load:
        yield load("save_examples").save_example


def test_estimates_of_any_level_are_saved_at_that_of_the_mixture_under_the_published_names(
    tmp_path, save_example
):
    speakers = 3
    targets, mix = sources(speakers)
    levels = torch.tensor([300.0, 0.004, 5.0])
    save_example(tmp_path / "audio", 1, mix, targets, targets * levels, RATE)
    numbers = range(1, speakers + 1)
    names = ["item1_mix.wav", *(f"item1_source{n}.wav" for n in numbers)]
    names += [f"item1_source{n}hat.wav" for n in numbers]
    assert sorted(path.name for path in (tmp_path / "audio").iterdir()) == sorted(
        [*names, "item1.png"]
    )
    saved = {name: soundfile.read(tmp_path / "audio" / name) for name in names}
    assert {rate for _, rate in saved.values()} == {RATE}
    np.testing.assert_allclose(saved["item1_mix.wav"][0], mix, rtol=0, atol=0.501 / 32768)
    for n in numbers:
        estimate, source = saved[f"item1_source{n}hat.wav"][0], saved[f"item1_source{n}.wav"][0]
        np.testing.assert_allclose(estimate, source, atol=1e-3)


def test_a_mixture_beyond_full_scale_is_lowered_with_its_sources_and_not_clipped(
    tmp_path, save_example
):
    targets, mix = sources(level=1.5)
    save_example(tmp_path, 2, mix, targets, targets, RATE)
    saved, _ = soundfile.read(tmp_path / "item2_mix.wav")
    source, _ = soundfile.read(tmp_path / "item2_source1.wav")
    factor = 0.99 / float(mix.abs().max())
    np.testing.assert_allclose(saved, factor * mix, atol=1e-4)
    np.testing.assert_allclose(source, factor * targets[:, 0], atol=1e-4)


def test_estimates_that_are_not_numbers_are_saved_as_silence(tmp_path, save_example):
    targets, mix = sources()
    save_example(tmp_path, 3, mix, targets, targets * float("nan"), RATE)
    assert not soundfile.read(tmp_path / "item3_source1hat.wav")[0].any()
    assert (tmp_path / "item3.png").is_file()
