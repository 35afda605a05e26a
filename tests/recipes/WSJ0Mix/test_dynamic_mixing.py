"""Dynamic mixing: a mixture follows from seed, epoch and index alone, and bad recordings are replaced."""

import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.core import Brain, Stage
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data.distributed import DistributedSampler

from mamba_speech.audio import AudioError, load_audio
from tests.support.recipes import scripts
from tests.support.separation import RATE, RECIPE


@pytest.fixture(scope="module")
def mixing():
    """The recipe's module, its folder being where Python looks first."""
    with pytest.MonkeyPatch.context() as patch, scripts(patch, RECIPE) as load:
        yield load("dynamic_mixing")


def write(path, sound, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, "FLOAT" if path.suffix == ".wav" else None)
    return path


def hum(seconds, seed=0, pitch=150):
    """A tone with noise, (samples,) float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.1 * np.sin(2 * np.pi * pitch * time) + 0.01 * noise).astype("float32")


@pytest.fixture
def voices(tmp_path):
    """Four speakers with three recordings each, of 0.6 to 1.1 s."""
    for speaker in range(4):
        for take in range(3):
            sound = hum(0.6 + 0.1 * take + 0.1 * speaker, 10 * speaker + take, 110 + 60 * speaker)
            write(
                tmp_path / "voices" / f"voice{speaker}" / "studio" / f"{speaker}{take}.wav", sound
            )
    return tmp_path / "voices"


@pytest.fixture
def make(mixing, voices):
    """A data set of those voices, 12 mixtures an epoch."""

    def build(folder=voices, num_spks=2, length=12, training_signal_len=4000, **options):
        return mixing.DynamicMixingDataset(
            folder, num_spks, RATE, length, training_signal_len, **options
        )

    return build


def same(one, other):
    return one["id"] == other["id"] and all(
        torch.equal(one[key], other[key]) for key in one if key.endswith("_sig")
    )


def test_a_mixture_is_the_same_in_any_order_and_by_any_number_of_workers_or_processes(make):
    alone = make(seed=3)
    alone.set_epoch(2)
    wanted = [alone[index] for index in range(len(alone))]
    backwards = make(seed=3)
    backwards.set_epoch(2)
    for index in reversed(range(12)):
        assert same(backwards[index], wanted[index])
    for workers in (1, 2):
        loader = torch.utils.data.DataLoader(backwards, None, num_workers=workers)
        for got, one in zip(loader, wanted, strict=True):
            assert same(got, one)
    for rank in (0, 1):
        sampler = DistributedSampler(backwards, num_replicas=2, rank=rank, shuffle=False)
        loader = torch.utils.data.DataLoader(backwards, None, sampler=sampler, num_workers=1)
        for got, one in zip(loader, wanted[rank::2], strict=True):
            assert same(got, one)


def test_seed_epoch_and_index_each_change_the_mixtures_and_global_state_does_not(make):
    data = make()
    first = {}
    for epoch in (1, 2):
        data.set_epoch(epoch)
        first[epoch] = [data[index]["mix_sig"] for index in range(12)]
    others = [*first[1][1:], *first[2], make(seed=1)[0]["mix_sig"]]
    assert not any(torch.equal(first[1][0], other) for other in others)

    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    torch.manual_seed(99)
    np.random.seed(99)
    drawn = torch.get_rng_state(), np.random.get_state()[1].copy()
    data.set_epoch(1)
    assert torch.equal(data[0]["mix_sig"], first[1][0])
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert (np.random.get_state()[1] == drawn[1]).all()
    assert not torch.equal(before[0], drawn[0])


def test_workers_that_outlive_an_epoch_hear_of_the_next(make):
    data = make(length=4)
    loader = torch.utils.data.DataLoader(data, None, num_workers=1, persistent_workers=True)
    for epoch in (1, 2):
        data.set_epoch(epoch)
        assert [one["id"].split("-")[0] for one in loader] == [str(epoch)] * 4


def test_a_mixture_is_the_sum_of_different_speakers_cut_to_one_length_below_full_scale(make):
    for speakers in (2, 3):
        data = make(num_spks=speakers, training_signal_len=6000)
        lengths = set()
        for index in range(12):
            one = data[index]
            names = one["id"].split("_")[1:]
            assert len({name[0] for name in names}) == speakers
            sources = [one[f"s{number + 1}_sig"] for number in range(speakers)]
            assert {tuple(source.shape) for source in sources} == {(one["samples"],)}
            assert torch.equal(one["mix_sig"], torch.stack(sources).sum(0))
            peak = max(signal.abs().max() for signal in (*sources, one["mix_sig"]))
            assert peak == pytest.approx(0.9)
            lengths.add(one["samples"])
        # the whole of a short recording, or the longest that is allowed
        assert max(lengths) == 6000 and min(lengths) < 6000


def test_levels_are_those_published_or_in_the_loudness_that_was_asked_for(make, mixing):
    data = make(length=150)
    ratios = []
    for index in range(150):
        one = data[index]
        levels = [10 * float(one[key].square().mean().log10()) for key in ("s1_sig", "s2_sig")]
        ratios.append(levels[1] - levels[0])
    # the mean of 150 draws lies within 4 standard errors
    assert np.mean(ratios) == pytest.approx(mixing.RELATIVE_LEVEL[0], abs=0.87)
    assert np.std(ratios) == pytest.approx(mixing.RELATIVE_LEVEL[1], rel=0.2)

    data, loud = make(loudness="lufs", use_speedperturb=False), 0
    for index in range(12):
        one = data[index]
        levels = [
            float(mixing.measure_loudness(one[key][None], RATE)) for key in ("s1_sig", "s2_sig")
        ]
        assert all(-33.01 < level < -24.99 for level in levels)
        loud = max(loud, float(one["mix_sig"].abs().max()))
    assert loud <= 0.9


def test_speed_moves_the_pitch_of_each_source_by_itself(tmp_path, mixing):
    time = np.arange(2 * RATE) / RATE
    for name in ("a", "b"):
        write(tmp_path / name / "tone.wav", 0.1 * np.sin(2 * np.pi * 1000 * time))
    options = {"length": 20, "training_signal_len": RATE, "speed_changes": [90, 100, 110]}
    data = mixing.DynamicMixingDataset(tmp_path, 2, RATE, **options)
    pairs = set()
    for one in (data[index] for index in range(20)):
        spectra = [torch.fft.rfft(one[key]).abs() for key in ("s1_sig", "s2_sig")]
        assert one["samples"] == RATE
        pairs.add(tuple(int(spectrum.argmax()) for spectrum in spectra))
    assert {pitch for pair in pairs for pitch in pair} == {900, 1000, 1100}
    assert any(first != second for first, second in pairs)


def test_speakers_are_drawn_by_how_much_they_said(tmp_path, mixing):
    for name, takes in {"a": 6, "b": 3, "c": 1}.items():
        for take in range(takes):
            write(tmp_path / name / f"{name}{take}.wav", hum(0.6, take))
    data = mixing.DynamicMixingDataset(tmp_path, 2, RATE, length=200, training_signal_len=800)
    first = Counter(data[index]["id"].split("_")[1][0] for index in range(200))
    assert [first[name] / 200 for name in "abc"] == pytest.approx([0.6, 0.3, 0.1], abs=0.1)


def test_the_brains_loader_pads_a_batch_and_resumes_with_the_same_mixtures(make, tmp_path):
    brain = Brain(modules={"net": torch.nn.Linear(1, 1)}, run_opts={"device": "cpu"})
    options = {"batch_size": 4, "shuffle": True, "collate_fn": PaddedBatch}

    def loader():
        return brain.make_dataloader(make(training_signal_len=8000), Stage.TRAIN, "", **options)

    whole, interrupted = loader(), loader()
    batches = list(whole)
    for batch in batches:
        samples = (batch.mix_sig.lengths * batch.mix_sig.data.shape[1]).round().long()
        assert batch.samples.tolist() == samples.tolist()
        assert batch.s2_sig.data.shape == batch.mix_sig.data.shape
    taken = iter(interrupted)
    next(taken)
    interrupted._speechbrain_save(tmp_path / "position")
    resumed = loader()
    resumed._speechbrain_load(tmp_path / "position", end_of_epoch=False)
    assert [batch.id for batch in resumed] == [batch.id for batch in batches[1:]]


def test_speakers_are_told_by_folder_or_by_the_names_of_wsj0_and_librispeech(mixing):
    speaker_of = importlib.import_module("single_speakers").speaker_of
    told = {
        "anna/monday/1.wav": "anna",
        "011/011a0101.wav": "011",
        "011a0101.wav": "011",
        "si_tr_s/01v/01vo030q.wav": "01v",
        "si_tr_s/4AA/4AAC0201.wav": "4aa",
        "011a0101_peak_0.25.wav": "011",
        # a hexadecimal name of another speaker
        "bert/0aac0201.wav": "bert",
        "train-clean-100/103/1240/103-1240-0000.flac": "103",
        "103-1240-0000.flac": "103",
        "id00017/1240/00001.wav": "id00017",
    }
    for path, speaker in told.items():
        assert speaker_of(f"/speech/{path}", "/speech") == speaker
    assert speaker_of("/speech/hello.wav", "/speech") is None


def test_a_folder_that_cannot_be_mixed_gives_one_error_that_says_what_to_do(make, voices, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; give --base_folder_dm"):
        make(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds no .wav or .flac"):
        make(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"too few speakers .*: 4 \(voice0, .* needs 5.*num_spks"):
        make(num_spks=5)
    write(tmp_path / "short" / "a" / "1.wav", hum(0.1))
    with pytest.raises(ValueError, match=r"1 of 1 .*short.*1\.wav \(shorter than 0.5 s\)"):
        make(tmp_path / "short")
    for number in range(2):
        write(tmp_path / "wide" / f"voice{number}" / "wide.wav", hum(1), 16000)
    with pytest.raises(ValueError, match=r"wide.wav: sampled at 16000 Hz.*data_prep.resample_spee"):
        make(tmp_path / "wide")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("num_spks", 1, "num_spks must be 2 or more"),
        ("length", 0, "mixtures of an epoch"),
        ("speed_changes", [95, 0], "speed_changes must be percentages above 0"),
        ("loudness", "loud", "is rms or lufs; got loud"),
    ],
)
def test_an_option_outside_its_range_is_refused(make, option, value, says):
    with pytest.raises(ValueError, match=says):
        make(**{option: value})
    with pytest.raises(ValueError, match="set --training_signal_len to 3200 or more; got 3199"):
        make(loudness="lufs", training_signal_len=3199)


def test_files_that_are_no_mono_speech_of_half_a_second_are_left_out(make, voices, caplog):
    write(voices / "voice0" / "short.wav", hum(0.1))
    write(voices / "voice0" / "stereo.wav", np.stack([hum(1), hum(1)], 1))
    (voices / "voice1" / "text.wav").write_text("no sound")
    (voices / "voice1" / "none.wav").write_bytes(b"")
    data = make()
    reasons = {Path(path).name: reason for path, reason in data.skipped.items()}
    unreadable = "unreadable or empty"
    assert reasons == {
        "short.wav": "shorter than 0.5 s",
        "stereo.wav": "2 channels, not one",
        "text.wav": unreadable,
        "none.wav": unreadable,
    }
    assert "4 of 16 recordings" in caplog.text


def test_bad_recordings_are_replaced_and_counted_whichever_worker_meets_them(make, voices):
    data, shared = make(length=40), make(length=40)
    silent, no_number, shorter, gone = (
        voices / f"voice{n}" / "studio" / f"{n}0.wav" for n in range(4)
    )
    # since the folder was looked through
    write(silent, np.zeros(RATE))
    write(no_number, np.full(RATE, np.nan))
    write(shorter, hum(0.1))
    gone.unlink()
    bad = dict.fromkeys(map(str, (silent, no_number, shorter, gone)), "unreadable")
    bad[str(silent)] = "silent"

    assert data.redrawn == {}
    alone = [data[index] for index in range(40)]
    assert data.redrawn == bad
    assert len({one["id"].split("-")[1].split("_")[0] for one in alone}) == 40
    loader = torch.utils.data.DataLoader(shared, None, num_workers=2)
    for got, one in zip(loader, alone, strict=True):
        assert same(got, one)
        assert not {"00", "10", "20", "30"} & set(got["id"].split("_")[1:])
        assert torch.isfinite(got["mix_sig"]).all()
    assert shared.redrawn == bad
    unread = {path for path, reason in bad.items() if reason == "unreadable"}
    # the main process says why, whichever worker met them
    assert set(shared.unreadable) == unread
    assert "no such file" in shared.unreadable[str(gone)]
    assert all(sentence.startswith(path) for path, sentence in shared.unreadable.items())


def test_single_recordings_of_another_rate_or_of_no_speaker_cost_nothing_else(make, voices):
    write(voices / "nobody.wav", hum(1))
    soundfile.write(voices / "voice0" / "wide.wav", hum(1), 2 * RATE)
    data = make()
    assert {Path(path).name: reason for path, reason in data.skipped.items()} == {
        "nobody.wav": "no folder or name that tells its speaker",
        "wide.wav": f"sampled at {2 * RATE} Hz, not {RATE}",
    }
    assert len(data.speakers) == 4


def test_a_folder_in_which_no_speaker_is_told_is_refused(mixing, tmp_path):
    for name in ("one", "two"):
        write(tmp_path / f"{name}.wav", hum(1))
    with pytest.raises(ValueError, match="one.wav: lies directly in --base_folder_dm"):
        mixing.DynamicMixingDataset(tmp_path, 2, RATE, length=3, training_signal_len=800)


def test_when_every_recording_is_bad_a_worker_says_so_instead_of_dying(mixing, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "1.wav", np.zeros(RATE, dtype="float32"))
    data = mixing.DynamicMixingDataset(tmp_path, 2, RATE, length=3, training_signal_len=800)
    loader = torch.utils.data.DataLoader(data, None, num_workers=1)
    with pytest.raises(ValueError, match="(?s)300 draws in turn.*2 of 2 recordings.*silent"):
        next(iter(loader))


def test_only_the_part_that_is_heard_is_read(tmp_path, mixing):
    # both are damaged in one place: it is met when the cut lies there, and only then
    for name in ("a", "b"):
        path = tmp_path / name / "1.flac"
        write(path, hum(4))
        content = bytearray(path.read_bytes())
        place = len(content) // 4
        content[place : place + 100] = bytes(100)
        path.write_bytes(content)
        with pytest.raises(AudioError, match="cannot be read"):
            load_audio(path, RATE)
    data = mixing.DynamicMixingDataset(tmp_path, 2, RATE, length=10, training_signal_len=800)
    assert all(torch.isfinite(data[index]["mix_sig"]).all() for index in range(10))


def test_real_speech_is_mixed_without_replacement_of_any_recording(mixing, data, tmp_path):
    resample = importlib.import_module("data_prep.resample_speech").resample_speech
    real = data("libri_voxceleb") / "wav"
    some = tmp_path / "some"
    some.mkdir()
    for speaker in sorted(real.iterdir())[:3]:
        (some / speaker.name).symlink_to(speaker.resolve())
    resample(some, tmp_path / "8k", RATE)
    mixtures = mixing.DynamicMixingDataset(tmp_path / "8k", 2, RATE, 8, 16000, loudness="lufs")
    assert len(mixtures.speakers) == 3
    for index in range(8):
        one = mixtures[index]
        assert one["samples"] == 16000 and 0.01 < one["mix_sig"].abs().max() <= 0.9
    assert mixtures.redrawn == {}
