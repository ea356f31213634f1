"""ae: the deterministic twin of the VAE, and the densities of its codes."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from small_networks import SMALL

from gencore import ae, data, latents, nets, vae


def batch(x):
    """A batch of images that no label or row is asked of."""
    nothing = torch.zeros(len(x), dtype=torch.int64)
    return data.Batch(x, nothing, nothing)


def small(seed=0, **options):
    torch.manual_seed(seed)
    return ae.Model(3, size=8, **SMALL, **options)


@pytest.fixture
def images():
    return torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_it_has_the_networks_of_the_vae_and_one_code_for_each_image(images):
    model, twin = small(), vae.Model(3, size=8, **SMALL)
    code = model.encode(images)
    assert code.shape == (16, 3) and model.decode(code).shape == images.shape
    assert nets.parameters(model.decoder) == nets.parameters(twin.decoder)
    assert nets.parameters(twin.encoder) - nets.parameters(model.encoder) == 3 * 9  # the other head
    decoded = model.decode(10 * code)
    assert decoded.min() >= 0 and decoded.max() <= 1
    assert torch.equal(decoded, model.decoder(10 * code).sigmoid())


def test_there_is_nothing_to_draw(images):
    model, generator = small(), torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert torch.equal(model.infer(images, generator), model.infer(images))
    assert torch.equal(model.infer(images), model.encode(images))
    assert torch.equal(generator.get_state(), state)


def test_autoencoder_step_is_adam_on_the_reconstruction_term(images):
    step, reference = ae.Step(small(), lr=0.01), small()
    optimiser = torch.optim.Adam(reference.parameters(), 0.01)
    for _ in range(3):
        losses = step(batch(images))
        optimiser.zero_grad()
        p = reference.decode(reference.encode(images)).clamp(1e-7, 1 - 1e-7)
        loss = -(images * p.log() + (1 - images) * (1 - p).log()).sum() / len(images)
        loss.backward()
        optimiser.step()
    assert losses["loss"] == pytest.approx(loss.item(), rel=1e-4) == -losses["rec"]
    for p, q in zip(step.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=2e-5)


def test_the_terms_are_named_and_every_weight_is_trained(images):
    step = ae.Step(small(), lr=0.02)
    assert list(step(batch(images))) == list(ae.TERMS)
    assert step.parts == {"model": step.model, "optimiser": step.optimiser}
    (group,) = step.optimiser.param_groups
    assert group["lr"] == 0.02
    assert {id(p) for p in group["params"]} == {id(p) for p in step.model.parameters()}


def test_finish_fits_both_densities_to_the_codes_of_the_training_images(mini):
    torch.manual_seed(0)
    model = ae.Model(2, **SMALL).eval()
    assert list(model.priors) == ["prior", "gaussian", "gmm"], "the model's own first"
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ae.Step(model, mini).finish()
    with torch.no_grad():
        codes = model.encode(mini.images.float() / 255)
    assert torch.equal(model.priors["gaussian"].mean, codes.double().mean(0).float())
    for name, kind in (("gaussian", latents.Gaussian), ("gmm", latents.Mixture)):
        expected = kind.fit(codes).state_dict()
        got = model.priors[name].state_dict()
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], expected[key]) for key in expected)
    fits = [model.priors[name].log_prob(codes).mean().item() for name in model.priors]
    assert fits[0] < min(fits[1:]) - 1, "N(0, I) is not their density"
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    again = ae.Model(2, **SMALL)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.priors["gmm"].means, model.priors["gmm"].means), "an artefact carries it"


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_reconstruction_term_is_a_mean_over_all_images(mini, likelihood):
    torch.manual_seed(0)
    model = ae.Model(2, likelihood=likelihood, **SMALL).eval()
    images = mini.images.repeat(5, 1, 1, 1)[:1100]  # more than a chunk, and not a multiple of it
    x = images.float() / 255
    with torch.no_grad():
        p = model.decode(model.encode(x)).double()
    terms = (x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1)
    if likelihood == "gaussian":  # the noise is that of each chunk
        terms = torch.cat([normal(a, b) for a, b in zip(x.split(1000), p.split(1000), strict=True)])
    assert ae._mean_term(model, images) == pytest.approx(terms.mean().item(), rel=1e-5)


# a Gaussian likelihood


def normal(x, mean):
    """log N(x; mean, sigma^2) of each image, by SciPy, with the root mean squared error as sigma."""
    x, mean = x.double().numpy(), mean.detach().double().numpy()
    sigma = np.sqrt(np.mean((x - mean) ** 2))
    return torch.from_numpy(stats.norm.logpdf(x, mean, sigma).sum((1, 2, 3)))


def test_a_gaussian_term_by_hand(images):
    """-D / 2 (log 2 pi MSE + 1) on average, with the noise that fits the batch best."""
    model = small(likelihood="gaussian")
    with torch.no_grad():
        found, mean = ae.reconstruction_term(model, images), model.decode(model.encode(images))
    assert found.shape == (16,) and found.double().numpy() == pytest.approx(normal(images, mean).numpy(), rel=1e-4)
    error = (mean - images).double().square().mean().item()
    assert found.mean().item() == pytest.approx(-64 / 2 * (math.log(2 * math.pi * error) + 1), rel=1e-5)


def contrasted(**options):
    """A model whose pixels are not all near 1/2, where both likelihoods have one gradient."""
    model = small(**options)
    with torch.no_grad():
        model.decoder.net[-1].weight *= 20
    return model


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_a_gaussian_likelihood_goes_down_the_squared_error(images):
    """Its gradient is that of the squared error, times 1 / (2 MSE): the noise follows the error."""
    step = ae.Step(contrasted(likelihood="gaussian"))
    losses = step(batch(images))
    model = contrasted()
    squared = (model.decode(model.encode(images)) - images).square()
    (squared.flatten(1).sum(1).mean() / (2 * squared.mean().item())).backward()
    found, wanted = gradient(step.model), gradient(model)
    assert torch.nn.functional.cosine_similarity(found, wanted, 0) > 1 - 1e-6
    assert found.norm() == pytest.approx(wanted.norm().item(), rel=1e-4)
    other = ae.Step(contrasted())
    other(batch(images))
    assert torch.nn.functional.cosine_similarity(gradient(other.model), wanted, 0) < 0.999, "and Bernoulli's is not"
    same = contrasted()
    term = normal(images, same.decode(same.encode(images))).mean().item()
    assert losses["loss"] == -losses["rec"] == pytest.approx(-term, rel=1e-4)


@pytest.mark.parametrize("likelihood", ["Gaussian", "binary", "mse", None])
def test_a_typo_never_selects_another_likelihood(likelihood):
    with pytest.raises(ValueError, match="likelihood is .*; it can be 'bernoulli' or 'gaussian'"):
        ae.Model(2, likelihood=likelihood)


def test_its_networks_have_the_sizes_that_are_asked_for_and_its_codes_follow_a_fitted_gaussian():
    model = ae.Model(2, channels=3, size=8, encoder={"widths": (3,), "hidden": (6,)}, decoder={"widths": (2, 7), "hidden": ()})
    shapes = [tuple(p.shape) for p in model.parameters() if p.ndim > 1]
    assert shapes == [(3, 3, 8, 8), (6, 12), (2, 6), (8, 2), (7, 2, 3, 3), (7, 3, 8, 8)]
    assert isinstance(model.priors[model.followed], latents.Gaussian)


@pytest.mark.parametrize("beta2", [0.999, 0.99])
def test_the_memory_of_adams_squares_can_be_chosen(beta2):
    options = {} if beta2 == 0.999 else {"adam_beta2": beta2}
    step = ae.Step(ae.Model(2, size=8), **options)
    assert [group["betas"] for group in step.optimiser.param_groups] == [(0.9, beta2)]
