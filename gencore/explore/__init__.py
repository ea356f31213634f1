"""Live figures: networks that answer to a finger, in a notebook and in a page without a kernel.

Each function returns a widget. Under a kernel it is an anywidget, whose `.state` follows the
reader and can be set; its HTML holds everything the figure needs (script, weights, pictures), so
that the same figure lives on in the published page, in Colab's saved output and in a file opened
from a disk. One ES module drives both.

A figure is two files: `_name.py` here, with the function `name` that prepares its first picture
and its numbers, and `assets/explore/name.js`, which brings them to life.
"""

import hashlib
import html
import importlib
import json
from pathlib import Path

import anywidget
import traitlets

ASSETS = Path(__file__).parents[1] / "assets/explore"
CORE = ("numbers", "activations", "networks", "learning", "page", "mount")  # in this order
STYLE = (ASSETS / "core/style.css").read_text(encoding="utf-8")

FIGURES = sorted(path.stem[1:] for path in Path(__file__).parent.glob("_[a-z]*.py"))
__all__ = ["Live", *FIGURES]


def __getattr__(name):
    """The function that makes a figure; it is imported when it is first asked for."""
    if name not in FIGURES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}._{name}"), name)


def __dir__():
    return sorted({*globals(), *__all__})


def script(*figures):
    """The ES module of live figures by name: the core, and behind it each figure.

    A figure stands in a block of its own: it can use the core, and nothing of another figure.
    """
    core = "\n".join((ASSETS / f"core/{name}.js").read_text(encoding="utf-8") for name in CORE)
    blocks = {name: (ASSETS / f"{name}.js").read_text(encoding="utf-8") for name in figures}
    parts = [f"/* figure: {name} */\n{{\n{block}}}\n" for name, block in blocks.items()]
    return "".join([f"/* explore.js */\n{core}", *parts])


class Live(anywidget.AnyWidget):
    """A live figure. `state` is what the reader has set, for example `{"z": [0.0, 1.2], ...}`.

    Reading it gives the present state, assigning to it moves the figure. `spec` and `html` are
    what the figure's script draws from, `label` names the figure to a screen reader.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode(STYLE).tag(sync=True)
    spec = traitlets.Dict().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, figure, label, html, spec, state):
        super().__init__(
            _esm=script(figure), label=f"Live figure: {label}", html=html, state=state,
            spec={"figure": figure} | spec,
        )  # fmt: skip

    def __repr__(self):
        return f"<{self.label[0].lower()}{self.label[1:]}>"

    def page(self):
        """The figure as one self-contained piece of HTML."""
        spec = json.dumps(
            self.spec | {"state": self.state}, separators=(",", ":"), ensure_ascii=False
        )
        name = hashlib.sha256((self.html + spec).encode()).hexdigest()[:8]
        data = spec.replace("</", "<\\/")  # nothing in it may end the script element
        return (
            f'<div class="gencore-live" id="live-{name}" data-figure="{self.spec["figure"]}" '
            f'role="group" aria-label="{html.escape(self.label)}">\n<style>\n{self._css}</style>\n'
            f'{self.html}\n<script type="application/json">{data}</script>\n'
            f'<script type="module">{self._esm}</script>\n</div>'
        )

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        parts, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**parts, "text/plain": repr(self), "text/html": self.page()}, metadata
