"""Resampling a tree: same names at the new rate, nothing twice, nothing by halves, and bad files said."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.resample_speech import main, resample_speech

ROOT = Path(__file__).parents[2]


def tone(hertz, rate=16000, seconds=0.2, level=0.1):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write(path, sound, rate=16000, subtype="PCM_16", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound, rate, subtype, **options)
    return path


@pytest.fixture
def tree(tmp_path):
    """Recordings of two speakers in three formats and rates."""
    source = tmp_path / "in"
    write(source / "011" / "011a0101.wv1", tone(300), format="NIST")
    write(source / "011" / "deep" / "er" / "x.wav", tone(400, 44100), 44100)
    write(source / "012" / "y.flac", tone(500))
    write(source / "012" / "at8.wav", tone(600, 8000), 8000)
    return source


NAMES = ["011/011a0101.wav", "011/deep/er/x.wav", "012/at8.wav", "012/y.wav"]


def found(target):
    return sorted(str(path.relative_to(target)) for path in target.rglob("*.wav"))


def skipped(target):
    with open(target / "skipped.csv", newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


def test_a_tree_is_copied_under_its_names_at_the_rate_with_pitch_and_level_kept(tree, tmp_path):
    target = tmp_path / "out"
    assert resample_speech(tree, target) == {"written": 4, "before": 0, "skipped": 0}
    assert found(target) == NAMES and not (target / "skipped.csv").exists()
    for name, pitch in zip(NAMES, (300, 400, 600, 500), strict=True):
        sound, rate = soundfile.read(target / name)
        assert rate == 8000 and len(sound) == 1600
        assert soundfile.info(target / name).subtype == "PCM_16"
        middle = sound[200:1400]
        # 1200 samples: a bin of 6.7 Hz
        assert abs(np.abs(np.fft.rfft(middle)).argmax() * 8000 / 1200 - pitch) < 7
        assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.1, rel=0.02)
    copy, _ = soundfile.read(target / "012/at8.wav", dtype="int16")
    assert (copy == soundfile.read(tree / "012/at8.wav", dtype="int16")[0]).all()


def test_copies_hold_the_nearest_16_bit_samples(tmp_path):
    sound = np.random.default_rng(0).uniform(-0.9, 0.9, 4000).astype(np.float32)
    write(tmp_path / "in" / "1" / "a.wav", sound, 8000, "FLOAT")
    resample_speech(tmp_path / "in", tmp_path / "out")
    error = soundfile.read(tmp_path / "out/1/a.wav", dtype="int16")[0] - 32768.0 * sound
    assert np.abs(error).max() <= 0.5


def test_what_lies_above_half_the_new_rate_is_gone_and_what_lies_below_stays(tmp_path):
    for pitch in (3500, 4200, 6000):
        write(tmp_path / "in" / f"{pitch}.wav", tone(pitch, seconds=1))
    resample_speech(tmp_path / "in", tmp_path / "out")
    level = {}
    for pitch in (3500, 4200, 6000):
        sound, _ = soundfile.read(tmp_path / "out" / f"{pitch}.wav")
        level[pitch] = 10 * np.log10(2 * np.mean(sound[400:-400] ** 2) / 0.01)
    assert abs(level[3500]) < 0.1 and level[4200] < -40 and level[6000] < -40


def test_a_second_run_writes_nothing_and_one_after_a_stop_writes_what_is_missing(tree, tmp_path):
    target = tmp_path / "out"
    resample_speech(tree, target)
    times = {name: (target / name).stat().st_mtime_ns for name in NAMES}
    assert resample_speech(tree, target) == {"written": 0, "before": 4, "skipped": 0}
    # as a killed run leaves it: one file missing, half of it under its temporary name
    whole = (target / NAMES[0]).read_bytes()
    (target / NAMES[0]).unlink()
    partial = (target / NAMES[0]).with_name(".011a0101.wav.partial")
    partial.write_bytes(whole[:100])
    assert resample_speech(tree, target) == {"written": 1, "before": 3, "skipped": 0}
    assert (target / NAMES[0]).read_bytes() == whole and not partial.exists()
    assert all((target / name).stat().st_mtime_ns == times[name] for name in NAMES[1:])


def test_no_file_has_its_name_before_it_is_whole(tree, tmp_path, monkeypatch):
    target, renamed = tmp_path / "out", []
    replace = os.replace

    def watch(partial, path):
        if str(path).endswith(".wav"):
            assert not os.path.exists(path)
            renamed.append(soundfile.info(partial).frames)
        replace(partial, path)

    monkeypatch.setattr(os, "replace", watch)
    resample_speech(tree, target)
    assert renamed == [1600] * 4


def test_the_number_of_jobs_changes_no_sample(tree, tmp_path):
    for jobs in (1, 3):
        resample_speech(tree, tmp_path / str(jobs), jobs=jobs)
    for name in NAMES:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()


def test_files_that_cannot_be_used_are_counted_and_listed_with_the_reason(tree, tmp_path, caplog):
    header = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\nend_head\n"
    bad = tree / "013"
    write(bad / "stereo.wav", np.stack([tone(300), tone(400)], 1))
    write(bad / "nan.wav", np.full(800, np.nan), subtype="FLOAT")
    write(bad / "none.wav", np.zeros(0))
    write(bad / "narrow.wav", tone(300, 6000), 6000)
    write(bad / "twice.flac", tone(300))
    write(bad / "twice.wav", tone(300))
    (bad / "text.wav").write_text("no sound")
    (bad / "empty.wav").write_bytes(b"")
    (bad / "link.wav").symlink_to(bad / "nowhere.wav")
    (bad / "packed.wv1").write_bytes(header.ljust(1024, b"\n") + b"ajkg" + bytes(99))
    (bad / "other.wv2").write_bytes(b"the other microphone is not asked for")
    target = tmp_path / "out"
    assert resample_speech(tree, target) == {"written": 6, "before": 0, "skipped": 7}
    assert skipped(target) == {
        "stereo.wav": "2 channels, not one",
        "nan.wav": "samples that are not finite numbers",
        "none.wav": "no samples",
        "narrow.wav": "sampled at 6000 Hz, below the rate wanted",
        "text.wav": "unreadable audio",
        "empty.wav": "empty file",
        "packed.wv1": "SPHERE compressed by shorten, which cannot be read: unpack it with sph2pipe -f wav",
    }
    assert found(target) == [*NAMES, "013/twice.flac.wav", "013/twice.wav"]
    assert f"7 of 13 recordings of {tree} are left out" in caplog.text
    assert f"1 link to nothing ({bad / 'link.wav'})" in caplog.text
    # a .wav has its own name whatever lies beside it: lists name it
    (bad / "twice.flac").unlink()
    assert resample_speech(tree, target)["before"] == 5 and (target / "013/twice.wav").is_file()


def test_a_recording_that_would_pass_full_scale_is_scaled_down_not_clipped(tmp_path):
    square = np.sign(tone(1000, seconds=0.5))
    write(tmp_path / "in" / "loud.wav", square)
    resample_speech(tmp_path / "in", tmp_path / "out")
    sound, _ = soundfile.read(tmp_path / "out" / "loud.wav")
    # the harmonics below 4 kHz alone ring above the square's own height
    assert 0.99 < np.abs(sound).max() <= 1 and (np.abs(sound) > 0.999).mean() < 0.1


def test_folders_that_cannot_be_used_give_one_error(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        resample_speech(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: holds no .wav"):
        resample_speech(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ValueError, match="inside the input folder"):
        resample_speech(tree, tree / "8k")
    with pytest.raises(ValueError, match="1 or more; got 0 Hz"):
        resample_speech(tree, tmp_path / "out", 0)
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "1.wav").write_text("no sound")
    with pytest.raises(ValueError, match="no file could be resampled; see .*skipped.csv"):
        resample_speech(tmp_path / "text", tmp_path / "none")
    resample_speech(tree, tmp_path / "out", 8000)
    with pytest.raises(ValueError, match="was not made from .* at 4000 Hz; give another"):
        resample_speech(tree, tmp_path / "out", 4000)
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / "song.wav", tone(440))
    with pytest.raises(ValueError, match="mine: is there already"):
        resample_speech(tree, tmp_path / "mine")
    assert found(tmp_path / "mine") == ["song.wav"]


def test_the_command_line_resamples_and_ends_with_one_line_if_it_cannot(tree, tmp_path, capsys):
    main([str(tree), str(tmp_path / "out"), "--sample_rate", "4000", "--jobs", "1"])
    assert soundfile.info(tmp_path / "out" / NAMES[0]).samplerate == 4000
    with pytest.raises(SystemExit, match="error: .*nowhere: no such folder"):
        main([str(tmp_path / "nowhere"), str(tmp_path / "out")])


@pytest.mark.exhaustive
def test_the_published_script_works_and_names_the_new_one(tree, tmp_path):
    script = ROOT / "recipes" / "WSJ0Mix" / "separation" / "preprocess_dynamic_mixing.py"
    options = ["--input_folder", tree, "--output_folder", tmp_path / "out", "--fs", "8000"]
    done = subprocess.run(
        [sys.executable, script, *map(str, options)],
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    assert "python -m data_prep.resample_speech" in done.stdout
    assert found(tmp_path / "out") == NAMES


def test_rates_without_a_common_divisor_are_resampled_too(tmp_path):
    write(tmp_path / "in" / "odd.wav", tone(300, 16001), 16001)
    assert resample_speech(tmp_path / "in", tmp_path / "out")["written"] == 1
    samples, rate = soundfile.read(tmp_path / "out" / "odd.wav")
    heard, _ = soundfile.read(tmp_path / "in" / "odd.wav")
    assert rate == 8000 and len(samples) == -(-len(heard) * 8000 // 16001)
    times = np.arange(len(samples)) / 8000
    near = np.interp(times, np.arange(len(heard)) / 16001, heard)
    assert np.abs(samples - near)[200:-200].max() < 0.01
