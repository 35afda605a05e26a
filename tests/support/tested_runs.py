"""Folders of tested runs as the recipes' scripts leave them, with scores that a test chooses."""

import csv

import numpy as np

from mamba_speech.evaluation.classification import Prediction, write_predictions
from mamba_speech.evaluation.verification import write_trial_scores
from training.results import (
    FILE_NAME,
    VERSION,
    Record,
    Result,
    Session,
    Training,
    read_results,
    write_results,
)


def write_record(folder, test_set, seed=1, train_seconds=60.0, **figures):
    """What a training script leaves beside a test set's items."""
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(fidelity="corrected", seeds={"seed": seed}, device="cpu")
    cost = {"optimizer_steps": 7, "parameters": 1234, "peak_memory_mb": None}
    training = Training(None, None, train_seconds, epochs=1, sessions=[session], **cost)
    result = Result(
        figures=figures,
        items=None,
        manifest=None,
        decoding=None,
        conditions={},
        checkpoints=None,
        train_seconds=train_seconds,
        date=None,
        session=session,
        **cost,
    )
    tests = read_results(folder).tests if (folder / FILE_NAME).exists() else {}
    write_results(folder, Record(VERSION, None, training, tests | {test_set: result}))
    return str(folder)


def write_recogniser(folder, errors, test_set="test", words=10, **figures):
    write_record(folder, test_set, **figures)
    with open(folder / f"errors_{test_set}.csv", "w", newline="") as file:
        rows = [(f"{number // 2}-{number}", words, error) for number, error in enumerate(errors)]
        csv.writer(file).writerows([("id", "words", "errors"), *rows])
    return str(folder)


def clips_of(right, speaker):
    return [
        Prediction(f"{who}_{clip:03d}", "a.wav", who, "yes", "yes" if hit else "no", 0.5)
        for clip, (hit, who) in enumerate(zip(right, speaker, strict=True))
    ]


def write_spotter(folder, right, speaker=None, **figures):
    """A keyword run whose clips were right or not; by default each clip has a speaker of its own."""
    write_record(folder, "test", **figures)
    speakers = [str(clip) for clip in range(len(right))] if speaker is None else speaker
    speakers = [speakers] * len(right) if isinstance(speakers, str) else speakers
    write_predictions(folder / "predictions_test.csv", clips_of(right, speakers))
    return str(folder)


def write_separator(folder, gains, validation=(1.0, 2.0), lr=0.001, **figures):
    write_record(folder, "test", **figures)
    (folder / "hyperparams.yaml").write_text(f"output_folder: {folder}\nlr: {lr}\n")
    line = "epoch: {}, lr: 1.0e-03, steps: 5 - train loss: -1.0, train seconds: 30 - valid si-snr_i: {}\n"
    lines = [line.format(number, value) for number, value in enumerate(validation, start=1)]
    (folder / "train_log.txt").write_text("".join(lines))
    with open(folder / "test_results.csv", "w", newline="") as file:
        rows = [(f"m{number}", gain, gain - 1, gain) for number, gain in enumerate(gains)]
        rows.append(("avg", *[np.mean(gains)] * 3))
        csv.writer(file).writerows([("snt_id", "sdr_i", "si-snr", "si-snr_i"), *rows])
    return str(folder)


def write_verifier(folder, labels, enrolment, test, scores, test_set="mine", **figures):
    """A speaker run with these trials; a file is ``SPEAKER/SESSION/FILE``."""
    write_record(folder, test_set, **figures)
    write_trial_scores(folder / f"scores_{test_set}.csv", labels, enrolment, test, scores)
    return str(folder)
