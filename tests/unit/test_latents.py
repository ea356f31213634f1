"""latents: densities against SciPy and scikit-learn, draws against moments, files against both."""

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal
from sklearn.mixture import GaussianMixture

from gencore import latents


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def codes():
    """3,000 skewed codes in three dimensions, about as wide as 0.2, 1 and 4, all correlated."""
    turn = torch.tensor([[0.2, 0.0, 0.0], [0.5, 1.0, 0.0], [-1.0, 2.0, 4.0]], dtype=torch.float64)
    noise = torch.randn(3000, 3, generator=seeded(), dtype=torch.float64)
    return (noise + 0.2 * noise**2) @ turn.T + torch.tensor([1.0, -2.0, 5.0])


@pytest.fixture
def clusters():
    """Three well separated clusters of 600, 300 and 100 codes in the plane, one after another."""
    shapes = {(0.0, 0.0): (600, 0.5), (6.0, 0.0): (300, 1.0), (0.0, 8.0): (100, 0.25)}
    parts = [
        torch.tensor(centre) + sd * torch.randn(n, 2, generator=seeded(n)) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]])
        for centre, (n, sd) in shapes.items()
    ]
    return torch.cat(parts).double()


def fitted(kind, codes):
    return {
        "normal": lambda: latents.Normal(codes.shape[1]),
        "gaussian": lambda: latents.Gaussian.fit(codes),
        "mixture": lambda: latents.Mixture.fit(codes, 3),
    }[kind]()


KINDS = ["normal", "gaussian", "mixture"]


# log-densities


def test_normal_log_prob_is_scipys(codes):
    density = latents.Normal(3)
    expected = multivariate_normal(np.zeros(3)).logpdf(codes.numpy())
    assert density.log_prob(codes).numpy() == pytest.approx(expected, rel=1e-12)


def test_gaussian_log_prob_is_scipys(codes):
    density = latents.Gaussian.fit(codes).double()
    cov = (density.chol @ density.chol.T).numpy()
    expected = multivariate_normal(density.mean.numpy(), cov).logpdf(codes.numpy())
    assert density.log_prob(codes).numpy() == pytest.approx(expected, rel=1e-9)


def test_mixture_log_prob_is_the_logsumexp_of_its_parts(clusters):
    density = latents.Mixture.fit(clusters, 3).double()
    weights = density.log_weights.exp().numpy()
    chols = latents._unpacked(density.tril, 2).numpy()
    parts = [
        np.log(w / weights.sum()) + multivariate_normal(m, L @ L.T).logpdf(clusters.numpy())
        for w, m, L in zip(weights, density.means.numpy(), chols, strict=True)
    ]
    assert density.log_prob(clusters).numpy() == pytest.approx(logsumexp(parts, axis=0), rel=1e-9)


def test_a_new_density_is_the_standard_normal(codes):
    expected = latents.Normal(3).log_prob(codes.float())
    for density in (latents.Gaussian(3), latents.Mixture(3, 4)):
        assert torch.allclose(density.log_prob(codes.float()), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_integrates_to_one(kind, clusters):
    side = torch.linspace(-12, 16, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    total = fitted(kind, clusters).double().log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_far_away_the_log_density_is_finite_where_the_density_underflows(kind, clusters):
    value = fitted(kind, clusters).log_prob(torch.tensor([[1e3, -1e3]]))
    assert torch.isfinite(value).all() and value.item() < -1e4


# fits


def test_gaussian_fit_is_the_maximum_likelihood_estimate(codes):
    """Mean and covariance with the divisor N: no other Gaussian gives these codes a higher density."""
    few = codes[:20]
    density = latents.Gaussian.fit(few).double()
    mean, cov = few.mean(0).numpy(), np.cov(few.T.numpy(), bias=True)
    assert density.mean.numpy() == pytest.approx(mean, rel=1e-6)
    assert (density.chol @ density.chol.T).numpy() == pytest.approx(cov, rel=1e-5)
    best = multivariate_normal(mean, cov).logpdf(few.numpy()).mean()
    assert density.log_prob(few).mean().item() == pytest.approx(best, abs=1e-5)
    for factor in (0.5, 0.9, 20 / 19, 2.0):  # 20 / 19 is the divisor N - 1
        other = multivariate_normal(mean, factor * cov).logpdf(few.numpy()).mean()
        assert other < density.log_prob(few).mean().item() - 1e-3


def test_gaussian_of_one_dimension():
    z = torch.tensor([[1.0], [3.0]])
    density = latents.Gaussian.fit(z)
    assert density.mean.tolist() == [2] and density.chol.item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1, 1e3, 1e5])
def test_a_gaussian_of_codes_that_do_not_vary_can_be_fitted_and_drawn_from(scale):
    """A dimension that has collapsed, and seven that are made of two."""
    z = scale * torch.randn(500, 2, generator=seeded(), dtype=torch.float64)
    mix = torch.randn(2, 6, generator=seeded(1), dtype=torch.float64)
    z = torch.cat([z[:, :1], z[:, :1], torch.zeros(500, 1), z @ mix + 1], 1)
    density = latents.Gaussian.fit(z)
    drawn = density.sample(1000, seeded(1))
    assert torch.isfinite(drawn).all() and drawn[:, 2].abs().max() < 1e-3 * scale
    assert (drawn[:, 0] - drawn[:, 1]).abs().max() < 1e-3 * scale
    assert torch.isfinite(density.log_prob(drawn)).all()


def test_mixture_fit_is_scikit_learns(clusters):
    found = GaussianMixture(3, random_state=5, reg_covar=1e-5).fit(clusters.numpy())
    density = latents.Mixture.fit(clusters, 3, seed=5)
    assert density.log_weights.exp().numpy() == pytest.approx(found.weights_, rel=1e-5)
    assert density.means.numpy() == pytest.approx(found.means_, rel=1e-5)
    chols = latents._unpacked(density.tril, 2).double()
    assert (chols @ chols.mT).numpy() == pytest.approx(found.covariances_, abs=1e-6)
    expected = found.score_samples(clusters.numpy())
    assert density.double().log_prob(clusters).numpy() == pytest.approx(expected, abs=1e-4)


def test_the_seed_is_where_em_begins(codes):
    """Of ten components in one cloud there are many good ones: which is found depends on the start."""
    for seed in (0, 5):
        found = GaussianMixture(10, random_state=seed, reg_covar=1e-5).fit(codes.numpy())
        density = latents.Mixture.fit(codes, seed=seed)
        assert density.means.numpy() == pytest.approx(found.means_, abs=1e-5)


@pytest.mark.parametrize(("d", "most"), [(2, 100), (64, 100), (200, 32), (512, 12)])
def test_in_many_dimensions_em_takes_fewer_iterations_and_warns_of_nothing(monkeypatch, recwarn, d, most):
    limits, fit = [], GaussianMixture.fit
    monkeypatch.setattr(GaussianMixture, "fit", lambda self, z: limits.append(self.max_iter) or fit(self, z))
    latents.Mixture.fit(torch.randn(d + 40, d, generator=seeded()), 2)
    assert limits == [most] and not recwarn.list


def test_of_many_codes_it_looks_at_20_000_from_all_parts(monkeypatch):
    """Images that are sorted by class: the first 20,000 would be of one of them alone."""
    looked = []
    fit = GaussianMixture.fit
    monkeypatch.setattr(GaussianMixture, "fit", lambda self, z: looked.append(len(z)) or fit(self, z))
    z = 0.1 * torch.randn(50_000, 1, generator=seeded()) + (torch.arange(50_000) >= 30_000)[:, None] * 5
    density = latents.Mixture.fit(z, 2)
    assert sorted(density.log_weights.exp().tolist()) == pytest.approx([0.4, 0.6], abs=1e-3)
    latents.Mixture.fit(z[:20_000], 1)
    assert looked[0] in range(15_000, 20_001) and looked[1] == 20_000


def test_a_mixture_finds_clusters_that_one_gaussian_smears(clusters):
    mixture, gaussian = latents.Mixture.fit(clusters, 3), latents.Gaussian.fit(clusters)
    assert sorted(mixture.log_weights.exp().tolist()) == pytest.approx([0.1, 0.3, 0.6], abs=0.02)
    gain = mixture.log_prob(clusters.float()).mean() - gaussian.log_prob(clusters.float()).mean()
    assert gain > 0.5


@pytest.mark.parametrize("kind", KINDS[1:])
def test_fits_touch_no_random_state_and_leave_the_codes(kind, codes):
    torch.manual_seed(3), np.random.seed(3)
    state, other, keep = torch.get_rng_state(), np.random.get_state()[1].copy(), codes.clone()
    first, again = fitted(kind, codes), fitted(kind, codes)
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), again.buffers(), strict=True))
    assert torch.equal(torch.get_rng_state(), state) and (np.random.get_state()[1] == other).all()
    assert torch.equal(codes, keep)
    asked = codes.float().requires_grad_()
    assert not any(b.requires_grad for b in fitted(kind, asked).buffers())


def test_a_model_has_its_prior_first_and_two_densities_to_fit():
    densities = latents.prior_and_fits(3)
    kinds = {"prior": latents.Normal, "gaussian": latents.Gaussian, "gmm": latents.Mixture}
    assert list(densities) == list(kinds), "the order is that of what is told: the prior is the model's own"
    for name, kind in kinds.items():
        assert type(densities[name]) is kind and densities[name].dim == 3
    assert densities["gmm"].means.shape == (10, 3)
    z = torch.randn(5, 3)
    for density in densities.values():
        assert torch.allclose(density.log_prob(z), densities["prior"].log_prob(z), atol=1e-5), "not fitted yet"


def test_all_that_can_be_fitted_is_and_the_prior_stays(clusters):
    densities = latents.prior_and_fits(2)
    before = {key: value.clone() for key, value in densities.named_buffers()}
    latents.fit_all(densities, clusters)
    for name in ("gaussian", "gmm"):
        wanted = type(densities[name]).fit(clusters).state_dict()
        found = densities[name].state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted), name
        assert not any(torch.equal(found[key], before[f"{name}.{key}"]) for key in found), name
    prior, z = densities["prior"], clusters.float()
    assert all(torch.equal(b, before[f"prior.{key}"]) for key, b in prior.named_buffers())
    assert torch.allclose(prior.log_prob(z), latents.Normal(2).log_prob(z))
    assert torch.equal(prior.sample(4, seeded()), latents.Normal(2).sample(4, seeded()))
    fits = [density.log_prob(z).mean().item() for density in densities.values()]
    assert fits == sorted(fits) and fits[0] + 1 < fits[1] < fits[2] - 0.4


def test_a_density_that_nobody_can_fit_is_passed_over(clusters):
    densities = torch.nn.ModuleDict({"only": latents.Normal(2)})
    latents.fit_all(densities, clusters)
    assert not densities.state_dict()


def test_densities_are_fitted_in_place_in_the_type_that_they_have(clusters):
    densities = latents.prior_and_fits(2).double()
    gaussian = densities["gaussian"]
    latents.fit_all(densities, clusters)
    assert densities["gaussian"] is gaussian and gaussian.mean.dtype == torch.float64
    assert gaussian.mean.tolist() == pytest.approx(clusters.mean(0).tolist(), rel=1e-6)


BAD = {
    "NaN": torch.full((9, 2), torch.nan),
    "infinite": torch.full((9, 2), torch.inf),
    "one code": torch.zeros(9),
    "images": torch.zeros(9, 1, 2, 2),
    "none": torch.zeros(0, 2),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", [latents.Gaussian, latents.Mixture])
def test_bad_codes_are_refused_in_one_sentence(kind, name):
    with pytest.raises(ValueError, match=r"fitted to finite codes \(N, d\), not to shape \(") as caught:
        kind.fit(BAD[name])
    assert "\n" not in str(caught.value)


def test_too_few_codes_are_refused():
    with pytest.raises(ValueError, match="A Gaussian in 4 dimensions needs more codes than 4"):
        latents.Gaussian.fit(torch.randn(4, 4))
    latents.Gaussian.fit(torch.randn(5, 4))
    with pytest.raises(ValueError, match="A mixture of 10 needs at least as many codes, not 9"):
        latents.Mixture.fit(torch.randn(9, 2))


# draws


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_the_moments_of_the_density(kind, clusters):
    density, n = fitted(kind, clusters), 40_000
    z = density.sample(n, seeded(1)).double()
    assert z.shape == (n, 2)
    if kind == "normal":
        mean, cov = torch.zeros(2), torch.eye(2)
    else:  # a maximum-likelihood fit has the mean and the covariance of its codes, EM's too
        mean, cov = clusters.mean(0), clusters.T.cov(correction=0)
    error = (cov.diagonal() / n).sqrt()
    assert ((z.mean(0) - mean).abs() < 4 * error).all()
    centred = z - mean
    products = centred[:, :, None] * centred[:, None]
    error = products.flatten(1).std(0).view(2, 2) / n**0.5
    assert ((products.mean(0) - cov).abs() < 4 * error + 1e-4).all()


def test_standardised_draws_of_a_gaussian_are_standard_normal_and_independent(codes):
    density = latents.Gaussian.fit(codes)
    z = density.sample(20_000, seeded(2))
    eps = torch.linalg.solve_triangular(density.chol, (z - density.mean).T, upper=False)
    assert all(kstest(row, "norm").pvalue > 1e-4 for row in eps.numpy())
    assert np.abs(np.corrcoef(eps.numpy()) - np.eye(3)).max() < 4 / 20_000**0.5


def test_a_mixture_draws_each_component_as_often_as_its_weight_in_random_order(clusters):
    density, n = latents.Mixture.fit(clusters, 3), 10_000
    z = density.sample(n, seeded(3))
    nearest = torch.cdist(z, density.means).argmin(1)
    shares = torch.bincount(nearest, minlength=3) / n
    weights = density.log_weights.exp()
    assert ((shares - weights).abs() < 4 * (weights * (1 - weights) / n).sqrt() + 2e-3).all()
    first = torch.bincount(nearest[:500], minlength=3) / 500
    assert ((first - weights).abs() < 4 * (weights * (1 - weights) / 500).sqrt() + 2e-3).all()
    repeats = (nearest[1:] == nearest[:-1]).double().mean()
    assert repeats == pytest.approx(weights.square().sum().item(), abs=0.02), "no component in a row"


def test_each_component_is_drawn_with_its_own_shape(clusters):
    density = latents.Mixture.fit(clusters, 3)
    z = density.sample(20_000, seeded(4)).double()
    nearest = torch.cdist(z, density.means.double()).argmin(1)
    chols = latents._unpacked(density.tril, 2).double()
    for i, L in enumerate(chols):
        cov = z[nearest == i].T.cov()
        assert torch.allclose(cov, L @ L.T, atol=0.1 * (L @ L.T).diagonal().max().item())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_means_the_same_codes_and_no_other_random_state_is_touched(kind, clusters):
    density = fitted(kind, clusters)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (density.sample(50, seeded(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(density.sample(50), density.sample(50)), "without one, torch's own"
    one = density.sample(1, seeded())
    assert one.shape == (1, 2) and one.dtype == torch.float32
    assert density.double().sample(3, seeded()).dtype == torch.float64


# files


def test_a_triangle_is_kept_without_its_zeros():
    chols = torch.linalg.cholesky(torch.eye(4) * 5 + torch.rand(4, 4, generator=seeded()).mul(0.1).cov())
    packed = latents._packed(chols)
    assert packed.shape == (10,) and torch.equal(latents._unpacked(packed, 4), chols)
    many = torch.stack([chols, 2 * chols])
    assert torch.equal(latents._unpacked(latents._packed(many), 4), many)
    assert torch.equal(latents._unpacked(latents._packed(torch.eye(3)), 3), torch.eye(3))
    size = sum(t.numel() for t in latents.Mixture(200).state_dict().values())
    assert 2 * size < 420_000, "bytes of ten factors of 200 x 200 in half precision"


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_holds_the_whole_density(kind, codes):
    density, n = fitted(kind, codes), 20
    other = {"normal": latents.Normal(3), "gaussian": latents.Gaussian(3), "mixture": latents.Mixture(3, 3)}[kind]
    other.load_state_dict(density.state_dict())
    assert torch.equal(other.sample(n, seeded()), density.sample(n, seeded()))
    z = codes[:n].float()
    assert torch.equal(other.log_prob(z), density.log_prob(z))
    assert not list(density.parameters()), "nothing in it is trained"
    assert bool(density.state_dict()) == (kind != "normal"), "N(0, I) needs no file"


@pytest.mark.parametrize("dim", [2, 8])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_rounded_to_half_precision_it_is_a_density_still(kind, dim):
    """As an artefact keeps it: near the one that was fitted, its weights summing to one."""
    z = torch.randn(2000, dim, generator=seeded()) @ torch.randn(dim, dim, generator=seeded(1)) / dim**0.5
    z[:, 0] *= 1e-3  # a dimension that is hardly used
    exact = fitted(kind, z)
    half = fitted(kind, z).half().float()
    assert torch.isfinite(half.log_prob(z)).all() and torch.isfinite(half.sample(100, seeded())).all()
    chol = latents._unpacked(half.tril, dim)
    assert (chol.diagonal(dim1=-2, dim2=-1) > 0).all()
    gap = (half.log_prob(z) - exact.log_prob(z)).mean().abs()
    assert gap < 0.01 * dim
    if dim == 2:
        side = torch.linspace(-1, 1, 601, dtype=torch.float64)
        grid = torch.cartesian_prod(side * 0.02, side * 8)
        total = half.double().log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2 * 0.02 * 8
        assert total.item() == pytest.approx(1, abs=0.01)


# seeds


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.0, "1", None, True, math.nan])
def test_a_bad_seed_is_refused_in_one_sentence(seed):
    with pytest.raises(ValueError, match="should be a whole number from 0 to 2\\^63 - 1") as caught:
        latents.generator(seed)
    assert repr(seed) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_a_seed_makes_a_generator_of_its_own(seed):
    made, state = latents.generator(seed), torch.get_rng_state()
    expected = torch.randn(5, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.randn(5, generator=made), expected)
    assert torch.equal(torch.get_rng_state(), state) and made.device.type == "cpu"
