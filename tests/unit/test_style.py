"""How names and numbers are set: where they stand beside curves and points, colours, tables."""

import html.parser
import io

import matplotlib
import numpy as np
import pytest
import torch
from lettering import boxes, touching
from matplotlib.colors import to_hex
from PIL import Image

from gencore import naming, show, style, tables

DIMS = [2, 4, 10, 20, 32, 64]


def chart(ends, **options):
    """Curves that end at the given heights, named by letters."""
    series = {f"curve {'abcdef'[i]}": ([10 + i, 8, 6, 5, 5, end], None) for i, end in enumerate(ends)}
    return show.errorbars(DIMS, series, "latent dimensions d", "distance", logx=True, **options)


# Names of curves


@pytest.mark.parametrize("ends", [(1, 5), (3, 3), (0, 0, 0), (1, 1.05, 1.1, 9, 9), (2, 2, 2, 2, 2, 2), (9, 1, 5)])
@pytest.mark.parametrize("logy", [False, True])
def test_names_of_curves_stand_apart_at_their_ends_in_their_colours(ends, logy):
    ends = [end or 0.1 for end in ends] if logy else ends
    figure = chart(ends, floor=0.01, logy=logy)
    ax = figure.axes[0]
    assert touching(figure) == [] and ax.get_legend() is None
    notes = {t.get_text(): t for t in ax.texts if t.get_text().startswith("curve")}
    assert len(notes) == len(ends)
    right = ax.get_window_extent().x1
    for i, line in enumerate(c.lines[0] for c in ax.containers):
        note = notes[f"curve {'abcdef'[i]}"]
        assert note.get_window_extent().x0 >= right
        assert note.get_color() == naming.readable(line.get_color())
    heights = {name: note.get_window_extent().y0 for name, note in notes.items()}
    for i, j in np.ndindex(len(ends), len(ends)):
        if ends[i] < ends[j]:
            assert heights[f"curve {'abcdef'[i]}"] < heights[f"curve {'abcdef'[j]}"], "in the curves' order"


def test_the_name_of_a_curve_with_room_stands_at_its_end():
    figure = chart((1, 9))
    ax, found = figure.axes[0], dict(boxes(figure))
    for name, end in (("curve a", 1), ("curve b", 9)):
        middle = (found[name].y0 + found[name].y1) / 2
        assert middle == pytest.approx(ax.transData.transform((64, end))[1], abs=3)


def test_the_floor_is_named_where_the_curves_are_far_away():
    for values, left in (([9, 5, 1], True), ([1, 5, 9], False)):
        figure = show.errorbars([1, 2, 3], {"a": (values, None), "b": (values, None)}, "x", "y", floor=0.5)
        box, ax = dict(boxes(figure))["floor: real against real"], figure.axes[0].get_window_extent()
        assert ((box.x0 + box.x1) / 2 < (ax.x0 + ax.x1) / 2) == left and box.x1 < ax.x1 + 2


def test_names_follow_axes_that_are_changed_afterwards():
    figure = chart((1, 9))
    show.png(figure)
    figure.axes[0].set_ylim(0, 100)
    assert touching(figure) == []
    (low, high) = [t.get_window_extent() for t in figure.axes[0].texts]
    assert 13 < high.y0 - low.y0 < 30 * figure.dpi / 72, "9 is near 1 now"


def test_too_many_names_or_long_ones_stand_above():
    long = {f"a very long name of a series, number {i}": ([1, 2], None) for i in range(2)}
    many = {f"series {i}": ([i, 2 * i], None) for i in range(7)}
    for series in (long, many):
        figure = show.errorbars([1, 2], series, "x", "y")
        assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == list(series)
        assert touching(figure) == []


def test_a_curve_that_ends_in_nan_is_named_at_its_last_number():
    figure = show.curves({"step": [1, 2, 3], "a": [1.0, 2.0, np.nan], "b": [5.0, 6.0, 7.0]}, ["a", "b"])
    (note,) = [t for t in figure.axes[0].texts if t.get_text() == "a"]
    assert note.xy == (1, 2) and touching(figure) == []


def test_level_out_is_the_isotonic_regression():
    from sklearn.isotonic import isotonic_regression

    for seed in range(20):
        values = np.random.default_rng(seed).normal(size=8)
        np.testing.assert_allclose(naming.level_out(values), isotonic_regression(values))


# Names of points


def test_points_that_coincide_share_a_name():
    points = {f"d = {d}": ((25.5, 0.1), (76, 1)) for d in (20, 32, 64)} | {"d = 2": (6, 143), "d = 4": (10, 116)}
    figure = show.rate_distortion(points)
    assert touching(figure) == []
    assert {"d = 20, 32, 64", "d = 2", "d = 4"} <= {name for name, _ in boxes(figure)}
    show.png(figure)
    assert {"d = 20, 32, 64", "d = 2", "d = 4"} <= {name for name, _ in boxes(figure)}, "drawn twice, named once"


def test_names_of_points_that_are_near_each_other_stand_apart():
    rng = np.random.default_rng(0)
    for _ in range(5):
        cloud = {f"point {i}": (x, y) for i, (x, y) in enumerate(rng.uniform(0, 1, (9, 2)))}
        assert touching(show.rate_distortion(cloud)) == []


@pytest.mark.parametrize(
    ("names", "one"),
    [(["d = 2"], "d = 2"), (["d = 20", "d = 32"], "d = 20, 32"), (["a", "b"], "a, b"), (["20, 32", "", " "], "20, 32"),
     (["d = 2", "k = 2"], "d = 2, k = 2")],
)  # fmt: skip
def test_joined_names(names, one):
    assert naming.join(names) == one


@pytest.mark.parametrize("spread", [0.3, 1, 3, 10, 40])
def test_the_circles_of_a_map_are_named_apart_from_each_other_and_from_the_classes(spread):
    mu = np.random.default_rng(0).normal(size=(2000, 2)) * spread + [0, spread / 2]
    figure = show.latent_map(mu, (np.arctan2(*mu.T) * 10 / 7 + 5).astype(int) % 10)
    names = {name for name, _ in boxes(figure)}
    assert {"1 sd", "2 sd"} <= names or "1 sd, 2 sd" in names
    assert [p for p in touching(figure) if "sd" in p] == []


def test_a_map_reaches_over_nearly_all_codes_and_both_circles():
    mu = np.random.default_rng(0).normal(size=(5000, 2)) * 0.1
    mu[0] = 1000
    (left, right), (low, high) = (getattr(show.latent_map(mu, np.zeros(5000, int)).axes[0], f"get_{v}lim")() for v in "xy")
    assert -4 < left <= -2 and 2 <= right < 4 and -4 < low <= -2 and 2 <= high < 4
    mu = np.random.default_rng(0).normal(size=(5000, 2)) * [3, 30]
    ax = show.latent_map(mu, np.zeros(5000, int)).axes[0]
    assert (np.abs(mu[:, 1]) < max(ax.get_ylim())).mean() > 0.98


# Axes, keys, colours


def test_a_logarithmic_axis_has_plain_numbers():
    figure = show.errorbars([1, 2], {"a": ([0.02, 30], None)}, "x", "y", floor=0.01, logy=True)
    ax = figure.axes[0]
    names = {name for name, _ in boxes(figure)}
    assert ax.get_yscale() == "log" and {"0.1", "1", "10"} <= names and ax.get_ylim()[0] > 0
    assert "1" in {n for n, _ in boxes(show.errorbars([1, 2], {"a": ([0.9, 4], None)}, "x", "y", logy=True))}


def test_signed_images_have_a_key():
    for figure in (
        show.grid(torch.randn(4, 1, 8, 8), signed=True),
        show.grid(torch.randn(2, 1, 8, 8), signed=True, titles=["a", "b"]),
        show.rows({"a": torch.randn(3, 1, 8, 8), "b": torch.randn(3, 1, 8, 8)}, signed=True),
    ):
        assert {"negative", "positive"} <= {name for name, _ in boxes(figure)} and touching(figure) == []
        picture = np.asarray(Image.open(io.BytesIO(show.png(figure))).convert("RGB")).astype(int)
        box = figure.axes[-1].get_position()
        row = round((1 - (box.y0 + box.y1) / 2) * picture.shape[0])
        ends = [round((box.x0 + share * box.width) * picture.shape[1]) for share in (0.04, 0.96)]
        expected = style.to_uint8(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), signed=True)[:, 0, 0].astype(int)
        assert np.abs(picture[row, ends] - expected).max() < 60, "the colours that the images have"


def test_letters_in_the_colours_are_readable():
    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for colour in style.COLOURS.values():
        readable = naming.readable(colour)
        assert (luminance(style.PAPER) + 0.05) / (luminance(readable) + 0.05) >= 4.5  # WCAG 1.4.3
        strong = (luminance(style.PAPER) + 0.05) / (luminance(colour) + 0.05) >= 4.5
        assert readable == colour if strong else np.ptp([int(readable[i : i + 2], 16) for i in (1, 3, 5)]) > 10


def test_terms_of_a_chart_take_the_colours_that_they_are_said_to_have():
    history = {"step": [1, 2], "distortion": [2.0, 1.0], "loss": [3.0, 2.0]}
    lines = show.curves(history, ["loss", "distortion"], colours={"distortion": "rec"}).axes[0].lines
    assert [to_hex(line.get_color()) for line in lines] == [style.COLOURS["loss"], style.COLOURS["rec"]]


def test_symbols_of_figures_are_those_of_the_formulas():
    """Computer Modern, as MathJax has it, and large enough to be read beside words."""
    figure = show.latent_map(np.eye(2), [0, 1])
    assert style.STYLE["mathtext.fontset"] == "cm"
    assert figure.axes[0].xaxis.label.get_fontsize() > style.STYLE["axes.labelsize"]
    families = {t.get_fontname() for t in figure.findobj(matplotlib.text.Text)}
    assert families == {"DejaVu Sans"}, "the one sans that matplotlib brings everywhere"


# Tables

ROWS = {
    "test images": {"frechet": 0.031, "kid": (0.0001, 0.0003), "recall": 0.95},
    "VAE": {"frechet": (12.31, 0.04), "kid": (0.012, 0.002), "recall": 0.71},
    "AE & <mixture>": {"frechet": (0.53, 0.11, 3), "kid": None, "recall": 0.712},
}
COLUMNS = {"frechet": "Fréchet", "kid": "KID", "recall": "recall"}


class Cells(html.parser.HTMLParser):
    """The rows of a table as a reader sees them; what is not visible apart."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.strong, self.tags, self.depth, self.bold = [], [], [], 0, False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag == "span":
            self.depth += "hidden" in dict(attributes).get("style", "") or self.depth > 0
        self.bold = self.bold or tag == "strong"

    def handle_endtag(self, tag):
        self.depth -= tag == "span" and self.depth > 0
        if tag == "strong":
            self.bold = False
            self.strong.append((len(self.rows) - 2, len(self.rows[-1]) - 2))

    def handle_data(self, data):
        if self.rows and self.rows[-1] and not self.depth:
            self.rows[-1][-1] += data


def test_a_table_says_what_the_book_says_and_marks_the_best_that_competes():
    best = {"frechet": min, "recall": max}
    table = show.table(ROWS, "Samples.", COLUMNS, best, aside=["test images"], corner="model")
    page = Cells(table._repr_html_())
    head, *body = [[" ".join(cell.split()) for cell in row] for row in page.rows]
    assert head == ["model", "Fréchet", "KID", "recall"]
    assert body[0] == ["test images", "0.0310", "0.0001 ± 0.0003", "0.950"]
    assert body[1] == ["VAE", "12.31 ± 0.04", "0.012 ± 0.002", "0.710"]
    assert body[2] == ["AE & <mixture>", "0.53 ± 0.11", "–", "0.712"]
    assert page.strong == [(2, 0), (2, 2)], "not the real images"
    plain = [" ".join(line.split()) for line in repr(table).splitlines()]
    assert plain[0] == "Samples. Bold: the best of its column."
    assert "0.53 ± 0.11*" in plain[5] and "0.712*" in plain[5] and "*" not in plain[3] + plain[4]


def test_a_table_has_a_caption_and_header_cells():
    tags = Cells(show.table(ROWS, "Samples.", COLUMNS)._repr_html_()).tags
    assert [tag for tag, _ in tags].count("caption") == 1
    scopes = [a.get("scope") for tag, a in tags if tag == "th"]
    assert scopes == ["col"] * 3 + ["row"] * 3, "the empty corner is no header"
    (region,) = [a for tag, a in tags if tag == "div"]
    assert region["aria-label"] == "Samples." and region["tabindex"] == "0", "it can be scrolled by keys"


def test_decimals_stand_under_decimals():
    cells = tables.aligned([0.031, (12.31, 0.04), (0.53, 0.11), None, 15, 1234.5])
    width = {len(cell) for cell in cells}
    assert len(width) == 1
    points = [(cell.translate(tables.HIDDEN)).index(".") for cell in cells]
    assert len(set(points)) == 1
    assert len({cell.translate(tables.HIDDEN).index("±") for cell in cells}) == 1
    shown = [cell.translate(dict.fromkeys(tables.HIDDEN, "")).split() for cell in cells]
    assert [" ".join(words) for words in shown] == ["0.0310", "12.31 ± 0.04", "0.53 ± 0.11", "–", "15", "1,234"]
    lines = repr(show.table({str(i): {"v": v} for i, v in enumerate([0.5, 12.25, 100])}, "c")).splitlines()[3:]
    assert [line.index(".") for line in lines[:2]] == [lines[0].index(".")] * 2


def test_words_in_a_table_stay_words():
    table = show.table({"VAE": {"likelihood": "lower bound", "passes": 1}, "GAN": {"likelihood": None, "passes": 0}}, "F.")
    assert [[c.strip() for c in row] for row in Cells(table._repr_html_()).rows][1:] == [["VAE", "lower bound", "1"], ["GAN", "–", "0"]]
    assert table.worded == {0}


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ({"a": {"frechet_prior": 1}}, {}, "frechet_prior"), ({"ae_d2": {"x": 1}}, {}, "ae_d2"), ({}, {}, "rows"),
        ({"a": {"x": 1}}, {"best": {"y": min}}, "best names"),
    ],
)  # fmt: skip
def test_a_table_refuses_names_that_no_reader_knows(rows, options, words):
    with pytest.raises(ValueError, match=words):
        show.table(rows, "caption", **options)


def test_nothing_is_marked_where_nothing_competes_and_what_noise_does_not_tell_apart_is_marked_together():
    assert not show.table({"a": {"x": 1}, "b": {"x": None}}, "c", best={"x": min}).marked
    noisy = {"a": {"x": (2.0, 0.6)}, "b": {"x": (2.5, 0.1)}, "c": {"x": (2.7, 0.1)}, "d": {"x": (3.0, 1.1, 3)}, "e": {"x": 2.0}}
    table = show.table(noisy, "c.", best={"x": min})
    assert table.marked == {(0, 0), (1, 0), (3, 0), (4, 0)} and table.caption.endswith("within a standard deviation of it.")
    assert show.table({"a": {"x": 1}, "b": {"x": 1}, "c": {"x": float("nan")}}, "c", best={"x": max}).marked == {(0, 0), (1, 0)}
