"""Walking through folders of every kind, and finding what a list means by a name."""

import logging
import os
import socket
import subprocess
import unicodedata
from pathlib import Path

import pytest

from mamba_speech.audio import AudioError, check_file, find_audio
from mamba_speech.audio.finding import PassedOver, find_named, list_files, list_folders, walk_files

NOT_UTF8 = os.fsdecode(b"caf\xe9.wav")


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def found(folder, *suffixes, **options):
    paths = walk_files(folder, suffixes or (".wav",), **options)
    return [path.relative_to(folder).as_posix() for path in paths]


def test_links_to_folders_and_files_are_followed_and_each_name_counts(tmp_path):
    write(tmp_path, "real/b.wav", "top/a.wav")
    top = tmp_path / "top"
    (top / "link").symlink_to("../real")
    (top / "other").symlink_to(tmp_path / "real")
    (top / "c.wav").symlink_to("a.wav")
    assert found(top) == ["a.wav", "c.wav", "link/b.wav", "other/b.wav"]
    (tmp_path / "entry").symlink_to(top)
    assert found(tmp_path / "entry") == found(top)


@pytest.mark.parametrize("to", [".", "..", "../..", "/", "{top}", "{top}/deep/er", "{top}/.."])
def test_a_loop_ends_and_is_told(to, tmp_path, caplog):
    top = write(tmp_path / "top", "a.wav", "deep/er/b.wav")
    for place in (top / "loop", top / "deep" / "er" / "loop"):
        place.symlink_to(to.format(top=top))
    names = found(top)
    assert {"a.wav", "deep/er/b.wav"} <= set(names) and len(names) <= 4
    assert len(caplog.records) == 1 and "folder above it" in caplog.text


def test_folders_that_link_to_each_other_end(tmp_path):
    for one in "abc":
        write(tmp_path, f"{one}/{one}.wav")
        for other in "abc":
            (tmp_path / one / f"to_{other}").symlink_to(f"../{other}")
    names = found(tmp_path)
    assert {"a/a.wav", "b/b.wav", "c/c.wav"} <= set(names)
    assert max(name.count("/") for name in names) == 3


def test_what_systems_leave_beside_the_data_is_no_data(tmp_path, caplog):
    top = write(
        tmp_path,
        *("a.wav", "._a.wav", ".hidden/b.wav", "deep/.hidden/c.wav", "__MACOSX/a.wav", ".DS_Store"),
        *("Thumbs.db", "@eaDir/a.wav", "$RECYCLE.BIN/a.wav", "notes.txt", "deep/__MACOSX/b.wav"),
    )
    assert found(top) == ["a.wav"] and [path.name for path in find_audio([top])] == ["a.wav"]
    assert not caplog.records


def test_what_cannot_be_taken_is_counted_and_named_in_one_warning(tmp_path, caplog):
    top = write(tmp_path / "top", "good.wav", "film.mp3", "b/film.MP3")
    (top / "gone.wav").symlink_to("nowhere.wav")
    (top / "circle.wav").symlink_to("circle.wav")
    (top / "circles").symlink_to("circles")
    os.mkfifo(top / "fifo.wav")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(".", os.O_RDONLY)
        try:
            # a socket's path may have some hundred letters
            os.chdir(top)
            server.bind("socket.wav")
        finally:
            os.fchdir(here)
            os.close(here)
        assert found(top) == ["good.wav"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    told = record.getMessage()
    for part in (
        f"{top}: passed over: ",
        f"1 link to nothing ({top}/gone.wav)",
        f"1 pipe ({top}/fifo.wav)",
        f"2 links in a circle ({top}/circle.wav, {top}/circles)",
        f"1 socket ({top}/socket.wav)",
        f"2 files with the ending .mp3 ({top}/film.mp3, {top}/b/film.MP3)",
    ):
        assert part in told


def test_only_the_first_of_many_are_named_and_all_are_counted(tmp_path):
    passed = PassedOver()
    for number in range(50):
        (tmp_path / f"{number:02d}.wav").symlink_to("nowhere")
    assert walk_files(tmp_path, [".wav"], passed) == []
    assert str(passed).startswith("50 links to nothing (") and str(passed).count(".wav") == 3
    assert "and 47 more)" in str(passed)


def test_names_are_found_as_they_are_on_the_disk(tmp_path):
    names = [
        NOT_UTF8,
        "cafe\u0301.wav",
        "caf\xe9.wav",
        "a b\n.wav",
        "tab\t.wav",
        "-a.WAV",
        "$5.wav",
    ]
    write(tmp_path, *names)
    assert sorted(found(tmp_path)) == sorted(names)
    assert found(tmp_path) == sorted(names) and all(
        path.is_file() for path in find_audio([tmp_path])
    )


def test_a_tree_deeper_than_calls_may_nest_is_walked(tmp_path):
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(tmp_path)
        for _ in range(1200):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.wav").write_bytes(b"x")
        os.chdir(tmp_path)
        assert len(found(Path("."))) == 1
    finally:
        # what removes the folders of tests nests its calls
        os.chdir(tmp_path)
        subprocess.run(["rm", "-r", "d"], check=True)
        os.fchdir(here)
        os.close(here)


def test_a_folder_that_may_not_be_read_is_told(tmp_path, caplog):
    write(tmp_path, "a.wav", "closed/b.wav")
    if os.getuid() != 0:
        (tmp_path / "closed").chmod(0)
        assert found(tmp_path) == ["a.wav"]
        (tmp_path / "closed").chmod(0o700)
    else:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        (tmp_path / "closed").chmod(0o700)
        os.seteuid(65534)
        try:
            assert found(tmp_path) == ["a.wav"]
        finally:
            os.seteuid(0)
    assert f"1 folder that cannot be read (permission denied) ({tmp_path}/closed)" in caplog.text


def test_listing_one_folder_follows_the_rules_of_the_walk(tmp_path):
    write(tmp_path, "b.wav", "a.flac", "._b.wav", "deep/c.wav", "_noise_/d.wav", ".x/e.wav")
    (tmp_path / "link").symlink_to("deep")
    (tmp_path / "gone.wav").symlink_to("nowhere")
    passed = PassedOver()
    names = [path.name for path in list_files(tmp_path, (".wav", ".flac"), passed)]
    assert names == ["a.flac", "b.wav"] and "link to nothing" in str(passed)
    assert [path.name for path in list_folders(tmp_path)] == ["_noise_", "deep", "link"]
    assert [path.name for path in list_folders(tmp_path, hidden="._")] == ["deep", "link"]
    assert list_files(tmp_path / "none", (".wav",)) == list_folders(tmp_path / "none") == []
    assert found(tmp_path, hidden="._") == ["b.wav", "deep/c.wav", "link/c.wav"]


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "name", ["é.wav", "Ångström/ñandú.wav", "한국/가.wav", "ё/й.wav", "plain.wav"]
)
def test_a_name_is_found_in_either_spelling_of_its_accents(name, written, on_disk, tmp_path):
    write(tmp_path, unicodedata.normalize(on_disk, name))
    asked = unicodedata.normalize(written, name)
    expected = tmp_path / unicodedata.normalize(on_disk, name)
    assert find_named(asked, tmp_path) == find_named(tmp_path / asked) == expected
    assert find_audio([tmp_path / asked]) == [expected]


def test_spellings_that_are_mixed_within_a_path_or_a_name_are_found(tmp_path):
    for name in ("e\u0301t\xe9.wav", "\xe9/e\u0301.wav", "e\u0301.d/\xe9.wav"):
        write(tmp_path, name)
        for form in ("NFC", "NFD"):
            assert find_named(unicodedata.normalize(form, name), tmp_path) == tmp_path / name
    # both are there: each is what it is called
    write(tmp_path, "o\u0308.wav", "\xf6.wav")
    for name in ("o\u0308.wav", "\xf6.wav"):
        assert find_named(name, tmp_path).name == name


def test_backslashes_of_windows_are_read_and_drives_refused(tmp_path):
    write(tmp_path, "clips/a.wav", "caf\xe9/b.wav", "back\\slash.wav")
    assert find_named("clips\\a.wav", tmp_path) == tmp_path / "clips" / "a.wav"
    assert find_named(".\\clips\\a.wav", tmp_path).samefile(tmp_path / "clips" / "a.wav")
    assert find_named("cafe\u0301\\b.wav", tmp_path) == tmp_path / "caf\xe9" / "b.wav"
    assert find_named("back\\slash.wav", tmp_path).name == "back\\slash.wav"
    for path in ("C:\\data\\a.wav", "d:/data/a.wav", "\\\\server\\share\\a.wav"):
        with pytest.raises(AudioError) as error:
            find_named(path, tmp_path)
        assert str(error.value).startswith(f"{path}: a path of Windows")


def test_an_error_says_what_was_tried(tmp_path):
    accents, slashes = "its accents as one code point and as two", "/ in place of \\"
    for name, tried in (
        ("a.wav", ""),
        ("é.wav", f" (tried also {accents})"),
        ("x\\a.wav", f" (tried also {slashes})"),
        ("x\\é.wav", f" (tried also {accents} and {slashes})"),
    ):
        with pytest.raises(AudioError) as error:
            find_named(name, tmp_path)
        assert str(error.value) == f"{tmp_path / name}: no such file{tried}"
        with pytest.raises(AudioError) as error:
            check_file(tmp_path / name)
        assert str(error.value) == f"{tmp_path / name}: no such file{tried}"
    for name in ("", "x" * 5000, "a\0b"):
        with pytest.raises(AudioError):
            find_named(name, tmp_path)


def test_what_is_no_file_is_named_for_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("nowhere")
    (tmp_path / "zero.wav").write_bytes(b"")
    for path, reason in (
        (tmp_path / "pipe.wav", "a pipe, and no file"),
        ("/dev/null", "a device, and no file"),
        (tmp_path / "link.wav", "a link to a file that is not there"),
        (tmp_path / "zero.wav", "an empty file"),
        (tmp_path, "a folder in which there is no audio file"),
        (tmp_path / "gone.wav", "no such file"),
        (tmp_path / "zero.wav" / "below.wav", "no such file"),
    ):
        with pytest.raises(AudioError) as error:
            check_file(path)
        assert str(error.value).startswith(f"{path}: {reason}")
