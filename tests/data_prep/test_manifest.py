"""One's own speech: what the lists may look like, and what each mistake in them is answered with."""

import csv
import json

import pytest

from data_prep import verify
from data_prep.manifest import prepare_manifest
from mamba_speech.text import TextPolicy


def read_table(path):
    """Rows of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def speech(tmp_path, write_tone):
    """A folder of recordings in several formats and rates."""
    folder = tmp_path / "speech"
    write_tone(folder / "clips" / "a.wav", 1.0, 8000)
    write_tone(folder / "clips" / "b.flac", 2.0, 44100, channels=2)
    write_tone(folder / "clips" / "c.ogg", 0.5, 48000)
    write_tone(folder / "clips" / "d.mp3", 1.0, 44100)
    return folder


def write_list(path, text, encoding="utf-8"):
    """Write a list of recordings."""
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_of_any_format_rate_and_language_becomes_a_manifest(speech, tmp_path, encoding):
    text = (
        "path,text,speaker,id\n"
        'clips/a.wav, "  Привет,  мир ",anna,x1\n'
        f"{speech}/clips/b.flac,γειά σου,,x2\n"
        "\n"
        "clips/c.ogg,你好,li,x3\n"
        "clips/d.mp3,Hej,bo,x4\n"
    )
    listed = write_list(speech / "all.csv", text, encoding)
    rows = read_table(prepare_manifest(listed, tmp_path / "save", "train"))
    assert [row["ID"] for row in rows] == ["x1", "x2", "x3", "x4"]
    assert [row["wrd"] for row in rows] == ["Привет, мир", "γειά σου", "你好", "Hej"]
    assert [row["spk_id"] for row in rows] == ["anna", "unknown", "li", "bo"]
    assert [float(row["duration"]) for row in rows] == pytest.approx([1, 2, 0.5, 1], abs=0.06)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "ID,duration,wav,spk_id,wrd\nu1,9.0,clips/a.wav,s1,HELLO\n"),
        ("a.csv", "Transcript, Audio_FilePath ,id,speaker\nHELLO,clips/a.wav,u1,s1\n"),
        ("a.tsv", "path\ttext\tspeaker\tid\nclips/a.wav\tHELLO\ts1\tu1\n"),
        ("a.jsonl", '{"path": "clips/a.wav", "text": "HELLO", "speaker": "s1", "id": "u1"}\n'),
        (
            "a.json",
            json.dumps(
                {
                    "audio_filepath": "clips/a.wav",
                    "duration": 1.02,
                    "offset": 0,
                    "text": "HELLO",
                    "speaker": "s1",
                    "id": "u1",
                }
            ),
        ),
    ],
)
def test_the_usual_column_names_and_formats_give_the_same(speech, tmp_path, name, text):
    rows = read_table(prepare_manifest(write_list(speech / name, text), tmp_path, "one"))
    audio = str(speech / "clips" / "a.wav")
    whole = {"ID": "u1", "duration": "1.0", "wav": audio, "start": "", "stop": ""}
    assert rows == [whole | {"spk_id": "s1", "wrd": "HELLO"}]


def test_ids_made_from_paths_are_unique(speech, tmp_path):
    lines = ["clips/a.wav", "clips/a.wav", "./clips/a.wav", f"{speech}/clips/a.wav"]
    text = "path,text\n" + "".join(f"{line},hello\n" for line in lines)
    rows = read_table(prepare_manifest(write_list(speech / "l.csv", text), tmp_path, "one"))
    ids = [row["ID"] for row in rows]
    assert ids[:3] == ["clips-a", "clips-a-2", "clips-a-3"]
    assert len(set(ids)) == 4


def test_bad_utterances_are_listed_with_their_reason(speech, tmp_path, caplog):
    (speech / "bad.wav").write_bytes(b"RIFF")
    rows = [
        ("clips/a.wav", "fine", "1"),
        ("clips/b.flac", "twice", "1"),
        ("bad.wav", "text", "2"),
        ("absent.wav", "text", "3"),
        ("clips/c.ogg", " ", "4"),
        ("clips/c.ogg", "it costs $5", "5"),
    ]
    text = "path,text,id\n" + "".join(f"{','.join(row)}\n" for row in rows)
    listed = write_list(speech / "l.csv", text)
    target = prepare_manifest(listed, tmp_path, "one", max_skipped=1)
    assert [row["ID"] for row in read_table(target)] == ["1", "5"]
    skipped = [(row["id"], row["reason"]) for row in read_table(tmp_path / "skipped_one.csv")]
    assert skipped == [
        ("1", "duplicate id"),
        ("2", "unreadable audio"),
        ("3", "audio file not found"),
        ("4", "empty transcript"),
    ]
    assert "4 of 6 utterances of l.csv are left out" in caplog.text


def test_a_training_reads_quotes_commas_and_dollars_of_every_cell_as_they_stand(speech, tmp_path):
    manifests = pytest.importorskip("training.manifests")
    (speech / "$HOME").mkdir()
    (speech / "$HOME/$1.wav").write_bytes((speech / "clips/a.wav").read_bytes())
    text = 'he said "no", for $5, $5.50, $x, ${y} or 5 $'
    row = {"path": "$HOME/$1.wav", "text": text, "id": "$id.1", "speaker": "$me"}
    target = prepare_manifest(write_list(speech / "l.jsonl", json.dumps(row)), tmp_path, "one")
    loaded = manifests.open_manifest(target, ["wav", "spk_id", "wrd"])
    loaded.set_output_keys(["id", "wav", "spk_id", "wrd"])
    path = str(speech / "$HOME/$1.wav")
    assert loaded[0] == {"id": "$id.1", "wav": path, "spk_id": "$me", "wrd": text}


def test_a_second_run_changes_nothing_until_the_list_does(speech, tmp_path):
    listed = write_list(speech / "l.csv", "path,text\nclips/a.wav,one\n")
    target = prepare_manifest(listed, tmp_path, "one")
    before = target.stat().st_mtime_ns
    prepare_manifest(listed, tmp_path, "one")
    assert target.stat().st_mtime_ns == before
    write_list(listed, "path,text\nclips/a.wav,two\n")
    prepare_manifest(listed, tmp_path, "one")
    assert read_table(target)[0]["wrd"] == "two"


def test_an_utterance_put_right_is_taken_up_by_the_next_run(speech, tmp_path, write_tone):
    listed = write_list(speech / "l.csv", "path,text\nclips/a.wav,one\nlate.wav,two\n")
    assert len(read_table(prepare_manifest(listed, tmp_path, "one", max_skipped=0.5))) == 1
    write_tone(speech / "late.wav")
    assert len(read_table(prepare_manifest(listed, tmp_path, "one"))) == 2
    assert not (tmp_path / "skipped_one.csv").exists()


def test_skip_prep_looks_at_nothing(tmp_path):
    target = prepare_manifest(tmp_path / "absent.csv", tmp_path / "save", "train", skip_prep=True)
    assert target == tmp_path / "save" / "train.csv"
    assert not target.parent.exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,phones\na,b\n", "l.csv, line 1: no column text among file, phones"),
        ("l.csv", "speaker\nx\n", "no column path and no column text among speaker"),
        ("l.csv", "", "among none"),
        ("l.csv", "path,text\n", "no usable utterance: it lists none"),
        (
            "l.csv",
            "path,text\nclips/a.wav,yes, indeed\n",
            r"\(line 2: 3 cells under 2 columns.*\); see .*skipped_one.csv",
        ),
        (
            "l.csv",
            "path,text\nabsent.wav,yes\n",
            r"no usable utterance \(/.*\.wav: audio file not found\); see .*skipped_one.csv",
        ),
        ("l.jsonl", "{broken\n", "line 1: not a JSON object"),
        ("l.jsonl", '["clips/a.wav", "x"]\n', "line 1: not a JSON object"),
        ("l.jsonl", '{"path": "clips/a.wav"}\n', "line 1: no key text among path"),
        (
            "l.jsonl",
            '{"path": "clips/a.wav", "text": "x", "offset": 2.5}',
            "a segment from 2.5 s to 1 s of",
        ),
        ("l.xlsx", "path,text\n", "must end in one of .csv, .tsv"),
    ],
)
def test_each_mistake_in_a_list_is_one_clear_error(speech, tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        prepare_manifest(write_list(speech / name, text), tmp_path, "one")
    assert not (tmp_path / "one.csv").exists()


def test_a_list_whose_encoding_cannot_be_told_is_refused(speech, tmp_path):
    listed = write_list(speech / "l.csv", "path,text\nclips/a.wav,Привет\n", "cp1251")
    with pytest.raises(ValueError, match="l.csv, line 2, byte 13 .*: is not UTF-8"):
        prepare_manifest(listed, tmp_path, "one")


def prepare_clips(speech, tmp_path, rows, header="path,text,id", **options):
    """The manifest of a CSV list, by id."""
    listed = write_list(speech / "l.csv", "\n".join([header, *rows]) + "\n")
    found = read_table(prepare_manifest(listed, tmp_path, "one", **options))
    return {row["ID"]: row for row in found}


def test_bad_rows_cost_themselves_alone_and_are_listed_with_their_line(speech, tmp_path, caplog):
    rows = [f"clips/a.wav,text {number},u{number}" for number in range(100)]
    rows[10] = "clips/a.wav,one,cell,too many"
    rows[20] = "clips/a.wav"
    rows[30] = 'clips/a.wav,"not closed,u30'
    rows[40] = "clips/a.wav," + "x" * 140_000 + ",u40"
    rows[50] = ".,a folder,u50"
    found = prepare_clips(speech, tmp_path, rows)
    assert len(found) == 95 and found["u31"]["wrd"] == "text 31"
    skipped = {row["reason"].partition(":")[0] for row in read_table(tmp_path / "skipped_one.csv")}
    assert skipped == {"line 12", "line 22", "line 32", "line 42", "line 52"}
    assert "5 of 100 utterances of l.csv are left out" in caplog.text


def test_preparation_stops_past_the_share_that_may_be_skipped(speech, tmp_path):
    rows = [f"clips/a.wav,text,u{number}" for number in range(20)]
    rows[7] = rows[8] = "clips/a.wav"
    with pytest.raises(ValueError, match=r"l.csv: 2 of 20 .* --max_skipped 0.05 .*line 9: 1 cell"):
        prepare_clips(speech, tmp_path, rows)
    assert len(read_table(tmp_path / "skipped_one.csv")) == 2
    assert not (tmp_path / "one.csv").exists()
    assert len(prepare_clips(speech, tmp_path, rows, max_skipped=0.1)) == 18
    # a smaller share is asked for later
    with pytest.raises(ValueError, match="more than --max_skipped 0.09"):
        prepare_clips(speech, tmp_path, rows, max_skipped=0.09)
    with pytest.raises(ValueError, match="max_skipped must be from 0 to 1; got 5"):
        prepare_clips(speech, tmp_path, rows, max_skipped=5)


def test_segments_are_rows_with_the_first_sample_and_the_end(speech, tmp_path):
    rows = [
        "clips/a.wav,half,h,0.25,0.75",
        "clips/a.wav,rest,r,0.25,",
        "clips/b.flac,from the start,s,,1.5",
        "clips/a.wav,whole,w,0,0.98",
        "clips/a.wav,rounded up,o,0.5,1.1",
        "clips/a.wav,outside,x,1.2,1.4",
        "clips/a.wav,too long,y,0,9",
        "clips/a.wav,wrong way,z,0.5,0.5",
        "clips/a.wav,no number,n,half,1",
    ]
    header = "path,text,id,start,end"
    found = prepare_clips(speech, tmp_path, rows, header, max_skipped=0.5)
    spans = {key: (row["start"], row["stop"], float(row["duration"])) for key, row in found.items()}
    assert spans == {
        "h": ("2000", "6000", 0.5),
        "r": ("2000", "8000", 0.75),
        "s": ("0", "66150", 1.5),
        "w": ("", "", 1.0),
        "o": ("4000", "8000", 0.5),
    }
    reasons = [row["reason"] for row in read_table(tmp_path / "skipped_one.csv")]
    assert reasons == [
        "line 7: a segment from 1.2 s to 1.4 s of a file of 1 s",
        "line 8: a segment from 0 s to 9 s of a file of 1 s",
        "line 9: stop 0.5 is not after start 0.5",
        "line 10: start 'half' is no number of seconds",
    ]


def test_an_offset_of_zero_with_a_short_duration_is_a_segment(speech, tmp_path):
    line = {"audio_filepath": "clips/b.flac", "offset": 0, "duration": 0.5, "text": "half"}
    listed = write_list(speech / "l.jsonl", json.dumps(line))
    (row,) = read_table(prepare_manifest(listed, tmp_path, "one"))
    assert (row["start"], row["stop"], row["duration"]) == ("0", "22050", "0.5")


def test_a_manifest_of_the_project_is_a_list_that_gives_the_same_manifest(speech, tmp_path):
    rows = ["clips/a.wav,half,h,0.25,0.75", "clips/b.flac,whole,w,,"]
    first = prepare_clips(speech, tmp_path, rows, "path,text,id,start,end")
    again = prepare_manifest(tmp_path / "one.csv", tmp_path, "two")
    assert {row["ID"]: row for row in read_table(again)} == first


def test_a_file_of_many_segments_is_decoded_once(speech, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        verify, "inspect", lambda path, _=None, **__: read.append(path) or (8000, 8000, None)
    )
    rows = [f"clips/a.wav,text,u{n},{n / 1000},{n / 1000 + 0.1}" for n in range(500)]
    found = prepare_clips(speech, tmp_path, rows, "path,text,id,start,end")
    assert len(found) == 500 and len(read) == 1


def test_a_second_run_over_a_list_with_bad_rows_changes_nothing(speech, tmp_path):
    rows = ["clips/a.wav,one,u1", "clips/a.wav", "clips/a.wav,two,u2,3,4"]
    prepare_clips(speech, tmp_path, rows, max_skipped=0.7)
    before = (tmp_path / "one.csv").stat().st_mtime_ns
    prepare_clips(speech, tmp_path, rows, max_skipped=0.7)
    assert (tmp_path / "one.csv").stat().st_mtime_ns == before


def test_a_missing_list_and_a_name_with_a_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv does not exist"):
        prepare_manifest(tmp_path / "absent.csv", tmp_path, "one")
    with pytest.raises(ValueError, match="plain file name"):
        prepare_manifest(tmp_path / "absent.csv", tmp_path, "../one")


def test_spellings_of_one_text_become_one_and_the_changes_are_counted(speech, tmp_path):
    rows = [
        ("clips/a.wav", "caf\u00e9 it's"),
        ("clips/b.flac", "cafe\u0301\u00a0it\u2019s\u200b"),
        ("clips/c.ogg", "\ufeff\u200b"),
    ]
    text = "path,text\n" + "".join(f"{','.join(row)}\n" for row in rows)
    target = prepare_manifest(write_list(speech / "l.csv", text), tmp_path, "one", max_skipped=0.5)
    assert [row["wrd"] for row in read_table(target)] == 2 * ["caf\u00e9 it's"]
    (skipped,) = read_table(tmp_path / "skipped_one.csv")
    assert (skipped["id"], skipped["reason"]) == ("clips-c", "empty transcript")
    changes = read_table(tmp_path / "text_changes_one.csv")
    assert {row["change"]: row["texts"] for row in changes} == dict.fromkeys(
        ("composed", "invisible", "apostrophes", "spaces"), "1"
    )
    policy = TextPolicy(case="upper")
    prepare_manifest(speech / "l.csv", tmp_path, "one", policy=policy, max_skipped=0.5)
    assert [row["wrd"] for row in read_table(target)] == 2 * ["CAF\u00c9 IT'S"]
