"""The small Sphinx extensions: numbers from runs, docstrings as a page."""

import re

import pytest
import reference
import results


def meta(name, seed=0, data="mnist", profile="full", ruler="mnist", **metrics):
    """The description of a run as `runs.describe` gives it."""
    config = {"paper": "any", "data": data, "seed": seed, "batch": 128, "lr": 0.002,
              "model": {"latent_dim": 10, "channels": 3}, "objective": {}}  # fmt: skip
    return {"name": name, "config": config, "metrics": metrics, "parameters": 1000, "steps": 10,
            "wall_s": 60.0, "cpu_s": 1190.4, "hardware": "a CPU", "versions": {"torch": "2"},
            "profile": profile, "stand_in": False, "history": {}, "ruler": ruler}  # fmt: skip


class Runs:
    """What the page asks of gencore.runs: a catalogue of descriptions, some of them wrong."""

    def __init__(self, descriptions, states=None):
        self.descriptions, self.states = descriptions, states or {}

    def names(self):
        return list(self.descriptions)

    def state(self, name):
        return self.states.get(name, "ready")

    def describe(self, name):
        if isinstance(self.descriptions[name], Exception):
            raise self.descriptions[name]
        return self.descriptions[name]

    def seeds(self, name):
        if name.startswith("own") or name not in self.descriptions:
            raise LookupError(name)
        return [n for n in (name, f"{name}-s1", f"{name}-s2") if n in self.descriptions]

    def summary(self, name, metric):
        values = [self.descriptions[n]["metrics"][metric] for n in self.seeds(name)]
        return sum(values) / len(values), (1.5 if len(values) > 1 else None), len(values)


@pytest.fixture
def page(monkeypatch):
    """`page(descriptions, states)`: the results page of these runs."""
    real = results.gencore

    def build(descriptions, states=None):
        runs = Runs(descriptions, states)
        monkeypatch.setattr(results, "gencore", lambda name: runs if name == "runs" else real(name))
        return results.page()

    return build


def rows(text):
    """{first cell: other cells} of all tables of a page."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return {re.sub(r"\[(.*)\]\(.*\)", r"\1", line[0]).replace("\u2011", "-"): line[1:] for line in lines}


def test_a_row_is_the_mean_over_the_seeds_with_the_books_one_formatter(page):
    text = page({"vae-x": meta("vae-x", elbo=-100.0, frechet_prior=2.5, n=10_000),
                 "vae-x-s1": meta("vae-x-s1", 1, elbo=-102.0, frechet_prior=2.5, n=10_000)})  # fmt: skip
    assert rows(text)["vae-x"] == ["−101.0 ±\N{NO-BREAK SPACE}1.4", "2.50", "2"]
    assert rows(text)["ELBO (nats)"] == ["−100.0", "−102.0", "−101.0 ±\N{NO-BREAK SPACE}1.4"]
    assert rows(text)["training, seconds of CPU time"] == ["1,190", "1,190"]
    assert "seed 1" in text and "10,000 images in each set" in text and "1,000 parameters" in text


def test_columns_follow_from_what_was_recorded(page):
    text = page({"c": meta("c", accuracy=0.5), "a": meta("a", elbo=-1.0, frechet_prior=3.0),
                 "b": meta("b", frechet_prior=2.0, frechet_floor=0.125, kl_per_dim=[1, 2]),
                 "new": meta("new", some_new_measure=7)})  # fmt: skip
    tables = [block for block in text.split("\n\n") if block.startswith("| run")]
    assert [block.splitlines()[0] for block in tables] == [
        "| run | test accuracy | seeds |",
        "| run | ELBO (nats) | Fréchet, prior | seeds |",
        "| run | some new measure | seeds |",
    ]
    assert rows(text)["b"] == ["–", "2.00", "1"] and "kl_per_dim" not in text
    assert "the floor of the Fréchet distance is 0.125" in text


def test_rows_have_human_names_and_stand_in_the_order_of_their_dimensions(page):
    def made(name, paper, d, **model):
        found = meta(name, frechet_prior=1.0)
        found["config"] |= {"paper": paper, "model": {"latent_dim": d, **model}}
        return name, found

    text = page(dict([made("vae-mnist-d10", "vae", 10), made("ae-mnist-d10", "ae", 10), made("vae-mnist-d2", "vae", 2),
                      made("vae-mnist-d10-sigma-wide", "vae", 10, sigma="optimal"), made("vae-mnist-linear", "vae", 3),
                      made("vae-mnist-d10b", "vae", 10, sigma=1.0)]))  # fmt: skip
    assert re.findall(r"^\| \[(.+?)\]\(#run-(.+?)\)", text, re.M) == [
        ("VAE, *d* = 2", "vae-mnist-d2"), ("vae\u2011mnist\u2011linear", "vae-mnist-linear"),
        ("VAE, *d* = 10", "vae-mnist-d10"), ("vae\u2011mnist\u2011d10b", "vae-mnist-d10b"),
        ("VAE, *d* = 10, σ learned, twice the channels", "vae-mnist-d10-sigma-wide"),
        ("autoencoder, *d* = 10", "ae-mnist-d10"),
    ]  # fmt: skip
    assert results.human("vae-mnist-d10", {"paper": "vae", "data": "mnist", "model": {"latent_dim": 10, "sigma": 1.0}}) \
        == "VAE, *d* = 10, σ = 1"


def test_each_dataset_and_profile_has_its_own_table_and_names_its_ruler(page):
    text = page({"m": meta("m", frechet_prior=1.0), "t": meta("t", data="ring", ruler="points", frechet_prior=1.0),
                 "q": meta("q", profile="quick", frechet_prior=1.0),
                 "own-cats": meta("own-cats", data="/some/where/cats", ruler="cifar10", frechet_prior=1.0)})  # fmt: skip
    assert re.findall("### On (.+)", text) == ["mnist", "ring", "mnist", "cats"]
    assert re.findall("measured in the (.+?)[.;]", text) == [
        "features of `classifier-mnist`", "coordinates", "features of `classifier-mnist`",
        "features of `classifier-cifar10`"]  # fmt: skip
    assert "Profile `quick`" in text and "/some/where" not in text
    assert "a ruler of its own" in text


def test_the_page_says_what_is_missing_or_stale_and_survives_what_is_damaged(page):
    good = meta("good", elbo=-1.0)
    text = page(
        {"good": good, "old": good, "gone": None, "torn": RecursionError(), "list": [], "odd":
         good | {"metrics": None}, "own-bad": OSError("x"), "seen": good},
        {"old": "stale", "gone": "missing", "seen": "damaged"},
    )  # fmt: skip
    first = rows(text.partition("## Overview")[0])
    said = {name: cells[0].split("**")[1] for name, cells in first.items() if name != "run"}
    assert said == {"old": "stale", "gone": "missing", **dict.fromkeys(
        ("torn", "list", "odd", "own-bad", "seen"), "damaged")}  # fmt: skip
    assert "8 runs are listed here; 1 of them" in text
    assert "(run-good)=" in text and "(run-old)=" in text and "(run-torn)=" not in text


def test_a_number_in_the_text_has_the_same_digits(page):
    page({"vae-x": meta("vae-x", elbo=-100.0), "vae-x-s1": meta("vae-x-s1", 1, elbo=-103.0),
          "one": meta("one", frechet_prior=2.0)})  # fmt: skip
    assert results.number("vae-x:elbo") == "−101.5 ± 1.5"
    assert results.number(" one : frechet_prior ") == "2.00"
    with pytest.raises(LookupError):
        results.number("one:nothing")


def test_docstrings_are_escaped_and_lists_kept():
    text = reference.plain("|a|^2 of $x$, `a_b`.\n\nstep: the *step*\nRaises Error.")
    assert text == "\\|a\\|\\^2 of \\$x\\$, `a_b`.\n\n- `step`: the \\*step\\*\n\nRaises Error."


def test_reference_has_every_public_function():
    page = reference.page()
    assert "(gencore.vae.kl_normal)=" in page and "kl_normal(mu, logvar)" in page
    assert "(gencore.vae._" not in page and "(gencore.metrics._" not in page


def test_reference_of_a_package_and_of_classes_with_one_name(tmp_path, monkeypatch):
    files = {"vae.py": "class Model:\n    'A VAE.'", "gan.py": "class Model:\n    'A GAN.'",
             "explore/__init__.py": "'Live figures.'\nclass Live:\n    'One.'",
             "explore/_latent.py": "def latent(run):\n    'Drag.'\ndef helper():\n    'No.'"}  # fmt: skip
    (tmp_path / "explore").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(reference, "PACKAGE", tmp_path)
    page = reference.page()
    assert re.findall(r"^\((.*)\)=", page, re.M) == [
        "gencore.vae", "gencore.vae.Model", "gencore.gan", "gencore.gan.Model",
        "gencore.explore", "gencore.explore.Live", "gencore.explore.latent"]  # fmt: skip
