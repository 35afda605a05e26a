"""Intervals of a system's figure on a test set, and of the difference of two systems, by the metric's kind.

A figure is a ratio of sums over items, such as a word error rate, or it needs all items at once, as an equal error rate
does.
"""

import statistics

from mamba_speech.evaluation.bootstrap import figure_intervals, mean_interval, paired_difference
from mamba_speech.evaluation.classification import wilson_interval


def whole_figure(metric, scores, sizes):
    """A metric on the whole test set.

    Arguments
    ---------
    metric : training.tasks.Metric
    scores : array of float
        (items,).
    sizes : sequence
        (items,).

    Returns
    -------
    float
    """
    if metric.figure is None:
        return metric.scale * float(scores.sum()) / sum(sizes)
    return metric.scale * metric.figure(scores, sizes)(None)


def interval(figures, name, options):
    """The mean over items and seeds, with its interval over what is drawn."""
    metric = options.task.metrics[name]
    scores, sizes = figures.scores(name)
    drawn, drawing = how_to_draw(figures, options)
    if metric.figure is not None:
        return figure_of_set(metric, [scores], sizes, drawing)._replace(p=None), drawn
    found = mean_interval(scores.mean(0), sizes, scale=metric.scale, **drawing)
    if metric.proportion:
        low, high = (
            metric.scale * end for end in wilson_interval(scores.mean(0).sum(), sum(sizes))
        )
        if drawing["groups"] is not None:
            low, high = min(low, found.low), max(high, found.high)
        found = found._replace(low=low, high=high)
    return found, drawn


def how_to_draw(figures, options):
    """What is drawn, ``speakers`` or ``items``, and arguments of the bootstrap."""
    few_speakers = options.task.few_speakers
    drawn, groups = figures.groups(options.draw, options.speakers, few_speakers)
    return drawn, {"groups": groups, "resamples": options.resamples, "student": few_speakers}


def figure_of_set(metric, systems, sizes, drawing):
    """A metric that is no ratio of sums, averaged over seeds; of two systems, the second's minus the first's.

    Arguments
    ---------
    metric : training.tasks.Metric
    systems : list of array
        Scores of one system or two, (seeds, items) each.
    sizes : sequence
    drawing : dict
        See :func:`how_to_draw`.

    Returns
    -------
    mamba_speech.evaluation.bootstrap.Interval
    """
    by_system = [[metric.figure(one, sizes) for one in scores] for scores in systems]

    def figures(weights):
        found = [[figure(weights) for figure in own] for own in by_system]
        if any(None in own for own in found):
            return None
        means = [metric.scale * statistics.fmean(own) for own in found]
        return [means[-1] - means[0] if len(means) == 2 else means[0]]

    return figure_intervals(figures, len(sizes), **drawing)[0]


def difference(against, figures, options):
    """The second system's figure minus the first's, paired item by item, and of each speaker.

    Arguments
    ---------
    against, figures : Figures
    options : argparse.Namespace
        See :func:`compare`.

    Returns
    -------
    dict
    """
    metric = options.task.metrics[options.metric]
    systems = [one.scores(options.metric)[0] for one in (against, figures)]
    sizes = figures.scores(options.metric)[1]
    drawn, drawing = how_to_draw(figures, options)
    if metric.figure is None:
        first, second = (scores.mean(0) for scores in systems)
        found = paired_difference(first, second, sizes, scale=metric.scale, **drawing)
        gains = figures.by_speaker(second - first, sizes, metric.scale)
    else:
        found, gains = figure_of_set(metric, systems, sizes, drawing), {}
    return {"against": options.against} | found._asdict() | {"drawn": drawn, "speakers": gains}
