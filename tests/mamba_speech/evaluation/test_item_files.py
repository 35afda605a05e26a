"""A table with one row an item that cannot be read is refused with its name and line."""

import pytest

from mamba_speech.evaluation import classification, separation, wer

READERS = {
    "utterance": (
        wer.read_errors,
        "id,words,errors\n",
        "a,1,0\n",
        ("a,1\n", "a,one,0\n", "a,1,0,2\n"),
    ),
    "clip": (
        classification.read_predictions,
        "ID,wav,speaker,said,heard,confidence,correct\n",
        "a,a.wav,s,x,y,1,0\n",
        ("a,a.wav,s,x,x\n", "a,a.wav,s,x,x,sure,1\n"),
    ),
    "mixture": (
        separation.read_scores,
        "snt_id,si-snr,si-snr_i\n",
        "a,3,1\n",
        ("a,3\n", "a,3,much\n", "a,3,\n"),
    ),
}


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    """Kind of item, how to read a text, its heading, a good row, and bad rows."""
    read, *rest = READERS[request.param]

    def read_text(text):
        (tmp_path / "table.csv").write_text(text, encoding="utf-8")
        return read(tmp_path / "table.csv")

    return request.param, read_text, *rest


def test_a_table_without_its_columns_or_without_rows_is_refused(reader):
    item, read, heading, row, _ = reader
    for text in ("", row, heading.rpartition(",")[0]):
        with pytest.raises(ValueError, match="table.csv: the first line must be"):
            read(text)
    with pytest.raises(ValueError, match=f"table.csv: holds no {item}"):
        read(heading)


def test_a_row_that_is_no_item_is_refused_with_its_line(reader):
    item, read, heading, _, bad = reader
    for row in bad:
        fault = "[0-9] cells under" if row.count(",") != heading.count(",") else f"is no {item}: "
        with pytest.raises(ValueError, match=f"table.csv, line 2: {fault}"):
            read(heading + row)


def test_an_item_that_stands_twice_is_refused(reader):
    _, read, heading, row, _ = reader
    assert list(read(heading + row)) == ["a"]
    with pytest.raises(ValueError, match="table.csv: a stands there twice"):
        read(heading + row + row)


def test_a_missing_table_is_named():
    with pytest.raises(FileNotFoundError, match="none.csv: no such file"):
        wer.read_errors("none.csv")


def test_the_mean_of_a_table_of_mixtures_is_no_mixture(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("snt_id,stoi,si-snr_i\na,,1\navg,,1\n")
    assert separation.read_scores(path) == {"a": {"si-snr_i": 1.0}}
    path.write_text("snt_id,si-snr_i\navg,1\n")
    with pytest.raises(ValueError, match="holds no mixture"):
        separation.read_scores(path)


@pytest.mark.parametrize("bad", [b"\xff", b'"' + b"a" * 200_000, b"a\0"])
def test_a_table_that_is_no_text_is_refused_with_its_name(tmp_path, bad):
    path = tmp_path / "table.csv"
    path.write_bytes(b"id,words,errors\na,1,0\n" + bad)
    with pytest.raises(ValueError, match=r"table\.csv, line 3: "):
        wer.read_errors(path)
