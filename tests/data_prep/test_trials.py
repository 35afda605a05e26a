"""Trial lists: formats, names, faults, and the search for their recordings."""

import numpy as np
import pytest

from data_prep.trials import OFFICIAL, find_list, locate, read_trials, write_trials


@pytest.fixture
def write(tmp_path):
    """A function that writes a list and gives its path."""

    def write_list(text, name="list.txt", encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return write_list


@pytest.mark.parametrize(
    "text",
    [
        "1 a/x/1.wav a/y/2.wav\n0 a/x/1.wav b/x/1.flac\n",
        "1\ta/x/1.wav\ta/y/2.wav\r\n0\ta/x/1.wav\tb/x/1.flac\r\n",
        "target a/x/1.wav a/y/2.wav\n\nnontarget a/x/1.wav b/x/1.flac",
        "a/x/1.wav a/y/2.wav target\na/x/1.wav b/x/1.flac nontarget\n",
        "a/x/1.wav a/y/2.wav tgt\na/x/1.wav b/x/1.flac imp\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_every_published_form_of_a_list_gives_the_same_trials(write, text, encoding):
    trials = read_trials(write(text, encoding=encoding))
    assert trials.labels.dtype == np.int8 and trials.labels.tolist() == [1, 0]
    assert trials.enrolment.dtype == trials.test.dtype == np.int32
    assert trials.enrolment.tolist() == [0, 0] and trials.test.tolist() == [1, 2]
    assert trials.files == ["a/x/1.wav", "a/y/2.wav", "b/x/1.flac"]
    assert (len(trials), trials.name, trials.paths, trials.duplicates) == (2, "list", None, 0)


def test_paths_with_blanks_are_read_where_tabs_separate_the_fields(write):
    trials = read_trials(write("1\ta b/x/1.wav\ta b/y/2.wav\n0 a b/x/1.wav\tc/x/1.wav\n"))
    assert trials.files == ["a b/x/1.wav", "a b/y/2.wav", "c/x/1.wav"]
    with pytest.raises(ValueError, match=r"list.txt, line 1: 5 fields .* separate .* with tabs"):
        read_trials(write("1 a b/x/1.wav a b/y/2.wav\n"))


def test_written_trials_are_read_again_with_and_without_blanks(tmp_path):
    for files in (["a/1.wav", "b/1.wav"], ["a c/1.wav", "b\u00a0d/1.wav"]):
        write_trials(tmp_path / "mine.txt", [(1, files[0], files[0]), (0, *files)])
        trials = read_trials(tmp_path / "mine.txt")
        assert trials.files == files and trials.labels.tolist() == [1, 0]


def test_keys_of_voices_find_the_recordings_of_their_models(write):
    write("m1 sid_dev/sp1/enrol.wav\n", "dev-enroll.lst")
    keys = write("m1 sid_dev/sp1/a.wav tgt\nm1 sid_dev/sp2/b.wav imp\n", "dev-trial-keys.lst")
    trials = read_trials(keys)
    assert trials.files == ["sid_dev/sp1/enrol.wav", "sid_dev/sp1/a.wav", "sid_dev/sp2/b.wav"]
    write("m1 sid_dev/sp1/enrol.wav\nm1 sid_dev/sp1/second.wav\n", "dev-enroll.lst")
    with pytest.raises(ValueError, match="dev-enroll.lst, line 2: not a model with its one"):
        read_trials(keys)
    (keys.parent / "dev-enroll.lst").unlink()
    with pytest.raises(FileNotFoundError, match="names models; put its list of enrolments"):
        read_trials(keys)
    keys.write_text("m2 sid_dev/sp1/a.wav tgt\nm1 sid_dev/sp2/b.wav imp\n")
    write("m1 sid_dev/sp1/enrol.wav\n", "dev-enroll.lst")
    with pytest.raises(ValueError, match="keys.lst, line 1: the model m2 is not in its list"):
        read_trials(keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.txt is empty"),
        ("\n \n", "list.txt is empty"),
        ("1 a b\n1 a c\n", "2 target trials and no impostor trial"),
        ("0 a b\n", "1 impostor trials and no target trial"),
        ("1 a b\n0 a\n", "line 2: not a trial"),
        ("1 a b\n2 a b\n", "line 2: no label in '2 a b'"),
        ("1 a b\n\nmaybe a b\n", "line 3: no label in 'maybe a b'"),
    ],
)
def test_a_bad_list_is_one_error_that_names_the_file_and_line(write, text, message):
    with pytest.raises(ValueError, match=rf"list.txt.*{message}|{message}"):
        read_trials(write(text))


def test_a_list_that_is_missing_or_no_text_is_named(write, tmp_path):
    with pytest.raises(FileNotFoundError, match="trial list .*none.txt does not exist"):
        read_trials(tmp_path / "none.txt")
    (tmp_path / "sound.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="sound.txt is not UTF-8"):
        read_trials(tmp_path / "sound.txt")


def test_repeated_trials_stay_and_are_counted(write, caplog):
    trials = read_trials(write("1 a b\n1 a b\n0 a c\n0 c a\n1 a b\n"))
    assert len(trials) == 5 and trials.duplicates == 2
    assert "2 of 5 trials repeat an earlier one" in caplog.text


def test_only_a_list_with_the_official_name_and_size_is_called_by_the_published_name(write):
    (file, size), name = ("veri_test2.txt", 37611), "vox1-O-clean"
    assert OFFICIAL[file, size] == name
    lines = [f"{k % 2} id1/a/{k % 91}.wav id2/b/{k % 97}.wav\n" for k in range(size)]
    assert read_trials(write("".join(lines), file)).name == name
    assert read_trials(write("".join(lines[1:]), file)).name == "veri_test2"
    assert len(set(OFFICIAL.values())) == 8


def test_a_published_list_is_found_by_its_name(tmp_path):
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "list_test_hard2.txt").touch()
    assert find_list("vox1-H-clean", [tmp_path]) == tmp_path / "meta" / "list_test_hard2.txt"
    with pytest.raises(FileNotFoundError, match=r"vox1-O is the file veri_test.txt.*get it from"):
        find_list("vox1-O", [tmp_path])
    (tmp_path / "mine.txt").write_text("1 a b\n")
    assert find_list("mine.txt", [tmp_path]) == tmp_path / "mine.txt"
    with pytest.raises(FileNotFoundError, match=r"vox1-X does not exist, .*one of .*vox1-E-clean"):
        find_list("vox1-X", [tmp_path])


@pytest.mark.parametrize("below", ["", "wav", "vox1_test_wav/wav", "a/b/c/d"])
def test_recordings_are_found_in_any_nesting_of_several_folders(tmp_path, below):
    wanted = tmp_path / "second" / below / "id1" / "x" / "1.flac"
    other = tmp_path / "first" / "id2" / "x" / "1.wav"
    for path in (wanted, other):
        path.parent.mkdir(parents=True)
        path.touch()
    found = locate(["id1/x/1.wav", "id2/x/1.wav"], [tmp_path / "first", tmp_path / "second"])
    assert found == [str(wanted), str(other)]
    assert locate([str(wanted)], tmp_path / "first") == [str(wanted)]


def test_plain_file_names_are_found_where_the_files_lie(tmp_path):
    paths = [tmp_path / "voxsrc" / "VoxSRC2023_val" / f"{name}.wav" for name in "ab"]
    paths[0].parent.mkdir(parents=True)
    for path in paths:
        path.touch()
    assert locate(["b.wav", "a.wav"], tmp_path) == [str(path) for path in reversed(paths)]


def test_missing_recordings_are_one_error_with_the_first_and_the_count(write, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.wav").touch()
    file = write("1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n0 a/1.wav c/1.wav\n")
    with pytest.raises(FileNotFoundError, match=r"list.txt names a/2.wav and 2 others of 4 record"):
        read_trials(file, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_trials(file, tmp_path / "nowhere")


@pytest.mark.data("libri_voxceleb")
def test_lists_of_real_speech_are_read_and_their_recordings_found(data):
    folder = data("libri_voxceleb")
    trials = read_trials(folder / "veri_test2.txt", folder)
    assert (len(trials), int(trials.labels.sum()), trials.name) == (804, 402, "veri_test2")
    assert len(trials.paths) == len(set(trials.paths)) == 96
