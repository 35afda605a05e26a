"""The tables and the plot of ``speaker.py``."""

from cells import conditions_table, megabytes, milliseconds, number
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from measure import save_figure
from speaker_models import PUBLISHED

from mamba_speech.figures import line_style

STUDENT_NAMES = {
    "transformer": "Transformer",
    "mlp_mixer": "MLP-Mixer (crops)",
    "cycle_mlp": "CycleMLP",
    "conv_mixer": "ConvMixer (crops)",
    "sv_mixer": "SV-Mixer (crops)",
    "bimamba": "BiMamba",
}


def layers_table(result):
    """One layer at 149 frames: parameters and work beside the paper's, time and memory of a call."""
    rows = []
    for name, one in result["layers"].items():
        millions, billions = PUBLISHED[name] if result["size"] == "large" else (None, None)
        rows.append(
            {
                "layer": name,
                "M parameters (paper)": f"{one['parameters'] / 1e6:.2f} ({number(millions)})",
                "GMAC of weights (paper)": f"{one['work'] / 1e9:.3f} ({number(billions)})",
                "GMAC without weights": f"{one['work_without_weights'] / 1e9:.3f}",
                "ms": milliseconds(one["seconds"]),
                "MB": megabytes(one["bytes"]),
            }
        )
    return rows


def students_table(result):
    """A whole student and one crop of 3 s: parameters, work, time."""
    return [
        {
            "student": name,
            "layers": result["n_layers"],
            "M parameters": f"{one['parameters'] / 1e6:.1f}",
            "GMAC": f"{(one['work'] + one['work_without_weights']) / 1e9:.1f}",
            "ms: median (least)": f"{1e3 * one['seconds']:.0f} ({1e3 * one['least']:.0f})",
            "reads": "any length" if one["any_length"] else "crops of 3 s",
        }
        for name, one in result["students"].items()
    ]


def lengths_table(result):
    """An utterance's embedding over its length: seconds of computing, and MB beside the weights."""
    rows = []
    for name in result["students"]:
        row = {"student": name}
        for length, cells in result["lengths"].items():
            cell = cells[name]
            row[f"{length} s: s / MB"] = f"{cell['seconds']:.2f} / {megabytes(cell['bytes'])}"
        rows.append(row)
    return rows


def claims_table(result):
    """What the paper says of a layer of SV-Mixer beside a layer of the Transformer, and what this code has."""
    return [
        {
            "claim": one["claim"],
            "paper": f"{one['paper']:.1f} %",
            "here": f"{one['here']:.1f} %",
            "holds": "true" if one["holds"] else "false",
        }
        for one in result["claims"]
    ]


TABLES = {
    "conditions": conditions_table,
    "layers": layers_table,
    "students": students_table,
    "lengths": lengths_table,
    "claims": claims_table,
}


def plot(result, path):
    """Draw time over the utterance's length, and memory, against the length."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    lengths = list(result["lengths"])
    for index, name in enumerate(result["students"]):
        cells = [result["lengths"][length][name] for length in lengths]
        style = line_style(index) | {"label": STUDENT_NAMES[name]}
        axes[0].plot(
            lengths, [cell["seconds"] / n for n, cell in zip(lengths, cells, strict=True)], **style
        )
        if all(cell["bytes"] for cell in cells):
            axes[1].plot(lengths, [cell["bytes"] / 1e6 for cell in cells], **style)
    for axis, title in zip(axes, ("Computing time / audio", "Peak memory, MB"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel="length of the utterance, s", title=title)
        axis.set_xticks(lengths, [str(length) for length in lengths])
        axis.xaxis.set_minor_locator(NullLocator())
        # times span less than a decade, and one tick or none would be left
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    save_figure(figure, path)
