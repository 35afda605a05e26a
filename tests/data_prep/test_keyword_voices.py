"""Recordings of one's own words: voices, splits by lists, by a table or by a draw, and folders that cannot train."""

import csv
from pathlib import Path

import pytest
import soundfile

from data_prep.keywords.clips import SILENCE, UNKNOWN
from data_prep.keywords.splits import SPLITS
from data_prep.keywords.voices import draw_voices, voice_of, with_voices
from data_prep.speechcommands_prepare import prepare_speechcommands
from data_prep.verify import Candidate
from tests.support.keyword_manifests import read_labels, read_rows

VOICES = ["anna", "ben", "carl", "dora", "emil", "fay", "gus", "hana", "ian", "june"]


def clips(**counts):
    """Clips of two words by voices: `anna=(3, 1)` says the first word three times and the second once."""
    return [
        Candidate(f"{word}_{voice}_{number}", Path(f"{word}/{voice}_{number}.wav"), voice, word)
        for voice, of_words in counts.items()
        for word, count in zip(("alexa", "jarvis"), of_words, strict=True)
        for number in range(count)
    ]


@pytest.fixture
def mine(tmp_path, write_tone):
    """A folder of two words by ten voices, two FLAC recordings each."""
    for word in ("alexa", "jarvis"):
        for voice in VOICES:
            for number in range(2):
                write_tone(tmp_path / "mine" / word / f"{voice}_{number}.flac")
    return tmp_path / "mine"


@pytest.fixture
def prepare(mine, tmp_path):
    """A function that prepares them."""

    def run(**options):
        options = {"n_classes": "all", "split": "auto", "seed": 1} | options
        return prepare_speechcommands(mine, tmp_path / "save", **options)

    return run


def write_table(folder, parts, voice="voice"):
    """A table that puts voices into parts."""
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "word", voice, "part", "seconds"])
        writer.writeheader()
        for path in sorted(folder.rglob("*.flac")):
            name = voice_of(path)
            row = {
                "path": path.relative_to(folder),
                "word": path.parent.name,
                voice: f"speaker {name}",
            }
            writer.writerow(row | {"part": parts.get(name, "training"), "seconds": 1})


def speakers(rows, split):
    return {row["speaker"] for row in rows[split]}


def test_no_voice_is_in_two_splits_and_every_word_in_each(prepare):
    rows = read_rows(prepare())
    held = [speakers(rows, split) for split in SPLITS]
    assert set.union(*held) == set(VOICES) and sum(map(len, held)) == len(VOICES)
    for split in SPLITS:
        assert {row["label"] for row in rows[split]} == {"alexa", "jarvis"}


def test_the_seed_draws_the_voices(prepare):
    one, again, *others = (read_rows(prepare(seed=seed)) for seed in (1, 1, 2, 3, 4))
    assert one == again
    assert any(speakers(one, "test") != speakers(other, "test") for other in others)


def test_drawn_voices_are_even_over_the_words_although_voices_say_different_numbers():
    many = {f"v{number:02d}": (number % 5, 4 - number % 5) for number in range(60)}
    splits = draw_voices(clips(**many), seed=3)
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        for word in ("alexa", "jarvis"):
            assert sum(one.text == word for one in splits[split]) == pytest.approx(
                120 * share, abs=4
            )


def test_a_word_of_one_voice_trains_whatever_the_seed():
    for seed in range(20):
        splits = draw_voices(clips(anna=(9, 0), ben=(0, 5), carl=(0, 5), dora=(0, 5)), seed)
        assert "alexa" in {clip.text for clip in splits["train"]}


@pytest.mark.parametrize("voices", [1, 2])
def test_recordings_of_one_or_two_voices_are_drawn_with_a_warning(voices, caplog):
    counts = dict.fromkeys(VOICES[:voices], (10, 10))
    splits = draw_voices(clips(**counts), seed=1)
    assert {split: len(own) for split, own in splits.items()} == {
        "train": 16 * voices,
        "valid": 2 * voices,
        "test": 2 * voices,
    }
    assert "the test tells nothing of other voices" in caplog.text


def test_a_word_with_one_clip_trains_with_a_warning(caplog):
    splits = draw_voices(clips(anna=(1, 20)), seed=1)
    assert "alexa: a single recording, which trains" in caplog.text
    assert [split for split, own in splits.items() if "alexa" in {one.text for one in own}] == [
        "train"
    ]


def test_names_without_a_voice_are_counted(caplog):
    paths = [Path(f"alexa/{name}.wav") for name in ("1", "2", "anna_1")]
    found = with_voices([Candidate(path.stem, path, "", "alexa") for path in paths])
    assert [one.speaker for one in found] == ["1", "2", "anna"]
    assert "2 of 3 recordings have no _ in their names (1.wav first)" in caplog.text


def test_a_table_gives_the_splits_and_the_voices(prepare, mine, caplog):
    write_table(mine, {"anna": "testing", "ben": "testing", "carl": "validation"})
    (mine / "alexa" / "dora_1.flac").rename(mine / "alexa" / "nobody_1.flac")
    rows = read_rows(prepare())
    assert speakers(rows, "test") == {"speaker anna", "speaker ben"}
    assert speakers(rows, "valid") == {"speaker carl"}
    assert "1 clips are not on" in caplog.text and "alexa/nobody_1.flac first" in caplog.text
    assert "1 of 28 clips" in caplog.text


def test_a_table_of_another_kind_is_no_list_and_said(prepare, mine, caplog):
    write_table(mine, {"anna": "testing"})
    text = (mine / "clips.csv").read_text().replace("part", "split")
    (mine / "clips.csv").write_text(text)
    assert speakers(read_rows(prepare()), "train") <= set(VOICES)
    assert caplog.text.count("clips.csv is not used, since it lacks the column path or part") == 1


def test_a_table_that_is_no_csv_gets_one_sentence(prepare, mine):
    # a quotation that never ends is one field, longer than CSV allows
    (mine / "clips.csv").write_text('path,part\n"' + 140_000 * "a", encoding="utf-8")
    with pytest.raises(ValueError, match=r"clips\.csv: no CSV \(field larger than"):
        prepare()


def test_lists_count_before_a_draw(prepare, mine):
    for name, voice in (("validation", "anna"), ("testing", "ben")):
        lines = [
            f"{word}/{voice}_{number}.flac\n" for word in ("alexa", "jarvis") for number in range(2)
        ]
        (mine / f"{name}_list.txt").write_text("".join(lines))
    rows = read_rows(prepare())
    assert speakers(rows, "valid") == {"anna"} and speakers(rows, "test") == {"ben"}


def test_voices_of_two_splits_are_counted(prepare, mine, caplog):
    write_table(mine, {"anna": "testing", "ben": "validation"})
    table = (mine / "clips.csv").read_text()
    first = next(line for line in table.splitlines() if "anna_0" in line)
    (mine / "clips.csv").write_text(table.replace(first, first.replace("testing", "training")))
    prepare()
    assert "1 speakers of test are in another split too" in caplog.text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("alexa/anna_0.flac,alexa,anna,practice,1", "line 22: part 'practice' is none of"),
        (
            "alexa/anna_0.flac,alexa,anna,training,1",
            "line 22: alexa/anna_0.flac stands there twice",
        ),
    ],
)
def test_a_wrong_table_gets_one_sentence(line, message, prepare, mine):
    for path in mine.glob("jarvis/*_1.flac"):
        path.unlink()
    for path in mine.glob("alexa/*_1.flac"):
        path.unlink()
    write_table(mine, {})
    with open(mine / "clips.csv", "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        prepare()


def test_folders_that_differ_by_case_are_refused(prepare, mine, write_tone):
    write_tone(mine / "Alexa" / "anna_0.wav")
    if len(list(mine.iterdir())) == 2:
        pytest.skip("names of either case are one folder on this disk")
    with pytest.raises(ValueError, match="Alexa and alexa differ by case alone"):
        prepare()


def test_a_folder_without_audio_is_no_word_and_said(prepare, mine, caplog):
    (mine / "notes").mkdir()
    (mine / "notes" / "list.txt").write_text("alexa")
    assert read_labels(prepare()) == ["alexa", "jarvis"]
    assert "1 folders hold no audio and are no words: notes" in caplog.text


def test_a_single_word_needs_something_to_be_told_from(prepare, mine):
    for path in (mine / "jarvis").iterdir():
        path.unlink()
    (mine / "jarvis").rmdir()
    with pytest.raises(ValueError, match="alexa would be the only class"):
        prepare()


def test_too_few_recordings_get_one_sentence():
    with pytest.raises(ValueError, match="2 recordings cannot be split.*record ten or more"):
        draw_voices(clips(anna=(1, 1)), seed=1)


def test_noise_is_computed_and_other_speech_spoken_where_a_folder_has_none(
    prepare, mine, monkeypatch
):
    few = {"train": 0.3, "dev": 0.2, "test": 0.2}
    monkeypatch.setattr("data_prep.keywords.spoken_speech.MINUTES", few)
    monkeypatch.setattr("data_prep.keywords.backgrounds.SECONDS", 12.0)
    options = {"other_speech": "auto", "other_speech_percentage": 10, "background": "computed"}
    prepared = prepare(**options)
    assert read_labels(prepared) == ["alexa", "jarvis", UNKNOWN, SILENCE]
    rows = read_rows(prepared)
    for split in SPLITS:
        assert {row["label"] for row in rows[split]} == {"alexa", "jarvis", UNKNOWN, SILENCE}
    assert any("digital_silence" == path.stem for path in prepared["noise"])
    voices = {split: speakers(rows, split) - set(VOICES) for split in SPLITS}
    spoken = {
        split: {row["speaker"] for row in rows[split] if row["label"] == UNKNOWN}
        for split in SPLITS
    }
    assert all(voices.values()) and not spoken["train"] & spoken["test"]
    times = [path.stat().st_mtime_ns for path in prepared["noise"]]
    assert [path.stat().st_mtime_ns for path in prepare(**options)["noise"]] == times


def test_a_background_that_holds_a_keyword_is_left_out(prepare, mine, tmp_path, write_tone, caplog):
    noise = tmp_path / "noise"
    for name in ("fan.wav", "Alexa-2.wav", "jarvis/one.wav", "kitchen/two.flac"):
        write_tone(noise / name, 3.0)
    options = {"other_speech": "auto", "other_speech_percentage": 0, "background": noise}
    found = {path.name for path in prepare(**options)["noise"]}
    assert found == {"fan.wav", "two.flac"}
    assert "2 of 4 background recordings have a keyword in their names" in caplog.text
    for path in noise.rglob("*.*"):
        if "fan" in path.name or "two" in path.name:
            path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no recording without a keyword in its name"):
        prepare(**options)


def test_other_speech_that_holds_a_keyword_is_left_out(prepare, mine, tmp_path, write_tone, caplog):
    speech = tmp_path / "speech"
    for number in range(12):
        write_tone(speech / f"{number:08x}_nohash_0.wav", 4.0)
    texts = {0: "Alexa, play music", 1: "he said JARVIS twice", 2: "Alexander", 3: "ja rvis"}
    for number, text in texts.items():
        (speech / f"{number:08x}_nohash_0.txt").write_text(text)
    write_tone(speech / "about alexa.wav", 4.0)
    mine.joinpath("_background_noise_").mkdir()
    soundfile.write(mine / "_background_noise_" / "hum.wav", [0.1] * 320000, 16000)
    prepare(other_speech=speech, other_speech_percentage=100)
    assert "3 of 13 recordings of other speech hold a keyword, by transcript or name" in caplog.text


def test_a_system_that_cannot_speak_gets_one_sentence(prepare, monkeypatch):
    monkeypatch.delattr("os.fork")
    with pytest.raises(ValueError, match="needs a system with fork.*as other_speech"):
        prepare(other_speech="auto", other_speech_percentage=10, silence_percentage=0)


def test_words_are_spoken_for_the_training_alone(prepare, mine):
    (mine / "jarvis").rename(mine / "smart_mirror")
    without = read_rows(prepare())
    prepared = prepare(spoken_voices=3)
    rows = read_rows(prepared)
    assert rows["valid"] == without["valid"] and rows["test"] == without["test"]
    spoken = [row for row in rows["train"] if row not in without["train"]]
    assert [row["label"] for row in spoken] == 3 * ["alexa"] + 3 * ["smart_mirror"]
    assert len({row["speaker"] for row in spoken}) == 3
    for row in spoken:
        samples, rate = soundfile.read(row["wav"])
        assert rate == 16000 and len(samples) == int(row["stop"]) > 0.8 * rate
        assert abs(samples).max() > 0.02
    prepare(spoken_voices=3, seed=2)
    prepare(spoken_voices=3)
    assert read_rows(prepared)["train"] == rows["train"]
