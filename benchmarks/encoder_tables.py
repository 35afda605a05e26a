"""The tables and the plot of ``encoder.py``, and the goals that they compare its measurements with."""

from cells import megabytes, milliseconds, number, ratio, verdict
from matplotlib.figure import Figure
from measure import save_figure

OURS, CEILING = "ConMamba", "ceiling"
RELATIVE, ROTARY = "RelPosMHAXL", "RoPEMHA"
# least ratios of Conformer's time to ConMamba's, by seconds of audio
GOALS = {
    RELATIVE: {5: 1, 15: 1.1, 60: 4, 120: 5, 300: 10},
    ROTARY: {15: 1, 60: 1, 120: 1, 300: 1},
}
MOST_MEMORY = {120: 1 / 4}
LEAST_TRAINING = 1


def forward_table(result):
    """Forward pass, batch 1: milliseconds, and computing time over the length of the audio."""
    names = (OURS, CEILING, RELATIVE, ROTARY)
    return [
        {"audio, s": row["audio"]}
        | {f"{name}, ms": milliseconds(row["seconds"].get(name)) for name in names}
        | {
            f"real-time factor of {name}": _real_time_factor(row, name)
            for name in (OURS, RELATIVE, ROTARY)
        }
        for row in result["forward"]
    ]


def speedup_table(result):
    """Forward pass, batch 1: Conformer's time over ConMamba's, and over its ceiling's."""
    table = []
    for row in result["forward"]:
        cells = {"audio, s": row["audio"]}
        for name in (RELATIVE, ROTARY):
            times = ratio(row["seconds"], name, OURS)
            cells[f"{name} / ConMamba"] = number(times)
            cells[f"goal of {name}"] = verdict(times, GOALS[name].get(row["audio"]), "at least")
            cells[f"{name} / ceiling"] = number(ratio(row["seconds"], name, CEILING))
        table.append(cells)
    return table


def memory_table(result):
    """Forward pass, batch 1: peak memory beyond the resting process, in fresh processes."""
    table = []
    for row in result["memory"]:
        used = row["bytes"]
        share = ratio(used, OURS, RELATIVE)
        cells = {"audio, s": row["audio"]}
        cells |= {f"{name}, MB": megabytes(used.get(name)) for name in (OURS, RELATIVE, ROTARY)}
        cells[f"ConMamba / {RELATIVE}"] = number(share, 3)
        cells[f"ConMamba / {ROTARY}"] = number(ratio(used, OURS, ROTARY), 2)
        limit = MOST_MEMORY.get(row["audio"])
        cells["goal"] = verdict(share, limit, "at most")
        table.append(cells)
    return table


def training_table(result):
    """Forward and backward pass in training mode, dropout 0.1, float32."""
    table = []
    for row in result["training"]:
        seconds = row["seconds"]
        cells = {"batch": f"{row['batch']} x {row['audio']} s"}
        cells |= {f"{name}, ms": milliseconds(seconds[name]) for name in (OURS, RELATIVE, ROTARY)}
        for name in (RELATIVE, ROTARY):
            cells[f"{name} / ConMamba"] = number(ratio(seconds, name, OURS))
        goal = LEAST_TRAINING if row["batch"] == 1 else None
        cells[f"goal of {RELATIVE}"] = verdict(ratio(seconds, RELATIVE, OURS), goal, "at least")
        table.append(cells)
    return table


TABLES = {
    "forward": forward_table,
    "speedup": speedup_table,
    "memory": memory_table,
    "training": training_table,
}


def _real_time_factor(row, name):
    seconds = row["seconds"].get(name)
    return number(None if seconds is None else seconds / row["audio"], 4)


def plot(result, path):
    """Real-time factor and peak memory against the length of the audio."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    time, memory = figure.subplots(1, 2)
    # colours that the colour-blind can tell apart
    styles = {
        OURS: {"color": "#0072B2", "marker": "o"},
        CEILING: {"color": "#0072B2", "marker": ".", "linestyle": ":"},
        ROTARY: {"color": "#009E73", "marker": "s"},
        RELATIVE: {"color": "#D55E00", "marker": "^"},
    }
    labels = {
        OURS: "ConMamba",
        CEILING: "ConMamba without its scans",
        ROTARY: f"Conformer, {ROTARY}",
        RELATIVE: f"Conformer, {RELATIVE}",
    }
    for name, style in styles.items():
        points = [
            (row["audio"], row["seconds"][name] / row["audio"])
            for row in result["forward"]
            if row["seconds"].get(name)
        ]
        if points:
            time.plot(*zip(*points, strict=True), label=labels[name], **style)
        points = [
            (row["audio"], row["bytes"][name] / 1e6)
            for row in result["memory"]
            if row["bytes"].get(name)
        ]
        if points:
            memory.plot(*zip(*points, strict=True), label=labels[name], **style)
    threads = result["machine"]["threads"]
    time.set_ylabel("real-time factor (computing time / audio)")
    time.set_title(f"Forward pass, batch 1, {threads} CPU threads", loc="left")
    memory.set_ylabel("peak memory of the pass, MB")
    memory.set_title("Memory beyond the resting process", loc="left")
    lengths = [row["audio"] for row in result["forward"]]
    for axis in (time, memory):
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.minorticks_off()
        axis.set_xlabel("audio, s")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    save_figure(figure, path)
