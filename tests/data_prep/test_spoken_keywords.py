"""Spoken words and the recording for spotters: layout, unseen voices, times, repeatability."""

import csv
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import soundfile

from data_prep.keywords.splits import SPLITS, which_set
from data_prep.speechcommands_prepare import prepare_speechcommands
from data_prep.spoken import generate_speechcommands, generate_stream
from data_prep.spoken.__main__ import main, parse_arguments
from data_prep.spoken.acoustics import rms
from data_prep.spoken.backgrounds import BACKGROUNDS, LEVEL_DB, SteadyNoise, make_background
from data_prep.spoken.keywords import KEYWORDS, SpokenWord, speak_word, speaker_name
from data_prep.spoken.synthesiser import Synthesiser
from data_prep.spoken.texts import split_of
from data_prep.spoken.voices import speaker_table

TINY = {
    "voices": 4,
    "valid_voices": 2,
    "test_voices": 2,
    "repeats": 2,
    "words": ["yes", "seven"],
    "noise_seconds": 2.0,
    "other_speech_minutes": 0.4,
    "seed": 3,
}
SHORT = {"minutes": 0.25, "keywords_per_minute": 16.0, "words": ["yes", "seven"], "seed": 3}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tiny corpus of words; tests must not alter it."""
    return generate_speechcommands(tmp_path_factory.mktemp("words") / "corpus", jobs=2, **TINY)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """A short recording with keywords; tests must not alter it."""
    return generate_stream(tmp_path_factory.mktemp("stream") / "stream", jobs=2, **SHORT)


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    """Content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_layout_is_that_of_speech_commands(words):
    folders = {path.name for path in words.iterdir() if path.is_dir()}
    assert folders == {"yes", "seven", "_background_noise_", "_other_speech_"}
    clips = sorted(words.glob("[a-z]*/*.wav"))
    assert len(clips) == 2 * 8 * 2
    for clip in clips:
        assert re.fullmatch(r"[0-9a-f]{8}_nohash_[01]\.wav", clip.name)
        info = soundfile.info(clip)
        assert (info.frames, info.samplerate, info.channels) == (16000, 16000, 1)
        assert info.subtype == "PCM_16"
    assert sorted(p.stem for p in (words / "_background_noise_").glob("*")) == sorted(BACKGROUNDS)


def test_lists_and_hash_rule_agree_and_hold_out_unseen_accents_and_variants(words, tmp_path):
    manifests = {}
    for split in ("lists", "official"):
        prepared = prepare_speechcommands(words, tmp_path / split, n_classes="all", split=split)
        manifests[split] = [prepared[name].read_bytes() for name in SPLITS]
        rows = [read_table(prepared[name]) for name in SPLITS]
    assert manifests["lists"] == manifests["official"]
    assert [len(one) for one in rows] == [16, 8, 8]
    voices = {row["speaker"]: row for row in read_table(words / "voices.csv")}
    for left, right in ((0, 1), (0, 2), (1, 2)):
        for part in ("speaker", "base", "variant"):
            kinds = [{voices[row["speaker"]][part] for row in rows[k]} for k in (left, right)]
            assert not kinds[0] & kinds[1], part
    assert len(voices) == 8


def test_other_speech_is_of_each_split_s_voices_and_sentences_and_holds_no_word(words, tmp_path):
    rows = read_table(words / "other_speech.csv")
    voices = {row["speaker"]: row["split"] for row in read_table(words / "voices.csv")}
    parts = {"train": "train", "valid": "dev", "test": "test"}
    for row in rows:
        assert which_set(row["path"]) == row["split"] == voices[row["speaker"]]
        sentences = row["text"].removesuffix(".").split(". ")
        assert {split_of(sentence) for sentence in sentences} == {parts[row["split"]]}
        assert not set(row["text"].lower().replace(".", "").split()) & set(KEYWORDS)
        info = soundfile.info(words / row["path"])
        assert (info.samplerate, info.channels) == (16000, 1) and info.duration > 1
        assert info.duration == pytest.approx(float(row["seconds"]), abs=1e-3)
    for split, share in (("train", 4), ("valid", 2), ("test", 2)):
        seconds = [float(row["seconds"]) for row in rows if row["split"] == split]
        # no recording more than it takes
        assert 0 <= sum(seconds) - 0.4 * 60 * share / 8 < seconds[-1]
    assert sorted(row["path"] for row in rows) == sorted(
        path.relative_to(words).as_posix() for path in words.glob("_other_speech_/*")
    )
    prepared = prepare_speechcommands(
        words, tmp_path, n_classes=["yes"], other_speech_percentage=50
    )
    kinds = [row["words"] for row in read_table(prepared["train"])]
    assert kinds.count("_other_speech_") == 4


def test_there_are_more_than_sixty_voices_by_default_and_35_words():
    _, options = parse_arguments(["out", "--layout", "speechcommands"])
    assert "voices" not in options  # so the function's own default holds
    default = generate_speechcommands.__defaults__[0]
    speakers = speaker_table("en", "train", default)
    assert len({speaker.voice.name for speaker in speakers}) >= 60
    assert len({speaker.voice.base for speaker in speakers}) >= 4
    assert len(KEYWORDS) == 35


def test_a_speaker_s_name_is_unique_and_in_the_split_of_the_voice():
    speakers = [one for split in ("train", "dev", "test") for one in speaker_table("en", split)]
    names = {speaker_name(one, seed=5): one for one in speakers}
    assert len(names) == len(speakers)
    splits = {"train": "train", "dev": "valid", "test": "test"}
    assert all(which_set(f"{name}_nohash_0") == splits[one.split] for name, one in names.items())


def test_the_two_times_that_a_voice_says_a_word_differ(words):
    rows = read_table(words / "clips.csv")
    by_voice = {}
    for row in rows:
        by_voice.setdefault((row["path"].split("_")[0], row["speaker"]), []).append(row)
    assert all(len(pair) == 2 for pair in by_voice.values())
    assert all(one["pcm_sha256"] != other["pcm_sha256"] for one, other in by_voice.values())
    assert all(one["start"] != other["start"] for one, other in by_voice.values())


def test_the_word_lies_whole_inside_its_clip(tmp_path):
    options = TINY | {"noise": False, "other_speech_minutes": 0}
    folder = generate_speechcommands(tmp_path / "clean", jobs=2, **options)
    assert not (folder / "_other_speech_").exists() and not (folder / "other_speech.csv").exists()
    assert "other_speech_minutes" not in read_json(folder / "corpus.json")["options"]
    for row in read_table(folder / "clips.csv"):
        samples, _ = soundfile.read(folder / row["path"])
        start = round(float(row["start"]) * 16000)
        stop = start + round(float(row["seconds"]) * 16000)
        # The table's times have four decimals, which is less than two samples.
        assert np.abs(samples[: start - 2]).max(initial=0) == 0
        assert np.abs(samples[stop + 2 :]).max(initial=0) == 0
        assert 0.2 < float(row["seconds"]) <= 1
        assert np.abs(samples[start:stop]).max() > 0.02


def test_a_word_that_does_not_fit_is_spoken_faster():
    speaker = speaker_table("en", "train", 1)[0]
    spoken = SpokenWord("backward", speaker, 0, (0,))
    with Synthesiser() as synthesiser:
        long, slow = speak_word(synthesiser, spoken, 1.0, np.random.default_rng(0))
        short, fast = speak_word(synthesiser, spoken, 0.45, np.random.default_rng(0))
    assert fast.rate > slow.rate
    assert len(short) <= 0.45 * 16000 < len(long)


@pytest.mark.parametrize(
    ("make", "options", "lists"),
    [
        (generate_speechcommands, TINY, ("clips.csv", "other_speech.csv")),
        (generate_stream, SHORT, ("events.json",)),
    ],
)
def test_workers_change_nothing_and_the_seed_everything(request, tmp_path, make, options, lists):
    whole = request.getfixturevalue("words" if make is generate_speechcommands else "stream")
    again = make(tmp_path / "again", jobs=1, **options)
    other = make(tmp_path / "other", jobs=1, **(options | {"seed": 4}))
    assert (again / "corpus.json").read_bytes() == (whole / "corpus.json").read_bytes()
    for name in lists:
        assert (again / name).read_bytes() == (whole / name).read_bytes()
        assert (other / name).read_bytes() != (whole / name).read_bytes()


@pytest.mark.parametrize(
    ("make", "options", "changed"),
    [
        (generate_speechcommands, TINY, {"repeats": 1}),
        (generate_stream, SHORT, {"minutes": 0.1}),
    ],
)
def test_the_same_command_again_does_nothing_and_another_is_refused(
    request, caplog, make, options, changed
):
    whole = request.getfixturevalue("words" if make is generate_speechcommands else "stream")
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with caplog.at_level("INFO"):
        make(whole, **options)
    assert "nothing to do" in caplog.text
    (name,) = changed
    with pytest.raises(ValueError, match=rf"made with other options \({name} was"):
        make(whole, **(options | changed))
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*")}


def test_events_and_sentences_fill_the_recording_in_order(stream):
    found = read_json(stream / "events.json")
    info = soundfile.info(stream / found["audio"])
    assert (info.samplerate, info.channels) == (found["sample_rate"], 1) == (16000, 1)
    assert info.frames / 16000 == pytest.approx(found["seconds"])
    assert found["speech_seconds"] >= 15
    assert sorted(one["label"] for one in found["events"]) == ["seven"] * 2 + ["yes"] * 2
    said = sorted(found["events"] + found["speech"], key=lambda one: one["start"])
    assert said[0]["start"] > 0 and said[-1]["end"] + 1 <= found["seconds"]
    for one, following in pairwise(said):
        assert one["start"] < one["end"] < following["start"]
    times = sum(one["end"] - one["start"] for one in found["speech"])
    assert times == pytest.approx(found["speech_seconds"], abs=1e-2)


def test_a_keyword_stands_where_the_events_say(tmp_path):
    options = SHORT | {"minutes": 0.05, "keywords_per_minute": 60}
    folder = generate_stream(tmp_path / "stream", noise=False, **options)
    found = read_json(folder / "events.json")
    samples, rate = soundfile.read(folder / "stream.wav")
    silent = np.ones(len(samples), dtype=bool)
    for one in found["events"] + found["speech"]:
        start, end = round(one["start"] * rate), round(one["end"] * rate)
        silent[start - 2 : end + 2] = False
        # At most 50 ms at either end are silent.
        for edge in (samples[start : start + 960], samples[end - 960 : end]):
            assert np.abs(edge).max() > 1e-3
    assert len(found["events"]) == 3
    assert np.abs(samples[silent]).max() == 0


def test_sentences_hold_no_keyword_and_all_is_said_by_test_voices(stream):
    found = read_json(stream / "events.json")
    assert not {word for one in found["speech"] for word in one["text"].lower().split()} & set(
        KEYWORDS
    )
    voices = {speaker_name(one, 3) for one in speaker_table("en", "test", seed=3)}
    assert {one["speaker"] for one in found["events"] + found["speech"]} <= voices


def test_a_validation_stream_shares_neither_voice_nor_sentence_with_that_of_the_test(
    stream, tmp_path
):
    folder = generate_stream(tmp_path / "stream", jobs=2, split="valid", **SHORT)
    own, other = (read_json(path / "events.json") for path in (folder, stream))
    for name in ("events", "speech"):
        assert own[name]
        assert not {one["speaker"] for one in own[name]} & {one["speaker"] for one in other[name]}
    assert not {one["text"] for one in own["speech"]} & {one["text"] for one in other["speech"]}
    assert {which_set(one["speaker"]) for one in own["speech"]} == {"valid"}
    with pytest.raises(ValueError, match="split must be test or valid"):
        generate_stream(tmp_path / "other", split="train", **SHORT)


def test_the_test_voices_of_words_and_stream_are_the_same(words, stream):
    heard = {row["speaker"] for row in read_table(words / "voices.csv") if row["split"] == "test"}
    assert heard <= {speaker_name(one, 3) for one in speaker_table("en", "test", seed=3)}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_background_is_level_unclipped_and_its_own(name):
    sound = make_background(name, 4.0, 16000, np.random.default_rng(0))
    assert len(sound) == 64000
    assert np.abs(sound).max() <= 0.951
    assert LEVEL_DB - 15 < 20 * np.log10(rms(sound)) < LEVEL_DB + 0.1
    assert not np.allclose(sound, make_background(name, 4.0, 16000, np.random.default_rng(1)))


def test_steady_noise_has_its_level_and_no_seams():
    whole = SteadyNoise(-40.0, np.random.default_rng(0)).next(50000)
    pieces = SteadyNoise(-40.0, np.random.default_rng(0))
    parts = np.concatenate([pieces.next(length) for length in (1, 999, 20000, 29000)])
    assert np.allclose(whole, parts)
    assert 20 * np.log10(rms(whole)) == pytest.approx(-40, abs=0.3)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (generate_speechcommands, {"repeats": 0}, "repeats"),
        (generate_speechcommands, {"voices": 0}, "0 speakers asked for the train split"),
        (generate_speechcommands, {"test_voices": 99}, "99 speakers asked for the test split"),
        (generate_speechcommands, {"noise_seconds": 0.5}, "noise_seconds"),
        (generate_speechcommands, {"other_speech_minutes": -1}, "other_speech_minutes must be"),
        (generate_speechcommands, {"words": ["yes", "yes"]}, "words must be different"),
        (generate_speechcommands, {"words": ["two words"]}, "not 'two words'"),
        (generate_stream, {"minutes": 0}, "minutes must be above 0"),
        (generate_stream, {"keywords_per_minute": 61}, "keywords_per_minute"),
        (generate_stream, {"seed": -1}, "seed"),
        (generate_stream, {"words": []}, "words must be"),
    ],
)
def test_an_option_out_of_range_is_named(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "corpus", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_makes_each_layout_and_refuses_another_s_options(tmp_path, capsys):
    command = "--layout speechcommands --voices 1 --valid_voices 1 --test_voices 1 --repeats 1"
    command += " --other_speech_minutes 0"
    main([str(tmp_path / "words"), *command.split(), "--words", "go", "--noise_seconds", "1"])
    assert len(list((tmp_path / "words" / "go").iterdir())) == 3
    main([str(tmp_path / "s"), "--layout", "stream", "--minutes", "0.05", "--no-noise"])
    assert read_json(tmp_path / "s" / "corpus.json")["options"]["noise"] is False
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x"), "--layout", "stream", "--hours", "1"])
    assert "--layout stream has no option --hours" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "x"), "--layout", "speechcommands", "--repeats", "0"])
    assert "argument --repeats: must be" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
