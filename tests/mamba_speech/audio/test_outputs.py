"""Names of outputs: the tree of the inputs, no name twice, and none that hangs on the order of the inputs."""

import itertools
import os
import unicodedata
from pathlib import Path

import pytest

from mamba_speech.audio.outputs import distinct_stems, plan_names


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def planned(*inputs):
    return [name.as_posix() for name in plan_names(inputs).values()]


def folded(name):
    return unicodedata.normalize("NFC", str(name)).casefold()


def test_the_tree_below_the_innermost_common_folder_is_kept(tmp_path):
    write(tmp_path, "d1/x.wav", "d2/x.wav", "d2/deep/y.wav")
    assert planned(tmp_path / "d1/x.wav") == ["x"]
    assert planned(tmp_path / "d1/x.wav", tmp_path / "d2/x.wav") == ["d1/x", "d2/x"]
    assert planned(tmp_path) == planned(tmp_path / "d1", tmp_path / "d2")
    assert planned(tmp_path / "d2") == ["deep/y", "x"]
    assert planned(tmp_path / "d2/deep", tmp_path / "d2/x.wav") == ["deep/y", "x"]


def test_what_is_missing_empty_or_a_root_has_a_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert planned("empty") == ["empty"] and planned("gone.wav") == ["gone"]
    assert planned(".") == [tmp_path.name]
    (found,) = plan_names(["gone.wav", "./gone.wav"]).values()
    assert found == Path("gone")


def test_an_ending_stays_where_another_file_beside_it_would_take_the_name(tmp_path):
    top = write(tmp_path, "a.wav", "a.flac", "b.wav", "deep/a.wav", "._b.flac", "b.txt")
    assert planned(top) == ["a.flac", "a.wav", "b", "deep/a"]
    # the same for one alone, since the other is there
    assert planned(top / "a.wav") == ["a.wav"] and planned(top / "deep/a.wav") == ["a"]
    # files of unknown endings, given by name
    write(tmp_path, "c.one", "c.two")
    assert planned(top / "c.one", top / "c.two") == ["c.one", "c.two"]


NAMES = [
    "a.wav",
    "a.flac",
    "A.wav",
    "a.wav.flac",
    "a.WAV",
    "caf\xe9.wav",
    "cafe\u0301.wav",
    "a",
    "stra\xdfe.ogg",
]
NAMES += ["strasse.wav", os.fsdecode(b"a\xe9.wav"), "a.flac_s1.wav", "x y.wav"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_two_names_are_one_to_any_disk_and_none_hangs_on_the_order(size, tmp_path):
    for number, names in enumerate(itertools.combinations(NAMES, size)):
        folder = write(tmp_path / str(number), *names)
        paths = [folder / name for name in names]
        plan = plan_names(paths)
        assert len({folded(name) for name in plan.values()}) == size, names
        assert dict(plan_names(reversed(paths))) == plan
        stems = distinct_stems(names)
        assert set(stems) == set(names) and distinct_stems(reversed(names)) == stems


def test_folders_that_differ_in_case_alone_give_names_that_differ_in_more(tmp_path):
    top = write(tmp_path, "D/x.wav", "d/x.wav", "e/x.wav")
    names = planned(top)
    assert len({folded(name) for name in names}) == 3 and "e/x" in names


def test_links_have_names_of_their_own(tmp_path):
    write(tmp_path, "real/x.wav")
    top = tmp_path / "top"
    top.mkdir()
    for name in ("one", "two"):
        (top / name).symlink_to("../real")
    assert planned(top) == ["one/x", "two/x"]


def test_a_name_to_which_no_ending_can_be_added_is_shortened_and_stays_distinct(tmp_path):
    names = [
        "x" * 251 + ".wav",
        "x" * 250 + "y.wav",
        "\u00e9" * 125 + ".wav",
        os.fsdecode(b"\xe9" * 251) + ".wav",
    ]
    write(tmp_path, *names)
    made = list(plan_names([tmp_path]).values())
    assert len(set(made)) == 4 and all(len(os.fsencode(name)) <= 215 for name in made)
    assert sum(os.fsencode(name).count(b"~") for name in made) == 4
    assert planned(write(tmp_path / "d", "x" * 200 + ".wav")) == ["x" * 200]
