"""Spoken corpora: what is promised of their splits, their layout and their repeatability."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import data_prep
from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.spoken import acoustics, corpus, generate_librispeech
from data_prep.spoken.__main__ import main
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.texts import Grammar, SentenceSource, split_of
from data_prep.spoken.voices import Voice, speaker_table

SPLITS = ("train", "dev", "test")


@pytest.fixture(scope="module")
def synthesiser():
    """One running engine for the tests of this file."""
    with Synthesiser() as running:
        yield running


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_record(folder):
    """What `corpus.json` says."""
    return json.loads((folder / "corpus.json").read_text(encoding="utf-8"))


def transcripts(folder, split):
    """Sentences of a split by utterance."""
    paths = sorted((folder / "LibriSpeech" / f"{split}-spoken").glob("*/*/*.trans.txt"))
    lines = [line for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return dict(line.split(" ", 1) for line in lines)


@pytest.mark.parametrize("voice", [Voice("en"), Voice("en-us", "f3"), Voice("en-029", "grandpa")])
def test_an_utterance_does_not_depend_on_what_was_spoken_before(synthesiser, voice):
    first = synthesiser.speak(voice, "the quick brown fox", seed=7)
    synthesiser.speak(Voice("en-gb-x-rp", "m1"), "something else altogether", seed=1)
    second = synthesiser.speak(voice, "the quick brown fox", seed=7)
    with Synthesiser() as fresh:
        third = fresh.speak(voice, "the quick brown fox", seed=7)
    assert np.array_equal(first, second)
    assert np.array_equal(first, third)


@pytest.mark.parametrize(
    ("voice", "message"),
    [(Voice("en-gb"), "no voice named 'en-gb'"), (Voice("en", "nobody"), "no variant 'nobody'")],
)
def test_an_unknown_voice_or_variant_is_refused_and_the_engine_goes_on(synthesiser, voice, message):
    with pytest.raises(RuntimeError, match=message):
        synthesiser.speak(voice, "hello")
    assert len(synthesiser.speak(Voice("en"), "hello")) > 0


def test_rate_pitch_and_variant_each_change_the_speech(synthesiser):
    plain = synthesiser.speak(Voice("en"), "good morning")
    slow = synthesiser.speak(Voice("en", rate=110), "good morning")
    assert len(slow) > 1.2 * len(plain)
    for other in (Voice("en", pitch=80), Voice("en", "f2"), Voice("en-us")):
        samples = synthesiser.speak(other, "good morning")
        assert len(samples) != len(plain) or not np.allclose(samples, plain, atol=0.01)


@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.exhaustive), 12], ids=["all", "some"]
)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_voice_of_every_split_can_be_spoken(synthesiser, language, every):
    text = {"en": "hello", "ru": "привет"}[language]
    for split in SPLITS:
        for speaker in speaker_table(language, split)[::every]:
            assert np.abs(synthesiser.speak(speaker.voice, text)).max() > 0.01, speaker


@pytest.mark.parametrize("language", ["en", "ru"])
def test_splits_share_no_base_voice_and_no_variant(language):
    voices = {
        split: [one.voice for one in speaker_table(language, split, seed=5)] for split in SPLITS
    }
    for left, right in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for part in ("base", "variant"):
            shared = {getattr(voice, part) for voice in voices[left]} & {
                getattr(voice, part) for voice in voices[right]
            }
            assert not shared, (left, right, part)


def test_there_are_sixty_training_and_twelve_test_voices_of_several_accents():
    train, test = speaker_table("en", "train", 72), speaker_table("en", "test")
    assert len({speaker.voice.name for speaker in train}) == 72
    assert len({speaker.voice.base for speaker in train}) >= 4
    assert len({speaker.voice.name for speaker in test}) >= 12
    assert {speaker.sex for speaker in test} == {"F", "M"}
    assert max(speaker.voice.rate for speaker in train + test) < 200


@pytest.mark.parametrize("language", ["en", "ru"])
def test_sentences_of_the_splits_are_disjoint_whatever_the_seed(language):
    grammar = Grammar(language)
    sentences = {
        (split, seed): {source.draw() for _ in range(150)}
        for split in SPLITS
        for seed in (1, 2)
        for source in [SentenceSource(grammar, split, seed)]
    }
    for (left, _), some in sentences.items():
        assert len(some) == 150
        assert {split_of(sentence) for sentence in some} == {left}
        assert all(3 <= len(sentence.split()) <= 12 for sentence in some)
        for (right, _), others in sentences.items():
            assert left == right or not some & others


def test_english_has_over_500_words_and_an_hour_of_training_says_them_all():
    grammar = Grammar("en")
    source = SentenceSource(grammar, "train", seed=4)
    said = {word for _ in range(1200) for word in source.draw().split()}
    assert len(grammar.vocabulary()) >= 500
    assert said == set(grammar.vocabulary())


def test_russian_is_written_in_cyrillic_letters_only():
    letters = set("".join(Grammar("ru").vocabulary()).upper())
    assert letters <= set("АБВГДЕЁЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ")


def test_the_corpus_has_the_layout_that_the_preparation_reads(spoken_corpus, tmp_path):
    splits = [f"{split}-spoken" for split in SPLITS]
    prepare_librispeech(spoken_corpus, tmp_path, splits[:1], splits[1:2], splits[2:])
    record = read_record(spoken_corpus)
    assert not list(tmp_path.glob("skipped_*"))
    for split in splits:
        rows = read_table(tmp_path / f"{split}.csv")
        assert len(rows) == record["splits"][split]["utterances"]
        minutes = sum(float(row["duration"]) for row in rows) / 60
        assert minutes == pytest.approx(record["splits"][split]["minutes"], abs=0.01)
        assert all(row["wrd"] == row["wrd"].upper() for row in rows)


def test_each_split_is_as_long_as_asked_and_hardly_longer(spoken_corpus, tiny_options):
    counts = read_record(spoken_corpus)["splits"]
    asked = {
        "train-spoken": 60 * tiny_options["hours"],
        "dev-spoken": tiny_options["dev_minutes"],
        "test-spoken": tiny_options["test_minutes"],
    }
    for split, minutes in asked.items():
        assert minutes - 0.01 <= counts[split]["minutes"] <= minutes + 0.2


def test_every_utterance_has_more_encoder_frames_than_ctc_needs(spoken_corpus):
    seconds = {
        row["id"]: float(row["seconds"]) for row in read_table(spoken_corpus / "utterances.csv")
    }
    for split in SPLITS:
        for name, text in transcripts(spoken_corpus, split).items():
            assert seconds[name] / 0.04 > corpus.count_symbols(text), (name, text)


def test_the_recorded_hashes_are_those_of_the_samples_on_disk(spoken_corpus):
    rows = read_table(spoken_corpus / "utterances.csv")
    for row in rows:
        (path,) = spoken_corpus.glob(f"LibriSpeech/*/*/*/{row['id']}.flac")
        samples, sample_rate = soundfile.read(path, dtype="int16")
        spoken = corpus.SpokenUtterance(None, samples, 0, None)
        assert sample_rate == corpus.SAMPLE_RATE
        assert spoken.digest() == row["pcm_sha256"]
        assert 0 < np.abs(samples.astype(int)).max() <= 0.951 * 32768


def test_speakers_txt_maps_every_speaker_to_a_voice(spoken_corpus):
    lines = (spoken_corpus / "LibriSpeech" / "SPEAKERS.TXT").read_text(encoding="utf-8")
    fields = [
        [field.strip() for field in line.split("|")]
        for line in lines.splitlines()
        if not line.startswith(";")
    ]
    voices = {row["speaker"]: row for row in read_table(spoken_corpus / "voices.csv")}
    assert [line[0] for line in fields] == list(voices)
    for speaker, sex, split, minutes, name in fields:
        row = voices[speaker]
        assert (sex, split) == (row["sex"], row["split"])
        assert name.startswith(row["base"])
        assert float(minutes) > 0
        assert (spoken_corpus / "LibriSpeech" / split / speaker).is_dir()


def test_the_number_of_workers_changes_nothing(spoken_corpus, tiny_options, tmp_path):
    again = generate_librispeech(tmp_path / "again", jobs=1, **tiny_options)
    assert read_record(again) == read_record(spoken_corpus)
    table = (again / "utterances.csv").read_bytes()
    assert table == (spoken_corpus / "utterances.csv").read_bytes()


def test_another_seed_gives_other_sentences_and_other_voices(spoken_corpus, tiny_options, tmp_path):
    other = generate_librispeech(tmp_path / "other", **(tiny_options | {"seed": 4}))
    for name in ("voices.csv", "utterances.csv"):
        assert (other / name).read_bytes() != (spoken_corpus / name).read_bytes()
    shared = set(transcripts(other, "train").values()) & set(
        transcripts(spoken_corpus, "train").values()
    )
    assert not shared


def test_the_same_command_again_does_nothing(spoken_corpus, tiny_options, caplog):
    before = {path: path.stat().st_mtime_ns for path in spoken_corpus.rglob("*")}
    with caplog.at_level("INFO"):
        generate_librispeech(spoken_corpus, **tiny_options)
    assert "nothing to do" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in spoken_corpus.rglob("*")}


def test_other_options_in_the_same_folder_are_refused_unless_overwriting(tmp_path):
    options = {"hours": 0.001, "dev_minutes": 0, "test_minutes": 0, "train_voices": 1}
    folder = generate_librispeech(tmp_path / "corpus", **options)
    with pytest.raises(ValueError, match=r"noise was True, is False.*--overwrite"):
        generate_librispeech(folder, noise=False, **options)
    assert read_record(folder)["options"]["noise"] is True
    generate_librispeech(folder, noise=False, overwrite=True, **options)
    assert read_record(folder)["options"]["noise"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_a_folder_with_anything_else_in_it_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a spoken corpus"):
        generate_librispeech(tmp_path, hours=0.001, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_failed_run_leaves_no_corpus_and_the_next_run_starts_afresh(tmp_path):
    options = {"some": "options"}
    folder = tmp_path / "corpus"
    with pytest.raises(KeyError), corpus.new_folder(folder, options) as temporary:
        (temporary / "half").write_text("half")
        raise KeyError
    assert not folder.exists()
    with corpus.new_folder(folder, options) as temporary:
        (temporary / "corpus.json").write_text(json.dumps({"options": options}))
    assert [path.name for path in folder.iterdir()] == ["corpus.json"]
    with corpus.new_folder(folder, options) as temporary:
        assert temporary is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": 1, "test_minutes": -1}, "test_minutes"),
        ({"hours": 1, "language": "xx"}, "language 'xx'"),
        ({"hours": 1, "seed": -1}, "seed"),
        ({"hours": 1, "train_voices": 10_000}, "10000 speakers"),
        ({"hours": 1, "jobs": 0}, "jobs"),
    ],
)
def test_an_option_out_of_range_is_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generate_librispeech(tmp_path / "corpus", **options)
    assert list(tmp_path.iterdir()) == []


def within_the_process(arguments, capsys):
    """Run the command; gives what it printed of its progress."""
    main(arguments)
    return capsys.readouterr().err


def as_a_user(arguments, capsys):
    """Run the command in a process of its own; gives what it printed of its progress."""
    command = [sys.executable, "-m", "data_prep.spoken", *arguments]
    root = Path(data_prep.__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "run", [within_the_process, pytest.param(as_a_user, marks=pytest.mark.exhaustive)]
)
def test_the_command_line_speaks_russian_without_noise(run, tmp_path, capsys):
    folder = tmp_path / "corpus"
    options = "--language ru --hours 0.001 --dev_minutes 0 --test_minutes 0.05 --no-noise"
    assert "speaking train" in run([str(folder), *options.split()], capsys)
    assert read_record(folder)["options"]["language"] == "ru"
    assert all(row["noise"] == row["rt60"] == "" for row in read_table(folder / "utterances.csv"))
    assert any("а" in text.lower() for text in transcripts(folder, "train").values())


def test_the_command_line_ends_with_one_line_on_a_bad_option(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "corpus"), "--hours", "0"])
    assert "argument --hours: must be more than 0 and at most" in capsys.readouterr().err


def test_trimming_leaves_the_sound_and_fifty_milliseconds_around_it():
    waveform = np.zeros(16000)
    waveform[6400:9600] = np.sin(np.arange(3200))
    assert len(acoustics.trim_silence(waveform, 16000)) == 3200 + 2 * 800
    assert len(acoustics.trim_silence(np.zeros(16000), 16000)) == 0


@pytest.mark.parametrize("colour", acoustics.NOISE_COLOURS)
def test_noise_stands_at_the_signal_to_noise_ratio_of_the_scene(colour):
    speech = np.random.default_rng(0).standard_normal(32000)
    scene = acoustics.Scene(level_db=-30, snr_db=20, colour=colour)
    clean = acoustics.apply_scene(speech, 16000, acoustics.Scene(-30), np.random.default_rng(1))
    noisy = acoustics.apply_scene(speech, 16000, scene, np.random.default_rng(1))
    ratio = 20 * np.log10(acoustics.rms(clean) / acoustics.rms(noisy - clean))
    assert ratio == pytest.approx(20, abs=0.1)


def test_a_room_keeps_the_direct_sound_in_its_place_and_decays():
    click = np.zeros(16000)
    click[100] = 1
    heard = acoustics.reverberate(click, 16000, 0.3, 6.0, np.random.default_rng(0))
    assert heard[100] == pytest.approx(1)
    assert np.abs(heard[:100]).max() < 1e-9
    assert np.square(heard[101:]).sum() == pytest.approx(10**-0.6, rel=0.01)
    assert np.square(heard[100 + 2400 : 4900]).sum() < 0.05 * np.square(heard[101:2500]).sum()


def test_brown_noise_is_lower_than_white():
    def share_above_1_khz(slope):
        noise = acoustics.coloured_noise(16000, slope, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(noise)) ** 2
        return power[1000:].sum() / power.sum()

    white, pink, brown = (share_above_1_khz(slope) for slope in (0.0, 1.0, 2.0))
    assert white > 0.8
    assert 0.5 > pink > 0.1 > brown
