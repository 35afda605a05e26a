"""The first ten minutes: speak a small corpus, train a ConMamba recogniser on it, test it, use it.

Every stage is a command that can be typed by hand, and is printed before it runs. The same command
again goes on where the last one stopped; `make demo` runs this in the repository's environment.
"""

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from demo_console import (
    TrainingDisplay,
    headline,
    print_pairs,
    print_result,
    print_stages,
    print_voices,
    shown,
    typed,
)

from data_prep.librispeech_prepare import prepare_librispeech
from data_prep.spoken.voices import available_languages
from mamba_speech.arguments import number, seed, whole_number
from mamba_speech.audio.names import safe_streams
from mamba_speech.files import read_csv, read_json, write_csv, write_json
from training.provenance import load_average
from training.results import is_tested

HOURS = 2.5
EPOCHS = 5
TEST_MINUTES = 8.0
SEED = 1
LOCK_SECONDS = 15

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes" / "LibriSpeech" / "ASR"
YAML = RECIPE / "hparams" / "CTC" / "conmamba_mini.yaml"
TEST_SET = "test-spoken"
# Shuffled transcripts move within groups of about so many utterances of like length: a text then
# still fits into its new audio's frames, and hardly an utterance is lost for lack of them.
SHUFFLE_GROUP = 50


def parse_arguments(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Speak a small corpus, train a ConMamba recogniser on it, test it on voices "
        "that it has not heard, and use it. The same command again goes on, or reports again."
    )
    parser.add_argument(
        "--hours",
        type=number(0, 100_000, above=True),
        default=HOURS,
        help="speech to train on (%(default)s)",
    )
    parser.add_argument(
        "--test_minutes",
        type=number(0, 100_000, above=True),
        default=TEST_MINUTES,
        help="(%(default)s)",
    )
    parser.add_argument(
        "--number_of_epochs",
        "--epochs",
        type=whole_number(1, 1_000_000),
        default=EPOCHS,
        help="(%(default)s)",
    )
    parser.add_argument(
        "--seed", type=seed, default=SEED, help="of corpus and training (%(default)s)"
    )
    parser.add_argument("--language", choices=available_languages(), default="en")
    parser.add_argument(
        "--shuffle_transcripts",
        action="store_true",
        help="control: train on transcripts of other utterances; what is left is what a model "
        "scores that cannot listen",
    )
    parser.add_argument(
        "--output_folder", type=Path, help="default: results/demo, or results/demo_shuffled"
    )
    options = parser.parse_args(arguments)
    if options.hours <= 0 or options.test_minutes <= 0 or options.number_of_epochs < 1:
        parser.error("--hours and --test_minutes must be more than 0, --number_of_epochs 1 or more")
    if options.output_folder is None:
        name = "demo_shuffled" if options.shuffle_transcripts else "demo"
        options.output_folder = ROOT / "results" / name
    return options


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
        demo.say_what_next()
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
    """The stages, their times, and the folder that all of it goes into.

    Arguments
    ---------
    options : argparse.Namespace
        Of :func:`parse_arguments`.

    Raises
    ------
    ValueError
        If the folder holds a demo with other options.
    RuntimeError
        If another demo, or a training that it began, still works in the folder.
    """

    def __init__(self, options):
        self.options = options
        self.folder = options.output_folder
        self.corpus, self.run = self.folder / "corpus", self.folder / "run"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        self._record_file = self.folder / "demo.json"
        wanted = {key: value for key, value in vars(options).items() if key != "output_folder"}
        self.record = {"options": wanted, "stages": {}}
        if self._record_file.exists():
            self.record = read_json(self._record_file)
            _check_same(self.record["options"], wanted, self.folder)
        self._save_record()

    def speak(self):
        """Generate the corpus."""
        options = self.options
        headline(f"1. Speak {options.hours:g} h of training speech, and test voices of its own")
        command = [
            *(sys.executable, "-m", "data_prep.spoken", shown(self.corpus)),
            *("--hours", f"{options.hours:g}", "--dev_minutes", f"{options.test_minutes / 2:g}"),
            *("--test_minutes", f"{options.test_minutes:g}", "--seed", str(options.seed)),
            *("--language", options.language),
        ]
        self._stage("corpus", command, (self.corpus / "corpus.json").exists(), self._plain)

    def train(self):
        """Train, average the last checkpoints and test."""
        options = self.options
        control = ", on shuffled transcripts" if options.shuffle_transcripts else ""
        epochs = f"{options.number_of_epochs} epoch{'s' * (options.number_of_epochs > 1)}"
        headline(f"2. Train for {epochs}{control}, then test on unseen voices")
        command = [
            *(sys.executable, shown(RECIPE / "train_CTC.py"), shown(YAML)),
            *("--output_folder", shown(self.run)),
            *(self._shuffled_data() if options.shuffle_transcripts else self._data()),
            *("--number_of_epochs", str(options.number_of_epochs), "--seed", str(options.seed)),
        ]
        if not sys.stderr.isatty():
            command.append("--noprogressbar")
        self._stage("training and test", command, is_tested(self.run), self._training)

    def report(self):
        """Print and save what came out; returns a test file."""
        # slow to import, and a demo that fails at once should not wait for them
        from demo_report import make_report

        from mamba_speech.asr.recognizer import Recognizer
        from mamba_speech.figures import learning_curve, spectrogram_with_alignment

        headline("3. What came out")
        report = make_report(self.run, self.corpus / "voices.csv", TEST_SET, self.options.seed)
        report |= {"options": self.record["options"], "stages": self.record["stages"]}
        print_result(report)
        print_voices(report["voices"])
        print_pairs(report["pairs"], self.options.seed)
        print_stages(report["stages"])
        example = report["pairs"][0]
        speaker, chapter, _ = example["id"].split("-")
        folder = self.corpus / "LibriSpeech" / TEST_SET / speaker / chapter
        test_file = folder / f"{example['id']}.flac"
        learning_curve(self.run / "train_log.txt", self.folder / "learning_curve.png")
        recognizer = Recognizer.load(self.run, device="cpu", decoding="greedy")
        spectrogram_with_alignment(
            recognizer, test_file, self.folder / "alignment.png", example["said"]
        )
        write_json(self.folder / "report.json", report)
        return test_file

    def transcribe(self, test_file):
        """Call `mamba-speech transcribe` on one file."""
        headline("4. Use it")
        script = Path(sys.executable).with_name("mamba-speech")
        program = [str(script)] if script.exists() else [sys.executable, "-m", "mamba_speech.cli"]
        command = [*program, "transcribe", shown(self.run), shown(test_file)]
        print(f"$ {typed(command)}", flush=True)
        if subprocess.call(command) != 0:
            raise RuntimeError("transcribing failed; what it said stands above")

    def say_what_next(self):
        """Where everything is, and what to do with it."""
        run, script = shown(self.run), shown(RECIPE / "train_CTC.py")
        large = shown(RECIPE / "hparams" / "CTC" / "conmamba_large.yaml")
        headline("Where it is")
        for path, what in (
            (self.folder / "report.json", "all figures above"),
            (self.folder / "learning_curve.png", "losses and WER by epoch"),
            (self.folder / "alignment.png", "one utterance, and what was heard when"),
            (self.run, "the run: checkpoints, log.txt, train_log.txt, wer_test-spoken.txt"),
            (self.corpus, "the corpus, in LibriSpeech's layout"),
        ):
            print(f"  {shown(path):<36} {what}")
        headline("What next")
        print(f"""\
  Your own recordings, or folders of them:
    mamba-speech transcribe {run} FILE ...
  (A model that has heard only a synthesiser and a few hundred words will not do well on people.)
  Train on your own speech, listed in CSV files with the columns path and text:
    python {script} {shown(YAML)} \\
        --train_manifest train.csv --valid_manifest valid.csv --test_manifests '[test.csv]' \\
        --output_folder results/mine
  Train the published model on LibriSpeech (a GPU is needed):
    python {script} {large} --data_folder LibriSpeech --precision bf16
  Is it listening? The same demo on shuffled transcripts:
    make demo DEMO_ARGS=--shuffle_transcripts""")

    def _data(self):
        splits = {"train": "train-spoken", "dev": "dev-spoken", "test": TEST_SET}
        options = [
            part for key, name in splits.items() for part in (f"--{key}_splits", f"[{name}]")
        ]
        return ["--data_folder", shown(self.corpus), *options]

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

    def _stage(self, name, command, done, run):
        """Run a command unless its work is done, and keep its time and the machine's load."""
        print(f"$ {typed(command)}", flush=True)
        stage = self.record["stages"].get(name)
        if done and stage is not None and stage["finished"]:
            print("Done before; nothing to do.")
            return
        stage = stage or {"seconds": 0.0, "starts": 0, "finished": False}
        stage["starts"] += 1
        stage["load"] = [load_average(), None]
        self.record["stages"][name] = stage
        self._save_record()
        began = time.monotonic()
        try:
            run(command)
            stage["finished"] = True
        finally:
            stage["seconds"] = round(stage["seconds"] + time.monotonic() - began, 1)
            stage["load"][1] = load_average()
            self._save_record()

    def _plain(self, command):
        with self._child(command) as process:
            status = process.wait()
        _check(status, "what it said stands above")

    def _training(self, command):
        display = TrainingDisplay(self.options.number_of_epochs, sys.stderr.isatty())
        with self._child(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            display.follow(process.stdout)
            status = process.wait()
        _check(status, f"its last lines were:\n{display.last_lines()}")

    @contextmanager
    def _child(self, command, **options):
        """A process that ends when this one is interrupted.

        It holds the lock, too: if this one is killed, the folder stays its own until it ends.
        """
        # threads that wait spin for a moment only: where another program wants a core, a step takes
        # several times as long otherwise
        environment = {"GOMP_SPINCOUNT": "20000"} | os.environ
        options |= {"env": environment, "pass_fds": (self._lock.fileno(),)}
        with subprocess.Popen(command, **options) as process:
            try:
                yield process
            except BaseException:
                process.terminate()
                raise

    def _save_record(self):
        write_json(self._record_file, self.record)


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


def _check(status, why):
    if status != 0:
        raise RuntimeError(f"this command ended with status {status}; {why}")


def _check_same(found, wanted, folder):
    differing = [f"--{key} was {found.get(key)}" for key in wanted if found.get(key) != wanted[key]]
    if differing:
        raise ValueError(
            f"{shown(folder)} holds a demo with other options ({', '.join(differing)}); give them "
            "again, or another --output_folder, or remove the folder"
        )


def _lock(folder):
    """A file that only one demo at a time can hold.

    The loading processes of a training that was stopped notice it within some seconds.
    """
    file = open(folder / ".lock", "w")  # noqa: SIM115 (open as long as the demo runs)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                file.close()
                raise RuntimeError(
                    f"another demo, or a training that one began, still works in {shown(folder)}; "
                    "let it end, or stop it"
                ) from error
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
