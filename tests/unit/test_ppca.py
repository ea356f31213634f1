"""ppca: against SciPy's Gaussian, scikit-learn's PCA and the bound that must be tight."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.decomposition import PCA

from gencore import data, linear, ppca, vae


@pytest.fixture(scope="module")
def split():
    """600 images of 6 x 6 pixels around 0.5, with a few strong directions."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(600, 5, generator=generator) * torch.tensor([0.4, 0.3, 0.2, 0.1, 0.05])
    flat = 0.5 + codes @ torch.randn(5, 36, generator=generator) / 6
    flat = flat + 0.05 * torch.randn(600, 36, generator=generator)
    images = flat.clamp(0, 1).view(-1, 1, 6, 6)
    return data.Split((images * 255).round().byte(), torch.zeros(600, dtype=torch.int64))


@pytest.fixture(scope="module")
def solved(split):
    model = ppca.Model(3, (1, 6, 6))
    ppca.Step(model, split)
    return model


def flat_of(split):
    return data.to_unit(split.images).flatten(1).double().numpy()


def test_its_density_is_the_gaussian_that_scikit_learn_finds(split, solved):
    flat = flat_of(split)
    reference = PCA(3, svd_solver="full").fit(flat)
    found = solved.log_prob(data.to_unit(split.images)).double().mean().item()
    n = len(flat)  # scikit-learn divides by n - 1
    cov = reference.get_covariance() * (n - 1) / n
    expected = stats.multivariate_normal(reference.mean_, cov).logpdf(flat).mean()
    assert found == pytest.approx(expected, abs=1e-3)


def test_each_density_is_scipys_for_w_and_sigma(split, solved):
    x = data.to_unit(split.images[:20])
    W, s2 = solved.W.double().numpy(), solved.sigma.double().item() ** 2
    gaussian = stats.multivariate_normal(solved.b.double().numpy(), W @ W.T + s2 * np.eye(36))
    expected = gaussian.logpdf(x.flatten(1).double().numpy())
    np.testing.assert_allclose(solved.log_prob(x).numpy(), expected, atol=2e-3)


def test_it_is_the_optimum_of_linear_ppca(split, solved):
    mean, cov = linear.moments(split.images)
    _, _, optimum = linear.ppca(mean, cov, 3)
    found = solved.log_prob(data.to_unit(split.images)).double().mean().item()
    assert found == pytest.approx(optimum.item(), abs=1e-3)


def test_the_posterior_is_exact_so_the_bound_is_tight(split, solved):
    x = data.to_unit(split.images[:50])
    log_w = vae.log_weights(solved, x, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_w, solved.log_prob(x).expand(4, -1), atol=2e-3, rtol=0)


def test_another_sigma_would_be_worse(split, solved):
    x = data.to_unit(split.images)
    best, kept = solved.log_prob(x).mean(), solved.sigma.clone()
    for factor in (0.9, 1.1):
        solved.sigma.copy_(kept * factor)
        assert solved.log_prob(x).mean() < best
        solved.sigma.copy_(kept)


def test_reconstructions_lose_what_the_discarded_directions_hold(split, solved):
    x = data.to_unit(split.images)
    mu, _ = solved.encode(x)
    basis = torch.linalg.qr(solved.W).Q
    left = (x.flatten(1) - solved.b) - (x.flatten(1) - solved.b) @ basis @ basis.T
    assert (solved.mean(mu) - x.flatten(1)).square().mean() >= left.square().mean() * (1 - 1e-5)
    assert solved.decode(10 * mu).min() >= 0 and solved.decode(10 * mu).max() <= 1


def test_steps_change_nothing_and_report_minus_log_p(split):
    model = ppca.Model(2, (1, 6, 6))
    step = ppca.Step(model, split)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = next(data.batches(split, 100))
    assert step(batch) == {"loss": pytest.approx(-model.log_prob(batch.x).mean().item())}
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert math.isfinite(model.sigma)


@pytest.mark.parametrize(("images", "enough"), [(3, False), (4, False), (5, True)])
def test_images_that_leave_nothing_for_the_noise_are_refused(split, images, enough):
    """n images span n - 1 directions around their mean."""
    model, few = ppca.Model(3, (1, 6, 6)), data.Split(split.images[:images], split.labels[:images])
    if enough:
        ppca.Step(model, few)
        assert model.sigma > 0 and model.log_prob(data.to_unit(few.images)).isfinite().all()
    else:
        with pytest.raises(ValueError, match="take at least 5 images"):
            ppca.Step(model, few)
