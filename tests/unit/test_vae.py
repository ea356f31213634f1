"""vae: each term against a closed form, an enumeration or an independent package."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.decomposition import PCA
from torch.distributions import Bernoulli, Normal, kl_divergence

from gencore import nets, store, vae

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near(values, expected, errors=4):
    """Is the mean of these independent values the expected one, within four standard errors?"""
    values = torch.as_tensor(values, dtype=F64)
    error = values.std() / len(values) ** 0.5
    return abs(values.mean() - expected) <= errors * error


@pytest.fixture
def posterior():
    """Means and log-variances of a batch, from narrow to wide: two (64, 5) tensors in float64."""
    g = seeded()
    return 2 * torch.randn(64, 5, generator=g, dtype=F64), 3 * torch.randn(
        64, 5, generator=g, dtype=F64
    ) - 1


# the reparameterised sample


def test_samples_have_the_mean_and_the_standard_deviation():
    n = 100_000
    mu = torch.tensor([0.0, 1.5, -2.0], dtype=F64).expand(n, 3)
    sd = torch.tensor([2.0, 0.5, 1.0], dtype=F64)
    z = vae.reparameterise(mu, (2 * sd.log()).expand(n, 3), seeded())
    assert (abs(z.mean(0) - mu[0]) < 4 * sd / n**0.5).all()
    assert (abs(z.std(0) - sd) < 4 * sd / (2 * n) ** 0.5).all()  # not the variances 4, 0.25
    for column in range(3):
        standard = ((z - mu) / sd)[:, column].numpy()
        assert stats.kstest(standard[:20_000], "norm").pvalue > 1e-4
    assert abs(np.corrcoef(z.T.numpy()) - np.eye(3)).max() < 4 / n**0.5


def test_gradients_pass_through_the_sample(posterior):
    """z = mu + exp(logvar / 2) eps: dz/dmu = 1 and dz/dlogvar = (z - mu) / 2."""
    mu, logvar = (t.requires_grad_() for t in posterior)
    z = vae.reparameterise(mu, logvar, seeded())
    weight = torch.randn(z.shape, generator=seeded(1), dtype=F64)
    (weight * z).sum().backward()
    assert torch.equal(mu.grad, weight)
    assert torch.allclose(logvar.grad, weight * (z - mu).detach() / 2, rtol=1e-12)


def test_the_gradient_of_an_expectation_is_right():
    """d/dmu and d/dlogvar of E z^2 = mu^2 + exp(logvar), by one-sample gradients."""
    n = 200_000
    mu = torch.full((n, 1), 1.3, dtype=F64, requires_grad=True)
    logvar = torch.full((n, 1), math.log(0.7), dtype=F64, requires_grad=True)
    vae.reparameterise(mu, logvar, seeded()).square().sum().backward()
    assert near(mu.grad[:, 0], 2 * 1.3) and near(logvar.grad[:, 0], 0.7)


def test_noise_comes_from_the_generator_alone(posterior):
    first = vae.reparameterise(*posterior, seeded(3))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(vae.reparameterise(*posterior, seeded(3)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(vae.reparameterise(*posterior, seeded(4)), first)
    mu = posterior[0]
    assert torch.equal(vae.reparameterise(mu, torch.full_like(mu, -1e9), seeded()), mu)  # no width


# the KL term


def test_kl_agrees_with_torch_distributions(posterior):
    mu, logvar = posterior
    expected = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
    got = vae.kl_normal(mu, logvar)
    assert got.shape == (64,) and torch.allclose(got, expected, rtol=1e-12)


def test_kl_by_hand():
    mu, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    # 1/2 m^2 for the shift; 1/2 (4 - 1 - log 4) for the width
    assert vae.kl_normal(mu, logvar).item() == pytest.approx(
        0.5 + 0.5 * (3 - math.log(4)), rel=1e-6
    )
    assert vae.kl_normal(torch.zeros(3, 7), torch.zeros(3, 7)).tolist() == [0, 0, 0]


def test_kl_agrees_with_monte_carlo():
    n = 1_000_000
    mu = torch.tensor([[0.7, -1.2, 0.0]], dtype=F64)
    logvar = torch.tensor([[-1.0, 0.8, 0.1]], dtype=F64)
    sd = (logvar / 2).exp().numpy()
    z = mu.numpy() + sd * np.random.default_rng(0).standard_normal((n, 3))
    ratio = (stats.norm.logpdf(z, mu.numpy(), sd) - stats.norm.logpdf(z)).sum(1)
    assert near(ratio, vae.kl_normal(mu, logvar).item())


def test_kl_is_never_negative_and_zero_at_the_prior_alone(posterior):
    assert (vae.kl_normal(*posterior) > 0).all()
    mu, logvar = (
        torch.zeros(1, 4, dtype=F64, requires_grad=True),
        torch.zeros(1, 4, dtype=F64, requires_grad=True),
    )
    vae.kl_normal(mu, logvar).sum().backward()
    assert not mu.grad.any() and not logvar.grad.any()


# likelihoods


def test_bernoulli_is_the_exact_average_over_binary_images():
    """The claim of the book about grey pixels, by enumeration of all 2^6 images of six pixels."""
    g = seeded()
    x = torch.rand(3, 1, 2, 3, generator=g, dtype=F64)
    logits = 3 * torch.randn(3, 1, 2, 3, generator=g, dtype=F64)
    average = torch.zeros(3, dtype=F64)
    for pixels in itertools.product((0.0, 1.0), repeat=6):
        b = torch.tensor(pixels, dtype=F64).reshape(1, 2, 3).expand_as(x)
        chance = Bernoulli(x).log_prob(b).flatten(1).sum(1).exp()
        average += chance * Bernoulli(logits=logits).log_prob(b).flatten(1).sum(1)
    assert torch.allclose(vae.bernoulli_log_likelihood(x, logits), average, rtol=1e-12)


def test_bernoulli_of_binary_images_is_a_probability():
    logits = 2 * torch.randn(1, 1, 2, 2, generator=seeded(), dtype=F64)
    images = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)), dtype=F64).reshape(
        16, 1, 2, 2
    )
    log_p = vae.bernoulli_log_likelihood(images, logits.expand_as(images))
    assert log_p.exp().sum().item() == pytest.approx(1, rel=1e-12)
    expected = stats.bernoulli.logpmf(images.numpy(), logits.sigmoid().numpy()).sum((1, 2, 3))
    assert log_p.numpy() == pytest.approx(expected, rel=1e-12)


def test_gaussian_agrees_with_scipy():
    g = seeded()
    x, mean = (torch.randn(5, 3, 4, 4, generator=g, dtype=F64) for _ in range(2))
    for sigma in (0.1, 1.0, torch.tensor(2.5, dtype=F64)):
        expected = stats.norm.logpdf(x.numpy(), mean.numpy(), float(sigma)).sum((1, 2, 3))
        got = vae.gaussian_log_likelihood(x, mean, sigma)
        assert got.shape == (5,) and got.numpy() == pytest.approx(expected, rel=1e-12)
    joint = stats.multivariate_normal(mean[0].numpy().ravel(), 0.01).logpdf(x[0].numpy().ravel())
    assert vae.gaussian_log_likelihood(x, mean, 0.1)[0].item() == pytest.approx(joint, rel=1e-12)


def test_pixels_are_summed_never_averaged():
    zero = torch.zeros(2, 3, 8, 8)
    assert vae.bernoulli_log_likelihood(zero + 0.3, zero).tolist() == pytest.approx(
        [-192 * math.log(2)] * 2
    )
    half_log = 0.5 * math.log(2 * math.pi)
    assert vae.gaussian_log_likelihood(zero, zero, 1.0).tolist() == pytest.approx(
        [-192 * half_log] * 2
    )
    x, y = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    for density in (
        vae.bernoulli_log_likelihood,
        lambda x, y: vae.gaussian_log_likelihood(x, y, 0.3),
    ):
        twice = density(torch.cat([x, x], 3), torch.cat([y, y], 3))
        assert torch.allclose(twice, 2 * density(x, y), rtol=1e-5)


def test_bernoulli_stays_finite_at_the_extremes():
    x = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    logits = torch.tensor([-200.0, 200.0, 200.0, -200.0]).reshape(1, 1, 2, 2).requires_grad_()
    value = vae.bernoulli_log_likelihood(x, logits)
    value.sum().backward()
    assert value.item() == pytest.approx(-400) and torch.isfinite(logits.grad).all()


def test_optimal_sigma_maximises_the_likelihood():
    x, mean = torch.rand(6, 1, 5, 5, dtype=F64), torch.rand(6, 1, 5, 5, dtype=F64)
    best = vae.optimal_sigma(x, mean)

    def total(sigma):
        return vae.gaussian_log_likelihood(x, mean, sigma).sum()

    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        assert total(best) > total(factor * best)
    sigma = best.clone().requires_grad_()
    total(sigma).backward()
    assert abs(sigma.grad) < 1e-9
    # at the optimum the term is -D/2 (log 2 pi MSE + 1), Rybkin et al. (2021)
    expected = -150 / 2 * (math.log(2 * math.pi * ((x - mean) ** 2).mean()) + 1)
    assert total(best).item() == pytest.approx(expected, rel=1e-12)


# the bound


class OneDimension(torch.nn.Module):
    """z ~ N(0, 1), x | z ~ N(z, s^2): log p(x) is known. q(z|x) = N(a x, v), right or wrong."""

    def __init__(self, s, a=None, v=None):
        super().__init__()
        self.s = s
        self.a = 1 / (1 + s * s) if a is None else a
        self.v = s * s / (1 + s * s) if v is None else v

    def encode(self, x):
        return self.a * x, torch.full_like(x, math.log(self.v))

    def log_likelihood(self, x, z):
        return vae.gaussian_log_likelihood(x, z, self.s)

    def exact(self, x):
        return stats.norm.logpdf(x, 0, math.sqrt(1 + self.s**2))

    def bound(self, x):
        """The ELBO in closed form."""
        squared = (x - self.a * x) ** 2 + self.v
        rec = -0.5 * math.log(2 * math.pi * self.s**2) - squared / (2 * self.s**2)
        return rec - 0.5 * ((self.a * x) ** 2 + self.v - 1 - math.log(self.v))


def test_with_the_true_posterior_every_bound_is_exact():
    """Then p(x, z) / q(z|x) = p(x) for each z: no sample matters, and no k does."""
    model = OneDimension(0.6)
    x = torch.linspace(-3, 3, 21, dtype=F64)[:, None]
    exact = torch.from_numpy(model.exact(x.numpy()))[:, 0]
    for k in (1, 2, 5, 50):
        assert torch.allclose(vae.iwae(model, x, k, seeded(k)), exact, rtol=1e-12)


def test_the_elbo_has_its_closed_form_in_expectation():
    model = OneDimension(0.5, a=0.3, v=0.4)
    x = torch.full((200_000, 1), 1.4, dtype=F64)
    bound, rec, kl = vae.elbo(model, x, generator=seeded())
    assert near(bound, model.bound(1.4))
    assert torch.equal(bound, rec - kl)
    assert kl[0].item() == pytest.approx(
        0.5 * ((0.3 * 1.4) ** 2 + 0.4 - 1 - math.log(0.4)), rel=1e-12
    )
    assert near(vae.iwae(model, x, 1, seeded(1)), model.bound(1.4))  # L_1 is the ELBO


def test_more_samples_tighten_the_bound_and_never_cross_log_p():
    model = OneDimension(0.5, a=0.55, v=0.5)
    x = torch.full((50_000, 1), 1.4, dtype=F64)
    exact = model.exact(1.4)
    values = {k: vae.iwae(model, x, k, seeded(k)) for k in (1, 5, 50)}
    means = {k: v.mean().item() for k, v in values.items()}
    errors = {k: (v.std() / len(v) ** 0.5).item() for k, v in values.items()}
    assert means[1] == pytest.approx(model.bound(1.4), abs=4 * errors[1])
    assert means[1] + 4 * errors[1] < means[5] - 4 * errors[5]
    assert means[5] + 4 * errors[5] < means[50] - 4 * errors[50]
    assert means[50] - 4 * errors[50] < exact
    # science 6.5: the gap is Var(w) / 2K, w = p(x, z) / (q(z|x) p(x))
    weights = (values[1] - exact).exp()
    assert exact - means[50] == pytest.approx(weights.var().item() / 100, rel=0.2)


def test_iwae_by_brute_force():
    """log of the mean of k weights, with densities from SciPy and the same draws."""
    model = OneDimension(0.8, a=0.2, v=1.7)
    x, k = torch.randn(6, 1, generator=seeded(), dtype=F64), 7
    g = seeded(9)
    mu, sd = 0.2 * x.numpy(), math.sqrt(1.7)
    log_w = []
    for _ in range(k):
        z = mu + sd * torch.empty(6, 1, dtype=F64).normal_(generator=g).numpy()
        log_p = stats.norm.logpdf(x.numpy(), z, 0.8) + stats.norm.logpdf(z)
        log_w.append((log_p - stats.norm.logpdf(z, mu, sd))[:, 0])
    expected = logsumexp(np.stack(log_w), axis=0) - np.log(k)
    assert vae.iwae(model, x, k, seeded(9)).numpy() == pytest.approx(expected, rel=1e-12)


def test_iwae_survives_weights_that_underflow():
    model = OneDimension(0.01, a=0.0, v=0.5)
    value = vae.iwae(model, torch.full((3, 1), 40.0), 20, seeded())
    assert torch.isfinite(value).all() and (value < -1e5).all()


def test_log_normal_agrees_with_scipy(posterior):
    mu, logvar = posterior
    z = torch.randn(64, 5, generator=seeded(2), dtype=F64)
    expected = stats.norm.logpdf(z.numpy(), mu.numpy(), (logvar / 2).exp().numpy()).sum(1)
    assert vae.log_normal(z, mu, logvar).numpy() == pytest.approx(expected, rel=1e-12)


# science 6.3: the linear beta-VAE


@pytest.mark.parametrize(("beta", "kl", "distortion"), [(1, 0.5493, 1), (2, 0.2027, 2), (4, 0, 3)])
def test_beta_sets_rate_and_distortion_of_the_linear_vae(beta, kl, distortion, monkeypatch):
    """lambda = 3, sigma = 1. All integrals are of squares: four points make them exact."""
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=F64)
    x = 3**0.5 * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=F64)
    monkeypatch.setattr(vae, "reparameterise", lambda mu, logvar, g: mu + (logvar / 2).exp() * eps)
    torch.manual_seed(0)
    model = vae.LinearVAE(1, 1).double()
    model.log_sigma.requires_grad_(False)
    model.b.requires_grad_(False)
    free = [model.W, model.V, model.logvar]
    optimiser = torch.optim.LBFGS(
        free, max_iter=500, line_search_fn="strong_wolfe", tolerance_change=0
    )

    def closure():
        optimiser.zero_grad()
        loss = -vae.elbo(model, x, beta)[0].mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    bound, rec, rate = (t.mean().item() for t in vae.elbo(model, x, beta))
    assert bound == pytest.approx(rec - beta * rate, rel=1e-12)
    assert rate == pytest.approx(max(0, 0.5 * math.log(3 / beta)), abs=1e-3)
    assert rate == pytest.approx(kl, abs=1e-3)
    assert -2 * rec - math.log(2 * math.pi) == pytest.approx(min(3, beta), abs=5e-3)
    assert min(3, beta) == distortion


# probabilistic PCA and the linear VAE


@pytest.fixture
def cloud():
    """500 points in 30 dimensions, five of them strong: (data, mean, covariance) in float64."""
    rng = np.random.default_rng(0)
    scales = np.concatenate([[3.0, 2.0, 1.5, 1.0, 0.7], np.full(25, 0.3)])
    rotation = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    x = torch.from_numpy(
        rng.standard_normal((500, 30)) * scales @ rotation + rng.standard_normal(30)
    )
    return x, x.mean(0), x.T.cov(correction=0)


@pytest.mark.parametrize("d", [1, 5, 12])
def test_ppca_is_the_likelihood_of_its_own_gaussian(cloud, d):
    x, mean, cov = cloud
    W, sigma2, optimum = vae.ppca(mean, cov, d)
    model_cov = (W @ W.T + sigma2 * torch.eye(30, dtype=F64)).numpy()
    expected = stats.multivariate_normal(mean.numpy(), model_cov).logpdf(x.numpy()).mean()
    assert optimum.item() == pytest.approx(expected, rel=1e-10)


def test_ppca_is_scikit_learns(cloud):
    """scikit-learn divides by n - 1: given that covariance, the model is the same."""
    x, mean, cov = cloud
    pca = PCA(5).fit(x.numpy())
    W, sigma2, optimum = vae.ppca(mean, cov * 500 / 499, 5)
    assert sigma2.item() == pytest.approx(pca.noise_variance_, rel=1e-10)
    model_cov = W @ W.T + sigma2 * torch.eye(30, dtype=F64)
    assert model_cov.numpy() == pytest.approx(pca.get_covariance(), abs=1e-10)
    # the mean quadratic form is D (n - 1) / n under it, D under our own
    assert optimum.item() + 30 / 2 / 500 == pytest.approx(pca.score(x.numpy()), rel=1e-10)


def test_no_other_model_of_the_family_is_better(cloud):
    x, mean, cov = cloud
    W, sigma2, optimum = vae.ppca(mean, cov, 5)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 1e-1):
        other = W.numpy() + size * rng.standard_normal((30, 5))
        variance = sigma2.item() * math.exp(size * rng.standard_normal())
        gaussian = stats.multivariate_normal(mean.numpy(), other @ other.T + variance * np.eye(30))
        assert gaussian.logpdf(x.numpy()).mean() < optimum


def at_the_optimum(mean, cov, d, rotation=None):
    """A LinearVAE in the closed form of science 6.2, W turned in the latent space if asked."""
    W, sigma2, optimum = vae.ppca(mean, cov, d)
    W = W if rotation is None else W @ rotation
    model = vae.LinearVAE(len(mean), d).double()
    M = W.T @ W + sigma2 * torch.eye(d, dtype=F64)
    with torch.no_grad():
        model.W.copy_(W)
        model.V.copy_(torch.linalg.solve(M, W.T))
        model.b.copy_(mean)
        model.log_sigma.copy_(sigma2.log() / 2)
        # of all diagonal covariances the best has the precisions of the true posterior
        model.logvar.copy_((sigma2 / M.diagonal()).log())
    return model, optimum


def test_along_the_principal_axes_the_bound_is_tight(cloud):
    _, mean, cov = cloud
    model, optimum = at_the_optimum(mean, cov, 5)
    assert vae.linear_elbo(model, mean, cov).item() == pytest.approx(optimum.item(), rel=1e-12)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=seeded(), dtype=F64))[0]
    turned, _ = at_the_optimum(mean, cov, 5, rotation)
    gap = (optimum - vae.linear_elbo(turned, mean, cov)).item()
    assert gap > 0.01, "the same density, but its posterior is not diagonal"


def test_kl_per_dimension_is_half_log_signal_to_noise(cloud):
    x, mean, cov = cloud
    model, _ = at_the_optimum(mean, cov, 5)
    lam = torch.linalg.eigvalsh(cov).flip(0)
    sigma2 = lam[5:].mean()
    mu, logvar = model.encode(x)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    assert torch.allclose(kl, 0.5 * (lam[:5] / sigma2).log(), rtol=1e-10)
    assert vae.kl_normal(mu, logvar).mean().item() == pytest.approx(kl.sum().item(), rel=1e-12)


def random_linear(seed=0):
    torch.manual_seed(seed)
    model = vae.LinearVAE(30, 4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def test_linear_elbo_is_the_mean_of_the_sampled_one(cloud):
    x, mean, cov = cloud
    for seed in range(3):
        model = random_linear(seed)
        with torch.no_grad():
            draws = [vae.elbo(model, x, generator=seeded(i))[0].mean() for i in range(300)]
            assert near(torch.stack(draws), vae.linear_elbo(model, mean, cov).item())


def test_linear_elbo_without_any_sampling(cloud):
    """E_q |x - Wz - b|^2 = |x - W mu - b|^2 + sum_i s_i^2 |W_i|^2, image by image."""
    x, mean, cov = cloud
    model = random_linear()
    with torch.no_grad():
        mu, logvar = model.encode(x)
        squared = (x - model.decode(mu)).square().sum(1) + (
            logvar.exp() * model.W.square().sum(0)
        ).sum(1)
        variance = (2 * model.log_sigma).exp()
        rec = -squared / (2 * variance) - 15 * (2 * math.pi * variance).log()
        expected = (rec - vae.kl_normal(mu, logvar)).mean().item()
        assert vae.linear_elbo(model, mean, cov).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("dim", "d", "steps"), [(20, 3, 15), (30, 5, 25), (50, 8, 60)])
def test_a_trained_linear_vae_reaches_the_optimum(dim, d, steps):
    """The bar of the book: within 0.01 nat per image of probabilistic PCA in closed form."""
    rng = np.random.default_rng(dim)
    scales = np.concatenate([np.geomspace(3, 1, d), np.full(dim - d, 0.5)])
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    x = torch.from_numpy(rng.standard_normal((400, dim)) * scales @ rotation + 1)
    mean, cov = x.mean(0), x.T.cov(correction=0)
    W, sigma2, optimum = vae.ppca(mean, cov, d)
    torch.manual_seed(0)
    model = vae.LinearVAE(dim, d).double()
    step = vae.LinearStep(model, mean, cov)
    losses = [step()["loss"]]
    while len(losses) < steps and losses[-1] > -optimum.item() + 1e-3:
        losses.append(step()["loss"])
    got = vae.linear_elbo(model, mean, cov).item()
    assert optimum.item() - 0.01 < got <= optimum.item() + 1e-9
    assert losses[0] > -optimum.item() + 1
    assert model.log_sigma.exp().item() == pytest.approx(sigma2.sqrt().item(), rel=1e-2)
    spanned = torch.linalg.qr(model.W.detach())[0]
    principal = torch.linalg.qr(W)[0]
    assert torch.linalg.svdvals(spanned.T @ principal).min() > 0.99  # the same subspace
    with torch.no_grad():
        sampled = torch.stack(
            [vae.elbo(model, x, generator=seeded(i))[0].mean() for i in range(100)]
        )
    assert near(sampled, got)


def test_the_recorded_linear_run_reached_the_optimum(published):
    metrics = store.read_json(published / "vae-mnist-linear.json")["metrics"]
    assert metrics["ppca"] - 0.01 < metrics["elbo"] <= metrics["ppca"]
    assert metrics["sigma"] == pytest.approx(metrics["ppca_sigma"], rel=1e-3)


def test_linear_step_refuses_nan_and_leaves_the_weights():
    torch.manual_seed(0)
    model = vae.LinearVAE(6, 2).double()
    step = vae.LinearStep(model, torch.zeros(6, dtype=F64), torch.eye(6, dtype=F64))
    step()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step.cov = step.cov * math.nan
    with pytest.raises(nets.Diverged, match="the loss became nan"):
        step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# the convolutional models


def small_vae(seed=0, **options):
    torch.manual_seed(seed)
    return vae.VAE(3, size=8, width=4, **options)


@pytest.fixture
def images():
    return torch.rand(16, 1, 8, 8, generator=seeded())


def test_the_interfaces(images):
    model = small_vae()
    mu, logvar = model.encode(images)
    assert mu.shape == logvar.shape == (16, 3) and not torch.equal(mu, logvar)
    decoded = model.decode(mu)
    assert decoded.shape == images.shape and decoded.min() >= 0 and decoded.max() <= 1
    torch.manual_seed(0)
    twin = vae.Autoencoder(3, size=8, width=4)
    code = twin.encode(images)
    assert code.shape == (16, 3) and twin.decode(code).shape == images.shape
    assert nets.parameters(twin.decoder) == nets.parameters(model.decoder)


@pytest.mark.parametrize("sigma", [1.0, 0.2])
def test_the_models_likelihoods_are_those_of_their_decoded_means(images, sigma):
    z = torch.randn(16, 3, generator=seeded(1))
    model = small_vae()
    mean = model.decode(z).double().detach()
    expected = Bernoulli(mean).log_prob((images > 0.5).double()).flatten(1).sum(1)
    binary = (images > 0.5).float()
    assert torch.allclose(model.log_likelihood(binary, z).double(), expected, rtol=1e-4)
    model = small_vae(likelihood="gaussian", sigma=sigma)
    mean = model.decode(z).detach().numpy()
    expected = stats.norm.logpdf(images.numpy(), mean, sigma).sum((1, 2, 3))
    assert model.log_likelihood(images, z).detach().numpy() == pytest.approx(expected, rel=1e-4)


def test_elbo_is_made_of_the_models_own_parts(images):
    model = small_vae()
    bound, rec, kl = vae.elbo(model, images, 0.5, seeded(4))
    mu, logvar = model.encode(images)
    z = vae.reparameterise(mu, logvar, seeded(4))
    assert torch.equal(rec, model.log_likelihood(images, z))
    assert torch.equal(kl, vae.kl_normal(mu, logvar))
    assert torch.equal(bound, rec - 0.5 * kl)
    assert bound.shape == rec.shape == kl.shape == (16,)


def test_the_reconstruction_term_reaches_the_encoder(images):
    model = small_vae()
    _, rec, _ = vae.elbo(model, images, generator=seeded())
    rec.mean().backward()
    last = model.encoder.net[
        -1
    ].weight.grad  # (2 d, 128): the rows of the means, then of the widths
    assert (last[:3].abs().sum(1) > 0).all() and (last[3:].abs().sum(1) > 0).all()


def test_optimal_sigma_is_the_batchs_own_in_training_and_a_running_mean_afterwards(images):
    model = small_vae(likelihood="gaussian", sigma="optimal")
    z = torch.randn(16, 3, generator=seeded(1))
    running = 1.0
    for _ in range(3):
        got = model.log_likelihood(images, z)
        best = (model.decode(z) - images).square().mean().sqrt().item()
        expected = stats.norm.logpdf(images.numpy(), model.decode(z).detach().numpy(), best)
        assert got.detach().numpy() == pytest.approx(expected.sum((1, 2, 3)), rel=1e-4)
        got.sum().backward()
        running = 0.98 * running + 0.02 * best
        assert model.sigma.item() == pytest.approx(running, rel=1e-5)
    assert not model.sigma.requires_grad and "sigma" in model.state_dict()
    model.eval()
    expected = stats.norm.logpdf(images.numpy(), model.decode(z).detach().numpy(), running)
    assert model.log_likelihood(images, z).detach().numpy() == pytest.approx(
        expected.sum((1, 2, 3)), rel=1e-4
    )
    assert model.sigma.item() == pytest.approx(running, rel=1e-5), "evaluation does not move it"
    assert small_vae(sigma=0.3, likelihood="gaussian").sigma.item() == pytest.approx(0.3)


# the steps


def test_step_reports_nats_per_image(images):
    step = vae.Step(small_vae(), beta=0.7)
    expected = vae.elbo(small_vae(), images, 0.7, seeded(0))
    losses = step(images)
    for key, value in zip(
        ("loss", "rec", "kl"), (-expected[0], expected[1], expected[2]), strict=True
    ):
        assert losses[key] == pytest.approx(value.mean().item(), rel=1e-5)
    assert losses["loss"] == pytest.approx(0.7 * losses["kl"] - losses["rec"], rel=1e-5)
    assert -64 * 2 < losses["rec"] < -20, "a sum over 64 pixels"


def test_step_is_adam_on_the_negative_bound(images):
    step, reference = vae.Step(small_vae(), lr=0.01, seed=3), small_vae()
    optimiser, noise = torch.optim.Adam(reference.parameters(), 0.01), seeded(3)
    for _ in range(3):
        step(images)
        optimiser.zero_grad()
        mu, logvar = reference.encode(images)
        z = mu + (logvar / 2).exp() * torch.empty_like(mu).normal_(generator=noise)
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
        rec = -torch.nn.BCEWithLogitsLoss(reduction="sum")(reference.decoder(z), images)
        ((kl.sum() - rec) / len(images)).backward()
        optimiser.step()
    for p, q in zip(step.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5)


def gradient(images, **options):
    step = vae.Step(small_vae(), seed=1, **options)
    step(images)
    return torch.cat([p.grad.flatten() for p in step.model.parameters()])


def test_the_mean_over_pixels_is_a_beta_of_the_number_of_pixels(images):
    """mean(rec) / D - KL = (rec - D KL) / D, so its gradient is that of beta = D, divided by D."""
    wrong, right = gradient(images, reduction="mean"), gradient(images, beta=64.0)
    assert torch.allclose(wrong, right / 64, atol=1e-6 * wrong.abs().max())
    assert not torch.allclose(wrong, gradient(images) / 64, atol=1e-2 * wrong.abs().max())


def train_steps(images, steps, **options):
    torch.manual_seed(0)
    step = vae.Step(vae.VAE(4, width=4), lr=3e-3, **options)
    generator = seeded(7)
    for _ in range(steps):
        rows = torch.randint(len(images), (32,), generator=generator)
        losses = step(images[rows].float() / 255)
    return step.model.eval(), losses


def test_the_mean_collapses_and_the_sum_does_not(mini):
    collapsed, losses = train_steps(mini.images, 120, reduction="mean")
    healthy, good = train_steps(mini.images, 120)
    assert losses["kl"] < 0.1 and good["kl"] > 3
    x = mini.images.float() / 255
    with torch.no_grad():
        spread = [m.decode(m.encode(x)[0]).std(0).mean().item() for m in (collapsed, healthy)]
    assert spread[0] < spread[1] / 5, "every reconstruction is the same grey image"
    assert good["rec"] > losses["rec"] + 30


def test_autoencoder_step_is_adam_on_the_reconstruction_term(images):
    def twin():
        torch.manual_seed(0)
        return vae.Autoencoder(3, size=8, width=4)

    step, reference = vae.AutoencoderStep(twin(), lr=0.01), twin()
    optimiser = torch.optim.Adam(reference.parameters(), 0.01)
    for _ in range(3):
        losses = step(images)
        optimiser.zero_grad()
        p = reference.decode(reference.encode(images)).clamp(1e-7, 1 - 1e-7)
        loss = -(images * p.log() + (1 - images) * (1 - p).log()).sum() / len(images)
        loss.backward()
        optimiser.step()
    assert losses["loss"] == pytest.approx(loss.item(), rel=1e-4) == -losses["rec"]
    for p, q in zip(step.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5)


# a small encoder for a trained decoder


def recognition(**options):
    """(the small encoder's model, the VAE that it is for)."""
    of = small_vae(**options)
    return vae.Recognition(of, size=8, width=2, hidden=(6, 5)), of


def test_recognition_has_an_encoder_of_its_own_and_the_rest_of_another_model(images):
    model, of = recognition(likelihood="gaussian", sigma=0.3)
    z = torch.randn(16, 3, generator=seeded(1))
    assert torch.equal(model.decode(z), of.decode(z)) and model.latent_dim == 3
    assert torch.equal(model.log_likelihood(images, z), of.log_likelihood(images, z))
    assert model.sigma.item() == pytest.approx(0.3)
    mu, logvar = model.encode(images)
    assert torch.equal(torch.stack([mu, logvar], 1), model.encoder(images))
    assert nets.parameters(model) == nets.parameters(model.encoder) < nets.parameters(of.encoder)
    assert {key.split(".")[0] for key in model.state_dict()} == {"encoder"}


@pytest.mark.parametrize("options", [{}, {"likelihood": "gaussian", "sigma": "optimal"}])
def test_a_frozen_decoder_keeps_every_bit_and_gets_no_gradient(images, options):
    model, of = recognition(**options)
    before = {key: value.clone() for key, value in of.state_dict().items()}
    first = {key: value.clone() for key, value in model.state_dict().items()}
    step = vae.Step(model.train(), lr=0.01)
    for _ in range(3):
        step(images)
    assert all(torch.equal(value, before[key]) for key, value in of.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in of.parameters())
    assert not of.training, "its sigma does not follow the batches"
    assert not any(torch.equal(value, first[key]) for key, value in model.state_dict().items())
    trained = [p for group in step.optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.encoder.parameters()}


def test_the_gradient_of_a_small_encoder_is_that_of_the_whole_model(images):
    """With the VAE's own encoder inside, bound and gradient are the VAE's, and the decoder's is left out."""
    whole, of = small_vae(), small_vae()
    model = vae.Recognition(of, size=8, width=4, hidden=(128,))
    model.encoder.load_state_dict(whole.encoder.state_dict())
    losses = [vae.Step(m, seed=2)(images) for m in (whole, model)]
    assert losses[0] == pytest.approx(losses[1])
    for p, q in zip(whole.encoder.parameters(), model.encoder.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    assert all(p.grad is not None for p in whole.decoder.parameters())


def test_a_small_encoder_learns_the_posterior_of_a_model_that_can_be_solved():
    """Of a linear decoder the posterior is known: the ELBO of q = N(m, S) comes near to it from below."""
    torch.manual_seed(0)
    of = vae.LinearVAE(64, 2)
    of.sigma = torch.tensor(0.5)
    with torch.no_grad():
        of.log_sigma.fill_(math.log(0.5))
        of.W.copy_(torch.linalg.qr(torch.randn(64, 2))[0] * 2)  # orthogonal: q can be exact
    z = torch.randn(2000, 2, generator=seeded(3))
    with torch.no_grad():
        x = of.decode(z) + 0.5 * torch.randn(2000, 64, generator=seeded(4))
    cov = (of.W @ of.W.T + 0.25 * torch.eye(64)).detach().double().numpy()
    truth = stats.multivariate_normal(np.zeros(64), cov).logpdf(x.double().numpy()).mean()
    model = vae.Recognition(of, size=8, width=4, hidden=(32,))
    step = vae.Step(model, lr=3e-3)
    images = x.view(-1, 1, 8, 8)
    for i in range(600):
        step(images[torch.randint(2000, (128,), generator=seeded(i))])
    with torch.no_grad():
        bound = vae.elbo(model, images, generator=seeded(5))[0].mean().item()
    assert truth - 1 < bound < truth + 0.1
