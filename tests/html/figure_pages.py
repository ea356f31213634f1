"""Live figures on pages of their own, without the book around them, and a hand that moves them."""

import base64
import io

import browser
import numpy as np
import pytest
from PIL import Image

from gencore import explore


@pytest.fixture(scope="module")
def module(chromium, serve, tmp_path_factory):
    """A page that has only imported the script of all figures: `module(js, argument)` evaluates with it."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "explore.js").write_text(explore.script(*explore.FIGURES), encoding="utf-8")
    (folder / "index.html").write_text("<!doctype html><title>module</title>", encoding="utf-8")
    page = chromium.new_page()
    page.goto(serve(folder) + "index.html")
    page.evaluate("import('./explore.js').then(module => { window.module = module })")
    yield lambda js, argument=None: page.evaluate(js, argument)
    page.close()


PAGE = '<!doctype html><html lang=en><link rel=icon href="data:,"><title>figure</title><main><h1>One</h1>{}'
SHOWN = """name => [...document.querySelectorAll(`#${name} canvas, #${name} .reading, #${name} .marker`)]
  .map(n => n.localName === 'canvas' ? n.toDataURL() : n.textContent + n.style.left).join('|')"""
READY = "name => document.getElementById(name)?.dataset.mounted !== undefined && " \
        "document.querySelector(`#${name} .reading`).textContent"  # fmt: skip
PIXELS = """([figure, name]) =>
  document.querySelector(`#${figure} [data-name="${name}"] canvas`).toDataURL()"""


class Hand:
    """One live figure on a page, and what a reader does to it."""

    def __init__(self, tab, live):
        self.tab, self.live = tab, live
        tab.page.clock.install()  # time passes when a test says so
        self.page = tab.open("index.html", maths=0).page
        self.name = self.page.locator(".gencore-live").get_attribute("id")
        self.node = self.page.locator(f"#{self.name}")
        self.page.wait_for_function(READY, arg=self.name)

    def wait(self, milliseconds=400):
        """Let time pass: 16 ms are a frame, 150 the time until words are said, 350 a snapshot's."""
        self.page.clock.run_for(milliseconds)

    def shown(self):
        """Everything that a reader sees of it."""
        return self.page.evaluate(SHOWN, self.name)

    def changes(self, act):
        """Whether the picture is another one after `act`."""
        before = self.shown()
        act()
        self.wait()
        return self.shown() != before

    def drag(self, selector, *path):
        """Press at the first place (0 to 1 from the left and the top), move over the others, let go."""
        box = self.node.locator(selector).first.bounding_box()
        at = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in path]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for place in at[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up()
        self.wait()

    def touch(self, selector, start=(0.3, 0.5), end=(0.7, 0.6)):
        """A finger that is put down, moved and lifted."""
        box = self.node.locator(selector).first.bounding_box()
        finger = self.page.context.new_cdp_session(self.page)
        for kind, (u, v) in (("touchStart", start), ("touchMove", end), ("touchEnd", end)):
            point = {"x": box["x"] + u * box["width"], "y": box["y"] + v * box["height"]}
            points = [] if kind == "touchEnd" else [point]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        self.wait()

    def press(self, name):
        """Click a button."""
        self.node.get_by_role("button", name=name).click()
        self.wait()

    def key(self, selector, *keys):
        """Press keys on an element."""
        self.node.locator(selector).first.focus()
        for key in keys:
            self.page.keyboard.press(key)
        self.wait()

    def values(self):
        """What the sliders are at."""
        return self.node.locator("input[type=range]").evaluate_all(
            "all => all.map(n => Number(n.value))"
        )

    def said(self):
        """The line of words under the figure."""
        return self.node.locator("[role=status]").inner_text()

    def label(self, name):
        """What a screen reader says of a canvas."""
        return self.node.locator(f"[data-name={name}] canvas").get_attribute("aria-label")

    def pixels(self, name):
        """Red, green and blue of a canvas: (H, W, 3)."""
        png = base64.b64decode(self.page.evaluate(PIXELS, [self.name, name]).partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def tab_of(chromium, serve, tmp_path):
    """`tab_of(html, width, mode, ...)`: a Tab on a page with this HTML, not yet opened."""
    contexts = []

    def new(html, width=900, mode="light", **options):
        folder = tmp_path / str(len(contexts))
        folder.mkdir()
        (folder / "index.html").write_text(PAGE.format(html), encoding="utf-8")
        size = {"width": width, "height": 1000}
        contexts.append(chromium.new_context(viewport=size, color_scheme=mode, **options))
        return browser.Tab(contexts[-1], folder, serve(folder))

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def hand(tab_of):
    """`hand(live, width, mode, ...)`: a Hand on the figure."""
    return lambda live, *arguments, **options: Hand(
        tab_of(live.page(), *arguments, **options), live
    )
