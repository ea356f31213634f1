"""encoder: another posterior for a VAE that stays as it is."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_networks import SMALL

from gencore import data, encoder, linear, nets, vae


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(x):
    """A batch of images that no label or row is asked of."""
    nothing = torch.zeros(len(x), dtype=torch.int64)
    return data.Batch(x, nothing, nothing)


def small_vae(seed=0, **options):
    torch.manual_seed(seed)
    return vae.Model(3, size=8, **SMALL, **options)


@pytest.fixture
def images():
    return torch.rand(16, 1, 8, 8, generator=seeded())


def small_encoder(**options):
    """(the small encoder's model, the VAE that it is for)."""
    of = small_vae(**options)
    return encoder.Model(of, size=8, widths=(2,), hidden=(6, 5)), of


def test_it_has_an_encoder_of_its_own_and_the_rest_of_another_model(images):
    model, of = small_encoder(likelihood="gaussian", sigma=0.3)
    z = torch.randn(16, 3, generator=seeded(1))
    assert torch.equal(model.decode(z), of.decode(z)) and model.latent_dim == 3
    assert torch.equal(model.log_likelihood(images, z), of.log_likelihood(images, z))
    assert model.sigma.item() == pytest.approx(0.3) and model.likelihood == "gaussian"
    mu, logvar = model.encode(images)
    assert torch.equal(torch.stack([mu, logvar], 1), model.encoder(images))
    assert nets.parameters(model) == nets.parameters(model.encoder) < nets.parameters(of.encoder)
    assert {key.split(".")[0] for key in model.state_dict()} == {"encoder"}


@pytest.mark.parametrize("options", [{}, {"likelihood": "binary"}, {"likelihood": "gaussian", "sigma": "optimal"}])
def test_a_frozen_decoder_keeps_every_bit_and_gets_no_gradient(images, options):
    model, of = small_encoder(**options)
    before = {key: value.clone() for key, value in of.state_dict().items()}
    first = {key: value.clone() for key, value in model.state_dict().items()}
    step = encoder.Step(model.train(), lr=0.01)
    for _ in range(3):
        step(batch(images))
    assert all(torch.equal(value, before[key]) for key, value in of.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in of.parameters())
    assert not of.training, "its sigma does not follow the batches"
    assert not any(torch.equal(value, first[key]) for key, value in model.state_dict().items())
    trained = [p for group in step.optimiser.param_groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in model.encoder.parameters()}


def test_the_gradient_of_a_small_encoder_is_that_of_the_whole_model(images):
    """With the VAE's own encoder inside, bound and gradient are the VAE's, and the decoder's is left out."""
    whole, of = small_vae(), small_vae()
    model = encoder.Model(of, size=8, **SMALL["encoder"])
    model.encoder.load_state_dict(whole.encoder.state_dict())
    pairs = ((vae, whole), (encoder, model))
    losses = [paper.Step(m, seed=2)(batch(images)) for paper, m in pairs]
    assert losses[0] == pytest.approx(losses[1])
    for p, q in zip(whole.encoder.parameters(), model.encoder.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, rtol=1e-4, atol=1e-5)
    assert all(p.grad is not None for p in whole.decoder.parameters())


def test_a_small_encoder_learns_the_posterior_of_a_model_that_can_be_solved():
    """Of a linear decoder the posterior is known: the ELBO of q = N(m, S) comes near to it from below."""
    torch.manual_seed(0)
    of = linear.Model(2, (1, 8, 8))
    of.sigma = torch.tensor(0.5)
    with torch.no_grad():
        of.log_sigma.fill_(math.log(0.5))
        of.W.copy_(torch.linalg.qr(torch.randn(64, 2))[0] * 2)  # orthogonal: q can be exact
    z = torch.randn(2000, 2, generator=seeded(3))
    with torch.no_grad():
        x = of.mean(z) + 0.5 * torch.randn(2000, 64, generator=seeded(4))
    cov = (of.W @ of.W.T + 0.25 * torch.eye(64)).detach().double().numpy()
    truth = stats.multivariate_normal(np.zeros(64), cov).logpdf(x.double().numpy()).mean()
    model = encoder.Model(of, size=8, widths=(8,), hidden=(32,))
    step = encoder.Step(model, lr=3e-3)
    images = x.view(-1, 1, 8, 8)
    for i in range(600):
        step(batch(images[torch.randint(2000, (128,), generator=seeded(i))]))
    with torch.no_grad():
        bound = vae.elbo(model, images, generator=seeded(5))[0].mean().item()
    assert truth - 1 < bound < truth + 0.1


def test_codes_are_drawn_from_its_own_posterior_and_images_from_the_vaes_priors(images):
    model, of = small_encoder()
    mu, logvar = model.encode(images)
    assert torch.equal(model.infer(images), mu)
    assert torch.equal(model.infer(images, seeded(1)), vae.reparameterise(mu, logvar, seeded(1)))
    assert not torch.allclose(mu, of.encode(images)[0]), "it is another q(z|x)"
    assert model.priors is of.priors and model.of is of and model.decoder is of.decoder


@pytest.mark.parametrize("likelihood", ["bernoulli", "binary", "gaussian"])
def test_its_bounds_are_those_of_the_vae_with_another_encoder(likelihood, images):
    """With the VAE's own encoder inside, they are the VAE's to the last digit, mismatches and all."""
    of = small_vae(likelihood=likelihood)
    of.priors["gaussian"].mean.fill_(0.5)
    model = encoder.Model(of, size=8, **SMALL["encoder"])
    other, found = (vae.bounds(m.eval(), (255 * images).byte()) for m in (model, of))
    assert other.keys() == found.keys() and other["kl"] != found["kl"] and other["sigma"] == found["sigma"]
    model.encoder.load_state_dict(of.encoder.state_dict())
    assert vae.bounds(model.eval(), (255 * images).byte()) == found


def test_a_step_for_a_vae_of_binary_images_throws_coins(images):
    model, of = small_encoder(likelihood="binary")
    noise = seeded(3)
    coins = torch.bernoulli(images, generator=noise)
    bound = vae.elbo(model, coins, generator=noise)[0].mean().item()
    assert encoder.Step(model, seed=3)(batch(images))["loss"] == pytest.approx(-bound, rel=1e-5)


def test_the_vae_goes_where_the_encoder_goes():
    model, of = small_encoder()
    model.double()
    assert {p.dtype for m in (model, of) for p in m.parameters()} == {torch.float64}
    assert of.sigma.dtype == torch.float64
    model.to("meta")
    assert {p.device.type for m in (model, of) for p in m.parameters()} == {"meta"}


def test_the_vae_stays_out_of_training_and_its_densities_are_left_alone(mini):
    model, of = small_encoder()
    model.train()
    assert model.encoder.training and not of.training
    assert encoder.Step.finish is None, "the mixture is the VAE's, which is published with it"
    assert encoder.TERMS == vae.TERMS
    assert not any(name.startswith(("of", "_of", "decoder", "priors")) for name in model.state_dict())
