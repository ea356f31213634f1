"""The variational autoencoder.

Kingma & Welling (2014), "Auto-Encoding Variational Bayes", arXiv:1312.6114; Rezende, Mohamed &
Wierstra (2014). Everything is per image and in nats: likelihoods are summed over pixels, never
averaged, because the bound compares them with a KL divergence that is summed over dimensions.
The functions that the chapters write out check nothing: their shapes are those of the docstrings.

Left out on purpose: conditional and hierarchical models, normalising flows, free bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from gencore import data, evaluate, latents, metrics, nets, train

TERMS = {"loss": "loss, nats", "rec": "reconstruction term, nats", "kl": "KL term, nats"}


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
    """log N(x; mean, sigma^2), summed over pixels, in nats: -> (B,).

    sigma: one for all pixels, a float or a tensor; or one for each, (C, H, W) or (B, C, H, W).
    """
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    squared = (x - mean).square()
    log_norm = sigma.log() + 0.5 * math.log(2 * math.pi)
    return -(squared / (2 * sigma**2) + log_norm).flatten(1).sum(1)


def optimal_sigma(x, mean):
    """The sigma that maximises the Gaussian likelihood of a batch: its root mean squared error.

    Rybkin, Daniilidis & Levine (2021), "Simple and effective VAE training with calibrated
    decoders", arXiv:2006.13202.
    """
    return (x - mean).square().mean().sqrt()


class Model(nn.Module):
    """A convolutional VAE: q(z|x) = N(mu(x), diag sigma(x)^2), p(z) = N(0, I).

    `encoder` and `decoder` are further arguments of the two networks. `likelihood` is "bernoulli"
    for grey pixels, which are coins that nobody has thrown yet; "binary", with coins that are
    thrown anew for each batch, before the encoder sees them; or "gaussian" with `sigma` a number
    (fixed) or "optimal" (the maximum-likelihood value of each training batch; its running mean is
    used for evaluation).
    """

    def __init__(self, latent_dim, channels=1, size=28, encoder=None, decoder=None,
                 likelihood="bernoulli", sigma=1.0):  # fmt: skip
        super().__init__()
        if likelihood not in ("bernoulli", "binary", "gaussian"):
            raise ValueError(
                f"likelihood is {likelihood!r}; it can be 'bernoulli', 'binary' or 'gaussian'."
            )
        if sigma != "optimal" and not (isinstance(sigma, (int, float)) and 0 < sigma < math.inf):
            raise ValueError(f"sigma is {sigma!r}; it can be a positive number or 'optimal'.")
        self.latent_dim, self.likelihood = latent_dim, likelihood
        self.encoder = nets.Encoder(latent_dim, channels, size, **(encoder or {}))
        self.decoder = nets.Decoder(latent_dim, channels, size, **(decoder or {}))
        self.learn_sigma = sigma == "optimal"
        self.register_buffer("sigma", torch.tensor(1.0 if self.learn_sigma else float(sigma)))
        self.priors = latents.prior_and_fits(latent_dim)

    def encode(self, x):
        """The posterior of each image: (B, C, H, W) in [0, 1] -> mu, logvar, each (B, d)."""
        return self.encoder(x).unbind(1)

    def infer(self, x, generator=None):
        """Codes of images: draws from q(z|x) with a generator, its means without: (B, d).

        A model of binary images draws for coins that it throws with the same generator.
        """
        if generator is None:
            return self.encode(x)[0]
        return reparameterise(*self.encode(_thrown(self, x, generator)), generator)

    def decode(self, z):
        """The mean image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.decoder(z).sigmoid()

    def log_likelihood(self, x, z):
        """log p(x|z) in nats, summed over pixels: (B,)."""
        logits = self.decoder(z)
        if self.likelihood != "gaussian":
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


def log_weights(model, x, k, generator=None, seen=None):
    """log p(x, z_i) / q(z_i|seen) of k codes for each image, in nats: (k, B).

    q may have looked at another picture than x, `seen`: the grey image of binary x, for example.
    """
    mu, logvar = model.encode(x if seen is None else seen)
    zero = torch.zeros_like(mu)
    log_w = []
    for _ in range(k):
        z = reparameterise(mu, logvar, generator)
        log_w.append(
            model.log_likelihood(x, z) + log_normal(z, zero, zero) - log_normal(z, mu, logvar)
        )
    return torch.stack(log_w)


def iwae(model, x, k, generator=None, seen=None):
    """The importance-weighted bound with k samples, in nats per image: (B,).

    log 1/k sum_i p(x, z_i) / q(z_i|x); k = 1 is the ELBO, more samples tighten it.
    Burda, Grosse & Salakhutdinov (2016), arXiv:1509.00519, equation 8.
    """
    return log_weights(model, x, k, generator, seen).logsumexp(0) - math.log(k)


class Step:
    """One update of the VAE: maximise the ELBO of a batch. `step(batch) -> {loss, rec, kl}`.

    The returned terms are nats per image; the loss, which is minimised, is -rec + beta kl.
    `reduction="mean"` divides its likelihood by the number of pixels, the mistake that the book
    takes apart; with `standardised` the training ends with `standardise`. `adam_beta2` is the
    memory of Adam's squared gradients: a shorter one than usual damps what one image with a large
    variance sets off. `parts` is what a checkpoint has to keep.
    """

    def __init__(self, model, split=None, lr=1e-3, seed=0, beta=1.0, reduction="sum",
                 standardised=False, adam_beta2=0.999):  # fmt: skip
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction is {reduction!r}; it can be 'sum' or 'mean'.")
        self.model, self.split, self.beta, self.reduction = model, split, beta, reduction
        self.standardised = standardised
        self.generator = latents.generator(seed, nets.device_of(model))
        betas = 0.9, adam_beta2
        self.optimiser = torch.optim.Adam(model.parameters(), lr, betas, fused=True)
        self.parts = {"model": model, "optimiser": self.optimiser, "noise": self.generator}

    def __call__(self, batch):
        x = _thrown(self.model, batch.x, self.generator)
        bound, rec, kl = elbo(self.model, x, self.beta, self.generator)
        loss = -bound.mean()
        if self.reduction == "mean":
            loss = -(rec / x[0].numel() - self.beta * kl).mean()
        train.update(self.optimiser, loss)
        return {"loss": loss.item(), "rec": rec.mean().item(), "kl": kl.mean().item()}

    def finish(self):
        """Fit one Gaussian and a mixture of ten to draws from the training images' posteriors."""
        if self.standardised:
            standardise(self.model, self.split.images)
        latents.fit_all(self.model.priors, evaluate.codes(self.model, self.split.images))


@torch.no_grad()
def standardise(model, images):
    """Give each coordinate of the codes of images (uint8) mean 0 and variance 1, in place.

    The encoder ends and the decoder begins with a linear layer. They absorb the shift a and the
    scale c, so that reconstructions stay what they are, and of all shifts and scales these make the
    KL term smallest: E[((mu - a)^2 + s^2) / c^2 - log(s^2 / c^2)] has its minimum at a = E[mu],
    c^2 = Var[mu] + E[s^2]. Gradient steps approach it slowly where codes are many and precise.
    """
    last, first, device = model.encoder.net[-1], model.decoder.net[0], nets.device_of(model)
    chunks = (data.to_unit(chunk.to(device)) for chunk in images.split(1000))
    mu, logvar = (torch.cat(parts) for parts in zip(*map(model.encode, chunks), strict=True))
    a, c = mu.mean(0), (mu.var(0, correction=0) + logvar.exp().mean(0)).sqrt()
    first.bias += first.weight @ a
    first.weight *= c
    d = model.latent_dim  # of the encoder's outputs the first d are mu, the others log s^2
    last.weight[:d] /= c[:, None]
    last.bias[:d] = (last.bias[:d] - a) / c
    last.bias[d:] -= 2 * c.log()


def measure(model, dataset, n):
    """The bound and its parts, errors of reconstructions, distances of samples, live units."""
    return {
        **bounds(model, dataset.test.images[:n]),
        **evaluate.pixel_errors(model, dataset),
        **evaluate.distances(model, dataset, n),
        **evaluate.health(model, dataset),
    }


@torch.no_grad()
def bounds(model, images):
    """ELBO and its parts on test images (uint8), and how far codes are from the prior; in nats.

    Importance-weighted bounds are those of every tenth image, or of 50 if there are fewer.
    The rate kl is the mutual information of image and code plus KL(q(z)||p(z)), Hoffman & Johnson
    (2016). `mismatch_gaussian` and `mismatch_gmm` are E_q[log r(z) - log p(z)] with r a density
    that was fitted to training codes: lower bounds of that KL, whatever r is.
    """
    device = nets.device_of(model)
    generator = latents.generator(0, device)
    parts, mus, kls, codes = [], [], [], []
    for chunk in images.split(500):
        x = _thrown(model, data.to_unit(chunk.to(device)), generator)
        mu, logvar = model.encode(x)
        z = reparameterise(mu, logvar, generator)
        parts.append(model.log_likelihood(x, z).cpu().double())
        kls.append(0.5 * (mu.square() + logvar.exp() - 1 - logvar).cpu().double())
        mus.append(mu.cpu())
        codes.append(z)
    rec, kl, z = torch.cat(parts).mean().item(), torch.cat(kls).mean(0), torch.cat(codes)
    own = model.priors["prior"].log_prob(z)
    fitted = {name: density for name, density in model.priors.items() if name != "prior"}
    some = images[:: min(10, max(1, len(images) // 50))]
    return {
        "elbo": rec - kl.sum().item(), "rec": rec, "kl": kl.sum().item(), "kl_per_dim": kl.tolist(),
        **{f"mismatch_{name}": (density.log_prob(z) - own).cpu().double().mean().item()
           for name, density in fitted.items()},
        "active_units": metrics.active_units(torch.cat(mus)), "sigma": model.sigma.item(),
        **weighted_bounds(model, some, 128 if len(images) >= 10_000 else 16),
    }  # fmt: skip


def _thrown(model, x, generator):
    """The coins of images (B, C, H, W), for a model of binary ones; x itself for any other."""
    binary = getattr(model, "likelihood", None) == "binary"
    return torch.bernoulli(x, generator=generator) if binary else x


@torch.no_grad()
def weighted_bounds(model, images, k):
    """Importance-weighted bounds with up to k samples on images (uint8), in nats per image.

    For a Bernoulli likelihood they are bounds of log p(b) of binary images b, one draw for each
    image: only the ELBO is linear in the pixels, so only there grey images give the average over
    draws. `iwae` is the bound with k samples, `iwae_elbo` the ELBO of the same images and coins,
    `iwae_gain` their difference with its standard error over images (one image has none),
    `iwae_curve` the bounds with `iwae_samples` 1, 4, 16, ... of the same draws.
    """
    device = nets.device_of(model)
    coins, generator, log_w = latents.generator(2, device), latents.generator(1, device), []
    for chunk in images.split(100):
        x = data.to_unit(chunk.to(device))
        b = x if model.likelihood == "gaussian" else torch.bernoulli(x, generator=coins)
        seen = b if model.likelihood == "binary" else x
        log_w.append(log_weights(model, b, k, generator, seen).cpu().double())
    log_w = torch.cat(log_w, 1)  # (k, images)
    counts = [4**i for i in range(10) if 4**i < k] + [k]
    groups = [log_w[: k // m * m].unflatten(0, (-1, m)).logsumexp(1).mean(0) for m in counts]
    bounds = [group - math.log(m) for group, m in zip(groups, counts, strict=True)]
    gain = bounds[-1] - bounds[0]
    error = {"iwae_gain_se": gain.std().item() / len(gain) ** 0.5} if len(gain) > 1 else {}
    return {
        "iwae": bounds[-1].mean().item(), "iwae_elbo": bounds[0].mean().item(),
        "iwae_gain": gain.mean().item(), **error,
        "iwae_samples": counts, "iwae_curve": [bound.mean().item() for bound in bounds],
    }  # fmt: skip
