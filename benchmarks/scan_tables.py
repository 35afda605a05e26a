"""The tables and the plot of ``scan.py``, and the goals that they compare its measurements with."""

from cells import yes_or_no
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from measure import save_figure

from mamba_speech.figures import COLOURS

SHAPES = ((8, 250, 512, 16), (1, 1000, 512, 16), (1, 4000, 288, 16), (16, 63, 256, 16))
PASSES = ("forward", "forward + backward")
# least factors by which `cpu` is to beat another backend: (pass, backend, shape or None for any)
GOALS = {
    ("forward", "mambapy", SHAPES[0]): 30,
    ("forward", "mambapy", SHAPES[1]): 40,
    ("forward", "mambapy", SHAPES[2]): 40,
    ("forward", "naive", None): 10,
    ("forward + backward", "mambapy", None): 25,
}
# floating-point multiplications, additions and fused pairs of the kernels' loops, a state and frame
_OPERATIONS = {"forward": 12, "forward + backward": 32}
MOST_TIME_A_STATE = 2.0
MOST_FOR_BOTH_DIRECTIONS = 2.05
MOST_MEMORY = 1 / 8


def label(shape):
    """A shape as it stands in the tables."""
    return ", ".join(map(str, shape))


def speed_table(rows):
    """One row a shape and pass: the kernels' time, and how many times as long the others take."""
    found = {(r["shape"], r["pass"], r["backend"]): r for r in rows}
    names = list(dict.fromkeys(r["backend"] for r in rows))
    others = [name for name in ("torch", "naive", "mambapy") if name in names]
    table = []
    for shape, which in dict.fromkeys((r["shape"], r["pass"]) for r in rows):
        cells = {"B, L, D, N": label(shape), "pass": which}
        own = found.get((shape, which, "cpu"))
        ratios = {}
        if own is not None:
            cells["cpu, ms (least)"] = _median_and_least(own)
        for name in others:
            row = found[shape, which, name]
            cells[f"{name}, ms (least)"] = _median_and_least(row)
            if own is not None:
                ratios[name] = row["seconds"] / own["seconds"]
                cells[f"{name} / cpu"] = f"{ratios[name]:.1f}"
        goals = {
            name: factor
            for (part, name, of), factor in GOALS.items()
            if part == which and of in (shape, None) and shape in SHAPES
        }
        cells["goal"] = ", ".join(f"{name} {factor}" for name, factor in goals.items()) or "-"
        known = {name: factor for name, factor in goals.items() if name in ratios}
        cells["met"] = yes_or_no(all(ratios[n] >= f for n, f in known.items())) if known else "-"
        errors = [f"{found[shape, which, name]['worst_error']:.0e}" for name in names]
        cells[f"worst error of {', '.join(names)}"] = ", ".join(errors)
        table.append(cells)
    return table


def _median_and_least(row):
    return f"{1e3 * row['seconds']:.2f} ({1e3 * row['least_seconds']:.2f})"


def rates_table(rows):
    """Time a state and frame: as a multiple of the first shape's, and in a matrix product's multiply-adds."""
    base = {r["pass"]: r["nanoseconds"] for r in reversed(rows)}
    return [
        {
            "B, L, D, N": label(r["shape"]),
            "pass": r["pass"],
            "ns a state and frame": f"{r['nanoseconds']:.3f}",
            "multiply-adds of a matrix product": f"{r['multiply_adds_of_matmul']:.1f}",
            "floor": _OPERATIONS[r["pass"]],
            "of the first's": f"{r['nanoseconds'] / base[r['pass']]:.2f}",
            "goal": f"at most {MOST_TIME_A_STATE:g}",
            "met": yes_or_no(r["nanoseconds"] <= MOST_TIME_A_STATE * base[r["pass"]]),
        }
        for r in rows
    ]


def bidirectional_table(rows):
    """Both directions as a multiple of one."""
    return [
        {
            "B, L, D, N": label(r["shape"]),
            "pass": r["pass"],
            "one direction, ms": f"{1e3 * r['one']:.2f}",
            "both, ms": f"{1e3 * r['both']:.2f}",
            "both / one": f"{r['both'] / r['one']:.2f}",
            "two calls / one": f"{r['two_calls'] / r['one']:.2f}",
            "goal": f"at most {MOST_FOR_BOTH_DIRECTIONS:g}",
            "met": yes_or_no(r["both"] <= MOST_FOR_BOTH_DIRECTIONS * r["one"]),
            "worst error": f"{r['worst_error']:.0e}",
        }
        for r in rows
    ]


def memory_table(rows):
    """Memory beyond inputs, output and gradients as a share of all states' float32."""
    return [
        {
            "B, L, D, N": label(r["shape"]),
            "backend": r["backend"],
            "MB": f"{r['bytes'] / 1e6:.1f}",
            "share of B L D N x 4 bytes": f"{r['share']:.3f}",
            "goal": f"at most {MOST_MEMORY:g}" if r["backend"] == "cpu" else "-",
            "met": yes_or_no(r["share"] <= MOST_MEMORY) if r["backend"] == "cpu" else "-",
        }
        for r in rows
    ]


def conv_table(rows):
    """The compiled convolution and torch's."""
    return [
        {
            "B, L, D": label(r["shape"]),
            "width": r["width"],
            "pass": r["pass"],
            "cpu, ms": f"{1e3 * r['cpu']:.2f}",
            "F.conv1d, ms": f"{1e3 * r['torch']:.2f}",
            "F.conv1d / cpu": f"{r['torch'] / r['cpu']:.1f}",
            "worst error": f"{r['worst_error']:.0e}",
        }
        for r in rows
    ]


TABLES = {
    "speed": speed_table,
    "rates": rates_table,
    "bidirectional": bidirectional_table,
    "memory": memory_table,
    "conv": conv_table,
}


def plot(rows, path):
    """Bars: how many times as long as the kernels every other backend takes; ticks: the goals."""
    found = {(r["shape"], r["pass"], r["backend"]): r["seconds"] for r in rows}
    shapes = list(dict.fromkeys(r["shape"] for r in rows))
    others = [n for n in dict.fromkeys(r["backend"] for r in rows) if n != "cpu"]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, which in zip(axes, PASSES, strict=True):
        for i, name in enumerate(others):
            places = [k + (i - (len(others) - 1) / 2) * 0.25 for k in range(len(shapes))]
            ratios = [found[s, which, name] / found[s, which, "cpu"] for s in shapes]
            bars = axis.bar(places, ratios, 0.23, label=name, color=COLOURS[i])
            # in front of a goal's tick, which would strike the number out
            white = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            axis.bar_label(bars, fmt="%.0f", fontsize=9, padding=2, bbox=white, zorder=5)
            for place, shape in zip(places, shapes, strict=True):
                goal = GOALS.get((which, name, shape), GOALS.get((which, name, None)))
                if goal and shape in SHAPES:
                    axis.plot([place - 0.13, place + 0.13], [goal, goal], "k", lw=1.5)
        axis.set_yscale("log")
        axis.set_xticks(range(len(shapes)), [f"({label(s)})" for s in shapes], fontsize=8)
        axis.set_xlabel("batch, frames, channels, states")
        axis.set_title(which, loc="left")
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    # bars start where nothing is gained, at 1, or below what is slower still
    ratios = [seconds / found[k[0], k[1], "cpu"] for k, seconds in found.items()]
    axes[0].set_ylim(min(1.0, 0.8 * min(ratios)), 1.6 * max(ratios))
    axes[0].set_ylabel("times as long as the compiled kernels")
    axes[0].plot([], [], "k", lw=1.5, label="goal")
    axes[0].legend(frameon=False)
    save_figure(figure, path)
