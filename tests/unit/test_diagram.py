"""diagram: one language of signs, nothing covers anything, every letter is large enough on a phone."""

import io
from itertools import combinations

import numpy as np
import pytest
from lettering import boxes, touching
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from gencore import diagram, show, style

ALL = {
    "autoencoder": diagram.autoencoder, "vae": diagram.vae, "generation": diagram.generation,
    "graphical_model": diagram.graphical_model, "measuring": diagram.measuring, "bound": diagram.bound,
    "squared": lambda: diagram.autoencoder(r"$\Vert x-\hat x\Vert^2$"), "bound of numbers": lambda: diagram.bound(-79.4, 25.1, -100.3), "gaussian": lambda: diagram.vae(output="g(z)"),
    "fitted": lambda: diagram.generation("ae", r"\hat q(z)"), "tight": lambda: diagram.bound(-79.4, 25.1, -104.5),
    "wide": lambda: diagram.bound(-2.0, 150.0, -30.0),
} | {f"vae, {part}": lambda part=part: diagram.vae(part) for part in diagram.PARTS}  # fmt: skip


def paths(figure, dashed):
    """The arrows whose line is dashed, or not: (colour, where from, where to), inches."""
    found = [p for p in figure.findobj(FancyArrowPatch) if (p.get_linestyle() not in ("-", "solid")) == dashed]
    drawn = [p for p in found if p._path_original is not None]  # by draw, not by hand
    return [(to_hex(p.get_edgecolor()), *p._path_original.vertices[[0, -1]]) for p in drawn]


@pytest.mark.parametrize("name", ALL)
def test_no_letter_is_cut_or_covered_and_all_are_large_enough(name):
    figure = ALL[name]()
    assert touching(figure) == []
    assert 15 <= len(figure.alt) <= 150 and figure.get_figwidth() == style.WIDTH
    sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text()]
    assert min(sizes) >= diagram.SIZE > style.STYLE["font.size"], "on a phone, too: 13.5 points are 10 pixels there"
    assert min(sizes) * style.DPI / 72 * 343 / (style.WIDTH * style.DPI) >= 10


@pytest.mark.parametrize("name", ALL)
def test_no_line_runs_through_words(name):
    figure = ALL[name]()
    found = boxes(figure)
    for arrow in figure.findobj(FancyArrowPatch):
        line = arrow.get_transform().transform_path(arrow.get_path())
        line = line.interpolated(40).vertices
        for words, box in found:
            inner = Bbox.from_extents(box.x0 + 2, box.y0 + 2, box.x1 - 2, box.y1 - 2)
            assert not any(inner.contains(*point) for point in line), f"{words!r} in {name}"


@pytest.mark.parametrize("name", ["autoencoder", "vae", "generation", "graphical_model", "measuring"])
def test_signs_stand_apart_and_inside(name):
    figure = ALL[name]()
    show.png(figure)
    shapes = [p for p in figure.axes[0].patches if isinstance(p, (Circle, FancyBboxPatch, Rectangle)) and (p.get_fill() or name != "graphical_model")]
    if name == "measuring":  # sets of images stand behind each other
        shapes = [p for p in shapes if p.get_fill()]
    shapes = [p.get_window_extent() for p in shapes]
    whole = figure.bbox
    for box in shapes:
        assert whole.x0 < box.x0 < box.x1 < whole.x1 and whole.y0 < box.y0 < box.y1 < whole.y1
    for one, other in combinations(shapes, 2):
        assert Bbox.intersection(one, other) is None
    assert len(shapes) >= 2


@pytest.mark.parametrize("name", ALL)
def test_words_of_signs_stay_inside_their_outlines(name):
    figure = ALL[name]()
    found = boxes(figure)
    for shape in figure.axes[0].patches:
        if isinstance(shape, (Circle, FancyBboxPatch)) and shape.get_fill():
            box = shape.get_window_extent()
            inside = [b for _, b in found if box.contains((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2)]
            assert len(inside) == 1
            assert box.x0 < inside[0].x0 and inside[0].x1 < box.x1 and box.y0 < inside[0].y0 and inside[0].y1 < box.y1


def test_each_gradient_runs_from_its_term_against_the_data_to_the_encoder():
    figure = diagram.vae()
    for term, steps in (("rec", 5), ("kl", 2)):
        found = [(a, b) for colour, a, b in paths(figure, True) if colour == style.COLOURS[term]]
        assert len(found) == steps
        assert any(b[0] < 2.2 and a[0] > b[0] for a, b in found), "it arrives at the encoder"
    data = [(a, b) for colour, a, b in paths(figure, False)]
    assert {to_hex(c) for c, *_ in paths(figure, False)} == {style.INK} and len(data) == 10
    down = [(a, b) for _, a, b in paths(figure, True) if a[1] > 2.2]
    assert not down, "no gradient goes to the noise"
    flat = [(a, b) for _, a, b in paths(figure, True) if abs(a[1] - b[1]) < 1e-6]
    assert flat and all(b[0] < a[0] for a, b in flat), "against the data, which runs to the right"


@pytest.mark.parametrize("part", diagram.PARTS)
def test_what_is_not_lit_is_grey(part):
    whole, figure = diagram.vae(), diagram.vae(part)
    assert part in figure.alt
    words = {t.get_text(): t.get_color() for t in figure.findobj(Text) if t.get_text()}
    assert {t.get_text() for t in whole.findobj(Text) if t.get_text()} == set(words), "nothing is missing"
    assert set(words.values()) == {style.INK, diagram.DIM}
    dashed = {colour for colour, *_ in paths(figure, True)}
    assert dashed == {diagram.GREY, style.COLOURS[part]} if part in ("rec", "kl") else dashed == {diagram.GREY}
    networks = {to_hex(p.get_edgecolor()) for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)}
    assert networks == ({diagram.GREY, style.COLOURS["vae"]} if part in ("encoder", "decoder") else {diagram.GREY})
    solid = [colour for colour, *_ in paths(figure, False)]
    lit = set(diagram.PARTS[part])
    assert solid.count(style.INK) == {"encoder": 2, "sample": 3, "decoder": 2, "rec": 2, "kl": 1}[part], lit


def test_networks_and_terms_have_the_colours_of_the_table():
    for name, family in (("autoencoder", "ae"), ("vae", "vae"), ("generation", "vae")):
        edges = {to_hex(p.get_edgecolor()) for p in ALL[name]().axes[0].patches if isinstance(p, FancyBboxPatch)}
        assert edges == {style.COLOURS[family]}
    terms = {to_hex(p.get_edgecolor()) for p in diagram.vae().axes[0].patches if isinstance(p, Rectangle) and p.get_fill()}
    assert terms == {style.COLOURS["rec"], style.COLOURS["kl"]}
    assert to_hex(next(p for p in diagram.measuring().axes[0].patches if isinstance(p, FancyBboxPatch)).get_edgecolor()) == diagram.DIM


def contrast(a, b):
    def light(colour):
        c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    a, b = sorted((light(a), light(b)))
    return (b + 0.05) / (a + 0.05)


def test_words_are_readable_on_every_tint_and_grey_ones_still_are():
    for colour in style.COLOURS.values():
        assert contrast(style.INK, diagram.mixed(colour, 0.13)) >= 7
    assert contrast(diagram.DIM, style.PAPER) >= 3
    assert contrast(style.INK, diagram.SHADE) >= 7


def test_observed_variables_are_shaded_and_others_are_not():
    z, x = [p for p in diagram.graphical_model().axes[0].patches if isinstance(p, Circle)]
    assert to_hex(z.get_facecolor()) == style.PAPER and to_hex(x.get_facecolor()) == diagram.SHADE
    lines = {p.get_linestyle() for p in diagram.graphical_model().findobj(FancyArrowPatch)}
    assert len(lines) == 2


def widths(figure):
    """Widths of the bars, row by row from above: [[part, rest], [part, rest]]."""
    bars = sorted((p for p in figure.axes[0].patches if isinstance(p, Rectangle)), key=lambda p: (-p.get_y(), p.get_x()))
    return [[b.get_width() for b in bars[:2]], [b.get_width() for b in bars[2:]]]


def test_the_bound_is_drawn_to_scale():
    rec, kl, log_p = -79.4, 25.1, -100.3
    figure = diagram.bound(rec, kl, log_p)
    (gap, above), (part, rest) = widths(figure)
    inch = (diagram.RIGHT - diagram.LEFT) / (kl - rec)
    np.testing.assert_allclose([gap, above, part, rest], np.array([log_p - rec + kl, -log_p, kl, -rec]) * inch)
    words = [t.get_text() for t in figure.findobj(Text) if t.get_text()]
    assert "ELBO  −104.5" in words and "gap  ≥ 4.20" in words and "kl  25.1" in words and "rec  −79.4" in words
    exact = [t.get_text() for t in diagram.bound(rec, kl, log_p, exact=True).findobj(Text)]
    assert "gap  4.20" in exact and not any("≥" in t for t in exact)
    sketch = "".join(t.get_text() for t in diagram.bound().findobj(Text))
    assert not any(digit in sketch for digit in "123456789"), "a sketch has no numbers"


@pytest.mark.parametrize("wrong", [(-80, 20, -101), (-80, 20, 1), (-80, -1, -80), (5, 10, -4)])
def test_a_bound_that_is_none_is_refused(wrong):
    with pytest.raises(ValueError, match="log_p"):
        diagram.bound(*wrong)


def test_what_is_lit_must_be_there():
    with pytest.raises(ValueError, match="encoder, sample, decoder, rec, kl"):
        diagram.vae("generator")
    with pytest.raises(ValueError, match="lit names nobody"):
        diagram.draw({"a": ("code", 1, 1, "a")}, [], "alt", 2, lit=["nobody"])


def test_any_diagram_can_be_drawn_from_plain_data():
    """Two networks, a code, and two gradients beside one line: they do not cover each other."""
    nodes = {
        "z": ("code", 1, 1, "$z$"), "generator": ("network", 2.6, 1, "generator"), "critic": ("frozen", 4.4, 1, "critic"),
        "kl": ("term", 5.7, 1.6, "a"), "rec": ("term", 5.7, 0.4, "b"),
    }  # fmt: skip
    gradients = [("kl", "kl", "critic", "generator"), ("rec", "rec", "critic", "generator")]
    arrows = [("z", "generator"), ("generator", "critic"), ("critic", (4.4, 1.6), "kl"), ("critic", (4.4, 0.4), "rec")]
    figure = diagram.draw(nodes, arrows, "A test of signs.", 2, gradients, colours={"generator": "gan"})
    back = [(colour, a, b) for colour, a, b in paths(figure, True) if abs(a[1] - b[1]) < 1e-6]
    assert len(back) == 2 and back[0][1][1] - back[1][1][1] == pytest.approx(0.1)
    assert {colour for colour, *_ in back} == {style.COLOURS["kl"], style.COLOURS["rec"]}
    corner = next(p for p in figure.findobj(FancyArrowPatch) if len(p._path_original.vertices) == 3)
    assert corner._path_original.vertices[1].tolist() == [4.4, 1.6]
    networks = {to_hex(p.get_edgecolor()) for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)}
    assert networks == {style.COLOURS["gan"], diagram.DIM}


def test_the_signs_for_images_are_images():
    """White strokes on black, in the drawing and after blurring; all pixels of a set are there three times."""
    assert diagram.digit().shape == (9, 9) and set(np.unique(diagram.digit())) == {0, 1 / 3, 2 / 3, 1}
    assert 0 < diagram.digit(True).max() < 1 and np.isclose(diagram.digit(True).sum(), diagram.digit().sum())
    assert len(diagram.measuring().axes[0].images) == 6 and len(diagram.vae().axes[0].images) == 2
    picture = np.asarray(Image.open(io.BytesIO(show.png(diagram.vae()))).convert("L"))
    assert (picture < 20).mean() > 0.002, "the pixels' black"
