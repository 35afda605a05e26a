"""Changes of training clips: shifts, noise, speeds, lengths."""

import pytest
import soundfile
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from mamba_speech.audio import AudioError
from tests.support.keywords import RATE


def augmenter(recipe, **options):
    return recipe("waveforms").ClipAugmenter(RATE, **options)


def test_a_shift_moves_a_clip_by_no_more_than_its_limit(recipe):
    shift = augmenter(recipe, shift_ms=10)
    clip = torch.zeros(1000)
    clip[500] = 1
    places = {int(shift(clip).argmax()) for _ in range(300)}
    assert min(places) >= 340 and max(places) <= 660 and len(places) > 100
    assert torch.equal(augmenter(recipe)(clip), clip)
    # a clip may be shorter than its shift
    far = augmenter(recipe, shift_ms=1000)
    assert all(len(far(torch.ones(9))) == 9 for _ in range(20))


def test_background_noise_has_the_wanted_ratio_to_the_clip(recipe):
    clip, noise = torch.randn(RATE), 7 * torch.randn(RATE // 3)
    for ratio in (-5.0, 20.0):
        add = augmenter(
            recipe, background_probability=1, background_snr=(ratio, ratio), noises=[noise]
        )
        added = add(clip) - clip
        got = 10 * torch.log10(clip.square().sum() / added.square().sum())
        assert float(got) == pytest.approx(ratio, abs=0.01)


def test_training_hears_no_noise_that_the_test_crops_its_silence_from(recipe):
    noise = torch.arange(1000)
    assert recipe("keyword_data")._training_part(noise).tolist() == list(range(800))


def test_background_noise_on_digital_silence_changes_nothing(recipe):
    add = augmenter(recipe, background_probability=1, noises=[torch.randn(RATE)])
    assert torch.equal(add(torch.zeros(100)), torch.zeros(100))


def test_speed_changes_change_the_length_and_a_clip_is_brought_back_to_it(recipe):
    change = augmenter(recipe, speed_changes=[80, 125])
    lengths = {len(change.change_speed(torch.randn(RATE))) for _ in range(20)}
    assert lengths == {RATE * 5 // 4, RATE * 4 // 5}
    fit = recipe("waveforms").fit_length
    for length in lengths:
        assert len(fit(torch.randn(length), RATE)) == RATE


def test_a_noise_recording_that_can_no_longer_be_read_costs_only_itself(recipe, tmp_path):
    read_noises = recipe("keyword_data")._read_noises
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    soundfile.write(good, torch.ones(1000).numpy() / 2, RATE)
    bad.write_bytes(b"no sound")
    assert [len(noise) for noise in read_noises([bad, good], RATE)] == [800]
    with pytest.raises(AudioError, match="bad.wav"):
        read_noises([bad], RATE)


def test_the_level_of_clip_and_noise_changes_together_and_within_its_limits(recipe):
    clip, change = torch.ones(100), augmenter(recipe, gain_db=(-20.0, 6.0))
    levels = [20 * torch.log10(change(clip)) for _ in range(300)]
    assert all(torch.allclose(level, level[0].expand(100)) for level in levels)
    found = torch.stack(levels)[:, 0]
    assert -20 <= found.min() < -18 and 4.5 < found.max() <= 6


def test_a_room_rings_on_after_the_sound_and_keeps_its_level(recipe):
    click = torch.zeros(RATE)
    click[100] = 1
    heard = augmenter(recipe, reverberation_probability=1)(click)
    assert torch.allclose(heard.square().sum(), click.square().sum())
    assert heard[:100].abs().max() < 1e-6 < heard[150:1000].abs().max()
    # nothing is heard between the direct sound and the first reflections of a room
    assert heard[101:140].abs().max() < 1e-5
    assert torch.equal(augmenter(recipe, reverberation_probability=0)(click), click)


def test_a_room_on_digital_silence_changes_nothing(recipe):
    heard = augmenter(recipe, reverberation_probability=1)(torch.zeros(1000))
    assert torch.equal(heard, torch.zeros(1000))


def test_rare_words_are_heard_several_times_and_no_word_more_often_than_the_frequent_one(recipe):
    labels = ["a"] * 12 + ["b"] * 5 + ["c"] + ["_unknown_"]
    data = {str(number): {"label": label} for number, label in enumerate(labels)}
    for most, wanted in ((1, (12, 5, 1, 1)), (2, (12, 10, 2, 1)), (100, (12, 10, 12, 1))):
        dataset = DynamicItemDataset(data)
        recipe("keyword_data").repeat_rare_words(dataset, most)
        counts = recipe("keyword_data").classes_of(dataset)
        assert tuple(counts[label] for label in ("a", "b", "c", "_unknown_")) == wanted
        assert set(dataset.data_ids) == set(data) and len(dataset) == sum(wanted)


def test_frequencies_are_warped_by_no_more_than_the_limit_and_time_stays(recipe):
    warp = recipe("warping").warp_frequencies
    ramp = torch.arange(40.0).expand(200, 3, 40)
    warped = warp(ramp, 0.2)
    factors = warped[:, 0, 10] / 10
    assert 0.8 <= factors.min() < 0.82 and 1.18 < factors.max() <= 1.2
    assert torch.allclose(warped[:, 0, :30], factors[:, None] * torch.arange(30.0), atol=1e-4)
    assert torch.equal(warped[:, 0], warped[:, 2]) and warped.max() == 39
    noise = torch.randn(4, 5, 40)
    assert torch.equal(warp(noise, 0.0), noise)
