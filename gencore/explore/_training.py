"""A training run, step by step: what it draws, and where it is on its curves."""

import math
import statistics
from itertools import cycle

import numpy as np

from gencore import catalogue, embed, style
from gencore.explore import Live

COLUMNS = 4  # of the samples
COLOURS = {"kl": "prior"}  # terms whose colour in style.COLOURS has another name
ALIKE = 4  # a panel's terms differ in size by no more than this factor


def training(run, count=16):
    """Scrub through a training run: samples of fixed noise, what the step reported, the distance.

    `run` must have snapshots; up to `count` of their images are shown, or all points of a toy. A
    term, named as in the paper's TERMS, is the mean of the steps since the record before it.
    """
    if not run.snapshots:
        raise ValueError(
            f"{run.name} kept no samples on the way; its configuration has snapshots=0."
        )
    steps, images = run.snapshots["steps"].tolist(), run.snapshots["images"]
    distances = np.asarray(run.snapshots.get("frechet", ())).tolist()
    samples, spec = _cloud(run, images) if images.ndim == 3 else _tiles(run, images[:, :count])
    terms = _terms(run)
    curves, marks = _curves(run.name, _panels(terms), steps, distances)
    said = [_said(terms, run.history["step"], step) for step in steps]
    for k, distance in enumerate(distances):
        said[k] = "; ".join(
            filter(None, [said[k], f"Fréchet distance of samples {style.text(distance)}"])
        )
    alt = f"{spec['count']} samples of {run.name} from fixed noise after {steps[-1]:,} steps."
    return Live(
        "training", f"the training of {run.name}, step by step",
        embed.stage(embed.part("samples", samples(alt)),
                    embed.part("curves", curves, kind="curves"),
                    split="minmax(0, 2fr) minmax(0, 3fr)", controls=8),
        {"run": run.name, "steps": steps, "marks": marks, "terms": said, **spec},
        {"frame": len(steps) - 1},
    )  # fmt: skip


# The samples.


def _tiles(run, images):
    """Snapshots (T, n, C, H, W): the last one as a picture, and what the page has to know."""
    frames = [style.to_uint8(frame) for frame in images]  # each (n, H, W, 3)
    count, high, wide, _ = frames[-1].shape
    rows, columns = math.ceil(count / COLUMNS), min(COLUMNS, count)
    board = np.full((rows * (high + 1), columns * (wide + 1), 3), 255, np.uint8)
    for k, tile in enumerate(frames[-1]):
        y, x = k // columns * (high + 1), k % columns * (wide + 1)
        board[y : y + high, x : x + wide] = tile
    strip = np.concatenate([np.concatenate(list(frame), axis=1) for frame in frames])
    spec = {
        "columns": columns,
        "count": count,
        "shape": [3, high, wide],
        "strip": embed.webp(strip),
    }
    return lambda alt: embed.image(board[:-1, :-1], alt), spec


def _cloud(run, points):
    """Snapshots (T, n, 2) of points: the last one with the data behind it, likewise."""
    real = run.data.test.images[:500].float().numpy()
    low, high = real.min(0), real.max(0)
    middle, reach = (low + high) / 2, 0.6 * float((high - low).max())
    paper = catalogue.short_name(run.config.paper)
    colours = [style.COLOURS["pca"], style.COLOURS.get(paper, style.COLOURS[style.CYCLE[0]])]

    def picture(alt):
        fig = embed.paper(4, 4)
        ax = fig.add_axes((0, 0, 1, 1), xlim=(middle[0] - reach, middle[0] + reach),
                          ylim=(middle[1] - reach, middle[1] + reach))  # fmt: skip
        ax.axis("off")
        for xy, colour in zip((real, points[-1].numpy()), colours, strict=True):
            ax.scatter(*xy.T, s=5, c=colour, lw=0)
        return embed.chart_image(fig, alt)

    return picture, {
        "count": points.shape[1], "points": embed.encode_array(points),
        "data": embed.encode_array(real),
        "middle": middle.tolist(), "reach": reach, "colours": colours,
    }  # fmt: skip


# The terms.


def _terms(run):
    """{key: {name, unit, points}} of the terms that a run reported; points are (step, value)."""
    terms = {}
    for key, words in run.config.paper.TERMS.items():
        name, _, unit = words.rpartition(", ") if ", " in words else (words, "", "")
        pairs = zip(run.history["step"], run.history.get(key, ()), strict=False)
        if points := [(step, value) for step, value in pairs if value is not None]:
            terms[key] = {"name": name, "unit": unit, "points": points}
    return terms


def _said(terms, recorded, step):
    """The terms at the record that holds a step, in words; those of one unit share it."""
    at = next((r for r in recorded if r >= step), recorded[-1])
    units = {}
    for term in terms.values():
        if (value := dict(term["points"]).get(at)) is not None:
            units.setdefault(term["unit"], []).append(f"{term['name']} {style.text(value)}")
    said = "; ".join(f"{', '.join(names)} {unit}".strip() for unit, names in units.items())
    return said + (f" over the first {at} steps" if said and step < recorded[0] else "")


def _panels(terms):
    """The terms in groups of one unit and of like size: each group is one panel."""
    size = {k: statistics.median(abs(value) for _, value in t["points"]) for k, t in terms.items()}
    panels = []
    for key, term in terms.items():
        for panel in panels:
            sizes = [size[k] for k in (*panel, key)]
            if term["unit"] == terms[panel[0]]["unit"] and max(sizes) <= ALIKE * min(sizes):
                panel.append(key)
                break
        else:
            panels.append([key])
    return [{key: terms[key] for key in panel} for panel in panels]


# The curves.


@style.styled()
def _curves(name, panels, steps, distances):
    """The curves as a picture, and how far from its left edge each step is, in per cent."""
    heights = [3] + [2] * (len(panels) + bool(distances) - 1)
    fig = style.figure(max(3, 5 / 7 * sum(heights)), "", width=4.4)
    axes = fig.subplots(len(heights), sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    plain = iter(style.CYCLE)  # colours of the terms that have none of their own
    for ax, panel in zip(axes, panels, strict=False):
        _panel(ax, panel, plain)
    if distances:
        axes[-1].plot(steps, distances, color=style.INK, marker="o", ms=3.5)
        axes[-1].set_ylim(0)
        axes[-1].set_title("Fréchet distance of samples", loc="left")
    axes[-1].set(xscale="log", xlabel="optimiser steps", xlim=(min(steps) * 0.9, max(steps) * 1.1))
    what = "Terms of the loss and distance of the samples" if distances else "Terms of the loss"
    picture = embed.chart_image(fig, f"{what}: {name} in training.")
    places = axes[-1].transData.transform([(step, 0) for step in steps])[:, 0] / fig.bbox.width
    return picture, (100 * places).round(2).tolist()


def _panel(ax, panel, plain):
    """Draw terms of one unit; one that is always negative is turned over to lie beside others."""
    signs = [_sign(term) for term in panel.values()]
    for (key, term), sign, dashes in zip(panel.items(), signs, cycle(style.STROKES), strict=False):
        own = COLOURS.get(key, key)
        colour = style.COLOURS[own if own in style.COLOURS else next(plain)]
        turned = -1 if sign < 0 < max(signs) else 1
        label = f"−{term['name']}" if turned < 0 else term["name"]
        at, values = zip(*term["points"], strict=True)
        marker = "o" if len(at) == 1 else None
        ax.plot(at, [turned * v for v in values], dashes, color=colour, label=label, marker=marker)
    first = next(iter(panel.values()))
    if len(panel) > 1:
        wide = sum(len(term["name"]) for term in panel.values()) > 30  # for one line
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1.1), ncols=1 if wide else len(panel),
                  columnspacing=1)  # fmt: skip
        ax.set_title(first["unit"], loc="left")
    else:
        ax.set_title(", ".join(filter(None, (first["name"], first["unit"]))), loc="left")


def _sign(term):
    """1 or -1 if all values are positive or negative, else 0."""
    values = [value for _, value in term["points"]]
    return (min(values) > 0) - (max(values) < 0)
