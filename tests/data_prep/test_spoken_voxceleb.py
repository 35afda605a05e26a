"""Spoken voices in VoxCeleb's layout: sessions, unseen voices, trials, likeness, repeatability."""

import csv
import json

import numpy as np
import pytest
import soundfile

from data_prep.spoken import generate_voxceleb
from data_prep.spoken.__main__ import main, parse_arguments
from data_prep.spoken.acoustics import Scene
from data_prep.spoken.people import Session, people, speak_in_session
from data_prep.trials import read_trials
from data_prep.voxceleb_prepare import prepare_voxceleb

TINY = {"voices": 4, "test_voices": 4, "sessions": 2, "utterances": 2, "trials": 24, "seed": 3}


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A tiny corpus; tests must not alter it."""
    return generate_voxceleb(tmp_path_factory.mktemp("voices") / "corpus", jobs=2, **TINY)


def read(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_that_of_voxceleb(voices):
    files = sorted(path.relative_to(voices).as_posix() for path in voices.glob("wav/*/*/*"))
    assert len(files) == 8 * 2 * 2
    rows = read(voices / "utterances.csv")
    assert sorted(f"wav/{row['path']}" for row in rows) == files
    for row in rows:
        info = soundfile.info(voices / "wav" / row["path"])
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 2 < info.duration == pytest.approx(float(row["seconds"]), abs=1e-3)
    assert len({row["pcm_sha256"] for row in rows}) == len(rows)
    for name in ("README.txt", "corpus.json", "voices.csv", "vox1_meta.csv", "veri_test2.txt"):
        assert (voices / name).is_file()


def test_a_session_has_its_own_acoustics_and_all_its_utterances_share_them(voices):
    keys = ("rate", "pitch", "tilt", "rt60", "snr_db", "noise")
    sessions = {}
    for row in read(voices / "utterances.csv"):
        own = sessions.setdefault((row["speaker"], row["session"]), set())
        own.add(tuple(row[key] for key in keys))
    assert len(sessions) == 16 and all(len(own) == 1 for own in sessions.values())
    assert len(set.union(*sessions.values())) == 16


class Click:
    """A source of sound that says a single click, so that what is recorded is the room."""

    sample_rate = 22050

    def speak(self, voice, text, seed):
        """A click between two silences."""
        waveform = np.zeros(self.sample_rate)
        waveform[self.sample_rate // 2] = 1.0
        return waveform


def test_the_room_is_the_same_in_all_utterances_of_a_session_and_in_no_other():
    person = people("train", 2, seed=1)[0]
    scene = Scene(level_db=-30.0, rt60=0.3, direct_db=0.0)
    sessions = [Session(1.0, 0, scene, 0.0, (1, number)) for number in range(2)]
    first, again, other = (
        speak_in_session(Click(), person, session, "", np.random.default_rng(seed))
        for session, seed in zip((sessions[0], *sessions), (1, 2, 3), strict=True)
    )
    assert np.allclose(first, again)
    assert not np.allclose(first, other)


def test_trials_join_sessions_of_unseen_voices_and_half_of_the_impostors_one_sex(voices):
    table = {row["speaker"]: row for row in read(voices / "voices.csv")}
    of = {
        split: [row for row in table.values() if row["split"] == split]
        for split in ("train", "test")
    }
    for key in ("speaker", "base", "variant"):
        assert not {row[key] for row in of["train"]} & {row[key] for row in of["test"]}, key
    unseen = {row["speaker"] for row in of["test"]}
    trials = read_trials(voices / "veri_test2.txt", voices)
    assert len(trials) == 24 and trials.labels.sum() == 12
    parts = [name.split("/") for name in trials.files]
    same = 0
    for label, left, right in zip(trials.labels, trials.enrolment, trials.test, strict=True):
        (one, session, _), (other, another, _) = parts[left], parts[right]
        assert {one, other} <= unseen and (one == other) == bool(label)
        assert not label or session != another
        same += not label and table[one]["sex"] == table[other]["sex"]
    assert 4 <= same <= 8


def test_the_preparation_reads_it_and_keeps_the_test_voices_out(voices, tmp_path):
    found = prepare_voxceleb(voices, tmp_path, trials=[voices / "veri_test2.txt"], valid_speakers=2)
    train, valid = read(found["train"]), read(found["valid"])
    assert len(train) == len(valid) == 8
    test = {row["speaker"] for row in read(voices / "voices.csv") if row["split"] == "test"}
    assert not test & {row["speaker"] for row in train + valid}
    trials = read_trials(found["valid_trials"], voices)
    assert trials.labels.sum() == 8 and len(trials) == 24


def test_two_people_with_one_variant_differ_in_tract_or_pitch_by_more_than_sessions_do():
    for split, count in (("train", 330), ("test", 48)):
        found = people(split, count, seed=7)
        assert len({one.name for one in found}) == count
        for index, one in enumerate(found):
            for other in found[:index]:
                if one.voice.variant == other.voice.variant:
                    tracts = one.tract / other.tract
                    pitches = abs(one.voice.pitch - other.voice.pitch)
                    assert pitches >= 18 or not 0.92 < tracts < 1.08
    assert len(people("train", 64, seed=7)) == 64
    assert {one.sex for one in people("test", 2, seed=7)} == {"M", "F"}


def test_a_voice_is_nearer_to_itself_in_another_session_than_to_any_other(tmp_path):
    options = TINY | {"test_voices": 8, "utterances": 3, "noise": False}
    folder = generate_voxceleb(tmp_path / "clean", jobs=2, **options)
    spectra = {}
    for row in read(folder / "utterances.csv"):
        samples, _ = soundfile.read(folder / "wav" / row["path"])
        frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::160] * np.hanning(512)
        power = np.square(np.abs(np.fft.rfft(frames))).reshape(len(frames), -1)[:, 2:242]
        mean = np.log(power.reshape(len(frames), 48, 5).sum(2) + 1e-6).mean(0)
        own = spectra.setdefault(row["speaker"], {})
        own.setdefault(row["session"], []).append(mean - mean.mean())
    means = {
        speaker: [np.mean(one, axis=0) for one in sessions.values()]
        for speaker, sessions in spectra.items()
    }
    for speaker, (first, second) in means.items():
        own = np.linalg.norm(first - second)
        others = [np.linalg.norm(first - means[one][1]) for one in means if one != speaker]
        assert own < min(others), speaker


def test_workers_change_nothing_and_the_seed_everything(voices, tmp_path):
    hashes = [row["pcm_sha256"] for row in read(voices / "utterances.csv")]
    again = generate_voxceleb(tmp_path / "again", jobs=1, **TINY)
    assert hashes == [row["pcm_sha256"] for row in read(again / "utterances.csv")]
    for name in ("veri_test2.txt", "voices.csv", "vox1_meta.csv"):
        assert (again / name).read_bytes() == (voices / name).read_bytes()
    other = generate_voxceleb(tmp_path / "other", jobs=2, **TINY | {"seed": 4})
    assert not set(hashes) & {row["pcm_sha256"] for row in read(other / "utterances.csv")}


def test_the_same_command_again_does_nothing_and_other_options_are_refused(voices):
    before = (voices / "corpus.json").stat().st_mtime_ns
    assert generate_voxceleb(voices, **TINY) == voices
    assert (voices / "corpus.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="other options .*sessions was 2, is 3"):
        generate_voxceleb(voices, **TINY | {"sessions": 3})


def test_the_command_line_makes_it_and_sixty_voices_are_the_default(tmp_path, capsys):
    layout, options = parse_arguments(["out", "--layout", "voxceleb"])
    assert layout == "voxceleb" and options == {"output_folder": "out"}
    assert generate_voxceleb.__defaults__[0] >= 60
    command = "--layout voxceleb --voices 2 --test_voices 2 --sessions 2 --utterances 1"
    main([str(tmp_path / "voices"), *command.split(), "--no-noise", "--trials", "4"])
    record = json.loads((tmp_path / "voices" / "corpus.json").read_text())
    assert record["trials"] == {"target": 2, "impostor": 2}
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x"), "--layout", "voxceleb", "--repeats", "1"])
    assert "--layout voxceleb has no option --repeats" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voices": 331}, "2 to 330 voices for train, not 331"),
        ({"test_voices": 49}, "2 to 48 voices for test, not 49"),
        ({"test_voices": 1}, "2 to 48 voices for test, not 1"),
        ({"sessions": 1}, "sessions and trials must be 2 or more"),
        ({"utterances": 0}, "utterances and jobs 1 or more"),
        ({"trials": 1}, "sessions and trials must be 2 or more"),
        ({"seed": -1}, "seed 0 or more"),
        ({"jobs": 0}, "utterances and jobs 1 or more"),
    ],
)
def test_an_option_out_of_range_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generate_voxceleb(tmp_path / "corpus", **options)
    assert list(tmp_path.iterdir()) == []
