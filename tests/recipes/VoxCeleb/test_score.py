"""Scoring of trial lists by score.py: what it writes, that it repeats, and what it refuses in one line."""

import csv
import re
import shutil
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

from mamba_speech.evaluation.verification import TrialErrors, read_trial_scores
from mamba_speech.files import read_json
from mamba_speech.speaker.verifier import SpeakerVerifier
from tests.support.recipes import scripts
from tests.support.tested_runs import write_record
from tests.support.verification import write_run, write_voice
from training import compare
from training.results import read_results

RECIPE = Path(__file__).parents[3] / "recipes" / "VoxCeleb" / "SV"
RECORDINGS = 3
# speakers of the reported list, of a list of others, and of the cohort
REPORTED, OTHERS, COHORT = range(7), range(7, 11), range(11, 17)


def file_of(speaker, recording):
    return f"id{speaker:02d}/session {recording}/1.wav"


def write_list(path, speakers):
    """All pairs of recordings of these speakers, with tabs since folders hold blanks."""
    recordings = [(who, one) for who in speakers for one in range(RECORDINGS)]
    rows = [
        f"{int(a[0] == b[0])}\t{file_of(*a)}\t{file_of(*b)}" for a, b in combinations(recordings, 2)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Voices, two lists and a cohort; tests must not alter them."""
    folder = tmp_path_factory.mktemp("voices")
    for speaker in range(17):
        for recording in range(RECORDINGS):
            path = folder / "wav" / file_of(speaker, recording)
            write_voice(path, speaker, 0.7, seed=recording)
    write_list(folder / "mine.txt", REPORTED)
    write_list(folder / "others.txt", OTHERS)
    with open(folder / "cohort.csv", "w", newline="") as file:
        rows = [(who, folder / "wav" / file_of(who, one)) for who in COHORT for one in range(3)]
        csv.writer(file).writerows([("speaker", "wav"), *rows])
    return folder


@pytest.fixture
def run(tmp_path):
    """A run with random weights, of which nobody knows how it was trained."""
    return write_run(tmp_path / "run", threshold=None)


@pytest.fixture
def score(monkeypatch, run, corpus, capfd):
    """Call score.py as from the command line; gives what it prints, or the line that it ends with."""

    def call(*arguments, folder=corpus / "wav"):
        arguments = [str(run), *map(str, arguments), "--data_folder", str(folder)]
        with scripts(monkeypatch, RECIPE) as load:
            try:
                load("score").main([*arguments, "--resamples", "100", "--device", "cpu"])
            except SystemExit as error:
                return str(error)
        return capfd.readouterr().out

    return call


def test_scores_are_those_of_verify_and_figures_are_theirs(score, run, corpus):
    printed = score("--trials", corpus / "mine.txt")
    rows = read_trial_scores(run / "scores" / "scores_mine.csv")
    lines = (corpus / "mine.txt").read_text().splitlines()
    assert [f"{one.label}\t{one.enrolment}\t{one.test}" for one in rows.values()] == lines
    verifier = SpeakerVerifier.load(run, "cpu")
    for one in list(rows.values())[::40]:
        pair = (corpus / "wav" / file for file in (one.enrolment, one.test))
        first, second = (verifier.embed(path) for path in pair)
        assert one.score == pytest.approx(verifier.compare(first, second).score, abs=1e-12)
    errors = TrialErrors(*zip(*((one.label, one.score) for one in rows.values()), strict=True))
    found = read_results(run / "scores").tests["mine"]
    assert found.figures["EER"] == pytest.approx(100 * errors.eer()[0], abs=1e-4)
    assert found.figures["minDCF_0.05"] == pytest.approx(
        errors.min_dcf(0.05, normalise=True)[0], abs=1e-4
    )
    assert found.figures["EER_low"] <= found.figures["EER"] <= found.figures["EER_high"]
    assert found.conditions["drawn"] == "speakers" and found.items == 210
    for told in ("mine: 210 trials, 21 of them targets, 7 speakers; SHA-256", "mine.txt", "EER %"):
        assert told in printed
    assert f"{found.figures['EER']:.2f}" in printed


def test_every_way_of_scoring_is_reported_and_a_second_call_repeats_it(
    score, run, corpus, monkeypatch, caplog
):
    shutil.copyfile(corpus / "cohort.csv", run / "train.csv")
    options = ("--trials", corpus / "mine.txt", "--as_norm", "train", "--cohort_top", 4, "--plda")
    options += ("--calibrate", corpus / "others.txt")
    caplog.set_level("INFO")
    printed = score(*options, "--det")
    for measure in ("score", "lower log seconds", "lower magnitude", "higher cohort mean"):
        assert re.search(rf"calibrated on others: .*{measure} [+-]", caplog.text)
    names = ("mine", "mine.as_norm", "mine.calibrated", "mine.plda")
    tests = read_results(run / "scores").tests
    assert sorted(tests) == sorted(names)
    assert tests["mine.as_norm"].decoding["cohort"] == str(run / "train.csv")
    assert tests["mine.calibrated"].decoding["calibrated_on"] == str(corpus / "others.txt")
    files = {name: (run / "scores" / f"scores_{name}.csv").read_bytes() for name in names}
    assert len(set(files.values())) == len(names)
    for picture in ("det_mine.png", "histogram_mine.png"):
        assert matplotlib.image.imread(run / "scores" / picture)[..., :3].std() > 0.05
    # all embeddings are kept: no model runs again
    monkeypatch.setattr(
        "mamba_speech.speaker.embedding.embed_recording",
        lambda recording, *_: pytest.fail(f"{recording} was embedded again"),
    )
    assert score(*options) == printed
    again = {name: (run / "scores" / f"scores_{name}.csv").read_bytes() for name in names}
    assert again == files


def test_a_threshold_is_set_on_other_speakers_and_its_errors_are_reported(score, run, corpus):
    printed = score("--trials", corpus / "mine.txt", "--threshold_from", corpus / "others.txt")
    found = read_json(run / "save" / "threshold.json")
    assert (found["list"], found["trials"], found["speakers"]) == ("others", 66, 4)
    score("--trials", corpus / "others.txt")
    rows = read_trial_scores(run / "scores" / "scores_others.csv").values()
    errors = TrialErrors([one.label for one in rows], [one.score for one in rows])
    assert (found["eer"], found["threshold"]) == errors.eer()
    rows = read_trial_scores(run / "scores" / "scores_mine.csv").values()
    missed = np.mean([one.score <= found["threshold"] for one in rows if one.label])
    assert f"{100 * missed:.2f}" in printed and "on others (66 trials, 4 speakers)" in printed
    # alone, it reports no list
    assert score("--threshold_from", corpus / "mine.txt") == ""
    assert read_json(run / "save" / "threshold.json")["list"] == "mine"
    # no errors at a threshold that was set on the same trials
    assert "misses %" not in score("--trials", corpus / "mine.txt")
    assert "misses %" in score("--trials", corpus / "others.txt")


def test_scored_folders_are_compared_and_share_a_det_picture(score, run, corpus, tmp_path):
    for name, seed in (("run", 0), ("other", 5)):
        folder = write_run(tmp_path / name, seed=seed)
        write_record(folder, "x", seed=seed)
    score("--trials", corpus / "mine.txt")
    other = tmp_path / "scores of the other"
    with pytest.MonkeyPatch.context() as patch, scripts(patch, RECIPE) as load:
        words = ["--trials", str(corpus / "mine.txt"), "--data_folder", str(corpus)]
        words += ["--output_folder", str(other), "--resamples", "100", "--noprogressbar"]
        load("score").main([str(tmp_path / "other"), *words])
    systems = [f"a={run / 'scores'}", f"b={other}"]
    out = ["--out", str(tmp_path / "compared"), "--resamples", "100"]
    assert compare.main([*systems, *out]) == 0
    rows = read_json(tmp_path / "compared" / "compare.json")["rows"]
    eers = [read_results(one).tests["mine"].figures["EER"] for one in (run / "scores", other)]
    assert [row["mean"] for row in rows] == pytest.approx(eers, abs=1e-4)
    assert rows[1]["difference"]["estimate"] == pytest.approx(eers[1] - eers[0], abs=1e-4)
    score("--trials", corpus / "mine.txt", "--det")
    alone = (run / "scores" / "det_mine.png").read_bytes()
    score("--trials", corpus / "mine.txt", "--det", f"other={other}")
    assert (run / "scores" / "det_mine.png").read_bytes() != alone


def test_a_trained_run_scores_as_its_own_test_did(trained, voices, tmp_path, monkeypatch):
    words = ["--trials", str(voices / "veri_test2.txt"), "--data_folder", str(voices)]
    words += ["--as_norm", "train", "--output_folder", str(tmp_path), "--resamples", "100"]
    with scripts(monkeypatch, RECIPE) as load:
        load("score").main([str(trained), *words, "--device", "cpu"])
    own, found = (read_results(folder) for folder in (trained, tmp_path))
    assert found.training == own.training
    for figure, value in own.tests["veri_test2"].figures.items():
        if figure in ("EER", "minDCF", "minDCF_0.05"):
            assert found.tests["veri_test2"].figures[figure] == pytest.approx(value, abs=1e-4)
    scores = [read_trial_scores(one / "scores_veri_test2.csv") for one in (trained, tmp_path)]
    assert scores[0] == scores[1]


def test_tests_of_other_weights_leave_the_record(score, run, corpus):
    score("--trials", corpus / "mine.txt")
    score("--trials", corpus / "others.txt")
    assert set(read_results(run / "scores").tests) == {"mine", "others"}
    shutil.rmtree(run / "save")
    write_run(run, seed=3)
    score("--trials", corpus / "others.txt")
    assert set(read_results(run / "scores").tests) == {"others"}


def test_another_list_of_the_same_name_replaces_no_scores(score, run, corpus, tmp_path):
    score("--trials", corpus / "mine.txt")
    before = (run / "scores" / "scores_mine.csv").read_bytes()
    other = shutil.copy(corpus / "others.txt", tmp_path / "mine.txt")
    assert "holds the scores of another list called mine" in score("--trials", other)
    assert (run / "scores" / "scores_mine.csv").read_bytes() == before
    score("--trials", other, "--output_folder", tmp_path / "scores")
    assert set(read_results(tmp_path / "scores").tests) == {"mine"}


def test_folders_that_are_no_speakers_need_to_be_said(score, run, corpus, tmp_path):
    lines = (corpus / "mine.txt").read_text().splitlines()
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("\n".join([lines[2].replace("0", "1", 1), *lines[3:]]) + "\n")
    found = score("--trials", wrong)
    assert "1 of 208 labels contradict the speakers' folders, first in trial 1" in found
    assert "--no_speakers" in found
    assert "speakers not known" in score("--trials", wrong, "--no_speakers")
    assert read_results(run / "scores").tests["wrong"].conditions["drawn"] == "trials"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--trials", "{corpus}/none.txt"], "trial list .*none.txt does not exist"),
        (["--trials", "{corpus}/mine.txt", "{corpus}/mine.txt"], "two lists are called mine"),
        (["--trials", "{tmp}/absent.txt"], "absent.txt names .*elsewhere.*not in"),
        (["--trials", "{tmp}/flipped.txt"], "flipped.txt: every label is flipped"),
        (["--trials", "{corpus}/mine.txt", "--as_norm", "train"], "--as_norm train: .*train.csv"),
        (["--trials", "{corpus}/mine.txt", "--plda"], "--plda train: .*train.csv"),
        (["--trials", "{corpus}/mine.txt", "--as_norm", "{tmp}/x.csv"], "cohort .*x.csv is not"),
        (
            ["--trials", "{corpus}/mine.txt", "--plda", "{corpus}/mine.txt"],
            "mine.txt: has no column wav, speaker; its first line must name wav",
        ),
        (
            ["--trials", "{corpus}/mine.txt", "--as_norm", "{tmp}/same.csv"],
            "same.csv has no speaker besides",
        ),
        (
            ["--trials", "{corpus}/mine.txt", "--threshold_from", "{tmp}/one.txt"],
            r"--threshold_from one: has recordings in common with mine \(6, such as",
        ),
        (
            ["--trials", "{corpus}/mine.txt", "--calibrate", "{corpus}/mine.txt"],
            r"--calibrate mine: has recordings in common with mine \(21,",
        ),
        (
            ["--trials", "{tmp}/a.txt", "--calibrate", "{tmp}/b.txt"],
            r"--calibrate b: has speakers in common with a \(1, such as id01\)",
        ),
        (["--trials", "{tmp}/silent.txt"], "silent: .*silent/a/1.wav: holds 0.00 s of speech"),
    ],
)
def test_bad_input_is_one_line(score, corpus, tmp_path, arguments, reason):
    absent = "1 elsewhere/a/1.wav elsewhere/a/2.wav\n0 elsewhere/a/1.wav other/a/1.wav\n"
    (tmp_path / "absent.txt").write_text(absent)
    lines = (corpus / "mine.txt").read_text().splitlines()
    flipped = "\n".join(f"{1 - int(line[0])}{line[1:]}" for line in lines)
    (tmp_path / "flipped.txt").write_text(flipped)
    write_list(tmp_path / "one.txt", range(2))
    # one speaker in common, and no recording
    for name, own in (("a", ((0, 0), (0, 1), (1, 0))), ("b", ((1, 1), (1, 2), (2, 0)))):
        one, same, other = (file_of(*recording) for recording in own)
        (tmp_path / f"{name}.txt").write_text(f"1\t{one}\t{same}\n0\t{one}\t{other}\n")
    path = corpus / "wav" / file_of(0, 0)
    (tmp_path / "same.csv").write_text(f"speaker,wav\nid00,{path}\n")
    for name in ("silent/a/1.wav", "silent/a/2.wav", "loud/a/1.wav"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, np.zeros(16000), 16000)
    (tmp_path / "silent.txt").write_text(
        "1 silent/a/1.wav silent/a/2.wav\n0 silent/a/1.wav loud/a/1.wav\n"
    )
    arguments = [one.format(corpus=corpus, tmp=tmp_path) for one in arguments]
    folder = tmp_path if "silent" in arguments[1] else corpus / "wav"
    found = score(*arguments, folder=folder)
    assert found.startswith("error: ") and "\n" not in found
    assert re.search(reason, found), found


def test_a_run_of_another_task_and_bad_options_are_refused(corpus, tmp_path, monkeypatch, capfd):
    (tmp_path / "hyperparams.yaml").write_text(f"output_folder: {tmp_path}\nmodel: 1\n")
    words = ["--trials", str(corpus / "mine.txt"), "--data_folder", str(corpus)]
    with scripts(monkeypatch, RECIPE) as load:
        main = load("score").main
        with pytest.raises(SystemExit, match="hyperparams.yaml: lacks .*another task"):
            main([str(tmp_path), *words])
        with pytest.raises(SystemExit, match="nowhere: no such folder"):
            main([str(tmp_path / "nowhere"), *words])
        assert not (tmp_path / "nowhere").exists()
        for more, reason in (
            (["--cohort_top", "1"], "--cohort_top: must be a whole number from 2"),
            (["--resamples", "5"], "--resamples: must be a whole number from 100"),
            (["--det", "other"], "--det other: write NAME=FOLDER"),
            (["--threads", "0"], "--threads: must be a whole number from 1"),
            (["--seed", "-1"], "--seed: must be a whole number from 0"),
        ):
            with pytest.raises(SystemExit):
                main([str(tmp_path), *words, *more])
            assert reason in capfd.readouterr().err
        with pytest.raises(SystemExit):
            main([str(tmp_path), *words[2:]])
        assert "give --trials, or --threshold_from" in capfd.readouterr().err


def test_baselines_are_scored_without_a_run(corpus, voice_encoder, monkeypatch, capfd):
    arguments = ["--trials", str(corpus / "mine.txt"), "--data_folder", str(corpus / "wav")]
    with scripts(monkeypatch, RECIPE) as load:
        baselines = load("baselines")
        baselines.main([*arguments, "--resamples", "100"])
        assert re.search(r"mine +MFCC statistics +0.00 ", capfd.readouterr().out)
        monkeypatch.syspath_prepend(str(voice_encoder))
        baselines.main([*arguments, "--resamples", "100"])
        assert re.search(r"mine +Resemblyzer +\d", capfd.readouterr().out)
        with pytest.raises(SystemExit, match="nowhere.txt"):
            baselines.main(["--trials", "nowhere.txt", *arguments[2:]])
