"""Names of curves and points beside what they name, where nothing covers anything.

Places are found when a figure is drawn, by `style.png`, so that axes may change until then.
"""

import numpy as np

from gencore import style
from gencore.style import PAPER


def luminance(colour):
    """The relative luminance of WCAG, plus the 0.05 of its contrasts."""
    from matplotlib.colors import to_rgb

    c = np.array(to_rgb(colour))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722) + 0.05


def readable(colour):
    """The colour, darkened until letters in it have a contrast of 4.5 to the paper."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(colour))
    while luminance(PAPER) < 4.5 * luminance(rgb):
        rgb = 0.97 * rgb
    return to_hex(rgb)


def name_series(ax):
    """Name the curves, if there are several: each at its right end, in its colour, if that fits."""
    handles, labels = ax.get_legend_handles_labels()
    labels = [style.human(label) for label in labels]
    if len(labels) < 2:
        return
    lines = [handle.lines[0] if hasattr(handle, "has_yerr") else handle for handle in handles]
    if len(labels) > 6 or style.text_width(labels, 11) > 2 or not all(map(at_end, lines)):
        legend(ax, lines, labels)
        return
    notes = [
        ax.annotate(label, (1, at_end(line)[1]), (4, 0), ax.get_yaxis_transform(), va="center",
                    textcoords="offset points", size=11, color=readable(line.get_color()),
                    annotation_clip=False)
        for line, label in zip(lines, labels, strict=True)
    ]  # fmt: skip
    ax.figure.settle.append(lambda: stack(ax, notes))


def at_end(line):
    """The last point of a curve that is a number, or None."""
    if not hasattr(line, "get_xydata"):
        return None
    points = np.asarray(line.get_xydata(), float)
    points = points[np.isfinite(points).all(1)]
    return tuple(points[-1]) if len(points) else None


def stack(ax, notes):
    """Move the names of curves up and down, as little as needed to part them."""
    box, dot = ax.get_window_extent(), ax.figure.dpi / 72
    height = {note: ax.transData.transform(note.xy)[1] for note in notes}
    ends = np.array([*height.values()]).clip(box.y0, box.y1)
    notes = [notes[i] for i in np.argsort(ends, kind="stable")]
    tall = np.array([note.get_text().count("\n") + 1 for note in notes]) * 14.5 * dot
    steps = np.cumsum(tall) - tall / 2 - tall[0] / 2  # less these, they must not decrease
    places = steps + level_out(np.sort(ends) - steps).clip(box.y0 + 2 * dot)
    for note, place in zip(notes, places, strict=True):
        note.xyann = (4, (place - height[note]) / dot)


def level_out(values):
    """The nearest sequence that does not decrease (pool adjacent violators)."""
    pools = []
    for value in values:
        pools.append([value, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, n), (b, m) = pools[-2:]
            pools[-2:] = [[(a * n + b * m) / (n + m), n + m]]
    return np.concatenate([np.full(n, value) for value, n in pools])


COMPASS = (
    ((7, 5), "left", "bottom"), ((-7, -5), "right", "top"), ((-7, 5), "right", "bottom"),
    ((7, -5), "left", "top"), ((0, 9), "center", "bottom"), ((0, -9), "center", "top"),
    ((11, 0), "left", "center"), ((-11, 0), "right", "center"),
)  # fmt: skip


def keep_clear(ax, notes, taken, spots):
    """Give each note at a point that of the spots beside it where it covers least."""
    from matplotlib.transforms import Bbox

    inside, dot = ax.get_window_extent(), ax.figure.dpi / 72
    points = [ax.transData.transform(note.xy) for note in notes]
    boxes = [Bbox.from_bounds(x - 4 * dot, y - 4 * dot, 8 * dot, 8 * dot) for x, y in points]
    boxes += taken  # and then the notes that have their place

    def cost(note, spot):
        note.xyann, ha, va = spot
        note.set(ha=ha, va=va)
        box = note.get_window_extent()
        covered = (Bbox.intersection(box, other) for other in boxes)
        within = Bbox.intersection(box, inside)
        outside = box.width * box.height - (within.width * within.height if within else 0)
        return sum(b.width * b.height for b in covered if b) + 10 * max(0, outside)

    for note in notes:
        if note.get_visible() and note.get_text().strip():
            cost(note, min(spots, key=lambda spot, note=note: cost(note, spot)))
            boxes.append(note.get_window_extent())


def join(names):
    """One name for several: "d = 20, 32" of "d = 20" and "d = 32"."""
    names = [name for name in names if name.strip()]
    heads = {name.rpartition("= ")[0] for name in names}
    if len(names) > 1 and len(heads) == 1 and "" not in heads:
        names[1:] = [name.rpartition("= ")[2] for name in names[1:]]
    return ", ".join(names)


def name_points(ax, names, places, around=(), spots=COMPASS, **look):
    """Name points in a plane; those that coincide share a name, and none covers another.

    around: texts that are to be left free, too. spots: where a name may stand, the best first.
    look: further properties of the letters.
    """
    notes = [ax.annotate(name, place, (7, 5), textcoords="offset points", **look)
             for name, place in zip(names, places, strict=True)]  # fmt: skip

    def settle():
        at = ax.transData.transform(np.array(places, float))
        near = np.hypot(*(at[:, None] - at).transpose(2, 0, 1)) < 13 * ax.figure.dpi / 72
        first = [int(np.argmax(row)) for row in near]  # each joins the first that is near
        for i, note in enumerate(notes):
            note.set_text(join([n for n, j in zip(names, first, strict=True) if j == i]) or " ")
            note.set_visible(first[i] == i)
        keep_clear(ax, notes, [text.get_window_extent() for text in around], spots)

    ax.figure.settle.append(settle)


def legend(ax, lines, labels):
    """Name the series above the y axis's name, where no curve can be in the way."""
    from matplotlib.transforms import ScaledTranslation

    labels = [style.human(label) for label in labels]
    if len(labels) < 2:
        return
    lines = [line.lines[0] if hasattr(line, "has_yerr") else line for line in lines]
    across = max(1, min(len(labels), 64 * len(labels) // sum(len(s) + 6 for s in labels)))
    above = ax.transAxes + ScaledTranslation(0, 27 / 72, ax.figure.dpi_scale_trans)
    ax.legend(lines, labels, loc="lower left", bbox_to_anchor=(0, 1), bbox_transform=above,
              ncols=across, markerscale=1.2)  # fmt: skip
