"""Lists of lhotse and Kaldi folders: each utterance is a row, and what is no file is refused by name."""

import gzip
import json
import os

import pytest

from mamba_speech.lists import ListError, is_list, read_list

RECORDING = {
    "id": "r1",
    "sources": [{"type": "file", "channels": [0], "source": "a.wav"}],
    "sampling_rate": 16000,
    "num_samples": 160000,
    "duration": 10.0,
    "channel_ids": [0],
}
SUPERVISION = {
    "id": "s1",
    "recording_id": "r1",
    "start": 0.0,
    "duration": 2.0,
    "channel": 0,
    "text": "one two",
    "speaker": "anna",
}
CUT = {
    "id": "c1",
    "start": 1.5,
    "duration": 2.0,
    "channel": 0,
    "supervisions": [SUPERVISION],
    "recording": RECORDING,
    "type": "MonoCut",
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a file that lists name; nothing reads it."""
    (tmp_path / "a.wav").write_bytes(b"")
    return tmp_path


def write_lines(path, entries):
    data = "".join(json.dumps(one) + "\n" for one in entries).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["cuts.jsonl", "cuts.jsonl.gz"])
def test_a_cut_is_a_part_of_its_recording(folder, name):
    later = SUPERVISION | {"id": "s2", "start": 1.0, "text": "three", "speaker": "ben"}
    cuts = [CUT, CUT | {"id": "c2", "supervisions": [later, SUPERVISION]}]
    first, second = read_list(write_lines(folder / name, cuts))
    assert (first.path, first.text, first.speaker, first.id) == (
        folder / "a.wav",
        "one two",
        "anna",
        "c1",
    )
    assert (first.start, first.stop) == (1.5, 3.5)
    assert (second.text, second.speaker) == ("one two three", None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"type": "MixedCut", "tracks": []}, "a MixedCut, which is no part of one recording"),
        ({"recording": None}, "holds no recording, but features alone"),
        ({"recording": RECORDING | {"sources": 3}}, "a recording of 0 sources"),
        (
            {"recording": RECORDING | {"sources": [{"type": "command", "source": "cat a.wav"}]}},
            "a recording from a command and not from a file, which is never executed",
        ),
        (
            {"recording": RECORDING | {"sources": [{"type": "url", "source": "http://x/a.wav"}]}},
            "a recording from a url and not from a file",
        ),
        (
            {"recording": RECORDING | {"channel_ids": [0, 1]}, "channel": 1},
            "channel 1 of a file with 2 channels; write it as a file of its own",
        ),
        (
            {"recording": RECORDING | {"transforms": [{"name": "Speed"}]}},
            "lhotse's transforms of a recording are not applied",
        ),
        ({"supervisions": "x"}, "supervisions is no list of objects"),
        ({"start": "x"}, "start 'x' is no number of seconds"),
    ],
)
def test_what_is_no_part_of_one_file_is_a_bad_row(folder, change, fault):
    bad, good = read_list(write_lines(folder / "cuts.jsonl", [CUT | change, CUT]))
    assert (bad.place, bad.fault) == ("line 1", fault) and good.fault is None


def test_supervisions_find_the_recordings_beside_them(folder):
    listed = folder / "mini_supervisions_train.jsonl.gz"
    write_lines(listed, [SUPERVISION, SUPERVISION | {"id": "s2", "recording_id": "r9"}])
    with pytest.raises(ListError, match="put the list of recordings beside it"):
        list(read_list(listed))
    write_lines(folder / "mini_recordings_train.jsonl.gz", [RECORDING])
    good, bad = read_list(listed)
    assert (good.path, good.text, good.start, good.stop) == (folder / "a.wav", "one two", 0.0, 2.0)
    assert bad.fault == "no recording r9 in lhotse's list of recordings"
    (whole,) = read_list(folder / "mini_recordings_train.jsonl.gz")
    assert whole.path == folder / "a.wav" and not whole.is_segment


def make_kaldi(folder, **files):
    for name, text in files.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(text, encoding="utf-8")
    return folder


def test_a_kaldi_folder_is_a_list_of_whole_recordings(folder):
    make_kaldi(folder, wav_scp="u1 a.wav\nu2 a.wav\n", text="u1 one  two\n", utt2spk="u1 anna\n")
    assert is_list(folder) and is_list(folder / "wav.scp")
    for given in (folder, folder / "wav.scp"):
        first, second = read_list(given)
        assert (first.id, first.path, first.text) == ("u1", folder / "a.wav", "one  two")
        assert first.speaker == "anna" and second.text is None and not first.is_segment


def test_kaldi_segments_are_parts_of_recordings(folder):
    segments = "u1 r1 0.5 1.5\nu2 r1 1.5 -1\nu3 r9 0 1\nu4 r1 0\nu1 r1 2 3\nu5 r1 3 2\n"
    text = "u1 one\nu2 two\nu9 nowhere\n"
    found = list(read_list(make_kaldi(folder, wav_scp="r1 a.wav\n", text=text, segments=segments)))
    assert [(one.id, one.start, one.stop, one.text) for one in found[:2]] == [
        ("u1", 0.5, 1.5, "one"),
        ("u2", 1.5, None, "two"),
    ]
    assert [(one.place, one.fault) for one in found[2:]] == [
        ("segments, line 3", "no recording r9 in wav.scp"),
        ("segments, line 4", "3 words, where an id, a recording, a start and an end belong"),
        ("segments, line 5", "the id u1 stands there twice"),
        ("segments, line 6", "stop 2 is not after start 3"),
        ("text, line 3", "transcript without audio"),
    ]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("touch MARK; cat a.wav |", "a command .touch MARK; cat a.wav |., which is never executed"),
        ("| touch MARK", "a command .*never executed"),
        ("raw.ark:1234", r"a place in an archive \(raw.ark:1234\)"),
        ("raw.ark:12[0:3]", "a place in an archive"),
        ("-", "standard input"),
        ("", "the path is empty"),
    ],
)
def test_what_is_no_file_in_wav_scp_is_refused_and_never_executed(
    folder, source, fault, monkeypatch
):
    monkeypatch.chdir(folder)
    make_kaldi(folder, wav_scp=f"u1 {source}\nu2 a.wav\n")
    bad, good = read_list(folder)
    assert good.fault is None and bad.place == "wav.scp, line 1"
    with pytest.raises(AssertionError, match=fault):
        raise AssertionError(bad.fault)
    assert not os.path.exists(folder / "MARK")


def test_an_empty_wav_scp_is_refused(folder):
    with pytest.raises(ListError, match="wav.scp: lists nothing"):
        list(read_list(make_kaldi(folder, wav_scp="\n")))
