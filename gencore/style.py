"""The look of the book's figures and numbers: colours, lettering, mosaics, frames of charts.

All figures are equally wide, so that their lettering is equally large on a page, and stand on the
same opaque paper, which reads well on a light page and on a dark one. Nothing here touches pyplot
or the reader's own matplotlib settings, and matplotlib is imported when a figure is drawn.

A model family, the data and a loss term keep their colour and marker through the whole book. The
colours stay apart under the three colour-blindnesses, and have at least 3:1 contrast to the paper.
"""

import io
import math
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import torch

COLOURS = {
    "real": "#33322e", "pca": "#95917a", "ae": "#287b7c", "vae": "#5680fc", "gan": "#ea6830",
    "aae": "#7a5cb9", "avb": "#870863", "vaegan": "#995d15", "glo": "#335115",
    "prior": "#bf6012", "rec": "#215e44", "gmm": "#8539a7", "kl": "#bf6012", "loss": "#5680fc",
}  # fmt: skip
MARKERS = dict(zip(COLOURS, "oPsD^vX<>Dsv^o", strict=True))
CYCLE = ("vae", "gan", "ae", "aae", "vaegan", "glo", "avb", "pca")  # for labels of no family
CLASSES = (
    "#6d9ef2", "#c74b22", "#408971", "#9262b8", "#b2984a",
    "#f4a8be", "#1a576d", "#733a16", "#722fb0", "#adcf2c",
)  # fmt: skip
DIVERGING = "PuOr"  # perceptually even about its white middle, safe for colour-blind readers

WIDTH, DPI, SHARP = 6.4, 110, 2  # inches; pixels an inch on the page; how much finer the file is
PAPER, INK, MUTED, FAINT = "#fbfaf7", "#33322e", "#5f5c54", "#e4e0d6"
DASHES, STROKES = (0, (4, 3)), ("-", "--", "-.", ":")
STYLE = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "figure.dpi": DPI, "font.family": "DejaVu Sans", "mathtext.fontset": "cm", "font.size": 11.5, "axes.labelsize": 11.5,
    "axes.titlesize": 11.5, "axes.titlepad": 8,
    "xtick.labelsize": 11, "ytick.labelsize": 11, "legend.fontsize": 11,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "axes.edgecolor": "#8b877c", "axes.linewidth": 0.8, "xtick.major.width": 0.8,
    "ytick.major.size": 0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
    "grid.color": FAINT, "grid.linewidth": 0.9, "lines.linewidth": 2, "lines.markersize": 6.5,
    "errorbar.capsize": 4, "legend.frameon": False, "legend.borderpad": 0,
    "legend.borderaxespad": 0, "legend.handlelength": 1.8, "legend.columnspacing": 1.6,
    "figure.constrained_layout.h_pad": 0.12, "figure.constrained_layout.w_pad": 0.12,
}  # fmt: skip


@contextmanager
def styled():
    """The book's matplotlib settings, for a `with` block or as a decorator of a function."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


@styled()
def png(figure):
    """The figure as a PNG file's bytes: twice as fine as on the page; charts in 256 colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.sharp_dpi, pil_kwargs={"optimize": True})
    if not figure.few_colours:
        return buffer.getvalue()
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    return small.getvalue()


def figure(height, alt, width=WIDTH, dpi=DPI * SHARP, layout="constrained", few_colours=True):
    """An empty Figure that a notebook can draw. `alt` says in one line what it will show."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout=layout)
    fig.alt, fig.sharp_dpi, fig.few_colours = alt, dpi, few_colours
    fig._repr_png_ = lambda: (png(fig), {"width": round(WIDTH * DPI)})
    return fig


def to_uint8(images, signed=False):
    """uint8 (n, H, W, 3) of uint8 or [0, 1] images (n, C, H, W), or of signed ones by colour."""
    x = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.size:
        raise ValueError(f"Images must be (n, C, H, W) with 1 or 3 channels; these are {x.shape}.")
    if signed:
        from matplotlib import colormaps

        scale = np.abs(x[:, 0]).max() or 1.0
        return colormaps[DIVERGING](0.5 + 0.5 * x[:, 0] / scale, bytes=True)[..., :3]
    if x.dtype != np.uint8:
        if x.dtype.kind != "f" or not -1e-3 <= x.min() <= x.max() <= 1 + 1e-3:  # nor NaN
            raise ValueError(
                f"Images must be uint8 or floats in [0, 1]; these are {x.dtype} from {x.min():.3g} "
                f"to {x.max():.3g}. Clamp or rescale them first."
            )
        x = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return np.broadcast_to(x.transpose(0, 2, 3, 1), (len(x), *x.shape[2:], 3))


def text_width(texts, size):
    """The width in inches of the widest text, whose lines are set in `size` points."""
    from matplotlib.textpath import TextPath

    lines = [line for entry in texts for line in entry.split("\n") if line]
    return max(TextPath((0, 0), line, size=size).get_extents().width for line in lines) / 72


def mosaic(tiles, columns, alt, left=0.0, gap=6, row_gap=6, low=0.12, largest=1.3):
    """A figure with one Axes that holds all tiles, and their places (x, y, w, h) in it.

    Each pixel of a tile becomes a whole number of pixels of the file, so nothing is interpolated.
    `left` and `low` are room for lettering, in inches; the gaps are in the file's pixels.
    """
    n, h, w, _ = tiles.shape
    room = min(WIDTH - 0.24 - left, columns * largest)  # inches
    scale = max(1, round((room * DPI * SHARP - (columns - 1) * gap) / (columns * w)))
    h, w = h * scale, w * scale
    across, down = columns * (w + gap) - gap, math.ceil(n / columns) * (h + row_gap) - row_gap
    board = np.full((down, across, 3), [int(PAPER[i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
    places = [(i % columns * (w + gap), i // columns * (h + row_gap), w, h) for i in range(n)]
    for tile, (x, y, _, _) in zip(tiles, places, strict=True):
        board[y : y + h, x : x + w] = tile.repeat(scale, 0).repeat(scale, 1)
    dpi = across / room
    wide, under, pad = round(WIDTH * dpi), round(low * dpi), round(0.12 * dpi)
    indent, tall = round(((WIDTH - room - left) / 2 + left) * dpi), pad + down + under
    fig = figure(tall / dpi, alt, wide / dpi, dpi, layout="none", few_colours=False)
    ax = fig.add_axes((indent / wide, under / tall, across / wide, down / tall))
    ax.imshow(board, aspect="auto", extent=(0, across, down, 0))
    ax.axis("off")
    return fig, places


def chart(xlabel, ylabel, alt, height=3.5):
    """A figure with one Axes; the name of the y axis stands above it, upright."""
    fig = figure(height, alt)
    ax = fig.add_subplot()
    ax.set_xlabel(xlabel)
    ax.set_title(ylabel, loc="left")  # as a y label, the layout would leave it no room
    return fig, ax


def plane(xlabel, ylabel, alt):
    """A chart of a plane: both axes have one scale."""
    fig, ax = chart(xlabel, ylabel, alt, height=5)
    ax.set_aspect("equal", "datalim")
    ax.grid(True, axis="both")
    return fig, ax


def apart(places, gap):
    """{name: (x, y)} with names that would touch moved apart, to `gap` where that is easy."""
    places = {name: np.array(place, float) for name, place in places.items()}
    for a, b in [*combinations(places, 2)] * 20:
        away = places[a] - places[b]
        length = np.hypot(*away) or 1.0
        step = max(0, gap - length) / 2 * away / length
        places[a], places[b] = places[a] + step, places[b] - step
    return places


def legend(ax):
    """Name the series above the y axis's name, where no curve can be in the way."""
    from matplotlib.transforms import ScaledTranslation

    handles, labels = ax.get_legend_handles_labels()
    if len(labels) < 2:
        return
    lines = [handle.lines[0] if hasattr(handle, "has_yerr") else handle for handle in handles]
    across = max(1, min(len(labels), 64 * len(labels) // sum(len(s) + 6 for s in labels)))
    above = ax.transAxes + ScaledTranslation(0, 27 / 72, ax.figure.dpi_scale_trans)
    ax.legend(lines, labels, loc="lower left", bbox_to_anchor=(0, 1), bbox_transform=above,
              ncols=across, markerscale=1.2)  # fmt: skip


def colour_and_marker(label, index, colours=None):
    """Colour and marker of a series: of the family it names, or is said to be, or the next."""
    family = (colours or {}).get(label, label)
    if family in COLOURS:
        return COLOURS[family], MARKERS[family]
    following = CYCLE[index % len(CYCLE)]
    return (COLOURS[following] if family == label else family), MARKERS[following]


def hline(ax, value, name, side="right"):
    """A dashed line at `value`, a number or a pair (number, name), named on the given side."""
    value, name = value if isinstance(value, tuple) else (value, name)
    ax.axhline(value, color=MUTED, lw=1.2, ls=DASHES, zorder=1.5)
    ax.annotate(name, (0 if side == "left" else 1, value), (0, 4), ax.get_yaxis_transform(),
                textcoords="offset points", ha=side, va="bottom", color=MUTED,
                fontsize=10.5)  # fmt: skip


def text(value):
    """A value as the book prints it: 103.9, 0.0123, 60,000, or 12.3 ± 0.4 of (mean, sd)."""
    if isinstance(value, (tuple, list)):
        mean, sd, *_ = (*value, None)
        if not sd or not math.isfinite(sd) or sd < 1e-12 * abs(mean):  # equal but for rounding
            return text(mean)
        places = max(0, -math.floor(math.log10(sd)) + (f"{sd:.1e}"[0] == "1"))
        return f"{mean:,.{places}f} ± {sd:,.{places}f}".replace("-", "−")
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value and math.isfinite(value):
        size = math.floor(math.log10(abs(value)))
        places = max(0, 3 - size if size >= 0 else 2 - size)
        return (f"{value:.2e}" if size < -4 else f"{value:,.{places}f}").replace("-", "−")
    plain = type(value) in (int, float)
    return f"{value:,}".removesuffix(".0").replace("-", "−") if plain else str(value)
