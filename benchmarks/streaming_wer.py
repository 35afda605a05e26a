"""Word errors of trained runs against the latency that they are read with; part of ``streaming.py``.

The causal ConMamba, the one over chunks, the one that hears everything and the Conformer with dynamic chunk training
learn from the same corpus for the same number of epochs. They are read by the best path, and by a search with a
language model where there is one.
"""

import subprocess
import sys
from pathlib import Path

import torch
from decoding_run import read_split
from speechbrain.utils.metric_stats import ErrorRateStats
from streaming_models import CONFORMER, CONMAMBA, WHOLE

from mamba_speech.asr.recognizer import Recognizer
from mamba_speech.audio import load_audio
from mamba_speech.evaluation.bootstrap import mean_interval

# name of a run, and how it is trained: the YAML without its size, and options
KINDS = {
    "causal": (CONMAMBA, {"causal": "True"}),
    "chunked": (CONMAMBA, {}),
    "full": (WHOLE, {}),
    "conformer": (CONFORMER, {}),
}
LABELS = {
    "causal": "causal ConMamba",
    "chunked": "ConMamba over chunks",
    "full": "ConMamba of the whole utterance",
    "conformer": "Conformer over chunks",
}
# frames of a chunk that no utterance is longer than
WHOLE_UTTERANCE = 60_000
RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "LibriSpeech" / "ASR"
GOAL_FULL, GOAL_AT, GOAL_RELATIVE = 10.0, 8, 20.0


def train(folder, data_folder, size, options, kinds=tuple(KINDS)):
    """Train runs one after another with the recipe's script; a run that is there is resumed.

    Arguments
    ---------
    folder : Path
        Gets a folder for each run.
    data_folder : Path
        Corpus in LibriSpeech's layout.
    size : str
        `mini`, or `debug` for a test.
    options : list of str
        Options of all runs as the command line has them, ``name=value``.
    kinds : iterable of str
        Keys of :data:`KINDS`.

    Returns
    -------
    dict of str to Path
        The runs' folders.

    Raises
    ------
    SystemExit
        If a training fails.
    """
    runs = {}
    for kind in kinds:
        yaml, own = KINDS[kind]
        # the baseline has one size
        name = f"{yaml}_mini" if yaml == CONFORMER else f"{yaml}_{size}"
        runs[kind] = Path(folder).resolve() / kind
        words = [f"--{one}" for one in options]
        words += [f"--{key}={value}" for key, value in own.items()]
        words += [f"--data_folder={Path(data_folder).resolve()}", f"--output_folder={runs[kind]}"]
        script = [sys.executable, str(RECIPE / "train_CTC.py"), f"hparams/CTC/{name}.yaml"]
        if subprocess.run([*script, *words], check=False, cwd=RECIPE).returncode:
            raise SystemExit(f"{kind}: the training failed; its log is in {runs[kind]}")
    return runs


def settings(kind, chunks, contexts):
    """How a run is read: pairs of the frames of a chunk (None: all) and the chunks of the past (None: all)."""
    if kind == "causal":
        return [(1, None)]
    if kind == "full":
        return [(None, None)]
    pasts = contexts if kind == "conformer" else (None,)
    return [(size, past) for past in pasts for size in chunks] + [(None, None)]


def measure_wer(runs, utterances, chunks, contexts, lm=None):
    """Word errors of each run with each latency, by the best path and by a search with a language model.

    Arguments
    ---------
    runs : dict of str to Path
    utterances : list of (str, str)
        Recordings and their texts.
    chunks : list of int
        Frames of a chunk.
    contexts : list of int or None
        Chunks of the past that a Conformer hears.
    lm : dict, optional
        Options of :meth:`mamba_speech.asr.recognizer.Recognizer.load` for the search, the language model among them.
        Of the Conformer only the whole past is searched.

    Returns
    -------
    list of dict
        ``run``, ``chunk``, ``past``, ``lm`` (whether a language model helped), ``wer`` in per cent with ``low`` and
        ``high``, ``errors`` and ``words``.
    """
    rows = []
    for kind, folder in runs.items():
        for options in ({"decoding": "greedy"}, lm):
            if options is None:
                continue
            try:
                recognizer = Recognizer.load(folder, "cpu", **options)
            except (OSError, ValueError) as error:
                raise SystemExit(f"--runs {kind}={folder}: {error}") from error
            pasts = contexts if options is not lm else [None]
            for size, past in settings(kind, chunks, pasts):
                found = measure_setting(recognizer, utterances, kind, size, past)
                rows.append(found | {"lm": options is lm})
    return rows


def measure_setting(recognizer, utterances, kind, size, past):
    """A row of :func:`measure_wer`, without ``lm``."""
    waveforms = [(path, load_audio(path, recognizer.sample_rate)) for path, _ in utterances]
    if kind in ("chunked", "conformer"):
        recognizer.model.chunk_size = size or WHOLE_UTTERANCE
        recognizer.model.left_context = past
    scores = errors_of(recognizer, waveforms, dict(utterances))
    wrong, words = zip(*scores, strict=True)
    found = mean_interval(wrong, words, scale=100)
    row = {"run": kind, "chunk": size, "past": past, "wer": found.estimate}
    return row | {"low": found.low, "high": found.high, "errors": sum(wrong), "words": sum(words)}


def errors_of(recognizer, waveforms, texts):
    """Pairs of errors and words, an utterance each."""
    heard = recognizer.transcribe([wav for _, wav in waveforms], recognizer.sample_rate)
    metric = ErrorRateStats()
    for (path, _), result in zip(waveforms, heard, strict=True):
        metric.append([path], [result.text.split()], [texts[path].split()])
    return [(one["num_edits"], one["num_ref_tokens"]) for one in metric.scores]


def measure(options):
    """Word errors for the JSON; trains first where the options say so."""
    runs = dict(options.runs)
    if options.train:
        runs |= train(options.train, options.data_folder, options.size, options.option)
    utterances = read_split(options.data_folder, options.split, options.utterances)
    lm = {"lm": options.lm, "lm_weight": options.lm_weight, "beam_size": options.beam_size}
    with torch.inference_mode():
        rows = measure_wer(
            runs,
            utterances,
            options.chunks,
            [None, *options.contexts],
            lm if options.lm else None,
        )
    return {
        "rows": rows,
        "split": options.split,
        "utterances": len(utterances),
        "runs": {kind: str(folder) for kind, folder in runs.items()},
        "options": options.option,
        "lm": {name: str(value) for name, value in lm.items()} if options.lm else None,
    }


def table(result):
    """Word error rate against latency, by run."""
    rows = []
    for row in result["rows"]:
        size = row["chunk"]
        past = "" if row["past"] is None else f", {row['past']} chunks before"
        rows.append(
            {
                "model": LABELS[row["run"]] + past,
                "search": "language model" if row["lm"] else "best path",
                "latency, ms": "whole utterance" if size is None else 40 * size,
                "WER, % (95 % interval)": f"{row['wer']:.1f} ({row['low']:.1f} to {row['high']:.1f})",
                "errors": row["errors"],
                "words": row["words"],
            }
        )
    return rows


def goals(result):
    """The goals for word errors, and whether they are met; nothing where a run is missing.

    Runs are compared with the language model where there is one.
    """
    searched = any(row["lm"] for row in result["rows"])
    found = {
        (row["run"], row["chunk"], row["past"]): row["wer"]
        for row in result["rows"]
        if row["lm"] == searched
    }
    full = [found[key] for key in (("chunked", None, None), ("full", None, None)) if key in found]
    ours, theirs = (found.get((kind, GOAL_AT, None)) for kind in ("chunked", "conformer"))
    rows = []
    if full:
        best = min(full)
        rows.append(_goal("best of full context, WER %", best, GOAL_FULL))
        if ours is not None and best > 0:
            rows.append(
                _goal("320 ms: % above it, relative", 100 * (ours / best - 1), GOAL_RELATIVE)
            )
    if ours is not None and theirs is not None:
        rows.append(_goal("320 ms: WER %, at most the Conformer's", ours, round(theirs, 1)))
    return rows


def _goal(name, value, limit):
    met = "yes" if value <= limit else "no"
    return {"goal": name, "found": f"{value:.1f}", "at most": f"{limit:g}", "met": met}


def plot(result, path):
    """Draw word errors over latency."""
    from matplotlib.figure import Figure
    from measure import save_figure

    colours = {"causal": "#0072B2", "chunked": "#D55E00", "full": "#009E73", "conformer": "#CC79A7"}
    marks = {None: "o", 4: "v", 32: "s"}
    figure = Figure(figsize=(7.5, 4.4), layout="constrained")
    axes = figure.subplots()
    lines = {}
    for row in result["rows"]:
        lines.setdefault((row["run"], row["past"], row["lm"]), []).append(row)
    sizes = sorted({row["chunk"] for row in result["rows"] if row["chunk"]})
    # the whole utterance stands right of the longest chunk
    end = 2 * max(sizes, default=1)
    for (kind, past, searched), rows in lines.items():
        places = [40 * (row["chunk"] or end) for row in rows]
        label = LABELS[kind] + ("" if past is None else f", {past} chunks before")
        style = {"color": colours[kind], "marker": marks.get(past, "d")}
        label += ", language model" if searched else ""
        style |= {"linestyle": "--" if searched else "-" if past is None else ":"}
        axes.plot(places, [row["wer"] for row in rows], label=label, **style)
    axes.set_xscale("log")
    ticks = {40 * size: f"{40 * size:,}" for size in sizes} | {40 * end: "whole"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.minorticks_off()
    axes.set(xlabel="latency, ms", ylabel="word error rate, %", ylim=(0, None))
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
