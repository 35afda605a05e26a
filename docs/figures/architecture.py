"""Draw the ConMamba CTC recogniser: the network, one of its layers, and the BiMamba block within.

    python docs/figures/architecture.py

writes architecture.svg and architecture.png beside itself. What is drawn is `modules/asr/ctc.py`,
`modules/conmamba.py` and `modules/ssm/blocks.py`.
"""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

# Pastel fills from Okabe and Ito's colours; the meaning is in the text as well.
PLAIN, FEED, MAMBA, CONV, OUT = "#F2F2F2", "#FBE3C8", "#CFE5F3", "#D3EDE2", "#F3DDEA"
LINE = "#333333"
# Of the round nodes.
RADIUS = 0.12
# The text of an SVG stays text, and two runs write the same file.
SETTINGS = {"font.size": 10.5, "svg.fonttype": "none", "svg.hashsalt": "architecture"}


class Column:
    """A column of boxes joined by arrows, drawn from the bottom up.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
    x : float
        Its middle.
    y : float
        Where it begins.
    width : float
        Of the boxes.
    """

    def __init__(self, axes, x, y, width):
        self.axes, self.x, self.y, self.width = axes, x, y, width

    def box(self, text, fill=PLAIN, height=0.62, gap=0.34):
        """Add a box and the arrow into it; returns the heights of its bottom and its top."""
        bottom = self.y + gap
        arrow(self.axes, (self.x, self.y), (self.x, bottom))
        box(self.axes, self.x, bottom, self.width, height, text, fill)
        self.y = bottom + height
        return bottom, self.y

    def node(self, text, gap=0.34):
        """Add a small round node, such as a sum; returns the height of its middle."""
        middle = self.y + gap + RADIUS
        arrow(self.axes, (self.x, self.y), (self.x, middle - RADIUS))
        node(self.axes, self.x, middle, text)
        self.y = middle + RADIUS
        return middle


def box(axes, x, bottom, width, height, text, fill):
    """A rounded box around text; `x` is its middle."""
    shape = FancyBboxPatch(
        (x - width / 2, bottom),
        width,
        height,
        boxstyle="round,pad=0,rounding_size=0.1",
        facecolor=fill,
        edgecolor=LINE,
        linewidth=0.9,
    )
    axes.add_patch(shape)
    axes.text(x, bottom + height / 2, text, ha="center", va="center", linespacing=1.25)


def node(axes, x, y, text):
    """A circle with a sign in it."""
    axes.plot(x, y, "o", markersize=15, markerfacecolor="white", markeredgecolor=LINE, mew=0.9)
    axes.text(x, y - 0.01, text, ha="center", va="center_baseline", fontsize=11)


def arrow(axes, start, end):
    """A straight arrow."""
    style = {"arrowstyle": "-|>", "color": LINE, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style | {"mutation_scale": 9})


def path(axes, *points):
    """A bent arrow through points."""
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=LINE, linewidth=0.9, solid_capstyle="butt")
    arrow(axes, points[-2], points[-1])


def label(axes, x, y, text, **options):
    """Small grey text, such as a shape."""
    axes.text(x, y, text, **({"color": "0.35", "fontsize": 8.5, "va": "center"} | options))


def title(axes, x, text):
    """The heading of a panel."""
    axes.text(x, 9.65, text, ha="center", va="center", fontweight="bold", fontsize=11)


def draw_recogniser(axes, x):
    """From waveform to tokens; returns the heights between which the layers stand."""
    title(axes, x, "Recogniser")
    axes.text(x, 0.25, "waveform, 16 kHz", ha="center", va="center")
    column = Column(axes, x, 0.42, 2.9)
    column.box("log-mel filterbank\n80 bands, every 10 ms")
    column.box("global normalisation", height=0.45)
    column.box("2 convolutions 3 × 3, stride 2\nLayerNorm, LeakyReLU", CONV)
    label(axes, x + 0.12, column.y + 0.17, "every 40 ms")
    column.box("linear", height=0.45)
    bottom, _ = column.box("ConMamba layer 1", MAMBA, 0.5)
    axes.text(x, column.y + 0.2, "⋮", ha="center", va="center", fontsize=12)
    column.y += 0.4
    _, top = column.box("ConMamba layer N", MAMBA, 0.5, gap=0)
    column.box("LayerNorm", height=0.45)
    column.box("linear, log-softmax", OUT, 0.45)
    label(axes, x + 0.12, column.y + 0.17, "tokens and blank")
    column.box("CTC: best path or beam", OUT, 0.45)
    arrow(axes, (x, column.y), (x, column.y + 0.34))
    axes.text(x, column.y + 0.5, "text", ha="center", va="center")
    return bottom, top


def draw_layer(axes, x):
    """One ConMamba layer; returns the heights of its bottom, its BiMamba box and its top."""
    title(axes, x, "ConMamba layer")
    column = Column(axes, x, 0.75, 2.3)
    rests = [
        (["½ × feed-forward"], FEED),
        (["LayerNorm", "BiMamba"], MAMBA),
        (["convolution module\npadding masked"], CONV),
        (["½ × feed-forward"], FEED),
    ]
    spans = {}
    for names, fill in rests:
        start = column.y + 0.17
        for name in names:
            plain = name == "LayerNorm"
            height = 0.78 if "\n" in name else 0.45 if plain else 0.6
            spans[name] = column.box(name, PLAIN if plain else fill, height)
        middle = column.node("+", gap=0.28)
        side = x - 1.5
        path(axes, (x, start), (side, start), (side, middle), (x - RADIUS, middle))
    _, top = column.box("LayerNorm", PLAIN, 0.45)
    arrow(axes, (x, top), (x, top + 0.4))
    return 0.75, spans["BiMamba"], top


def draw_bimamba(axes, x):
    """The block with two directions; returns the heights of its bottom and its top."""
    title(axes, x, "BiMamba block")
    column = Column(axes, x, 0.75, 2.6)
    _, split = column.box("linear, d → 2 · 2d", PLAIN, 0.5)
    fork = split + 0.4
    branches = [Column(axes, x + side * 1.75, fork, 2.2) for side in (-1, 1)]
    for branch, side, direction in zip(branches, (-1, 1), ("forward", "backward"), strict=True):
        axes.plot([x, branch.x], [fork, fork], color=LINE, linewidth=0.9)
        label(axes, x + side * 0.6, fork + 0.15, "x", ha="center")
        past = "earlier" if direction == "forward" else "later"
        branch.box(f"depthwise conv, width 4,\n{past} frames; SiLU", CONV, 0.85, gap=0.4)
        entry = branch.y + 0.2
        branch.box("linear → dt, B, C", PLAIN, 0.5, gap=0.42)
        scan, _ = branch.box(f"selective scan,\n{direction} in time", MAMBA, 0.85, gap=0.42)
        # the scan's own input goes round the projection
        outer, edge = branch.x + side * 1.32, branch.x + side * 1.1
        level = scan + 0.42
        path(axes, (branch.x, entry), (outer, entry), (outer, level), (edge, level))
    gates = branches[0].y + 0.55
    arrow(axes, (x, split), (x, gates - 1.75))
    label(axes, x + 0.1, fork + 0.6, "z")
    box(axes, x, gates - 1.75, 0.85, 0.45, "SiLU", PLAIN)
    axes.plot([x, x], [gates - 1.3, gates], color=LINE, linewidth=0.9)
    mean = gates + 0.9
    for branch, side in zip(branches, (-1, 1), strict=True):
        arrow(axes, (branch.x, branch.y), (branch.x, gates - RADIUS))
        arrow(axes, (x, gates), (branch.x - side * RADIUS, gates))
        node(axes, branch.x, gates, "×")
        turn = (branch.x, mean)
        path(axes, (branch.x, gates + RADIUS), turn, (x + side * 0.45, mean))
    box(axes, x, mean - 0.22, 0.9, 0.45, "mean", PLAIN)
    column.y = mean + 0.23
    _, top = column.box("linear, 2d → d", PLAIN, 0.5)
    arrow(axes, (x, top), (x, top + 0.4))
    label(
        axes,
        x,
        8.95,
        "Backward: from each utterance's own last frame,\nso that padding never takes part.",
        ha="center",
    )
    return 0.75, top


def zoom(axes, start, low, high, end):
    """Dashed lines from a box at `start` (x, bottom, top) to a panel whose edge is at `end`."""
    x, bottom, top = start
    for one, other in ((bottom, low), (top, high)):
        axes.plot([x, end], [one, other], color="0.6", linewidth=0.8, linestyle=(0, (4, 3)))


def main():
    """Write both files."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(12.5, 8.5), dpi=150)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, 14.2), ylim=(0, 10))
        axes.axis("off")
        bottom, top = draw_recogniser(axes, 1.95)
        low, inner, high = draw_layer(axes, 6.3)
        zoom(axes, (3.4, bottom, top), low - 0.3, high + 0.3, 4.45)
        low, high = draw_bimamba(axes, 10.9)
        zoom(axes, (7.45, *inner), low - 0.3, high + 0.3, 7.75)
        place = Path(__file__).with_name("architecture")
        figure.savefig(place.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(place.with_suffix(".png"))


if __name__ == "__main__":
    main()
