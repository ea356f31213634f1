"""check: each planted mistake is found and named; what is right passes."""

import io
import math
import re
import sys

import pytest
import torch

from gencore import catalogue, check, runs, store, vae

MU, LOGVAR = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def total(x):
    return x.square().flatten(1).sum(1)  # (B,)


def both(mu, logvar):
    return mu + logvar, mu * logvar


def noisy(mu, logvar):
    return mu + logvar * torch.randn_like(mu)


@pytest.fixture(autouse=True)
def gentle(monkeypatch):
    monkeypatch.delenv("GENCORE_STRICT", raising=False)


def verdict(capsys, passed):
    """The one line that was printed."""
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and line.startswith("✓ " if passed else "✗ ")
    return line


def test_a_right_answer_passes(capsys):
    def kl(mu, logvar):
        return (mu**2 / 2 + (logvar.exp() - 1 - logvar) / 2).sum(-1)

    assert check.same(kl, vae.kl_normal, MU, LOGVAR) is True
    assert "kl agrees" in verdict(capsys, True)


MISTAKES = {
    "mean over all": (lambda x: total(x).mean(), r"shape \(\) where \(6,\).*the mean over all images"),
    "sum over all": (lambda x: total(x).sum(), "the sum over all images"),
    "no sum": (lambda x: x.square().flatten(1), "The sum over the last dimensions is missing"),
    "no sum, 4-D": (lambda x: x.square(), "The sum over the last dimensions is missing"),
    "mean of pixels": (lambda x: x.square().flatten(1).mean(1), "a mean over 16 where a sum"),
    "sign": (lambda x: -total(x), "the sign is wrong"),
    "sign and mean": (lambda x: -x.square().flatten(1).mean(1), "the sign is wrong, and it is a mean over 16"),
    "twice": (lambda x: 2 * total(x), "twice as much"),
    "half": (lambda x: total(x) / 2, "half as much"),
    "bits": (lambda x: total(x) / math.log(2), "in bits"),
    "exp": (lambda x: total(x).exp(), "the exp of what is expected"),
    "log": (lambda x: total(x).log(), "the log of what is expected"),
    "root": (lambda x: total(x).sqrt(), "the sqrt of what is expected"),
    "constant": (lambda x: total(x) + 3, "the constant 3.000 is added"),
    "not finite": (lambda x: total(x) / 0, "not finite"),
    "one wrong": (lambda x: total(x) + torch.eye(6)[2], r"at \[2\] \(1 of 6 values differ\)"),
    "transposed": (lambda x: total(x)[:, None].T, r"shape \(1, 6\) where \(6,\) is expected"),
    "integers": (lambda x: total(x).long(), "dtype torch.int64 where torch.float32"),
    "no return": (lambda x: None, "is there a `return`"),
    "an exception": (lambda x: x.nothing, "it raised AttributeError"),
    "a text": (lambda x: "12", "it is of type str, where numbers are expected"),
    "a generator": (lambda x: (v for v in x), "it is of type generator, where numbers are expected"),
    "an object": (lambda x: object(), "it is of type object, where numbers are expected"),
    "a function": (lambda x: total, "it is of type function, where numbers are expected"),
    "a list of texts": (lambda x: ["1"] * 6, "1 values are expected, not 6"),
    "in place": (lambda x: total(x.mul_(1) if x.zero_() is None else x), "changes its input number 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_found_and_named(name, capsys):
    answer, words = MISTAKES[name]
    kept = X.clone()
    assert check.same(answer, total, X, hint="Look again.") is False
    line = verdict(capsys, False)
    assert re.search(words, line), line
    assert line.endswith("Hint: Look again.\n")
    assert torch.equal(X, kept)


def test_several_values_are_compared_one_by_one(capsys):
    assert check.same(lambda a, b: (a + b, a * b), both, MU, LOGVAR)
    verdict(capsys, True)
    assert not check.same(lambda a, b: (a + b, -a * b), both, MU, LOGVAR)
    assert "value 2: " in verdict(capsys, False)
    assert not check.same(lambda a, b: a + b, both, MU, LOGVAR)
    assert "2 values are expected, not 1" in verdict(capsys, False)
    assert not check.same(lambda: {"a": 1.0, "b": 3.0}, lambda: {"a": 1.0, "b": 2.0})
    assert "'b': 3.000 where 2.000" in verdict(capsys, False)


def test_both_draw_the_same_random_numbers_and_yours_are_untouched(capsys):
    state = torch.get_rng_state()
    assert check.same(lambda m, s: m + torch.randn_like(m) * s, noisy, MU, LOGVAR)
    verdict(capsys, True)
    assert torch.equal(torch.get_rng_state(), state)
    generator = torch.Generator().manual_seed(3)
    assert check.same(vae.reparameterise, vae.reparameterise, MU, LOGVAR, generator)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())


def test_tiny_differences_of_float32_are_no_mistake(capsys):
    assert check.same(lambda x: total(x.double()).float() * (1 + 1e-6), total, X)
    assert not check.same(lambda x: total(x) * (1 + 1e-3), total, X)


def test_strict_turns_a_failure_into_an_error(monkeypatch, capsys):
    monkeypatch.setenv("GENCORE_STRICT", "1")
    assert check.number(3.0, 3.0)
    verdict(capsys, True)
    with pytest.raises(AssertionError, match="✗ 2.000: expected 3.000"):
        check.number(2.0, 3.0)
    with pytest.raises(AssertionError, match="the sign is wrong"):
        check.same(lambda x: -total(x), total, X)


@pytest.mark.parametrize(
    ("answer", "passed", "words"),
    [
        (3.05, True, "3.050 nats: expected 3.000 nats ± 0.1."),
        (torch.tensor(2.95), True, "2.950 nats"),
        (3.2, False, "3.200 nats: expected 3.000 nats ± 0.1. Hint: h"),
        (-3.0, False, "the sign is wrong"),
        (6.0, False, "twice as much"),
        (4.328, False, "in bits"),
        (float("nan"), False, "not finite"),
        ("three", False, "'three' is not a number; expected 3.000 nats"),
        (None, False, "None is not a number"),
    ],
)
def test_number(answer, passed, words, capsys):
    assert check.number(answer, 3.0, 0.1, "nats", hint="h") is passed
    assert words in verdict(capsys, passed)


def test_number_without_tolerance_is_exact(capsys):
    assert check.number(10, 10) and not check.number(10.001, 10)


def test_no_cause_is_made_up(capsys):
    assert not check.number(0.5, 0)
    assert "✗ 0.500: expected 0.\n" == capsys.readouterr().out
    assert not check.same(lambda x: total(x) + torch.randn(6), total, X)
    assert "Likely" not in verdict(capsys, False)


def test_texts_and_other_answers_that_are_no_numbers_are_compared_as_they_are(capsys):
    assert check.same(lambda: "sum", lambda: "sum")
    verdict(capsys, True)
    assert not check.same(lambda: "mean", lambda: "sum", hint="h")
    assert verdict(capsys, False).endswith("'mean' where 'sum' is expected. Hint: h\n")
    assert not check.same(lambda: 3, lambda: "sum")
    assert not check.same(lambda: {"a": 1, "b": "x"}, lambda: {"a": 1, "b": "y"})
    assert "'b': 'x' where 'y' is expected" in capsys.readouterr().out


def test_ragged_lists_are_no_array(capsys):
    assert not check.same(lambda: ([1.0, [2.0]], 1.0), lambda: ([1.0, 2.0], 1.0))
    assert "value 1: it is of type list, where numbers are expected" in verdict(capsys, False)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1"])
def test_a_terminal_of_few_letters_gets_a_verdict_still(encoding, monkeypatch):
    written = io.BytesIO()
    terminal = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert check.number(-2.0, -2.0) and not check.number(-2.0, 3.0, 0.5)
    terminal.flush()
    lines = written.getvalue().decode(encoding).splitlines()
    assert lines == ["OK: -2.000: expected -2.000.", "WRONG: -2.000: expected 3.000 ? 0.5."]


@pytest.fixture
def two_runs(monkeypatch):
    """Stand-ins for the artefacts: one metric with three seeds, one with a tiny deviation."""
    values = {"kl": (16.0, 0.5, 3), "elbo": (-104.0, 0.01, 3), "mse": (0.02, None, 1)}
    monkeypatch.setattr(runs, "metrics", lambda name: dict.fromkeys(values))
    monkeypatch.setattr(runs, "summary", lambda name, metric: values[metric])


@pytest.mark.parametrize(
    ("metric", "value", "passed", "words"),
    [
        ("kl", 17.9, True, "inside 14.00 to 18.00 (seeds: 3)"),
        ("kl", 18.1, False, "above 14.00 to 18.00"),
        ("kl", 13.9, False, "below"),
        ("elbo", -105.9, True, "inside −106.1 to −101.9"),
        ("elbo", -107.0, False, "below"),
        ("mse", 0.0203, True, "(seeds: 1)"),
        ("mse", float("nan"), False, "mse"),
    ],
)
def test_band_is_four_deviations_and_at_least_two_per_cent(two_runs, metric, value, passed, words, capsys):
    assert check.band("vae-mnist-d10", metric, value) is passed
    assert words in verdict(capsys, passed)


def test_band_says_when_it_does_not_compare(two_runs, monkeypatch, capsys):
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    monkeypatch.setenv("GENCORE_STRICT", "1")
    assert check.band("vae-mnist-d10", "kl", 1e9) is True
    assert "not compared, profile smoke uses stand-in data" in verdict(capsys, True)


def test_band_names_the_nearest_metric(two_runs):
    with pytest.raises(KeyError, match="no metric 'klx'; the nearest: kl"):
        check.band("vae-mnist-d10", "klx", 1.0)


@pytest.fixture
def recorded(own_runs):
    """Three descriptions of one run and its repetitions, whose weights nobody needs for a band."""
    for name, elbo in (("vae-mnist-d2", -100.0), ("vae-mnist-d2-s1", -101.0), ("vae-mnist-d2-s2", -99.0)):
        conf = catalogue.config(name)
        meta = {"config": conf.record(), "profile": "full", "metrics": {"elbo": elbo, "kl_per_dim": [1.0]}}
        store.save(own_runs / name, {"w": torch.zeros(1)}, {**meta, "history": {}}, keep=False)
    return "vae-mnist-d2"


def test_band_is_that_of_the_recorded_numbers_and_needs_no_weights(recorded, capsys):
    """Mean -100, sd 1: ± 4."""
    for value, passed in ((-100.0, True), (-103.9, True), (-104.1, False), (-95.9, False), (-96.1, True)):
        assert check.band(recorded, "elbo", value) is passed
        assert "−104.0 to −96.00 (seeds: 3)" in verdict(capsys, passed)
    with pytest.raises(KeyError, match="no metric 'Elbo'; the nearest: elbo"):
        check.band(recorded, "Elbo", -100.0)


def test_a_published_run_is_inside_its_own_band(published, monkeypatch, capsys):
    repeated = [name for name in catalogue.runs() if name.endswith("-s1")]
    ready = [name[:-3] for name in repeated if (published / f"{name}.json").exists()]
    if not ready:
        pytest.skip("no repeated run in book/runs yet")
    monkeypatch.setenv("GENCORE_RUNS", str(published))
    for name in ready:
        mean, sd, n = runs.summary(name, "elbo")
        assert n >= 2 and check.band(name, "elbo", mean) and not check.band(name, "elbo", 2 * mean)
        assert check.band(name, "elbo", runs.metrics(name)["elbo"])
