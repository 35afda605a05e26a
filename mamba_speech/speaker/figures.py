"""Pictures of speaker verification: detection error trade-off (DET) curves, and histograms of scores.

Source: Martin et al., "The DET curve in assessment of detection task performance", Eurospeech 1997.
"""

import numpy as np
from scipy.special import ndtri

from mamba_speech.figures import BLUE, COLOURS, DASHES, ORANGE, picture

# rates in per cent that the axes name
TICKS = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 99)
COSTS = ((0.01, "^"), (0.05, "s"))


def det_curve(systems, png, title="Detection error trade-off"):
    """Draw miss rates over false alarm rates, both on axes of normal deviates, for several systems.

    A circle marks the equal error rate. A triangle and a square mark the minimum detection costs at prior probabilities
    of 0.01 and 0.05.

    Arguments
    ---------
    systems : dict of str: mamba_speech.evaluation.verification.TrialErrors
        By name.
    png : str or Path
        Where the picture goes; its folder must be there.
    title : str

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    points = [np.stack(errors.rates()) for errors in systems.values()]
    # half an error is the nearest to none that trials can tell
    lowest = [0.5 / max(one.targets, one.impostors) for one in systems.values()]
    low = min(0.02, *(_lowest(one, least) for one, least in zip(points, lowest, strict=True)))
    high = max(0.5, *(min(0.6, float(one.min(axis=0).max()) * 1.5) for one in points))
    with picture(png, (5.6, 5.6)) as figure:
        axes = figure.add_subplot(
            xlabel="false alarms in %", ylabel="misses in %", title=title, aspect="equal"
        )
        for index, ((name, errors), rates) in enumerate(zip(systems.items(), points, strict=True)):
            color, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
            miss, alarms = _thinned(ndtri(np.clip(rates, low / 2, 1 - low / 2)))
            label = f"{name} (EER {100 * errors.eer()[0]:.2f} %)"
            axes.plot(alarms, miss, dash, color=color, label=label)
            marks = [("o", errors.eer()[1])]
            marks += [(mark, errors.min_dcf(p_target)[1]) for p_target, mark in COSTS]
            for mark, threshold in marks:
                miss, alarms = ndtri(np.clip(_rates_at(errors, threshold), low, high))
                axes.plot(alarms, miss, mark, color=color, clip_on=False)
        ends = ndtri(low), ndtri(high)
        ticks = [rate for rate in TICKS if low <= rate / 100 <= high]
        axes.set(xlim=ends, ylim=ends)
        axes.set_xticks(ndtri(np.array(ticks) / 100), [f"{rate:g}" for rate in ticks])
        axes.set_yticks(ndtri(np.array(ticks) / 100), [f"{rate:g}" for rate in ticks])
        axes.plot(ends, ends, color="0.85", linewidth=0.8, zorder=0)
        axes.grid(color="0.93")
        for mark, label in (("o", "equal error rate"), *((m, f"minDCF {p:g}") for p, m in COSTS)):
            axes.plot([], [], mark, color="0.4", label=label)
        axes.legend(fontsize=8)


def _lowest(rates, least):
    """Where the axes may begin: below the lowest rate at which both kinds of errors occur."""
    both = rates[:, (rates > 0).all(axis=0)]
    return max(least, float(both.min()) / 1.5) if both.size else 0.02


def _thinned(deviates):
    """Points of a curve, (2, points), without neighbours that no picture tells apart."""
    cells = np.round(deviates, 3)
    moved = np.append(True, (cells[:, 1:] != cells[:, :-1]).any(axis=0))
    return deviates[:, moved]


def _rates_at(errors, threshold):
    """Miss and false alarm rate of a threshold, which may accept every trial."""
    place = int(np.searchsorted(errors.thresholds, threshold, side="right")) - 1
    return np.array([0.0, 1.0] if place < 0 else [rates[place] for rates in errors.rates()])


def score_histograms(systems, labels, png):
    """Draw histograms of the scores of targets and of impostors, a row a system.

    A line marks the threshold of the equal error rate.

    Arguments
    ---------
    systems : dict of str: (array of float, float)
        Scores, (trials,), and the threshold, by name.
    labels : array of int
        (trials,), 1 for a target and 0 for an impostor.
    png : str or Path
        Where the picture goes; its folder must be there.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    target = np.asarray(labels) == 1
    with picture(png, (6, 2.2 * len(systems) + 0.4)) as figure:
        grid = figure.subplots(len(systems), 1, squeeze=False)[:, 0]
        for axes, (name, (scores, threshold)) in zip(grid, systems.items(), strict=True):
            bins = np.histogram_bin_edges(scores, bins=80)
            for kind, color, label in ((~target, ORANGE, "impostors"), (target, BLUE, "targets")):
                share = np.full(kind.sum(), 100 / kind.sum())
                axes.hist(scores[kind], bins, weights=share, color=color, alpha=0.55, label=label)
            axes.axvline(threshold, color="0.2", linestyle="--", linewidth=1)
            axes.set(title=name, ylabel="% of a kind")
            axes.spines["right"].set_visible(False)
        grid[0].legend()
        grid[-1].set_xlabel("score; dashed: threshold of the equal error rate")
