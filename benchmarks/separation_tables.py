"""The tables and the plot of ``separation.py``."""

from itertools import product

from cells import conditions_table, megabytes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from measure import save_figure
from separation_models import DUAL_PATH, FUSED, SEPFORMER, TASNET

PASSES = INFERENCE, TRAINING = "inference", "training step"
# what a cell says instead of a figure, by the first word of the reason
_SKIPPED = {"budget": "over budget", "memory": "out of memory"}


def networks_table(result):
    """The networks: parameters, and their ratio to the first network's."""
    counts = result["parameters"]
    first = next(iter(counts.values()))
    return [
        {
            "network": name,
            "size": result["size"],
            "parameters": count,
            "over the first": f"{count / first:.3f}",
        }
        for name, count in counts.items()
    ]


def time_table(result):
    """Median time of one call: seconds, and the ratio of SepFormer's to each Mamba network's."""
    return _table(result, "seconds", lambda seconds: f"{seconds:.3g}", "s")


def memory_table(result):
    """Peak memory that one call adds, in fresh processes: MB, and the ratio of SepFormer's to each Mamba network's."""
    return _table(result, "bytes", megabytes, "MB")


def _table(result, kind, written, unit):
    """A row a pass and length, with the figures of all networks and their ratios."""
    rows = []
    for which, seconds in dict.fromkeys((c["pass"], c["audio"]) for c in result["cells"]):
        cells = {
            cell["network"]: cell
            for cell in result["cells"]
            if (cell["pass"], cell["audio"]) == (which, seconds)
        }
        row = {"pass": which, "audio, s": seconds}
        for name, cell in cells.items():
            row[f"{name}, {unit}"] = _figure(cell, kind, written)
        for over, under in product((SEPFORMER, FUSED), (TASNET, DUAL_PATH)):
            if over in cells and under in cells:
                values = cells[over][kind], cells[under][kind]
                row[f"{over} / {under}"] = f"{values[0] / values[1]:.2f}" if all(values) else "-"
        rows.append(row)
    return rows


def _figure(cell, kind, written):
    if cell["skipped"]:
        return _SKIPPED[cell["skipped"].partition(":")[0]]
    return "-" if cell[kind] is None else written(cell[kind])


def stream_table(result):
    """Causal Mamba-TasNet along a stream: time of a block, over its length, and from a sample to its sources."""
    return [
        {
            "block, ms": row["block_ms"],
            "ms a block: median (p95)": f"{1e3 * row['seconds']:.1f} ({1e3 * row['p95']:.1f})",
            "of a processor, ms": f"{1e3 * row['processor_seconds']:.1f}",
            "real-time factor": f"{1e3 * row['seconds'] / row['block_ms']:.3f}",
            "latency of the network, ms": f"{row['latency_ms']:g}",
            "with waiting for the block and computing, ms": (
                f"{row['latency_ms'] + row['block_ms'] + 1e3 * row['seconds']:.0f}"
            ),
        }
        for row in result["stream"]
    ]


TABLES = {
    "conditions": conditions_table,
    "networks": networks_table,
    "time": time_table,
    "memory": memory_table,
    "stream": stream_table,
}


def plot(result, path):
    """Time over the mixture's length, and peak memory, against the length, for both passes."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    # colours that the colour-blind can tell apart
    styles = {
        TASNET: {"color": "#0072B2", "marker": "o"},
        DUAL_PATH: {"color": "#56B4E9", "marker": "D"},
        FUSED: {"color": "#009E73", "marker": "s"},
        SEPFORMER: {"color": "#D55E00", "marker": "^"},
    }
    for which, (time, memory) in zip(PASSES, axes, strict=True):
        for name, style in styles.items():
            cells = [c for c in result["cells"] if c["pass"] == which and c["network"] == name]
            for axis, points in (
                (time, [(c["audio"], c["seconds"] / c["audio"]) for c in cells if c["seconds"]]),
                (memory, [(c["audio"], c["bytes"] / 1e6) for c in cells if c["bytes"]]),
            ):
                if points:
                    axis.plot(*zip(*points, strict=True), label=name, **style)
        time.set_ylabel(f"{which}: computing time / audio")
        memory.set_ylabel(f"{which}: peak memory, MB")
    threads = result["machine"]["threads"]
    axes[0, 0].set_title(f"Size {result['size']}, one mixture, CPU threads: {threads}", loc="left")
    axes[0, 1].set_title("Memory beyond the resting process", loc="left")
    lengths = sorted({cell["audio"] for cell in result["cells"]})
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.xaxis.set_minor_locator(NullLocator())
        # some figures span less than a decade, and one tick or none would be left
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("audio, s")
    # where no curve comes: memory grows from the lower left
    axes[1, 1].legend(frameon=False, loc="lower right")
    save_figure(figure, path)
