"""A live figure's HTML is whole, described and repeatable, and shows what the run says."""

import io
import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gencore import controls, embed, evaluate, explore, runs


@pytest.fixture
def get(monkeypatch, bare):
    """runs.get of the published runs, with the embedded images in place of the real ones."""
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    return runs.get


@pytest.fixture(params=["latent", "several", "autoencoder", "interpolate", "training", "draw"])
def figure(request, get):
    make = {
        "latent": lambda: explore.latent(get("vae-mnist-d2"), 300),
        "several": lambda: explore.latent([get("vae-mnist-d2"), get("vae-mnist-d4")], 300),
        "autoencoder": lambda: explore.latent(get("ae-mnist-d2"), 300),
        "interpolate": lambda: explore.interpolate(get("vae-mnist-d10")),
        "training": lambda: explore.training(get("vae-mnist-d2")),
        "draw": lambda: explore.draw([get("encoder-mnist-d2"), get("encoder-mnist-d4")]),
    }
    return make[request.param]


def inside(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.S)[1])


def test_the_page_is_whole_described_and_repeatable(figure):
    one, two = figure(), figure()
    assert one.page() == two.page()
    page = one.page()
    assert page.count("<script") == page.count("</script>") == 2
    assert one._esm in page and one._css in page
    assert "http" not in re.sub(r"https?://www.w3.org\S+", "", page)
    alts = re.findall(r'alt="([^"]*)"', one.html)
    assert alts and len(set(alts)) == len(alts)
    assert all(15 <= len(alt) <= 150 for alt in alts), alts
    assert inside(page) == one.spec | {"state": one.state}
    assert "Live figure: " in page and "live figure" in repr(one)


def test_what_a_notebook_shows(figure):
    data, _ = figure()._repr_mimebundle_()
    assert data["text/html"] == figure().page()
    assert "model_id" in data["application/vnd.jupyter.widget-view+json"]


def test_no_network_is_over_its_limit(figure):
    spec = figure().spec
    models = spec.get("models", [spec])
    found = [m[key] for m in models for key in ("encoder", "decoder") if key in m]
    assert all(len(json.dumps(net)) <= embed.LIMIT for net in found)
    assert found or spec["figure"] == "training"


def test_text_in_a_figure_cannot_end_its_script(get):
    made = explore.latent(get("vae-mnist-d2"), 50)
    made.spec = made.spec | {"names": ["</script><b>"] * 10}
    assert made.page().count("</script>") == 2
    assert inside(made.page())["names"][0] == "</script><b>"


def test_the_plane_takes_the_units_that_vary(get):
    run = get("vae-mnist-d10")
    made = explore.latent(run, 200)
    with torch.no_grad():
        mu = run.model.encode(run.data.test.images[:200] / 255)[0]
    spread = mu.var(0)
    assert sorted(made.spec["models"][0]["axes"]) == sorted(spread.argsort()[-2:].tolist())
    assert len(made.state["z"]) == 10


def test_means_are_the_codes_of_the_first_image_of_each_class(get):
    run = get("vae-mnist-d4")
    made = explore.latent(run, 50).spec
    rows = [int((run.data.test.labels == c).nonzero()[0]) for c in range(10)]
    mu = run.model.encode(run.data.test.images[rows] / 255)[0].detach().half().numpy()
    means = np.frombuffer(embed.raw(made["models"][0]["means"]["f16"]), "<f2").reshape(10, 4)
    np.testing.assert_allclose(means, mu, atol=1e-2)
    pixels = np.frombuffer(embed.raw(made["examples"]["u8"]), np.uint8).reshape(10, 1, 28, 28)
    np.testing.assert_array_equal(pixels, run.data.test.images[rows].numpy())


def test_an_autoencoder_brings_its_fitted_gaussian(get):
    run = get("ae-mnist-d2")
    made = explore.latent(run, 50).spec
    assert made["radii"] == [] and "fitted" in made["drawn"]
    np.testing.assert_allclose(made["models"][0]["spread"], run.model.code_chol.flatten(), rtol=1e-6)
    assert explore.latent(get("vae-mnist-d2"), 50).spec["radii"] == [1, 2]


def test_the_film_is_the_run(get):
    run = get("vae-mnist-d2")
    spec = explore.training(run, count=8).spec
    assert spec["steps"] == run.film["steps"].tolist()
    assert (np.diff(spec["marks"]) > 0).all() and 0 < spec["marks"][0] < spec["marks"][-1] < 100
    assert f"{run.history['kl'][-1]:.3f}" in spec["terms"][-1]
    assert len(spec["terms"]) == len(spec["steps"])


def test_the_mark_is_where_the_curve_has_the_step(get):
    """The first and the last point of the lowest curve are the chart's outermost blue pixels there."""
    made = explore.training(get("vae-mnist-d2"), count=8)
    chart = re.search(r'class="chart"[^>]*base64,([^"]+)"', made.html)[1]
    pixels = np.asarray(Image.open(io.BytesIO(embed.raw(chart))).convert("RGB")).astype(int)
    low = pixels[int(0.7 * len(pixels)) :]
    blue = np.abs(low - [0x56, 0x80, 0xFC]).sum(2) < 40
    columns = np.flatnonzero(blue.any(0)) / pixels.shape[1] * 100
    marks = made.spec["marks"]
    assert [columns[0], columns[-1]] == pytest.approx([marks[0], marks[-1]], abs=1.2)


def test_what_cannot_be_shown_is_said(get):
    with pytest.raises(ValueError, match="kept no samples"):
        explore.training(get("vae-mnist-d4"))
    run = get("vae-mnist-d2")
    one = torch.nn.Linear(784, 1)
    run.model = type("M", (torch.nn.Module,), {"encode": lambda self, x: one(x.flatten(1)), "latent_dim": 1})()
    with pytest.raises(ValueError, match="one latent dimension"):
        explore._latent(run, run.data.test, 50, "0123456789", [0])


def test_the_module_is_small():
    lines = explore.Live._esm.splitlines()
    assert len(lines) < 600
    assert max(map(len, lines)) <= 125


# ---------------------------------------------------------------- controls


@pytest.fixture
def trainer(get):
    made = controls.Training("vae-mnist-d2", steps=20)
    yield made
    made.stop()


def test_controls_train_what_the_sliders_say(trainer):
    published = [p.clone() for p in runs.get("vae-mnist-d2").model.parameters()]
    trainer.latent_dim.value, trainer.beta.value = 3, 2.0
    trainer.start()
    trainer.thread.join()
    assert trainer.model.latent_dim == 3 and trainer.history["step"] == [20]
    assert "Step 20 of 20" in trainer.status.value
    assert bytes(trainer.picture.value).startswith(b"\x89PNG")
    assert trainer.go.description == "Train" and not trainer.again.disabled
    after = runs.get("vae-mnist-d2").model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(published, after, strict=True))


def test_each_slider_reaches_its_own_setting(trainer, monkeypatch):
    seen, step = {}, controls.vae.Step

    def watched(model, lr, beta, seed):
        seen.update(lr=lr, beta=beta, seed=seed, latent_dim=model.latent_dim)
        return step(model, lr, beta, seed=seed)

    monkeypatch.setattr(controls.vae, "Step", watched)
    trainer.latent_dim.value, trainer.beta.value, trainer.lr.value = 5, 4.0, 1e-3
    trainer.start()
    trainer.thread.join()
    assert seen == {"lr": pytest.approx(1e-3), "beta": pytest.approx(4.0), "seed": 0, "latent_dim": 5}


def test_sampling_again_shows_other_draws_of_the_same_model(trainer):
    trainer.sample()  # nothing to sample from yet
    assert not trainer.picture.value
    trainer.start()
    trainer.thread.join()
    first = bytes(trainer.picture.value)
    trainer.again.click()
    assert bytes(trainer.picture.value) != first


def test_a_stopped_training_leaves_a_usable_model(trainer, until):
    trainer.steps.value = 5000
    trainer.go.click()
    trainer.start()  # a second start changes nothing
    until(lambda: trainer.model is not None)
    trainer.go.click()
    assert not trainer.running and trainer.go.description == "Train"
    assert torch.isfinite(evaluate.decode(trainer.model, torch.zeros(1, 2))).all()


def test_an_error_in_the_background_is_shown(trainer, monkeypatch):
    monkeypatch.setattr(runs, "build", lambda conf: 1 / 0)
    trainer.start()
    trainer.thread.join()
    assert "ZeroDivisionError" in trainer.status.value and trainer.go.description == "Train"


def test_controls_are_for_vaes_and_leave_one_line_in_a_page(trainer):
    with pytest.raises(ValueError, match="classifier"):
        controls.Training("classifier-mnist")
    page = trainer._repr_mimebundle_()["text/html"]
    assert re.fullmatch(r'<p class="gencore-kernel">[^<>]+</p>', page)


def test_gencore_alone_does_not_import_the_widgets():
    import subprocess

    code = "import sys, gencore; from gencore import runs, show; sys.exit('anywidget' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
