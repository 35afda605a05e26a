"""The benchmark of noise: what it mixes, what it counts, and that the systems it compares are of equal size."""

import json

import numpy as np
import pytest
import soundfile

from tests.support.benchmarks import FOLDER, run
from tests.support.keywords import RATE, SMALL, TASK, say, train_here, write_corpus
from tests.support.recipes import call_main, load_options, results


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network of one epoch on tones; and noise recordings of two kinds."""
    folder = tmp_path_factory.mktemp("noise")
    options = TASK | SMALL | {"data_folder": write_corpus(folder / "corpus")}
    train_here("gru", small=SMALL, output_folder=folder / "run", number_of_epochs=1, **options)
    random = np.random.default_rng(0)
    for kind in ("hiss", "rumble"):
        (folder / "noises" / kind).mkdir(parents=True)
        sound = 0.1 * random.standard_normal(3 * RATE)
        soundfile.write(folder / "noises" / kind / "1-a.wav", sound, RATE)
    return folder


def test_the_ratio_is_that_of_the_active_speech_to_the_noise(load):
    mixing = load("noise_mixing")
    word = say("up", "00000001", 0.5)
    piece = np.random.default_rng(0).standard_normal(2 * RATE)
    for pause in (0, RATE):  # silence beside the word does not count as speech
        clip = np.pad(word, (0, 2 * RATE - len(word) - pause))
        for snr in (20, 0):
            noise = mixing.mix(clip, piece[: len(clip)], snr, RATE) - clip
            level = 10 * np.log10(np.square(word).mean() / np.square(noise).mean())
            assert level == pytest.approx(snr, abs=2.5)
    lower = mixing.mix(clip, piece[: len(clip)], 10, RATE) - clip
    assert np.sqrt(np.square(noise).mean() / np.square(lower).mean()) == pytest.approx(
        10**0.5, rel=0.01
    )


def test_a_clip_gets_one_noise_whatever_else_is_drawn_and_kinds_are_equally_frequent(load):
    mixing = load("noise_mixing")
    random = np.random.default_rng(1)
    # three recordings of one kind, and one of another that is silent but for its end
    noises = [mixing.Noise("a", random.standard_normal(RATE)) for _ in range(3)]
    late = np.r_[np.zeros(9 * RATE), random.standard_normal(RATE)]
    noises.append(mixing.Noise("b", late))
    drawn = {str(n): mixing.draw_noise(noises, str(n), RATE // 2, seed=5) for n in range(200)}
    assert 70 < sum(kind == "a" for kind, _ in drawn.values()) < 130
    assert all(np.square(piece).mean() == pytest.approx(1) for _, piece in drawn.values())
    for name in ("150", "3"):
        kind, piece = mixing.draw_noise(noises, name, RATE // 2, seed=5)
        assert kind == drawn[name][0] and np.array_equal(piece, drawn[name][1])
    assert not np.array_equal(mixing.draw_noise(noises, "3", RATE // 2, seed=6)[1], piece)


def test_a_finished_run_is_tested_clean_and_at_each_ratio(load, trained, monkeypatch):
    noise = load("noise")
    given = ["mine=" + str(trained / "run"), "--noises", str(trained / "noises"), "--babble", ""]
    options = noise.options_of([*given, "--fold", "", "--snrs", "100", "0", "-30"])
    test = noise.measure(options)
    found = test["systems"]["mine"]["accuracy"]
    result = results(trained / "run")
    assert found["clean"]["mean"] == pytest.approx(result["accuracy"], abs=1e-3)
    assert found["100"]["mean"] == found["clean"]["mean"] and test["clips"] == 6
    assert test["noises"] == {"hiss": 1, "rumble": 1}
    # 6 clips, each under one noise
    by_kind = test["systems"]["mine"]["by_noise"]["-30"]
    assert set(by_kind) <= {"hiss", "rumble"} and 0 <= min(by_kind.values())
    (row,) = load("noise_tables").rows_of({"t": test})
    assert row["100 dB"] == f"{result['accuracy']:.1f}" and row["runs"] == 1
    elsewhere = noise.options_of([*given, "--fold", "", "--data_folder", str(trained / "corpus")])
    elsewhere.part = ["valid", "test"]
    again = noise.measure(elsewhere)
    assert again["clips"] == 12


def test_the_systems_have_one_size_and_one_training_and_hear_no_noise_of_the_tests(load, tmp_path):
    training = load("noise_training")
    sizes, lines = {}, {}
    for family in training.FAMILIES:
        line, folder = training.command("spoken", family, "noise", 1, 5, "corpus", tmp_path)
        assert folder == tmp_path / "spoken" / family / "noise" / "1"
        line[2] = str(FOLDER.parent / "hparams" / "SpeechCommands" / "KWS" / line[2].split("/")[-1])
        hparams, _ = load_options(line[2:-1])
        sizes[family] = sum(p.numel() for p in hparams["model"].parameters())
        lines[family] = dict(zip(line[3:-1:2], line[4:-1:2], strict=True))
        assert hparams["background"] is None and hparams["background_generated"] == 0.5
    assert max(sizes.values()) < 1.02 * min(sizes.values()), sizes
    for name in ("--batch_size", "--optimizer_step_limit", "--background_snr", "--label_smoothing"):
        assert len({line[name] for line in lines.values()}) == 1


def test_the_table_tells_both_goals_and_the_plot_has_a_line_for_each_system(load):
    tables = load("noise_tables")

    def system(clean, under_noise):
        means = {"clean": clean, "10": under_noise}
        accuracy = {name: {"mean": mean, "low": 0, "high": 99} for name, mean in means.items()}
        by_noise = {"10": {"rain": 61.2}}
        return {"parameters": 5, "runs": 2, "accuracy": accuracy, "by_noise": by_noise}

    systems = {"GRU / clean": system(95.0, 60.0), "GRU / noise": system(93.5, 90.0)}
    tests = {"words": {"clips": 9, "noises": {"rain": 1}, "systems": systems}}
    clean, noise, *published = tables.rows_of(tests, published=True)
    assert (clean[tables.BELOW], clean[tables.FALL]) == ("35.0", "-")
    assert (noise[tables.BELOW], noise[tables.FALL]) == ("3.5", "1.5")
    assert [row["10 dB"] for row in published] == ["16.0", "28.6"]
    assert tables.kinds_of(tests)[0]["rain"] == "61"
    figures = []
    tables.draw(tests, figures.append)
    lines = figures[0].axes[0].get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[95.0, 60.0], [93.5, 90.0]]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{tmp}"], "results.json|hyperparams|no run|not"),
        (["{run}", "--noises", "{tmp}"], "--noises"),
        (["{run}", "--fold", "9"], "no noise recording of fold 9"),
        (["{run}", "--data_folder", "{tmp}/nowhere"], "--data_folder: .*does not exist"),
        (["{run}", "--babble", "{noises}/hiss"], "three folders of talkers"),
    ],
    ids=str,
)
def test_what_cannot_be_tested_is_said_in_one_sentence(arguments, message, trained, tmp_path):
    places = {"tmp": tmp_path, "run": trained / "run", "noises": trained / "noises"}
    given = [argument.format(**places) for argument in arguments]
    for name, default in (("--noises", places["noises"]), ("--babble", ""), ("--fold", "")):
        given += [] if name in given else [name, str(default)]
    with pytest.raises(SystemExit, match=message):
        call_main(FOLDER, "noise", *given)


@pytest.mark.exhaustive
def test_a_short_run_of_the_whole_writes_tables_and_a_plot(tmp_path, data):
    data("wake_words")
    done = run(
        *("noise.py", "--corpora", "wake_words", "--families", "GRU", "DS-CNN", "--steps", 2),
        *("--work", tmp_path / "work", "--out", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "noise_table.json").read_text())
    assert [row["system / training"] for row in rows[:4]] == [
        f"{family} / {training}" for training in ("clean", "noise") for family in ("GRU", "DS-CNN")
    ]
    assert (tmp_path / "noise.png").stat().st_size > 10_000
