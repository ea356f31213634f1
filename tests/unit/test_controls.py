"""Controls train what their sliders say, beside the notebook, and leave one line in a page."""

import re
import sys

import pytest
import torch

from gencore import controls, evaluate, runs


@pytest.fixture
def get(monkeypatch, bare):
    """runs.get of the published runs, with the embedded images in place of the real ones."""
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    return runs.get


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
