#!/usr/bin/env python3
"""Windows of long recordings against utterances: word errors, memory of an hour, and words in what is no speech.

    python benchmarks/longform.py RUN TEST.csv [--noise FOLDER] [--recordings 2] [--minutes 10] [--out FOLDER]

The utterances of a list with references are joined to recordings, with pauses of 0.3 to 1.2 s. The run writes down each
utterance, and the recordings window by window. Writes longform.json, longform_wer.json, longform_memory.json and
longform_quiet.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from measure import machine, parse
from quiet import at_level, sounds
from streaming_hour import resident

from mamba_speech.arguments import given_path, number, whole_number
from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.audio import load_audio
from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import write_json
from mamba_speech.lists import read_list

WINDOWS = (10.0, 20.0, 40.0)
GOAL_POINTS, GOAL_MB = 0.5, 20.0
# address space in which the hour is read
LIMIT_KB = 4_000_000


def utterances(path, rate):
    """Pairs of a waveform (samples,) and its reference from a list."""
    for row in read_list(path):
        yield load_audio(row.path, rate), row.text


def joined(pairs, rate, seconds, random):
    """Utterances, each with its pause, that make one recording; and their references."""
    pieces, texts, samples = [], [], 0
    for waveform, text in pairs:
        pause = torch.zeros(int(random.uniform(0.3, 1.2) * rate))
        pieces.append(torch.cat([waveform, pause]))
        texts.append(text)
        samples += len(waveform) + len(pause)
        if samples >= seconds * rate:
            break
    return pieces, texts


def errors(pairs):
    """Word errors and words of pairs of a reference and a text."""
    from speechbrain.utils.metric_stats import ErrorRateStats

    stats = ErrorRateStats()
    for index, (reference, text) in enumerate(pairs):
        stats.append([str(index)], [text.split()], [reference.split()])
    summary = stats.summarize()
    return summary["num_edits"], summary["num_scored_tokens"]


def word_errors(recognizer, recordings, pieces, padded):
    """WER in percent of utterances, of utterances with their pauses, and of windows of each length."""
    rate = recognizer.sample_rate
    single = [text for _, texts in recordings for text in texts]
    rows = {}
    for name, heard in {"utterances": pieces, "utterances, each with its pause": padded}.items():
        found = [one.text for one in recognizer.transcribe(heard, rate)]
        edits, words = errors(zip(single, found, strict=True))
        rows[name] = 100 * edits / words
    for seconds in WINDOWS:
        texts = [
            (
                " ".join(reference),
                recognizer.transcribe(sound, rate, max_window_seconds=seconds).text,
            )
            for sound, reference in recordings
        ]
        edits, words = errors(texts)
        rows[f"windows of {seconds:g} s"] = 100 * edits / words
    return {"words": words, "wer": rows}


def hear_hour(run, path):
    """Resident memory in MB after each minute or so, printed as JSON; a process of its own."""
    torch.set_num_threads(1)
    recognizer = Recognizer.load(run, "cpu")
    told = []

    def progress(_, seconds):
        told.append((seconds, resident() / 1e6))

    result = recognizer.transcribe(path, progress=progress)
    print(json.dumps({"told": told, "seconds": result.seconds, "words": len(result.text.split())}))


def memory(run, sound, rate, minutes):
    """What the memory of a process does over a long file, with an address space of LIMIT_KB."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        with soundfile.SoundFile(path, "w", samplerate=rate, channels=1) as file:
            while file.frames < minutes * 60 * rate:
                file.write(sound.numpy())
        command = [sys.executable, __file__, run, str(path), "--hear"]
        limited = ["bash", "-c", f'ulimit -v {LIMIT_KB}; exec "$@"', "bash", *command]
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
        is_limited = done.returncode == 0
        if not is_limited:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
    found = json.loads(done.stdout.splitlines()[-1])
    later = [megabytes for seconds, megabytes in found["told"] if seconds >= 120]
    return {
        "minutes": found["seconds"] / 60,
        "words": found["words"],
        "address space": LIMIT_KB if is_limited else None,
        "resident after minute two": later[0],
        "largest later": max(later),
        "growth": max(later) - later[0],
    }


def quiet_words(recognizer, seconds, noise):
    """Words that the run finds in each kind of sound without speech, by gate."""
    rate = recognizer.sample_rate
    return {
        name: {
            vad: len(recognizer.transcribe(at_level(sound, -30), rate, vad=vad).text.split())
            for vad in ("off", "energy", "silero")
        }
        for name, sound in sounds(seconds, noise)
    }


def tables(result):
    """Rows for Markdown of the three tables."""
    wer, memory_row = result["wer"], result["memory"]
    whole = wer["wer"]["utterances"]
    rows = [
        {"heard as": name, "WER, %": f"{value:.2f}", "points apart": f"{value - whole:+.2f}"}
        for name, value in wer["wer"].items()
    ]
    space = memory_row["address space"]
    memory_rows = [
        {
            "minutes": f"{memory_row['minutes']:.0f}",
            "address space": f"{space:,} kB" if space else "not limited",
            "resident after minute two, MB": f"{memory_row['resident after minute two']:.0f}",
            "largest later, MB": f"{memory_row['largest later']:.0f}",
            "goal of the difference, MB": f"{GOAL_MB:.0f}",
            "met": "yes" if memory_row["growth"] <= GOAL_MB else "no",
            "date": result["machine"]["date"],
        }
    ]
    quiet = [
        {"sound": name} | {f"words, vad {vad}": str(count) for vad, count in row.items()}
        for name, row in result["quiet"].items()
    ]
    return {"wer": rows, "memory": memory_rows, "quiet": quiet}


def main():
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=given_path, help="output folder of a recogniser's run")
    parser.add_argument("test", type=given_path, help="list of utterances with references")
    parser.add_argument("--noise", type=Path, help="folder of recordings without speech")
    parser.add_argument("--recordings", type=whole_number(1, 100), default=2)
    parser.add_argument("--minutes", type=number(1, 120), default=10.0, help="of each recording")
    parser.add_argument("--hour", type=number(3, 600), default=60.0, help="minutes of the long one")
    parser.add_argument("--quiet_seconds", type=number(1, 3600), default=60.0, help="of each sound")
    parser.add_argument("--hear", action="store_true", help=argparse.SUPPRESS)
    options = parse(parser, None, rounds=1, threads=1)
    if options.hear:
        return hear_hour(options.run, options.test)
    recognizer, random = Recognizer.load(options.run, "cpu"), np.random.default_rng(1)
    rate = recognizer.sample_rate
    found = list(utterances(options.test, rate))
    recordings, pieces, padded, place = [], [], [], 0
    for _ in range(options.recordings):
        # from where the last one ended, and over again at the list's end
        turned = [*found[place:], *found[:place]]
        paused, texts = joined(turned, rate, 60 * options.minutes, random)
        recordings.append((torch.cat(paused), texts))
        padded += paused
        pieces += [waveform for waveform, _ in turned[: len(texts)]]
        place = (place + len(texts)) % len(found)
    result = {
        "machine": machine(),
        "minutes": options.minutes,
        "recordings": options.recordings,
        "wer": word_errors(recognizer, recordings, pieces, padded),
        "memory": memory(options.run, recordings[0][0], rate, options.hour),
        "quiet": quiet_words(recognizer, options.quiet_seconds, options.noise),
    }
    write_json(options.out / "longform.json", result)
    for name, rows in tables(result).items():
        write_json(options.out / f"longform_{name}.json", rows)
        print(as_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
