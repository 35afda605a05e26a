"""The table and the plot of the accuracies under noise, from the figures that noise.py measured."""

from cells import number

from mamba_speech.figures import COLOURS, MARKERS, STYLE

# Speech Commands v0.02, by github.com/devv0311/mamba-speech-command: what others measured of a Mamba under noise
PUBLISHED = {
    "Mamba / clean (devv0311)": {"clean": 94.5, "20": 65.8, "10": 16.0, "0": 14.0},
    "GRU / clean (devv0311)": {"clean": 94.0, "20": 82.0, "10": 28.6, "0": 13.3},
}
BELOW = "10 dB below clean, points (goal 5)"
FALL = "clean below clean training, points (goal 1)"


def rows_of(tests, published=False):
    """Rows for Markdown: a system's accuracy, clean and at each ratio.

    Arguments
    ---------
    tests : dict
        Of noise.json, by title.
    published : bool
        Whether the published figures stand below.

    Returns
    -------
    list of dict
    """
    ratios = list(dict.fromkeys(name for test in tests.values() for name in _ratios(test)))
    rows = []
    for title, test in tests.items():
        for name, system in test["systems"].items():
            found = system["accuracy"]
            clean = found["clean"]
            row = {"test": f"{title}, {test['clips']:,} clips", "system / training": name}
            row |= {"parameters": system["parameters"], "runs": system["runs"]}
            row["clean % (95 % interval)"] = (
                f"{clean['mean']:.1f} ({clean['low']:.1f} to {clean['high']:.1f})"
            )
            for ratio in ratios:
                row[f"{ratio} dB"] = f"{found[ratio]['mean']:.1f}" if ratio in found else "-"
            below = clean["mean"] - found["10"]["mean"] if "10" in found else None
            other = test["systems"].get(f"{name.partition(' / ')[0]} / clean")
            trained = name.endswith(" / noise") and other is not None
            fall = other["accuracy"]["clean"]["mean"] - clean["mean"] if trained else None
            rows.append(row | {BELOW: number(below, 1), FALL: number(fall, 1)})
    for name, figures in PUBLISHED.items() if published else ():
        row = {"test": "Speech Commands v0.02, as published", "system / training": name}
        row |= {
            "parameters": "-",
            "runs": "-",
            "clean % (95 % interval)": f"{figures['clean']:.1f}",
        }
        row |= {
            f"{ratio} dB": f"{figures[ratio]:.1f}" if ratio in figures else "-" for ratio in ratios
        }
        rows.append(row | {BELOW: number(figures["clean"] - figures["10"], 1), FALL: "-"})
    return rows


def kinds_of(tests, ratio="10"):
    """Rows for Markdown: the accuracy at one ratio, by the kind of the noise; tests as of :func:`rows_of`."""
    kinds = sorted({kind for test in tests.values() for kind in test["noises"]})
    rows = []
    for title, test in tests.items():
        for name, system in test["systems"].items():
            found = system["by_noise"].get(ratio, {})
            row = {"test": title, "system / training": name}
            shown = {kind.replace("_", " "): found.get(kind) for kind in kinds}
            rows.append(row | {k: "-" if v is None else f"{v:.0f}" for k, v in shown.items()})
    return rows


def _ratios(test):
    system = next(iter(test["systems"].values()))
    return [name for name in system["accuracy"] if name != "clean"]


def draw(tests, save):
    """Draw the accuracies over the ratio, a panel for each test: a colour a system, dashes for training without noise.

    Arguments
    ---------
    tests : dict
    save : callable
        Takes the figure.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 3.1 * len(tests)), 4.8), layout="constrained")
        panels = figure.subplots(1, len(tests), sharey=True, squeeze=False)[0]
        families = list(
            dict.fromkeys(
                name.partition(" / ")[0] for test in tests.values() for name in test["systems"]
            )
        )
        lines = {}
        for panel, (title, test) in zip(panels, tests.items(), strict=True):
            conditions = ["clean", *_ratios(test)]
            for name, system in test["systems"].items():
                family, _, training = name.partition(" / ")
                index = families.index(family)
                style = "--" if training == "clean" else "-"
                values = [system["accuracy"][one]["mean"] for one in conditions]
                (lines[name],) = panel.plot(
                    range(len(values)),
                    values,
                    style,
                    color=COLOURS[index % len(COLOURS)],
                    marker=MARKERS[index % len(MARKERS)],
                    mfc="white" if style == "--" else None,
                    label=name,
                )
            labels = ["clean", *(f"{one} dB" for one in conditions[1:])]
            panel.set_xticks(range(len(labels)), labels)
            panel.set_title(f"{title}\n({test['clips']:,} clips)")
            panel.set_ylim(0, 101)
            panel.grid(color="0.92")
        panels[len(panels) // 2].set_xlabel("speech over noise")
        panels[0].set_ylabel("words recognised, %")
        figure.legend(handles=lines.values(), loc="outside lower center", ncols=2)
        save(figure)
