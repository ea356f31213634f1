"""Every figure of the book, and the numbers of its prose.

Each function returns a matplotlib Figure, which a notebook draws when it is a cell's last value
(without a semicolon: nothing is drawn behind the scenes), and which carries `.alt`, one line
that says what it shows. How all of them look is decided in `style`.
"""

import math
import sys

import numpy as np
import torch

from gencore import evaluate, naming, nets, style, tables
from gencore.style import CLASSES, COLOURS, DASHES, INK, MUTED, PAPER, STROKES, png, styled, text

__all__ = [
    "COLOURS", "bars", "compare", "curves", "errorbars", "grid", "histogram", "interpolation",
    "latent_map", "manifold", "numbers", "png", "rate_distortion", "rows", "table", "text",
]  # fmt: skip


@styled()
def grid(images, columns=8, titles=None, signed=False):
    """Images (n, C, H, W), uint8 or in [0, 1], in rows of `columns`.

    titles: a short text under each image. signed: one-channel images of any range, zero in white
    and the two signs in two colours (principal components, differences).
    """
    tiles = style.to_uint8(images, signed)
    n, columns = len(tiles), min(columns, len(tiles))
    low = style.KEY if signed else 0
    if titles is None:
        fig, _ = style.mosaic(tiles, columns, f"{n} images in rows of {columns}.", low=0.12 + low)
        return style.signs(fig) if signed else fig
    if len(titles) != n:
        raise ValueError(f"{n} images need {n} titles; there are {len(titles)}.")
    alt = f"{n} titled images."
    fig, places = style.mosaic(tiles, columns, alt, row_gap=58, low=0.36 + low)
    size = 11 * min(1, 0.95 * places[0][2] / fig.sharp_dpi / style.text_width(titles, 11))
    for title, (x, y, w, h) in zip(titles, places, strict=True):
        fig.axes[0].text(x + w / 2, y + h + 11, title, ha="center", va="top", size=size)
    return style.signs(fig) if signed else fig


@styled()
def rows(images, signed=False):
    """Labelled rows of images under each other, from {label: images}: the mould of a comparison.

    Column i of every row should be the same thing: one image and its reconstructions, or one code
    through several decoders.
    """
    blocks = {style.human(label): style.to_uint8(v, signed) for label, v in images.items()}
    if len({block.shape for block in blocks.values()}) != 1:
        found = ", ".join(f"{label}: {b.shape[0]} of {b.shape[1:3]}" for label, b in blocks.items())
        raise ValueError(f"Every row needs as many images, of one size; here are {found}.")
    tiles = np.concatenate(list(blocks.values()))
    columns = len(tiles) // len(blocks)
    alt = f"Rows of {columns} images: {', '.join(blocks)}.".replace("\n", " ")
    room = {"left": style.text_width(blocks, 11.5) + 0.14, "low": 0.12 + style.KEY * signed}
    fig, places = style.mosaic(tiles, columns, alt, **room)
    for label, (_, y, _, h) in zip(blocks, places[::columns], strict=True):
        fig.axes[0].text(-0.1 * fig.sharp_dpi, y + h / 2, label, ha="right", va="center")
    return style.signs(fig) if signed else fig


@styled()
@torch.no_grad()
def manifold(model, n=20):
    """What a decoder with a 2-D latent makes of an n x n grid of equally probable codes.

    Along each axis they are the (i + 1/2)/n quantiles of N(0, 1): every image stands for the same
    share of the prior.
    """
    q = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    z = torch.stack([q.repeat(n), q.flip(0).repeat_interleave(n)], 1)  # (n * n, 2), z2 upwards
    alt = f"{n} by {n} decoded images over the plane of a two-dimensional latent."
    tiles = style.to_uint8(evaluate.decode(model, z))
    board = {"left": 0.55, "gap": 0, "row_gap": 0, "low": 0.6, "largest": 5 / n}
    fig, places = style.mosaic(tiles, n, alt, **board)
    ax, marks = fig.axes[0], torch.arange(-3, 4) / 2
    (x, y, w, h), share = places[-1], torch.special.ndtr(marks)
    names = [f"{mark:g}".replace("-", "−") for mark in marks.tolist()]
    ax.axis("on")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks((share * (x + w)).tolist(), names)
    ax.set_yticks(((1 - share) * (y + h)).tolist(), names)
    ax.set_xlabel("$z_1$", labelpad=1, size=style.lettering("$z_1$"))
    ax.set_ylabel("$z_2$", rotation=0, labelpad=8, size=style.lettering("$z_2$"))
    return fig


@styled()
@torch.no_grad()
def interpolation(model, x0, x1, n=9):
    """From image x0 to x1, each (1, C, H, W) in [0, 1]: between codes, on a sphere, in pixels."""
    device = nets.device_of(model)
    z0, z1 = (model.infer(x.to(device)).cpu() for x in (x0, x1))  # (1, d)
    t = torch.linspace(0, 1, n).view(-1, 1)
    angle = torch.arccos(torch.cosine_similarity(z0, z1).clamp(-1 + 1e-6, 1 - 1e-6))
    turn = torch.sin((1 - t) * angle) * z0 / z0.norm() + torch.sin(t * angle) * z1 / z1.norm()
    length = (1 - t) * z0.norm() + t * z1.norm()
    t4 = t.view(-1, 1, 1, 1)
    return rows({
        "straight line": evaluate.decode(model, (1 - t) * z0 + t * z1),
        "on the sphere": evaluate.decode(model, length * turn / angle.sin()),
        "in pixels": (1 - t4) * x0 + t4 * x1,
    })  # fmt: skip


@styled()
def curves(history, keys, labels=None, ylabel="loss, nats per image", band=None, ylim=None,
           colours=None, xlabel="optimiser steps"):  # fmt: skip
    """Training curves: `history` of train.fit, or a list of histories (mean and range of seeds).

    labels: {key: text}. band: (low, high), a shaded range of expected values. colours: {key: family
    or colour}, where the key is not itself a family or a term.
    """
    several = [history] if isinstance(history, dict) else list(history)
    names = {key: (labels or {}).get(key, key) for key in keys}
    fig, ax = style.chart(xlabel, ylabel, f"{', '.join(names.values())}: {ylabel} by {xlabel}.")
    steps = several[0]["step"]
    for i, (entry, name) in enumerate(names.items()):
        values = np.array([h[entry] for h in several], float)
        colour, _ = style.colour_and_marker(entry, i, colours)
        ax.plot(steps, values.mean(0), color=colour, label=name, ls=STROKES[i % 4])
        if len(values) > 1:
            ax.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
    if band is not None:
        ax.axhspan(*band, color=MUTED, alpha=0.15, lw=0, zorder=0)
    ax.set_ylim(ylim)
    ax.margins(x=0.02)
    naming.name_series(ax)
    return fig


@styled()
def errorbars(x, series, xlabel, ylabel, floor=None, colours=None, logx=False,
              logy=False):  # fmt: skip
    """Mean ± one standard deviation over x, from {label: (mean, sd)}; sd None draws no bar.

    x: numbers, or names of categories. floor: a level or (level, name), a dashed line over zero.
    colours: {label: family or colour}, where the label is not itself a family.
    """
    names = ", ".join(map(style.human, series))
    fig, ax = style.chart(xlabel, ylabel, f"{names}: {ylabel} against {xlabel}.")
    named = isinstance(x[0], str)
    place = np.arange(len(x)) if named else np.array(x, float)
    for i, (label, (mean, sd)) in enumerate(series.items()):
        colour, marker = style.colour_and_marker(label, i, colours)
        shift = 0.12 * (i - (len(series) - 1) / 2) if named else 0
        mean, sd = np.array(mean, float), None if sd is None else np.array(sd, float)
        ax.errorbar(place + shift, mean, sd, color=colour, marker=marker, label=label, capthick=1.5,
                    elinewidth=1.5, mec=PAPER, mew=0.8, ls="" if named else "-")  # fmt: skip
    if logx:
        ax.set_xscale("log")
    if logy:
        style.log_scale(ax)
    ax.margins(x=0.15 if named else 0.05)
    ax.set_xticks(place, [str(v) for v in x])
    ax.set_xticks([], minor=True)
    if floor is not None:
        first, last = (min(mean[i] for mean, _ in series.values()) for i in (0, -1))
        side = "right" if last > first else "left"  # where the curves are farther away
        style.hline(ax, floor, "floor: real against real", side)
        ax.set_ylim(None if logy else 0)
    naming.name_series(ax)
    return fig


@styled()
def bars(values, xlabel, ylabel, threshold=None, family="vae"):
    """Bars of a sequence, numbered from 1, or of {name: value or (mean, sd)}.

    threshold: a level or (level, name); bars that stay below it are hollow. A bar that is named
    like a model family has its colour.
    """
    if not isinstance(values, dict):
        values = {str(i): v for i, v in enumerate(values, 1)}
    fig, ax = style.chart(xlabel, ylabel, f"{len(values)} bars: {ylabel} by {xlabel}.")
    limit = threshold[0] if isinstance(threshold, tuple) else threshold
    for i, (name, value) in enumerate(values.items()):
        height, sd, *_ = value if isinstance(value, tuple) else (value, None)
        colour, hollow = COLOURS.get(name, COLOURS.get(family, family)), limit and height < limit
        ax.bar(i, height, 0.7, color=PAPER if hollow else colour, ec=colour, lw=1.2)
        ax.errorbar(i, height, sd, color=INK, elinewidth=1.5)
    room = max(0.5, (7 - len(values)) / 2)
    ax.set_xlim(-room, len(values) - 1 + room)
    every = math.ceil(len(values) / 20) if max(map(len, values)) < 4 else 1
    ax.set_xticks(range(0, len(values), every), [style.human(v) for v in values][::every])
    if threshold is not None:
        style.hline(ax, threshold, f"threshold {limit:g}")
    return fig


@styled()
def histogram(values, xlabel, ylabel="density", bins=40, marks=None, colours=None):
    """Densities of {label: values} over common bins; marks {name: x} are vertical lines."""
    arrays = {label: np.asarray(v, float).ravel() for label, v in values.items()}
    fig, ax = style.chart(xlabel, ylabel, f"Histograms of {xlabel}: {', '.join(arrays)}.")
    edges = np.histogram_bin_edges(np.concatenate(list(arrays.values())), bins)
    for i, (label, array) in enumerate(arrays.items()):
        colour, _ = style.colour_and_marker(label, i, colours)
        density = np.histogram(array, edges, density=True)[0]
        ax.stairs(density, edges, color=colour, lw=2, label=label, ls=STROKES[i % 4])
        ax.stairs(density, edges, color=colour, alpha=0.18, fill=True)
    for name, x in (marks or {}).items():
        ax.axvline(x, color=MUTED, lw=1.2, ls=DASHES)
        ax.annotate(name, (x, 1), (4, -2), ax.get_xaxis_transform(), textcoords="offset points",
                    va="top", color=MUTED, fontsize=10.5)  # fmt: skip
    ax.set_ylim(0)
    naming.legend(ax, *ax.get_legend_handles_labels())
    return fig


@styled()
def rate_distortion(points, xlabel="rate: KL, nats per image", ylabel="distortion, nats per image"):
    """The rate-distortion plane, from {name: (rate, distortion)} or {series: {name: ...}}.

    Each coordinate is a number or a (mean, sd). A faint diagonal joins the places of one -ELBO,
    the sum of the two coordinates. Points that coincide share one name.
    """
    from matplotlib.ticker import MaxNLocator

    fig, ax = style.chart(xlabel, ylabel, "Rate against distortion.", height=4.2)
    nested, named = isinstance(next(iter(points.values())), dict), []
    for i, (label, cloud) in enumerate((points if nested else {"vae": points}).items()):
        colour, marker = style.colour_and_marker(label, i)
        pairs = [[(c if isinstance(c, tuple) else (c, 0))[:2] for c in p] for p in cloud.values()]
        (x, dx), (y, dy) = np.array(pairs, float).transpose(1, 2, 0)
        ax.errorbar(x, y, dy, dx, color=colour, marker=marker, label=label, lw=1.4, mec=PAPER)
        named += zip(cloud, zip(x, y, strict=True), strict=True)
    ax.margins(0.14)
    (low, high), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    for total in MaxNLocator(6).tick_values(low + bottom, high + top):
        ax.plot((low, high), (total - low, total - high), color="#cfcabd", lw=1, zorder=0.5)
        if bottom < total - high < top:
            ax.annotate(f"−ELBO {total:g}", (high, total - high), (5, 0), color=MUTED, size=10,
                        textcoords="offset points", va="center", annotation_clip=False)  # fmt: skip
    ax.set(xlim=(low, high), ylim=(bottom, top))
    ax.grid(False)
    naming.name_points(ax, *zip(*named, strict=True))
    naming.legend(ax, *ax.get_legend_handles_labels())
    return fig


@styled()
def latent_map(mu, labels, names=None):
    """Codes mu (n, 2) coloured by class, each class's name at its median, and the prior's radii.

    The dashed circles hold 39 % and 86 % of N(0, I): one and two standard deviations. The plane
    reaches from the 0.5 % to the 99.5 % quantile of the codes on each axis, and a little beyond.
    """
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    mu, labels = np.asarray(mu, float), np.asarray(labels)
    if mu.ndim != 2 or mu.shape[1] != 2 or len(mu) != len(labels):
        raise ValueError(f"A map needs codes (n, 2) and n labels: {mu.shape}, {labels.shape}.")
    fig, ax = style.plane("$z_1$", "$z_2$", f"{len(mu)} codes in a plane, coloured by class.")
    order = np.random.default_rng(0).permutation(len(mu))  # so that no class lies on top
    ax.scatter(*mu[order].T, s=7, c=np.array(CLASSES)[labels[order] % 10], alpha=0.75, lw=0)
    halo = [withStroke(linewidth=3.5, foreground=PAPER)]
    for radius in (1, 2):
        ax.add_patch(Circle((0, 0), radius, fill=False, ec=INK, lw=1.2, ls=DASHES))
    low, high = np.quantile(mu, (0.005, 0.995), 0)
    ax.dataLim.set_points(np.array([np.minimum(low, -2.1), np.maximum(high, 2.1)]))
    ax.autoscale_view()
    centres = {c: np.median(mu[labels == c], 0) for c in np.unique(labels).tolist()}
    centres = style.apart(centres, 0.05 * np.ptp(mu, 0).max())
    classes = []
    for c, place in centres.items():
        name = str(names[c] if names else c)
        classes.append(ax.text(*place, name, weight="bold", size=14 if len(name) < 3 else 11,
                               ha="center", va="center", path_effects=halo))  # fmt: skip
    circles = [(0.7 * r, -0.72 * r) for r in (1, 2)]
    outside = naming.COMPASS[3:]  # of a circle, at its lower right
    naming.name_points(ax, ["1 sd", "2 sd"], circles, classes, outside, size=10, path_effects=halo)
    return fig


@styled()
def compare(real, fake, family="gan", labels=("real", "generated")):
    """Two sets of points (n, 2) in one plane: the real ones below, the generated ones above."""
    fig, ax = style.plane("$x_1$", "$x_2$", "Real and generated points in a plane.")
    looks = (("#a39f94", 18), (COLOURS.get(family, family), 7))
    for points, label, (colour, size) in zip((real, fake), labels, looks, strict=True):
        ax.scatter(*np.asarray(points).T, s=size, color=colour, alpha=0.6, lw=0, label=label)
    naming.legend(ax, *ax.get_legend_handles_labels())
    return fig


def table(rows, caption, columns=None, best=None, aside=(), corner=""):
    """A table of results, from {row: {column: value}}: decimals aligned, decisive cells marked.

    Values: numbers, texts, (mean, sd[, n]) as runs.summary returns it, or None. columns: {key: name
    for the reader}, those to show in their order. best: {key: min or max}, for columns with a best
    cell; what a standard deviation does not tell from it is marked with it. aside: rows that do not
    compete, such as real images. corner: what the rows are.
    """
    columns = columns or {key: key for row in rows.values() for key in row}
    raw = [name for name in (*rows, *columns.values()) if "_" in name]
    if raw or not rows or set(best or ()) - set(columns):
        raise ValueError(
            f"columns={{{raw[0]!r}: a name for the reader}}" if raw else
            f"There are rows {[*rows]} and columns {[*columns]}; best names {[*(best or ())]}."
        )  # fmt: skip
    values = {key: [row.get(key) for row in rows.values()] for key in columns}
    places = [i for i, name in enumerate(rows) if name not in aside]
    marked = {(i, j) for j, key in enumerate(columns) if key in (best or {})
              for i in tables.best(values[key], best[key], places)}  # fmt: skip
    worded = {j for j, key in enumerate(columns) if any(isinstance(v, str) for v in values[key])}
    cells = [tables.plain(column) if j in worded else tables.aligned(column)
             for j, column in enumerate(values.values())]  # fmt: skip
    several = len(marked) > len({j for _, j in marked})
    caption += " Bold: the best of its column" * bool(marked)
    caption += ", and what is within a standard deviation of it" * several + "." * bool(marked)
    body = dict(zip(rows, zip(*cells, strict=True), strict=True))
    return tables.Table(body, [corner, *columns.values()], caption, marked, worded)


def numbers(values=None, /, **more):
    """Print names and values in a table, and record them for the prose.

    Values: numbers, texts, or (mean, sd[, n]) as runs.summary returns it. In a notebook the table's
    metadata keeps them: when it is executed for the book, `tools/execute_notebooks.py` writes each
    into the text between the marks `<!--n:name-->` and `<!--/n-->`.
    """
    values = {name: text(value) for name, value in {**(values or {}), **more}.items()}
    wide = max(map(len, values), default=0)
    table = "\n".join(f"{name:<{wide}}  {value}" for name, value in values.items())
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(table)  # no notebook
        return
    from IPython.display import display

    display({"text/plain": table}, raw=True, metadata={"gencore": {"numbers": values}})
