"""One's own words: classes counted from the data, and tests of a trained model on other clips."""

import shutil

import pytest
import soundfile

from tests.support.keywords import RATE, SMALL, TASK, say, train_here
from tests.support.recipes import read_csv, results

VOICES = ["anna", "ben", "carl", "dora"]
OPTIONS = {"split": "auto", "n_classes": "null", "number_of_epochs": 1}
OPTIONS |= {"background_probability": 0, "computed_silence": 0}


def record(folder, words, voices=VOICES, numbers=2, suffix="flac"):
    """Recordings of words by voices, without lists and noise."""
    for word in words:
        (folder / word).mkdir(parents=True)
        for index, voice in enumerate(voices):
            for number in range(numbers):
                sound = say(word.lower(), f"{index + 16 * number:08x}")
                soundfile.write(folder / word / f"{voice}_{number}.{suffix}", sound, RATE)
    return folder


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A run on three words by four voices, and their folder; tests must not alter them."""
    folder = tmp_path_factory.mktemp("mine")
    record(folder / "words", ("up", "down", "stop"))
    options = TASK | OPTIONS | {"data_folder": folder / "words", "output_folder": folder / "run"}
    return folder / "words", train_here("debug", small=SMALL, **options)


@pytest.fixture
def test_on(mine, tmp_path):
    """Test a copy of the run on a folder; gives the run's folder."""
    shutil.copytree(mine[1], tmp_path / "run")

    def test(folder, **options):
        options = (
            TASK | OPTIONS | {"data_folder": folder, "output_folder": tmp_path / "run"} | options
        )
        return train_here("debug", "--test_only", small=SMALL, **options)

    return test


def test_classes_are_counted_and_voices_held_apart(mine):
    _, run = mine
    assert results(run)["clips"] == 6
    voices = [
        {row["speaker"] for row in read_csv(run / f"{split}.csv")}
        for split in ("train", "valid", "test")
    ]
    assert sum(map(len, voices)) == len(set.union(*voices)) == len(VOICES)


def test_a_run_is_tested_on_its_own_folder_as_it_was(mine, test_on):
    words, run = mine
    before = (run / "predictions_test.csv").read_bytes()
    assert (test_on(words) / "predictions_test.csv").read_bytes() == before


def test_other_clips_need_no_training_split_no_lists_and_not_every_word(mine, test_on, tmp_path):
    other = record(tmp_path / "other", ("Up", "stop"), voices=["xaver", "yvonne"], suffix="wav")
    manifest = (mine[1] / "train.csv").read_bytes()
    run = test_on(other)
    rows = read_csv(run / "predictions_test.csv")
    assert len(rows) == results(run)["clips"] == 8
    assert {row["said"] for row in rows} == {"up", "stop"}
    assert (run / "train.csv").read_bytes() == manifest


def test_lists_of_another_folder_choose_its_test(test_on, tmp_path):
    other = record(tmp_path / "other", ("up", "down"), voices=["xaver", "yvonne"])
    lines = [
        f"{word}/xaver_{n}.flac,{word},xaver,testing" for word in ("up", "down") for n in (0, 1)
    ]
    (other / "clips.csv").write_text("\n".join(["path,word,voice,part", *lines]) + "\n")
    assert results(test_on(other))["clips"] == 4


def test_clips_and_voices_that_trained_the_model_are_told(mine, test_on, tmp_path):
    words, _ = mine
    other = record(tmp_path / "other", ("down",), voices=["anna", "xaver"])
    (other / "up").symlink_to(words / "up")
    run = test_on(other)
    rows, log = read_csv(run / "predictions_test.csv"), (run / "log.txt").read_text()
    assert "clips trained this model, and are not tested" in log
    assert "have names of voices that trained the model" in log
    trained = {row["wav"] for row in read_csv(mine[1] / "train.csv")}
    assert not {row["wav"] for row in rows} & trained
    with pytest.raises(SystemExit, match="every clip of data_folder trained this model"):
        only = tmp_path / "only" / "up"
        only.mkdir(parents=True)
        for row in read_csv(mine[1] / "train.csv"):
            if row["label"] == "up":
                (only / row["wav"].rsplit("/", 1)[1]).symlink_to(row["wav"])
        test_on(only.parent)


@pytest.mark.parametrize(
    ("words", "message"),
    [(("stop2",), "has none of the model's words"), ((), "is not laid out like Speech Commands")],
)
def test_a_folder_without_the_words_gets_one_sentence(words, message, test_on, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for word in words:
        (other / word).mkdir()
        soundfile.write(other / word / "a_1.wav", say("up", "00000001"), RATE)
    with pytest.raises(SystemExit, match=message):
        test_on(other)


def test_another_word_in_the_folder_is_refused_for_the_trained_model(mine, tmp_path):
    words, run = mine
    shutil.copytree(words, tmp_path / "words")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "words" / "up").rename(tmp_path / "words" / "hello")
    options = (
        TASK | OPTIONS | {"data_folder": tmp_path / "words", "output_folder": tmp_path / "run"}
    )
    with pytest.raises(SystemExit, match="a model was trained here on other classes"):
        train_here("debug", small=SMALL, **options)
