"""Names in corpora: what systems leave beside the data, links, bytes that are no text, and accents of two forms."""

import csv
import os
import shutil
import unicodedata

import pytest

from data_prep.free_spoken_digits_prepare import prepare_free_spoken_digits
from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.mixtures.speech import find_speech
from data_prep.resample_speech import resample_speech
from data_prep.speechcommands_prepare import prepare_speechcommands
from data_prep.trials import locate
from data_prep.verify import NOT_UTF8
from data_prep.voxceleb_prepare import prepare_voxceleb
from data_prep.wsj0mix_prepare import prepare_wsj0mix
from tests.support.keyword_manifests import SPEAKERS
from tests.support.mixing import draw, write_noise

RATE = 8000


def librispeech(root):
    for split, speaker in (("train", "19"), ("test", "367")):
        chapter = root / "LibriSpeech" / split / speaker / "7"
        names = [f"{speaker}-7-{index:04d}" for index in range(3)]
        for name in names:
            write_noise(chapter / f"{name}.flac")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(f"{one} A B\n" for one in names))


def words(root):
    for word in ("yes", "no"):
        for speaker in SPEAKERS:
            write_noise(root / word / f"{speaker}_nohash_0.wav", 0.2)
    write_noise(root / "_background_noise_" / "hum.wav", 2)
    write_noise(root / "_other_speech_" / SPEAKERS[2] / "long.wav", 2)
    for word in ("yes", "no"):
        (root / "testing_list.txt").open("a").write(f"{word}/{SPEAKERS[0]}_nohash_0.wav\n")
        (root / "validation_list.txt").open("a").write(f"{word}/{SPEAKERS[1]}_nohash_0.wav\n")


def digits(root):
    for speaker in ("ann", "ben", "cy"):
        for index in (9, 10):
            write_noise(root / "recordings" / f"7_{speaker}_{index}.wav")


def voices(root):
    for number in range(6):
        for session in ("a", "b"):
            for index in (1, 2):
                write_noise(root / f"wav/id1000{number}/{session}/0000{index}.wav", 0.1)


def mixtures(root):
    for split in ("tr", "cv", "tt"):
        for name in ("s1", "s2", "mix"):
            write_noise(root / "wav8k/min" / split / name / f"{split}0.wav", 0.1)


def speech(root):
    for speaker in "abcdefgh":
        for index in range(3):
            write_noise(root / speaker / f"{index}.wav", 0.3)


def run_words(root, save):
    options = {"n_classes": "all", "split": "lists", "unknown_percentage": 10}
    return prepare_speechcommands(root, save, **options)


def run_other_speech(root, save):
    options = {"n_classes": ["yes"], "split": "lists", "other_speech_percentage": 100}
    return prepare_speechcommands(root, save, clip_seconds=0.2, **options)


def run_mixtures(root, save):
    return prepare_wsj0mix(root, save, sample_rate=RATE, check_sum=False)


# what writes a corpus, what prepares it, and the folder of it that gets another recording
CORPORA = {
    "librispeech": (
        librispeech,
        lambda root, save: prepare_librispeech(root, save, ["train"], [], ["test"]),
        "LibriSpeech/train/19/7/19-7-0000.flac",
    ),
    "words": (words, run_words, f"yes/{SPEAKERS[2]}_nohash_0.wav"),
    "other speech": (words, run_other_speech, f"_other_speech_/{SPEAKERS[2]}/long.wav"),
    "digits": (
        digits,
        lambda root, save: prepare_free_spoken_digits(root, save, "ann"),
        "recordings/7_ben_9.wav",
    ),
    "voices": (
        voices,
        lambda root, save: prepare_voxceleb(root, save, valid_speakers=2),
        "wav/id10000/a/00001.wav",
    ),
    "mixtures": (mixtures, run_mixtures, "wav8k/min/tr/mix/tr0.wav"),
    "speech to mix": (
        speech,
        lambda root, save: draw(save, root),
        "a/0.wav",
    ),
    "speech to resample": (
        speech,
        lambda root, save: resample_speech(root, save, RATE, 1),
        "a/0.wav",
    ),
}


@pytest.fixture(params=CORPORA)
def corpus(request, tmp_path):
    """A corpus, what prepares it, and a recording of it."""
    write, run, recording = CORPORA[request.param]
    root = tmp_path / "corpus"
    write(root)
    return root, run, root / recording


def prepared(folder, root):
    """The manifests, lists and sounds that a preparation wrote, without those of what was left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        kept = path.suffix in (".csv", ".wav", ".txt") and "skipped" not in name
        if path.is_file() and kept:
            found[name] = path.read_bytes().replace(os.fsencode(root), b"ROOT")
    return found


def litter(root):
    """What macOS, Windows, network disks and archives leave behind, loops, and links to nothing."""
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    copy = shutil.copytree(root, root.parent / "copy")
    for folder in folders:
        for path in [one for one in folder.iterdir() if one.is_file()]:
            (folder / f"._{path.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X\xff")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\xff\xfe")
        for name in ("__MACOSX", ".Trashes", "@eaDir"):
            shutil.copytree(copy / folder.relative_to(root), folder / name)
        (folder / "gone.wav").symlink_to("nowhere.wav")
        (folder / "gone.flac").symlink_to("nowhere")
        os.mkfifo(folder / "7_fifo_9.wav")
    # a word or a speaker may not have the name of a loop
    deepest = max(folders, key=lambda folder: len(folder.parts))
    (deepest / "loop").symlink_to(root)
    shutil.rmtree(copy)


def test_what_systems_leave_beside_the_data_changes_nothing(corpus, tmp_path, caplog):
    root, run, _ = corpus
    run(root, tmp_path / "before")
    clean = prepared(tmp_path / "before", root)
    assert clean
    litter(root)
    caplog.clear()
    run(root, tmp_path / "after")
    assert prepared(tmp_path / "after", root) == clean
    assert "nowhere" not in caplog.text and "link" in caplog.text and "pipe" in caplog.text


def test_a_name_that_is_no_text_costs_at_most_its_recording(corpus, tmp_path, caplog):
    root, run, recording = corpus
    run(root, tmp_path / "before")
    clean = prepared(tmp_path / "before", root)
    head, mark, tail = recording.name.rpartition("_nohash_")
    name = f"{head}\udce9{mark}{tail}" if mark else recording.name.replace(".", "\udce9_3.")
    if "7_ben" in name:
        name = os.fsdecode(b"7_b\xe9n_3.wav")
    shutil.copy(os.fsencode(recording), os.fsencode(recording.with_name(name)))
    run(root, tmp_path / "after")
    again = prepared(tmp_path / "after", root)
    lists = [*(tmp_path / "after").rglob("skipped*.csv")]
    told = "".join(path.read_text(encoding="utf-8") for path in lists)
    if "resample" in str(run.__code__.co_names):
        # a copy needs no list
        assert len(again) == len(clean) + 1 and not lists
        return
    assert again == clean
    assert "\\udce9" in told
    assert any(reason in told for reason in ("UTF-8", "<digit>", "no transcript"))
    run(root, tmp_path / "after")


def test_a_file_of_two_names_is_two_recordings_and_a_folder_of_two_names_two_folders(tmp_path):
    speech(tmp_path / "corpus")
    root = tmp_path / "corpus"
    (root / "a" / "9.wav").symlink_to("0.wav")
    (root / "z").symlink_to("a")
    (root / "z" / "loop").symlink_to("..")
    found = find_speech(root)[""]
    assert found["z"] == ["z/0.wav", "z/1.wav", "z/2.wav", "z/9.wav"] and len(found["a"]) == 4


@pytest.mark.parametrize("listed, on_disk", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_lists_find_names_in_either_form_of_accents(listed, on_disk, slash, tmp_path):
    root = tmp_path / "corpus"
    for word in ("né", "oui"):
        for number, speaker in enumerate(("zoé", "åsa", "tom")):
            name = unicodedata.normalize(on_disk, f"{word}/{speaker}_nohash_0.wav")
            write_noise(root / name, 0.2)
            line = unicodedata.normalize(listed, f"{word}{slash}{speaker}_nohash_0.wav\n")
            file = ("testing_list.txt", "validation_list.txt", "training_list.txt")[number]
            (root / file).open("a", encoding="utf-8").write(line)
    option = unicodedata.normalize(listed, "né")
    made = prepare_speechcommands(
        root,
        tmp_path / "save",
        n_classes=[option, "oui"],
        split="lists",
        unknown_percentage=0,
        silence_percentage=0,
    )
    for split in ("train", "valid", "test"):
        with open(made[split], newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 2 and all(os.path.isfile(row["wav"]) for row in rows)
    trial = unicodedata.normalize(listed, f"né{slash}zoé_nohash_0.wav")
    (path,) = locate([trial], [root.parent])
    assert os.path.isfile(path)


def test_a_word_whose_name_is_no_text_is_left_out_by_name(tmp_path, caplog):
    root = tmp_path / "corpus"
    words(root)
    folder = os.fsencode(root) + b"/n\xe9"
    shutil.copytree(os.fsencode(root / "no"), folder)
    made = run_words(root, tmp_path / "save")
    assert "1 words are left out" in caplog.text and NOT_UTF8 in caplog.text
    assert "n\\udce9" not in made["labels"].read_text()
    # one of many others: its clips are listed
    run_other_speech(root, tmp_path / "other")
    assert "n\\udce9" in (tmp_path / "other" / "skipped_train.csv").read_text()
