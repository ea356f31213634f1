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
    "gaussian": "#6c0078", "ppca": "#95917a",
}  # fmt: skip
MARKERS = dict(zip(COLOURS, "oPsD^vX<>Dsv^opd", strict=True))
NAMES = {
    "pca": "PCA", "ae": "autoencoder", "vae": "VAE", "gan": "GAN", "aae": "AAE", "avb": "AVB",
    "vaegan": "VAE/GAN", "glo": "GLO", "gmm": "mixture", "gaussian": "Gaussian", "ppca": "pPCA",
}  # fmt: skip
CYCLE = ("vae", "gan", "ae", "aae", "vaegan", "glo", "avb", "pca")  # for labels of no family
CLASSES = (
    "#6d9ef2", "#c74b22", "#408971", "#9262b8", "#b2984a",
    "#f4a8be", "#1a576d", "#733a16", "#722fb0", "#adcf2c",
)  # fmt: skip
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DIVERGING = "PuOr"  # perceptually even about its white middle, safe for colour-blind readers

WIDTH, DPI, SHARP = 6.4, 110, 2  # inches; pixels an inch on the page; how much finer the file is
PAPER, INK, MUTED, FAINT = "#fbfaf7", "#33322e", "#5f5c54", "#e4e0d6"
KEY = 0.32  # inches, for the bar of `signs`
DASHES, STROKES = (0, (4, 3)), ("-", "--", "-.", ":")
STYLE = {
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER,
    "figure.dpi": DPI, "font.family": "DejaVu Sans", "mathtext.fontset": "cm", "font.size": 11.5,
    "axes.labelsize": 11.5, "axes.titlesize": 11.5, "axes.titlepad": 8,
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
    if figure.settle:
        figure.draw_without_rendering()  # where everything is
    for last_touch in figure.settle:
        last_touch()
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
    """An empty Figure that a notebook can draw. `alt` says in one line what it will show.

    Functions in its list `settle` are called when all else is in its place, before it is drawn.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(width, height), layout=layout)
    fig.alt, fig.sharp_dpi, fig.few_colours, fig.settle = alt, dpi, few_colours, []
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


def signs(fig):
    """Under signed images, in the room `KEY`: a bar that says which colour is which sign."""
    from matplotlib import colormaps

    wide, tall = fig.get_size_inches()
    ax = fig.add_axes(((wide - 1.5) / 2 / wide, 0.15 / tall, 1.5 / wide, 0.13 / tall))
    ax.imshow([np.linspace(0, 1, 120)], aspect="auto", cmap=colormaps[DIVERGING])
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, linewidth=0.6)
    for x, name, side in ((-0.05, "negative", "right"), (1.05, "positive", "left")):
        ax.text(x, 0.5, name, transform=ax.transAxes, ha=side, va="center", size=11)
    return fig


def lettering(name, size=11.5):
    """The size of a name: that of a bare formula is larger, its letters being small."""
    return size + 3 * (name.startswith("$") and name.endswith("$"))


def chart(xlabel, ylabel, alt, height=3.5):
    """A figure with one Axes; the name of the y axis stands above it, upright."""
    fig = figure(height, alt)
    ax = fig.add_subplot()
    ax.set_xlabel(xlabel, size=lettering(xlabel))
    ax.set_title(ylabel, loc="left", size=lettering(ylabel))  # as a y label, it would get no room
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


def colour_and_marker(label, index, colours=None):
    """Colour and marker of a series: of the family it names, or is said to be, or the next."""
    family = (colours or {}).get(label, label)
    if family in COLOURS:
        return COLOURS[family], MARKERS[family]
    following = CYCLE[index % len(CYCLE)]
    return (COLOURS[following] if family == label else family), MARKERS[following]


def log_scale(ax):
    """A logarithmic y axis with plain numbers: 0.01, 0.1, 1, 10, or 2, 5, 10 over a short range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.dataLim.intervaly
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", length=0)


def human(label):
    """What a reader calls a series: a family's key is none of the reader's words."""
    return NAMES.get(label, label)


def hline(ax, value, name, side="right"):
    """A dashed line at `value`, a number or a pair (number, name), named on the given side."""
    value, name = value if isinstance(value, tuple) else (value, name)
    ax.axhline(value, color=MUTED, lw=1.2, ls=DASHES, zorder=1.5)
    ax.annotate(name, (0 if side == "left" else 1, value), (0, 4), ax.get_yaxis_transform(),
                textcoords="offset points", ha=side, va="bottom", color=MUTED,
                fontsize=10.5)  # fmt: skip


def text(value, more=0):
    """A value as the book prints it: 12.3, 0.0123, 60,000, or 12.3 ± 0.4 of (mean, sd).

    Three digits that mean something, and tenths up to a thousand: a bound is compared by them.
    With a standard deviation its first digit decides, or its first two if it begins with 1.
    more: so many decimals more for numbers from 1 on.
    """
    if isinstance(value, (tuple, list)):
        mean, sd, *_ = (*value, None)
        if not sd or not math.isfinite(sd) or sd < 1e-12 * abs(mean):  # equal but for rounding
            return text(mean, more)
        places = max(0, -math.floor(math.log10(sd)) + (f"{sd:.1e}"[0] == "1"))
        return f"{fixed(mean, places)} ± {fixed(sd, places)}"
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value and math.isfinite(value):
        size = math.floor(math.log10(abs(value)))
        if size < -4:
            digits, power = f"{value:.1e}".split("e")
            return f"{digits} × 10{str(int(power)).translate(RAISED)}".replace("-", "−")
        return fixed(value, max(int(size == 2), 2 - size + more * (size >= 0)))
    plain = type(value) in (int, float)
    return f"{value or 0:,}".removesuffix(".0").replace("-", "−") if plain else str(value)


def precise(value):
    """A value with one decimal more, where it is compared with a tolerance."""
    return text(value, more=1)


def fixed(value, places):
    """A number with so many decimals; what rounds to zero has no sign."""
    digits = f"{value:,.{places}f}"
    return digits.replace("-", "−" if digits.strip("-0.,") else "")
