#!/usr/bin/env python3
"""Accuracy of keyword networks under noise that they have not heard in training, at several ratios to the speech.

    python benchmarks/noise.py RUN... [--snrs 20 10 0] [--data_folder CORPUS --split lists --part test]
        [--noises FOLDER...] [--fold 3] [--babble FOLDER]
    python benchmarks/noise.py [--corpora spoken wake_words] [--seeds 1] [--steps 700] [--work FOLDER] [--out FOLDER]

A RUN is the output folder of a finished training, or NAME=FOLDER,FOLDER for the seeds of one system. By default it is
tested on its own test clips, and $SPEECH_DATA has the noises: fold 3 of ESC-10, and babble of LibriSpeech's
talkers. The ratio compares the active speech level (ITU-T P.56) with the noise. Without a RUN all families are trained,
without noise and with it, and tested. Figures go to noise.json, noise_table.json and noise.png.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from measure import add_out, machine, save_figure
from noise_mixing import (
    PARTS,
    corpus_clips,
    default_noises,
    draw_noise,
    make_babble,
    mix,
    read_noises,
    run_clips,
)
from noise_tables import draw, kinds_of, rows_of
from noise_training import CORPORA, FAMILIES, TRAININGS, make_corpus, train_all

from mamba_speech.arguments import given_path, number, whole_number
from mamba_speech.audio import AudioError
from mamba_speech.evaluation.bootstrap import mean_interval
from mamba_speech.evaluation.classification import wilson_interval
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_json
from mamba_speech.kws.spotter import KeywordSpotter
from modules.kws.classifier import centred

SNRS = (20, 10, 0)
STEPS = 700
TITLES = {"spoken": "Spoken commands", "wake_words": "Wake words"}
RECORDED = "Recorded commands"
CLEAN = "clean"
BATCH = 32
# as the recipe's tables do: from so many speakers on, the interval is over other speakers
ENOUGH_SPEAKERS = 6


def load_systems(options):
    """The systems, by name: the spotters of their seeds.

    Raises
    ------
    SystemExit
        If a run cannot be loaded.
    """
    folders = {}
    for text in options.runs_named:
        name, given, listed = text.partition("=")
        folders[name] = listed.split(",") if given else [text]
    try:
        return {
            name: (places, [KeywordSpotter.load(place, options.device) for place in places])
            for name, places in folders.items()
        }
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(str(error)) from error


def find_clips(systems, options):
    """The test clips, and the classes; all systems must agree on both."""
    clips, labels = None, None
    for places, spotters in systems.values():
        for place, spotter in zip(places, spotters, strict=True):
            if labels not in (None, spotter.labels):
                raise SystemExit(
                    f"{place}: its classes are not those of the first run: test it alone"
                )
            labels = spotter.labels
            if not options.data_folder:
                own = run_clips(place)
                if clips is not None and [one.name for one in own] != [one.name for one in clips]:
                    raise SystemExit(
                        f"{place}: its test clips are not those of the first run: give --data_folder"
                    )
                clips = own
    if options.data_folder:
        seconds = spotter.window / spotter.sample_rate
        clips = corpus_clips(options.data_folder, labels, options.split, options.part, seconds)
    return clips, labels


class Mixer:
    """The waveforms of a clip as the systems of one sample rate and window hear it, clean and at each ratio."""

    def __init__(self, options, rate, window):
        self.rate, self.window, self.options = rate, window, options
        self.noises = read_noises(options.noises, rate, options.fold or None)
        if options.babble:
            self.noises += make_babble(options.babble, rate, options.seed)

    def __call__(self, clip):
        """Kind of the noise, and waveforms (samples,): clean, then one for each ratio."""
        waveform = clip.load(self.rate)
        if self.window:
            # the noise goes on where the word is over
            waveform = centred(waveform, self.window)
        kind, piece = draw_noise(self.noises, clip.name, len(waveform), self.options.seed)
        mixed = [mix(waveform.numpy(), piece, snr, self.rate) for snr in self.options.snrs]
        return kind, [waveform, *map(torch.from_numpy, mixed)]


def measure(options):
    """Test all systems on all clips.

    Returns
    -------
    dict
        Of the test: ``clips``, ``speakers``, ``noises`` (recordings of each kind) and ``systems``.
    """
    systems = load_systems(options)
    clips, labels = find_clips(systems, options)
    conditions = [CLEAN, *(f"{snr:g}" for snr in options.snrs)]
    right = {
        name: np.zeros((len(conditions), len(own), len(clips)))
        for name, (_, own) in systems.items()
    }
    mixers, kinds = {}, []
    for first in range(0, len(clips), BATCH):
        batch = clips[first : first + BATCH]
        said = torch.tensor([labels.index(clip.label) for clip in batch])
        heard_by = {}
        for name, (_, spotters) in systems.items():
            for number_of, spotter in enumerate(spotters):
                key = (spotter.sample_rate, spotter.window if spotter.pad_clips else 0)
                if key not in mixers:
                    mixers[key] = Mixer(options, *key)
                if key not in heard_by:
                    heard_by[key] = [mixers[key](clip) for clip in batch]
                for row in range(len(conditions)):
                    waveforms = [waveforms[row] for _, waveforms in heard_by[key]]
                    heard = spotter.class_probabilities(waveforms).argmax(1)
                    right[name][row, number_of, first : first + len(batch)] = heard == said
        kinds += [kind for kind, _ in next(iter(heard_by.values()))]
        print(f"{first + len(batch)} of {len(clips)} clips", end="\r", file=sys.stderr)
    noises = next(iter(mixers.values())).noises
    return {
        "clips": len(clips),
        "speakers": len({clip.speaker for clip in clips}),
        "noises": {one.kind: sum(other.kind == one.kind for other in noises) for one in noises},
        "systems": {
            name: {
                "parameters": sum(p.numel() for p in spotters[0].model.parameters()),
                "runs": len(spotters),
                "accuracy": {
                    condition: figures(right[name][row], [clip.speaker for clip in clips])
                    for row, condition in enumerate(conditions)
                },
                "by_noise": by_noise(right[name], conditions, kinds),
            }
            for name, (_, spotters) in systems.items()
        },
    }


def figures(right, speakers):
    """Accuracy in % with its 95 % interval, and of each run.

    Arguments
    ---------
    right : np.ndarray
        (runs, clips), 1 where the word was recognised.
    speakers : list of str
        Of each clip.

    Returns
    -------
    dict
    """
    means = right.mean(0)
    low, high = (100 * end for end in wilson_interval(means.sum(), len(means)))
    over = "clips"
    if len(set(speakers)) >= ENOUGH_SPEAKERS:
        drawn = mean_interval(means, groups=speakers, student=True, scale=100)
        low, high, over = min(low, drawn.low), max(high, drawn.high), "speakers"
    by_run = [100 * float(one) for one in right.mean(1)]
    return {
        "mean": 100 * float(means.mean()),
        "low": low,
        "high": high,
        "over": over,
        "by_run": by_run,
    }


def by_noise(right, conditions, kinds):
    """Accuracy in % of the clips of each kind of noise, by ratio."""
    kinds = np.array(kinds)
    return {
        condition: {
            kind: 100 * float(right[row][:, kinds == kind].mean())
            for kind in sorted(set(kinds.tolist()))
        }
        for row, condition in enumerate(conditions)
        if condition != CLEAN
    }


def options_of(arguments=None):
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "finished run, or NAME=RUN,RUN for seeds; none: train and test all families"
    parser.add_argument("runs_named", nargs="*", metavar="RUN", type=given_path, help=text)
    text = "ratios of speech to noise, in dB"
    parser.add_argument("--snrs", nargs="+", type=number(-50, 100), default=list(SNRS), help=text)
    text = "corpus to test on; default: each run's own test clips"
    parser.add_argument("--data_folder", type=given_path, help=text)
    parser.add_argument("--split", default="lists", help="split of that corpus, as of train.py")
    text = "parts of that corpus"
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["test"], help=text)
    folders, talkers = default_noises()
    text = "folders of noise recordings"
    parser.add_argument("--noises", nargs="+", type=given_path, default=folders, help=text)
    text = "fold of ESC-10 that the noises' names begin with; empty: all recordings"
    parser.add_argument("--fold", default="3" if folders else "", help=text)
    text = "folder of talkers for babble; empty: no babble"
    parser.add_argument("--babble", default=talkers, help=text)
    text = "seed of the noises' draw"
    parser.add_argument("--seed", type=whole_number(0, 2**31), default=0, help=text)
    parser.add_argument("--device", default="cpu", help="device, as of mamba-speech spot")
    whole = parser.add_argument_group("without a RUN")
    whole.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    whole.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    text = "seeds of the trainings"
    whole.add_argument("--seeds", nargs="+", type=whole_number(0, 2**31), default=[1], help=text)
    text = "steps of each training"
    whole.add_argument("--steps", type=whole_number(1, 10**6), default=STEPS, help=text)
    text = "trainings at a time"
    whole.add_argument("--jobs", type=whole_number(1, 64), default=1, help=text)
    text = "folder of the spoken corpus and the runs"
    whole.add_argument("--work", type=Path, default=Path("results/noise"), help=text)
    add_out(whole)
    options = parser.parse_args(arguments)
    if not options.noises:
        parser.error("give --noises: $SPEECH_DATA, which has some, is not set")
    return options


def whole_measurement(options):
    """Train all families on each corpus, and test them there.

    Families of the spoken words are tested on recorded words too, where ``$SPEECH_DATA`` has them.

    Returns
    -------
    dict
        Tests by title.
    """
    data = Path(os.environ.get("SPEECH_DATA", "."))
    known = {"wake_words": data / "wake_words"}
    if "spoken" in options.corpora:
        known["spoken"] = make_corpus(options.work / "corpus")
    corpora = {name: known[name] for name in options.corpora}
    runs = options.work / "runs"
    train_all(
        corpora, options.families, TRAININGS, options.seeds, options.steps, runs, options.jobs
    )
    tests = {}
    for corpus in corpora:
        named = [
            f"{family} / {training}="
            + ",".join(str(runs / corpus / family / training / str(seed)) for seed in options.seeds)
            for training in TRAININGS
            for family in options.families
        ]
        here = argparse.Namespace(**vars(options) | {"runs_named": named, "data_folder": None})
        tests[TITLES[corpus]] = measure(here)
        recorded = data / "speech_commands"
        if corpus == "spoken" and recorded.is_dir():
            # none of its clips was heard in training
            here.data_folder, here.split, here.part = recorded, "lists", PARTS
            tests[RECORDED] = measure(here)
    return tests


def main():
    """Measure, write, print."""
    options = options_of()
    try:
        if options.runs_named:
            print(as_text(rows_of({"own runs": measure(options)})))
            return
        tests = whole_measurement(options)
    except AudioError as error:
        raise SystemExit(str(error)) from error
    result = {"machine": machine(), "steps": options.steps, "seeds": options.seeds}
    result |= {"seed_of_noises": options.seed, "tests": tests}
    write_json(options.out / "noise.json", result)
    write_json(options.out / "noise_table.json", rows_of(tests, published=True))
    write_json(options.out / "noise_kinds.json", kinds_of(tests))
    draw(tests, lambda figure: save_figure(figure, options.out / "noise.png"))
    print(as_text(rows_of(tests)))


if __name__ == "__main__":
    main()
