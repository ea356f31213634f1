"""The small Sphinx extensions: numbers from runs, docstrings as a page."""

import statistics

import pytest
import reference
import results


@pytest.mark.parametrize(
    "mean, sd, text",
    [(103.456, 0.321, "103.46 ± 0.32"), (103.456, 12.3, "103 ± 12"),
     (-151.2345, 0.0567, "−151.234 ± 0.057"),
     (0.98765, None, "0.9877"), (10.0, None, "10"), (10.0, 0.0, "10 ± 0"), (0.0, None, "0"),
     (1234567.0, None, "1\u202f234\u202f567"), (4.25, None, "4.250"), (0.0001, None, "0.00010"),
     (0.47676500000000005, 6.8e-17, "0.4768 ± 0.0000")],
)  # fmt: skip
def test_numbers_have_the_digits_they_can_bear(mean, sd, text):
    assert results.show(mean, sd) == text


def test_spread_over_seeds_is_the_sample_standard_deviation():
    values = [1.0, 2.5, 4.5]
    assert results.over_seeds(values) == results.show(
        statistics.mean(values), statistics.stdev(values)
    )
    assert results.over_seeds([4.25]) == "4.250"


def meta(seed, value):
    config = {"paper": "vae", "data": "mnist", "seed": seed, "batch": 128, "lr": 0.002}
    record = {"parameters": 1000, "steps": 10, "wall_s": 60.0, "cpu_s": 90.0, "hardware": "a CPU"}
    return record | {
        "config": config,
        "versions": {"torch": "2"},
        "metrics": {"elbo": value, "kl_per_dim": [1, 2]},
    }


def test_results_page_says_what_is_missing_and_stale(monkeypatch):
    found = {"vae-x": [meta(0, -100.0), meta(1, -102.0)]}
    states = {"vae-x": "ready", "vae-x-s1": "stale", "vae-y": "missing"}
    monkeypatch.setattr(results, "load", lambda: (found, states))
    page = results.page()
    assert "**Stale**" in page and "vae-x-s1" in page and "**Missing**" in page and "vae-y" in page
    assert "−101.0 ±\N{NO-BREAK SPACE}1.4" in page and "seed 1" in page and "kl_per_dim" not in page
    assert "1.5" in page  # 90 s of CPU time in minutes


def test_docstrings_are_escaped_and_lists_kept():
    text = reference.plain("|a|^2 of $x$, `a_b`.\n\nstep: the *step*\nRaises Error.")
    assert text == "\\|a\\|\\^2 of \\$x\\$, `a_b`.\n\n- `step`: the \\*step\\*\n\nRaises Error."


def test_reference_has_every_public_function():
    page = reference.page()
    assert "(gencore.vae.kl_normal)=" in page and "kl_normal(mu, logvar)" in page
    assert "(gencore.vae._" not in page and "(gencore.metrics._" not in page
