"""Tables and the picture of the wake-word benchmark, from its JSON."""

from mamba_speech.figures import STYLE, line_style

WAYS = ("a threshold a word", "one threshold")
# false alarms up to which curves are drawn
DRAWN = 20


def condition_name(condition):
    """What a reader calls a condition."""
    return condition if condition == "clean" else f"noise, {condition} dB"


def percent(figure, runs=False):
    """A miss rate with its interval, and the runs' range if there are several."""
    text = f"{figure['missed']:.1f} ({figure['low']:.1f} to {figure['high']:.1f})"
    if runs and len(figure["runs"]) > 1:
        text += f"; runs {min(figure['runs']):.1f} to {max(figure['runs']):.1f}"
    return text


def tables(result):
    """Rows for Markdown, by the name of the table."""
    return {
        "misses": misses(result),
        "tuned": tuned(result),
        "words": words(result),
        "conditions": conditions(result),
    }


def misses(result):
    """Missed clips in %, with 95 % intervals, by false alarms in the whole background."""
    rows = []
    for condition, spotters in result["conditions"].items():
        for name, figures in spotters.items():
            for way in WAYS:
                row = {"stream": condition_name(condition), "spotter": name, "thresholds": way}
                row["hours of background"] = f"{figures['hours']:.2f}"
                for n, found in figures[way]["at"].items():
                    runs = way == WAYS[0]
                    row[f"missed in % at {n} false alarms"] = percent(found, runs)
                rows.append(row)
    return rows


def tuned(result):
    """The test at thresholds that were set on validation."""
    rows = []
    for condition, spotters in result["conditions"].items():
        for name, figures in spotters.items():
            for n, found in figures["tuned"].items():
                alarms = found["false_alarms"]
                rows.append(
                    {
                        "stream": condition_name(condition),
                        "spotter": name,
                        "false alarms allowed in validation": f"{n} in {found['validation_hours']:.2f} h",
                        "missed in %": percent(found, runs=True),
                        "false alarms": f"{', '.join(map(str, alarms))} in {figures['hours']:.2f} h",
                        "an hour": f"{found['false_alarms_per_hour']:.1f}",
                    }
                )
    return rows


def words(result):
    """Each word alone: missed clips in % by false alarms of this word in the whole background."""
    rows = []
    for condition, spotters in result["conditions"].items():
        for word in next(iter(spotters.values()))["words"]:
            row = {"stream": condition_name(condition), "word": word}
            for name, figures in spotters.items():
                found = figures["words"].get(word, {})
                row[f"{name}: missed in % at {', '.join(found)}"] = ", ".join(
                    f"{one['missed']:.1f}" for one in found.values()
                )
            rows.append(row)
    return rows


def conditions(result):
    """What was measured where."""
    run, row = result["machine"], {}
    for part, stream in result["streams"].items():
        row[part] = (
            f"{stream['clips']} clips of {stream['voices']} voice groups, "
            f"{stream['background_hours']:.2f} h of background by {stream['background_speakers']} speakers"
        )
    for name, rate in result["real_time_factor"].items():
        row[f"real-time factor, {name}"] = f"{rate:.3f}"
    return [
        row
        | {
            "runs": ", ".join(f"{count} of {name}" for name, count in result["runs"].items()),
            "processor": run["processor"],
            "cores": run["cores"],
            "threads": run["threads"],
            "cores used by others": str(result["cores_used_by_others_during"]),
            "date": run["date"],
            "command": f"`{run['command']}`",
        }
    ]


def draw(result):
    """Misses over false alarms in the whole background, a panel for each condition, curves named where they end."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        panels = list(result["conditions"].items())
        figure = Figure(figsize=(2.9 * len(panels) + 0.6, 3.8), layout="constrained")
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (condition, spotters) in zip(grid, panels, strict=True):
            ends = []
            for index, (name, figures) in enumerate(spotters.items()):
                for way, look in zip(WAYS, ({}, {"alpha": 0.55, "linewidth": 1.2}), strict=True):
                    style = line_style(index) | {"marker": None} | look
                    if way == WAYS[1]:
                        style["linestyle"] = ":"
                    values = figures[way]["curve"][: DRAWN + 1]
                    axes.step(range(len(values)), values, where="post", **style)
                    label = name if way == WAYS[0] else "one threshold"
                    ends.append((values[-1], label, style["color"]))
                _band(axes, figures, line_style(index)["color"])
            _name(axes, ends)
            hours = next(iter(spotters.values()))["hours"]
            axes.set_title(f"{condition_name(condition)}\n{hours:.2f} h of background")
            axes.set_xlabel("false alarms")
            axes.set(xlim=(0, DRAWN), ylim=(0, 100))
            axes.set_xticks((0, 3, 7, 10, 15, 20))
            axes.grid(axis="y", color="0.92")
        grid[0].set_ylabel("clips missed in %")
    return figure


def _band(axes, figures, color):
    """The range of several runs."""
    curves = [one[: DRAWN + 1] for one in figures[WAYS[0]]["curves"]]
    if len(curves) > 1:
        low, high = ([bound(one) for one in zip(*curves, strict=True)] for bound in (min, max))
        axes.fill_between(
            range(len(low)), low, high, step="post", color=color, alpha=0.15, linewidth=0
        )


def _name(axes, ends):
    """Write each curve's name above its end, names apart."""
    at = None
    for value, label, color in sorted(ends):
        at = value + 1.5 if at is None else max(value + 1.5, at + 6)
        axes.text(DRAWN - 0.3, at, label, ha="right", va="bottom", color=color, fontsize=8)
