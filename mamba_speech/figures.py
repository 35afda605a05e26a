"""Pictures of training runs: learning curves, what was heard when, which classes were mistaken, what was separated.

matplotlib, of the extra `train`, is imported only when a picture is drawn, and no display is needed.
"""

from contextlib import contextmanager
from itertools import pairwise

import torch

from mamba_speech.files import whole_path
from mamba_speech.train_log import read_train_log

# Okabe and Ito's colours, which the colour-blind can tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# so that curves and their order are told apart in grey, too
DASHES, MARKERS = ("-", "--", "-.", ":"), "osD^vP"
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
# decibels below the loudest point of a spectrogram that are worth a colour
DEPTH = 60


def line_style(index):
    """Colour, dash and marker of line ``index`` of a plot: no two of its first eighteen lines share all three.

    Arguments
    ---------
    index : int
        Number of the line, from 0. The first six lines have a colour each.

    Returns
    -------
    dict
        Arguments of matplotlib's ``plot``.

    Example
    -------
    >>> line_style(0)["color"] == line_style(6)["color"], line_style(0) == line_style(6)
    (True, False)
    """
    turn = index // len(COLOURS)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[(index + turn) % len(DASHES)],
        "marker": MARKERS[(index + turn) % len(MARKERS)],
    }


def learning_curve(train_log, png):
    """Draw the losses and the word error rate (WER) of a recogniser by epoch.

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
    with picture(png, (7, 4)) as figure:
        losses = figure.add_subplot(xlabel="epoch", title="Learning curve")
        for name, label, style, face in (
            ("train loss", "loss, training", "--", "white"),
            ("valid loss", "loss, validation", "-", BLUE),
        ):
            values = [figures[name] for figures in epochs]
            losses.plot(numbers, values, style, marker="o", color=BLUE, mfc=face, label=label)
        losses.set_ylim(0, None)
        losses.set_ylabel("CTC loss", color=BLUE)
        losses.tick_params(axis="y", labelcolor=BLUE)
        # the last figure stands right of its point, clear of the axis and its numbers
        losses.set_xlim(numbers[0] - 0.4, numbers[-1] + max(0.4, 0.14 * len(numbers)))
        losses.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        values = [figures["valid WER"] for figures in epochs]
        errors = losses.twinx()
        errors.plot(numbers, values, marker="s", color=ORANGE, label="WER, validation")
        errors.set_ylim(0, max(100.0, *values) * 1.05)
        errors.set_ylabel("word error rate in %", color=ORANGE)
        errors.tick_params(axis="y", labelcolor=ORANGE)
        errors.annotate(
            f"{values[-1]:.1f} %",
            (numbers[-1], values[-1]),
            xytext=(6, 7 if values[-1] < 90 else -14),
            textcoords="offset points",
            ha="left",
            color=ORANGE,
        )
        figure.legend(loc="outside upper right", ncols=3)


def spectrogram_with_alignment(recognizer, path, png, reference=None):
    """Draw an utterance's log-mel spectrogram over the tokens that were heard in it.

    Arguments
    ---------
    recognizer : mamba_speech.asr.recognizer.Recognizer
    path : str or Path
        Audio file of some seconds.
    png : str or Path
        Where the picture goes; its folder must be there.
    reference : str, optional
        What was said, for the title.

    Raises
    ------
    mamba_speech.audio.AudioError
        If the file is no usable audio.
    RuntimeError
        If matplotlib is not installed.
    """
    heard = recognizer.align(path)
    size = (min(max(8.0, 2.4 * heard.seconds), 30.0), 4.4)
    with picture(png, size) as figure:
        spectrum, marks = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        image = _draw_spectrum(spectrum, heard)
        bar = figure.colorbar(image, ax=[spectrum, marks], pad=0.01, fraction=0.03, aspect=30)
        bar.set_label("dB")
        bar.outline.set_visible(False)
        said = "" if reference is None else f"said:    {reference}\n"
        spectrum.set_title(f"{said}heard: {heard.text or '(nothing)'}")
        marks.set(xlim=(0, heard.seconds), ylim=(0, 1), yticks=[], xlabel="time in seconds")
        marks.spines[["left", "right"]].set_visible(False)
        _draw_tokens(marks, heard)


def confusion_matrix(counts, labels, png):
    """Draw which class was taken for which, each row being the clips of one class.

    Arguments
    ---------
    counts : torch.Tensor
        (classes, classes) of integers: said, heard.
    labels : list of str
        Names of the classes, in the counts' order.
    png : str or Path
        Where the picture goes; its folder must be there.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    size = max(4.0, 1.6 + 0.26 * len(labels))
    with picture(png, (size + 0.6, size)) as figure:
        axes = figure.add_subplot(xlabel="heard", ylabel="said")
        share = counts / counts.sum(1, keepdim=True).clamp(min=1)
        image = axes.imshow(100 * share.numpy(), cmap="Blues", vmin=0, vmax=100)
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        # the matrix is read by its mistakes: every count but the zeros stands in its cell
        for said, heard in counts.nonzero().tolist():
            color = "white" if share[said, heard] > 0.6 else "black"
            count = int(counts[said, heard])
            axes.text(heard, said, count, ha="center", va="center", color=color, fontsize=6)
        accuracy = counts.diagonal().sum() / counts.sum().clamp(min=1)
        axes.set_title(f"{int(counts.sum())} clips, {100 * accuracy:.1f} % right")
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
        bar.set_label("% of the clips of a class")
        bar.outline.set_visible(False)


def separation_spectrograms(mix, targets, estimates, sample_rate, png):
    """Draw the spectrograms of a mixture, of its sources, and beneath them of what was separated, in one colour scale.

    Arguments
    ---------
    mix : torch.Tensor
        (samples,).
    targets, estimates : torch.Tensor
        (samples, speakers) in one order, the estimates at the level that they have in the mixture.
    sample_rate : int
        In Hz.
    png : str or Path
        Where the picture goes; its folder must be there.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    speakers = targets.shape[1]
    signals = torch.cat([mix[:, None], targets, estimates], dim=1)
    spectra = [_decibels(signal, sample_rate) for signal in signals.T]
    loudest = max(float(spectrum.max()) for spectrum in spectra)
    names = ["mixture", *(f"source {n + 1}" for n in range(speakers))]
    names += [f"estimate {n + 1}" for n in range(speakers)]
    with picture(png, (3.6 * (1 + speakers), 5)) as figure:
        grid = figure.subplots(2, 1 + speakers, sharex=True, sharey=True)
        # nothing stands beneath the mixture
        grid[1, 0].set_axis_off()
        cells = [*grid[0], *grid[1, 1:]]
        for axes, spectrum, name in zip(cells, spectra, names, strict=True):
            image = axes.imshow(
                spectrum.numpy(),
                origin="lower",
                aspect="auto",
                interpolation="nearest",
                extent=(0, len(mix) / sample_rate, 0, sample_rate / 2000),
                cmap="viridis",
                vmin=loudest - DEPTH,
                vmax=loudest,
            )
            axes.set_title(name)
        for axes in (grid[0, 0], *grid[1, 1:]):
            axes.set_xlabel("time in s")
            axes.tick_params(labelbottom=True)
        for axes in (grid[0, 0], grid[1, 1]):
            axes.set_ylabel("frequency in kHz")
            axes.tick_params(labelleft=True)
        bar = figure.colorbar(image, ax=grid, pad=0.01, fraction=0.03, aspect=30)
        bar.set_label("dB")
        bar.outline.set_visible(False)


def _decibels(signal, sample_rate):
    """Power of a signal (samples,) in dB, (frequencies, frames), in windows of 32 ms."""
    window = torch.hann_window(round(0.032 * sample_rate), dtype=signal.dtype)
    # no more frames than a picture has room for
    hop = max(round(0.008 * sample_rate), len(signal) // 1500)
    spectrum = torch.stft(
        signal, len(window), hop, window=window, pad_mode="constant", return_complex=True
    )
    return 20 * torch.log10(spectrum.abs() + 1e-6)


def curves(lines, png, xlabel, ylabel, title):
    """Draw one curve a run, such as its validation score by minutes of training.

    Arguments
    ---------
    lines : dict of str: list of (float, float)
        Points of each run, by its name.
    png : str or Path
        Where the picture goes; its folder must be there.
    xlabel, ylabel, title : str

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    with picture(png, (7, 4)) as figure:
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel, title=title)
        for index, (name, points) in enumerate(lines.items()):
            axes.plot(*zip(*points, strict=True), label=name, **line_style(index))
        axes.set_xlim(0, None)
        axes.grid(axis="y", color="0.9")
        axes.spines["right"].set_visible(False)
        axes.legend()


def miss_curve(curve, chosen, title, png):
    """Draw the miss rate over false alarms an hour.

    Arguments
    ---------
    curve : list of dict
        Points of :func:`mamba_speech.evaluation.detection.error_curve`.
    chosen : dict
        The point to mark.
    title : str
    png : str or Path

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    with picture(png, (6, 4)) as figure:
        axes = figure.add_subplot(
            xlabel="false alarms an hour", ylabel="keywords missed in %", title=title
        )
        rates = [point["false_alarms_per_hour"] for point in curve]
        misses = [100 * point["miss_rate"] for point in curve]
        axes.step(rates, misses, where="post", color=BLUE)
        axes.set_xscale("symlog", linthresh=1)
        axes.set(xlim=(0, 1.2 * max(2.0, *rates)), ylim=(0, 100))
        axes.spines["right"].set_visible(False)
        marked = chosen["false_alarms_per_hour"], 100 * chosen["miss_rate"]
        axes.plot(*marked, "o", color=BLUE, clip_on=False)


def _draw_spectrum(axes, heard):
    """Log-mel energies, with a line where each word starts."""
    # the first frame is centred on 0; what is far below the loudest is not worth a colour
    half = heard.frame_seconds / 2
    end = (len(heard.features) - 0.5) * heard.frame_seconds
    loudest = float(heard.features.max())
    image = axes.imshow(
        heard.features.T.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(-half, end, 0, heard.features.shape[1]),
        cmap="viridis",
        vmin=loudest - DEPTH,
        vmax=loudest,
    )
    axes.set_ylabel("mel band")
    axes.tick_params(bottom=False, labelbottom=False)
    for start in (start for token, start, _ in heard.tokens if token.startswith(WORD_START)):
        axes.axvline(start, color="white", linewidth=0.8, alpha=0.7)
    return image


def _draw_tokens(axes, heard):
    """Characters above, words below, with a line where each word starts."""
    for token, start, end in heard.tokens:
        axes.axvspan(start, end, 0.5, 1, color=BLUE, alpha=0.12, linewidth=0)
        text = token.removeprefix(WORD_START)
        axes.text((start + end) / 2, 0.74, text, ha="center", va="center", color=BLUE)
    starts = [i for i, token in enumerate(heard.tokens) if token[0].startswith(WORD_START)]
    # what comes before the first start of a word is a word, too
    bounds = sorted({0, *starts, len(heard.tokens)})
    for first, last in pairwise(bounds):
        start = heard.tokens[first][1]
        until = heard.tokens[last][1] if last < len(heard.tokens) else heard.tokens[-1][2]
        word = "".join(token for token, _, _ in heard.tokens[first:last]).removeprefix(WORD_START)
        axes.axvline(start, color="0.75", linewidth=0.8)
        axes.text((start + until) / 2, 0.22, word, ha="center", va="center", fontweight="bold")


def check_matplotlib():
    """Raise RuntimeError if matplotlib is not installed: before long work, whose end would be a picture."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RuntimeError("pictures need matplotlib: pip install matplotlib") from error


@contextmanager
def picture(png, size):
    """A figure of `size` inches to draw in, which needs no display and is then saved.

    Raises
    ------
    RuntimeError
        If matplotlib is not installed.
    """
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        yield figure
        with whole_path(png) as temporary:
            figure.savefig(temporary, format="png")
