"""The first ten minutes: speak a small corpus, train a ConMamba recogniser on it, test it, use it.

Every stage is a command that can be typed by hand, and is printed before it runs. The same command
again goes on where the last one stopped; `make demo` runs this in the repository's environment.
"""

import argparse
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from demo_console import (
    headline,
    print_pairs,
    print_result,
    print_stages,
    print_voices,
    shown,
    typed,
)
from demo_measure import seconds_a_step
from demo_next import say_what_next, say_where_it_is, transcribing
from demo_plan import (
    PROCESSES,
    ROOT,
    SCRIPT,
    YAML,
    count_processors,
    fit_epochs,
    training_command,
    training_environment,
)
from demo_stages import Stages

from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.spoken.voices import available_languages
from mamba_speech.arguments import number, seed, whole_number
from mamba_speech.audio.names import safe_streams
from mamba_speech.files import read_csv, write_csv, write_json
from training.results import is_tested

HOURS = 3.0
MINUTES = 10.0
TEST_MINUTES = 8.0
SEED = 1
TEST_SET = "test-spoken"
# Shuffled transcripts move within groups of about so many utterances of like length: a text then
# still fits into its new audio's frames, and hardly an utterance is lost for lack of them.
SHUFFLE_GROUP = 50


def make_parser():
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        description="Speak a small corpus, train a ConMamba recogniser on it, test it on voices "
        "that it has not heard, and use it. The same command again goes on, or reports again."
    )
    positive = number(0, 100_000, above=True)
    parser.add_argument(
        "--minutes",
        type=positive,
        default=MINUTES,
        help="time for all of it; a few training steps are timed, and as many epochs fit (%(default)s)",
    )
    parser.add_argument(
        "--number_of_epochs",
        "--epochs",
        type=whole_number(1, 1_000_000),
        help="epochs, whatever time they take",
    )
    parser.add_argument(
        "--hours", type=positive, default=HOURS, help="speech to train on (%(default)s)"
    )
    parser.add_argument(
        "--test_minutes", type=positive, default=TEST_MINUTES, help="test speech (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=seed, default=SEED, help="seed of corpus and training (%(default)s)"
    )
    parser.add_argument("--language", choices=available_languages(), default="en")
    parser.add_argument(
        "--processes",
        type=whole_number(1, PROCESSES),
        help=f"processes that train; default: {PROCESSES}, or as many as there are processors",
    )
    parser.add_argument(
        "--shuffle_transcripts",
        action="store_true",
        help="control: train on transcripts of other utterances; what is left is what a model "
        "scores that cannot listen",
    )
    parser.add_argument(
        "--output_folder",
        type=Path,
        help="default: results/demo, with the other options in its name",
    )
    return parser


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.output_folder is None:
        options.output_folder = ROOT / "results" / folder_name(parser, options)
    return options


def folder_name(parser, options):
    """A folder's name in which options stand that are not the defaults, so that no demo meets another's folder.

    Example
    -------
    >>> parser = make_parser()
    >>> folder_name(parser, parser.parse_args(["--seed", "2", "--shuffle_transcripts"]))
    'demo_seed_2_shuffle_transcripts'
    """
    parts = ["demo"]
    for name, value in sorted(vars(options).items()):
        if value != parser.get_default(name):
            parts += (
                [name]
                if value is True
                else [name, f"{value:g}" if isinstance(value, float) else str(value)]
            )
    return "_".join(parts)


def main(arguments=None):
    """Run the demo; returns the exit status."""
    safe_streams()
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        demo = Demo(options)
        demo.speak()
        demo.train()
        test_file = demo.report()
        demo.transcribe(test_file)
        demo.close(test_file)
    except KeyboardInterrupt:
        print(
            "\nStopped. The same command goes on from the last checkpoint, two minutes old at most."
        )
        return 130
    except (OSError, RuntimeError, ValueError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def _interrupt(number, frame):
    raise KeyboardInterrupt


class Demo:
    """The stages, and the folder that all of it goes into.

    Arguments
    ---------
    options : argparse.Namespace
        Of :func:`parse_arguments`.

    Raises
    ------
    ValueError, RuntimeError
        See :class:`demo_stages.Stages`.
    """

    def __init__(self, options):
        self.options = options
        self.folder = options.output_folder
        self.corpus, self.run = self.folder / "corpus", self.folder / "run"
        wanted = {key: value for key, value in vars(options).items() if key != "output_folder"}
        self.stages = Stages(self.folder, wanted, bar=sys.stderr.isatty())
        self.record = self.stages.record

    def speak(self):
        """Generate the corpus."""
        options = self.options
        headline(f"1. Speak {options.hours:g} h of training speech, and test voices of its own")
        command = [
            *(sys.executable, "-m", "data_prep.spoken", shown(self.corpus)),
            *("--hours", f"{options.hours:g}", "--dev_minutes", f"{options.test_minutes / 2:g}"),
            *("--test_minutes", f"{options.test_minutes:g}", "--seed", str(options.seed)),
            # one more than processors: a speaker waits now and then
            *("--language", options.language, "--jobs", str(min(count_processors(), 8) + 1)),
        ]
        done = (self.corpus / "corpus.json").exists()
        self.stages.run("corpus", command, done, training_environment(1))

    def plan(self):
        """Decide in how many processes to train, and for how many epochs; the same demo decides once."""
        plan = self.record.get("plan")
        if plan is None:
            options = self.options
            processes = options.processes or min(PROCESSES, count_processors())
            plan = {"processes": processes, "epochs": options.number_of_epochs}
            if plan["epochs"] is None:
                with self.stages.timed("measuring"):
                    plan["step_seconds"] = seconds_a_step(
                        YAML, processes, training_environment(processes)
                    )
                if processes == 1:
                    # which takes the steps of all, one after the other
                    plan["step_seconds"] *= PROCESSES
                left = 60 * options.minutes - self.stages.seconds()
                plan["epochs"] = fit_epochs(left, plan["step_seconds"], options.hours)
            self.record["plan"] = plan
            self.stages.save()
        return plan

    def train(self):
        """Train and test."""
        options, plan = self.options, self.plan()
        control = ", on shuffled transcripts" if options.shuffle_transcripts else ""
        epochs = f"{plan['epochs']} epoch{'s' * (plan['epochs'] > 1)}"
        headline(f"2. Train for {epochs}{control}, then test on unseen voices")
        if "step_seconds" in plan:
            print(
                f"A step takes {plan['step_seconds']:.2f} s here: {options.minutes:g} minutes have room for {epochs}."
            )
        launcher, settings = training_command(plan["processes"])
        command = [
            *(*launcher, shown(SCRIPT), shown(YAML), "--output_folder", shown(self.run)),
            *(
                self._shuffled_data()
                if options.shuffle_transcripts
                else ["--data_folder", shown(self.corpus)]
            ),
            *("--number_of_epochs", str(plan["epochs"]), "--seed", str(options.seed), *settings),
        ]
        self.stages.run(
            "training and test",
            command,
            is_tested(self.run),
            training_environment(plan["processes"]),
            plan["epochs"],
            plan["processes"],
        )

    def report(self):
        """Print and save what came out; returns a test file."""
        # slow to import, and a demo that fails at once should not wait for them
        from demo_report import make_report

        from mamba_speech.asr.recognizer import Recognizer
        from mamba_speech.figures import learning_curve, spectrogram_with_alignment

        headline("3. What came out")
        with self.stages.timed("report"):
            report = make_report(self.run, self.corpus / "voices.csv", TEST_SET, self.options.seed)
            report |= {key: self.record[key] for key in ("options", "plan", "stages")}
            print_result(report)
            print_voices(report["voices"])
            print_pairs(report["pairs"], self.options.seed)
            example = report["pairs"][0]
            speaker, chapter, _ = example["id"].split("-")
            folder = self.corpus / "LibriSpeech" / TEST_SET / speaker / chapter
            test_file = folder / f"{example['id']}.flac"
            learning_curve(self.run / "train_log.txt", self.folder / "learning_curve.png")
            recognizer = Recognizer.load(self.run, device="cpu", ctc_only=True)
            spectrogram_with_alignment(
                recognizer, test_file, self.folder / "alignment.png", example["said"]
            )
        write_json(self.folder / "report.json", report)
        return test_file

    def transcribe(self, test_file):
        """Call `mamba-speech transcribe` on one file."""
        headline("4. Use it")
        command = transcribing(self.run, test_file)
        print(f"$ {typed(command)}", flush=True)
        with self.stages.timed("use"):
            if subprocess.call(command) != 0:
                raise RuntimeError("transcribing failed; what it said stands above")

    def close(self, test_file):
        """Say how long it took, where everything is, and what to do with it."""
        headline("How long it took")
        print_stages(self.record["stages"])
        say_where_it_is(self.folder, self.run, self.corpus)
        say_what_next(self.folder, self.run, test_file)

    def _shuffled_data(self):
        """Manifests of the corpus in which each training utterance has another's transcript."""
        folder = self.folder / "manifests"
        prepare_librispeech(self.corpus, folder, ["train-spoken"], ["dev-spoken"], [TEST_SET])
        shuffled = folder / "train-shuffled.csv"
        shuffle_transcripts(folder / "train-spoken.csv", shuffled, self.options.seed)
        return [
            *("--train_manifest", shown(shuffled)),
            *("--valid_manifest", shown(folder / "dev-spoken.csv")),
            *("--test_manifests", f"[{shown(folder / TEST_SET)}.csv]"),
        ]


def shuffle_transcripts(manifest, target, seed):
    """Copy a manifest with the transcripts moved among utterances of about the same length.

    Arguments
    ---------
    manifest, target : Path
        CSV files with the columns `duration` and `wrd`.
    seed : int
    """
    rows = [row for _, row in read_csv(manifest)[1]]
    rows.sort(key=lambda row: (float(row["duration"]), row["ID"]))
    random = np.random.default_rng(seed)
    groups = np.array_split(np.arange(len(rows)), max(1, len(rows) // SHUFFLE_GROUP))
    for order in map(random.permutation, groups):
        # along a random cycle, so that no transcript stays where it was
        texts = [rows[index]["wrd"] for index in order]
        for index, text in zip(np.roll(order, 1), texts, strict=True):
            rows[index]["wrd"] = text
    write_csv(target, rows[0], rows)


if __name__ == "__main__":
    sys.exit(main())
