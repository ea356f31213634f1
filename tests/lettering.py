"""Where the letters of a figure stand, as its file has them."""

from itertools import combinations

import matplotlib
from matplotlib.transforms import Bbox

from gencore import show


def boxes(figure):
    """[(text, its box in pixels)] of every visible text of a figure as it is drawn."""
    show.png(figure)
    figure.draw_without_rendering()
    found = [t for t in figure.findobj(matplotlib.text.Text) if t.get_visible() and t.get_text().strip()]
    hidden = {t for ax in figure.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis) for t in axis.findobj(matplotlib.text.Text)}
    hidden |= {t for ax in figure.axes for axis in (ax.xaxis, ax.yaxis) for t in beyond(axis)}
    return [(t.get_text(), t.get_window_extent()) for t in found if t not in hidden]


def beyond(axis):
    """Labels of ticks that are not drawn, being outside of the axis or without a label."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    out = [t for t in ticks if not low <= t.get_loc() <= high]
    return {label for tick in out for label in (tick.label1, tick.label2)}


def touching(figure, air=0):
    """Pairs of texts that overlap by more than a pixel, and texts that the figure's edge cuts."""
    found = [(name, Bbox.from_extents(*(box.extents + [-air, -air, air, air]))) for name, box in boxes(figure)]
    problems = []
    for (a, one), (b, other) in combinations(found, 2):
        both = Bbox.intersection(one, other)
        if both and min(both.width, both.height) > 1:
            problems.append(f"{a!r} covers {b!r}")
    wide, tall = figure.get_size_inches() * figure.dpi
    problems += [f"{name!r} is cut" for name, b in found if b.x0 < 0 or b.y0 < 0 or b.x1 > wide or b.y1 > tall]
    return problems
