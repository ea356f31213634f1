"""The plain autoencoder: the deterministic twin of the VAE, and densities for its codes.

The same two networks, one code per image, no prior. To draw from it, a density is fitted to the
codes afterwards: Ghosh et al. (2020), "From variational to deterministic autoencoders",
arXiv:1903.12436.
"""

import torch
from torch import nn

from gencore import data, evaluate, latents, nets, train
from gencore.vae import bernoulli_log_likelihood, gaussian_log_likelihood, optimal_sigma

TERMS = {"loss": "−reconstruction term, nats", "rec": "reconstruction term, nats"}


class Model(nn.Module):
    """A convolutional autoencoder with the networks of `vae.Model`.

    `priors` has N(0, I), which its codes do not follow, and one Gaussian and a mixture of ten that
    `Step.finish` fits to the codes of the training images. With the likelihood "gaussian" the
    noise is that of `vae.optimal_sigma`, so that training minimises the squared error.
    """

    followed = "gaussian"  # by its codes, of the densities: live figures draw from it

    def __init__(self, latent_dim, channels=1, size=28, encoder=None, decoder=None,
                 likelihood="bernoulli"):  # fmt: skip
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood is {likelihood!r}; it can be 'bernoulli' or 'gaussian'.")
        self.latent_dim, self.likelihood = latent_dim, likelihood
        self.encoder = nets.Encoder(latent_dim, channels, size, heads=1, **(encoder or {}))
        self.decoder = nets.Decoder(latent_dim, channels, size, **(decoder or {}))
        self.priors = latents.prior_and_fits(latent_dim)

    def encode(self, x):
        """The code of each image: (B, C, H, W) in [0, 1] -> (B, d)."""
        return self.encoder(x)[:, 0]

    def infer(self, x, generator=None):
        """The code of each image; there is nothing to draw: (B, d)."""
        return self.encode(x)

    def decode(self, z):
        """The image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.decoder(z).sigmoid()


def reconstruction_term(model, x):
    """log p(x|z) of each image at its own code, in nats, summed over pixels: (B,)."""
    logits = model.decoder(model.encode(x))
    if model.likelihood == "bernoulli":
        return bernoulli_log_likelihood(x, logits)
    mean = logits.sigmoid()
    return gaussian_log_likelihood(x, mean, optimal_sigma(x, mean))


class Step:
    """One update of the plain autoencoder: the reconstruction term of the ELBO, nothing else."""

    def __init__(self, model, split=None, lr=1e-3, seed=0, adam_beta2=0.999):
        self.model, self.split = model, split
        self.optimiser = torch.optim.Adam(model.parameters(), lr, (0.9, adam_beta2), fused=True)
        self.parts = {"model": model, "optimiser": self.optimiser}

    def __call__(self, batch):
        rec = reconstruction_term(self.model, batch.x).mean()
        train.update(self.optimiser, -rec)
        return {"loss": -rec.item(), "rec": rec.item()}

    def finish(self):
        """Fit one Gaussian and a mixture of ten to the codes of the training images."""
        latents.fit_all(self.model.priors, evaluate.codes(self.model, self.split.images))


def measure(model, dataset, n):
    """The reconstruction term, errors of reconstructions, distances of samples, live units."""
    return {
        "rec": _mean_term(model, dataset.test.images[:10_000]),
        **evaluate.pixel_errors(model, dataset),
        **evaluate.distances(model, dataset, n),
        **evaluate.health(model, dataset),
    }


@torch.no_grad()
def _mean_term(model, images):
    device = nets.device_of(model)
    chunks = (data.to_unit(chunk.to(device)) for chunk in images.split(1000))
    return torch.cat([reconstruction_term(model, x).cpu() for x in chunks]).double().mean().item()
