"""Results as a table: HTML where a front end shows it, aligned text elsewhere.

Decimals stand under decimals without any style sheet: each number is filled up with what is
missing to the longest of its column, and that is not shown.
"""

import re
from html import escape

from gencore.style import text

MISSING = {"0": "\ue000", ".": "\ue001", "±": "\ue002"}  # in a cell's text: room, not letters
HIDDEN = {ord(room): letter for letter, room in MISSING.items()}
NUMBER = "text-align:right;white-space:nowrap"
WORDS = "text-align:left;font-weight:normal"
BEST = "font-weight:inherit;text-shadow:.045em 0 currentcolor"  # bold, but not wider


class Table:
    """Named rows of named cells; the last value of a cell of a notebook shows it.

    rows: {name: [texts]}. head: the names of the columns, that of the names first. marked: the
    (row, column) places of decisive cells, counted from 0; worded: the columns that hold words.
    Every cell is a text by now.
    """

    def __init__(self, rows, head, caption, marked=(), worded=()):
        self.rows, self.head, self.caption = rows, head, caption
        self.marked, self.worded = set(marked), set(worded)

    def _repr_html_(self):
        cell = 'th scope="col" style="text-align:left"' if self.head[0] else "td"
        head = f"<{cell}>{escape(self.head[0])}</{cell[:2]}>"
        for j, name in enumerate(self.head[1:]):
            side = "left" if j in self.worded else "right"
            head += f'<th scope="col" style="text-align:{side}">{escape(name)}</th>'
        body = ""
        for i, (name, cells) in enumerate(self.rows.items()):
            body += f'<tr><th scope="row" style="{WORDS}">{escape(name)}</th>'
            for j, cell in enumerate(cells):
                words = re.sub("[\ue000-\ue002]+", hidden, escape(cell))
                if (i, j) in self.marked:
                    words = f'<strong style="{BEST}">{words}</strong>'
                body += f'<td style="{WORDS if j in self.worded else NUMBER}">{words}</td>'
            body += "</tr>\n"
        about = escape(self.caption)
        return (
            f'<div class="gencore-table" role="region" tabindex="0" aria-label="{about}" '
            f'style="overflow-x:auto;margin:1em 0">\n'
            f'<table class="table" style="font-variant-numeric:tabular-nums">\n'
            f'<caption style="caption-side:top;text-align:left"><span style="display:inline-block;'
            f'max-width:80vw">{about}</span></caption>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}</tbody>\n</table>\n</div>"
        )

    def __repr__(self):
        """The same in letters of one width; a decisive cell has an asterisk."""
        lines = [list(self.head)]
        for i, (name, cells) in enumerate(self.rows.items()):
            stars = ["*" if (i, j) in self.marked else " " for j in range(len(cells))]
            lines.append([name, *(c + s for c, s in zip(cells, stars, strict=True))])
        wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = {0, *(j + 1 for j in self.worded)}
        table = [
            "  ".join((str.ljust if j in left else str.rjust)(cell, wide[j])
                      for j, cell in enumerate(line)).rstrip()
            for line in lines
        ]  # fmt: skip
        return "\n".join([self.caption, "", *table]).translate(dict.fromkeys(HIDDEN, " "))


def hidden(room):
    """Letters that take their room and are neither seen nor read out."""
    return f'<span style="visibility:hidden">{room[0].translate(HIDDEN)}</span>'


def best(values, choose, places):
    """The places of the best value, by min or max, and of those as good within an sd."""
    pairs = {i: (*values[i], None)[:2] if isinstance(values[i], (tuple, list)) else (values[i], 0)
             for i in places if values[i] is not None}  # fmt: skip
    pairs = {i: (mean, sd or 0) for i, (mean, sd) in pairs.items() if mean == mean}  # not nan
    if len(pairs) < 2:
        return []
    top, spread = choose(pairs.values(), key=lambda pair: pair[0])
    return [i for i, (mean, sd) in pairs.items() if abs(mean - top) <= max(sd, spread)]


def plain(values):
    """Texts of one column as they are; what is not there is a dash."""
    return ["–" if value is None else text(value) for value in values]


def aligned(values):
    """Texts of one column, equally wide: decimals under decimals, deviations under deviations."""
    pairs = [cell.split(" ± ") for cell in plain(values)]
    means = filled([pair[0] for pair in pairs])
    if not any(len(pair) > 1 for pair in pairs):
        return means
    sds = filled([pair[1] if len(pair) > 1 else "" for pair in pairs])
    gap = f" {MISSING['±']} "  # where others have a deviation
    return [
        mean + (" ± " if len(pair) > 1 else gap) + sd
        for pair, mean, sd in zip(pairs, means, sds, strict=True)
    ]


def filled(numbers):
    """Numbers as texts, filled up on both sides of their points."""
    halves = [number.partition(".") for number in numbers]
    left, right = (max(len(half[i]) for half in halves) for i in (0, 2))
    points = any(point for _, point, _ in halves)
    zero = MISSING["0"]
    return [
        zero * (left - len(whole)) + whole
        + (point or MISSING["."] * points) + part + zero * (right - len(part))
        for whole, point, part in halves
    ]  # fmt: skip
