"""show: the pixels, marks, extents and names that a reader will see, read back from the figures."""

import io
import subprocess
import sys

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from lettering import touching
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image
from scipy import stats

from gencore import catalogue, show, style

HISTORY = {"step": [50, 100, 150], "loss": [3.0, 2.0, 1.0], "kl": [1.0, 2.0, 2.5]}


def noise(n, channels=1, size=28, seed=0):
    return torch.randint(0, 256, (n, channels, size, size), generator=torch.Generator().manual_seed(seed)).byte()


def drawn(figure):
    """The figure's file as an array (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(show.png(figure))).convert("RGB"))


@pytest.fixture
def tiles(monkeypatch):
    """`tiles(figure)`: the images that stand in the figure's file, (n, h, w, 3), in order.

    A tile in which the pixels that stand for one pixel of the image are not all equal fails.
    """
    made, mosaic = {}, style.mosaic

    def spy(*arguments, **options):
        figure, places = mosaic(*arguments, **options)
        made[id(figure)] = (arguments[0].shape[2], places)
        return figure, places

    def cut(figure):
        (width, places), picture, at = made[id(figure)], drawn(figure), figure.axes[0].get_position()
        left, top = round(at.x0 * picture.shape[1]), round((1 - at.y1) * picture.shape[0])
        cuts = []
        for x, y, w, h in places:
            tile, scale = picture[top + y : top + y + h, left + x : left + x + w], w // width
            small = tile[::scale, ::scale]
            assert scale * width == w and (small.repeat(scale, 0).repeat(scale, 1) == tile).all()
            cuts.append(small)
        return np.array(cuts)

    monkeypatch.setattr(style, "mosaic", spy)
    return cut


def texts(figure):
    return [t.get_text() for ax in figure.axes for t in ax.texts]


class Plane(torch.nn.Module):
    """A decoder that writes its code into the image, so that a figure's codes can be read."""

    latent_dim = 2

    def infer(self, x, generator=None):
        return x.flatten(1)[:, :2]

    def decode(self, z):
        return torch.special.ndtr(z)[:, :, None, None].mean(1, keepdim=True).expand(-1, 1, 8, 8)


# Images


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
@pytest.mark.parametrize("columns", [1, 4, 7])
def test_every_pixel_of_every_image_is_in_the_file(tiles, channels, size, columns):
    images = noise(7, channels, size)
    expected = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    assert (tiles(show.grid(images, columns)) == expected).all()
    assert (tiles(show.grid(images, columns, titles=["a title"] * 7)) == expected).all()


def test_floats_bytes_torch_and_numpy_give_one_picture():
    images = noise(4)
    reference = drawn(show.grid(images))
    for same in (images.numpy(), images.float() / 255, (images.float() / 255).double().numpy()):
        assert (drawn(show.grid(same)) == reference).all()


def test_titles():
    figure = show.grid(noise(3), titles=["a", "b", "c"])
    assert texts(figure) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="3 images need 3 titles"):
        show.grid(noise(3), titles=["a"])


def test_signed_images_put_zero_in_white_and_signs_in_two_colours():
    ramp = torch.tensor([-4.0, 0.0, 4.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    minus, zero, plus = style.to_uint8(ramp, signed=True)[:, 0, 0].astype(int)
    assert zero.min() > 240
    assert minus[0] > minus[2] + 50 and plus[2] > plus[0] + 20  # orange and violet


def test_rows_hold_each_block_beside_its_label(tiles):
    blocks = {"data": noise(5), "d = 2": noise(5, seed=1)}
    figure = show.rows(blocks)
    assert texts(figure) == list(blocks)
    for label, low in zip(figure.axes[0].texts, (0.5, 0), strict=True):
        box = label.get_window_extent().transformed(figure.transFigure.inverted())
        assert box.x0 > 0 and box.x1 < figure.axes[0].get_position().x0
        assert low < (box.y0 + box.y1) / 2 < low + 0.5
    assert (tiles(figure)[..., 0] == np.concatenate([block[:, 0] for block in blocks.values()])).all()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 28, 28), r"\(n, C, H, W\)"),
        (torch.zeros(3, 2, 8, 8), "1 or 3 channels"),
        (torch.zeros(0, 1, 8, 8), "0, 1, 8, 8"),
        (torch.full((1, 1, 8, 8), 1.5), "from 1.5 to 1.5"),
        (torch.full((1, 1, 8, 8), torch.nan), "nan"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), "int64"),
    ],
)
def test_what_is_not_an_image_is_refused(images, words):
    with pytest.raises(ValueError, match=words):
        show.grid(images)


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="a: 3 of.*b: 4 of"):
        show.rows({"a": noise(3), "b": noise(4)})


def test_manifold_lays_the_quantiles_of_the_prior_out(tiles):
    figure = show.manifold(Plane(), n=4)
    ax, got = figure.axes[0], tiles(figure)[:, 0, 0, 0].reshape(4, 4) / 255
    share = (np.arange(4) + 0.5) / 4  # ndtr undoes the quantile function
    np.testing.assert_allclose(got, (share[None, :] + share[::-1, None]) / 2, atol=1 / 255)
    middle = [label.get_text() for label in ax.get_xticklabels()].index("0")
    assert ax.get_xticks()[middle] == pytest.approx(ax.images[0].get_array().shape[1] / 2)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("$z_1$", "$z_2$")


def test_the_manifolds_marks_stand_at_the_quantiles_and_it_is_five_inches_wide(tiles):
    figure = show.manifold(Plane(), n=10)
    ax, picture = figure.axes[0], figure.axes[0].images[0].get_array()
    side = picture.shape[0]
    assert picture.shape[:2] == (side, side), "no gaps, square"
    marks = [-1.5, -1, -0.5, 0, 0.5, 1, 1.5]
    assert [float(label.get_text().replace("−", "-")) for label in ax.get_xticklabels()] == marks
    assert ax.get_xticklabels()[0].get_text() == ax.get_yticklabels()[0].get_text() == "−1.5"
    expected = stats.norm.cdf(marks) * side
    assert ax.get_xticks() == pytest.approx(expected, rel=1e-5)
    assert ax.get_yticks() == pytest.approx(side - expected, rel=1e-5), "upwards"
    assert side / figure.sharp_dpi == pytest.approx(5, abs=0.01)


def test_interpolation_meets_its_ends_and_keeps_the_norm_on_the_sphere():
    class Record(Plane):
        def decode(self, z):
            seen.append(z)
            return super().decode(z)

    seen = []
    x0, x1 = torch.zeros(2, 1, 1, 8, 8)
    x0[0, 0, 0, 0], x1[0, 0, 0, 1] = 1, 1
    figure = show.interpolation(Record(), x0, x1, n=5)
    line, arc = seen
    torch.testing.assert_close(line[2], torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(arc[[0, -1]], torch.eye(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(arc.norm(dim=1), torch.ones(5))
    assert texts(figure) == ["straight line", "on the sphere", "in pixels"]


def test_interpolation_goes_from_the_first_image_to_the_second_in_all_three_ways(tiles):
    """Codes (1, 0) and (0, 3): the path's first part is near the first, and its length grows evenly."""

    class Record(Plane):
        def decode(self, z):
            seen.append(z)
            return super().decode(z)

    seen = []
    x0, x1 = torch.zeros(2, 1, 1, 8, 8)
    x0[0, 0, 0, 0], x1[0, 0, 0, 1], x1[0, 0, 4, 4] = 1, 0.9, 1
    model = Record()
    model.infer = lambda x: torch.tensor([[1.0, 0.0]]) if torch.equal(x, x0) else torch.tensor([[0.0, 3.0]])
    found = tiles(show.interpolation(model, x0, x1, n=4)).reshape(3, 4, 8, 8, 3)
    line, arc = seen
    t = torch.linspace(0, 1, 4)
    torch.testing.assert_close(line, torch.stack([1 - t, 3 * t], 1))
    torch.testing.assert_close(arc.norm(dim=1), 1 + 2 * t)
    angle = torch.atan2(arc[:, 1], arc[:, 0])
    torch.testing.assert_close(angle, t * torch.pi / 2, atol=1e-4, rtol=0)
    mixed = found[2, :, 4, 4, 0] / 255
    np.testing.assert_allclose(mixed, t, atol=1 / 255)
    np.testing.assert_allclose(found[2, :, 0, 0, 0] / 255, 1 - t, atol=1 / 255)


# Charts


def test_errorbars_end_one_standard_deviation_away():
    mean, sd = [40.0, 25.0, 9.0], [2.0, 1.0, 0.5]
    figure = show.errorbars([2, 4, 10], {"vae": (mean, sd), "ae": (mean, None)}, "d", "distance", logx=True)
    ax = figure.axes[0]
    (bars,) = [c for c in ax.containers if c.has_yerr]
    ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
    np.testing.assert_allclose(ends, np.array([mean, mean]).T + np.array([[-1, 1]]) * np.array(sd)[:, None])
    assert len(bars.lines[1]) == 2  # caps
    assert [t.get_text() for t in ax.get_xticklabels()] == ["2", "4", "10"]
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "d" and ax.get_title("left") == "distance"
    assert texts(figure) == ["VAE", "autoencoder"] and ax.get_legend() is None


def test_series_keep_the_colour_and_the_marker_of_their_family():
    figure = show.errorbars(["a", "b"], {"samples": ([1, 2], None), "ae": ([1, 2], None), "else": ([1, 2], None)},
                            "", "", colours={"samples": "prior"})  # fmt: skip
    lines = [c.lines[0] for c in figure.axes[0].containers]
    expected = [show.COLOURS["prior"], show.COLOURS["ae"]]
    assert [to_hex(line.get_color()) for line in lines[:2]] == expected
    assert [line.get_marker() for line in lines[:2]] == [style.MARKERS["prior"], style.MARKERS["ae"]]
    assert all(line.get_linestyle() == "None" for line in lines)  # categories are not joined


def test_floor_is_drawn_at_its_level_with_its_name():
    ax = show.errorbars([1, 2], {"vae": ([5, 6], None)}, "", "", floor=(1.5, "the floor")).axes[0]
    assert [1.5, 1.5] in [list(line.get_ydata()) for line in ax.lines]
    assert "the floor" in [t.get_text() for t in ax.texts] and ax.get_ylim()[0] == 0


def test_curves_draw_the_history_and_the_range_of_seeds():
    other = HISTORY | {"loss": [5.0, 4.0, 3.0]}
    figure = show.curves([HISTORY, other], ["loss", "kl"], {"loss": "−ELBO"}, "nats", band=(1, 2))
    ax = figure.axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[50, 4], [100, 3], [150, 2]]
    low, high = ax.collections[0].get_paths()[0].get_extents().get_points()[:, 1]
    assert (low, high) == (1, 5)
    assert texts(figure) == ["−ELBO", "kl"]
    assert len({line.get_linestyle() for line in ax.lines}) == 2  # colour is not the only carrier
    assert texts(show.curves(HISTORY, ["loss"])) == []


def test_bars_below_the_threshold_are_hollow():
    ax = show.bars([3.0, 1.0, 0.001], "unit", "KL", threshold=0.01).axes[0]
    assert [b.get_height() for b in ax.patches] == [3.0, 1.0, 0.001]
    filled = [to_hex(b.get_facecolor()) == show.COLOURS["vae"] for b in ax.patches]
    assert filled == [True, True, False]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "3"]


def test_named_bars_have_their_family_colour_and_deviation():
    ax = show.bars({"pca": (30.0, 2.0), "ae": 20.0}, "model", "distance").axes[0]
    assert [to_hex(b.get_facecolor()) for b in ax.patches] == [show.COLOURS["pca"], show.COLOURS["ae"]]
    segments = [s for c in ax.containers if getattr(c, "has_yerr", False) for s in c.lines[2][0].get_segments()]
    assert [28.0, 32.0] in [s[:, 1].tolist() for s in segments]


def test_histograms_are_densities_over_common_bins():
    values = {"real": np.random.default_rng(0).normal(size=500), "vae": torch.randn(90)}
    ax = show.histogram(values, "x", bins=20, marks={"here": 0.5}).axes[0]
    outlines = [p.get_data() for p in ax.patches if not p.get_fill()]
    assert len(outlines) == 2 and (outlines[0].edges == outlines[1].edges).all()
    for data in outlines:
        assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1)
    assert "here" in [t.get_text() for t in ax.texts]


def test_rate_distortion_draws_points_deviations_and_diagonals_of_one_sum():
    points = {"d = 2": ((6.0, 0.5), (140.0, 1.0)), "d = 4": (10.0, 115.0), "d = 5": (10.1, 114.0)}
    ax = show.rate_distortion(points).axes[0]
    assert ax.containers[0].lines[0].get_xydata().tolist() == [[6, 140], [10, 115], [10.1, 114]]
    across, up = (c.get_segments()[0] for c in ax.containers[0].lines[2])
    assert across[:, 0].tolist() == [5.5, 6.5] and up[:, 1].tolist() == [139, 141]
    assert {t.get_text() for t in ax.texts} > set(points)
    for line in ax.lines[len(ax.containers[0].lines[1]) + 1 :]:
        x, y = line.get_data()
        assert x[0] + y[0] == pytest.approx(x[1] + y[1])


def test_latent_map_names_each_class_at_its_median():
    """Skewed clouds, so that the mean stands elsewhere."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 20)
    mu = rng.exponential(size=(200, 2)) ** 2 * 0.5 + 60 * np.stack([np.cos(labels), np.sin(labels)], 1)
    ax = show.latent_map(torch.tensor(mu), torch.tensor(labels)).axes[0]
    places = {t.get_text(): t.get_position() for t in ax.texts}
    for c in range(10):
        median, mean = np.median(mu[labels == c], 0), mu[labels == c].mean(0)
        np.testing.assert_allclose(places[str(c)], median, atol=1e-9)
        assert np.hypot(*(median - mean)) > 0.1
    assert [p.radius for p in ax.patches] == [1, 2]


@pytest.mark.parametrize("n", [1, 3, 10, 12])
def test_each_point_of_a_map_has_the_colour_of_its_own_class(n):
    """More than ten classes begin again with the first colour."""
    rng = np.random.default_rng(0)
    mu, labels = rng.normal(size=(200, 2)), rng.integers(0, n, 200)
    points = show.latent_map(mu, labels).axes[0].collections[0]
    drawn = {tuple(at): to_hex(c) for at, c in zip(points.get_offsets().data, points.get_facecolors(), strict=True)}
    assert drawn == {tuple(at): style.CLASSES[label % 10] for at, label in zip(mu, labels, strict=True)}


def test_no_class_of_a_map_lies_on_top():
    labels = np.repeat([0, 1], 100)
    points = show.latent_map(np.random.default_rng(0).normal(size=(200, 2)), labels).axes[0].collections[0]
    last = [to_hex(c) for c in points.get_facecolors()[-50:]]
    assert 10 < last.count(style.CLASSES[0]) < 40


def test_a_map_takes_the_names_of_the_classes_by_their_numbers():
    mu = np.array([[0.0, 0.0], [5.0, 5.0], [9.0, 0.0]])
    ax = show.latent_map(mu, [2, 0, 2], ["cat", "dog", "frog"]).axes[0]
    places = {t.get_text(): t.get_position() for t in ax.texts}
    assert places["cat"] == (5, 5) and places["frog"] == (4.5, 0) and "dog" not in places


def test_names_of_classes_that_coincide_are_moved_apart():
    mu = np.random.default_rng(0).normal(size=(300, 2))
    ax = show.latent_map(mu, np.arange(300) % 3, ["cat", "dog", "frog"]).axes[0]
    centres = [t.get_position() for t in ax.texts if t.get_text() in ("cat", "dog", "frog")]
    gaps = [np.hypot(*np.subtract(a, b)) for i, a in enumerate(centres) for b in centres[:i]]
    assert len(gaps) == 3 and min(gaps) > 0.045 * np.ptp(mu, 0).max()


def test_latent_map_refuses_other_shapes_and_survives_a_collapsed_posterior():
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        show.latent_map(np.zeros((5, 3)), np.zeros(5, int))
    show.png(show.latent_map(np.zeros((5, 2)), np.arange(5)))


def test_compare_draws_the_generated_points_above_the_real():
    ax = show.compare(np.zeros((5, 2)), torch.ones(3, 2), family="vae").axes[0]
    real, fake = ax.collections
    assert len(real.get_offsets()) == 5 and len(fake.get_offsets()) == 3
    assert to_hex(fake.get_facecolor()[0]) == show.COLOURS["vae"]


# The look

SIGHT = {  # Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def linear(colours):
    c = np.array([to_rgb(colour) for colour in colours])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(c):
    """Ottosson's OKLab, in which equal distances look about equally large."""
    lms = c.clip(0, 1) @ np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                                   [0.0883024619, 0.2817188376, 0.6299787005]]).T  # fmt: skip
    return np.cbrt(lms) @ np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                                    [0.0259040371, 0.7827717662, -0.8086757660]]).T  # fmt: skip


OTHERS = ("prior", "rec", "gmm", "gaussian", "ppca", "kl", "loss")  # densities and terms of an objective
FAMILIES = [name for name in show.COLOURS if name not in OTHERS]


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(
    ("colours", "bar"),  # for comparison: 0.076 in Okabe & Ito's eight, 0.052 in Tol's muted ten
    [
        ([show.COLOURS[n] for n in FAMILIES], 0.085),
        ([show.COLOURS[n] for n in ("real", "pca", "ae", "vae", "prior", "rec", "gmm", "gaussian")], 0.095),
        ([show.COLOURS[n] for n in ("loss", "rec", "kl")], 0.095),
        (style.CLASSES, 0.1),
    ],
)
def test_colours_stay_apart_for_colour_blind_readers(sight, colours, bar):
    lab = oklab(linear(colours) @ np.array(SIGHT[sight]).T)
    distance = np.linalg.norm(lab[:, None] - lab, axis=-1)[np.triu_indices(len(lab), 1)]
    assert distance.min() > bar


def contrast(a, b):
    a, b = sorted(linear([a, b]) @ [0.2126, 0.7152, 0.0722])
    return (b + 0.05) / (a + 0.05)


def test_contrast_to_the_paper():
    assert min(contrast(c, style.PAPER) for c in show.COLOURS.values()) >= 3  # WCAG 1.4.11
    assert min(contrast(c, style.PAPER) for c in (style.INK, style.MUTED)) >= 4.5  # WCAG 1.4.3
    assert len(set(zip(show.COLOURS.values(), style.MARKERS.values(), strict=True))) == len(show.COLOURS)


SERIES = {  # each kind of chart with two series: the colours of its marks, in order
    "curves": lambda a, b: [line.get_color() for line in show.curves(HISTORY | {a: [1, 2, 3], b: [3, 2, 1]}, [a, b]).axes[0].lines],
    "errorbars": lambda a, b: [
        c.lines[0].get_color() for c in show.errorbars([1, 2], {a: ([1, 2], None), b: ([2, 1], None)}, "", "").axes[0].containers],
    "bars": lambda a, b: [p.get_facecolor() for p in show.bars({a: 1.0, b: 2.0}, "", "").axes[0].patches],
    "histogram": lambda a, b: [
        p.get_edgecolor() for p in show.histogram({a: [1, 2], b: [2, 3]}, "").axes[0].patches if not p.get_fill()],
    "rate": lambda a, b: [
        c.lines[0].get_color() for c in show.rate_distortion({a: {"x": (1, 2)}, b: {"y": (2, 1)}}).axes[0].containers],
}  # fmt: skip


@pytest.mark.parametrize("chart", SERIES)
def test_a_model_the_data_and_a_term_keep_their_colour_wherever_and_beside_whatever_they_stand(chart):
    names = list(show.COLOURS)
    for a, b in zip(names, names[1:] + names[:1], strict=True):
        for pair in ((a, b), (b, a), ("anything", a)):
            found = [to_hex(colour) for colour in SERIES[chart](*pair)]
            expected = [show.COLOURS.get(name) for name in pair]
            assert all(e in (None, f) for f, e in zip(found, expected, strict=True)), pair


def test_a_label_takes_the_colour_of_the_family_it_is_said_to_be_of():
    for index in range(9):
        assert style.colour_and_marker("samples", index, {"samples": "prior"})[0] == show.COLOURS["prior"]
        assert style.colour_and_marker("kl", index) == (show.COLOURS["kl"], style.MARKERS["kl"])
        assert style.colour_and_marker("x", index, {"x": "#123456"})[0] == "#123456"


def test_terms_that_papers_share_have_a_colour():
    """A term of one paper alone may take the next of the cycle: no other figure can contradict it."""
    papers = {id(conf.paper): conf.paper for conf in catalogue.runs().values()}.values()
    named = [term for paper in papers for term in paper.TERMS]
    shared = {term for term in named if named.count(term) > 1}
    assert {"loss", "rec", "kl"} <= shared <= set(show.COLOURS)
    drawing = {catalogue.short_name(paper) for paper in papers if hasattr(paper.Model, "decode")}
    assert drawing - {"linear", "encoder"} <= set(show.COLOURS), "those two are VAEs"


def test_a_colour_that_is_used_twice_means_two_things_that_meet_in_no_figure():
    twice = {frozenset(n for n in show.COLOURS if show.COLOURS[n] == colour) for colour in show.COLOURS.values()}
    assert {pair for pair in twice if len(pair) > 1} == {frozenset(p) for p in (("prior", "kl"), ("vae", "loss"), ("pca", "ppca"))}


def sample_figures():
    return {
        "grid": show.grid(noise(16)), "rows": show.rows({"a": noise(8)}), "manifold": show.manifold(Plane(), 5),
        "curves": show.curves(HISTORY, ["loss", "kl"]), "bars": show.bars([1.0, 2.0], "x", "y"),
        "errorbars": show.errorbars([1, 2], {"vae": ([1, 2], [1, 1])}, "x", "y", floor=1),
        "histogram": show.histogram({"real": [1.0, 2.0]}, "x"), "rate": show.rate_distortion({"a": (1, 2)}),
        "latent_map": show.latent_map(np.eye(2), [0, 1]), "compare": show.compare(np.eye(2), np.eye(2)),
    }  # fmt: skip


def test_all_figures_are_one_width_on_opaque_paper_with_alt_text_and_legible_type():
    for name, figure in sample_figures().items():
        assert isinstance(figure, Figure), name
        assert 10 < len(figure.alt) <= 150, name
        assert figure.get_figwidth() == pytest.approx(style.WIDTH, abs=0.01), name
        data, metadata = figure._repr_png_()
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
        assert metadata == {"width": 704}, name
        assert (picture[..., 3] == 255).all(), name
        corner = np.array([int(style.PAPER[i : i + 2], 16) for i in (1, 3, 5)])
        assert abs(picture[0, 0, :3].astype(int) - corner).max() <= 2, name
        sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
        assert min(sizes, default=9) >= 9, name
        assert touching(figure) == [], name


def test_settings_of_the_reader_are_left_alone_and_have_no_say():
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"figure.facecolor": "red", "font.size": 3, "axes.facecolor": "red"}):
        figure = show.bars([1.0], "x", "y")
        assert figure.axes[0].xaxis.label.get_fontsize() == 11.5
        red = drawn(figure)
    assert (red == drawn(show.bars([1.0], "x", "y"))).all()
    assert dict(matplotlib.rcParams) == before


def test_drawing_needs_no_pyplot_and_importing_no_matplotlib():
    source = """
import sys
from gencore import show
assert "matplotlib" not in sys.modules
show.png(show.bars([1.0, 2.0], "x", "y"))
assert "matplotlib.pyplot" not in sys.modules and "IPython" not in sys.modules
show.numbers(a=1)
"""
    subprocess.run([sys.executable, "-c", source], check=True)


# Numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("as it is", "as it is"), (True, "True"), (7, "7"), (-60000, "−60,000"), (0.0, "0"), (103.94, "103.9"),
        (-103.94, "−103.9"), (12.345678, "12.3"), (0.98712, "0.987"), (0.012345, "0.0123"), (60000.4, "60,000"),
        (1.234e-6, "1.2 × 10⁻⁶"), (-1.234e-12, "−1.2 × 10⁻¹²"), (float("nan"), "nan"), (np.float32(2.5), "2.50"), (torch.tensor(3), "3"),
        ((12.345, 0.41), "12.3 ± 0.4"), ((12.345, 0.123), "12.35 ± 0.12"), ((1234.5, 56.0), "1,234 ± 56"),
        ((1.0, float("nan")), "1.00"), ((1.0, float("inf")), "1.00"), ((1.0, 0.0), "1.00"), ((2.0, -1.0), "2.00"),
        ((float("nan"), 0.5), "nan ± 0.5"), (float("inf"), "inf"), (-float("inf"), "−inf"), (("x", None), "x"),
        ((0.0, 0.0), "0"), ((1e9, 1e-9), "1,000,000,000"), ((torch.tensor(1.0), torch.tensor(float("nan"))), "1.00"),
        ((12.345, None, 1), "12.3"), (-0.0, "0"), ((-0.0001, 0.01), "0.000 ± 0.010"), (999.4, "999.4"), (1234.5, "1,234"), ((12.345, 0.41, 3), "12.3 ± 0.4"), ((-85.2, 2.0), "−85 ± 2"),
    ],
)  # fmt: skip
def test_text_of_a_value(value, expected):
    assert show.text(value) == expected


def test_numbers_outside_a_notebook_print_an_aligned_table(capsys):
    show.numbers({"kl-divergence": (16.2, 0.1)}, n=3)
    assert capsys.readouterr().out == "kl-divergence  16.20 ± 0.10\nn              3\n"


@pytest.fixture(scope="module")
def executed():
    """A notebook that was executed: a table of numbers and a figure."""
    book = nbformat.v4.new_notebook()
    book.cells = [
        nbformat.v4.new_code_cell('from gencore import show\nshow.numbers({"rate-d10": (16.2, 0.5)}, n=60_000, minus=-2.5)'),
        nbformat.v4.new_code_cell('show.bars([1.0, 2.0], "x", "y")'),
    ]
    return NotebookClient(book, timeout=120, kernel_name="python3").execute()


def test_a_notebook_holds_one_table_that_records_its_numbers_and_one_picture(executed):
    (table,) = executed.cells[0].outputs
    assert table.output_type == "display_data" and set(table.data) == {"text/plain"}
    assert table.data["text/plain"].splitlines() == ["rate-d10  16.2 ± 0.5", "n         60,000", "minus     −2.50"]
    assert table.metadata == {"gencore": {"numbers": {"rate-d10": "16.2 ± 0.5", "n": "60,000", "minus": "−2.50"}}}
    (output,) = executed.cells[1].outputs
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.metadata["image/png"] == {"width": 704}
