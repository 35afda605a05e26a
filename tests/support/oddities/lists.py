"""Lists of three recordings in every format that people have, and lists that are broken in every way.

The recordings are `a.wav`, `b.wav` and `c.wav`, of 0.6, 0.5 and 0.4 s. Their texts are `one`, `two` and `three`.
"""

import codecs
import gzip
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.oddities.headers import wav
from tests.support.oddities.inputs import RATE

# seconds of the recording of a text
SECONDS = {"one": 0.6, "two": 0.5, "three": 0.4}
ALL = ("one", "two", "three")
ROWS = tuple(zip(("a.wav", "b.wav", "c.wav"), ALL, strict=True))
MISSING = "no usable utterance"


@dataclass(frozen=True)
class OddList:
    """An odd list of recordings.

    Arguments
    ---------
    group : str
        Heading of its table.
    name : str
        Words for it, different from all others'.
    file : str
        Name of the list in its folder; ``.`` for a folder that is a list.
    write : callable
        From the folder and the samples of the plain recording to nothing. The recordings are there.
    texts : tuple of str
        Texts of the rows that are used, in order. A text and its seconds stand together where they are not ``SECONDS``.
    faults : tuple of str
        Words of the reason why a row is left out, one each.
    refused : str
        Words of the error if nothing can be made of the list.
    told : str
        The same of a command, where it is told otherwise.
    results : int
        Rows that commands give results for, which need no text; by default as many as texts.
    """

    group: str
    name: str
    file: str
    write: Callable
    texts: tuple = ALL
    faults: tuple = ()
    refused: str = ""
    told: str = ""
    results: int | None = None

    @property
    def expected(self):
        """(text, seconds) of each row that is used."""
        return [one if isinstance(one, tuple) else (one, SECONDS[one]) for one in self.texts]


def write_recordings(folder, samples):
    """Write the three recordings."""
    for (name, text), gain in zip(ROWS, (1, 0.8, 0.6), strict=True):
        (folder / name).write_bytes(wav(gain * samples[: round(SECONDS[text] * RATE)]))


def text_of(file, text, encoding="utf-8"):
    """A function that writes a list's text."""

    def write(folder, _):
        data = text if isinstance(text, bytes) else text.encode(encoding)
        (folder / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)

    return write


def files_of(**texts):
    """A function that writes several files; ``wav_scp`` stands for ``wav.scp``."""

    def write(folder, _):
        for name, text in texts.items():
            (folder / name.replace("_scp", ".scp").replace("_jsonl", ".jsonl")).write_text(text)

    return write


def moved(place, write, change=lambda name: name):
    """A function that writes a list whose recordings lie in a folder beside it."""

    def move(folder, samples):
        (folder / place).mkdir()
        for name, _ in ROWS:
            (folder / name).rename(folder / place / change(name))
        write(folder, samples)

    return move


def table(delimiter=",", header="path,text", end="\n", rows=ROWS, line="{path},{text}"):
    """Text of a table."""
    lines = [header, *(line.format(path=path, text=text) for path, text in rows)]
    return "".join(one.replace(",", delimiter) + end for one in lines if one)


def broken(row, header="path,text"):
    """A table with a bad row between good ones."""
    line = "{path},{text}" + "," * (header.count(",") - 1)
    good = table(header=header, line=line).splitlines()
    return "\n".join([*good[:2], row, *good[2:]]) + "\n"


def objects(*more, **changes):
    """JSON lines as NeMo has them, with more lines after the first."""
    lines = [
        json.dumps({"audio_filepath": path, "text": text} | changes.get(text, {}))
        for path, text in ROWS
    ]
    return "\n".join([lines[0], *more, *lines[1:]]) + "\n"


def tables():
    """Tables that are read."""
    group = "Tables"
    voice = "client_id,path,sentence,up_votes,age"
    voices = table("\t", voice, line="7ff,{path},{text},2,")
    for name, file, text, encoding in (
        ("CSV", "list.csv", table(), "utf-8"),
        ("CSV with texts in quotation marks", "list.csv", table(line='"{path}","{text}"'), "utf-8"),
        ("CSV with Windows' line ends", "list.csv", table(end="\r\n"), "utf-8"),
        ("CSV with old Macs' line ends", "list.csv", table(end="\r"), "utf-8"),
        ("CSV with empty lines", "list.csv", table(end="\n\n"), "utf-8"),
        ("CSV without a last line end", "list.csv", table().rstrip("\n"), "utf-8"),
        ("CSV with spaces around cells", "list.csv", table(line=" {path} , {text} "), "utf-8"),
        ("CSV with a comma at each line's end", "list.csv", table(end=",\n"), "utf-8"),
        ("CSV with names in capitals", "list.csv", table(header="PATH,TEXT"), "utf-8"),
        ("CSV in UTF-8 with a byte order mark", "list.csv", table(), "utf-8-sig"),
        ("CSV in UTF-16 with a byte order mark", "list.csv", table(), "utf-16"),
        ("CSV compressed by gzip", "list.csv.gz", table(), "utf-8"),
        ("CSV with semicolons, as Excel writes it", "list.csv", table(";"), "utf-8-sig"),
        ("CSV with Excel's hint sep=;", "list.csv", "sep=;\n" + table(";"), "utf-8"),
        ("CSV with tabs", "list.csv", table("\t"), "utf-8"),
        ("TSV", "list.tsv", table("\t"), "utf-8"),
        ("TSV of Common Voice", "validated.tsv", voices, "utf-8"),
        ("TSV in UTF-16, as Excel's Unicode text", "list.txt", table("\t"), "utf-16"),
        ("pipes with a header", "list.psv", table("|"), "utf-8"),
        ("pipes without a header", "list.txt", table("|", ""), "utf-8"),
        ("paths that begin with ./", "list.csv", table(line="./{path},{text}"), "utf-8"),
    ):
        yield OddList(group, name, file, text_of(file, text, encoding))
    hello = table("\t", "path,sentence", rows=[*ROWS[:1], ("b.wav", '"Hello. he said.')])
    texts = ("one", ('"Hello. he said.', 0.5))
    yield OddList(
        group,
        "TSV text that begins with a quotation mark",
        "list.tsv",
        text_of("list.tsv", hello),
        texts,
    )


def corpora():
    """Tables as corpora have them, and in other encodings."""
    group, voice = "Tables", "client_id,path,sentence,up_votes,age"
    for encoding, name in (
        ("utf-16-be", "big-endian UTF-16"),
        ("utf-16-le", "little-endian UTF-16"),
    ):
        mark = codecs.BOM_UTF16_BE if encoding.endswith("be") else codecs.BOM_UTF16_LE
        data = mark + table().encode(encoding)
        yield OddList(group, f"CSV in {name}", "list.csv", text_of("list.csv", data))
    latin = table(rows=[("a.wav", "un été à Paris. ça va"), *ROWS[1:]])
    texts = (("un été à Paris. ça va", 0.6), "two", "three")
    yield OddList(group, "CSV in Latin-1", "list.csv", text_of("list.csv", latin, "latin-1"), texts)
    plain = text_of("validated.tsv", table("\t", voice, line="7ff,{path},{text},2,"))
    yield OddList(
        group, "Common Voice with clips beside its list", "validated.tsv", moved("clips", plain)
    )
    ids = "LJ-{number}|{text}|{text}\n"
    speech = "".join(ids.format(number=path[0], text=text) for path, text in ROWS)
    plain = moved("wavs", text_of("metadata.csv", speech), lambda name: f"LJ-{name}")
    yield OddList(
        group, "LJSpeech (pipes, no header, ids without an ending)", "metadata.csv", plain
    )
    names = table(header="file_name,transcription")
    yield OddList(
        group, "Hugging Face's metadata.csv", "metadata.csv", text_of("metadata.csv", names)
    )
    own = table(header="ID,duration,wav,spk_id,wrd", line="{text},9,{path},anna,{text}")
    yield OddList(group, "a manifest of SpeechBrain", "train.csv", text_of("train.csv", own))
    for name, text in (
        ("names of files under a header", "path\na.wav\nb.wav\n"),
        ("names of files", "a.wav\nb.wav\n"),
    ):
        write = text_of("list.txt", text)
        yield OddList(group, name, "list.txt", write, (), refused="no column", results=2)


def bad_rows():
    """Tables with a row that cannot be used."""
    group = "Bad rows of tables"
    for name, row, words in (
        ("a cell too many", "x.wav,four,five", "3 cells under 2 columns"),
        ("a cell too few", "x.wav", "1 cell under 2 columns"),
        ("an empty path", ",four", "the path is empty"),
        ("the path .", ".,four", "is a folder"),
        ("the path of a folder", "..,four", "is a folder"),
        ("a file that is not there", "x.wav,four", "not"),
        ("a cell of 131,073 characters", f"x.wav,{'x' * 131_073}", "131,072"),
        ("an unclosed quotation mark", 'x.wav,"four', "a quotation mark is not closed"),
        ("text after a quotation mark", 'x.wav,"four" five', "quotation mark"),
        ("a zero byte", "x.wav,fo\0ur", "zero byte"),
        ("a path of Windows with a drive", "C:\\speech\\x.wav,four", "Windows"),
    ):
        yield OddList(group, name, "list.csv", text_of("list.csv", broken(row)), faults=(words,))
    empty = broken("a.wav,")
    yield OddList(
        group,
        "an empty text",
        "list.csv",
        text_of("list.csv", empty),
        faults=("empty transcript",),
        results=4,
    )
    blank = broken("a.wav,\u200b\u00ad")
    yield OddList(
        group,
        "a text of invisible characters",
        "list.csv",
        text_of("list.csv", blank),
        faults=("empty transcript",),
        results=4,
    )
    twice = broken("one,a.wav,four", "id,path,text").replace("\na.wav,one", "\none,a.wav,one")
    twice = "id,path,text\none,a.wav,one\none,b.wav,four\ntwo,b.wav,two\nthree,c.wav,three\n"
    yield OddList(
        group,
        "an id twice",
        "list.csv",
        text_of("list.csv", twice),
        faults=("duplicate id",),
        results=4,
    )


def refused():
    """Lists that nothing can be made of."""
    for name, text, words in (
        ("no column of paths", "name,text\na.wav,one\n", "no column path"),
        ("a column twice", "path,text,text\na.wav,one,two\n", "twice"),
        ("an empty list", "", "no column path"),
        (
            "UTF-16 without a byte order mark",
            table().encode("utf-16-le"),
            "UTF-16 without a byte order mark",
        ),
        (
            "Cyrillic in Windows-1251",
            "path,text\na.wav,привет\n".encode("cp1251"),
            "line 2, byte 7",
        ),
        ("Chinese in GB 18030", "path,text\na.wav,录音\n".encode("gb18030"), "line 2, byte"),
    ):
        yield OddList(
            "Lists that are refused", name, "list.csv", text_of("list.csv", text), (), refused=words
        )
    write = text_of("list.csv", "path,text\n")
    words = {"refused": "it lists none", "told": "no recording"}
    yield OddList("Lists that are refused", "a header alone", "list.csv", write, (), **words)


def texts_and_paths():
    """Texts and paths that programs stumble over."""
    group = "Texts and paths in lists"
    for text in (
        "$5",
        "${HOME}",
        "=1+1",
        "null",
        "nan",
        "3.14",
        "#hash",
        "a\\nb",
        "{x}",
        "50 % off",
        "\N{GRINNING FACE}",
    ):
        write = text_of("list.csv", table(rows=[("a.wav", text), *ROWS[1:]]))
        yield OddList(group, f"the text {text}", "list.csv", write, ((text, 0.6), "two", "three"))
    quoted = text_of("list.csv", table(rows=[*ROWS[1:]]) + 'a.wav,"yes, he said ""now"""\n')
    texts = ("two", "three", ('yes, he said "now"', 0.6))
    yield OddList(group, "commas and doubled quotation marks", "list.csv", quoted, texts)
    decomposed = text_of("list.csv", table(rows=[("a.wav", "cafe\u0301"), *ROWS[1:]]))
    yield OddList(
        group,
        "é of two code points in a text",
        "list.csv",
        decomposed,
        (("caf\xe9", 0.6), "two", "three"),
    )
    for name, here, there in (("one", "NFC", "NFD"), ("two", "NFD", "NFC")):
        spelt = [(unicodedata.normalize(here, f"\xe9{path}"), text) for path, text in ROWS]

        def write(folder, _, spelt=spelt, there=there):
            for (path, _), (name, _) in zip(ROWS, spelt, strict=True):
                (folder / path).rename(folder / unicodedata.normalize(there, name))
            (folder / "list.csv").write_text(table(rows=spelt), encoding="utf-8")

        yield OddList(
            group, f"é of {name} code point(s) in a path, otherwise on the disk", "list.csv", write
        )
    windows = text_of("list.csv", table(line="clips\\{path},{text}"))
    yield OddList(
        group, "paths with \\, as Windows writes them", "list.csv", moved("clips", windows)
    )

    def absolute(folder, _):
        (folder / "list.csv").write_text(table(line=f"{folder}/{{path}},{{text}}"))

    yield OddList(group, "absolute paths", "list.csv", absolute)


def segments():
    """Rows that mean parts of recordings."""
    group = "Parts of recordings"
    part = (("one", 0.25), "two", "three")
    for name, header, row in (
        ("start and stop", "path,text,start,stop", "a.wav,one,0.25,0.5"),
        ("start and end", "path,text,start,end", "a.wav,one,0.25,0.5"),
        ("offset and duration", "path,text,offset,duration", "a.wav,one,0.25,0.25"),
        ("a duration alone", "path,text,duration,age", "a.wav,one,0.25,"),
        ("a start of 0 and a stop", "path,text,start,stop", "a.wav,one,0,0.25"),
    ):
        text = f"{header}\n{row}\nb.wav,two,,\nc.wav,three,,\n"
        yield OddList(group, f"CSV with {name}", "list.csv", text_of("list.csv", text), part)
    text = "path;text;start;stop\na.wav;one;0,25;0,5\nb.wav;two;;\nc.wav;three;;\n"
    yield OddList(
        group, "decimal commas between semicolons", "list.csv", text_of("list.csv", text), part
    )
    for name, span, words in (
        ("a start after the end of the file", "7,8", "of a file of"),
        ("a stop before the start", "0.5,0.25", "not after"),
        ("a negative start", "-1,0.5", "negative"),
        ("a start that is no number", "soon,0.5", "no number"),
        ("a start that is not finite", "nan,0.5", "no number"),
        ("a stop seconds after the end of the file", "0,60", "of a file of"),
    ):
        text = broken(f"a.wav,four,{span}", "path,text,start,stop")
        yield OddList(group, name, "list.csv", text_of("list.csv", text), faults=(words,))
    text = "ID,duration,wav,start,stop,spk_id,wrd\none,0.25,a.wav,4000,8000,anna,one\n"
    yield OddList(
        group, "a manifest with samples", "train.csv", text_of("train.csv", text), part[:1]
    )


ODD = (*tables(), *corpora(), *bad_rows(), *refused(), *texts_and_paths(), *segments())
