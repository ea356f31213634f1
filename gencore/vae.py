"""The variational autoencoder.

Kingma & Welling (2014), "Auto-Encoding Variational Bayes", arXiv:1312.6114; Rezende, Mohamed &
Wierstra (2014). Everything is per image and in nats: likelihoods are summed over pixels, never
averaged, because the bound compares them with a KL divergence that is summed over dimensions.

Left out on purpose: conditional and hierarchical models, normalising flows, free bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gencore import nets


def reparameterise(mu, logvar, generator=None):
    """z = mu + sigma * eps with eps ~ N(0, I): a sample that gradients pass through. (B, d)

    Kingma & Welling (2014), section 2.4.
    """
    eps = torch.empty_like(mu).normal_(generator=generator)
    return mu + (0.5 * logvar).exp() * eps


def kl_normal(mu, logvar):
    """KL(N(mu, diag exp(logvar)) || N(0, I)) per image, in nats: (B, d) -> (B,).

    Kingma & Welling (2014), appendix B.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)


def bernoulli_log_likelihood(x, logits):
    """log p(x|z) of pixels as coin flips with probability sigmoid(logits), in nats: -> (B,).

    Grey pixels x in [0, 1] are allowed and mean this: the result is the exact average of
    log p(b|z) over binary images b whose pixels are drawn with probability x.
    """
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def gaussian_log_likelihood(x, mean, sigma):
    """log N(x; mean, sigma^2 I), summed over pixels, in nats: -> (B,). `sigma` is a float or tensor."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    squared = (x - mean).square().flatten(1)
    log_norm = sigma.log() + 0.5 * math.log(2 * math.pi)
    return -(squared / (2 * sigma**2) + log_norm).sum(1)


def optimal_sigma(x, mean):
    """The sigma that maximises the Gaussian likelihood of a batch: its root mean squared error.

    Rybkin, Daniilidis & Levine (2021), "Simple and effective VAE training with calibrated
    decoders", arXiv:2006.13202.
    """
    return (x - mean).square().mean().sqrt()


class VAE(nn.Module):
    """A convolutional VAE: q(z|x) = N(mu(x), diag sigma(x)^2), p(z) = N(0, I).

    `likelihood` is "bernoulli", or "gaussian" with `sigma` a number (fixed) or "optimal" (the
    maximum-likelihood value of each training batch; its running mean is used for evaluation).
    """

    def __init__(self, latent_dim, channels=1, size=28, width=24, likelihood="bernoulli", sigma=1.0):
        super().__init__()
        self.latent_dim, self.likelihood = latent_dim, likelihood
        self.encoder = nets.Encoder(latent_dim, channels, size, width)
        self.decoder = nets.Decoder(latent_dim, channels, size, width)
        self.learn_sigma = sigma == "optimal"
        self.register_buffer("sigma", torch.tensor(1.0 if self.learn_sigma else float(sigma)))

    def encode(self, x):
        """The posterior of each image: (B, C, H, W) in [0, 1] -> mu, logvar, each (B, d)."""
        return self.encoder(x).unbind(1)

    def decode(self, z):
        """The mean image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.decoder(z).sigmoid()

    def log_likelihood(self, x, z):
        """log p(x|z) in nats, summed over pixels: (B,)."""
        logits = self.decoder(z)
        if self.likelihood == "bernoulli":
            return bernoulli_log_likelihood(x, logits)
        mean = logits.sigmoid()
        return gaussian_log_likelihood(x, mean, self._sigma(x, mean))

    def _sigma(self, x, mean):
        if not (self.learn_sigma and self.training):
            return self.sigma
        sigma = optimal_sigma(x, mean)
        self.sigma.lerp_(sigma.detach(), 0.02)
        return sigma


def elbo(model, x, beta=1.0, generator=None):
    """The evidence lower bound and its two terms, in nats per image: elbo, rec, kl, each (B,).

    rec - beta * kl with rec = E_q[log p(x|z)] from one sample; beta = 1 is the bound itself.
    Kingma & Welling (2014), equation 10; Higgins et al. (2017) for beta.
    """
    mu, logvar = model.encode(x)
    z = reparameterise(mu, logvar, generator)
    rec = model.log_likelihood(x, z)
    kl = kl_normal(mu, logvar)
    return rec - beta * kl, rec, kl


def log_normal(z, mu, logvar):
    """log N(z; mu, diag exp(logvar)) in nats: (B,)."""
    return -0.5 * ((z - mu).square() / logvar.exp() + logvar + math.log(2 * math.pi)).sum(1)


def iwae(model, x, k, generator=None):
    """The importance-weighted bound with k samples, in nats per image: (B,).

    log 1/k sum_i p(x, z_i) / q(z_i|x); k = 1 is the ELBO, more samples tighten it.
    Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519, equation 8.
    """
    mu, logvar = model.encode(x)
    zero = torch.zeros_like(mu)
    log_w = []
    for _ in range(k):
        z = reparameterise(mu, logvar, generator)
        log_w.append(
            model.log_likelihood(x, z) + log_normal(z, zero, zero) - log_normal(z, mu, logvar)
        )
    return torch.stack(log_w).logsumexp(0) - math.log(k)


class Autoencoder(nn.Module):
    """The deterministic twin of VAE: the same two networks, one code per image, no prior.

    `code_mean` and `code_chol` describe one Gaussian fitted to the training codes.
    """

    def __init__(self, latent_dim, channels=1, size=28, width=24):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nets.Encoder(latent_dim, channels, size, width, heads=1)
        self.decoder = nets.Decoder(latent_dim, channels, size, width)
        self.register_buffer("code_mean", torch.zeros(latent_dim))
        self.register_buffer("code_chol", torch.eye(latent_dim))

    def encode(self, x):
        """The code of each image: (B, C, H, W) in [0, 1] -> (B, d)."""
        return self.encoder(x)[:, 0]

    def decode(self, z):
        """The image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.decoder(z).sigmoid()


class Recognition(nn.Module):
    """An encoder of its own size for a trained VAE `of`, whose decoder it keeps as it is.

    Both ELBOs bound the same log p(x) by Gaussian posteriors: they differ by amortisation alone.
    Cremer, Li & Duvenaud (2018), "Inference suboptimality in variational autoencoders",
    arXiv:1801.03558.
    """

    def __init__(self, of, channels=1, size=28, width=8, hidden=(64, 64)):
        super().__init__()
        of.eval().requires_grad_(False)
        self.latent_dim, self.sigma = of.latent_dim, of.sigma
        self.encoder = nets.Encoder(of.latent_dim, channels, size, width, hidden=hidden)
        # Methods of `of`: its weights are no part of this module, so neither trained nor stored.
        self.decode, self.log_likelihood = of.decode, of.log_likelihood

    encode = VAE.encode


class LinearVAE(nn.Module):
    """A VAE with linear encoder and decoder on flat images: the model that can be solved.

    p(x|z) = N(Wz + b, sigma^2 I), q(z|x) = N(V(x - b), diag s^2), all six trained. At the optimum
    it is probabilistic PCA. Lucas et al. (2019), "Don't blame the ELBO!", arXiv:1911.02469.
    """

    def __init__(self, data_dim, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim
        self.W = nn.Parameter(0.1 * torch.randn(data_dim, latent_dim))
        self.V = nn.Parameter(0.1 * torch.randn(latent_dim, data_dim))
        self.b = nn.Parameter(torch.zeros(data_dim))
        self.logvar = nn.Parameter(torch.zeros(latent_dim))
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def encode(self, x):
        mu = (x.flatten(1) - self.b) @ self.V.T
        return mu, self.logvar.expand_as(mu)  # (B, d)

    def decode(self, z):
        """The mean of p(x|z), not confined to [0, 1]: (B, d) -> (B, D)."""
        return z @ self.W.T + self.b

    def log_likelihood(self, x, z):
        return gaussian_log_likelihood(x.flatten(1), self.decode(z), self.log_sigma.exp())


def linear_elbo(model, mean, cov):
    """The ELBO of a LinearVAE averaged over data with this mean (D,) and covariance (D, D), exact.

    Both expectations, over the data and over q, are Gaussian integrals; nothing is sampled.
    Lucas et al. (2019), appendix; the same quantity as `elbo(model, x)[0].mean()` in the limit.
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
    """Probabilistic PCA in closed form: the optimum that a LinearVAE can reach.

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
    """One update of the VAE: maximise the ELBO of a batch. `step(batch) -> {loss, rec, kl}`.

    The returned terms are nats per image. `reduction="mean"` divides the likelihood by the number
    of pixels, the mistake that the book takes apart; `parts` is what a checkpoint has to keep.
    """

    def __init__(self, model, lr=1e-3, beta=1.0, reduction="sum", seed=0):
        self.model, self.beta, self.reduction = model, beta, reduction
        self.generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        self.optimiser = torch.optim.Adam(model.parameters(), lr, fused=True)
        self.parts = {"model": model, "optimiser": self.optimiser, "noise": self.generator}

    def __call__(self, x):
        bound, rec, kl = elbo(self.model, x, self.beta, self.generator)
        loss = -bound.mean()
        if self.reduction == "mean":
            loss = -(rec / x[0].numel() - self.beta * kl).mean()
        nets.update(self.optimiser, loss)
        return {"loss": -bound.mean().item(), "rec": rec.mean().item(), "kl": kl.mean().item()}


class AutoencoderStep:
    """One update of the plain autoencoder: the reconstruction term of the ELBO, nothing else."""

    def __init__(self, model, lr=1e-3):
        self.model = model
        self.optimiser = torch.optim.Adam(model.parameters(), lr, fused=True)
        self.parts = {"model": model, "optimiser": self.optimiser}

    def __call__(self, x):
        logits = self.model.decoder(self.model.encode(x))
        rec = bernoulli_log_likelihood(x, logits).mean()
        nets.update(self.optimiser, -rec)
        return {"loss": -rec.item(), "rec": rec.item()}


class LinearStep:
    """One L-BFGS iteration on the exact ELBO of a LinearVAE; the batch is not looked at.

    `mean` (D,) and `cov` (D, D), in float64, are all that the ELBO needs to know of the data.
    """

    def __init__(self, model, mean, cov):
        self.model, self.mean, self.cov = model, mean, cov
        self.optimiser = torch.optim.LBFGS(
            model.parameters(), max_iter=20, history_size=20, line_search_fn="strong_wolfe"
        )
        self.parts = {"model": model}

    def __call__(self, batch=None):
        def closure():
            self.optimiser.zero_grad()
            loss = -linear_elbo(self.model, self.mean, self.cov)
            if not math.isfinite(loss.item()):
                raise nets.Diverged(f"the loss became {loss.item()}")
            loss.backward()
            return loss

        return {"loss": self.optimiser.step(closure).item()}
