#!/usr/bin/env python3
"""Recognition along a stream: how late it is, what a chunk costs, an hour of speech, and word errors against latency.

    python benchmarks/streaming.py [--stages latency chunks hour] [--speech FOLDER] [--minutes 60] [--out FOLDER]
    python benchmarks/streaming.py --stages wer --train FOLDER --data_folder CORPUS --option number_of_epochs=10
    python benchmarks/streaming.py --stages wer --runs chunked=RUN conformer=RUN --data_folder CORPUS

The first three stages need no training: their networks have the mini size and random weights. Time is the process's
own on one thread, which other programs disturb little. Each stage writes a table, streaming_STAGE.json, and its figures
into streaming.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import streaming_wer
import torch
from cells import milliseconds, number, verdict, yes_or_no
from measure import Load, add_out, machine, positive, save_figure
from streaming_chunks import CONTEXTS, time_chunks
from streaming_hour import utterances
from streaming_latency import measure_latency, told_latency
from streaming_models import CONFORMER, CONMAMBA, RATE, WHOLE, parts_of, write_random_run

from mamba_speech.evaluation.tables import as_text
from mamba_speech.files import read_json, write_json

CHUNKS = (2, 4, 8, 16, 32)
# goals: times as fast as the Conformer with each context, minute 60 against minute 1, MB of growth
FASTER, FLAT, GROWTH = 2.0, 1.1, 20
OURS = "ConMamba over chunks"


def random_runs(folder, speech, size):
    """Folders of random runs by name: chunked, causal, full, and a Conformer with each attention."""
    sound = (
        torch.cat(list(utterances(speech, RATE, 20))) if speech else 0.1 * torch.randn(20 * RATE)
    )
    kinds = {
        "chunked": (f"{CONMAMBA}_{size}", {}),
        "causal": (f"{CONMAMBA}_{size}", {"causal": True}),
        "full": (f"{WHOLE}_{size}", {}),
        "RoPEMHA": (f"{CONFORMER}_mini", {}),
        "RelPosMHAXL": (f"{CONFORMER}_mini", {"attention_type": "RelPosMHAXL"}),
    }
    return {
        name: write_random_run(folder / name, yaml, sound, **options)
        for name, (yaml, options) in kinds.items()
    }


def latency_stage(options, folders):
    """Latency in seconds, as told and as found."""
    runs, rows = {name: parts_of(folder) for name, folder in folders.items()}, []
    cases = [("causal", None)] + [("chunked", size) for size in options.chunks]
    cases += [("RoPEMHA", size) for size in options.chunks] + [("full", None)]
    for name, size in cases:
        row = {"run": name, "chunk": size} | measure_latency(runs[name], size)
        if name in ("causal", "chunked"):
            row["told"] = told_latency(runs[name], size)
        rows.append(row)
    return {"rows": rows}


def latency_table(result):
    """Latency of the algorithm, found by changing samples."""
    labels = {"causal": "causal ConMamba", "chunked": OURS, "RoPEMHA": "Conformer over chunks"}
    labels["full"] = "ConMamba of the whole utterance"
    rows = []
    for row in result["rows"]:
        ahead = row.get("front_end")
        rows.append(
            {
                "model": labels[row["run"]],
                "frames in a chunk": row["chunk"] or "-",
                "latency told, ms": milliseconds(row.get("told")),
                "latency found, ms": "to the end"
                if row["found"] is None
                else milliseconds(row["found"]),
                "read behind the chunk's end, ms": milliseconds(ahead),
                "as told": "-"
                if "told" not in row
                else yes_or_no(abs(row["found"] - row["told"]) <= 1 / RATE),
            }
        )
    return rows


def chunks_stage(options, folders):
    """Processor time of single chunks, by chunk size."""
    runs = {name: parts_of(folder) for name, folder in folders.items() if name != "full"}
    parameters = {
        name: sum(one.numel() for one in parts[2].parameters()) for name, parts in runs.items()
    }
    times = {size: time_chunks(runs, size, options.rounds) for size in options.chunks}
    return {"times": times, "parameters": parameters}


def chunks_table(result):
    """Time of a chunk on one thread, and how many times as long SpeechBrain's streaming Conformer takes."""
    rows = []
    for size, ways in result["times"].items():
        ours = ways[OURS]["p50"]
        for name, found in ways.items():
            times = found["p50"] / ours
            goal = verdict(times, FASTER, "at least") if name.startswith("Conformer, RoPE") else "-"
            rows.append(
                {
                    "chunk, ms": 40 * int(size),
                    "model": name,
                    "p50, ms": milliseconds(found["p50"]),
                    "p95, ms": milliseconds(found["p95"]),
                    "real-time factor": number(found["mean"] / found["chunk_seconds"], 4),
                    f"times {OURS}": number(times),
                    "goal": goal,
                }
            )
    return rows


def hour_stage(options, folders):
    """Each minute of an hour, and whether the words equal the words of the utterances with carried state."""
    if options.speech is None:
        raise SystemExit("--speech: give a folder of recordings, or set SPEECH_DATA")
    run, script = options.run or folders["chunked"], Path(__file__).with_name("streaming_hour.py")
    minutes, words = {}, {}
    for pieces in ("chunks", "utterances"):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "words.txt"
            command = [sys.executable, script, run, options.speech, "--minutes", options.minutes]
            command += ["--pieces", pieces, "--words", file]
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(
                list(map(str, command)),
                check=False,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            if done.returncode:
                raise SystemExit("the hour could not be heard: see above")
            minutes[pieces] = json.loads(done.stdout.splitlines()[-1])
            words[pieces] = file.read_text(encoding="utf-8").splitlines()
    chunks, whole = (set(words[one]) for one in ("chunks", "utterances"))
    return {
        "minutes": minutes["chunks"],
        "words": len(words["chunks"]),
        "differing_words": len(chunks ^ whole),
        "trained": options.run is not None,
    }


def hour_table(result):
    """An hour of real utterances, heard chunk by chunk on one thread."""
    minutes = result["minutes"]
    first, last = minutes[0], minutes[-1]
    slower = last["p50"] / first["p50"]
    row = {
        "minutes": len(minutes),
        "p50 of a chunk, minute 1, ms": milliseconds(first["p50"]),
        f"minute {len(minutes)}, ms": milliseconds(last["p50"]),
        "ratio": f"{slower:.2f} ({verdict(slower, FLAT, 'at most')})",
        "real-time factor": number(sum(one["work"] for one in minutes) / 60 / len(minutes), 4),
    }
    if first["resident"] and len(minutes) > 1:
        growth = (max(one["resident"] for one in minutes[1:]) - first["resident"]) / 2**20
        row["MB after minute 1"] = number(first["resident"] / 2**20, 0)
        row["growth later, MB"] = f"{growth:.1f} ({verdict(growth, GROWTH, 'at most')})"
    row["words"] = result["words"]
    row["words that differ from utterances with carried state"] = result["differing_words"]
    return [row]


def hour_plot(result, path):
    """Draw time and memory over the hour."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    time, memory = figure.subplots(1, 2)
    minutes = range(1, len(result["minutes"]) + 1)
    time.plot(minutes, [1000 * one["p50"] for one in result["minutes"]], color="#0072B2")
    time.set(ylabel="p50 of a chunk, ms", ylim=(0, None))
    if result["minutes"][0]["resident"]:
        memory.plot(
            minutes, [one["resident"] / 2**20 for one in result["minutes"]], color="#D55E00"
        )
    memory.set(ylabel="resident memory, MB", ylim=(0, None))
    for axes in (time, memory):
        axes.set_xlabel("minute of the stream")
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


STAGES = {
    "latency": (latency_stage, latency_table),
    "chunks": (chunks_stage, chunks_table),
    "hour": (hour_stage, hour_table),
    "wer": (lambda options, folders: streaming_wer.measure(options), streaming_wer.table),
}


def named_run(text):
    """An option's ``name=folder``."""
    kind, equals, folder = text.partition("=")
    if not equals or kind not in streaming_wer.KINDS:
        names = ", ".join(streaming_wer.KINDS)
        raise argparse.ArgumentTypeError(f"{text} is not NAME=FOLDER, with a name of {names}")
    return kind, Path(folder)


def assignment(text):
    """An option's ``name=value``."""
    if not text.partition("=")[1]:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return text


def options_of(arguments=None):
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = ["latency", "chunks", "hour"]
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=known, metavar="STAGE")
    parser.add_argument(
        "--chunks", nargs="+", type=positive, default=CHUNKS, help="frames of 40 ms"
    )
    parser.add_argument("--rounds", type=positive, default=200, help="chunks that are timed")
    parser.add_argument("--minutes", type=positive, default=60, help="length of the hour")
    data = os.environ.get("SPEECH_DATA")
    parser.add_argument(
        "--speech",
        type=Path,
        default=Path(data) / "librispeech_asr" if data else None,
        help="folder of recordings; default: librispeech_asr in SPEECH_DATA",
    )
    parser.add_argument("--size", choices=("mini", "debug"), default="mini")
    parser.add_argument(
        "--run", type=Path, help="trained run for the hour; default: random weights"
    )
    wer = parser.add_argument_group("word errors")
    wer.add_argument("--runs", nargs="+", type=named_run, default=[], metavar="NAME=FOLDER")
    wer.add_argument("--train", type=Path, metavar="FOLDER", help="folder of runs to train first")
    wer.add_argument("--data_folder", type=Path, help="corpus in LibriSpeech's layout")
    wer.add_argument("--split", default="test-spoken", help="part of it to test")
    wer.add_argument("--utterances", type=positive, help="most utterances; default: all")
    wer.add_argument("--contexts", nargs="+", type=positive, default=CONTEXTS, help="chunks")
    wer.add_argument("--lm", type=Path, help="run of train_LM.py: search with it too")
    wer.add_argument("--lm_weight", type=float, default=0.5, help="weight of the language model")
    wer.add_argument("--beam_size", type=positive, default=16, help="hypotheses of that search")
    wer.add_argument(
        "--option",
        nargs="+",
        type=assignment,
        default=[],
        metavar="NAME=VALUE",
        help="options of all trainings",
    )
    add_out(parser)
    options = parser.parse_args(arguments)
    if "wer" in options.stages and not (options.data_folder and (options.runs or options.train)):
        parser.error("--stages wer needs --data_folder, and --runs or --train")
    if options.speech is not None and not options.speech.is_dir():
        parser.error(f"--speech {options.speech}: no such folder")
    return options


def publish(name, result, options):
    """Write a stage's table and picture, print the table, and add its figures to streaming.json."""
    rows = STAGES[name][1](result)
    write_json(options.out / f"streaming_{name}.json", rows)
    print(f"\n{STAGES[name][1].__doc__.splitlines()[0]}\n{as_text(rows)}", flush=True)
    if name == "hour":
        hour_plot(result, options.out / "streaming_hour.png")
    if name == "wer":
        streaming_wer.plot(result, options.out / "streaming_wer.png")
        if goals := streaming_wer.goals(result):
            write_json(options.out / "streaming_goals.json", goals)
            print(as_text(goals), flush=True)
    path = options.out / "streaming.json"
    known = read_json(path) if path.exists() else {}
    write_json(path, known | {name: result})
    conditions = [
        {
            "stage": stage,
            "processor": one["machine"]["processor"],
            "threads": 1,
            "cores used by others": str(one["cores_used_by_others"]),
            "date": one["machine"]["date"],
            "command": f"`{one['machine']['command']}`",
        }
        for stage, one in (known | {name: result}).items()
    ]
    write_json(options.out / "streaming_conditions.json", conditions)


def main(arguments=None):
    """Measure stage by stage, write, print."""
    options = options_of(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        needs_runs = set(options.stages) - {"wer"}
        folders = random_runs(Path(folder), options.speech, options.size) if needs_runs else {}
        for name in options.stages:
            load = Load()
            result = {"machine": machine()} | STAGES[name][0](options, folders)
            publish(name, result | {"cores_used_by_others": load.others()}, options)


if __name__ == "__main__":
    main()
