"""Users' lists: every format and encoding gives the same rows, and a bad row costs itself alone."""

import gzip
import json

import pytest

from mamba_speech.lists import ListError, is_list, read_list


@pytest.fixture
def folder(tmp_path):
    """A folder of files that lists name; nothing reads them."""
    for name in ("a.wav", "clips/b.mp3", "wavs/LJ001.wav", "clips/café.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def write(folder, name, content, encoding="utf-8"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def rows(folder, name, content, encoding="utf-8", **options):
    return list(read_list(write(folder, name, content, encoding), **options))


def said(found):
    return [(one.path and one.path.name, one.text, one.speaker, one.id) for one in found]


def faults(found):
    return [(one.place, one.fault) for one in found if one.fault]


GOOD = [("a.wav", "good morning", "anna", "u1")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["l.csv", "l.tsv", "l.txt"])
def test_delimiters_encodings_and_line_ends_give_the_same(folder, name, delimiter, encoding, end):
    table = [["Path", "TEXT ", "client_id", "id", ""], ["a.wav", "good morning", "anna", "u1", ""]]
    lines = [delimiter.join(cells) for cells in table]
    text = end.join([lines[0], "", lines[1], " ", ""])
    assert said(rows(folder, name, text, encoding)) == GOOD


@pytest.mark.parametrize("order", ["<", ">"])
def test_utf_16_of_either_order_is_read_by_its_mark(folder, order):
    codec = {"<": "utf-16-le", ">": "utf-16-be"}[order]
    found = rows(folder, "l.csv", "\ufeffpath;text\r\na.wav;Привет, мир\r\n", codec)
    assert found[0].text == "Привет, мир"


def test_common_voice_keeps_quotation_marks_that_enclose_no_cell(folder):
    text = (
        "client_id\tpath\tsentence\tup_votes\n"
        'x\tb.mp3\t"Hello, he said.\t2\n'
        'x\tb.mp3\t"All of it ""now"""\t2\n'
        'x\tb.mp3\t"Yes" and "no"\t2\n'
        'x\tb.mp3\t"a\tb"\t2\n'
        "x\tb.mp3\tlast\t2\n"
    )
    found = rows(folder, "validated.tsv", text)
    texts = ['"Hello, he said.', 'All of it "now"', '"Yes" and "no"', "a\tb", "last"]
    assert [one.text for one in found] == texts
    assert {one.path for one in found} == {folder / "clips" / "b.mp3"}
    assert found[0].speaker == "x"


def test_ljspeech_has_ids_texts_and_no_names(folder):
    text = 'LJ001|He said "12.|He said "twelve.\nLJ002|Two|Two\nLJ003|Three\n'
    found = rows(folder, "metadata.csv", text)
    assert found[0].path == folder / "wavs" / "LJ001.wav"
    assert found[0].text == 'He said "twelve.' and found[1].path == folder / "LJ002"
    assert faults(found) == [("line 3", "2 cells under 3 columns")]


def test_a_text_file_may_name_a_recording_a_line(folder):
    found = rows(folder, "files.txt", "a.wav\nclips/b.mp3\nwith, comma.wav\n")
    assert [one.name for one in found] == ["a.wav", "clips/b.mp3", "with, comma.wav"]
    assert not faults(found)


def test_excels_hint_and_comments_may_precede_the_names(folder):
    text = "# spoken in May\nsep=;\npath;text;start;stop\na.wav;eins;0,5;1,25\n"
    (row,) = rows(folder, "l.csv", text)
    assert (row.text, row.start, row.stop) == ("eins", 0.5, 1.25)


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Grüße aus Köln", "latin-1"),
        ("élève à l’œuvre, ça été", "cp1252"),
        ("El niño comió jamón aquí", "latin-1"),
        ("blåbærgrød på øen", "cp1252"),
        ("coração de mãe", "latin-1"),
    ],
)
def test_western_lists_are_read_where_no_other_code_page_makes_a_text_of_them(folder, text, codec):
    (row,) = rows(folder, "l.csv", f"path;text\r\na.wav;{text}\r\n", codec)
    assert row.text == text


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("příliš žluťoučký kůň", "cp1250"),
        ("zażółć gęślą jaźń", "iso-8859-2"),
        ("Привет мир", "cp1251"),
        ("Привет мир", "koi8-r"),
        ("Ты и я", "cp1251"),
        ("El ni\u00f1o comi\u00f3", "latin-1"),
        ("καλημέρα", "cp1253"),
        ("iyi günler, ağaç, şişe", "cp1254"),
        ("Grüße aus Köln", "cp850"),
        ("Grüße aus Köln", "mac_roman"),
        ("こんにちは", "shift_jis"),
        ("你好世界", "gb18030"),
    ],
)
def test_other_encodings_are_refused_by_line_and_byte(folder, text, codec):
    with pytest.raises(ListError, match=r"l.csv, line 2, byte \d+ of the line \(0x[0-9A-F]{2}\)"):
        rows(folder, "l.csv", f"path,text\na.wav,{text}\n", codec)


def test_utf_8_beside_latin_1_is_refused(folder):
    content = "path,text\na.wav,Grüße\n".encode() + "a.wav,Grüße\n".encode("latin-1")
    with pytest.raises(ListError, match="line 3, byte 9"):
        rows(folder, "l.csv", content)


def test_utf_16_without_a_mark_is_refused(folder):
    with pytest.raises(ListError, match="UTF-16 without a byte order mark"):
        rows(folder, "l.csv", "path,text\na.wav,x\n", "utf-16-le")


def test_half_a_utf_16_list_is_refused(folder):
    with pytest.raises(ListError, match="begins as UTF-16"):
        rows(folder, "l.csv", "path,text\na.wav,x\n".encode("utf-16")[:-1])


LONG = "x" * 131_073


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a.wav", "1 cell under 2 columns"),
        ("a.wav,b,c", "3 cells under 2 columns; put texts with the delimiter in quotation marks"),
        ('a.wav,"open', "a quotation mark is not closed on its line"),
        ('"open,b', "a quotation mark is not closed on its line"),
        ('a.wav,"x" y', "text follows a closing quotation mark"),
        (f"a.wav,{LONG}", "a cell has more than 131,072 characters"),
        (",text", "the path is empty"),
        (".,text", "the path . is a folder"),
        ("./,text", "the path ./ is a folder"),
        ("a.wav,x\0y", "text holds a zero byte"),
    ],
)
def test_a_bad_row_of_a_table_costs_itself_alone(folder, line, fault):
    text = f"path,text\na.wav,before\n{line}\na.wav,after\n"
    found = rows(folder, "l.csv", text)
    assert faults(found) == [("line 3", fault)]
    assert [one.text for one in found if not one.fault] == ["before", "after"]


def test_fields_of_a_tsv_have_the_same_limit(folder):
    found = rows(folder, "l.tsv", f"path\ttext\na.wav\t{LONG}\na.wav\tx\n")
    assert faults(found) == [("line 2", "text has more than 131,072 characters")]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"path": ["a.wav"], "text": "x"}, "path is no text, but holds further JSON"),
        ({"path": "a.wav", "text": {"en": "x"}}, "text is no text, but holds further JSON"),
        ({"path": None, "text": "x"}, "the path is empty"),
        ({"words": "x"}, "no key path among words"),
        ({"path": "a.wav", "offset": "soon"}, "start 'soon' is no number of seconds"),
        ({"path": "a.wav", "offset": True}, "start 'True' is no number of seconds"),
        ({"path": "a.wav", "offset": float("nan")}, "start 'nan' is no number of seconds"),
        ({"path": "a.wav", "offset": -1}, "start -1 is negative"),
        ({"path": "a.wav", "duration": 0}, "the duration 0 is not above 0"),
        ({"path": "a.wav", "start": 2, "end": 1}, "stop 1 is not after start 2"),
        (["a.wav"], "not a JSON object"),
    ],
)
@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_bad_entry_of_json_costs_itself_alone(folder, form, entry, fault):
    entries = [{"path": "a.wav", "text": "before"}, entry, {"path": "a.wav", "text": "after"}]
    text = "\n".join(map(json.dumps, entries))
    if form == "array":
        text = json.dumps(entries, indent=0).replace("{\n", "{").replace("\n}", "}")
    found = rows(folder, "l.json", text)
    assert [one[1] for one in faults(found)] == [fault]
    assert [one.text for one in found if not one.fault] == ["before", "after"]


@pytest.mark.parametrize(
    "line", ["{broken", '{"path": "a.wav"', "[" * 5000, '{"a":' * 5000, "null", "1" * 5000, "text"]
)
def test_a_broken_line_of_json_costs_itself_alone(folder, line):
    good = '{"path": "a.wav", "text": "x"}'
    found = rows(folder, "l.jsonl", f"{good}\n{line}\n{good}\n")
    assert [place for place, _ in faults(found)] == ["line 2"] and len(found) == 3


def test_an_array_or_an_object_over_many_lines_gives_rows_with_their_lines(folder):
    entries = [{"path": "a.wav", "text": "one"}, {"path": "."}]
    found = rows(folder, "l.json", json.dumps(entries, indent=2))
    assert found[0].text == "one" and faults(found) == [("line 6", "the path . is a folder")]
    named = {"u1": {"wav": "a.wav", "wrd": "one"}, "u2": {"wav": "a.wav", "wrd": "two"}}
    found = rows(folder, "l.json", json.dumps(named, indent=2))
    assert [(one.id, one.text) for one in found] == [("u1", "one"), ("u2", "two")]
    with pytest.raises(ListError, match="l.json, line 5: the JSON array cannot be read"):
        rows(folder, "l.json", '[\n{"path": "a.wav"},\n{"path": "a.wav"},\n\n{"path": \n')


def test_gzip_is_read_and_damaged_gzip_is_refused(folder):
    data = gzip.compress(b'{"path": "a.wav", "text": "x"}\n')
    assert rows(folder, "l.jsonl.gz", data)[0].text == "x"
    with pytest.raises(ListError, match="its compression is damaged"):
        rows(folder, "l.jsonl.gz", data[:-9])


def test_nemo_has_offsets_and_durations(folder):
    entry = {"audio_filepath": "a.wav", "offset": 1.5, "duration": 2.25, "text": "x"}
    (row,) = rows(folder, "manifest.json", json.dumps(entry))
    assert (row.start, row.stop) == (1.5, 3.75)
    (row,) = rows(folder, "manifest.json", json.dumps(entry | {"offset": 0}))
    assert (row.start, row.stop) == (0, 2.25)
    (row,) = rows(folder, "manifest.json", json.dumps(entry | {"duration": None, "offset": 0}))
    assert not row.is_segment


def test_starts_of_the_projects_own_manifests_are_samples(folder):
    header = "ID,duration,wav,start,stop,spk_id,wrd"
    found = rows(
        folder, "train.csv", f"{header}\nu1,1.0,a.wav,8000,16000,s,x\nu2,9.0,a.wav,,,s,y\n"
    )
    assert found[0].samples(44100, 99999) == (8000, 16000)
    assert not found[1].is_segment
    assert faults(rows(folder, "train.csv", f"{header}\nu1,1,a.wav,0.5,1,s,x\n"))


def test_names_are_found_in_other_spellings_or_it_is_told_what_was_tried(folder):
    text = "path,text\nclips\\b.mp3,x\nclips/cafe\u0301.wav,y\nclips\\nothing.wav,z\nC:\\a.wav,w\n"
    found = rows(folder, "l.csv", text)
    assert [one.path for one in found[:2]] == [folder / "clips/b.mp3", folder / "clips/café.wav"]
    assert "tried also / in place of \\" in found[2].fault and "Windows" in found[3].fault


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "file,phones\na,b\n", "line 1: no column text among file, phones"),
        ("l.csv", "", "no column path and no column text among none"),
        ("l.csv", "a.wav,hello\n", "no column path and no column text among a.wav, hello"),
        ("l.csv", "path,path,text\na,b,c\n", "line 1: names the column path twice"),
        ("l.csv", '"not closed\n', "line 1: no column path and no column text among"),
        ("l.txt", "notes\\of a day\n", "line 1: no column path and no column text among notes"),
        ("l.txt", "naïve\n", "line 1: no column path and no column text among naïve"),
        ("l.xlsx", "path,text\n", "must end in one of .csv"),
    ],
)
def test_what_is_no_list_is_refused(folder, name, text, message):
    with pytest.raises(ListError, match=message):
        rows(folder, name, text, needed=("path", "text"))


def test_recordings_and_folders_are_no_lists(folder):
    assert not is_list(folder) and not is_list(folder / "a.wav")
    assert not is_list(write(folder, "speech.txt", b"RIFF0000WAVE"))
    assert not is_list("x" * 5000 + ".csv") and not is_list("\0.csv")
    assert is_list(write(folder, "L.CSV", "path\n")) and is_list(write(folder, "l.JSONL.gz", ""))


@pytest.mark.parametrize("indent", [None, 2])
def test_objects_by_their_ids_are_a_list_on_one_line_as_on_many(folder, indent):
    entries = {"u1": {"wav": "a.wav", "words": "good morning", "spk_id": "anna"}}
    found = rows(folder, "l.json", json.dumps(entries, indent=indent), needed=("path", "text"))
    assert said(found) == GOOD


def test_a_decimal_comma_where_it_may_be_another_is_refused_with_what_to_write(folder):
    found = rows(folder, "l.tsv", "path\tstart\na.wav\t0,5\n")
    assert faults(found) == [
        ("line 2", "start '0,5' is no number of seconds; write a point, and no comma")
    ]


@pytest.mark.parametrize("name", ["l.jsonl", "l.json"])
@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_json_list_has_no_rows(folder, name, text):
    assert rows(folder, name, text) == []


@pytest.mark.parametrize("name", ("list.txt", "list.lst"))
@pytest.mark.parametrize("first", ("missing.wav", "clips/missing one.FLAC", "missing.m4a"))
def test_a_missing_first_file_does_not_end_a_list_of_paths(folder, name, first):
    rows = list(read_list(write(folder, name, f"{first}\na.wav\n")))
    assert [row.name for row in rows] == [first, "a.wav"]
    assert rows[1].path == folder / "a.wav" and not rows[1].fault
    with pytest.raises(ListError, match="no column path"):
        list(read_list(write(folder, name, "Notes on the speakers.\na.wav\n")))
