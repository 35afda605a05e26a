"""What the demo shows on the terminal: commands, the course of training, and tables of results."""

import os
import re
import shlex
import shutil
import sys
import time
from collections import deque
from pathlib import Path

from mamba_speech.evaluation.tables import as_text
from mamba_speech.figures import read_epoch

# Of a training's output: a progress bar, an epoch's figures, and the few lines worth passing on.
BAR = re.compile(r"\d+%\|.*\|")
EPOCH = re.compile(r"epoch: \d+, .* - train loss: .*")
REMARK = re.compile(r"[\d,]+ parameters, .*|left out of training: .*|evaluating the average .*")
RESUMED = re.compile(r"Loading a checkpoint .*")


class TrainingDisplay:
    """The output of a training, tidied as it comes: a row an epoch, and the bar of the present one.

    Arguments
    ---------
    epochs : int
        How many there will be, for the time left.
    bar : bool
        Whether to show the progress bar.
    """

    def __init__(self, epochs, bar):
        self.epochs, self.bar = epochs, bar
        self._tail = deque(maxlen=15)
        self._last = time.monotonic()
        self._header_shown = False

    def follow(self, stream):
        """Show what comes out of a process until it ends.

        Arguments
        ---------
        stream : binary file
            Standard output and error of the process.
        """
        rest = b""
        while chunk := os.read(stream.fileno(), 65536):
            # progress bars end in a carriage return
            *lines, rest = re.split(rb"[\r\n]", rest + chunk)
            for line in lines:
                self._show(line.decode("utf-8", "replace").rstrip())

    def last_lines(self):
        """The end of the output, bars left out, to explain a failure."""
        return "\n".join(self._tail)

    def _show(self, line):
        if BAR.search(line):
            if self.bar:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            return
        if line:
            self._tail.append(line)
        if epoch := EPOCH.search(line):
            self._show_epoch(read_epoch(epoch[0]))
        elif remark := REMARK.search(line):
            self._print(remark[0])
        elif not self._header_shown and RESUMED.search(line):
            self._print("going on from the last checkpoint")

    def _show_epoch(self, figures):
        now = time.monotonic()
        left = (self.epochs - figures["epoch"]) * (now - self._last)
        self._last = now
        if not self._header_shown:
            self._print(
                f"{'epoch':>7} {'train loss':>12} {'valid loss':>12} {'valid WER':>11}   left"
            )
            self._header_shown = True
        self._print(
            f"{figures['epoch']:>4.0f}/{self.epochs:<2} {figures['train loss']:>12.3f} "
            f"{figures['valid loss']:>12.3f} {figures['valid WER']:>9.1f} %   {minutes(left)}"
        )

    def _print(self, line):
        if self.bar:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + " " * width, end="\r", file=sys.stderr, flush=True)
        print(line, flush=True)


def headline(text):
    """Begin a stage."""
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def shown(path):
    """A path as one would type it here: relative, if it lies below the present folder."""
    path = Path(path).absolute()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def typed(command):
    """A command as one would type it here, environment's Python included."""
    program = shown(command[0]) if os.path.isabs(command[0]) else command[0]
    return shlex.join([program, *command[1:]])


def minutes(seconds):
    """A duration in minutes and seconds.

    Example
    -------
    >>> minutes(125.2)
    '2:05 min'
    """
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d} min"


def print_result(report):
    """The figures that matter, in a few lines."""
    low, high = report["WER_interval_95"]
    voices, result = len(report["voices"]), report["result"]
    utterances = sum(row["utterances"] for row in report["voices"])
    print(f"WER  {report['WER']:.1f} % on {utterances} utterances of {voices} unseen voices")
    print(f"     95 % interval {low:.1f} to {high:.1f} % (bootstrap over voices)")
    print(f"CER  {report['CER']:.1f} %")
    print(
        f"Real-time factor {report['real_time_factor']:.4f} on {result['device']}, in batches: "
        f"{1 / max(report['real_time_factor'], 1e-9):.0f} s of audio a second"
    )
    print(f"{report['parameters']:,} parameters, {result['optimizer_steps']} optimiser steps")


def print_voices(rows):
    """The word error rate of each voice."""
    table = [
        {
            "voice": row["voice"],
            "words/min": row["rate"],
            "utterances": row["utterances"],
            "WER": f"{row['WER']:.1f} %",
        }
        for row in rows
    ]
    print(f"\n{as_text(table)}")


def print_pairs(pairs, seed):
    """What was said and what was heard."""
    print(f"\n{len(pairs)} utterances drawn at random (seed {seed})")
    for pair in pairs:
        print(f"  said   {pair['said']}\n  heard  {pair['heard'] or '(nothing)'}\n")


def print_stages(stages):
    """How long each stage took, with the load average of the machine before and after it."""
    table = [
        {
            "stage": name,
            "time": minutes(stage["seconds"]),
            f"load average, {os.cpu_count()} processors": " - ".join(
                "?" if value is None else f"{value:.1f}" for value in stage["load"]
            ),
            "starts": stage["starts"],
        }
        for name, stage in stages.items()
    ]
    print(as_text(table))
