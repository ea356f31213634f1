"""Controls train what their sliders say, beside the notebook, and leave one line in a page."""

import dataclasses
import inspect
import re
import sys

import papers
import pytest
import torch

from gencore import ae, catalogue, controls, evaluate, linear, runs, vae


@pytest.fixture
def trainer(smoke, monkeypatch):
    """The controls of a run of the catalogue, with the embedded images and a network of a fingernail."""
    shrink(monkeypatch, "vae-mnist-d2")
    made = controls.Training("vae-mnist-d2", steps=20)
    yield made
    made.stop()


def shrink(monkeypatch, name, **changes):
    """Give a run of the catalogue a narrow network: what it is called with stays as it is."""
    conf = catalogue.config(name)
    changes = {"model": papers.narrow(conf).model} | changes
    monkeypatch.setitem(catalogue.runs(), name, dataclasses.replace(conf, **changes))


@pytest.fixture
def seen(monkeypatch):
    """What the steps of the papers were made with, and the models."""
    found = []
    for paper in (vae, ae, linear):
        made = paper.Step.__init__

        def watched(self, model, *arguments, made=made, **options):
            found.append({"model": model, **options})
            made(self, model, *arguments, **options)

        watched.__signature__ = inspect.signature(made)
        monkeypatch.setattr(paper.Step, "__init__", watched)
    return found


def test_controls_train_what_the_sliders_say(trainer, smoke):
    trainer.latent_dim.value, trainer.beta.value = 3, 2.0
    trainer.start()
    trainer.thread.join()
    assert trainer.model.latent_dim == 3 and trainer.history["step"] == [20]
    assert "Step 20 of 20" in trainer.status.value
    assert bytes(trainer.picture.value).startswith(b"\x89PNG")
    assert trainer.go.description == "Train" and not trainer.again.disabled
    assert runs.config("vae-mnist-d2").model["latent_dim"] == 2 and not list(smoke.rglob("*.json"))


def test_each_slider_reaches_its_own_setting(trainer, seen):
    trainer.latent_dim.value, trainer.beta.value, trainer.lr.value = 5, 4.0, 1e-3
    trainer.steps.value = 40
    trainer.start()
    trainer.thread.join()
    (found,) = seen
    assert found.pop("model").latent_dim == 5 and trainer.history["step"] == [40]
    assert found == {"lr": pytest.approx(1e-3), "beta": pytest.approx(4.0), "seed": 0}


def test_beta_changes_what_is_trained(trainer):
    """Not only the argument: a large beta costs codes their information."""
    kl = []
    for beta in (0.01, 30.0):
        trainer.beta.value, trainer.lr.value = beta, 1e-2
        trainer.start()
        trainer.thread.join()
        kl.append(trainer.history["kl"][-1])
    assert kl[0] > 2 * kl[1]


def test_untouched_sliders_train_the_run_as_it_is(smoke, monkeypatch, seen):
    """Its own beta, and a rate beyond the slider's usual end."""
    shrink(monkeypatch, "vae-mnist-d2", objective={"beta": 4.0, "reduction": "mean"})
    for name in ("vae-mnist-d2", "vae-mnist-linear", "ae-mnist-d2"):
        conf = runs.config(name)
        made = controls.Training(name, steps=20)
        made.start()
        made.thread.join()
        assert made.history["step"] == [20], made.status.value
        found = seen.pop()
        assert found.pop("model").latent_dim == conf.model["latent_dim"]
        assert found.pop("lr") == pytest.approx(conf.lr) and found.pop("seed") == conf.seed
        expected = {"beta": 1.0} if conf.paper is vae else {}
        assert found == pytest.approx(expected | conf.objective), name


@pytest.mark.parametrize(("name", "sliders"), [
    ("vae-mnist-d2", ["latent dimensions", "β"]), ("vae-cifar10-d200", ["latent dimensions", "β"]),
    ("ae-mnist-d2", ["latent dimensions"]), ("vae-mnist-linear", ["latent dimensions"]), ("encoder-mnist-d2", ["β"])])  # fmt: skip
def test_a_run_has_the_sliders_that_its_paper_has_a_use_for(name, sliders):
    made = controls.Training(name)
    assert [child.description for child in made.children[:-3]] == [*sliders, "learning rate", "steps"]
    assert made.latent_dim.value == runs.config(name).model.get("latent_dim", 1)


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
    thread = trainer.thread
    assert trainer.running and trainer.go.description == "Stop"
    trainer.start()  # a second start changes nothing
    assert trainer.thread is thread
    until(lambda: trainer.model is not None)
    trainer.go.click()
    assert not trainer.running and trainer.go.description == "Train"
    assert torch.isfinite(evaluate.decode(trainer.model, torch.zeros(1, 2))).all()


def test_an_error_in_the_background_is_shown(trainer, monkeypatch):
    monkeypatch.setattr(runs, "begin", lambda conf, dataset: 1 / 0)
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
