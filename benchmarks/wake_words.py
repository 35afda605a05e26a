#!/usr/bin/env python3
"""Wake words in other people's speech: misses at 0, 3 and 7 false alarms, clean and in noise, beside PocketSphinx.

    python benchmarks/wake_words.py [[NAME=]RUN ...] [--data_folder FOLDER] [--background FOLDER ...] [--noise FOLDER]
        [--snr 20 10 0] [--spoken_minutes 15 60] [--seeds 1 2 3] [--other_speech FOLDER] [--work FOLDER] [--quick]

RUN is the output folder of `hparams/wake_word_spotter.yaml`, one a seed; without any, they are trained here, which
takes long. Runs of another kind get a NAME and rows of their own, such as `whole=results/wake_words/1`. `--data_folder`
holds the words as training takes them, by default `$SPEECH_DATA/wake_words`. Streams are as
`python -m data_prep.streams` builds them, in the manner of Picovoice's wake-word benchmark. Thresholds are tuned on the
validation stream, clean, for all spotters alike. Events are kept in --work, so a second call only counts anew.
Writes wake_words.json, tables as wake_words_*.json, and wake_words.png. PocketSphinx: `pip install pocketsphinx`.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from measure import Load, add_out, machine, save_figure, warn_if_busy
from wake_words_engines import PocketSphinx, Run, listen
from wake_words_scores import compare, difference, score_events
from wake_words_tables import draw, tables

from data_prep.spoken.librispeech_layout import generate_librispeech
from data_prep.streams.build import CLEAN, Settings, build_streams
from mamba_speech.arguments import number, whole_number
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import read_json, write_json

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "SpeechCommands" / "KWS"
YAML = "hparams/wake_word_spotter.yaml"
OURS, POCKETSPHINX = "ours", "pocketsphinx"
# what the dictionary of PocketSphinx lacks, and how people say Alexa too
PRONUNCIATIONS = {"snowboy": ["S N OW B OY"], "alexa": ["AH L EH K S AH", "AE L EH K S AH"]}
# a run to see that all works: its figures say nothing
QUICK = {"clips_per_word": 3, "minutes": 1.0, "spoken_minutes": (1.0, 1.0), "snr": [10.0]}
QUICK_TRAINING = ("--number_of_epochs", "1", "--num_layers", "1", "--d_model", "16")


def options_of(arguments=None):
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "runs, one a seed; those of one name are of one YAML"
    parser.add_argument("runs", nargs="*", metavar="[NAME=]RUN", help=text)
    given = os.environ.get("SPEECH_DATA")
    for name, below, text in (
        ("data_folder", "wake_words", "clips of the words, as training takes them"),
        ("noise", "noise_rir/noise", "noise recordings"),
    ):
        default = given and str(Path(given, below))
        parser.add_argument(f"--{name}", metavar="FOLDER", default=default, help=text)
    parser.add_argument(
        "--background",
        nargs="+",
        metavar="FOLDER",
        default=given and [str(Path(given, "librispeech_asr"))],
        help="other people's speech, at least two speakers each",
    )
    parser.add_argument("--snr", type=number(-40, 80), nargs="*", default=[20.0, 10.0, 0.0])
    parser.add_argument(
        "--spoken_minutes",
        type=number(0, 1000),
        nargs=2,
        metavar=("VALIDATION", "TESTING"),
        default=(15.0, 60.0),
        help="sentences spoken by eSpeak NG that are added to the background",
    )
    parser.add_argument(
        "--seeds", type=whole_number(0, 2**31), nargs="+", default=[1, 2, 3], help="of training"
    )
    parser.add_argument(
        "--other_speech",
        metavar="FOLDER",
        help="speech for training, by nobody of the background (default: spoken by eSpeak NG)",
    )
    parser.add_argument(
        "--spotters", nargs="+", choices=(OURS, POCKETSPHINX), default=(OURS, POCKETSPHINX)
    )
    parser.add_argument(
        "--pronunciation",
        action="append",
        default=[],
        metavar="WORD=PHONES",
        help="for PocketSphinx, instead of its dictionary's; several of a word are alternatives",
    )
    parser.add_argument("--device", default="cpu", help="of our spotter")
    parser.add_argument("--smoothing", type=number(0, 60), help="seconds, see mamba-speech spot")
    parser.add_argument(
        "--work", type=Path, help="folder of streams, runs and events (default: a temporary one)"
    )
    parser.add_argument("--quick", action="store_true", help="a few clips, to see that it works")
    add_out(parser)
    options = parser.parse_args(arguments)
    if not options.data_folder or not options.background:
        parser.error("give --data_folder and --background, or set SPEECH_DATA")
    if options.snr and not options.noise:
        parser.error("--snr needs --noise FOLDER; an empty --snr leaves noise out")
    options.pronunciations = pronunciations_of(parser, options.pronunciation)
    if options.quick:
        options.spoken_minutes, options.snr = QUICK["spoken_minutes"], QUICK["snr"]
        options.seeds = options.seeds[:1]
    return options


def pronunciations_of(parser, given):
    """Pronunciations by word; the command line's replace our own."""
    found = {}
    for text in given:
        word, sign, phones = text.partition("=")
        if not sign or not word or not phones.strip():
            parser.error(f"--pronunciation {text}: give it as WORD=PHONES, such as boy='B OY'")
        found.setdefault(word.strip().lower(), []).append(phones.strip())
    return PRONUNCIATIONS | found


def build(options):
    """The streams; the file of the truth by part."""
    background = list(options.background)
    validation, testing = options.spoken_minutes
    if validation or testing:
        spoken = options.work / f"spoken_{validation:g}_{testing:g}"
        generate_librispeech(
            spoken,
            # the layout wants a training part, which is not used
            hours=0.002,
            train_voices=2,
            dev_minutes=max(validation, 0.1),
            test_minutes=max(testing, 0.1),
            noise=False,
        )
        background.append(spoken)
    settings = Settings(
        options.data_folder,
        tuple(background),
        options.noise if options.snr else None,
        tuple(dict.fromkeys(options.snr)),
        clips_per_word=QUICK["clips_per_word"] if options.quick else None,
        minutes=QUICK["minutes"] if options.quick else None,
    )
    # a call without noise leaves the streams of one with noise as they are
    name = "_".join(["streams", *(f"{snr:g}" for snr in settings.snrs)])
    return build_streams(options.work / name, settings, overwrite=True)


def train(options):
    """A run for each seed, trained unless it is there; their folders."""
    folders = []
    for seed in options.seeds:
        folder = options.work / ("quick" if options.quick else "runs") / str(seed)
        folders.append(folder)
        if (folder / "results.json").is_file():
            continue
        given = {"data_folder": Path(options.data_folder).absolute(), "output_folder": folder}
        given |= {"seed": seed, "device": options.device}
        if options.other_speech:
            given["other_speech"] = Path(options.other_speech).absolute()
        command = [sys.executable, "train.py", YAML]
        command += [str(part) for name, value in given.items() for part in (f"--{name}", value)]
        command += QUICK_TRAINING if options.quick else ()
        print(f"training with seed {seed} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, cwd=RECIPE, check=False, stdout=sys.stderr)
        if done.returncode:
            raise ValueError(f"the training failed: {' '.join(command)}")
    return folders


def spotters_of(options, words):
    """The spotters by name, each a list with one a run."""
    found = {}
    if POCKETSPHINX in options.spotters:
        found[PocketSphinx.name] = [PocketSphinx(words, options.pronunciations)]
    if OURS in options.spotters:
        given = {} if options.smoothing is None else {"smoothing": options.smoothing}
        ours = {}
        for text in map(str, options.runs or train(options)):
            name, sign, folder = text.partition("=")
            if not sign or Path(text).is_dir():
                name, folder = Run.name, text
            run = Run(folder, options.device, **given)
            run.check(words)
            ours.setdefault(name, []).append(run)
        if PocketSphinx.name in ours:
            raise ValueError(
                f"{PocketSphinx.name}=...: this is another spotter's name; give another"
            )
        found = ours | found
    return found


def measure(options):
    """All figures, for the JSON."""
    load = Load()
    result = {"machine": machine(), "cores_used_by_others_before": warn_if_busy()}
    paths = build(options)
    truths = {part: read_json(path) for part, path in paths.items()}
    spotters = spotters_of(options, truths["testing"]["labels"])
    result["streams"] = {
        part: {
            "clips": len(truth["events"]),
            "voices": len({one["speaker"] for one in truth["events"]}),
            "hours": truth["seconds"] / 3600,
            "background_hours": truth["background_seconds"] / 3600,
            "background_speakers": len({one["speaker"] for one in truth["speech"]}),
            "sha256": truth["streams"][CLEAN]["sha256"],
        }
        for part, truth in truths.items()
    }

    def scores(part, condition, which):
        heard = [
            listen(one, truths[part], condition, paths[part].parent, options.work / "events")
            for one in spotters[which]
        ]
        rates[which] += [one["rate"] for one in heard]
        return [score_events(one["events"], truths[part]) for one in heard]

    rates = {name: [] for name in spotters}
    conditions = [CLEAN, *(f"{snr:g}" for snr in dict.fromkeys(options.snr))]
    result["conditions"] = {condition: {} for condition in conditions}
    missed = {}
    for name in spotters:
        validation = scores("validation", CLEAN, name)
        result.setdefault("validation", {})[name] = compare(validation, validation)[0]
        for condition in conditions:
            figures, missed[condition, name] = compare(
                validation, scores("testing", condition, name)
            )
            result["conditions"][condition][name] = figures
    voices = [one["speaker"] for one in truths["testing"]["events"]]
    result["differences"] = differences(missed, conditions, list(spotters), voices)
    result["real_time_factor"] = {name: sum(found) / len(found) for name, found in rates.items()}
    result["runs"] = {
        name: len(ones) for name, ones in spotters.items() if name != PocketSphinx.name
    }
    if PocketSphinx.name in spotters:
        result["pronunciations"] = spotters[PocketSphinx.name][0].spoken
    result["cores_used_by_others_during"] = load.others()
    result["torch_threads"] = torch.get_num_threads()
    return result


def differences(missed, conditions, names, voices):
    """How much less each of our spotters misses than PocketSphinx, by condition, name and false alarms."""
    if PocketSphinx.name not in names:
        return {}
    way = "a threshold a word"
    return {
        condition: {
            name: {
                n: difference(missed[condition, PocketSphinx.name][way][n], rows, voices)
                for n, rows in missed[condition, name][way].items()
            }
            for name in names
            if name != PocketSphinx.name
        }
        for condition in conditions
    }


def main(arguments=None):
    """Measure, write, print."""
    options = options_of(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as temporary:
        options.work = (options.work or Path(temporary)).absolute()
        if options.quick:
            options.work = options.work / "quick"
            options.out = options.work / "results"
            options.out.mkdir(parents=True, exist_ok=True)
        options.work.mkdir(parents=True, exist_ok=True)
        try:
            result = measure(options)
        except (ValueError, RuntimeError, OSError) as error:
            sys.exit(f"error: {error}")
        # through JSON, so that a later reading of the file gives the same tables
        write_json(options.out / "wake_words.json", result)
        result = read_json(options.out / "wake_words.json")
        for name, rows in tables(result).items():
            write_json(options.out / f"wake_words_{name}.json", rows)
            print(as_text(rows), end="\n\n")
        save_figure(draw(result), options.out / "wake_words.png")


if __name__ == "__main__":
    main()
