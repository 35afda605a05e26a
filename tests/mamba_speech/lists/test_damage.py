"""Damaged lists: whatever bytes they hold, reading gives rows, or refuses the list by its name."""

import random

import pytest

from mamba_speech.lists import ListError, read_list

CUT = (
    b'{"id": "c", "start": 0, "duration": 1, "supervisions": [{"text": "a", "start": 0}], '
    b'"recording": {"id": "r", "sources": [{"type": "file", "source": "a.wav"}]}, "type": "MonoCut"}\n'
)
LISTS = {
    "l.csv": b'path,text,start,stop\na.wav,"hi, x",0.5,1\na.wav,y,,\n',
    "l.tsv": 'path\tsentence\na.wav\t"é x\n'.encode(),
    "metadata.csv": b"LJ1|a|b\nLJ2|c|d\n",
    "l.txt": b"a.wav|x\n",
    "cuts.jsonl": CUT * 2,
    "l.json": b'[{"path": "a.wav", "text": "x"},\n{"path": "a.wav", "start": 1, "end": 2}]\n',
}
PIECES = [
    *(b"\0", b'"', b"\n", b"\r", b",", b"\t", b"|", b";", b"{", b"}", b"[", b"]", b":", b"\\"),
    *(b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9", b"\xc3\xa9", b"\x1f\x8b", b"\xe2\x80\xa8", b"\x0b"),
    *(b"null", b"true", b"1e999", b"-1", b"NaN", b"C:\\", b"..", b"#", b"sep=;\n", b'{"a":' * 2000),
]


def damaged(data, rng):
    data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        place, kind = rng.randint(0, len(data)), rng.random()
        if kind < 0.6:
            data[place:place] = rng.choice(PIECES)
        elif kind < 0.8:
            del data[place : place + rng.randint(1, 9)]
        else:
            data[place:place] = data[rng.randint(0, len(data)) :][:20]
    return bytes(data)


@pytest.mark.parametrize("name", LISTS)
def test_a_damaged_list_gives_rows_or_is_refused_by_name(tmp_path, name):
    rng, path = random.Random(name), tmp_path / name
    (tmp_path / "a.wav").write_bytes(b"")
    refused = 0
    for _ in range(300):
        path.write_bytes(damaged(LISTS[name], rng))
        try:
            for row in read_list(path):
                assert row.place and (row.fault or row.path)
        except ListError as error:
            assert str(error).startswith(str(path))
            refused += 1
    assert refused < 300
