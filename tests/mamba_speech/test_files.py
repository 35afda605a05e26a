"""Files are written whole or not at all, and errors name the file."""

import csv
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mamba_speech.files import (
    copy_file,
    read_csv,
    read_json,
    whole_file,
    whole_path,
    write_csv,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[2]


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "text.txt"
    with whole_file(path) as file:
        file.write("é")
        file.flush()
        assert not path.exists() and len(os.listdir(tmp_path)) == 1
    assert path.read_bytes() == "é".encode() and os.listdir(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("error", (ValueError, KeyboardInterrupt))
def test_an_exception_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "text.txt"
    write_text(path, "old")
    with pytest.raises(error), whole_file(path) as file:
        file.write("new")
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["text.txt"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "text.txt"
    write_text(path, "old")
    script = (
        "import os, sys; from mamba_speech.files import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n"
        "    file.write('new'); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -9
    (left,) = set(os.listdir(tmp_path)) - {"text.txt"}
    assert path.read_text() == "old" and left.endswith(".partial")


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    path, both = tmp_path / "text.txt", threading.Barrier(2)

    def write(letter):
        with whole_file(path) as file:
            both.wait()
            for _ in range(50):
                file.write(letter * 1000)
                file.flush()

    threads = [threading.Thread(target=write, args=letter) for letter in "ab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert path.read_text() in ("a" * 50_000, "b" * 50_000)
    assert os.listdir(tmp_path) == ["text.txt"]


def test_a_fixed_temporary_name_replaces_what_a_killed_run_left(tmp_path):
    path = tmp_path / "sound.wav"
    with whole_path(path, unique=False) as temporary:
        left = temporary
        temporary.write_bytes(b"whole")
    left.write_bytes(b"half")
    with whole_path(path, unique=False) as temporary:
        assert temporary == left
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole" and os.listdir(tmp_path) == ["sound.wav"]


@pytest.mark.parametrize("unique", [True, False])
def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path, unique):
    path = tmp_path / ("é" * 127 + "a")
    with whole_path(path, unique) as temporary:
        temporary.write_text("first")
    assert [file.name for file in tmp_path.iterdir()] == [path.name] and path.read_text() == "first"
    with pytest.raises(OSError, match="File name too long") as error, whole_path(f"{path}b") as one:
        one.write_text("second")
    assert error.value.filename == f"{path}b"


def test_the_error_names_the_file_and_not_its_temporary_name(tmp_path):
    path = tmp_path / "nowhere" / "text.txt"
    with pytest.raises(FileNotFoundError) as raised:
        write_text(path, "")
    assert str(raised.value) == f"[Errno 2] No such file or directory: '{path}'"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_text(tmp_path / "folder", "")
    assert str(raised.value).endswith(f": '{tmp_path / 'folder'}'")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_copy_has_the_same_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"\0\r\n\xff")
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"\0\r\n\xff"
    with pytest.raises(FileNotFoundError, match="c"):
        copy_file(tmp_path / "c", tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_json_comes_back_and_float_reads_what_is_not_finite(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"é": [1, 2.5, None, True], "loss": (float("nan"), float("-inf"))})
    found = read_json(path)
    assert found == {"é": [1, 2.5, None, True], "loss": ["nan", "-inf"]}
    assert float(found["loss"][1]) == float("-inf") and "é" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", (b"", b'{"a": ', b"\xff"))
def test_a_damaged_json_file_is_named(tmp_path, content):
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path}: not a JSON file"):
        read_json(path)


def test_a_table_takes_dictionaries_and_sequences(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ("id", "text"), [{"text": 'a, "b"\nc', "id": 1}, (2, None)])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [["id", "text"], ["1", 'a, "b"\nc'], ["2", ""]]


@pytest.mark.parametrize("row", ({"id": 1}, {"id": 1, "text": "", "more": 2}, (1,), (1, 2, 3)))
def test_a_row_with_other_columns_is_refused(tmp_path, row):
    with pytest.raises(ValueError, match="has not the columns id, text"):
        write_csv(tmp_path / "table.csv", ("id", "text"), [row])
    assert not os.listdir(tmp_path)


def test_importing_files_loads_no_torch():
    script = "import sys, mamba_speech.files; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


# each renames more than one file, or a file that another program wrote
RENAMING = {
    "training/resume_path.py",
    "data_prep/spoken/corpus.py",
    "mamba_speech/asr/tokenizer.py",
    "mamba_speech/checkpoint_files.py",
    "mamba_speech/export/__init__.py",
    "mamba_speech/files.py",
    "modules/ssm/cpu/cache.py",
    "training/checkpoints.py",
}


def test_no_other_file_makes_temporary_names_by_hand():
    by_hand = re.compile(r"os\.(replace|rename)\(|partial\.(replace|rename)\(|\.partial\"")
    folders = (
        "benchmarks",
        "data_prep",
        "examples",
        "mamba_speech",
        "modules",
        "recipes",
        "training",
    )
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)) for path in files if by_hand.search(path.read_text("utf-8"))
    }
    assert found - {"benchmarks/gpu/report.py"} == RENAMING


def rows_of(path, text, **options):
    """The rows of a CSV file with this text, or its error."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        return [row for _, row in read_csv(path, **options)[1]]
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_cells_hold_commas_and_quotation_marks(tmp_path, end):
    lines = ["\ufeffid,text", '1,"yes, of course"', "", '2,"she said ""no"""', '3,5" wide']
    found = rows_of(tmp_path / "a.csv", end.join(lines))
    assert [row["text"] for row in found] == ["yes, of course", 'she said "no"', '5" wide']


def test_what_write_csv_writes_is_read_back(tmp_path):
    rows = [["1", 'a, "b" and c'], ["2", " spaces "], ["3", "é"]]
    write_csv(tmp_path / "a.csv", ["id", "text"], rows)
    _, found = read_csv(tmp_path / "a.csv", ["id"])
    assert [list(row.values()) for _, row in found] == rows


@pytest.mark.parametrize(
    ("text", "line", "fault"),
    [
        ('1,"one\n2,two\n', 2, "a quotation mark is not closed"),
        ('1,"one\n2,"two\n', 2, "a quotation mark is not closed"),
        # closed by the next row's own mark, which makes one cell of two rows
        ('1,"one\n2,"\n', 2, "a quotation mark is not closed"),
        ('1,one\n2,"two\n' + "3,three\n" * 50000, 3, "a quotation mark is not closed"),
        ('1,one\n2,"two', 3, "a quotation mark is not closed"),
        ('1,"one\rand two"\n', 2, "a quotation mark is not closed"),
        ('1,"one" more\n', 2, "text follows a closing quotation mark"),
        ("1,one\n2\n", 3, "1 cells under 2 columns"),
        ("1,one,two\n", 2, "3 cells under 2 columns"),
        (b"1,one\n2,\xff\n", 3, "is not UTF-8"),
        ("1,one\n2,\0\n", 3, "holds a zero byte"),
        ("1," + "a" * 200000 + "\n", 2, "field larger"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path, text, line, fault):
    text = text if isinstance(text, bytes) else text.encode()
    found = rows_of(tmp_path / "a.csv", b"id,text\n" + text)
    assert found.startswith(f"{tmp_path}/a.csv, line {line}: ") and fault in found


def test_a_heading_without_a_column_or_with_one_twice_is_refused(tmp_path):
    for text in ("", "\n\n", "id\n1\n", "\0\0\0"):
        assert "a.csv" in rows_of(tmp_path / "a.csv", text, columns=["id", "text"])
    assert "the column id twice" in rows_of(tmp_path / "a.csv", "id,id\n1,2\n")
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "absent.csv")


def test_a_list_that_people_write_may_have_spaces_after_commas(tmp_path):
    text = 'id, text\n1, "yes, no"\n'
    assert rows_of(tmp_path / "a.csv", text, skip_spaces=True) == [{"id": "1", "text": "yes, no"}]
    assert "3 cells" in rows_of(tmp_path / "a.csv", text)


def test_a_name_that_is_not_utf8_is_kept_by_json_and_refused_by_name_elsewhere(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    for value in ({name: [name, "\xe9", 1.5]}, {"a": "\xe9"}):
        write_json(tmp_path / "a.json", value)
        assert read_json(tmp_path / "a.json") == value
        (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert "\xe9" in (tmp_path / "a.json").read_text(encoding="utf-8")
    for write in (
        lambda path: write_text(path, f"a\n{name}"),
        lambda path: write_csv(path, ["a", "b"], [("1", name)]),
    ):
        with pytest.raises(ValueError, match=r"list.csv: cannot hold .*caf.udce9") as error:
            write(tmp_path / "list.csv")
        assert str(error.value).isascii() and not (tmp_path / "list.csv").exists()
