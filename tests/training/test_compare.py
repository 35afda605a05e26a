"""The comparison of systems: what its table covers, and short trainings of each task."""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from data_prep.mixtures.lists import Mixture, Source, write_list
from data_prep.spoken import generate_librispeech
from mamba_speech.evaluation.bootstrap import paired_difference
from mamba_speech.evaluation.classification import macro_f1, wilson_interval
from tests.support.keywords import SPEAKERS, TASK, write_corpus
from tests.support.recipes import results
from tests.support.separation import write_tree
from tests.support.tested_runs import (
    clips_of,
    write_recogniser,
    write_separator,
    write_spotter,
)
from training import compare, launch, scores

ROOT = Path(__file__).parents[2]
HPARAMS = ROOT / "hparams"
CTC = HPARAMS / "LibriSpeech/ASR/CTC/conmamba_debug.yaml"
KWS = HPARAMS / "SpeechCommands/KWS/debug.yaml"
TASNET = HPARAMS / "WSJ0Mix/separation/mambatasnet_debug.yaml"


def test_rows_hold_each_seed_and_the_paired_difference_with_the_first_system(
    tmp_path, compare_runs, capsys
):
    errors = {"base": [[2, 3, 1, 4], [3, 3, 2, 4]], "better": [[1, 1, 1, 2], [2, 1, 0, 4]]}
    systems = []
    for name, seeds in errors.items():
        folders = []
        for seed, counts in enumerate(seeds, start=1):
            folders.append(write_recogniser(tmp_path / name / str(seed), counts, seed=seed))
            write_recogniser(tmp_path / name / str(seed), counts[::-1], "dev", words=20, seed=seed)
        systems.append(f"{name}={','.join(folders)}")
    rows = compare_runs(*systems)
    assert list(rows) == list(itertools.product(("test", "dev"), ("base", "better")))
    base, better = rows["test", "base"], rows["test", "better"]
    assert base["by_seed"] == [25, 30] and base["mean"] == 27.5 and "difference" not in base
    assert base["low"] < 27.5 < base["high"] and base["seeds"] == [1, 2]
    assert better["by_seed"] == [12.5, 17.5] and better["deviation"] == pytest.approx(12.5**0.5)
    assert better["speakers"] == {"0": 12.5, "1": 17.5}
    means = (np.mean(errors[name], axis=0) for name in errors)
    expected = paired_difference(*means, [10] * 4, resamples=200, scale=100)
    found = better["difference"]
    assert [found[key] for key in expected._fields] == pytest.approx(list(expected))
    assert rows["dev", "better"]["difference"]["estimate"] == pytest.approx(found["estimate"] / 2)
    printed = capsys.readouterr().out
    assert "27.50 ± 3.54" in printed and "-12.50" in printed and "2 of 2 speakers" in printed
    table = (tmp_path / "out" / "compare.md").read_text()
    assert "| test | base | 1,234 |" in table and "python -m training.compare base=" in table
    assert not list((tmp_path / "out").glob("*.partial"))


def test_one_seed_has_no_deviation_and_only_common_test_sets_are_compared(
    tmp_path, compare_runs, capsys
):
    for name in "ab":
        write_recogniser(tmp_path / name, [1, 2])
    write_recogniser(tmp_path / "a", [1, 2], "extra")
    rows = compare_runs(f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert list(rows) == [("test", "a"), ("test", "b")]
    assert rows["test", "a"]["deviation"] is None and "±" not in capsys.readouterr().out


def test_more_seeds_of_the_same_items_do_not_narrow_the_interval(tmp_path, compare_runs):
    right, who = [True] * 30 + [False] * 10, [str(clip % 4) for clip in range(40)]
    folders = [write_spotter(tmp_path / str(seed), right, who, seed=seed) for seed in (1, 2, 3)]
    rows = compare_runs(f"once={folders[0]}", f"thrice={','.join(folders)}")
    once, thrice = rows.values()
    assert (once["low"], once["high"]) == (thrice["low"], thrice["high"])
    assert [once["low"], once["high"]] == pytest.approx([100 * e for e in wilson_interval(30, 40)])
    assert once["deviation"] is None and thrice["deviation"] == 0
    assert thrice["items"] == 40 and thrice["drawn"] == "items"


def test_figures_that_need_whole_runs_are_averaged_over_seeds(tmp_path, compare_runs):
    hits = [[1, 1, 0, 0], [1, 1, 1, 0]]
    spotters = [write_spotter(tmp_path / f"k{n}", own, seed=n) for n, own in enumerate(hits)]
    (row,) = compare_runs(f"a={','.join(spotters)}").values()
    assert row["mean"] == 62.5 and row["by_seed"] == [50, 75]
    expected = [macro_f1(clips_of(own, "abcd")) for own in hits]
    assert row["extras"]["macro F1 %"] == pytest.approx(statistics.fmean(expected))
    gains = np.array([8.0, 9.5, 10.5, 12.0])
    separators = [write_separator(tmp_path / f"s{n}", gains + n, seed=n) for n in (0, 1)]
    (row,) = compare_runs(f"a={','.join(separators)}").values()
    assert row["extras"]["below 10 dB, %"] == 25 and row["others"]["sdr_i"]["estimate"] == 10.5
    assert row["validation"] == [2, 2]


def test_few_speakers_give_their_range_and_enough_of_them_are_drawn(tmp_path, compare_runs, capsys):
    # half the speakers are always right, the others in one clip of two
    for speakers in (scores.FEWEST_SPEAKERS - 1, scores.FEWEST_SPEAKERS):
        right = [clip % 2 or clip // 60 % 2 for clip in range(60 * speakers)]
        who = [str(clip // 60) for clip in range(60 * speakers)]
        folder = write_spotter(tmp_path / str(speakers), right, who)
        (row,) = compare_runs(f"a={folder}", resamples=2000).values()
        printed = capsys.readouterr().out
        low, high = (100 * end for end in wilson_interval(sum(right), len(right)))
        assert (min(row["speakers"].values()), max(row["speakers"].values())) == (50, 100)
        if speakers < scores.FEWEST_SPEAKERS:
            assert "50.0 to 100.0" in printed and "other clips" in printed
            assert (row["low"], row["high"]) == pytest.approx((low, high))
        else:
            assert "50.0 to 100.0" not in printed and "other speakers" in printed
            assert row["low"] < low - 5 and row["high"] > high + 5


def test_speakers_who_are_all_right_leave_the_interval_that_so_many_clips_do(
    tmp_path, compare_runs
):
    folder = write_spotter(tmp_path / "a", [True] * 80, [str(clip // 8) for clip in range(80)])
    (row,) = compare_runs(f"a={folder}").values()
    assert row["drawn"] == "speakers" and row["high"] == 100
    assert row["low"] == pytest.approx(100 * wilson_interval(80, 80)[0])


def test_differences_are_paired_by_item_against_any_system(tmp_path, compare_runs):
    one = write_spotter(tmp_path / "one", [*([False] * 100), *([True] * 100)])
    two = write_spotter(tmp_path / "two", [*([False] * 130), *([True] * 70)])
    (first, second) = compare_runs(f"one={one}", f"two={two}").values()
    # the same errors on the same clips, and more of them: a paired difference is sure of that
    assert second["difference"]["estimate"] == -15 and second["difference"]["p"] < 0.02
    (first, second) = compare_runs(f"one={one}", f"two={two}", "--against", "two").values()
    assert first["difference"]["estimate"] == 15 and "difference" not in second


def test_with_the_speakers_of_mixtures_the_interval_is_over_them(tmp_path, compare_runs):
    pairs = [(n % 5, (n + 1 + n // 5 % 3) % 5) for n in range(30)]
    # a mixture's gain is its speakers' own
    folder = write_separator(tmp_path / "run", [sum(pair) for pair in pairs])
    mixtures = [
        Mixture(f"m{n}", tuple(Source(f"s{who}", (f"{who}.wav",), 0.0) for who in pair))
        for n, pair in enumerate(pairs)
    ]
    write_list(tmp_path / "tt.csv", mixtures)
    write_list(tmp_path / "few.csv", mixtures[:9])
    (items,) = compare_runs(f"a={folder}").values()
    (speakers,) = compare_runs(f"a={folder}", "--speakers", str(tmp_path / "tt.csv")).values()
    assert (items["drawn"], speakers["drawn"]) == ("items", "speakers")
    assert speakers["high"] - speakers["low"] > 1.5 * (items["high"] - items["low"])
    assert compare_runs(f"a={folder}", "--speakers", str(tmp_path / "few.csv")) == 2
    assert compare_runs(f"a={folder}", "--draw", "speaker") == 2


def test_of_several_values_of_an_option_the_best_in_validation_is_compared(
    tmp_path, compare_runs, capsys
):
    low = write_separator(tmp_path / "low", [9.0] * 6, validation=(1.0, 2.0), lr=0.001)
    high = write_separator(tmp_path / "high", [3.0] * 6, validation=(2.5, 1.5), lr=0.01)
    other = write_separator(tmp_path / "other", [5.0] * 6)
    assert compare_runs(f"a={low},{high}", f"b={other}") == 2
    assert "choose between them by --choose" in capsys.readouterr().err
    first, second = compare_runs(f"a={low},{high}", f"b={other}", "--choose", "lr").values()
    assert (first["value"], first["mean"], first["validation"]) == (0.01, 3, [2.5])
    assert second["difference"]["estimate"] == pytest.approx(2)
    tried = json.loads((tmp_path / "out" / "compare.json").read_text())["runs"]
    assert [(one["value"], one["validation"]) for one in tried] == [
        (0.001, 2),
        (0.01, 2.5),
        (0.001, 2),
    ]
    assert "best validation" in (tmp_path / "out" / "compare.md").read_text()
    image = matplotlib.image.imread(tmp_path / "out" / "validation.png")
    assert image[..., :3].std() > 0.02
    # by a published name too
    assert compare_runs(f"a={low}", "--choose", "base_lr")
    assert compare_runs(f"a={low}", "--choose", "rate") == 2
    assert "--choose rate: " in capsys.readouterr().err


def test_left_out_speakers_are_pooled_and_each_has_a_column(tmp_path, compare_runs, capsys):
    """Trainings that have ended before, so that none is started."""
    arguments = [f"good={KWS}", f"bad={KWS},lr=0.1", "--seeds", "1,2"]
    arguments += ["--each", "test_speaker=ann,bob,cat", "--data_folder", "digits"]
    options, passed_on = compare.read_arguments([*arguments, "--out", str(tmp_path / "out")])
    for system in options.systems:
        for one in compare.training_runs(system, options, passed_on):
            one.note(finished=True)
            # fewer clips of one speaker: pooled clips, not the mean of speakers
            count = 10 if one.part == "ann" else 30
            right = [one.system == "good" or one.part != "bob" or n % 2 for n in range(count)]
            write_spotter(one.folder, right, one.part, seed=one.seed)
    good, bad = compare_runs(*arguments).values()
    assert (good["mean"], good["items"], good["runs"], good["seeds"]) == (100, 70, 6, [1, 2])
    assert bad["mean"] == pytest.approx(100 * 55 / 70)
    assert bad["speakers"] == {"ann": 100, "bob": 50, "cat": 100}
    assert bad["difference"]["estimate"] == pytest.approx(-100 * 15 / 70)
    printed = capsys.readouterr().out
    assert "12 of 12 finished before" in printed and "0 of 3 speakers" in printed
    assert all(f" {who} " in printed.splitlines()[1] for who in ("ann", "bob", "cat"))


def test_options_keep_the_commas_of_their_lists_and_own_yamls_have_a_script(tmp_path):
    own = shutil.copy(CTC, tmp_path / "own.yaml")
    script = ROOT / "recipes/LibriSpeech/ASR/train_CTC.py"
    arguments = [f"a={own},fidelity=upstream,test_splits=[a, b,c],lr=0.1", "--seeds", "4"]
    options, _ = compare.read_arguments([*arguments, "--script", str(script)])
    (one,) = compare.training_runs(options.systems[0], options, ["--debug"])
    given = launch.given_options(one.options)
    assert given == {
        "seed": "4",
        "fidelity": "upstream",
        "test_splits": "[a, b,c]",
        "lr": "0.1",
        "debug": "True",
        "noprogressbar": "True",
    }


SMALL = {
    "speech recognition": "--train_splits [train-spoken] --dev_splits [dev-spoken] "
    "--test_splits [dev-spoken,test-spoken] --d_model 16 --d_ffn 16 --optimizer_step_limit 2",
    "keyword spotting": " ".join(f"--{name} {value}" for name, value in TASK.items())
    + " --number_of_epochs 1",
    "separation": "--N_encoder_out 16 --out_channels 8 --kernel_size 16 --N_epochs 1 --n_audio_to_save 0",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("task", "yaml", "make"),
    [
        (
            "speech recognition",
            CTC,
            lambda folder: generate_librispeech(folder, 40 / 3600, 1 / 6, 1 / 6),
        ),
        ("keyword spotting", KWS, write_corpus),
        ("separation", TASNET, write_tree),
    ],
    ids=("ASR", "KWS", "separation"),
)
def test_one_command_trains_two_systems_goes_on_after_a_failure_and_says_the_same_again(
    tmp_path, task, yaml, make
):
    make(tmp_path / "corpus")

    def compare_runs(*systems):
        command = [
            sys.executable,
            "-m",
            "training.compare",
            *systems,
            "--out",
            str(tmp_path / "out"),
        ]
        command += ["--seeds", "1,2", "--jobs", "2", "--resamples", "200", "--num_workers", "0"]
        command += ["--data_folder", str(tmp_path / "corpus"), *SMALL[task].split()]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )

    broken = compare_runs(f"corrected={yaml}", f"upstream={yaml},grad_accumulation_factor=1000000")
    assert broken.returncode == 1 and broken.stdout.count(": failed: ") == 2, broken.stdout
    systems = f"corrected={yaml}", f"upstream={yaml},fidelity=upstream"
    done = compare_runs(*systems)
    assert done.returncode == 0 and "2 of 4 finished before" in done.stdout, done.stdout[-3000:]
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["fidelity"] for row in found["rows"][:2]] == ["corrected", "upstream"]
    for row in found["rows"]:
        folder = tmp_path / "out" / row["system"] / "1"
        told = results(folder, row["test set"])[found["metric"]]
        assert row["by_seed"][0] == pytest.approx(told, abs=0.01) and min(row["train_seconds"]) > 0
    if task == "keyword spotting":
        assert set(found["rows"][0]["speakers"]) == set(SPEAKERS[-2:])
    again = compare_runs(*systems)
    assert "4 of 4 finished before" in again.stdout
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found
