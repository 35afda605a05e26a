#!/usr/bin/env python3
"""Hear real utterances one after another for an hour, and say what each minute costs; part of ``streaming.py``.

    python benchmarks/streaming_hour.py RUN SPEECH --minutes 60 --pieces chunks --words FILE

A process of its own, so that its memory is the stream's. Prints a JSON object: for each minute the processor time of
half of its chunks (p50) and the resident memory. The file gets a line for each word: its text, start and end.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch
from measure import positive

from mamba_speech import LiveRecognizer
from mamba_speech.asr.session import percentile
from mamba_speech.audio import find_audio, load_audio
from mamba_speech.memory import return_freed_memory


def utterances(folder, rate, seconds):
    """Waveforms (samples,) of the recordings in a folder, over and over, so many seconds in all."""
    paths, left = find_audio([folder]), round(seconds * rate)
    while left > 0:
        for path in paths:
            wav = load_audio(path, rate)[:left]
            left -= len(wav)
            yield wav
            if left <= 0:
                return


def as_chunks(wavs, size):
    """The same sound in pieces of so many samples; the last may be shorter."""
    rest = torch.zeros(0)
    for wav in wavs:
        *pieces, rest = torch.cat([rest, wav]).split(size)
        if len(rest) == size:
            pieces, rest = [*pieces, rest], rest[:0]
        yield from pieces
    if len(rest):
        yield rest


def resident():
    """Resident memory of this process, in bytes; None off Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def hear(live, pieces, words):
    """Hear all pieces; gives figures of each minute.

    Arguments
    ---------
    live : mamba_speech.LiveRecognizer
    pieces : iterable of torch.Tensor
    words : file
        Gets a line for each word.

    Returns
    -------
    list of dict
        ``p50``, ``work`` and ``resident`` of each minute.
    """
    context, minutes, times, heard = live.make_context(), [], [], 0

    def write(updates):
        for update in updates:
            for word in update.final:
                print(word.text, f"{word.start:.2f}", f"{word.end:.2f}", file=words)

    def end_minute():
        return_freed_memory()
        row = {"p50": percentile(times, 50), "work": sum(times), "resident": resident()}
        minutes.append(row)
        times.clear()

    for piece in pieces:
        began = time.process_time()
        updates = live.listen(piece, context)
        times.append(time.process_time() - began)
        heard += len(piece)
        write(updates)
        if heard >= (len(minutes) + 1) * 60 * live.sample_rate:
            end_minute()
    write(live.finish(context))
    if times:
        end_minute()
    return minutes


def main():
    """Hear, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="folder of a run")
    parser.add_argument("speech", help="folder of recordings")
    parser.add_argument("--minutes", type=positive, default=60)
    parser.add_argument("--pieces", choices=("chunks", "utterances"), default="chunks")
    parser.add_argument("--words", type=Path, required=True, help="file of the words")
    options = parser.parse_args()
    torch.set_num_threads(1)
    live = LiveRecognizer.load(options.run, "cpu", decoding="greedy")
    pieces = utterances(options.speech, live.sample_rate, 60 * options.minutes)
    if options.pieces == "chunks":
        pieces = as_chunks(pieces, round(live.latency * live.sample_rate))
    with open(options.words, "w", encoding="utf-8") as words:
        minutes = hear(live, pieces, words)
    print(json.dumps(minutes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
