"""evaluate: the protocol behind the book's numbers, on models whose answers are known."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.mixture import GaussianMixture

from gencore import data, evaluate, metrics, nets, vae


def pixels(n, seed=0, size=4):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=g)


@pytest.fixture
def dataset():
    """300 training and 200 test images of 4 x 4 noise."""
    return data.Dataset(
        "noise",
        data.Split(pixels(300), torch.arange(300) % 10),
        data.Split(pixels(200, 1), torch.arange(200) % 10),
    )


@pytest.fixture
def plain_features(monkeypatch):
    """Features without a classifier: six of the pixels."""

    def features(images, name):
        assert name == "noise"
        x = np.asarray(images, np.float64) / (255 if images.dtype == torch.uint8 else 1)
        return x.reshape(len(x), -1)[:, :6]

    monkeypatch.setattr(metrics, "features", features)
    return features


class Identity(torch.nn.Module):
    """An autoencoder that codes an image as itself, plus `shift` in what it decodes."""

    latent_dim = 16

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift = shift

    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return (z.view(-1, 1, 4, 4) + self.shift).clamp(0, 1)

    def decoder(self, z):
        return self.decode(z).clamp(1e-6, 1 - 1e-6).logit()


class Gaussian(vae.LinearVAE):
    """A linear VAE of 4 x 4 images, whose bound is known in closed form."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(16, 3)
        self.double()
        self.register_buffer("sigma", torch.tensor(0.5))
        with torch.no_grad():
            self.logvar.copy_(torch.tensor([-1.0, 0.0, 0.5]))
            self.log_sigma.fill_(math.log(0.5))

    def encode(self, x):
        return super().encode(x.double())

    def log_likelihood(self, x, z):
        mean = z @ self.W.T + self.b
        return vae.gaussian_log_likelihood(x.flatten(1).double(), mean, self.log_sigma.exp())

    def decode(self, z):
        return super().decode(z.double()).sigmoid().view(-1, 1, 4, 4)


def test_codes_of_a_vae_are_draws_from_its_posterior():
    model, images = Gaussian(), pixels(2300)
    mu, logvar = model.encode(data.to_unit(images))
    z = evaluate.codes(model, images)
    standard = ((z - mu) / (logvar / 2).exp()).detach().flatten().numpy()
    assert stats.kstest(standard, "norm").pvalue > 1e-3
    assert torch.equal(z, evaluate.codes(model, images)) and not z.requires_grad
    assert not torch.equal(z, evaluate.codes(model, images, seed=1))


def test_codes_of_an_autoencoder_are_its_codes():
    images = pixels(1500)
    assert torch.equal(evaluate.codes(Identity(), images), images.flatten(1) / 255)


def test_reconstruct_decodes_the_posterior_mean():
    model, images = Gaussian(), pixels(1200)
    expected = model.decode(model.encode(data.to_unit(images))[0])
    assert torch.equal(evaluate.reconstruct(model, images), expected)
    assert torch.equal(
        evaluate.decode(model, torch.ones(1001, 3)), model.decode(torch.ones(1001, 3))
    )
    assert torch.equal(evaluate.reconstruct(Identity(), images), images / 255)


def test_one_gaussian_has_the_moments_of_the_codes():
    g = torch.Generator().manual_seed(0)
    z = (
        torch.randn(5000, 3, generator=g) @ torch.tensor([[1.0, 0.5, 0], [0, 0.3, 0], [0, 0, 2]])
        + 4
    )
    drawn = evaluate.draw_codes(z, 20_000, "gaussian")
    assert drawn.shape == (20_000, 3) and drawn.dtype == torch.float32
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=4 * 2 / 20_000**0.5)
    assert torch.allclose(drawn.T.cov(), z.T.cov(), atol=0.15)


def test_the_mixture_finds_the_modes_and_their_shares():
    g = torch.Generator().manual_seed(0)
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    chosen = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 6000, True, generator=g)
    z = modes[chosen] + 0.2 * torch.randn(6000, 2, generator=g)
    drawn = evaluate.draw_codes(z, 4000, "gmm")
    nearest = torch.cdist(drawn, modes).argmin(1)
    shares = nearest.bincount(minlength=3) / 4000
    assert shares.tolist() == pytest.approx(
        (chosen.bincount() / 6000).tolist(), abs=4 * 0.5 / 4000**0.5
    )
    assert (drawn - modes[nearest]).std().item() == pytest.approx(0.2, rel=0.05)
    # one Gaussian instead puts draws between the modes
    between = torch.cdist(evaluate.draw_codes(z, 4000, "gaussian"), modes).min(1).values > 1
    assert between.float().mean() > 0.5 and torch.cdist(drawn, modes).min(1).values.max() < 1.5
    # and any first part of the draws is a fair sample: they are not sorted by component
    assert len(set(nearest[:30].tolist())) >= 2
    assert shares[0].item() == pytest.approx((nearest[:1000] == 0).float().mean().item(), abs=0.07)
    assert torch.equal(drawn, evaluate.draw_codes(z, 4000, "gmm"))


def test_three_modes_are_three_for_the_mixture_and_its_density_is_scipys():
    """Science 6.17: BIC chooses three components; the density is that of the sum of Gaussians."""
    g = np.random.default_rng(0)
    z = np.concatenate([g.standard_normal((200, 2)) * 0.3 + m for m in ([0, 0], [4, 0], [0, 4])])
    fits = {k: GaussianMixture(k, random_state=0, reg_covar=1e-5).fit(z) for k in (1, 2, 3, 4, 6)}
    assert min(fits, key=lambda k: fits[k].bic(z)) == 3
    fit = fits[3]
    parts = [
        w * stats.multivariate_normal(m, c).pdf(z)
        for w, m, c in zip(fit.weights_, fit.means_, fit.covariances_, strict=True)
    ]
    assert fit.score_samples(z) == pytest.approx(np.log(sum(parts)), rel=1e-6)


def test_the_bound_is_the_closed_form():
    model, images = Gaussian(), pixels(4000)
    values = evaluate._bound(model, images, 4000)
    flat = images.flatten(1).double() / 255
    expected = vae.linear_elbo(model, flat.mean(0), flat.T.cov(correction=0)).item()
    with torch.no_grad():
        mu, logvar = model.encode(data.to_unit(images))
        spread = vae.elbo(model, data.to_unit(images))[0].std().item()
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).mean(0)
    assert values["elbo"] == pytest.approx(expected, abs=4 * spread / 4000**0.5)
    assert values["elbo"] == pytest.approx(values["rec"] - values["kl"], rel=1e-12)
    assert values["kl_per_dim"] == pytest.approx(kl.tolist(), rel=1e-9)
    assert sum(values["kl_per_dim"]) == pytest.approx(values["kl"], rel=1e-12)
    assert values["active_units"] == (mu.var(0) > 0.01).sum()
    assert values["sigma"] == 0.5


def test_iwae_lies_between_the_bound_and_the_truth():
    """log p(x) of the linear model is a Gaussian's, on the 400 images that the bound looks at."""
    model, images = Gaussian(), pixels(4000)
    values = evaluate._bound(model, images, 4000)
    with torch.no_grad():
        cov = (model.W @ model.W.T + 0.25 * torch.eye(16)).numpy()
    some = images[:400].flatten(1).double().numpy() / 255
    exact = stats.multivariate_normal(model.b.detach().numpy(), cov).logpdf(some).mean()
    with torch.no_grad():
        bound = torch.stack(
            [
                vae.elbo(
                    model, data.to_unit(images[:400]), generator=torch.Generator().manual_seed(i)
                )[0].mean()
                for i in range(50)
            ]
        ).mean()
    assert bound + 0.1 < values["iwae"] < exact + 0.02


def test_pixel_errors_of_a_constant_offset(dataset):
    """Black images decoded as 0.1: the squared error is 0.01 and the PSNR 20 dB (science 6.13)."""
    black = data.Split(torch.zeros(50, 1, 4, 4, dtype=torch.uint8), torch.zeros(50).long())
    grey = data.Split(black.images + 51, black.labels)  # 0.2, decoded as 0.3
    values = evaluate._pixels(Identity(0.1), "ae", data.Dataset("noise", grey, black))
    assert values["mse"] == values["mse_test"] == pytest.approx(0.01, rel=1e-5)
    assert values["mse_train"] == pytest.approx(0.01, rel=1e-5) and values["psnr"] == pytest.approx(
        20, rel=1e-5
    )
    assert values["rec"] == pytest.approx(16 * math.log(0.9), rel=1e-4)
    assert "rec" not in evaluate._pixels(Identity(0.1), "vae", dataset)  # it is _bound's there


def test_a_perfect_reconstruction_is_at_the_floor(dataset, plain_features):
    values = evaluate._distances(Identity(), "ae", dataset, 200)
    real, seen = (plain_features(s.images[:200], "noise") for s in (dataset.test, dataset.train))
    assert values["frechet_floor"] == pytest.approx(metrics.frechet(seen, real), rel=1e-6)
    assert values["frechet_rec"] == pytest.approx(values["frechet_floor"], rel=1e-4)
    assert values["sharpness_rec"] == pytest.approx(
        metrics.sharpness(dataset.train.images[:200]), rel=1e-4
    )
    assert values["sharpness_real"] == pytest.approx(
        metrics.sharpness(dataset.test.images[:200]), rel=1e-4
    )
    assert values["n"] == 200
    worse = evaluate._distances(Identity(0.3), "ae", dataset, 200)
    assert worse["frechet_rec"] > 3 * values["frechet_rec"]
    assert worse["frechet_floor"] == values["frechet_floor"]


def test_samples_from_the_prior_are_decoded_standard_normals(dataset, plain_features):
    values = evaluate._distances(Identity(), "ae", dataset, 200)
    z = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    fake = plain_features(z.clamp(0, 1).view(-1, 1, 4, 4), "noise")
    real = plain_features(dataset.test.images, "noise")
    assert values["frechet_prior"] == pytest.approx(metrics.frechet(fake, real), rel=1e-5)
    assert values["kid_prior"] == pytest.approx(metrics.kid(fake, real, size=200)[0], rel=1e-5)
    expected = metrics.prdc(real, fake)
    assert {k: values[k] for k in expected} == pytest.approx(expected)
    # of images that are noise in [0, 1], one Gaussian of the codes is nearer than N(0, 1)
    assert values["frechet_gaussian"] < values["frechet_prior"] / 3


SHARED = """mse mse_train mse_test psnr frechet_floor frechet_rec frechet_prior frechet_gmm
    kid_floor kid_rec kid_prior kid_gmm precision recall density coverage
    sharpness_real sharpness_rec sharpness_prior sharpness_gmm n""".split()
OF_PAPER = {
    "vae": ["elbo", "rec", "kl", "kl_per_dim", "iwae", "active_units", "sigma"],
    "ae": ["rec", "frechet_gaussian", "kid_gaussian", "sharpness_gaussian"],
}


@pytest.mark.parametrize("paper", ["vae", "ae"])
def test_every_promised_number_is_there_rounded_and_repeatable(paper, dataset, plain_features):
    model = Gaussian() if paper == "vae" else Identity(0.01)
    values = evaluate.evaluate(model, paper, dataset, 200)
    assert sorted(values) == sorted(SHARED + OF_PAPER[paper])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert not model.training
    flat = [v for value in values.values() for v in (value if isinstance(value, list) else [value])]
    assert all(v == float(f"{v:.6g}") for v in flat)
    torch.manual_seed(9)
    assert evaluate.evaluate(model.train(), paper, dataset, 200) == values


def test_an_encoder_is_measured_by_the_same_bound_and_without_samples(
    dataset, plain_features, monkeypatch
):
    expected = evaluate.evaluate(Gaussian(), "vae", dataset, 200)
    monkeypatch.setattr(metrics, "features", None)  # no classifier is asked
    values = evaluate.evaluate(Gaussian(), "encoder", dataset, 200)
    assert set(values) == {*OF_PAPER["vae"], "mse", "mse_train", "mse_test", "psnr"}
    assert values == {key: expected[key] for key in values}


def test_accuracy_counts_the_hits(mini):
    torch.manual_seed(0)
    net = nets.Classifier(width=2)
    split = data.Split(mini.images.repeat(5, 1, 1, 1), mini.labels.repeat(5))
    values = evaluate.evaluate(net, "classifier", data.Dataset("fashion-mini", split, split))
    with torch.no_grad():
        hits = net.eval()(data.to_unit(mini.images)).argmax(1) == mini.labels
    assert values == {"accuracy": hits.float().mean().item()}


# the film


@pytest.mark.parametrize("steps", [1, 8, 100, 5616])
def test_the_film_is_due_at_the_first_step_the_last_and_log_spaced_between(
    steps, dataset, plain_features
):
    film = evaluate.Film(Identity(), dataset, steps)
    due = sorted(film.due)
    assert due[0] == 1 and due[-1] == steps and len(due) <= 24
    gaps = np.diff(np.log(due))
    assert (
        len(due) == steps
        if steps < 9
        else np.median(gaps) == pytest.approx(math.log(steps) / 23, rel=0.15)
    )
    assert evaluate.Film(Identity(), dataset, steps, frames=0).due == set()


def test_the_film_shows_fixed_noise_and_leaves_the_model_in_training(dataset, plain_features):
    model = Identity(0.0).train()
    film = evaluate.Film(model, dataset, 10, frames=3, size=5)
    for step in range(1, 11):
        model.shift = step / 20
        film.look(step)
        film.look(step)  # a second look at one step changes nothing
        assert model.training
    assert film.steps == sorted(film.due) == [1, 3, 10]
    z = torch.randn(2000, 16, generator=torch.Generator().manual_seed(1)).view(-1, 1, 4, 4)
    for step, frame, distance in zip(film.steps, film.images, film.frechet, strict=True):
        images = (z + step / 20).clamp(0, 1)
        assert frame.dtype == torch.uint8 and frame.shape == (5, 1, 4, 4)
        assert torch.equal(frame, (255 * images[:5]).round().byte())
        target = plain_features(dataset.test.images, "noise")
        expected = metrics.frechet(plain_features(images, "noise"), target)
        assert distance == pytest.approx(expected, rel=1e-5)


def test_the_film_comes_back_from_its_state(dataset, plain_features):
    film, other = (evaluate.Film(Identity(), dataset, 10, frames=3) for _ in range(2))
    assert film.state_dict() == {}
    other.load_state_dict({})
    film.look(1), film.look(3)
    other.load_state_dict({k: v.clone() for k, v in film.state_dict().items()})
    assert other.steps == film.steps and other.frechet == film.frechet
    other.look(3)
    assert len(other.images) == 2 and torch.equal(other.images[1], film.images[1])
