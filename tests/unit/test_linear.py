"""linear: the VAE that can be solved, against its closed form, SciPy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from gencore import data, linear, store, train, vae

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def near(values, expected, errors=4):
    """Is the mean of these independent values the expected one, within four standard errors?"""
    values = torch.as_tensor(values, dtype=F64)
    error = values.std() / len(values) ** 0.5
    return abs(values.mean() - expected) <= errors * error


def split(x):
    """Vectors (N, D) as a split without labels."""
    return data.Split(x, torch.full((len(x),), -1))


# science 6.3: the linear beta-VAE


@pytest.mark.parametrize(("beta", "kl", "distortion"), [(1, 0.5493, 1), (2, 0.2027, 2), (4, 0, 3)])
def test_beta_sets_rate_and_distortion_of_the_linear_vae(beta, kl, distortion, monkeypatch):
    """lambda = 3, sigma = 1. All integrals are of squares: four points make them exact."""
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=F64)
    x = 3**0.5 * torch.tensor([[1.0], [1.0], [-1.0], [-1.0]], dtype=F64)
    monkeypatch.setattr(vae, "reparameterise", lambda mu, logvar, g: mu + (logvar / 2).exp() * eps)
    torch.manual_seed(0)
    model = linear.Model(1, (1,)).double()
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
    W, sigma2, optimum = linear.ppca(mean, cov, d)
    model_cov = (W @ W.T + sigma2 * torch.eye(30, dtype=F64)).numpy()
    expected = stats.multivariate_normal(mean.numpy(), model_cov).logpdf(x.numpy()).mean()
    assert optimum.item() == pytest.approx(expected, rel=1e-10)


def test_ppca_is_scikit_learns(cloud):
    """scikit-learn divides by n - 1: given that covariance, the model is the same."""
    x, mean, cov = cloud
    pca = PCA(5).fit(x.numpy())
    W, sigma2, optimum = linear.ppca(mean, cov * 500 / 499, 5)
    assert sigma2.item() == pytest.approx(pca.noise_variance_, rel=1e-10)
    model_cov = W @ W.T + sigma2 * torch.eye(30, dtype=F64)
    assert model_cov.numpy() == pytest.approx(pca.get_covariance(), abs=1e-10)
    # the mean quadratic form is D (n - 1) / n under it, D under our own
    assert optimum.item() + 30 / 2 / 500 == pytest.approx(pca.score(x.numpy()), rel=1e-10)


def test_no_other_model_of_the_family_is_better(cloud):
    x, mean, cov = cloud
    W, sigma2, optimum = linear.ppca(mean, cov, 5)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 1e-1):
        other = W.numpy() + size * rng.standard_normal((30, 5))
        variance = sigma2.item() * math.exp(size * rng.standard_normal())
        gaussian = stats.multivariate_normal(mean.numpy(), other @ other.T + variance * np.eye(30))
        assert gaussian.logpdf(x.numpy()).mean() < optimum


def at_the_optimum(mean, cov, d, rotation=None):
    """The model in the closed form of science 6.2, W turned in the latent space if asked."""
    W, sigma2, optimum = linear.ppca(mean, cov, d)
    W = W if rotation is None else W @ rotation
    model = linear.Model(d, (len(mean),)).double()
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
    assert linear.elbo(model, mean, cov).item() == pytest.approx(optimum.item(), rel=1e-12)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=seeded(), dtype=F64))[0]
    turned, _ = at_the_optimum(mean, cov, 5, rotation)
    gap = (optimum - linear.elbo(turned, mean, cov)).item()
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
    model = linear.Model(4, (30,)).double()
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
            assert near(torch.stack(draws), linear.elbo(model, mean, cov).item())


def test_linear_elbo_without_any_sampling(cloud):
    """E_q |x - Wz - b|^2 = |x - W mu - b|^2 + sum_i s_i^2 |W_i|^2, image by image."""
    x, mean, cov = cloud
    model = random_linear()
    with torch.no_grad():
        mu, logvar = model.encode(x)
        squared = (x - model.mean(mu)).square().sum(1) + (
            logvar.exp() * model.W.square().sum(0)
        ).sum(1)
        variance = (2 * model.log_sigma).exp()
        rec = -squared / (2 * variance) - 15 * (2 * math.pi * variance).log()
        expected = (rec - vae.kl_normal(mu, logvar)).mean().item()
        assert linear.elbo(model, mean, cov).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("dim", "d", "steps"), [(20, 3, 15), (30, 5, 25), (50, 8, 60)])
def test_a_trained_linear_vae_reaches_the_optimum(dim, d, steps):
    """The bar of the book: within 0.01 nat per image of probabilistic PCA in closed form."""
    rng = np.random.default_rng(dim)
    scales = np.concatenate([np.geomspace(3, 1, d), np.full(dim - d, 0.5)])
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    x = torch.from_numpy(rng.standard_normal((400, dim)) * scales @ rotation + 1)
    mean, cov = x.mean(0), x.T.cov(correction=0)
    W, sigma2, optimum = linear.ppca(mean, cov, d)
    torch.manual_seed(0)
    model = linear.Model(d, (dim,))
    step = linear.Step(model, split(x))
    losses = [step()["loss"]]
    while len(losses) < steps and losses[-1] > -optimum.item() + 1e-3:
        losses.append(step()["loss"])
    got = linear.elbo(model, mean, cov).item()
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
    model = linear.Model(2, (6,))
    step = linear.Step(model, split(torch.randn(50, 6)))
    step()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    step.cov = step.cov * math.nan
    with pytest.raises(train.Diverged, match="the loss became nan"):
        step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# the model


def test_it_takes_images_or_any_other_vector():
    x = torch.rand(5, 1, 4, 6)
    model = linear.Model(3, (1, 4, 6))
    mu, logvar = model.encode(x)
    assert mu.shape == logvar.shape == (5, 3)
    assert torch.equal(model.infer(x), mu)
    assert torch.equal(model.infer(x, seeded(1)), vae.reparameterise(mu, logvar, seeded(1)))
    assert model.decode(mu).shape == x.shape and model.mean(mu).shape == (5, 24)
    assert model.log_likelihood(x, mu).shape == (5,)
    assert linear.Model(3, [7]).decode(mu).shape == (5, 7)
    assert list(model.priors) == ["prior"] and model.priors["prior"].dim == 3


def test_images_are_the_mean_clipped_and_the_likelihood_is_of_the_mean_itself():
    torch.manual_seed(0)
    model, x, z = linear.Model(2, (1, 2, 2)), torch.rand(6, 1, 2, 2), 20 * torch.randn(6, 2)
    mean = model.mean(z)
    assert torch.equal(mean, z @ model.W.T + model.b) and mean.min() < 0 and mean.max() > 1
    assert torch.equal(model.decode(z), mean.clamp(0, 1).view(6, 1, 2, 2))
    expected = stats.norm.logpdf(x.flatten(1).numpy(), mean.detach().numpy(), 1.0).sum(1)
    assert model.log_likelihood(x, z).detach().numpy() == pytest.approx(expected, rel=1e-5)


def test_moments_are_those_of_images_in_the_unit_interval(mini):
    images = mini.images[:, :, 10:14, 10:14]
    flat = images.numpy().reshape(len(images), -1) / 255
    for same in (images, images.float() / 255):
        mean, cov = linear.moments(same)
        assert mean.dtype == cov.dtype == F64
        assert mean.numpy() == pytest.approx(flat.mean(0), abs=1e-7)
        assert cov.numpy() == pytest.approx(np.cov(flat.T, bias=True), abs=1e-7)


def test_the_signal_of_ppca_is_the_eigenvalue_less_the_noise():
    """Tipping & Bishop (1999), equations 7 and 8, on a covariance whose eigenvalues can be read off."""
    values = torch.tensor([0.5, 9.0, 1.0, 4.0, 0.6], dtype=F64)
    W, sigma2, optimum = linear.ppca(torch.zeros(5, dtype=F64), values.diag(), 2)
    assert sigma2.item() == pytest.approx(0.7, rel=1e-12)  # the mean of what is left over
    assert W.shape == (5, 2) and (W.abs() > 1e-9).sum() == 2
    assert W[1, 0].abs().item() == pytest.approx((9 - 0.7) ** 0.5, rel=1e-12)
    assert W[3, 1].abs().item() == pytest.approx((4 - 0.7) ** 0.5, rel=1e-12)
    log_det = math.log(9 * 4 * 0.7**3)
    assert optimum.item() == pytest.approx(-0.5 * (5 * math.log(2 * math.pi) + log_det + 5), rel=1e-12)


def test_a_new_model_has_a_signal_in_both_directions():
    """From W = 0 or V = 0 no gradient leads away: the ELBO has a saddle there."""
    torch.manual_seed(0)
    model = linear.Model(4, (50,))
    for weight in (model.W, model.V):
        assert weight.std().item() == pytest.approx(0.1, rel=0.2)
    with torch.no_grad():
        model.W.zero_(), model.V.zero_()
    linear.elbo(model.double(), torch.zeros(50, dtype=F64), 2 * torch.eye(50, dtype=F64)).backward()
    assert not model.W.grad.any() and not model.V.grad.any()


# the step


def test_the_step_knows_the_split_by_its_moments_and_begins_at_its_mean(mini):
    torch.manual_seed(0)
    model = linear.Model(2, (1, 28, 28))
    step = linear.Step(model, mini)
    mean, cov = linear.moments(mini.images)
    assert step.model is model and model.W.dtype == F64
    assert torch.equal(step.mean, mean) and torch.equal(step.cov, cov) and torch.equal(model.b, mean)
    before = -linear.elbo(model, mean, cov).item()
    losses = step(None)
    assert list(losses) == list(linear.TERMS) and losses["loss"] == pytest.approx(before, rel=1e-12)
    assert -linear.elbo(model, mean, cov).item() < before
    assert step.parts == {"model": model, "optimiser": step.optimiser}


def test_the_batch_is_not_looked_at(cloud):
    def losses(batch):
        torch.manual_seed(0)
        step = linear.Step(linear.Model(3, (30,)), split(cloud[0]))
        return [step(batch) for _ in range(3)]

    assert losses(None) == losses(data.Batch(cloud[0] * math.nan, None, None))


def test_the_rate_scales_the_step(cloud):
    def moved(lr):
        torch.manual_seed(0)
        model = linear.Model(3, (30,))
        step = linear.Step(model, split(cloud[0]), lr=lr)
        assert step.optimiser.param_groups[0]["lr"] == lr
        before = model.W.detach().clone()
        step.optimiser.param_groups[0] |= {"max_iter": 1, "line_search_fn": None}
        step()
        return model.W.detach() - before

    assert torch.allclose(moved(0.5), 0.5 * moved(1.0), rtol=1e-9) and moved(1.0).any()


def test_measure_is_the_exact_bound_beside_the_optimum(cloud):
    x, mean, cov = cloud
    dataset = data.Dataset("cloud", split(x), split(x[:10]))
    model, optimum = at_the_optimum(mean, cov, 5)
    values = linear.measure(model.float(), dataset, 10)
    assert values["elbo"] == pytest.approx(optimum.item(), abs=1e-4)
    assert values["ppca"] == pytest.approx(optimum.item(), rel=1e-12)
    assert values["sigma"] == pytest.approx(values["ppca_sigma"], rel=1e-5)
    assert model.W.dtype == torch.float32, "it is left as it was published"
