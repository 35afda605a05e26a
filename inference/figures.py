"""Pictures of a training run: its learning curve, and an utterance with what was heard when.

matplotlib, of the extra `train`, is imported only when a picture is drawn, and no display is needed.
"""

import os
from itertools import pairwise
from pathlib import Path

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
}
WORD_START = "\u2581"


def read_train_log(train_log):
    """Read the epochs' lines of a log that SpeechBrain's FileTrainLogger wrote.

    Arguments
    ---------
    train_log : str or Path

    Returns
    -------
    epochs : list of dict
        One an epoch, in order, from names such as `train loss` and `valid WER` to numbers. Of an
        epoch that was run twice, the first time being cut short, the last line counts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If no epoch stands in it.
    """
    epochs = {}
    try:
        lines = Path(train_log).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{train_log}: no such file; a run writes it as it trains"
        ) from error
    for line in lines:
        if line.startswith("epoch: "):
            items = (item.split(": ") for part in line.split(" - ") for item in part.split(", "))
            figures = {name: float(value) for name, value in items}
            epochs[figures["epoch"]] = figures
    if not epochs:
        raise ValueError(f"{train_log}: tells of no finished epoch; train at least one")
    return [epochs[number] for number in sorted(epochs)]


def learning_curve(train_log, png):
    """Draw losses and word error rate by epoch.

    Arguments
    ---------
    train_log : str or Path
        A run's `train_log.txt`.
    png : str or Path
        Where the picture goes; its folder must be there.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read_train_log`.
    RuntimeError
        If matplotlib is not installed.
    """
    epochs = read_train_log(train_log)
    numbers = [int(figures["epoch"]) for figures in epochs]
    figure = _figure((7, 4))
    losses = figure.add_subplot()
    handles = []
    for name, style in (("train loss", "--"), ("valid loss", "-")):
        values = [figures.get(name) for figures in epochs]
        handles += losses.plot(numbers, values, style, marker="o", color=BLUE, label=name)
    losses.set(xlabel="epoch", ylim=(0, None), title="Learning curve")
    losses.set_ylabel("CTC loss", color=BLUE)
    losses.tick_params(axis="y", labelcolor=BLUE)
    losses.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if len(numbers) == 1:
        losses.set_xlim(numbers[0] - 1, numbers[0] + 1)
    if "valid WER" in epochs[-1]:
        errors = losses.twinx()
        values = [figures["valid WER"] for figures in epochs]
        handles += errors.plot(numbers, values, marker="s", color=ORANGE, label="valid WER")
        errors.set_ylim(0, max(100.0, *values) * 1.05)
        errors.set_ylabel("word error rate in %", color=ORANGE)
        errors.tick_params(axis="y", labelcolor=ORANGE)
        errors.annotate(
            f"{values[-1]:.1f} %",
            (numbers[-1], values[-1]),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            color=ORANGE,
        )
    losses.legend(handles=handles, loc="upper right")
    _save(figure, png)


def spectrogram_with_alignment(recognizer, path, png, reference=None):
    """Draw an utterance's log-mel spectrogram over the units that were heard in it.

    Arguments
    ---------
    recognizer : inference.recognition.Recognizer
    path : str or Path
        Audio file of some seconds.
    png : str or Path
        Where the picture goes; its folder must be there.
    reference : str, optional
        What was said, for the title.

    Raises
    ------
    inference.audio.AudioError
        If the file is no usable audio.
    RuntimeError
        If matplotlib is not installed.
    """
    heard = recognizer.align(path)
    figure = _figure((min(max(8.0, 2.4 * heard.seconds), 30.0), 4.4))
    spectrum, units = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    # the first frame is centred on 0; the lowest 60 dB hold nothing to see
    half = heard.frame_seconds / 2
    end = (len(heard.features) - 0.5) * heard.frame_seconds
    top = float(heard.features.max())
    image = spectrum.imshow(
        heard.features.T.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-half, end, 0, heard.features.shape[1]),
        cmap="viridis",
        vmin=top - 60,
        vmax=top,
    )
    bar = figure.colorbar(image, ax=[spectrum, units], pad=0.01, fraction=0.03, aspect=30)
    bar.set_label("dB")
    bar.outline.set_visible(False)
    spectrum.set_ylabel("mel band")
    spectrum.tick_params(bottom=False, labelbottom=False)
    title = "" if reference is None else f"said:    {reference}\n"
    spectrum.set_title(f"{title}heard: {heard.text or '(nothing)'}")
    units.set(xlim=(0, heard.seconds), ylim=(0, 1), yticks=[], xlabel="time in seconds")
    units.spines[["left", "right"]].set_visible(False)
    _draw_units(units, heard)
    for start in (start for unit, start, _ in heard.units if unit.startswith(WORD_START)):
        spectrum.axvline(start, color="white", linewidth=0.8, alpha=0.7)
    _save(figure, png)


def _draw_units(axes, heard):
    """Characters above, words below, with a line where each word starts."""
    for unit, start, end in heard.units:
        axes.axvspan(start, end, 0.5, 1, color=BLUE, alpha=0.12, linewidth=0)
        text = unit.removeprefix(WORD_START)
        axes.text((start + end) / 2, 0.74, text, ha="center", va="center", color=BLUE)
    starts = [i for i, unit in enumerate(heard.units) if unit[0].startswith(WORD_START)]
    # what comes before the first start of a word is a word, too
    bounds = sorted({0, *starts, len(heard.units)})
    for first, last in pairwise(bounds):
        start = heard.units[first][1]
        until = heard.units[last][1] if last < len(heard.units) else heard.units[-1][2]
        word = "".join(unit for unit, _, _ in heard.units[first:last]).removeprefix(WORD_START)
        axes.axvline(start, color="0.75", linewidth=0.8)
        axes.text((start + until) / 2, 0.22, word, ha="center", va="center", fontweight="bold")


def _figure(size):
    """An empty figure of `size` inches that needs no display.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise RuntimeError("pictures need matplotlib: pip install 'mamba-speech[train]'") from error
    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=size, dpi=150, layout="constrained")


def _save(figure, png):
    """Write beside the place and move there, so that no half picture is ever found."""
    png = Path(png)
    partial = png.with_name(f"{png.name}.partial")
    figure.savefig(partial, format="png")
    os.replace(partial, png)
