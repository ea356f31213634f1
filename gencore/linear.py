"""The linear VAE and its closed form: probabilistic PCA.

The one VAE whose ELBO has no integral left and whose optimum is known, so that everything else can
be checked against it. Tipping & Bishop (1999); Lucas et al. (2019), "Don't blame the ELBO!",
arXiv:1911.02469.
"""

import math

import torch
from torch import nn

from gencore import latents, nets, train, vae

TERMS = {"loss": "−ELBO, nats"}


class Model(nn.Module):
    """A VAE with linear encoder and decoder on flat images: the model that can be solved.

    p(x|z) = N(Wz + b, sigma^2 I), q(z|x) = N(V(x - b), diag s^2), all six trained. At the optimum
    it is probabilistic PCA. `shape` is that of an image, (C, H, W), or of any other vector, (D,).
    """

    likelihood = "gaussian"

    def __init__(self, latent_dim, shape=(1, 28, 28)):
        super().__init__()
        self.latent_dim, self.shape = latent_dim, tuple(shape)
        data_dim = math.prod(self.shape)
        self.W = nn.Parameter(0.1 * torch.randn(data_dim, latent_dim))
        self.V = nn.Parameter(0.1 * torch.randn(latent_dim, data_dim))
        self.b = nn.Parameter(torch.zeros(data_dim))
        self.logvar = nn.Parameter(torch.zeros(latent_dim))
        self.log_sigma = nn.Parameter(torch.zeros(()))
        self.priors = nn.ModuleDict({"prior": latents.Normal(latent_dim)})

    def encode(self, x):
        """The posterior of each image: (B, C, H, W) -> mu, logvar, each (B, d)."""
        mu = (x.flatten(1) - self.b) @ self.V.T
        return mu, self.logvar.expand_as(mu)

    infer = vae.Model.infer

    def mean(self, z):
        """The mean of p(x|z), not confined to [0, 1]: (B, d) -> (B, D)."""
        return z @ self.W.T + self.b

    def decode(self, z):
        """The mean of p(x|z), clipped to [0, 1]: (B, d) -> (B, C, H, W)."""
        return self.mean(z).clamp(0, 1).view(-1, *self.shape)

    def log_likelihood(self, x, z):
        """log p(x|z) in nats, summed over pixels: (B,)."""
        return vae.gaussian_log_likelihood(x.flatten(1), self.mean(z), self.log_sigma.exp())


def moments(images):
    """Mean (D,) and covariance (D, D) of flat images, uint8 or in [0, 1], in float64."""
    flat = images.cpu().flatten(1).double() / (255 if images.dtype == torch.uint8 else 1)
    mean = flat.mean(0)
    return mean, (flat - mean).T @ (flat - mean) / len(flat)


def elbo(model, mean, cov):
    """The ELBO of a linear VAE averaged over data with this mean (D,) and covariance (D, D), exact.

    Both expectations, over the data and over q, are Gaussian integrals; nothing is sampled.
    Lucas et al. (2019), appendix; the same quantity as `vae.elbo(model, x)[0].mean()` in the limit.
    """
    W, V, s2 = model.W, model.V, model.logvar.exp()
    shift = mean - model.b
    second = cov + torch.outer(shift, shift)  # E[(x - b)(x - b)^T]
    VS = V @ second  # (d, D)
    mu2 = (VS * V).sum(1)  # E[mu_i^2]
    error = second.trace() - 2 * (VS.T * W).sum() + ((W.T @ W) * (VS @ V.T)).sum()
    error = error + (W.square().sum(0) * s2).sum()
    log_norm = model.log_sigma + 0.5 * math.log(2 * math.pi)
    rec = -error / (2 * (2 * model.log_sigma).exp()) - len(mean) * log_norm
    return rec - 0.5 * (mu2 + s2 - 1 - model.logvar).sum()


def ppca(mean, cov, latent_dim):
    """Probabilistic PCA in closed form: the optimum that a linear VAE can reach.

    Returns W (D, d), sigma^2 and the mean log-likelihood in nats per image of data with this mean
    and covariance. Tipping & Bishop (1999), equations 7 and 8.
    """
    values, vectors = torch.linalg.eigh(cov)
    values, vectors = values.flip(0), vectors.flip(1)
    lam, dim = values[:latent_dim], len(mean)
    sigma2 = values[latent_dim:].mean()
    W = vectors[:, :latent_dim] * (lam - sigma2).clamp_min(0).sqrt()
    log_det = lam.log().sum() + (dim - latent_dim) * sigma2.log()
    return W, sigma2, -0.5 * (dim * math.log(2 * math.pi) + log_det + dim)


class Step:
    """One L-BFGS iteration on the exact ELBO of a linear VAE; the batch is not looked at.

    All that the ELBO needs to know of the split is the mean and the covariance of its images. It is
    computed in float64, in which the model is from now on. `lr` scales the length of a step.
    """

    def __init__(self, model, split, lr=1.0, seed=0):
        mean, cov = moments(split.images)
        if nets.device_of(model).type == "mps":
            model.cpu()  # MPS has no float64
        device = nets.device_of(model)
        self.model, self.mean, self.cov = model.double(), mean.to(device), cov.to(device)
        with torch.no_grad():
            model.b.copy_(self.mean)
        self.optimiser = torch.optim.LBFGS(
            model.parameters(), lr, max_iter=20, history_size=20, line_search_fn="strong_wolfe"
        )
        self.parts = {"model": model, "optimiser": self.optimiser}

    def __call__(self, batch=None):
        def closure():
            self.optimiser.zero_grad()
            loss = -elbo(self.model, self.mean, self.cov)
            if not math.isfinite(loss.item()):
                raise train.Diverged(f"the loss became {loss.item()}")
            loss.backward()
            return loss

        return {"loss": self.optimiser.step(closure).item()}


def measure(model, dataset, n):
    """The exact bound of the training images, the optimum of probabilistic PCA; nats per image."""
    mean, cov = moments(dataset.train.images)
    model = model.cpu().double()
    with torch.no_grad():
        bound = elbo(model, mean, cov).item()
    _, sigma2, optimum = ppca(mean, cov, model.latent_dim)
    sigma = model.log_sigma.exp().item()
    model.float()
    best = {"ppca": optimum.item(), "ppca_sigma": sigma2.sqrt().item()}
    return {"elbo": bound, "sigma": sigma, **best}
