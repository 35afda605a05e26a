"""Training crops: length, speed, class, noise and rooms, each the same whatever was read before."""

import shutil

import pytest
import soundfile
import torch

from mamba_speech.audio import AudioError
from tests.support.recipes import command_line, load_options
from tests.support.speakers import FOLDER, SMALL
from training.loading import SeededItems

RATE = 16000


@pytest.fixture
def crops(recipe, voices, sounds, tmp_path):
    """The training set of the debug YAML; options may be overridden."""

    def make(**options):
        options = SMALL | {"data_folder": voices, "output_folder": tmp_path} | options
        hparams, _ = load_options(command_line(FOLDER / "debug.yaml", small=SMALL, **options))
        data = recipe("speaker_data")
        prepared = data.prepare_speakers(hparams)
        return data.make_datasets(hparams, prepared)[0], hparams, prepared

    return make


def test_short_recordings_are_repeated_and_every_crop_has_the_longest_length(crops):
    train, hparams, _ = crops()
    lengths = {len(train[index]["sig"]) for index in range(len(train))}
    assert lengths == {round(hparams["crop_seconds_max"] * RATE)}
    train, *_ = crops(speeds="[100]", crop_seconds_max=2)
    sound, _ = soundfile.read(train.rows.wav[0], dtype="float32")
    crop = train[0]["sig"]
    assert torch.equal(crop[: len(sound)], torch.from_numpy(sound))
    assert torch.equal(crop[len(sound) : 2 * len(sound)], torch.from_numpy(sound))


def test_each_speed_of_a_voice_is_a_class_of_its_own(crops):
    train, _, prepared = crops(speeds="[100, 90, 110]", crops_per_recording=3)
    assert len(train) == 3 * len(train.rows)
    count, found = len(prepared.speakers), set()
    for index in range(len(train)):
        for _ in range(6):
            target = train[index]["target"]
            assert target % count == train.rows.speaker[index % len(train.rows)]
            found.add(target)
    assert found == set(range(3 * count))


def test_every_speaker_has_as_many_crops_where_these_are_counted_by_speaker(crops):
    train, _, prepared = crops(speeds="[100]", crops_per_speaker=8)
    assert len(train) == 8 * len(prepared.speakers)
    items = [train[index] for index in range(len(train))]
    for speaker in range(len(prepared.speakers)):
        own = {item["id"] for item in items if item["target"] == speaker}
        assert len([item for item in items if item["target"] == speaker]) == 8
        assert len(own) > 1 and all(f"/{prepared.speakers[speaker]}/" in path for path in own)


def test_a_slower_voice_is_lower(crops):
    train, *_ = crops(speeds="[100, 50]", crop_seconds=0.3, crop_seconds_max=0.4)
    peaks = {}
    for _ in range(20):
        item = train[0]
        spectrum = torch.fft.rfft(item["sig"]).abs()
        bins = torch.arange(len(spectrum))
        peaks.setdefault(item["target"], []).append(float((bins * spectrum).sum() / spectrum.sum()))
    own, slow = (sum(one) / len(one) for _, one in sorted(peaks.items()))
    assert 0.4 < slow / own < 0.65


def test_a_batch_has_one_length_between_the_shortest_and_the_longest(crops, recipe):
    train, hparams, _ = crops()
    collate = recipe("crops").CropBatch(*recipe("speaker_data").crop_lengths(hparams))
    lengths = {collate([train[0], train[1]]).sig.data.shape[1] for _ in range(30)}
    low, high = (round(hparams[key] * RATE) for key in ("crop_seconds", "crop_seconds_max"))
    assert len(lengths) > 10 and low <= min(lengths) and max(lengths) <= high


def test_a_crop_with_noise_and_room_depends_on_seed_epoch_and_index_alone(crops, sounds):
    options = {"noise_folder": sounds / "noise", "rir_folder": sounds / "rooms"}
    train, *_ = crops(**options, augment_probability=1, time_stretch="[0.8, 1.2]")
    items = SeededItems(train, seed=1)
    items.set_epoch(1)
    first = items[3]
    assert not torch.equal(items[4]["sig"], first["sig"])
    again = items[3]
    assert torch.equal(again["sig"], first["sig"]) and again["target"] == first["target"]
    items.set_epoch(2)
    assert not torch.equal(items[3]["sig"], first["sig"])


def test_noise_has_the_ratio_that_was_asked_for(crops, sounds):
    options = {"noise_folder": sounds / "noise", "speeds": "[100]", "noise_snr": "[10, 10]"}
    clean, *_ = crops(speeds="[100]", crop_seconds_max=0.6)
    noisy, *_ = crops(**options, augment_probability=1, crop_seconds_max=0.6)
    # a recording that is as long as a crop or shorter is taken whole
    index = min(range(len(clean)), key=lambda one: clean.rows.stop[one])
    a, b = clean[index]["sig"], noisy[index]["sig"]
    # SpeechBrain scales the speech down too
    scale = torch.dot(a, b) / a.square().sum()
    rest = b - scale * a
    ratio = 10 * torch.log10((scale * a).square().mean() / rest.square().mean())
    assert ratio.item() == pytest.approx(10, abs=1)


def test_a_noise_or_a_room_that_cannot_be_used_is_replaced_by_another_draw(crops, sounds, tmp_path):
    folders = {}
    for option, name in (("noise_folder", "noise"), ("rir_folder", "rooms")):
        folders[option] = shutil.copytree(sounds / name, tmp_path / name)
        soundfile.write(folders[option] / "bad.wav", torch.ones(800).numpy() / 2, RATE)
    options = {**folders, "speeds": "[100]", "augment_probability": 1}
    train, *_ = crops(**options, crops_per_recording=4)
    # since the folders were looked through
    (folders["noise_folder"] / "bad.wav").write_bytes(b"no sound")
    soundfile.write(folders["rir_folder"] / "bad.wav", torch.zeros(800).numpy(), RATE)
    items = SeededItems(train, seed=1)
    items.set_epoch(1)
    found = [items[index]["sig"] for index in range(len(items))]
    assert all(torch.isfinite(one).all() and one.any() for one in found)
    assert set(items.unreadable) == {str(folders["noise_folder"] / "bad.wav")}
    reasons = [one.replaced.reasons for one in train.drawn]
    assert {str(folders["rir_folder"] / "bad.wav"): "silent"} in reasons
    again = SeededItems(train, seed=1)
    again.set_epoch(1)
    assert torch.equal(again[5]["sig"], found[5])


def test_a_folder_of_noise_of_which_nothing_can_be_read_any_more_says_so(crops, sounds, tmp_path):
    folder = shutil.copytree(sounds / "noise", tmp_path / "noise")
    train, *_ = crops(noise_folder=folder, augment_probability=1)
    (folder / "one.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match="one.wav"):
        train[0]


def test_files_of_a_noise_folder_that_cannot_be_read_are_counted_and_named(
    crops, sounds, tmp_path, capsys
):
    folder = shutil.copytree(sounds / "noise", tmp_path / "noise")
    (folder / "bad.wav").write_bytes(b"no sound")
    crops(noise_folder=folder)
    said = capsys.readouterr().out
    assert "1 of 2 files of" in said and "bad.wav (unreadable audio)" in said
