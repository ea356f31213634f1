"""Live figures show what Python says and answer to mouse, keys and touch; the book's are PyTorch's.

Most tests make a figure of a small random run, on a page of its own. Those of the committed
notebooks compare the networks inside with the published runs.
"""

import html
import io
import json
import re

import live
import numpy as np
import pytest
import refresh_figures
import torch
from notebook_files import notebooks, read
from PIL import Image
from small_networks import NETWORKS, Model, images, network, run, trained

from gencore import embed, explore, runs

pytest_plugins = ("figure_pages",)  # its fixtures

MAX, MEAN = 2e-2, 2e-3  # how far a picture in [0, 1] may be from PyTorch's
SLOWER = 6  # how much longer a decode may take than a plain loop of as many products


def specs():
    """{(chapter, figure name): spec} of every committed live figure."""
    found = {}
    for path in notebooks():
        for cell in read(path)["cells"]:
            for output in refresh_figures.live_outputs({"cells": [cell]}):
                script = re.search(
                    r'<script type="application/json">(.*?)</script>',
                    "".join(output["text/html"]),
                    re.S,
                )
                name = cell["metadata"]["mystnb"]["figure"]["name"]
                found[path.stem, name] = json.loads(script[1])
    return found


SPECS = specs()


def networks(kind):
    """{run: network} of all live figures."""
    models = [m for spec in SPECS.values() for m in spec.get("models", [spec])]
    return {m["run"]: m[kind] for m in models if kind in m}


RUN = """([spec, inputs]) => {
  const net = module.network(spec)
  return inputs.map(x => Array.from(net(x).data))
}"""


def in_the_browser(module, spec, inputs):
    return np.array(
        module(RUN, [spec, np.asarray(inputs, float).reshape(len(inputs), -1).tolist()])
    )


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
    close(
        in_the_browser(module, embed.network(layers, shape, sigmoid=True), x), layers(x).sigmoid()
    )


@pytest.mark.parametrize("name", ["linear", "strided conv", "transposed conv", "shapes"])
@torch.no_grad()
def test_several_examples_at_once_are_as_one_by_one(module, name):
    layers, shape = network(name)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    spec = embed.network(layers, shape)
    found = np.array(
        module(
            "([spec, x]) => Array.from(module.network(spec)(x).data)", [spec, x.flatten().tolist()]
        )
    )
    np.testing.assert_array_equal(found.reshape(5, -1), in_the_browser(module, spec, x))


@torch.no_grad()
def test_a_wrong_stride_or_weight_would_be_seen(module):
    layers, shape = network("transposed conv")
    x = torch.randn(100, *shape)
    wanted = layers(x).sigmoid()
    for change in ({"bias": embed.encode_array(np.zeros(2))}, {"padding": 0}, {"op": "conv"}):
        spec = embed.network(layers, shape, sigmoid=True)
        spec["layers"][1] |= change
        with pytest.raises(AssertionError):
            close(in_the_browser(module, spec, x), wanted)


@pytest.mark.parametrize("name", networks("decoder"))
@torch.no_grad()
def test_each_shipped_decoder_is_pytorchs(module, name):
    model = runs.get(name).model
    z = torch.randn(100, model.latent_dim, generator=torch.Generator().manual_seed(0))
    close(in_the_browser(module, networks("decoder")[name], z), model.decode(z))


@pytest.mark.parametrize("name", networks("encoder"))
@torch.no_grad()
def test_each_shipped_encoder_is_pytorchs(module, name, mini):
    model = runs.get(name).model
    x = mini.images[:100] / 255
    found = in_the_browser(
        module, networks("encoder")[name], x
    )  # its big layer has 8 bits a weight
    wanted = torch.cat(model.encode(x), 1).numpy()
    assert np.abs(found - wanted).mean() < 0.02 * wanted.std(0).mean()
    mu, codes = (
        torch.tensor(part[:, : model.latent_dim], dtype=torch.float32) for part in (wanted, found)
    )
    assert (model.decode(codes) - model.decode(mu)).abs().mean() < MEAN


@pytest.mark.parametrize("name", networks("decoder"))
def test_a_decode_is_quick(module, name):
    """Against a plain loop of as many multiplications: a busy machine slows both down alike."""
    model = runs.get(name).model
    count, shape = 0, (model.latent_dim,)
    for layer in embed._flat(model.decoder):
        out = tuple(layer(torch.zeros(1, *shape)).shape[1:])
        if isinstance(layer, torch.nn.ConvTranspose2d):
            count += layer.weight[0].numel() * int(np.prod(shape))
        elif isinstance(layer, torch.nn.Linear):
            count += layer.weight.numel()
        shape = out
    js = """([spec, dim, count]) => {
      const net = module.network(spec), a = new Float32Array(4096).fill(0.5), least = [Infinity, Infinity]
      const plain = () => {
        let sum = 0
        for (let i = 0; i < count; i++) sum += a[i & 4095] * a[(i * 7) & 4095]
        return sum
      }
      const decode = () => net(Array.from({length: dim}, () => 2 * Math.random() - 1))
      for (let i = 0; i < 60; i++) [plain, decode].forEach((act, k) => {
        const began = performance.now()
        act()
        least[k] = Math.min(least[k], performance.now() - began)
      })
      return least
    }"""
    plain, decode = module(js, [networks("decoder")[name], model.latent_dim, count])
    assert decode < SLOWER * max(plain, 0.2), (decode, plain)


def test_half_precision_numbers_are_read_exactly(module):
    bits = np.arange(65536, dtype=np.uint16).view(np.float16)
    bits = bits[np.isfinite(bits)]
    found = module("packed => Array.from(module.unpack(packed))", embed.encode_array(bits))
    np.testing.assert_array_equal(np.array(found), bits.astype(float))


def test_eight_bit_numbers_are_read_exactly(module):
    encoded = embed.encode_array(np.random.default_rng(0).normal(size=(5, 33)), row=33)
    found = module("packed => Array.from(module.unpack(packed))", encoded)
    steps = np.frombuffer(embed.raw(encoded["i8"]), np.int8).reshape(5, 33)
    scale = np.frombuffer(embed.raw(encoded["scale"]["f16"]), "<f2").astype(float)
    np.testing.assert_allclose(np.array(found).reshape(5, 33), steps * scale[:, None], rtol=1e-6)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_arc_is_that_of_the_sphere(module, t):
    a, b = np.random.default_rng(0).normal(size=(2, 10))
    la, lb = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos(a @ b / la / lb)
    wanted = (np.sin((1 - t) * angle) * a / la + np.sin(t * angle) * b / lb) / np.sin(angle)
    found = module("([a, b, t]) => Array.from(module.turn(a, b, t))", [a.tolist(), b.tolist(), t])
    np.testing.assert_allclose(found, wanted * ((1 - t) * la + t * lb), rtol=1e-4, atol=1e-5)


def test_an_arc_between_equal_or_opposite_codes_is_a_number(module):
    """The cosine of an angle is rounded, and may be a little more than 1."""
    for seed in range(20):
        a = np.random.default_rng(seed).normal(size=10).astype(np.float32).astype(float).tolist()
        js = "([a, sign, t]) => Array.from(module.turn(a, a.map(v => sign * v), t))"
        np.testing.assert_allclose(module(js, [a, 1, 0.5]), a, rtol=1e-3)
        assert np.isfinite(np.array(module(js, [a, -1, 0.5]), float)).all()


def test_a_straight_line_leads_from_the_first_to_the_second(module):
    js = "t => Array.from(module.mix([0, 4], [8, 0], t))"
    assert [module(js, t) for t in (0, 0.25, 1)] == [[0, 4], [2, 3], [8, 0]]


@pytest.mark.parametrize(
    "value, said",
    [(-0.001, "0.00"), (-0.0, "0.00"), (-1.5, "−1.50"), (-0.005001, "−0.01"), (12, "12.00")],
)
def test_a_number_has_a_true_minus_and_none_before_zero(module, value, said):
    assert module("value => module.text(value)", value) == said


def test_draws_from_a_seed_are_repeatable_and_normal(module):
    js = """seed => {
      const random = module.seeded(seed)
      return Array.from({length: 4000}, () => module.normal(random))
    }"""
    z, other = np.array(module(js, 1)), np.array(module(js, 2))
    np.testing.assert_array_equal(z, module(js, 1))
    assert (
        abs(z.mean()) < 0.06 and abs(z.std() - 1) < 0.04 and abs(np.corrcoef(z, other)[0, 1]) < 0.06
    )
    uniform = np.array(
        module("() => { const r = module.seeded(3); return Array.from({length: 4000}, r) }")
    )
    assert 0 <= uniform.min() < 0.01 and 0.99 < uniform.max() < 1
    assert np.abs(np.histogram(uniform, 10, (0, 1))[0] - 400).max() < 80


@pytest.mark.parametrize("channels", [1, 3])
def test_each_channel_is_painted_in_its_colour(module, channels):
    x = np.random.default_rng(0).integers(0, 256, (channels, 4, 5))
    js = """([data, shape]) => {
      const node = document.createElement('canvas')
      module.paint(node, {data, shape}, 'A label')
      return [...node.getContext('2d').getImageData(0, 0, 5, 4).data, node.getAttribute('aria-label')]
    }"""
    *found, label = module(js, [(x / 255).ravel().tolist(), list(x.shape)])
    found = np.array(found).reshape(4, 5, 4)
    np.testing.assert_array_equal(found[..., :3], np.broadcast_to(x.transpose(1, 2, 0), (4, 5, 3)))
    assert (found[..., 3] == 255).all() and label == "A label"


# ---------------------------------------------------------------- the hand

MAKE = {
    "latent": lambda: explore.latent([run(Model(2)), run(Model(3))], 40),
    "interpolate": lambda: explore.interpolate(run()),
    "training": lambda: explore.training(trained()),
    "draw": lambda: explore.draw([run(Model(2)), run(Model(3))]),
}
PLACES = {  # of each figure: what a mouse or a finger takes hold of, and what keys move
    "latent": ("[data-name=plane] canvas", "input[type=range]", ("ArrowRight", "ArrowRight")),
    "interpolate": ("input[type=range]", "input[type=range]", ("ArrowLeft", "ArrowLeft")),
    "training": ("input[type=range]", "input[type=range]", ("ArrowLeft", "ArrowLeft")),
    "draw": (
        "[data-name=pad] canvas",
        "[data-name=pad] canvas",
        (" ", "ArrowRight", "ArrowDown", "ArrowDown"),
    ),
}


def test_every_figure_is_tested():
    assert set(explore.FIGURES) == set(MAKE) == set(PLACES)


def test_the_book_shows_only_figures_that_there_are():
    assert {spec["figure"] for spec in SPECS.values()} <= set(explore.FIGURES)


@pytest.mark.parametrize("figure", explore.FIGURES)
def test_mouse_and_keys_change_the_picture(hand, figure):
    reader = hand(MAKE[figure]())
    held, keyed, keys = PLACES[figure]
    assert not reader.changes(lambda: None), "it changes by itself"
    assert reader.changes(lambda: reader.drag(held, (0.3, 0.5), (0.7, 0.4)))
    assert reader.changes(lambda: reader.key(keyed, *keys))
    assert not reader.tab.trouble()


@pytest.mark.parametrize("figure", explore.FIGURES)
def test_touch_changes_the_picture(hand, figure):
    reader = hand(MAKE[figure](), width=375, mode="dark", has_touch=True, is_mobile=True)
    assert reader.changes(lambda: reader.touch(PLACES[figure][0]))
    assert not reader.tab.trouble()


@pytest.mark.parametrize("figure", explore.FIGURES)
def test_every_control_does_something(hand, figure):
    reader = hand(MAKE[figure]())
    for i in range(reader.node.locator("button").count()):
        button = reader.node.locator("button").nth(i)
        if button.inner_text() == "Clear":
            reader.drag(PLACES[figure][0], (0.3, 0.5), (0.7, 0.4))
        assert reader.changes(button.click), button.inner_text()
    for i in range(reader.node.locator("select").count()):
        assert reader.changes(lambda i=i: reader.node.locator("select").nth(i).select_option("3"))
    for i in range(reader.node.locator("input[type=radio]").count() - 1, -1, -1):
        assert reader.changes(lambda i=i: reader.node.locator("input[type=radio]").nth(i).check())
    assert not reader.tab.trouble()


@pytest.mark.parametrize("figure", explore.FIGURES)
def test_a_figure_says_what_it_shows(hand, figure):
    reader = hand(MAKE[figure]())
    before = reader.said()
    reader.key(PLACES[figure][1], *PLACES[figure][2])
    assert reader.said() and reader.said() != before
    labels = reader.node.locator("canvas").evaluate_all("all => all.map(n => n.ariaLabel)")
    assert len(set(labels)) == len(labels) and all(len(label) > 10 for label in labels)


@pytest.mark.parametrize("figure", ["latent", "draw"])
def test_a_figure_follows_the_theme_and_the_width(hand, figure):
    reader = hand(MAKE[figure]())
    dark = "document.documentElement.dataset.theme = 'dark'"
    colour = "name => getComputedStyle(document.getElementById(name)).color"
    light = reader.page.evaluate(colour, reader.name)
    assert reader.changes(lambda: reader.page.evaluate(dark))
    assert reader.page.evaluate(colour, reader.name) != light
    before = reader.shown()
    reader.page.set_viewport_size({"width": 330, "height": 800})
    reader.page.evaluate("new Promise(done => new ResizeObserver(done).observe(document.body))")
    reader.wait()
    assert reader.shown() != before


@pytest.mark.parametrize("figure", explore.FIGURES)
def test_a_notebooks_output_lives_alone_in_a_sandbox(tab_of, figure):
    """As Colab shows it: in a frame of another origin, with nothing but its own HTML."""
    page = html.escape(MAKE[figure]().page())
    frame = f'<iframe sandbox="allow-scripts" width="700" height="700" srcdoc="{page}"></iframe>'
    tab = tab_of(frame).open("index.html", maths=0)
    inside = tab.page.frame_locator("iframe")
    inside.locator(".gencore-live[data-mounted] .reading:not(:empty)").wait_for()
    assert inside.locator("canvas").count() >= 1
    assert not tab.trouble()


def test_figures_side_by_side_with_a_script_each_are_alive_once(tab_of):
    """A notebook that is exported as it is: every output brings its own script."""
    pages = [MAKE[figure]().page() for figure in explore.FIGURES] + [
        explore.interpolate(run(Model(4))).page()
    ]
    tab = tab_of("".join(pages)).open("index.html", maths=0)
    tab.page.wait_for_function(
        "count => document.querySelectorAll('.reading:not(:empty)').length === count",
        arg=len(pages),
    )
    assert (
        tab.page.locator(".reading").count()
        == tab.page.locator(".gencore-live").count()
        == len(pages)
    )
    assert not tab.trouble()


def test_figures_that_share_one_script_are_alive(tab_of):
    """A page of the book: one style and one script with each figure that is on it once."""
    made = [MAKE[figure]().page() for figure in explore.FIGURES] + [
        explore.interpolate(run(Model(4))).page()
    ]
    shared = live.share(made)
    page = "".join(shared)
    assert page.count('type="module"') == page.count("<style>") == 1
    for figure in explore.FIGURES:
        assert page.count(f"/* figure: {figure} */") == 1
    assert explore.script(*explore.FIGURES) in page
    tab = tab_of(page).open("index.html", maths=0)
    tab.page.wait_for_function(
        "count => document.querySelectorAll('.reading:not(:empty)').length === count", arg=len(made)
    )
    assert not tab.trouble()


def test_a_figure_whose_data_do_not_come_says_so(tab_of, tmp_path):
    (tmp_path / "nowhere").mkdir()
    big = explore.latent(run(dataset=images(count=2000)), 2000).page()
    tab = tab_of(live.outside(big, tmp_path / "nowhere", "", lazy=True))
    tab.page.goto(tab.address + "index.html")
    node = tab.page.locator(".gencore-live")
    node.get_by_text("could not be loaded").wait_for()
    assert node.locator(".stage img").count() == 4  # the first frame stays


# ---------------------------------------------------------------- what they show


def ten(shape=(1, 28, 28), dim=2, **options):
    """A figure of the latent plane with ten codes."""
    return explore.latent(run(Model(dim, shape, **options), images(shape)), 10)


def test_the_plane_goes_where_the_finger_is(hand):
    reader, model = hand(live := ten()), live.spec["models"][0]
    reader.drag(
        "[data-name=plane] canvas", (0.3, 0.5), (0.75, 0.125)
    )  # to the right, and further up
    wanted = [
        middle + share * model["reach"]
        for middle, share in zip(model["middle"], (0.5, 0.75), strict=True)
    ]
    assert reader.values() == pytest.approx(wanted, abs=0.1)


def test_a_finger_that_leaves_the_plane_stays_at_its_edge(hand):
    reader, model = hand(live := ten()), live.spec["models"][0]
    reader.page.evaluate("scrollTo(0, 0)")
    js = """() => {
      const node = document.querySelector('[data-name=plane] canvas'), box = node.getBoundingClientRect()
      const at = {clientX: box.right + box.width, clientY: box.top - box.height, pointerId: 1, bubbles: true}
      node.dispatchEvent(new PointerEvent('pointerdown', {...at, clientX: box.left + 9, clientY: box.top + 9}))
      node.dispatchEvent(new PointerEvent('pointermove', at))
      node.dispatchEvent(new PointerEvent('pointerup', at))
    }"""
    reader.page.evaluate(js)
    reader.wait()
    edge = "({:.2f}, {:.2f})".format(*(m + model["reach"] for m in model["middle"]))
    assert edge in reader.said()


def ink(board, places):
    """The share of places (0 to 1 from the left and the top) of a picture that are dark, or beside it."""
    grey = board.max(2)
    at = np.clip(np.rint(np.array(places) * len(grey)).astype(int), 1, len(grey) - 2)
    return np.mean([(grey[y - 1 : y + 2, x - 1 : x + 2] < 130).any() for x, y in at])


def test_the_cross_is_drawn_under_the_finger(hand):
    reader = hand(ten())
    arm = 12 / reader.node.locator(".plane canvas").bounding_box()["width"]
    reader.drag("[data-name=plane] canvas", (0.3, 0.5), (0.8, 0.1))
    board, ends = reader.pixels("plane"), np.array([(arm, 0), (-arm, 0), (0, arm), (0, -arm)])
    assert ink(board, ends + (0.8, 0.1)) == 1 and ink(board, ends + (0.8, 0.9)) < 0.5


def test_each_code_is_drawn_at_its_place_in_the_colour_of_its_class(hand):
    live = ten()
    live.spec["models"][0]["medians"] = {}  # no words over the points
    live.spec["radii"] = []
    reader, (model,) = hand(live), live.spec["models"]
    reader.drag("[data-name=plane] canvas", (0.5, 0.5), (0.02, 0.02))  # the cross is out of the way
    steps = np.frombuffer(embed.raw(model["codes"]["i8"]), np.int8).reshape(-1, 2).astype(float)
    codes = steps * np.frombuffer(embed.raw(model["codes"]["scale"]["f16"]), "<f2").astype(float)
    labels, board = (
        np.frombuffer(embed.raw(model["labels"]["u8"]), np.uint8),
        reader.pixels("plane"),
    )
    for code, label in zip(codes, labels, strict=True):
        x, y = (
            0.5 + sign * v / (2 * model["reach"]) for sign, v in zip((1, -1), code, strict=True)
        )
        pixel = board[int(y * len(board)), int(x * len(board))]
        colour = live.spec["colours"][label]
        paper = np.array([0xFB, 0xFA, 0xF7])
        wanted = 0.75 * np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) + 0.25 * paper
        near = board[int(y * len(board)) - 2 :, int(x * len(board)) - 2 :][:5, :5].reshape(-1, 3)
        assert np.abs(near - wanted).max(1).min() < 12, (pixel, wanted)


def test_the_radii_of_the_prior_are_one_and_two(hand):
    live = ten()
    live.spec["models"][0] |= {"medians": {}, "reach": 5.0}
    reader, turns = hand(live), np.linspace(0.2, 2 * np.pi + 0.2, 90)
    reader.drag("[data-name=plane] canvas", (0.5, 0.5), (0.02, 0.02))
    board, ring = reader.pixels("plane"), 0.1 * np.stack([np.cos(turns), np.sin(turns)], 1)
    dark = {r: ink(board, 0.5 + r * ring) for r in (0.5, 1, 1.5, 2, 3, 4)}
    assert min(dark.pop(1), dark.pop(2)) > 0.4 > 0.25 > max(dark.values())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 6)])
@torch.no_grad()
def test_each_test_image_is_shown_in_turn_with_its_reconstruction(hand, shape):
    live, model, split = ten(shape), Model(2, shape), images(shape).test
    reader = hand(live)
    for k in (0, 1, 2, 3, 4, 0):  # the last one is shown, too; then it begins again
        x = split.images[[k]]
        np.testing.assert_array_equal(
            reader.pixels("x"), np.broadcast_to(x[0].permute(1, 2, 0), (*shape[1:], 3))
        )
        rec = 255 * model.decode(model.infer(x / 255))[0].permute(1, 2, 0).numpy()
        assert np.abs(reader.pixels("rec") - rec).max() < 3
        assert reader.label("x") == f"Test image: class {k}."
        reader.press("Next test image")


@pytest.mark.parametrize("fitted", [False, True])
def test_draws_come_from_the_density_that_the_button_names(hand, fitted):
    reader = hand(live := ten(fitted=fitted))
    reader.page.evaluate("Math.random = () => 0.9")
    e = np.sqrt(-2 * np.log(0.1)) * np.cos(1.8 * np.pi)  # what every N(0, 1) then is
    assert ("fitted" in live.spec["drawn"]) == fitted and (live.spec["radii"] == []) == fitted
    reader.press(live.spec["drawn"])
    wanted = np.full(2, e)
    if fitted:
        gaussian = Model(2, fitted=True).priors["gaussian"]
        wanted = gaussian.mean.numpy() + gaussian.chol.numpy() @ wanted
    assert reader.values() == pytest.approx(wanted, abs=0.06)


def test_a_test_images_code_decodes_to_its_reconstruction_and_is_near_its_like(hand):
    live = explore.latent(run(Model(3)), 40)
    reader, model = hand(live), Model(3)
    with torch.no_grad():
        codes = model.infer(images().test.images[:40] / 255).numpy()
    for k in (1, 2, 3):
        reader.press("Next test image")
        reader.press("Go to its code")
        np.testing.assert_array_equal(reader.pixels("z"), reader.pixels("rec"))
        near = np.square(codes - codes[k]).sum(1).argmin() % 5
        assert f"Nearest test image: class {near}." in reader.said()
        length = f"length {np.linalg.norm(codes[k]):.2f}"
        assert length[:-1] in reader.said()


def test_another_model_is_shown_with_its_own_numbers(hand):
    reader = hand(MAKE["latent"]())
    assert len(reader.values()) == 2
    reader.node.get_by_label("3", exact=True).check()
    reader.wait()
    assert len(reader.values()) == 3 and "Its reconstruction with 3 latents." == reader.label("rec")


@torch.no_grad()
def test_each_path_begins_at_the_first_image_and_ends_at_the_second(hand):
    live, model, split = explore.interpolate(run()), Model(3), images().test
    reader, (xa, xb) = hand(live), split.images[[0, 4]].float() / 255
    za, zb = (model.infer(x[None]) for x in (xa, xb))
    for key, name, x in (("from", "class 0", xa), ("to", "class 4", xb)):
        np.testing.assert_array_equal(reader.pixels(key)[..., 0], (255 * x[0]).round())
        assert reader.label(key) == f"Test image: {name}."
    reader.key("input[type=range]", "Home", *["ArrowRight"] * 10)  # t = 0.2
    assert reader.values() == [0.2]
    assert (
        np.abs(reader.pixels("pixels")[..., 0] - 255 * (0.8 * xa + 0.2 * xb)[0].numpy()).max() < 1.5
    )
    line = model.decode(0.8 * za + 0.2 * zb)[0, 0].numpy()
    assert np.abs(reader.pixels("line")[..., 0] - 255 * line).max() < 3
    reader.key("input[type=range]", "End")
    np.testing.assert_array_equal(reader.pixels("pixels"), reader.pixels("to"))
    end = 255 * model.decode(zb)[0, 0].numpy()
    assert max(np.abs(reader.pixels(way)[..., 0] - end).max() for way in ("line", "sphere")) < 3


def test_paths_say_their_lengths(hand):
    live = explore.interpolate(run())
    reader, means = (
        hand(live),
        np.frombuffer(embed.raw(live.spec["means"]["f16"]), "<f2").astype(float).reshape(-1, 3),
    )
    a, b = means[live.state["a"]], means[live.state["b"]]
    line, arc = np.linalg.norm((a + b) / 2), (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    assert f"{line:.2f} on the straight line, {arc:.2f} on the sphere" in reader.said()
    assert "near √3 = 1.73." in reader.said()


@pytest.mark.parametrize("figure, names", [("latent", ["x", "rec", "z"]), ("draw", ["seen", "rec-2", "rec-3"]),
                                           ("interpolate", ["from", "line", "sphere", "pixels", "to"])])  # fmt: skip
def test_the_first_frame_is_what_the_script_shows(hand, figure, names):
    """The picture that Python made, and what stands in its place a moment later."""
    live = MAKE[figure]()
    reader = hand(live)
    for name in names:
        png = re.search(
            rf'data-name="{name}"><img[^>]*src="data:image/png;base64,([^"]+)"', live.html
        )[1]
        wanted = np.asarray(Image.open(io.BytesIO(embed.raw(png))).convert("RGB")).astype(int)
        assert np.abs(reader.pixels(name) - wanted).max() <= 4, name


def test_snapshots_are_shown_at_their_step(hand):
    made = trained()
    reader = hand(explore.training(made))
    for frame in (3, 0, 1, 2):
        reader.key("input[type=range]", "Home", *["ArrowRight"] * frame)
        board = reader.pixels("samples")[..., 0]
        for k, image in enumerate(made.snapshots["images"][frame]):
            y, x = k // 4 * 29, k % 4 * 29
            np.testing.assert_array_equal(board[y : y + 28, x : x + 28], image[0])
        step = made.snapshots["steps"][frame]
        assert f"Step {step}: " in reader.said() and f"after {step} steps" in reader.label(
            "samples"
        )


def test_snapshots_of_points_are_drawn_where_they_are(hand):
    made = trained(points=True)
    live = explore.training(made)
    reader = hand(live)
    reader.key("input[type=range]", "Home", "ArrowRight")
    board, (x0, y0), reach = reader.pixels("samples"), live.spec["middle"], live.spec["reach"]
    wanted = [int(live.spec["colours"][1][i : i + 2], 16) for i in (1, 3, 5)]
    blue = np.abs(board - wanted).max(2) < 8
    expected = np.zeros_like(blue)
    for x, y in made.snapshots["images"][1].numpy():
        u, v = (
            (0.5 + (x - x0) / (2 * reach)) * len(board),
            (0.5 - (y - y0) / (2 * reach)) * len(board),
        )
        assert blue[int(v) - 1 : int(v) + 2, int(u) - 1 : int(u) + 2].any()
        expected[int(v) - 6 : int(v) + 7, int(u) - 6 : int(u) + 7] = True
    assert not (blue & ~expected).any()


def test_the_mark_stands_at_the_step(hand):
    reader = hand(live := explore.training(trained()))
    reader.key("input[type=range]", "Home", "ArrowRight")
    left = reader.node.locator(".marker").evaluate("node => parseFloat(node.style.left)")
    assert left == live.spec["marks"][1]


def test_snapshots_play_to_the_last_and_only_where_motion_is_welcome(hand):
    live = explore.training(trained())
    reader = hand(live)
    play = reader.node.get_by_role("button")
    reader.press("Play")  # from the beginning, as the last one was shown
    assert reader.values() == [1] and play.inner_text() == "Pause"
    reader.wait(350)
    assert reader.values() == [2]
    reader.press("Pause")
    reader.wait(1000)
    assert reader.values() == [2] and play.inner_text() == "Play"
    reader.press("Play")
    reader.wait(1000)
    assert reader.values() == [3] and play.inner_text() == "Play"
    still = hand(live, reduced_motion="reduce")
    assert still.node.locator("button").count() == 0
    assert still.changes(lambda: still.key("input[type=range]", "Home"))


def test_an_empty_drawing_is_no_number_that_breaks(hand):
    reader = hand(MAKE["draw"]())
    reader.press("Clear")
    assert "NaN" not in reader.node.inner_text() and not reader.tab.trouble()
    assert not reader.pixels("seen").any()


PAD = "[data-name=pad] canvas"


def test_a_drawing_is_centred_by_its_mass_as_mnist_is(hand):
    reader = hand(MAKE["draw"]())
    reader.drag(
        PAD, (0.2, 0.1), (0.2, 0.7), (0.6, 0.7), (0.6, 0.65), (0.2, 0.65)
    )  # an L: heavy below left
    seen = reader.pixels("seen")[..., 0].astype(float)
    centre = [(seen.sum(axis) * np.arange(28)).sum() / seen.sum() for axis in (0, 1)]
    assert centre == pytest.approx([13.5, 13.5], abs=0.6)
    rows, columns = (np.flatnonzero(seen.max(axis) > 40) for axis in (1, 0))
    assert 18 <= rows[-1] - rows[0] + 1 <= 22
    assert (
        abs((rows[0] + rows[-1]) / 2 - 13.5) > 1 or abs((columns[0] + columns[-1]) / 2 - 13.5) > 1
    )


def test_a_drawing_is_no_test_image_any_more(hand):
    reader = hand(MAKE["draw"]())
    reader.press("Next test image")
    assert reader.label("seen") == "Test image: class 1."
    reader.drag(PAD, (0.3, 0.3), (0.6, 0.7))
    assert reader.label("seen").startswith("The drawing as the encoder sees it")
    for k in (0, 1, 2, 3, 4, 0):  # the images begin again, and the last one is among them
        reader.press("Next test image")
        assert reader.label("seen") == f"Test image: class {k}."
        np.testing.assert_array_equal(reader.pixels("seen")[..., 0], images().test.images[k, 0])


@torch.no_grad()
def test_a_drawn_posterior_and_the_error_are_the_encoders(hand):
    reader, x = hand(MAKE["draw"]()), images().test.images[[0]] / 255
    for model in (Model(2), Model(3)):
        mu, logvar = (part[0].numpy() for part in model.encode(x))
        label = reader.label(f"code-{model.latent_dim}").replace("−", "-").replace("±", " ")
        said = [float(v) for v in re.findall(r"-?\d+\.\d", label)]
        assert said == pytest.approx(np.stack([mu, 2 * np.exp(logvar / 2)], 1).ravel(), abs=0.15)
        error = (model.decode(model.infer(x)) - x).square().mean().item()
        assert f"{error:.3f} with {model.latent_dim}" in reader.said()
        assert f"squared error {error:.3f} per pixel" in reader.label(f"rec-{model.latent_dim}")


def test_the_widgets_face_speaks_with_its_model(module):
    """anywidget's side of the module, with a model that remembers as the real one does."""
    live = explore.interpolate(run())
    talk = """async ([spec, html, state]) => {
      const traits = {spec, html, label: "A figure", state}, heard = [], saved = []
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
    told = module(talk, [live.spec, live.html, live.state])
    assert told["saved"] == [live.state | {"t": 0.2}]
    assert (
        len(set(told["pictures"])) == 3
        and float(told["slider"]) == 0.9
        and told["label"] == "A figure"
    )


@pytest.mark.parametrize("toy", [False, True])
def test_a_run_without_a_distance_is_shown_without_one(hand, toy):
    made = trained(points=toy)
    made.snapshots["frechet"] = torch.tensor([])
    reader = hand(explore.training(made))
    assert "Fréchet" not in reader.node.inner_html() and "penalty 0.125 R₁" in reader.said()
