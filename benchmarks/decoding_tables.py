"""The tables and the plot of ``decoding.py``, and the goals that they compare its measurements with."""

from cells import megabytes, milliseconds, verdict
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from measure import save_figure

from mamba_speech.figures import line_style

STATEFUL = "Mamba, state carried"
PARTS = ("forward_step", "flat", "search", "mini", "ctc", "lm")
# how many times as long the decoders that re-run the prefix take at least
LEAST_SPEEDUP = 5
# how many times as fast as the plain search of a small recogniser the compiled one is at least
MINI_SPEEDUP = 3
RE_RUN = ("Mamba, prefix re-run", "Mamba, prefix re-run by SpeechBrain's searcher")
# the slowest of the steps over the quickest, of the decoder that carries its state
MOST_GROWTH = 1.1


def forward_step_table(result):
    """All steps of a beam's decoder: seconds of forward_step, without scorers and choice."""
    steps = result["steps"]
    own = result["decoders"][STATEFUL]["forward_step"]
    shown = sorted({1, (steps + 1) // 2, steps})
    table = []
    for name, figures in result["decoders"].items():
        ratio = figures["forward_step"] / own
        row = {"decoder": name, "prefill, ms": milliseconds(figures["prefill"])}
        row |= {f"step {n}, ms": milliseconds(figures["each_step"][n - 1]) for n in shown}
        row[f"forward_step, {steps} steps, s"] = f"{figures['forward_step']:.3f}"
        row["permute_mem, s"] = f"{figures['permute_mem']:.3f}"
        row["rounds"] = figures["rounds"]
        row["times the first"] = f"{ratio:.1f}"
        row["goal"] = verdict(ratio, LEAST_SPEEDUP, "at least") if name in RE_RUN else "-"
        table.append(row)
    return table


def flat_table(rows):
    """Milliseconds of one forward_step by the number of the step."""
    steps = sorted({row["step"] for row in rows})
    found = {(row["decoder"], row["step"]): row["seconds"] for row in rows}
    table = []
    for name in dict.fromkeys(row["decoder"] for row in rows):
        known = [found[name, step] for step in steps if (name, step) in found]
        growth = max(known) / min(known)
        row = {"decoder": name}
        row |= {f"step {step}": milliseconds(found.get((name, step))) for step in steps}
        row["slowest / quickest"] = f"{growth:.2f}"
        row["goal"] = verdict(growth, MOST_GROWTH, "at most") if name == STATEFUL else "-"
        table.append(row)
    return table


def search_table(result):
    """A whole search of one utterance; real-time factor without the encoder."""
    steps, table = result["steps"], []
    for row in result["rows"]:
        whole = row["seconds"] / row["steps"] * steps
        cut = row["steps"] < steps
        table.append(
            {
                "decoder": row["decoder"],
                "CTC scorer": row["ctc"].removeprefix("CTC").lstrip(", "),
                "language model": row["lm"],
                f"{steps} steps, s": f"{whole:.2f}"
                + (f" (from {row['steps']} steps)" if cut else ""),
                "ms a step": milliseconds(row["seconds"] / row["steps"]),
                "real-time factor": f"{whole / result['audio']:.2f}",
                "rounds": row["rounds"],
            }
        )
    return table


def mini_table(rows):
    """The search of a small recogniser beside other decodings; process time, without the encoder."""
    plain = {row["batch"]: row["seconds"] for row in rows if row["decoding"].endswith("plain")}
    table = []
    for row in rows:
        speedup = plain[row["batch"]] / row["seconds"]
        difference = row["largest_difference"]
        table.append(
            {
                "batch": row["batch"],
                "decoding": row["decoding"],
                "ms (least)": f"{1e3 * row['seconds']:.1f} ({1e3 * row['least']:.1f})",
                "real-time factor": f"{row['seconds'] / row['audio']:.4f}",
                "times as fast as plain": f"{speedup:.1f}",
                "largest difference of scores": "-" if difference is None else f"{difference:.0e}",
                "goal": "-" if difference is None else verdict(speedup, MINI_SPEEDUP, "at least"),
            }
        )
    return table


def ctc_table(rows):
    """CTC scorers alone: time of a step, memory, and distance from SpeechBrain's full scores."""
    table = []
    for row in rows:
        slowest = max(row["seconds"].values())
        for kind, seconds in row["seconds"].items():
            used = row["bytes"].get(kind)
            table.append(
                {
                    "vocabulary": row["vocabulary"],
                    "scorer": kind,
                    "ms a step": milliseconds(seconds),
                    "times as fast as the slowest": f"{slowest / seconds:.1f}",
                    "peak memory, MB": megabytes(used),
                    "largest difference": f"{row['difference'][kind]:.0e}",
                }
            )
    return table


def lm_table(rows):
    """Language models alone: milliseconds of a step of the whole beam."""
    return [
        {"model": row["model"], "size": row["size"], "parameters": row["parameters"]}
        | {f"step {step}, ms": milliseconds(seconds) for step, seconds in row["seconds"].items()}
        for row in rows
    ]


def wer_table(result):
    """What the kinds of scoring cost a trained run; the real-time factor includes the encoder."""
    return [
        {
            "CTC scoring": row["scoring"],
            "beam": row["beam"],
            "WER, %": f"{row['wer']:.2f}",
            "errors": row["errors"],
            "words": result["words"],
            "search, s": f"{row['seconds']:.1f}",
            "real-time factor": f"{(row['seconds'] + result['encoder']) / result['audio']:.3f}",
        }
        for row in result["rows"]
    ]


TABLES = {
    "forward_step": forward_step_table,
    "flat": flat_table,
    "search": search_table,
    "mini": mini_table,
    "ctc": ctc_table,
    "lm": lm_table,
    "trained_run": wer_table,
}


def plot(rows, path):
    """Time of a step against its number."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axis = figure.subplots()
    for index, name in enumerate(dict.fromkeys(row["decoder"] for row in rows)):
        points = [(row["step"], 1e3 * row["seconds"]) for row in rows if row["decoder"] == name]
        axis.plot(*zip(*points, strict=True), label=name, **line_style(index))
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_xlabel("tokens decoded so far")
    axis.set_ylabel("time of one decoding step, ms")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
