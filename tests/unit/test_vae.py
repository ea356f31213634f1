"""vae: each term against a closed form, an enumeration or an independent package."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from small_networks import SMALL
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from gencore import data, evaluate, latents, linear, train, vae

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(x):
    """A batch of images that no label or row is asked of."""
    nothing = torch.zeros(len(x), dtype=torch.int64)
    return data.Batch(x, nothing, nothing)


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


def test_a_gaussian_may_have_a_sigma_for_each_pixel():
    g = seeded()
    x, mean = (torch.randn(5, 3, 4, 4, generator=g, dtype=F64) for _ in range(2))
    for shape in ((5, 3, 4, 4), (3, 4, 4), (1, 3, 1, 1)):
        sigma = 0.1 + torch.rand(shape, generator=g, dtype=F64)
        expected = stats.norm.logpdf(x.numpy(), mean.numpy(), sigma.numpy()).sum((1, 2, 3))
        got = vae.gaussian_log_likelihood(x, mean, sigma)
        assert got.shape == (5,) and got.numpy() == pytest.approx(expected, rel=1e-12)
    flat = (x.flatten(1), mean.flatten(1))
    sigma = 0.1 + torch.rand(48, generator=g, dtype=F64)
    expected = stats.multivariate_normal(flat[1][0].numpy(), np.diag(sigma.numpy() ** 2))
    got = vae.gaussian_log_likelihood(*flat, sigma)[0].item()
    assert got == pytest.approx(expected.logpdf(flat[0][0].numpy()), rel=1e-12)


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


def test_the_posterior_may_have_seen_another_picture():
    """log p(x, z) / q(z|seen), with densities from SciPy and the same draws; x is what is bounded."""
    model = OneDimension(0.8, a=0.2, v=1.7)
    x, seen = torch.randn(2, 6, 1, generator=seeded(), dtype=F64)
    g, mu, sd = seeded(9), 0.2 * seen.numpy(), math.sqrt(1.7)
    log_w = []
    for _ in range(5):
        z = mu + sd * torch.empty(6, 1, dtype=F64).normal_(generator=g).numpy()
        log_p = stats.norm.logpdf(x.numpy(), z, 0.8) + stats.norm.logpdf(z)
        log_w.append((log_p - stats.norm.logpdf(z, mu, sd))[:, 0])
    found = vae.log_weights(model, x, 5, seeded(9), seen)
    assert found.shape == (5, 6) and found.numpy() == pytest.approx(np.stack(log_w), rel=1e-12)
    expected = logsumexp(np.stack(log_w), axis=0) - np.log(5)
    assert vae.iwae(model, x, 5, seeded(9), seen).numpy() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(vae.iwae(model, x, 5, seeded(9), x), vae.iwae(model, x, 5, seeded(9)))


def test_weights_are_p_of_x_on_average_whatever_the_posterior_has_seen():
    model, n = OneDimension(0.5, a=0.5, v=0.6), 200_000
    x, seen = torch.full((n, 1), 1.4, dtype=F64), torch.full((n, 1), 0.9, dtype=F64)
    weights = vae.log_weights(model, x, 1, seeded(), seen)[0].exp()
    assert near(weights, math.exp(model.exact(1.4)))
    assert vae.iwae(model, x, 1, seeded(), seen).mean() < model.bound(1.4) - 0.01, "a worse one"


def test_iwae_survives_weights_that_underflow():
    model = OneDimension(0.01, a=0.0, v=0.5)
    value = vae.iwae(model, torch.full((3, 1), 40.0), 20, seeded())
    assert torch.isfinite(value).all() and (value < -1e5).all()


def test_log_normal_agrees_with_scipy(posterior):
    mu, logvar = posterior
    z = torch.randn(64, 5, generator=seeded(2), dtype=F64)
    expected = stats.norm.logpdf(z.numpy(), mu.numpy(), (logvar / 2).exp().numpy()).sum(1)
    assert vae.log_normal(z, mu, logvar).numpy() == pytest.approx(expected, rel=1e-12)


# the convolutional models


def small_vae(seed=0, **options):
    torch.manual_seed(seed)
    return vae.Model(3, size=8, **SMALL | options)


@pytest.fixture
def images():
    return torch.rand(16, 1, 8, 8, generator=seeded())


def test_the_interfaces(images):
    model = small_vae()
    mu, logvar = model.encode(images)
    assert mu.shape == logvar.shape == (16, 3) and not torch.equal(mu, logvar)
    decoded = model.decode(mu)
    assert decoded.shape == images.shape and decoded.min() >= 0 and decoded.max() <= 1
    assert torch.equal(model.infer(images), mu), "without a generator, the mean"
    drawn = model.infer(images, seeded(2))
    assert torch.equal(drawn, vae.reparameterise(mu, logvar, seeded(2)))
    assert list(model.priors) == ["prior", "gaussian", "gmm"], "the model's own first"
    assert {density.dim for density in model.priors.values()} == {3}


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
    last = model.encoder.net[-1].weight.grad  # (2 d, 8): the rows of the means, then of the widths
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
    losses = step(batch(images))
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
        step(batch(images))
        optimiser.zero_grad()
        mu, logvar = reference.encode(images)
        z = mu + (logvar / 2).exp() * torch.empty_like(mu).normal_(generator=noise)
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)
        rec = -torch.nn.BCEWithLogitsLoss(reduction="sum")(reference.decoder(z), images)
        ((kl.sum() - rec) / len(images)).backward()
        optimiser.step()
    for p, q in zip(step.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5)


class Watched(torch.nn.Module):
    """A VAE that keeps what its networks are given."""

    def __init__(self, model):
        super().__init__()
        self.model, self.likelihood, self.seen, self.judged = model, model.likelihood, [], []
        self.priors, self.sigma = model.priors, model.sigma

    def encode(self, x):
        self.seen.append(x)
        return self.model.encode(x)

    def log_likelihood(self, x, z):
        self.judged.append(x)
        return self.model.log_likelihood(x, z)


def test_binary_images_are_thrown_anew_in_each_step_and_the_encoder_sees_them(images):
    """Twice the same grey batch: other coins, white as often as the pixels say, for both networks."""
    images = images.repeat(50, 1, 1, 1)
    model = Watched(small_vae(likelihood="binary"))
    step = vae.Step(model, seed=5)
    step(batch(images)), step(batch(images))
    for seen, judged in zip(model.seen, model.judged, strict=True):
        assert torch.equal(seen, judged) and ((seen == 0) | (seen == 1)).all()
        white = seen.unflatten(0, (50, 16)).mean(0)
        spread = (images[:16] * (1 - images[:16]) / 50).sqrt()
        assert ((white - images[:16]).abs() <= 5 * spread + 1e-6).all()
    differ = (model.seen[0] != model.seen[1]).double().mean()
    assert differ == pytest.approx((2 * images * (1 - images)).mean().item(), abs=0.02), "independent"


def test_a_step_on_binary_images_is_the_elbo_of_coins_from_its_own_noise(images):
    step, noise = vae.Step(small_vae(likelihood="binary"), seed=5, beta=0.7), seeded(5)
    coins = torch.bernoulli(images, generator=noise)
    bound, rec, kl = vae.elbo(small_vae(), coins, 0.7, noise)
    losses = step(batch(images))
    assert losses["loss"] == pytest.approx(-bound.mean().item(), rel=1e-5)
    assert [losses["rec"], losses["kl"]] == pytest.approx([rec.mean().item(), kl.mean().item()], rel=1e-5)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert vae.Step(small_vae(likelihood="binary"), seed=5, beta=0.7)(batch(images)) == losses
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_any_other_likelihood_takes_images_as_they_are(images, likelihood):
    model = Watched(small_vae(likelihood=likelihood))
    vae.Step(model)(batch(images))
    assert torch.equal(model.seen[0], images) and torch.equal(model.judged[0], images)


def test_codes_of_a_binary_model_are_those_of_thrown_coins(images):
    model = small_vae(likelihood="binary")
    noise = seeded(4)
    mu, logvar = model.encode(torch.bernoulli(images, generator=noise))
    assert torch.equal(model.infer(images, seeded(4)), vae.reparameterise(mu, logvar, noise))
    assert torch.equal(model.infer(images), model.encode(images)[0]), "the mean is that of the image itself"


def gradient(images, **options):
    step = vae.Step(small_vae(), seed=1, **options)
    step(batch(images))
    return torch.cat([p.grad.flatten() for p in step.model.parameters()])


def test_the_mean_over_pixels_is_a_beta_of_the_number_of_pixels(images):
    """mean(rec) / D - KL = (rec - D KL) / D, so its gradient is that of beta = D, divided by D."""
    wrong, right = gradient(images, reduction="mean"), gradient(images, beta=64.0)
    assert torch.allclose(wrong, right / 64, atol=1e-6 * wrong.abs().max())
    assert not torch.allclose(wrong, gradient(images) / 64, atol=1e-2 * wrong.abs().max())


def train_steps(images, steps, **options):
    torch.manual_seed(0)
    step = vae.Step(vae.Model(4, **SMALL), lr=3e-3, **options)
    generator = seeded(7)
    for _ in range(steps):
        rows = torch.randint(len(images), (32,), generator=generator)
        losses = step(batch(images[rows].float() / 255))
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


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_beta_weighs_the_kl_term_under_either_reduction(images, reduction):
    """The gradient is affine in beta, and what beta multiplies is the gradient of the KL term."""
    none, one, four = (gradient(images, beta=b, reduction=reduction) for b in (0.0, 1.0, 4.0))
    model = small_vae()
    vae.kl_normal(*model.encode(images)).mean().backward()
    kl = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])
    bar = 1e-5 * four.abs().max()
    assert torch.allclose(one - none, kl, atol=bar) and torch.allclose(four - none, 4 * kl, atol=4 * bar)
    assert kl.abs().max() > 100 * bar


def test_the_reported_terms_are_nats_whatever_the_reduction(images):
    summed, averaged = (
        vae.Step(small_vae(), beta=2.0, reduction=r)(batch(images)) for r in ("sum", "mean")
    )
    assert list(summed) == list(averaged) == list(vae.TERMS)
    assert (summed["rec"], summed["kl"]) == (averaged["rec"], averaged["kl"])
    assert summed["loss"] == pytest.approx(2 * summed["kl"] - summed["rec"], rel=1e-5)
    assert averaged["loss"] == pytest.approx(2 * summed["kl"] - summed["rec"] / 64, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "binary", "gaussian"])
def test_the_reported_loss_is_what_is_minimised(images, beta, reduction, likelihood, monkeypatch):
    minimised, update = [], train.update
    monkeypatch.setattr(train, "update", lambda optimiser, loss: minimised.append(loss.item()) or update(optimiser, loss))
    step = vae.Step(small_vae(likelihood=likelihood), beta=beta, reduction=reduction)
    losses = [step(batch(images))["loss"] for _ in range(2)]
    assert losses == minimised


def test_another_seed_draws_other_noise(images):
    first, again, other = (vae.Step(small_vae(), seed=s)(batch(images)) for s in (1, 1, 2))
    assert first == again != other and first["kl"] == other["kl"]


def test_parts_are_all_that_has_state_and_the_model_is_what_is_published():
    step = vae.Step(small_vae(), lr=0.02)
    assert set(step.parts) == {"model", "optimiser", "noise"}
    assert step.parts["model"] is step.model and step.parts["noise"] is step.generator
    (group,) = step.optimiser.param_groups
    assert group["lr"] == 0.02
    assert {id(p) for p in group["params"]} == {id(p) for p in step.model.parameters()}


def test_finish_fits_a_gaussian_and_a_mixture_to_draws_from_the_posteriors(mini):
    torch.manual_seed(0)
    model = vae.Model(2, **SMALL).eval()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step = vae.Step(model, mini)
    step.finish()
    fitted = model.priors["gmm"]
    codes = model.infer(mini.images.float() / 255, seeded(0)).detach()
    means = model.encode(mini.images.float() / 255)[0].detach()
    mean = (fitted.log_weights.exp() @ fitted.means).double()
    assert torch.allclose(mean, codes.double().mean(0), atol=1e-4), "of EM it is the codes' own"
    assert not torch.allclose(mean, means.double().mean(0), atol=1e-3), "draws, not means"
    with torch.no_grad():
        assert fitted.log_prob(codes).mean() > model.priors["prior"].log_prob(codes).mean()
    gaussian = model.priors["gaussian"]
    assert torch.allclose(gaussian.mean, codes.mean(0), atol=1e-6)
    covariance = codes.double().T.cov(correction=0)
    assert torch.allclose((gaussian.chol @ gaussian.chol.T).double(), covariance, rtol=1e-4, atol=1e-7)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def uneven(hidden):
    """A VAE whose codes have means and variances far from 0 and 1."""
    torch.manual_seed(0)
    net = {"hidden": hidden}
    model = vae.Model(5, 1, 28, encoder=net, decoder=net, likelihood="gaussian").eval()
    with torch.no_grad():
        model.encoder.net[-1].weight[:5] *= torch.tensor([30, 10, 3, 1, 0.1])[:, None]
        model.encoder.net[-1].bias[:] = torch.tensor([3.0, -2, 0, 1, 0, -1, -3, 0, 1, -0.5])
    return model


@pytest.mark.parametrize("hidden", [(), (16,)])
@torch.no_grad()
def test_standardised_codes_have_mean_0_and_variance_1_and_the_same_images(mini, hidden):
    model, x = uneven(hidden), data.to_unit(mini.images)
    mu, logvar = model.encode(x)
    before = model.decode(mu), model.decode(vae.reparameterise(mu, logvar, seeded())), vae.kl_normal(mu, logvar).mean()
    vae.standardise(model, mini.images)
    mu, logvar = model.encode(x)
    torch.testing.assert_close(mu.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(mu.var(0, correction=0) + logvar.exp().mean(0), torch.ones(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.decode(mu), before[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model.decode(vae.reparameterise(mu, logvar, seeded())), before[1], atol=1e-5, rtol=1e-4)
    least = vae.kl_normal(mu, logvar).mean()
    assert least < before[2] - 1
    for a, c in ((0.1, 1), (-0.1, 1), (0, 1.1), (0, 0.9)):  # no other shift or scale is better
        assert vae.kl_normal((mu - a) / c, logvar - 2 * math.log(c)).mean() > least + 1e-3
    state = {key: value.clone() for key, value in model.state_dict().items()}
    vae.standardise(model, mini.images)
    assert all(torch.allclose(value, state[key], atol=1e-5) for key, value in model.state_dict().items()), "once is enough"


@pytest.mark.parametrize("asked", [True, False])
def test_finish_standardises_where_it_is_asked_to_before_densities_are_fitted(mini, asked):
    model = uneven(())
    vae.Step(model, mini, standardised=asked).finish()
    mu = model.encode(data.to_unit(mini.images))[0]
    assert (mu.mean(0).abs().max() < 1e-4) == asked
    fitted = model.priors["gaussian"].mean
    torch.testing.assert_close(fitted, evaluate.codes(model, mini.images).mean(0), atol=1e-5, rtol=1e-4)


def test_finish_of_a_binary_model_fits_the_codes_of_thrown_coins(mini):
    torch.manual_seed(0)
    model = vae.Model(2, **SMALL, likelihood="binary").eval()
    with torch.no_grad():
        model.encoder.net[-1].weight[:2] *= 30  # means that depend on the image
        model.encoder.net[-1].bias[2:] = -8  # and hardly any noise
    vae.Step(model, mini).finish()
    codes = evaluate.codes(model, mini.images)
    assert torch.allclose(model.priors["gaussian"].mean, codes.mean(0), atol=1e-6)
    grey = model.encode(data.to_unit(mini.images))[0]
    assert not torch.allclose(codes, grey, atol=0.05), "coins, not the grey image"


# what is written wrongly


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"likelihood": "Bernoulli"}, "likelihood is 'Bernoulli'; it can be 'bernoulli', 'binary' or 'gaussian'"),
        ({"likelihood": "Binary"}, "likelihood is 'Binary'"),
        ({"likelihood": "gauss"}, "likelihood is 'gauss'"),
        ({"sigma": "optimum"}, "sigma is 'optimum'; it can be a positive number or 'optimal'"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"sigma": -1}, "sigma is -1"),
        ({"sigma": math.nan}, "sigma is nan"),
        ({"sigma": None}, "sigma is None"),
        ({"size": 30}, "its side must be a multiple of 4, from 8; it is 30"),
    ],
)
def test_a_typo_never_selects_another_model(options, words):
    with pytest.raises(ValueError, match=words):
        vae.Model(2, **options)


@pytest.mark.parametrize("reduction", ["avg", "Mean", None, "none"])
def test_a_typo_never_selects_another_objective(reduction):
    with pytest.raises(ValueError, match="reduction is .*; it can be 'sum' or 'mean'"):
        vae.Step(small_vae(), reduction=reduction)


def test_the_networks_have_the_sizes_that_the_model_is_asked_for():
    sizes = {"encoder": {"widths": (3, 5), "hidden": (6,)}, "decoder": {"widths": (2, 7), "hidden": (9,)}}
    model = vae.Model(2, channels=3, size=8, **sizes)
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [(3, 3, 8, 8), (5, 3, 3, 3), (6, 20), (4, 6), (9, 2), (8, 9), (7, 2, 3, 3), (7, 3, 8, 8)]
    with pytest.raises(TypeError, match="depth"):
        vae.Model(2, encoder={"depth": 3})


# bounds on test images


def octets(n, *shape, seed=0):
    """Random images, uint8."""
    return torch.randint(0, 256, (n, *shape), generator=seeded(seed)).byte()


@pytest.mark.parametrize("likelihood", ["bernoulli", "binary", "gaussian"])
def test_bounds_are_the_means_over_the_images_they_are_given(likelihood):
    """With a posterior that is the prior and a decoder that ignores it, every bound is log p(x)."""
    model = small_vae(likelihood=likelihood).eval()
    with torch.no_grad():
        for layer in (model.encoder.net[-1], model.decoder.net[0]):
            layer.weight.zero_(), layer.bias.zero_()
    images = octets(40, 1, 8, 8)
    x = images.float() / 255

    def exact(pixels):
        return model.log_likelihood(pixels, torch.zeros(40, 3)).double().mean().item()

    coins = {"gaussian": x}.get(likelihood, torch.bernoulli(x, generator=seeded(2)))
    whole = torch.bernoulli(x, generator=seeded()) if likelihood == "binary" else x
    values = vae.bounds(model, images)
    assert values["elbo"] == values["rec"] == pytest.approx(exact(whole), rel=1e-7)
    assert values["kl"] == 0 and values["kl_per_dim"] == [0, 0, 0] and values["active_units"] == 0
    assert values["iwae"] == pytest.approx(exact(coins), rel=1e-6)
    assert values["iwae_curve"] == pytest.approx([exact(coins)] * 3, rel=1e-6)
    assert abs(values["iwae_gain"]) < 1e-4 and values["iwae_gain_se"] < 1e-4
    assert abs(values["mismatch_gaussian"]) < 1e-6, "what is not fitted yet is N(0, I)"
    assert abs(values["mismatch_gmm"]) < 1e-5


def test_bounds_agree_with_the_parts_of_the_elbo(mini):
    model = small_vae(likelihood="gaussian", sigma=0.3).eval()
    with torch.no_grad():
        model.decoder.net[-1].weight *= 10  # an image depends on its code: the posterior is far off
    images = mini.images[:, :, 10:18, 10:18].contiguous()
    values = vae.bounds(model, images)
    x = images.float() / 255
    with torch.no_grad():
        mu, logvar = model.encode(x)
        kl = vae.kl_normal(mu, logvar)
        recs = [model.log_likelihood(x, vae.reparameterise(mu, logvar, seeded(i))) for i in range(200)]
    assert values["kl"] == pytest.approx(kl.mean().item(), rel=1e-5) == sum(values["kl_per_dim"])
    assert values["elbo"] == pytest.approx(values["rec"] - values["kl"], rel=1e-9)
    recs = torch.stack(recs).mean(1)
    assert abs(values["rec"] - recs.mean()) < 5 * recs.std()
    curve = values["iwae_curve"]
    assert curve == sorted(curve) and curve[-1] > curve[0] + 0.5, "more samples, a tighter bound"
    assert values["sigma"] == pytest.approx(0.3) and 0 <= values["active_units"] <= 3


@pytest.mark.parametrize(("n", "taken", "k"), [(10_000, 1000, 128), (1000, 100, 16), (500, 50, 16), (120, 60, 16), (9, 9, 16)])
def test_weighted_bounds_take_every_tenth_image_and_of_few_more(n, taken, k, monkeypatch):
    asked = []
    monkeypatch.setattr(vae, "weighted_bounds", lambda model, images, k: asked.append((images, k)) or {})
    images = octets(n, 1, 8, 8)
    vae.bounds(small_vae().eval(), images)
    (found, samples), step = asked[0], n // taken
    assert samples == k and torch.equal(found, images[::step]) and len(found) == taken


def test_one_image_has_bounds_and_no_standard_error():
    """A test split of the reader's own may be that small: what is recorded has to be numbers."""
    model = small_vae().eval()
    for n in (1, 2, 9):
        values = vae.bounds(model, octets(n, 1, 8, 8))
        assert ("iwae_gain_se" in values) == (n > 1)
        numbers = [v for value in values.values() for v in (value if isinstance(value, list) else [value])]
        assert all(math.isfinite(v) for v in numbers)


# importance-weighted bounds


def wrong_posterior(exact=False):
    """A linear VAE on four pixels: log p(x) is a Gaussian's. Its q is the posterior, or too wide and off."""
    torch.manual_seed(0)
    model = linear.Model(2, (1, 2, 2)).double()
    with torch.no_grad():
        model.W.copy_(torch.linalg.qr(torch.randn(4, 2))[0] * 0.4)  # orthogonal: q can be exact
        model.b.fill_(0.5), model.log_sigma.fill_(math.log(0.25))
        precision = model.W.T @ model.W / 0.25**2 + torch.eye(2)
        model.V.copy_(torch.linalg.solve(precision, model.W.T) / 0.25**2 * (1 if exact else 0.7))
        model.logvar.copy_(-precision.diagonal().log() + (0 if exact else math.log(2.0)))
    return model


def truth(model, images):
    """log p(x) of a linear VAE for each image, by SciPy."""
    W, b = (t.detach().numpy() for t in (model.W, model.b))
    cov = W @ W.T + model.log_sigma.exp().item() ** 2 * np.eye(4)
    return stats.multivariate_normal(b, cov).logpdf(images.flatten(1).numpy() / 255)


def test_weighted_bounds_rise_from_the_elbo_to_log_p():
    model, images = wrong_posterior(), octets(1000, 1, 2, 2)
    found, exact = vae.weighted_bounds(model, images, 512), truth(model, images).mean()
    curve = found["iwae_curve"]
    assert found["iwae_samples"] == [1, 4, 16, 64, 256, 512] and len(curve) == 6
    assert curve == sorted(curve) and min(np.diff(curve)) > 0
    elbo = linear.elbo(model, *linear.moments(images)).item()
    assert exact - elbo > 0.2, "there is something to gain"
    assert curve[0] == found["iwae_elbo"] == pytest.approx(elbo, abs=0.01)
    assert curve[-1] == found["iwae"] < exact + 1e-3
    assert exact - curve[-1] < 0.03 * (exact - elbo)
    assert found["iwae_gain"] == pytest.approx(curve[-1] - curve[0], rel=1e-9)


def test_with_the_true_posterior_there_is_nothing_to_gain():
    model, images = wrong_posterior(exact=True), octets(250, 1, 2, 2)
    found = vae.weighted_bounds(model, images, 5)
    assert found["iwae_samples"] == [1, 4, 5]
    assert found["iwae_curve"] == pytest.approx([truth(model, images).mean()] * 3, rel=1e-6)
    assert abs(found["iwae_gain"]) < 1e-6 and found["iwae_gain_se"] < 1e-6


@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_the_curve_by_brute_force_from_the_same_draws(k):
    """Each bound is a mean over the groups of samples that there are; the gain is of the same images."""
    model, images = wrong_posterior(), octets(30, 1, 2, 2)
    found = vae.weighted_bounds(model, images, k)
    x = data.to_unit(images)
    log_w = vae.log_weights(model, x, k, seeded(1)).detach().numpy()
    counts = {1: [1], 2: [1, 2], 5: [1, 4, 5], 16: [1, 4, 16]}[k]
    assert found["iwae_samples"] == counts
    bounds = []
    for m in counts:
        groups = [log_w[i : i + m] for i in range(0, k - m + 1, m)]
        bounds.append(np.mean([logsumexp(group, axis=0) - np.log(m) for group in groups], 0))
    assert found["iwae_curve"] == pytest.approx([b.mean() for b in bounds], rel=1e-6)
    gain = bounds[-1] - bounds[0]
    assert found["iwae_gain"] == pytest.approx(gain.mean(), rel=1e-5, abs=1e-9)
    assert found["iwae_gain_se"] == pytest.approx(stats.sem(gain), rel=1e-5, abs=1e-9)


def test_the_standard_error_is_the_spread_over_other_images_and_other_noise(monkeypatch):
    model, images, calls = wrong_posterior(), octets(4000, 1, 2, 2), itertools.count(100)
    monkeypatch.setattr(latents, "generator", lambda seed, device="cpu": seeded(next(calls)))
    found = [vae.weighted_bounds(model, part, 16) for part in images.split(40)]
    spread = np.std([each["iwae_gain"] for each in found], ddof=1)
    told = np.mean([each["iwae_gain_se"] for each in found])
    assert told == pytest.approx(spread, rel=0.25), "of a hundred, a standard deviation is known to 7 %"


class TwoPixels(torch.nn.Module):
    """z ~ N(0, 1) = q(z|x), two pixels with log-odds 4 z and -4 z: probabilities are integrals over z."""

    def __init__(self, likelihood="bernoulli"):
        super().__init__()
        self.likelihood, self.seen, self.judged = likelihood, [], []

    def encode(self, x):
        self.seen.append(x)
        return torch.zeros(len(x), 1), torch.zeros(len(x), 1)

    def log_likelihood(self, x, z):
        self.judged.append(x)
        logits = torch.cat([4 * z, -4 * z], 1).view(-1, 1, 1, 2)
        return vae.bernoulli_log_likelihood(x, logits)

    @staticmethod
    def exact(x):
        """log of the integral of p(z) exp(rec(x, z)), on a grid: of binary x, log p(x)."""
        z = np.linspace(-12, 12, 20_001)
        rec = sum(p * stats.logistic.logcdf(s * 4 * z) + (1 - p) * stats.logistic.logcdf(-s * 4 * z)
                  for p, s in zip(x, (1, -1), strict=True))  # fmt: skip
        return logsumexp(rec + stats.norm.logpdf(z)) + math.log(z[1] - z[0])


def test_a_bernoulli_bound_is_of_thrown_coins_and_not_of_the_grey_image():
    """The average of log p(b) over the coins b; grey pixels in its place are another, greater number."""
    grey = 128 / 255
    chance = {b: np.prod([grey if v else 1 - grey for v in b]) for b in itertools.product((0, 1), repeat=2)}
    assert sum(math.exp(TwoPixels.exact(b)) for b in chance) == pytest.approx(1, abs=1e-6)
    coins = sum(chance[b] * TwoPixels.exact(b) for b in chance)
    wrong = TwoPixels.exact((grey, grey))
    found = vae.weighted_bounds(TwoPixels(), torch.full((4000, 1, 1, 2), 128).byte(), 256)
    assert abs(found["iwae"] - coins) < 0.05 < abs(wrong - coins) / 4
    z = torch.randn(1_000_000, 1, generator=seeded(), dtype=F64)
    linear_in_pixels = TwoPixels().log_likelihood(torch.full((len(z), 1, 1, 2), grey, dtype=F64), z).mean().item()
    assert found["iwae_elbo"] == pytest.approx(linear_in_pixels, abs=0.05), "of the ELBO it makes no difference"


@pytest.mark.parametrize("likelihood", ["bernoulli", "binary", "gaussian"])
def test_what_the_encoder_sees_and_what_is_bounded(likelihood):
    """Coins are bounded where there are some; an encoder of grey images goes on seeing these."""
    model, images = TwoPixels(likelihood), torch.full((250, 1, 1, 2), 51).byte()
    vae.weighted_bounds(model, images, 3)
    seen, judged = torch.cat(model.seen), torch.cat(model.judged[::3])
    assert len(model.judged) == 9 and all(torch.equal(a, b) for a, b in zip(model.judged[::3], model.judged[2::3], strict=True))
    grey = torch.full_like(judged, 0.2)
    if likelihood == "gaussian":
        assert torch.equal(seen, grey) and torch.equal(judged, grey)
        return
    assert ((judged == 0) | (judged == 1)).all() and judged.mean() == pytest.approx(0.2, abs=0.06)
    assert len(judged.flatten(1).unique(dim=0)) == 4, "each image has coins of its own"
    assert torch.equal(seen, judged if likelihood == "binary" else grey)


# how far codes are from the prior


class Known(torch.nn.Module):
    """q(z|x) = N(m + A u(x), v I) with u(x) standard normal: q(z) = N(m, A A^T + v I), exactly.

    Two octets of an image are one of the numbers in u, by the inverse of the normal distribution.
    """

    likelihood, sigma = "gaussian", torch.tensor(1.0)

    def __init__(self, m, A, v):
        super().__init__()
        self.m, self.A, self.v = torch.tensor(m, dtype=F64), torch.tensor(A, dtype=F64), v
        self.priors = latents.prior_and_fits(len(m))

    def encode(self, x):
        octets = (255 * x.double()).round().flatten(1)
        u = torch.special.ndtri((256 * octets[:, ::2] + octets[:, 1::2] + 0.5) / 65536)
        mu = (self.m + u @ self.A.T).float()
        return mu, torch.full_like(mu, math.log(self.v))

    infer = vae.Model.infer

    def log_likelihood(self, x, z):
        return torch.zeros(len(x))

    def covariance(self):
        return self.A @ self.A.T + self.v * torch.eye(len(self.m), dtype=F64)

    def mismatch(self):
        """KL(q(z) || N(0, I)), in closed form."""
        zero, one = torch.zeros(len(self.m), dtype=F64), torch.eye(len(self.m), dtype=F64)
        return kl_divergence(MultivariateNormal(self.m, self.covariance()), MultivariateNormal(zero, one)).item()

    def information(self):
        """Of image and code: log det(A A^T / v + I) / 2, of a Gaussian channel."""
        return 0.5 * torch.logdet(self.covariance() / self.v).item()


POSTERIORS = {
    "far off": ([1.5, -0.5], [[1.2, 0.0, 0.3], [0.9, 0.5, 0.0]], 0.2),
    "nothing known": ([0.7, -0.4], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], 0.5),
    "the prior": ([0.0, 0.0], [[0.8, 0.0, 0.0], [0.0, 0.8, 0.0]], 0.36),
}


@pytest.mark.parametrize("name", POSTERIORS)
def test_the_rate_is_information_and_mismatch(name):
    """All three in closed form; a Gaussian that was fitted to other images' codes finds the mismatch."""
    model = Known(*POSTERIORS[name])
    seen, unseen = octets(4000, 1, 1, 6), octets(20_000, 1, 1, 6, seed=1)
    latents.fit_all(model.priors, evaluate.codes(model, seen))
    found = vae.bounds(model, unseen)
    assert found["kl"] == pytest.approx(model.information() + model.mismatch(), abs=0.05)
    assert found["mismatch_gaussian"] == pytest.approx(model.mismatch(), abs=0.05)
    assert found["mismatch_gmm"] == pytest.approx(model.mismatch(), abs=0.06), "it can be one Gaussian, too"
    for key in ("mismatch_gaussian", "mismatch_gmm"):
        assert found[key] <= found["kl"] + 0.05
    assert (model.mismatch() > 1) == (name == "far off") and (model.information() < 1e-9) == (name == "nothing known")


def test_whatever_density_was_fitted_its_mismatch_is_a_lower_bound():
    """A wrong one only finds less; with N(0, I) itself it is nothing."""
    model, images = Known(*POSTERIORS["far off"]), octets(20_000, 1, 1, 6)
    found = vae.bounds(model, images)
    assert found["mismatch_gaussian"] == pytest.approx(0, abs=1e-6) == found["mismatch_gmm"]
    gaussian = model.priors["gaussian"]
    gaussian.mean.copy_(torch.tensor([0.8, -0.2]))  # not far enough, and of another covariance
    found = vae.bounds(model, images)["mismatch_gaussian"]
    S = model.covariance()
    expected = 0.5 * (model.m @ model.m - (model.m - gaussian.mean) @ (model.m - gaussian.mean)).item()
    assert found == pytest.approx(expected, abs=0.05) and 0.3 < found < model.mismatch() - 0.3
    assert torch.linalg.eigvalsh(S).min() > 0


def test_the_mismatch_is_that_of_draws_and_not_of_means():
    """Of a posterior that is the prior for every image, the means are all 0 and the mismatch is 0."""
    model = Known([0.0, 0.0], [[0.0] * 3, [0.0] * 3], 1.0)
    latents.fit_all(model.priors, evaluate.codes(model, octets(5000, 1, 1, 6)))
    found = vae.bounds(model, octets(5000, 1, 1, 6, seed=1))
    assert abs(found["mismatch_gaussian"]) < 0.01 and abs(found["mismatch_gmm"]) < 0.05
    assert found["kl"] == pytest.approx(0, abs=1e-9) and found["active_units"] == 0


@pytest.mark.parametrize("beta2", [0.999, 0.99])
def test_the_memory_of_adams_squares_can_be_chosen(beta2):
    options = {} if beta2 == 0.999 else {"adam_beta2": beta2}
    step = vae.Step(vae.Model(2, size=8), **options)
    assert [group["betas"] for group in step.optimiser.param_groups] == [(0.9, beta2)]
