"""Mixtures from single speakers: sums, levels, lengths, lists, and that they can be made again."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_prep.mixtures import (
    Mixture,
    Settings,
    Source,
    build_mixtures,
    choose_splits,
    draw_mixtures,
    find_lists,
    find_speech,
    halve_speakers,
    read_list,
    write_list,
)
from data_prep.mixtures.__main__ import main
from data_prep.mixtures.levels import level_of
from data_prep.mixtures.loading import resample
from data_prep.wsj0mix_prepare import prepare_wsj0mix
from tests.support.mixing import RATE, build, draw, one_list, read_set, same, write_noise


@pytest.mark.parametrize("num_spks", [2, 3])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_mixture_is_exactly_the_sum_of_what_was_written(tmp_path, speech, num_spks, mode):
    files = [f"{speaker}/{index}.wav" for index, speaker in enumerate("cab"[:num_spks])]
    mix, *sources = build(tmp_path, speech, one_list(*files), mode=mode)
    assert np.array_equal(mix, sum(sources)) and all(one.any() for one in sources)


def test_min_cuts_to_the_shortest_and_max_pads_to_the_longest(tmp_path, speech):
    lists = one_list("a/0.wav", "b/2.wav")
    short, long = [soundfile.read(speech / name)[0] for name in ("a/0.wav", "b/2.wav")]
    assert len(short) < len(long)
    for mode, length in (("min", len(short)), ("max", len(long))):
        mix, *sources = build(tmp_path, speech, lists, mode=mode)
        assert [len(one) for one in (mix, *sources)] == 3 * [length]
        # Whatever is left of a source is the source, times one number.
        for source, whole in zip(sources, (short, long), strict=True):
            overlap = min(length, len(whole))
            assert np.corrcoef(source[:overlap], whole[:overlap])[0, 1] > 0.9999
            assert not source[overlap:].any()


@pytest.mark.parametrize("loudness", ["rms", "active"])
def test_gains_are_relative_to_one_level_whatever_the_recordings_had(tmp_path, speech, loudness):
    lists = one_list("a/2.wav", "b/2.wav", gains=(2.0, -1.5))
    _, first, second = build(tmp_path, speech, lists, loudness=loudness)
    assert level_of(first, RATE, loudness) == pytest.approx(-23.0, abs=0.02)
    assert level_of(second, RATE, loudness) == pytest.approx(-26.5, abs=0.02)


def test_what_would_clip_is_scaled_down_with_its_sources(tmp_path, speech):
    lists = one_list("a/2.wav", "b/2.wav", gains=(30.0, 27.0))
    mix, first, second = build(tmp_path, speech, lists)
    assert max(np.abs(one).max() for one in (mix, first, second)) == pytest.approx(0.9, abs=1e-4)
    difference = level_of(first, RATE, "rms") - level_of(second, RATE, "rms")
    assert difference == pytest.approx(3.0, abs=0.01) and np.array_equal(mix, first + second)


def test_recordings_of_one_source_follow_each_other_and_are_resampled(tmp_path):
    for name in ("a/1.flac", "a/2.flac", "b/1.flac"):
        seconds = np.arange(4800) / 16000
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tone = 0.1 * np.sin(2 * np.pi * (500 if name < "b" else 900) * seconds)
        soundfile.write(tmp_path / name, tone, 16000)
    sources = (Source("a", ("a/1.flac", "a/2.flac"), 0.0), Source("b", ("b/1.flac",), 0.0))
    lists = {"tr": [Mixture("mixture", sources)]}
    _, first, _ = build(tmp_path, tmp_path, lists, mode="max")
    assert len(first) == 2 * 2400
    assert np.argmax(np.abs(np.fft.rfft(first))) * RATE / len(first) == 500


def test_a_set_follows_from_its_seed_alone(tmp_path, speech):
    draw(tmp_path / "one", speech, "--train", 6)
    draw(tmp_path / "two", speech, "--train", 6, "--jobs", 2)
    draw(tmp_path / "three", speech, "--train", 6, "--seed", 5)
    one, two, three = (read_set(tmp_path / name / "wav8k") for name in ("one", "two", "three"))
    assert same(one, two) and not same(one, three)
    lists = [(tmp_path / name / "lists/tr.csv").read_text() for name in ("one", "two", "three")]
    assert lists[0] == lists[1] != lists[2]
    # Of the same speakers too, and each split by itself.
    speakers = find_speech(speech)[""]
    drawn = [draw_mixtures(speakers, *one) for one in (("tr", 9), ("tr", 9), ("cv", 9))]
    assert drawn[0] == drawn[1] and drawn[0] != draw_mixtures(speakers, "tr", 9, seed=5)
    assert [one.sources for one in drawn[0]] != [one.sources for one in drawn[2]]


def test_a_killed_run_is_completed_without_redoing_what_is_finished(tmp_path, speech):
    draw(tmp_path / "out", speech)
    whole = read_set(tmp_path / "out")
    mix = sorted((tmp_path / "out/wav8k/min/tr/mix").iterdir())
    finished = mix[0].stat().st_mtime_ns
    # As a kill leaves it: sources without their mixture, half of a file under its temporary name.
    mix[1].unlink()
    half = mix[1].parents[1] / "s2" / f".{mix[1].name}.partial"
    half.write_bytes(b"RIFF")
    mix[2].unlink()
    (mix[2].parents[1] / "s1" / mix[2].name).unlink()
    draw(tmp_path / "out", speech)
    assert same(read_set(tmp_path / "out"), whole)
    assert mix[0].stat().st_mtime_ns == finished and not half.exists()


@pytest.mark.exhaustive
def test_killing_the_command_ends_its_processes(tmp_path):
    for speaker in "abcdef":
        for index in range(4):
            write_noise(tmp_path / f"speech/{speaker}/{index}.wav", 30, 16000)
    command = [sys.executable, "-m", "data_prep.mixtures", str(tmp_path / "out"), "--jobs", "2"]
    command += ["--speech", str(tmp_path / "speech"), "--train", "200", "--valid", "0"]
    command += ["--test", "0"]
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)
    mixes = tmp_path / "out/wav8k/min/tr/mix"
    try:
        wait_until(lambda: mixes.is_dir() and any(mixes.glob("[!.]*.wav")), 200)
        process.kill()
        process.wait()
        assert len(list(mixes.glob("[!.]*.wav"))) < 200
        wait_until(lambda: not group_is_alive(process.pid), 60)
    finally:
        if group_is_alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition, seconds):
    """Look every 50 ms; TimeoutError if the condition never holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


def group_is_alive(group):
    """Whether a process group still has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_other_settings_do_not_mix_with_what_is_there(tmp_path, speech):
    draw(tmp_path / "out", speech)
    with pytest.raises(SystemExit, match="mixtures made otherwise .*list tr"):
        draw(tmp_path / "out", speech, "--seed", 3)
    with pytest.raises(SystemExit, match="loudness"):
        draw(tmp_path / "out", speech, "--loudness", "active")
    draw(tmp_path / "out", speech, "--mode", "max", "--sample_rate", 16000)
    assert {path.parts[0] for path in map(Path, read_set(tmp_path / "out"))} == {"wav8k", "wav16k"}
    with pytest.raises(SystemExit, match="holds something else"):
        draw(speech, speech)


def test_the_written_lists_make_the_same_set_again(tmp_path, speech):
    draw(tmp_path / "one", speech, "--num_spks", 3, "--train", 6, "--test", 0)
    lists = str(tmp_path / "one/lists")
    main([str(tmp_path / "two"), "--speech", str(speech), "--lists", lists, "--num_spks", "3"])
    assert same(read_set(tmp_path / "one"), read_set(tmp_path / "two"))
    assert not (tmp_path / "one/wav8k/min/tt").exists()


def test_no_speaker_of_one_split_is_in_another_and_none_meets_himself(tmp_path, speech):
    draw(tmp_path / "out", speech, "--train", 20, "--speech_for_dynamic_mixing")
    speakers = {}
    for split in ("tr", "cv", "tt"):
        mixtures = read_list(tmp_path / f"out/lists/{split}.csv")
        assert all(len(set(one.speakers)) == 2 for one in mixtures)
        files = [frozenset(source.files for source in one.sources) for one in mixtures]
        assert len(set(files)) == len(files)
        for one in mixtures:
            assert one.sources[0].gain == -one.sources[1].gain and 0 <= one.sources[0].gain <= 2.5
        speakers[split] = {name for one in mixtures for name in one.speakers}
    assert not any(a & b for a, b in itertools.combinations(speakers.values(), 2))
    single = read_set(tmp_path / "out/wav8k/speech")
    assert set(single) == {f"{name}/{n}.wav" for name in speakers["tr"] for n in range(3)}
    # At the level of the recordings, whatever that of the mixtures.
    name = next(iter(single))
    expected, _ = soundfile.read(speech / name, dtype="int16")
    assert np.abs(single[name] - expected).max() <= 1


def test_a_drawn_set_passes_preparation(tmp_path, speech):
    draw(tmp_path / "out", speech)
    prepared = prepare_wsj0mix(tmp_path / "out", tmp_path / "manifests")
    counts = {name: len(path.read_text().splitlines()) - 1 for name, path in prepared.items()}
    assert counts == {"train": 4, "valid": 2, "test": 2}


def test_librispeech_sets_become_the_splits(tmp_path):
    names = {"train-clean-100": "12", "dev-clean": "34", "test-clean": "56", "test-other": "78"}
    for folder, speakers in names.items():
        for speaker in speakers:
            name = f"{speaker}/9/{speaker}-9-0000.flac"
            write_noise(tmp_path / "LibriSpeech" / folder / name, 0.05)
    speech = find_speech(tmp_path)
    assert {split: "".join(speakers) for split, speakers in speech.items()} == {
        "tr": "12",
        "cv": "34",
        "tt": "5678",
    }
    assert choose_splits(speech, ["tr", "tt"]).keys() == {"tr", "tt"}
    with pytest.raises(ValueError, match="none for tt"):
        choose_splits({split: speech[split] for split in ("tr", "cv")}, ["tr", "tt"])


@pytest.mark.parametrize("layout", ["auto", "voxceleb"])
def test_voxceleb_speakers_are_found_below_wav(tmp_path, layout):
    for speaker in ("id10001", "id10002"):
        write_noise(tmp_path / "vox/wav" / speaker / "video/00001.wav", 0.05)
    assert find_speech(tmp_path / "vox", layout) == {
        "": {name: [f"wav/{name}/video/00001.wav"] for name in ("id10001", "id10002")}
    }


def test_a_folder_for_each_split_may_be_given(tmp_path, speech):
    for name in ("d", "e", "f"):
        for speaker in "xy":
            write_noise(tmp_path / f"{name}/{name}{speaker}/0.wav", 0.2)
    folders = [
        f"--{name}_speech={tmp_path / part}"
        for name, part in zip(("train", "valid", "test"), "def", strict=True)
    ]
    counts = ["--train=1", "--valid=1", "--test=1", "--min_seconds=0.1", "--jobs=1"]
    main([str(tmp_path / "out"), *folders, *counts])
    for split, part in zip(("tr", "cv", "tt"), "def", strict=True):
        (mixture,) = read_list(tmp_path / f"out/lists/{split}.csv")
        assert set(mixture.speakers) == {f"{part}x", f"{part}y"}


HEADER = "mix_id,spk1,spk2,s1_wavs,s2_wavs,s1_gain_db,s2_gain_db\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column mix_id"),
        (HEADER, "is empty"),
        (HEADER.replace("s2_wavs", "wavs"), "no column s2_wavs"),
        (HEADER + "m,a,b,1.wav,2.wav,1,loud", "line 2: 'loud' is not a gain"),
        (HEADER + "m,a,b,1.wav,2.wav,1,nan", "line 2: 'nan' is not a gain"),
        (HEADER + "m,a,b,1.wav,2.wav+,1,0", "no recording"),
        (HEADER + "m,a,a,1.wav,2.wav,1,0", "one speaker twice"),
        (HEADER + "../m,a,b,1.wav,2.wav,1,0", "cannot be the name of a file"),
        (HEADER + 2 * "m,a,b,1.wav,2.wav,1,0\n", "m is listed twice"),
    ],
)
def test_a_faulty_list_is_answered_with_its_name(tmp_path, text, message):
    (tmp_path / "tr.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_list(tmp_path / "tr.csv")
    assert "tr.csv" in str(caught.value)


def test_a_dollar_is_a_plain_character_of_ids_speakers_and_recordings(tmp_path):
    (tmp_path / "tr.csv").write_text(HEADER + "$m,$a,b$1,$HOME/1.wav,${x}.wav,1,0\n")
    (mixture,) = read_list(tmp_path / "tr.csv")
    assert (mixture.id, mixture.sources[0].speaker) == ("$m", "$a")
    assert [source.files for source in mixture.sources] == [("$HOME/1.wav",), ("${x}.wav",)]


def test_lists_are_found_by_folder_or_by_name(tmp_path):
    mixtures = [Mixture("m", (Source("a", ("1.wav", "2.wav"), 0.1), Source("b", ("3.wav",), -0.1)))]
    write_list(tmp_path / "mix_2spk_cv.csv", mixtures)
    found = find_lists([str(tmp_path)])
    assert found == {"cv": tmp_path / "mix_2spk_cv.csv"} and read_list(found["cv"]) == mixtures
    assert find_lists([f"tt={found['cv']}"]) == {"tt": found["cv"]}
    with pytest.raises(FileNotFoundError, match="no list such as mix_3_spk_tr.txt"):
        find_lists([str(tmp_path)], 3)
    with pytest.raises(ValueError, match="tr=FILE cv=FILE"):
        find_lists(["dev=there"])


@pytest.fixture
def wsj0(tmp_path):
    """Something like WSJ0 at 16 kHz, and lists of the official form."""
    for name in ("si_tr_s/01t/01to030v", "si_tr_s/02a/02ac0101", "si_dt_05/050/050a0501"):
        write_noise(tmp_path / f"wsj0/{name}.wav", 0.6 if "01t" in name else 0.5, 16000)
    line = "wsj0/si_tr_s/01t/01to030v.wav 0.76421 wsj0/si_tr_s/02a/02ac0101.wav -0.76421\n"
    (tmp_path / "lists").mkdir()
    for split in ("tr", "cv", "tt"):
        (tmp_path / f"lists/mix_2_spk_{split}.txt").write_text(line)
    return tmp_path


@pytest.mark.parametrize("given", ["wsj0", "."])
def test_official_lists_give_official_names_full_scale_and_one_balance_at_both_rates(wsj0, given):
    options = ["--lists", str(wsj0 / "lists"), "--sample_rate", "8000", "16000", "--jobs", "1"]
    main([str(wsj0 / "out"), "--wsj0", str(wsj0 / given), *options])
    file = "01to030v_0.76421_02ac0101_-0.76421.wav"
    originals = [
        soundfile.read(wsj0 / "wsj0/si_tr_s" / part)[0]
        for part in ("01t/01to030v.wav", "02a/02ac0101.wav")
    ]
    balance = {}
    for rate in (8000, 16000):
        folder = wsj0 / f"out/wav{rate // 1000}k/min/tr"
        mix, *pair = (soundfile.read(folder / name / file)[0] for name in ("mix", "s1", "s2"))
        assert len(mix) == rate // 2
        peak = max(np.abs(one).max() for one in (mix, *pair))
        assert peak == pytest.approx(0.9, abs=1e-4)
        wholes = [resample(one, 16000, rate)[: len(mix)] for one in originals]
        gains = [one @ whole / (whole @ whole) for one, whole in zip(pair, wholes, strict=True)]
        balance[rate] = 20 * np.log10(gains[0] / gains[1])
    # By the level at 8 kHz, for the files at 16 kHz too.
    levels = [level_of(resample(one, 16000, 8000), 8000, "active") for one in originals]
    assert balance[8000] == pytest.approx(2 * 0.76421 - levels[0] + levels[1], abs=0.01)
    assert balance[16000] == pytest.approx(balance[8000], abs=0.01)


def test_pauses_lower_the_rms_and_not_the_active_level():
    seconds = np.arange(4 * RATE) / RATE
    tone = 0.1 * np.sin(2 * np.pi * 1000 * seconds)
    speech = np.where(seconds % 2 < 1, tone, 0.0)
    assert level_of(speech, RATE, "rms") == pytest.approx(
        level_of(tone, RATE, "rms") - 3.01, abs=0.01
    )
    # The hangover of 0.2 s counts as speech: 1.2 s and a little more of every 2 s.
    change = level_of(speech, RATE, "active") - level_of(tone, RATE, "active")
    assert -1.3 < change < -0.6
    louder = level_of(2 * speech, RATE, "active") - level_of(speech, RATE, "active")
    assert louder == pytest.approx(6.02, abs=0.01)
    for measure in ("rms", "active"):
        assert level_of(np.zeros(RATE), RATE, measure) == -np.inf


def test_lufs_without_its_library_says_what_to_do(tmp_path, speech, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyloudnorm", None)
    with pytest.raises(SystemExit, match="pip install pyloudnorm, or choose --loudness rms"):
        draw(tmp_path / "out", speech, "--loudness", "lufs")
    assert not (tmp_path / "out").exists()


def test_halves_share_no_speaker_and_lose_as_little_as_any_others():
    random = np.random.default_rng(4)
    for _ in range(5):
        pairs = [random.choice(8, 2, replace=False) for _ in range(14)] + [
            (0, 1),
            (2, 3),
            (4, 5),
            (6, 7),
        ]
        mixtures = [
            Mixture(f"m{n}", tuple(Source(str(one), (f"{one}.wav",), 0.0) for one in pair))
            for n, pair in enumerate(pairs)
        ]
        first, second, across = halve_speakers(mixtures)
        sides = [{name for one in half for name in one.speakers} for half in (first, second)]
        assert not sides[0] & sides[1] and len(first) + len(second) + len(across) == len(mixtures)
        least = min(
            sum(len({int(a) in half, int(b) in half}) == 2 for a, b in pairs)
            for half in map(set, itertools.combinations(range(8), 4))
        )
        assert len(across) == least
    with pytest.raises(ValueError, match="cannot be split into two halves"):
        halve_speakers([mixtures[0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lists", "x"], "give --speech FOLDER"),
        (["--wsj0", "x"], "needs the official lists"),
        (["--speech", "x", "--lists", "y", "--seed", "1"], "--seed is for new lists"),
        (["--speech", "x", "--halve_valid_speakers"], "is for --lists"),
        (["--speech", "x", "--valid_fraction", "2"], "--valid_fraction: must be from 0 to 1"),
        (["--speech", "x", "--train", "-1"], "--train: must be a whole number from 0"),
        (["--speech", "x"], "the speech folder x does not exist"),
        (["--speech", "x", "--lists", "tr=y.csv"], "there is no mixture list y.csv"),
    ],
)
def test_options_that_do_not_fit_end_in_one_line_that_names_them(
    tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["out", *options])
    assert message in f"{caught.value}{capsys.readouterr().err}" and not Path("out").exists()


def test_real_lists_are_mixed_and_their_validation_speakers_halved(data, tmp_path):
    folder = data("libri_voxceleb")
    first, second, across = halve_speakers(read_list(find_lists([str(folder)])["cv"]))
    assert [len(part) for part in (first, second, across)] == [24, 24, 12]
    lists = {"cv": first[:2], "tt": second[:2]}
    build_mixtures(tmp_path / "out", lists, Settings(str(folder / "wav")), 1, False)
    prepared = prepare_wsj0mix(tmp_path / "out", tmp_path / "manifests", splits=("valid", "test"))
    for path in prepared.values():
        with open(path, newline="") as file:
            assert [float(row["duration"]) for row in csv.DictReader(file)] == [6.0, 6.0]
