"""Live figures compute what PyTorch computes, fast, and answer to mouse, keys and touch."""

import html
import json
import re

import numpy as np
import pytest
import refresh_figures
import torch
from notebook_files import ROOT, notebooks, read
from small_networks import NETWORKS, network

from gencore import embed, explore, runs

MAX, MEAN = 2e-2, 2e-3  # how far a picture in [0, 1] may be from PyTorch's
LARGEST, SMALLEST = 16, 8  # milliseconds for a decode: the largest decoder, and one of 2-D codes


def specs():
    """{(chapter, figure name): spec} of every committed live figure."""
    found = {}
    for path in notebooks():
        notebook = read(path)
        for cell in notebook["cells"]:
            for data in refresh_figures.live_outputs({"cells": [cell]}):
                script = re.search(
                    r'<script type="application/json">(.*?)</script>', "".join(data["text/html"]), re.S
                )
                name = cell["metadata"]["mystnb"]["figure"]["name"]
                found[path.stem, name] = json.loads(script[1])
    return found


SPECS = specs()


def networks(kind):
    """{run: network} of all live figures."""
    models = [m for spec in SPECS.values() for m in spec.get("models", [spec])]
    return {m["run"]: m[kind] for m in models if kind in m}


@pytest.fixture(scope="module")
def module(chromium, serve, tmp_path_factory):
    """A page that has only imported explore.js: `module(js, argument)` evaluates with it."""
    folder = tmp_path_factory.mktemp("module")
    (folder / "explore.js").write_text(explore.Live._esm, encoding="utf-8")
    (folder / "index.html").write_text("<!doctype html><title>module</title>", encoding="utf-8")
    page = chromium.new_page()
    page.goto(serve(folder) + "index.html")
    page.evaluate("import('./explore.js').then(module => { window.module = module })")
    yield lambda js, argument: page.evaluate(js, argument)
    page.close()


RUN = """([spec, inputs]) => {
  const net = module.network(spec)
  return inputs.map(x => Array.from(net(x).data))
}"""


def in_the_browser(module, spec, inputs):
    return np.array(module(RUN, [spec, np.asarray(inputs, float).reshape(len(inputs), -1).tolist()]))


def close(found, wanted):
    assert found.shape == tuple(wanted.flatten(1).shape)
    error = np.abs(found - wanted.flatten(1).numpy())
    assert error.max() < MAX and error.mean() < MEAN, (error.max(), error.mean())


# ---------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_each_layer_is_pytorchs(module, name):
    layers, shape = network(name)
    x = torch.randn(100, *shape, generator=torch.Generator().manual_seed(1))
    close(in_the_browser(module, embed.network(layers, shape, sigmoid=True), x), layers(x).sigmoid())


@torch.no_grad()
def test_a_wrong_stride_or_weight_would_be_seen(module):
    layers, shape = network("transposed conv")
    x = torch.randn(100, *shape)
    wanted = layers(x).sigmoid()
    for change in ({"bias": embed.packed(np.zeros(2))}, {"padding": 0}, {"op": "conv"}):
        spec = embed.network(layers, shape, sigmoid=True)
        spec["layers"][1] |= change
        with pytest.raises(AssertionError):
            close(in_the_browser(module, spec, x), wanted)


@pytest.mark.parametrize("run", networks("decoder"))
@torch.no_grad()
def test_each_shipped_decoder_is_pytorchs(module, run):
    model = runs.get(run).model
    z = torch.randn(100, model.latent_dim, generator=torch.Generator().manual_seed(0))
    close(in_the_browser(module, networks("decoder")[run], z), model.decode(z))


@pytest.mark.parametrize("run", networks("encoder"))
@torch.no_grad()
def test_each_shipped_encoder_is_pytorchs(module, run, mini):
    model = runs.get(run).model
    x = mini.images[:100] / 255
    found = in_the_browser(module, networks("encoder")[run], x)  # its big layer has 8 bits a weight
    wanted = torch.cat(model.encode(x), 1).numpy()
    assert np.abs(found - wanted).mean() < 0.02 * wanted.std(0).mean()
    mu, codes = (torch.tensor(part[:, : model.latent_dim], dtype=torch.float32) for part in (wanted, found))
    assert (model.decode(codes) - model.decode(mu)).abs().mean() < MEAN


@pytest.mark.parametrize("run", networks("decoder"))
def test_a_decode_is_quick(module, run):
    spec, dim = networks("decoder")[run], runs.get(run).model.latent_dim
    took = """([spec, dim]) => {
      const net = module.network(spec), times = []
      for (let i = 0; i < 60; i++) {
        const z = Array.from({length: dim}, () => 2 * Math.random() - 1), began = performance.now()
        net(z)
        times.push(performance.now() - began)
      }
      return times.slice(20).sort((a, b) => a - b)[20]
    }"""
    assert module(took, [spec, dim]) < (SMALLEST if dim == 2 else LARGEST)


def test_half_precision_numbers_are_read_exactly(module):
    bits = np.arange(65536, dtype=np.uint16).view(np.float16)
    bits = bits[np.isfinite(bits)]
    found = module("packed => Array.from(module.unpack(packed))", embed.packed(bits))
    np.testing.assert_array_equal(np.array(found), bits.astype(float))


def test_eight_bit_numbers_are_read_exactly(module):
    packed = embed.packed(np.random.default_rng(0).normal(size=(5, 33)), row=33)
    found = module("packed => Array.from(module.unpack(packed))", packed)
    steps = np.frombuffer(embed.raw(packed["i8"]), np.int8).reshape(5, 33)
    scale = np.frombuffer(embed.raw(packed["scale"]["f16"]), "<f2").astype(float)
    np.testing.assert_allclose(np.array(found).reshape(5, 33), steps * scale[:, None], rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_arc_is_that_of_the_sphere(module, t):
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    la, lb = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos(a @ b / la / lb)
    wanted = (np.sin((1 - t) * angle) * a / la + np.sin(t * angle) * b / lb) / np.sin(angle)
    found = module("([a, b, t]) => Array.from(module.turn(a, b, t))", [a.tolist(), b.tolist(), t])
    np.testing.assert_allclose(found, wanted * ((1 - t) * la + t * lb), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- the hand

SHOWN = """name => [...document.querySelectorAll(`#${name} canvas, #${name} .reading, #${name} .marker`)]
  .map(n => n.localName === 'canvas' ? n.toDataURL() : n.textContent + n.style.left).join('|')"""
READY = "name => document.getElementById(name)?.dataset.mounted !== undefined && " \
        "document.querySelector(`#${name} .reading`).textContent"  # fmt: skip


class Hand:
    """One live figure on a page, and what a reader does to it."""

    def __init__(self, tab, chapter, figure, **options):
        self.tab = tab(**options).open(f"notebooks/{chapter}.html")
        self.page = self.tab.page
        self.name = self.page.evaluate(
            "kind => [...document.querySelectorAll('.gencore-live')].find(n => n.dataset.figure === kind).id",
            figure,
        )
        self.node = self.page.locator(f"#{self.name}")
        self.node.scroll_into_view_if_needed()
        self.page.wait_for_function(READY, arg=self.name)

    def changes(self, act):
        """Whether the picture is another one after `act`."""
        before = self.page.evaluate(SHOWN, self.name)
        act()
        try:
            self.page.wait_for_function(f"([name, before]) => ({SHOWN})(name) !== before",
                                        arg=[self.name, before], timeout=3000)  # fmt: skip
        except Exception:
            return False
        return True

    def box(self, selector):
        place = self.node.locator(selector).first
        place.scroll_into_view_if_needed()
        return place.bounding_box()

    def drag(self, selector, start=(0.3, 0.5), end=(0.7, 0.4)):
        box = self.box(selector)
        at = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in (start, end)]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        self.page.mouse.move(*at[1], steps=5)
        self.page.mouse.up()

    def touch(self, selector, start=(0.3, 0.5), end=(0.7, 0.6)):
        """A finger that is put down, moved and lifted."""
        box = self.box(selector)
        finger = self.page.context.new_cdp_session(self.page)
        for kind, (u, v) in (("touchStart", start), ("touchMove", end), ("touchEnd", end)):
            point = {"x": box["x"] + u * box["width"], "y": box["y"] + v * box["height"]}
            points = [] if kind == "touchEnd" else [point]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def key(self, selector, *keys):
        self.node.locator(selector).first.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def value(self, selector="input[type=range]"):
        return self.node.locator(selector).first.input_value()


def values(hand):
    """What the sliders of a figure are at."""
    return hand.node.locator("input[type=range]").evaluate_all("all => all.map(n => Number(n.value))")


def pixels(hand, name):
    """Red of every pixel of a canvas, row by row."""
    js = """([figure, name]) => {
      const node = document.querySelector(`#${figure} [data-name="${name}"] canvas`)
      const all = node.getContext('2d').getImageData(0, 0, node.width, node.height).data
      return [node.height, Array.from(all).filter((_, i) => i % 4 === 0)]
    }"""
    height, red = hand.page.evaluate(js, [hand.name, name])
    return np.array(red).reshape(height, -1)


def spec_of(figure, chapter=None):
    return next(s for (c, _), s in SPECS.items() if s["figure"] == figure and chapter in (None, c))


WHERE = {spec["figure"]: chapter for (chapter, _), spec in SPECS.items()}
PLACES = {  # of each figure: what a mouse or a finger takes hold of, and what keys move
    "latent": (".plane canvas", "input[type=range]", ("ArrowRight", "ArrowRight")),
    "interpolate": ("input[type=range]", "input[type=range]", ("ArrowLeft", "ArrowLeft")),
    "training": ("input[type=range]", "input[type=range]", ("ArrowLeft", "ArrowLeft")),
    "draw": (".pad canvas", ".pad canvas", (" ", "ArrowRight", "ArrowDown", "ArrowDown")),
}


def test_every_kind_of_figure_is_in_the_book():
    assert set(WHERE) == set(PLACES)


@pytest.mark.parametrize("figure", PLACES)
def test_mouse_and_keys_change_the_picture(tab, figure):
    hand = Hand(tab, WHERE[figure], figure)
    held, keyed, keys = PLACES[figure]
    assert not hand.changes(lambda: None), "it changes by itself"
    assert hand.changes(lambda: hand.drag(held))
    assert hand.changes(lambda: hand.key(keyed, *keys))
    assert not hand.tab.trouble()


@pytest.mark.parametrize("figure", PLACES)
def test_touch_changes_the_picture(tab, figure):
    hand = Hand(tab, WHERE[figure], figure, width=375, mode="dark", has_touch=True, is_mobile=True)
    assert hand.changes(lambda: hand.touch(PLACES[figure][0]))
    assert not hand.tab.trouble()


@pytest.mark.parametrize("figure", PLACES)
def test_every_control_does_something(tab, figure):
    hand = Hand(tab, WHERE[figure], figure)
    for i in range(hand.node.locator("button").count()):
        button = hand.node.locator("button").nth(i)
        if button.inner_text() == "Clear":
            hand.drag(PLACES[figure][0])
        assert hand.changes(button.click), button.inner_text()
    for i in range(hand.node.locator("select").count()):
        assert hand.changes(lambda i=i: hand.node.locator("select").nth(i).select_option("3"))
    for i in range(hand.node.locator("input[type=radio]").count() - 1, -1, -1):
        assert hand.changes(lambda i=i: hand.node.locator("input[type=radio]").nth(i).check())


def test_the_plane_goes_where_the_finger_is(tab):
    hand = Hand(tab, WHERE["latent"], "latent")
    hand.drag(".plane canvas", end=(0.75, 0.125))  # to the right, and further up
    spec = next(s for (c, _), s in SPECS.items() if c == WHERE["latent"] and s["figure"] == "latent")
    model = spec["models"][0]
    hand.page.wait_for_timeout(100)
    wanted = [model["middle"][a] + share * model["reach"] for a, share in zip(model["axes"], (0.5, 0.75))]
    assert [values(hand)[a] for a in model["axes"]] == pytest.approx(wanted, abs=0.1)


def test_a_figure_says_what_it_shows(tab):
    hand = Hand(tab, WHERE["latent"], "latent")
    slider = hand.node.locator("input[type=range]").first
    hand.key("input[type=range]", "Home")
    hand.page.wait_for_timeout(400)
    assert slider.get_attribute("aria-valuetext") in hand.node.locator("[role=status]").inner_text()
    labels = hand.node.locator("canvas").evaluate_all("all => all.map(n => n.getAttribute('aria-label'))")
    assert len(set(labels)) == len(labels) and all(len(label) > 10 for label in labels)


def test_a_film_plays_only_where_motion_is_welcome(tab):
    hand = Hand(tab, WHERE["training"], "training")
    hand.key("input[type=range]", "Home")
    assert hand.changes(lambda: hand.node.get_by_role("button", name="Play").click())
    hand.node.get_by_role("button", name="Pause").click()
    still = Hand(tab, WHERE["training"], "training", reduced_motion="reduce")
    assert still.node.locator("button").count() == 0
    assert still.changes(lambda: still.key("input[type=range]", "Home"))


def test_a_figure_follows_the_theme(tab):
    hand = Hand(tab, WHERE["latent"], "latent")
    colour = "name => getComputedStyle(document.getElementById(name)).color"
    light = hand.page.evaluate(colour, hand.name)
    assert hand.changes(lambda: hand.page.evaluate("document.documentElement.dataset.theme = 'dark'"))
    assert hand.page.evaluate(colour, hand.name) != light


def test_an_empty_drawing_is_no_number_that_breaks(tab):
    hand = Hand(tab, WHERE["draw"], "draw")
    hand.node.get_by_role("button", name="Clear").click()
    hand.page.wait_for_timeout(300)
    assert "NaN" not in hand.node.inner_text() and not hand.tab.trouble()


def test_a_drawing_is_centred_as_mnist_is(tab):
    hand = Hand(tab, WHERE["draw"], "draw")
    hand.drag(".pad canvas", start=(0.1, 0.1), end=(0.12, 0.4))
    hand.page.wait_for_timeout(300)
    grey = """name => {
      const node = document.querySelector(`#${name} [data-name=seen] canvas`)
      return Array.from(node.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)
    }"""
    seen = np.array(hand.page.evaluate(grey, hand.name), float).reshape(28, 28)
    centre = [(seen.sum(axis) * np.arange(28)).sum() / seen.sum() for axis in (0, 1)]
    assert centre == pytest.approx([13.5, 13.5], abs=0.6)
    rows = np.flatnonzero(seen.max(1) > 40)
    assert 18 <= rows[-1] - rows[0] + 1 <= 22


def test_the_assets_are_those_of_the_package():
    css, js = refresh_figures.assets(ROOT)
    assert (css, js) == (explore.Live._css, explore.Live._esm)


def test_a_figure_whose_data_do_not_come_says_so(tab):
    chapter = WHERE["latent"]
    page = tab().page
    page.route("**/_live/*.js", lambda route: route.abort())
    page.goto(tab().address + f"notebooks/{chapter}.html")
    node = page.locator(".gencore-live[data-figure=latent]").first
    node.scroll_into_view_if_needed()
    node.get_by_text("could not be loaded").wait_for()
    assert node.locator(".stage img").count() == 4  # the first frame stays


@pytest.mark.parametrize("figure", PLACES)
def test_a_notebooks_output_lives_alone_in_a_sandbox(tab, tmp_path, serve, figure):
    """As Colab shows it: in a frame of another origin, with nothing but its own HTML."""
    notebook = read(ROOT / f"notebooks/{WHERE[figure]}.ipynb")
    outputs = ["".join(data["text/html"]) for data in refresh_figures.live_outputs(notebook)]
    output = next(page for page in outputs if f'data-figure="{figure}"' in page)
    frame = f'<iframe sandbox="allow-scripts" width="700" height="700" srcdoc="{html.escape(output)}"></iframe>'
    (tmp_path / "index.html").write_text(f"<!doctype html><link rel=icon href='data:,'><title>out</title>{frame}", encoding="utf-8")
    opened = tab(folder=tmp_path, address=serve(tmp_path)).open("index.html", maths=0)
    inside = opened.page.frame_locator("iframe")
    inside.locator(".gencore-live[data-mounted] .reading:not(:empty)").wait_for()
    assert inside.locator("canvas").count() >= 1
    assert not opened.trouble()


def test_the_canvas_shows_the_pixels_as_python_does(tab):
    """The test image, byte for byte, after the figure has painted it."""
    hand = Hand(tab, WHERE["latent"], "latent")
    grey = """name => {
      const node = document.querySelector(`#${name} [data-name=x] canvas`)
      return Array.from(node.getContext('2d').getImageData(0, 0, 28, 28).data).filter((_, i) => i % 4 === 0)
    }"""
    spec = next(s for (c, _), s in SPECS.items() if c == WHERE["latent"] and s["figure"] == "latent")
    wanted = np.frombuffer(embed.raw(spec["examples"]["u8"]), np.uint8)[:784]
    np.testing.assert_array_equal(np.array(hand.page.evaluate(grey, hand.name)), wanted)


@pytest.mark.parametrize("chapter", sorted({c for (c, _), s in SPECS.items() if s["figure"] == "latent"}))
def test_draws_come_from_the_density_that_the_button_names(tab, chapter):
    hand, model = Hand(tab, chapter, "latent"), spec_of("latent", chapter)["models"][0]
    hand.page.evaluate("Math.random = () => 0.9")
    e = np.sqrt(-2 * np.log(0.1)) * np.cos(1.8 * np.pi)  # what every N(0, 1) then is
    assert hand.changes(hand.node.locator("button").first.click)
    wanted = np.full(2, e)
    if "spread" in model:
        wanted = np.array(model["centre"]) + np.reshape(model["spread"], (2, 2)) @ wanted
    assert values(hand) == pytest.approx(wanted, abs=0.06)


@torch.no_grad()
def test_a_test_images_code_decodes_to_its_reconstruction_and_is_near_its_like(tab):
    chapter = WHERE["latent"]
    hand, spec = Hand(tab, chapter, "latent"), spec_of("latent", chapter)
    model = spec["models"][0]
    codes = np.frombuffer(embed.raw(model["codes"]["i8"]), np.int8).astype(float).reshape(-1, model["dim"])
    codes *= np.frombuffer(embed.raw(model["codes"]["scale"]["f16"]), "<f2").astype(float)
    labels = np.frombuffer(embed.raw(model["labels"]["u8"]), np.uint8)
    means = np.frombuffer(embed.raw(model["means"]["f16"]), "<f2").astype(float).reshape(-1, model["dim"])
    for k in (1, 2, 3):
        hand.node.get_by_role("button", name="Next test image").click()
        hand.page.wait_for_timeout(80)
        hand.node.get_by_role("button", name="Go to its code").click()
        hand.page.wait_for_timeout(400)
        np.testing.assert_array_equal(pixels(hand, "z"), pixels(hand, "rec"))
        near = spec["names"][labels[np.square(codes - means[k]).sum(1).argmin()]]
        assert f"Nearest test image: {near}." in hand.node.locator("[role=status]").inner_text()


def test_paths_are_named_rightly(tab):
    hand, spec = Hand(tab, WHERE["interpolate"], "interpolate"), spec_of("interpolate")
    means = np.frombuffer(embed.raw(spec["means"]["f16"]), "<f2").astype(float).reshape(-1, spec["dim"])
    a, b = (means[spec["state"][key]] for key in "ab")
    line, arc = np.linalg.norm((a + b) / 2), (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    said = hand.node.locator("[role=status]").inner_text()
    assert f"{line:.2f} on the straight line, {arc:.2f} on the sphere" in said
    decode = runs.get(spec["run"]).model.decode
    with torch.no_grad():
        image = 255 * decode(torch.tensor((a + b)[None] / 2, dtype=torch.float32))[0, 0].numpy()
    assert np.abs(pixels(hand, "line") - image).max() < 2


def test_a_film_shows_the_frame_of_its_step(tab):
    hand, spec = Hand(tab, WHERE["training"], "training"), spec_of("training", WHERE["training"])
    hand.key("input[type=range]", "Home", *["ArrowRight"] * 9)
    hand.page.wait_for_timeout(300)
    film = runs.get(spec["run"]).film["images"][9].numpy()  # (16, C, H, W)
    board, (_, high, wide) = pixels(hand, "samples"), spec["shape"]
    for k in range(spec["count"]):
        y, x = k // spec["columns"] * (high + 1), k % spec["columns"] * (wide + 1)
        np.testing.assert_array_equal(board[y : y + high, x : x + wide], film[k, 0])


@torch.no_grad()
def test_a_drawn_posterior_is_the_encoders(tab):
    hand, spec = Hand(tab, WHERE["draw"], "draw"), spec_of("draw")
    x = torch.tensor(spec["state"]["pixels"]).view(1, 1, 28, 28) / 255
    for m in spec["models"]:
        mu, logvar = (part[0].numpy() for part in runs.get(m["run"]).model.encode(x))
        label = hand.node.locator(f"[data-name=code-{m['dim']}] canvas").get_attribute("aria-label")
        said = [float(v) for v in re.findall(r"−?\d+\.\d", label.replace("±", " ")) for v in [v.replace("−", "-")]]
        wanted = np.stack([mu, 2 * np.exp(logvar / 2)], 1).ravel()
        assert said == pytest.approx(wanted, abs=0.15)


def test_the_widgets_face_speaks_with_its_model(module):
    """anywidget's side of the module, with a model that remembers as the real one does."""
    spec = spec_of("interpolate")
    page = refresh_figures.live_outputs(read(ROOT / f"notebooks/{WHERE['interpolate']}.ipynb"))
    output = next(p for d in page if 'data-figure="interpolate"' in (p := "".join(d["text/html"])))
    stage = output[output.index('<div class="stage"') : output.index("<script")]
    talk = """async ([spec, html]) => {
      const traits = {spec, html, label: "A figure", state: spec.state}, heard = [], saved = []
      const model = {get: k => traits[k], on: (name, f) => heard.push([name, f]),
        set: (k, v) => { traits[k] = v }, save_changes: () => saved.push(traits.state)}
      const el = document.body.appendChild(document.createElement("div"))
      module.default.render({model, el})
      const frame = () => new Promise(done => setTimeout(done, 200))
      const picture = () => el.querySelector("[data-name=line] canvas").toDataURL(), pictures = [picture()]
      const slider = el.querySelector("input[type=range]")
      slider.value = 0.2
      slider.dispatchEvent(new Event("input"))
      await frame()
      pictures.push(picture())
      traits.state = {...traits.state, t: 0.9}
      for (const [name, f] of heard) if (name === "change:state") f()
      await frame()
      pictures.push(picture())
      return {saved, pictures, slider: slider.value, label: el.firstChild.getAttribute("aria-label")}
    }"""
    told = module(talk, [spec, stage])
    assert told["saved"] == [spec["state"] | {"t": 0.2}]
    assert len(set(told["pictures"])) == 3 and float(told["slider"]) == 0.9 and told["label"] == "A figure"
