"""Probabilistic PCA: the best linear VAE, solved and not trained. The baseline of every table.

p(x|z) = N(Wz + b, sigma^2 I) with z ~ N(0, I). The optimum is in closed form, the posterior is a
Gaussian, so the ELBO is the log-likelihood. Tipping & Bishop (1999), doi:10.1111/1467-9868.00196.
What a network cannot do better than this matrix it has not learnt.
"""

import math

import torch
from torch import nn

from gencore import evaluate, latents, linear, vae

TERMS = {"loss": "−log p(x), nats"}


class Model(nn.Module):
    """Probabilistic PCA of images of one shape, (C, H, W); `Step` computes its matrices."""

    likelihood = "gaussian"

    def __init__(self, latent_dim, shape=(1, 28, 28)):
        super().__init__()
        self.latent_dim, self.shape = latent_dim, tuple(shape)
        self.register_buffer("W", torch.zeros(math.prod(self.shape), latent_dim))
        self.register_buffer("b", torch.zeros(math.prod(self.shape)))
        self.register_buffer("sigma", torch.ones(()))
        self.priors = latents.prior_and_fits(latent_dim)

    def encode(self, x):
        """The exact posterior of each image: (B, C, H, W) -> mu, logvar, each (B, d).

        The columns of W are orthogonal, so W^T W is diagonal, and with it the covariance of the
        posterior, sigma^2 (W^T W + sigma^2 I)^-1. Tipping & Bishop (1999), equation 6.
        """
        precision = self.W.square().sum(0) + self.sigma**2  # (d,): the eigenvalues of the data
        mu = (x.flatten(1) - self.b) @ self.W / precision
        return mu, (self.sigma**2 / precision).log().expand_as(mu)

    infer = vae.Model.infer

    def mean(self, z):
        """The mean of p(x|z), not confined to [0, 1]: (B, d) -> (B, D)."""
        return z @ self.W.T + self.b

    def decode(self, z):
        """The mean of p(x|z), clipped to [0, 1]: (B, d) -> (B, C, H, W)."""
        return self.mean(z).clamp(0, 1).view(-1, *self.shape)

    def log_likelihood(self, x, z):
        """log p(x|z) in nats, summed over pixels: (B,)."""
        return vae.gaussian_log_likelihood(x.flatten(1), self.mean(z), self.sigma)

    def log_prob(self, x):
        """log p(x) = log N(x; b, W W^T + sigma^2 I) in nats: (B, C, H, W) -> (B,).

        By Bayes' rule at the posterior's mean, where all its terms are known.
        """
        mu, logvar = self.encode(x)
        own = vae.log_normal(mu, torch.zeros_like(mu), torch.zeros_like(mu))
        return self.log_likelihood(x, mu) + own - vae.log_normal(mu, mu, logvar)


class Step:
    """The solution, computed from the split at once; each call only reports -log p of a batch.

    Raises ValueError when the split has too few images for a noise: they would lie in the plane.
    """

    def __init__(self, model, split, lr=1.0, seed=0):
        if len(split.images) < model.latent_dim + 2:
            raise ValueError(
                f"{len(split.images)} images lie in a plane of {model.latent_dim} dimensions, and "
                f"nothing is left for the noise; take at least {model.latent_dim + 2} images."
            )
        self.model, self.split = model, split
        mean, cov = linear.moments(split.images)
        W, sigma2, _ = linear.ppca(mean, cov, model.latent_dim)
        for name, value in {"W": W, "b": mean, "sigma": sigma2.sqrt()}.items():
            getattr(model, name).copy_(value)
        self.parts = {"model": model}

    @torch.no_grad()
    def __call__(self, batch):
        return {"loss": -self.model.log_prob(batch.x).mean().item()}

    def finish(self):
        """Fit one Gaussian and a mixture of ten to draws from the training images' posteriors."""
        latents.fit_all(self.model.priors, evaluate.codes(self.model, self.split.images))


def measure(model, dataset, n):
    """The log-likelihood, which is the bound here, and what a VAE is measured by."""
    return {
        **vae.bounds(model, dataset.test.images[:n]),
        **evaluate.pixel_errors(model, dataset),
        **evaluate.distances(model, dataset, n),
        **evaluate.health(model, dataset),
    }
