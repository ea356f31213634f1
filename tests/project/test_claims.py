"""The verdicts of "Where this book comes from" follow from the numbers that stand beside them.

The page prints the numbers of the runs at each build, but its words were written once: when runs are
trained again, a sentence that no longer agrees with them fails here.
"""

import re
from itertools import pairwise

import pytest
from notebook_files import ROOT

runs = pytest.importorskip("gencore.runs")
SIZES = (2, 4, 10, 20, 32, 64)
PAGE = ROOT / "book/where-this-book-comes-from.md"


def mean(name, metric):
    return runs.summary(name, metric)[0]


def digits(metric, kind="vae"):
    """{d: mean over the seeds} of a metric, for the VAEs of digits or the autoencoders."""
    return {d: mean(f"{kind}-mnist-d{d}", metric) for d in SIZES}


def test_a_mean_on_a_page_is_over_seeds_of_one_configuration():
    for path in (ROOT / "book").glob("*.md"):
        for name in set(re.findall(r"\{run\}`([^`:]+):", path.read_text(encoding="utf-8"))):
            states = {runs.state(each) for each in runs.seeds(name)}
            assert states in ({"ready"}, {"stale"}), (path.name, name, states)


@pytest.mark.parametrize(
    "metric, sign", [("frechet_rec", -1), ("frechet_prior", -1), ("kid_prior", -1),
                     ("precision", 1), ("recall", 1), ("frechet_gmm", -1)])  # fmt: skip
def test_from_2_to_10_latents_every_measure_of_the_table_improves(metric, sign):
    values = digits(metric)
    assert all(sign * (values[b] - values[a]) > 0 for a, b in pairwise((2, 4, 10)))


def test_from_10_to_64_latents_the_measures_of_samples_disagree():
    change = {
        metric: mean("vae-mnist-d64", metric) - mean("vae-mnist-d10", metric)
        for metric in ("frechet_rec", "kid_prior", "recall", "precision", "frechet_prior")
    }
    assert change["frechet_rec"] < 0 and change["kid_prior"] < 0 and change["recall"] > 0.02
    assert change["precision"] < 0.01
    assert abs(change["frechet_prior"]) < 0.15 * mean("vae-mnist-d10", "frechet_prior")


def test_a_rebuilt_image_is_nearer_to_real_ones_than_a_sample():
    rec, prior = digits("frechet_rec"), digits("frechet_prior")
    assert all(rec[d] < prior[d] for d in SIZES)


def test_an_autoencoder_needs_a_fitted_density():
    prior, gmm = (digits(f"frechet_{key}", "ae")[10] for key in ("prior", "gmm"))
    assert gmm < prior / 2 and gmm < digits("frechet_prior")[10]


def test_blur_is_the_bottlenecks_with_2_latents_and_mostly_not_with_64():
    vae, ae = digits("sharpness_rec"), digits("sharpness_rec", "ae")
    real = mean("vae-mnist-d10", "sharpness_real")
    regained = {d: (ae[d] - vae[d]) / (real - vae[d]) for d in SIZES}
    assert regained[2] < 0.5 < regained[64]


def test_a_prior_that_follows_the_codes_draws_better():
    assert mean("vae-mnist-d10", "frechet_gmm") < mean("vae-mnist-d10", "frechet_prior")
    assert 0 < mean("vae-mnist-d10", "mismatch_gmm") < mean("vae-mnist-d10", "kl")


def test_samples_are_plausible_and_too_soft():
    real = mean("vae-mnist-d10", "sharpness_real")
    assert mean("vae-mnist-d10", "sharpness_prior") < 0.75 * real
    assert 0.5 < mean("vae-mnist-d10", "precision")


def test_on_photographs_a_vae_covers_less_and_blurs_more_than_on_digits():
    def kept(name):
        return mean(name, "sharpness_rec") / mean(name, "sharpness_real")

    digits, photographs = "vae-mnist-d10", "vae-cifar10-d200-sigma"
    assert mean(photographs, "recall") < mean(digits, "recall") / 2
    assert kept(photographs) < kept(digits)
    assert mean("vae-cifar10-d200-mean", "active_units") == 0


def test_training_a_linear_vae_reaches_its_formula():
    """What the front page says of closed forms."""
    name = "vae-mnist-linear"
    assert mean(name, "ppca") - mean(name, "elbo") == pytest.approx(0, abs=0.05)
