"""What the demo shows on the terminal: commands, the course of a stage, and tables of results."""

import math
import os
import re
import select
import shlex
import shutil
import signal
import sys
import time
from collections import deque
from pathlib import Path

from mamba_speech.evaluation.tables import as_text
from mamba_speech.train_log import read_epoch
from training.provenance import load_average

# Of a stage's output: a progress bar, an epoch's beginning and figures, and the few lines worth passing on.
BAR = re.compile(r"(?P<what>[^|%]*?):?\s*(?P<percent>\d+)%\|.*\|")
BEGUN = re.compile(r"Going into epoch (\d+)")
EPOCH = re.compile(r"epoch: \d+, .* - train loss: .*")
REMARK = re.compile(
    r"[\d,]+ parameters, .*|left out of training: .*|evaluating the average .*|spoke .* minutes .*"
)
RESUMED = re.compile(r"Loading a checkpoint .*")
# what torchrun says when a process has failed, whose own words stand before it
LAUNCHER = re.compile(r"torch[./]distributed[./]elastic|ChildFailedError")
KILLED = re.compile(r"exitcode: -(\d+)")
# a process that loads recordings, which the others outlive for a moment
LOADER_KILLED = re.compile(r"DataLoader worker \(.*\) is killed by signal: Killed")
# between two lines that say how far a stage is, where there is no terminal
SECONDS_BETWEEN = 30
# load average of other programs that a time is told with
LOAD_WORTH_SAYING = 1.2


class StageDisplay:
    """The output of a stage, tidied as it comes: a row an epoch, and the bar of what runs now.

    Where there is no terminal, a line every half minute stands for the bar.

    Arguments
    ---------
    bar : bool
        Whether to show the progress bar.
    epochs : int
        How many there will be, for the time left; 0 where nothing is trained.
    """

    def __init__(self, bar, epochs=0):
        self.epochs, self.bar = epochs, bar
        self._tail = deque(maxlen=15)
        self._began = self._last = self._told = time.monotonic()
        self._header_shown = self._launcher_speaks = False
        self._doing, self._epoch, self._percent = "starting", 0, 0
        self.killed_by = None
        # of the machine, once the stage has run for a minute: the average looks as far back
        self.loads = []

    def follow(self, stream):
        """Show what comes out of a process until it ends.

        Arguments
        ---------
        stream : binary file
            Standard output and error of the process.
        """
        rest, descriptor = b"", stream.fileno()
        while True:
            ready, _, _ = select.select([descriptor], [], [], 1)
            chunk = os.read(descriptor, 65536) if ready else None
            if chunk == b"":
                break
            # progress bars end in a carriage return
            *lines, rest = re.split(rb"[\r\n]", rest + (chunk or b""))
            for line in lines:
                self._show(line.decode("utf-8", "replace").rstrip())
            self._tell_progress()

    def last_lines(self):
        """The end of the output, bars left out, to explain a failure."""
        return "\n".join(self._tail)

    def _show(self, line):
        if bar := BAR.search(line):
            self._doing = self._describe(bar)
            if self.bar:
                width = shutil.get_terminal_size().columns - 1
                print(f"\r{line[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            return
        if killed := KILLED.search(line):
            self.killed_by = int(killed[1])
        elif LOADER_KILLED.search(line):
            self.killed_by = signal.SIGKILL.value
        self._launcher_speaks = self._launcher_speaks or LAUNCHER.search(line) is not None
        if line and not self._launcher_speaks:
            self._tail.append(line)
        if begun := BEGUN.search(line):
            self._epoch, self._percent = int(begun[1]), 0
        if epoch := EPOCH.search(line):
            self._show_epoch(read_epoch(epoch[0]))
        elif remark := REMARK.search(line):
            self._print(remark[0])
        elif not self._header_shown and RESUMED.search(line):
            self._print("going on from the last checkpoint")

    def _describe(self, bar):
        """What a progress bar is about, in a few words."""
        what, percent = bar["what"].strip(), int(bar["percent"])
        if not what and self._epoch:
            # the bar of an epoch's validation comes after the bar of its training
            self._percent = math.inf if percent < self._percent else percent
            part = " (dev voices)" if self._percent == math.inf else ""
            what = f"epoch {self._epoch} of {self.epochs}{part}"
        return f"{what or 'working'}, {percent} %"

    def _tell_progress(self):
        """Say how far the stage is, every half minute, where no bar shows it, and look at the machine's load."""
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN:
            return
        self._told = now
        load = load_average()
        if load is not None and now - self._began > 60:
            self.loads.append(load)
        if not self.bar:
            self._print(f"  [{minutes(now - self._began)}] {self._doing}")

    def _show_epoch(self, figures):
        now = time.monotonic()
        left = (self.epochs - figures["epoch"]) * (now - self._last)
        self._last = now
        if not self._header_shown:
            self._print(
                f"{'epoch':>7} {'train loss':>12} {'valid loss':>12} {'valid WER':>11}   left"
            )
            self._header_shown = True
        wer = f"{figures['valid WER']:>9.1f} %" if "valid WER" in figures else f"{'':>11}"
        self._print(
            f"{figures['epoch']:>4.0f}/{self.epochs:<2} {figures['train loss']:>12.3f} "
            f"{figures['valid loss']:>12.3f} {wer}   {minutes(left)}"
        )
        self._epoch, self._doing = 0, "testing"

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
    """How long each stage took, over all its starts, and all of them together."""
    table = [
        {"stage": name, "time": minutes(stage["seconds"]), "starts": stage["starts"]}
        for name, stage in stages.items()
    ]
    whole = sum(stage["seconds"] for stage in stages.values())
    print(as_text([*table, {"stage": "together", "time": minutes(whole), "starts": ""}]))
    others = max((stage.get("load_of_others") or 0.0 for stage in stages.values()), default=0.0)
    if others > LOAD_WORTH_SAYING:
        print(
            f"Other programs kept {others:.1f} processors' worth of work waiting on average while this trained: "
            "alone it takes less time."
        )
