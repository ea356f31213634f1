"""A live figure's HTML is whole, described and repeatable, and shows what the run says."""

import ast
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import refresh_figures
import torch
from notebook_files import read
from PIL import Image
from small_networks import SMALL, Model, images, run, trained

from gencore import ae, embed, explore, style, vae
from gencore.explore import _training as training
from gencore.explore import shared

MAKE = {
    "latent": lambda: explore.latent(run(), 30),
    "several": lambda: explore.latent([run(Model(2)), run(Model(4))], 30),
    "autoencoder": lambda: explore.latent(run(Model(2, fitted=True)), 30),
    "interpolate": lambda: explore.interpolate(run()),
    "training": lambda: explore.training(trained()),
    "points": lambda: explore.training(trained(points=True)),
    "draw": lambda: explore.draw([run(Model(2)), run(Model(4))]),
    "one": lambda: explore.draw(run()),
}


@pytest.fixture(params=MAKE)
def figure(request):
    return MAKE[request.param]


def inside(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])


def png(tag):
    """The pixels of the first picture in some HTML: (H, W, 3)."""
    octets = embed.raw(re.search(r'base64,([^"]+)"', tag)[1])
    return np.asarray(Image.open(io.BytesIO(octets)).convert("RGB")).astype(int)


# ---------------------------------------------------------------- every figure


def test_the_page_is_whole_described_and_repeatable(figure):
    one, two = figure(), figure()
    assert one.page() == two.page()
    page = one.page()
    assert page.count("<script") == page.count("</script>") == 2
    assert page.count(explore.script(one.spec["figure"])) == page.count(explore.STYLE) == 1
    assert "http" not in re.sub(r"https?://www.w3.org\S+", "", page)
    alts = re.findall(r'alt="([^"]*)"', one.html)
    assert alts and len(set(alts)) == len(alts)
    assert all(15 <= len(alt) <= 150 for alt in alts), alts
    assert inside(page) == one.spec | {"state": one.state}
    assert "Live figure: " in page and repr(one).startswith("<live figure: ")


def test_what_a_notebook_and_a_kernel_get(figure):
    made = figure()
    data, _ = made._repr_mimebundle_()
    assert data["text/html"] == figure().page()
    assert "model_id" in data["application/vnd.jupyter.widget-view+json"]
    state = made.get_state()
    assert state["_esm"] == explore.script(made.spec["figure"]) and state["_css"] == explore.STYLE


def test_no_network_is_over_its_limit(figure):
    spec = figure().spec
    models = spec.get("models", [spec])
    found = [m[key] for m in models for key in ("encoder", "decoder") if key in m]
    assert all(len(json.dumps(net)) <= embed.LIMIT for net in found)
    assert found or spec["figure"] == "training"


def test_a_figure_carries_the_core_and_its_own_part_alone(figure):
    made = figure()
    assert re.findall(r"/\* figure: (\w+) \*/", made.page()) == [made.spec["figure"]]


def test_text_in_a_figure_cannot_end_its_script():
    made = explore.latent(run(), 10)
    made.spec = made.spec | {"names": ["</script><b>"] * 10}
    assert made.page().count("</script>") == 2
    assert inside(made.page())["names"][0] == "</script><b>"


def test_an_old_notebook_gets_the_present_script(figure):
    """What tools/refresh_figures.py does, on an output of another version."""
    page = figure().page()
    old = page.replace("export default", "export  default").replace("display: grid", "display:grid")
    first = re.sub(r"/\* explore\.js \*/.*?</script>", "/* explore.js */\nwhole()</script>", page, flags=re.S)
    assert old != page != first
    assert refresh_figures.refreshed(old) == refresh_figures.refreshed(first) == page
    assert refresh_figures.refreshed(page) == page
    gone = first.replace('data-figure="', 'data-figure="gone')
    assert refresh_figures.refreshed(gone) == gone


def test_only_what_is_old_in_a_notebook_is_written(tmp_path, capsys):
    page = explore.interpolate(run()).page()
    old = page.replace("export default", "export  default")
    outputs = [{"output_type": "display_data", "metadata": {}, "data": {"text/html": html.splitlines(True)}}
               for html in (page, old)]  # fmt: skip
    (tmp_path / "notebooks").mkdir()
    for name, some in (("01-old", outputs), ("02-new", outputs[:1])):
        notebook = {"cells": [{"cell_type": "code", "source": ["x"], "outputs": some}], "metadata": {}}
        (tmp_path / f"notebooks/{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    refresh_figures.main(tmp_path)
    assert capsys.readouterr().out == "01-old.ipynb: 1 figures refreshed\n"
    notebook = read(tmp_path / "notebooks/01-old.ipynb")
    assert ["".join(data["text/html"]) for data in refresh_figures.live_outputs(notebook)] == [page, page]
    refresh_figures.main(tmp_path)
    assert not capsys.readouterr().out


# ---------------------------------------------------------------- two files a figure


def test_a_figure_is_found_by_its_two_files():
    scripts = {path.stem for path in explore.ASSETS.glob("*.js")}
    assert scripts == set(explore.FIGURES)
    assert {path.stem for path in (explore.ASSETS / "core").glob("*.js")} == set(explore.CORE)
    for name in explore.FIGURES:
        made = getattr(explore, name)
        assert made.__module__ == f"gencore.explore._{name}" and made.__doc__
        assert f"FIGURES.{name} = " in (explore.ASSETS / f"{name}.js").read_text(encoding="utf-8")
    assert set(explore.FIGURES) < set(dir(explore)) and set(explore.FIGURES) < set(explore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        explore.nothing  # noqa: B018


def test_a_figure_is_imported_when_it_is_asked_for():
    code = "import sys; from gencore import explore; explore.draw; " \
           "sys.exit('gencore.explore._draw' not in sys.modules or 'gencore.explore._latent' in sys.modules)"  # fmt: skip
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_figure_imports_another():
    for name in explore.FIGURES:
        path = explore.ASSETS.parents[1] / f"explore/_{name}.py"
        named = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.ImportFrom)]
        found = {alias.name for n in named if n.module == "gencore.explore" for alias in n.names}
        assert found <= {"Live", "shared"}, found


def test_each_script_can_be_read_in_one_sitting():
    for path in explore.ASSETS.rglob("*.js"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 140 and max(map(len, lines)) <= 110, path.name


# ---------------------------------------------------------------- the latent plane


def test_the_plane_takes_the_units_that_vary():
    made = explore.latent(run(Model(5)), 40)
    with torch.no_grad():
        spread = Model(5).infer(images().test.images[:40] / 255).var(0)
    assert made.spec["models"][0]["axes"] == sorted(spread.argsort()[-2:].tolist())
    assert len(made.state["z"]) == 5


def test_means_are_the_codes_of_the_first_image_of_each_class():
    made = explore.latent(run(Model(4)), 30).spec
    rows = [int((images().test.labels == c).nonzero()[0]) for c in range(5)]
    with torch.no_grad():
        mu = Model(4).infer(images().test.images[rows] / 255).half().numpy()
    means = np.frombuffer(embed.raw(made["models"][0]["means"]["f16"]), "<f2").reshape(5, 4)
    np.testing.assert_allclose(means, mu, atol=1e-2)
    pixels = np.frombuffer(embed.raw(made["examples"]["u8"]), np.uint8).reshape(5, 1, 28, 28)
    np.testing.assert_array_equal(pixels, images().test.images[rows].numpy())
    assert made["examples"]["names"] == [f"class {c}" for c in range(5)]


class Given(Model):
    """A model whose codes are what the test says."""

    def __init__(self, codes):
        super().__init__(codes.shape[1])
        self.codes = codes

    def infer(self, x, generator=None):
        return self.codes[: len(x)]


@pytest.mark.parametrize("largest, reach", [(1.0, 3.0), (6.1, 6.5), (7.5, 7.5)])
def test_the_plane_reaches_as_far_as_all_but_the_farthest_codes(largest, reach):
    """Up to half a unit farther than 99.5 % of the numbers, and at least three sigma of the prior."""
    z = torch.zeros(60, 3).uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(0))
    z[:10, 1] = largest  # 10 of 180 numbers
    assert explore.latent(run(Given(z)), 60).spec["models"][0]["reach"] == reach


def test_one_far_code_does_not_make_the_plane_wide():
    z = torch.zeros(60, 10)
    z[:, :2] = torch.linspace(-4, 4, 60)[:, None]
    z[7, 0] = 100
    assert explore.latent(run(Given(z)), 60).spec["models"][0]["reach"] < 10


def test_an_autoencoder_brings_its_fitted_gaussian():
    model = Model(2, fitted=True)
    made = explore.latent(run(model), 30).spec
    gaussian = model.priors["gaussian"]
    assert made["radii"] == [] and "fitted" in made["drawn"]
    np.testing.assert_allclose(made["models"][0]["spread"], gaussian.chol.flatten(), rtol=1e-6)
    np.testing.assert_allclose(made["models"][0]["middle"], gaussian.mean, rtol=1e-6)
    plain = explore.latent(run(Model(2)), 30).spec
    assert plain["radii"] == [1, 2] and "spread" not in plain["models"][0]
    assert plain["models"][0]["middle"] == [0, 0]


def test_a_vae_is_drawn_from_its_prior_though_a_gaussian_was_fitted_to_its_codes():
    torch.manual_seed(0)
    made = {}
    for paper in (vae, ae):
        model = paper.Model(2, **SMALL).eval()
        model.priors["gaussian"].mean.fill_(3.0)
        made[paper] = explore.latent(run(model), 30).spec
    assert made[vae]["radii"] == [1, 2] and "N(0, I)" in made[vae]["drawn"]
    assert "spread" not in made[vae]["models"][0] and made[vae]["models"][0]["middle"] == [0, 0]
    assert made[ae]["radii"] == [] and "fitted" in made[ae]["drawn"]
    assert made[ae]["models"][0]["middle"] == [3, 3] and "spread" in made[ae]["models"][0]


def test_what_cannot_be_shown_is_said():
    class Drawer(torch.nn.Module):
        latent_dim, priors = 2, {}

        def decode(self, z):
            return z

    for figure in (explore.latent, explore.interpolate):
        with pytest.raises(ValueError, match="small can draw images but infers no codes"):
            figure(run(Drawer()))
    with pytest.raises(ValueError, match="small has one latent dimension; a plane needs two"):
        explore.latent(run(Model(1)))
    with pytest.raises(ValueError, match="small kept no samples"):
        explore.training(run())
    with pytest.raises(TypeError, match="Drawer.decode is not its `decoder` and a sigmoid"):
        shared.decoder(Drawer())
    model = Model(2)
    model.decode = lambda z: model.decoder(z).tanh() / 2 + 0.5
    with pytest.raises(TypeError, match="Model.decode is not its `decoder` and a sigmoid"):
        shared.decoder(model)


# ---------------------------------------------------------------- paths


@torch.no_grad()
def test_the_arc_of_the_first_frame_has_the_mean_length_and_turns_half_way():
    model, x = Model(3), images().test.images / 255
    made = explore.interpolate(run(model))
    a, b = model.infer(x[made.state["a"]][None]), model.infer(x[made.state["b"]][None])
    la, lb = a.norm(), b.norm()
    arc = a / la + b / lb
    arc *= (la + lb) / 2 / arc.norm()
    assert abs(torch.cosine_similarity(arc, a) - torch.cosine_similarity(arc, b)) < 1e-5
    for name, z in (("sphere", arc), ("line", (a + b) / 2)):
        found = png(made.html[made.html.index(f'data-name="{name}"') :])[..., 0]
        assert np.abs(found - 255 * model.decode(z)[0, 0].numpy()).max() <= 1, name


# ---------------------------------------------------------------- training


def test_each_step_says_the_record_that_it_belongs_to():
    spec = explore.training(trained()).spec
    assert spec["steps"] == [1, 10, 20, 40]
    assert spec["terms"] == [
        "discriminator loss 1.50, generator loss 0.500 nats over the first 10 steps; Fréchet distance of samples 8.00",
        "discriminator loss 1.50, generator loss 0.500 nats; Fréchet distance of samples 4.00",
        "discriminator loss 1.25, generator loss 0.750 nats; penalty 0.250 R₁; Fréchet distance of samples 2.00",
        "discriminator loss 1.06, generator loss 1.00 nats; penalty 0.125 R₁; Fréchet distance of samples 1.00",
    ]


def terms_of(**values):
    """Terms of a run whose names are their keys; a tuple is (unit, values)."""
    units = {key: f"{key}, {unit}" for key, (unit, _) in values.items()}
    history = {"step": [1, 2, 3]} | {key: list(v) for key, (_, v) in values.items()}
    return training._terms(run(terms=units, history=history))


@pytest.mark.parametrize("values, panels", [
    ({"loss": ("nats", (500, 120, 110)), "rec": ("nats", (-480, -100, -90)), "kl": ("nats", (5, 20, 20))}, [["loss", "rec"], ["kl"]]),
    ({"d": ("nats", (1.4, 1.2, 1)), "g": ("nats", (0.7, 2, 3)), "r1": ("1", (None, 0.01, None))}, [["d", "g"], ["r1"]]),
    ({"a": ("nats", (1, 1, 1)), "b": ("pixels", (1, 1, 1))}, [["a"], ["b"]]),
    ({"loss": ("nats", (3, 2, 1)), "silent": ("nats", (None, None, None))}, [["loss"]]),
    ({"loss": ("", (0, 0, 0)), "b": ("", (1, 1, 1))}, [["loss"], ["b"]]),
])  # fmt: skip
def test_terms_of_one_unit_and_of_like_size_share_a_panel(values, panels):
    assert [list(panel) for panel in training._panels(terms_of(**values))] == panels


@pytest.fixture
def drawn(monkeypatch):
    """`drawn(run)`: the Axes of the curves that training draws of a run."""
    found = []

    def kept(figure, alt):
        found[:] = figure.axes
        return '<img alt="Curves of a run in training">'

    def draw(made):
        monkeypatch.setattr(embed, "chart_image", kept)
        steps = made.snapshots["steps"].tolist()
        distances = made.snapshots["frechet"].tolist()
        training._curves(made.name, training._panels(training._terms(made)), steps, distances)
        return found

    return draw


def lines(ax):
    return {line.get_label(): (line.get_xdata(), line.get_ydata(), line.get_color()) for line in ax.lines}


def test_curves_are_the_history_at_its_own_steps(drawn):
    loss, penalty, distance = map(lines, drawn(trained()))
    x, y, _ = loss["discriminator loss"]
    assert list(x) == [10, 20, 30, 40] and list(y) == [1.5, 1.25, 1.125, 1.0625]
    (x, y, _), = penalty.values()
    assert list(x) == [20, 40] and list(y) == [0.25, 0.125]
    (x, y, _), = distance.values()
    assert list(x) == [1, 10, 20, 40] and list(y) == [8, 4, 2, 1]


def test_terms_have_their_colours_and_a_vaes_reconstruction_lies_beside_the_loss(drawn):
    made = trained()
    made.config.paper.TERMS = {"loss": "−ELBO, nats", "rec": "reconstruction term, nats", "kl": "KL term, nats"}
    made.history = {"step": [20, 40], "loss": [110, 100], "rec": [-100, -90], "kl": [10, 10]}
    terms, kl, _ = drawn(made)
    found = lines(terms)
    assert terms.get_title(loc="left") == "nats" and kl.get_title(loc="left") == "KL term, nats"
    assert found["−ELBO"][2] == style.COLOURS[style.CYCLE[0]]
    assert found["−reconstruction term"][2] == style.COLOURS["rec"]
    assert list(found["−reconstruction term"][1]) == [100, 90]
    assert lines(kl)["KL term"][2] == style.COLOURS["prior"]


def test_a_single_term_and_no_distance_are_one_panel(drawn):
    made = trained()
    made.config.paper.TERMS, made.history = {"loss": "loss, bits"}, {"step": [40], "loss": [2.0]}
    made.snapshots["frechet"] = torch.tensor([])
    ax, = drawn(made)
    assert ax.get_title(loc="left") == "loss, bits" and ax.lines[0].get_marker() == "o"
    spec = explore.training(made).spec
    assert spec["terms"][-1] == "loss 2.00 bits" and spec["terms"][0].endswith("over the first 40 steps")


def test_the_mark_is_where_the_curve_has_the_step():
    """The first and the last point of the lowest curve are the chart's outermost dark pixels there."""
    made = explore.training(trained())
    chart = png(made.html[made.html.index('class="chart"') :])
    band = chart[int(0.72 * len(chart)) : int(0.86 * len(chart))]  # the distances, without words
    dark = (band.max(2) < 90).any(0)
    columns = np.flatnonzero(dark) / chart.shape[1] * 100
    marks = made.spec["marks"]
    assert (np.diff(marks) > 0).all()
    assert [columns[0], columns[-1]] == pytest.approx([marks[0], marks[-1]], abs=1.2)


@pytest.mark.parametrize("count, columns, shape", [(16, 4, (57, 115)), (2, 2, (28, 57)), (5, 4, (57, 115))])
def test_snapshots_are_laid_out_as_the_script_does(count, columns, shape):
    made, taken = explore.training(trained(), count), trained().snapshots["images"]
    count = min(count, 6)
    assert made.spec["columns"] == columns and made.spec["count"] == count
    board = png(made.html)
    assert board.shape[:2] == shape
    for k in range(count):
        y, x = k // columns * 29, k % columns * 29
        np.testing.assert_array_equal(board[y : y + 28, x : x + 28, 0], taken[-1, k, 0])
    strip = png(made.spec["strip"] + '"')
    for frame in range(4):
        row = strip[28 * frame : 28 * (frame + 1), : 28 * count, 0].reshape(28, count, 28).swapaxes(0, 1)
        np.testing.assert_array_equal(row, taken[frame, :count, 0])


def test_points_come_with_the_data_behind_them():
    made = trained(points=True)
    spec = explore.training(made).spec
    points = np.frombuffer(embed.raw(spec["points"]["f16"]), "<f2").reshape(4, 40, 2)
    np.testing.assert_allclose(points, made.snapshots["images"], atol=1e-3)
    data = np.frombuffer(embed.raw(spec["data"]["f16"]), "<f2").reshape(-1, 2)
    assert len(data) == 300 and (np.abs(data - spec["middle"]) <= spec["reach"]).all()
    assert spec["count"] == 40 and "strip" not in spec


def test_the_decoder_of_a_figure_has_its_big_layer_in_8_bits():
    """A chapter carries several of them, and a page has its limit."""
    from gencore import runs
    from gencore.explore import shared

    layers = shared.decoder(runs.get("vae-mnist-d2").model)["layers"]
    kinds = [next(iter(layer["weight"])) for layer in layers if "weight" in layer]
    assert kinds.count("i8") == 1 and kinds.count("f16") == len(kinds) - 1
