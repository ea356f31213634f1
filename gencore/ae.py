"""The plain autoencoder: the deterministic twin of the VAE, and densities for its codes.

The same two networks, one code per image, no prior. To draw from it, a density is fitted to the
codes afterwards: Ghosh et al. (2020), "From variational to deterministic autoencoders",
arXiv:1903.12436.
"""

import torch
from torch import nn

from gencore import data, evaluate, latents, nets, train
from gencore.vae import bernoulli_log_likelihood

TERMS = {"loss": "−reconstruction term, nats", "rec": "reconstruction term, nats"}


class Model(nn.Module):
    """A convolutional autoencoder with the networks of `vae.Model`.

    `priors` has N(0, I), which its codes do not follow, and one Gaussian and a mixture of ten that
    `Step.finish` fits to the codes of the training images.
    """

    def __init__(self, latent_dim, channels=1, size=28, width=24):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nets.Encoder(latent_dim, channels, size, width, heads=1)
        self.decoder = nets.Decoder(latent_dim, channels, size, width)
        densities = {"prior": latents.Normal, "gaussian": latents.Gaussian, "gmm": latents.Mixture}
        self.priors = nn.ModuleDict({name: kind(latent_dim) for name, kind in densities.items()})

    def encode(self, x):
        """The code of each image: (B, C, H, W) in [0, 1] -> (B, d)."""
        return self.encoder(x)[:, 0]

    def infer(self, x, generator=None):
        """The code of each image; there is nothing to draw: (B, d)."""
        return self.encode(x)

    def decode(self, z):
        """The image of each code: (B, d) -> (B, C, H, W) in [0, 1]."""
        return self.decoder(z).sigmoid()


class Step:
    """One update of the plain autoencoder: the reconstruction term of the ELBO, nothing else."""

    def __init__(self, model, split=None, lr=1e-3, seed=0):
        self.model, self.split = model, split
        self.optimiser = torch.optim.Adam(model.parameters(), lr, fused=True)
        self.parts = {"model": model, "optimiser": self.optimiser}

    def __call__(self, batch):
        logits = self.model.decoder(self.model.encode(batch.x))
        rec = bernoulli_log_likelihood(batch.x, logits).mean()
        train.update(self.optimiser, -rec)
        return {"loss": -rec.item(), "rec": rec.item()}

    def finish(self):
        """Fit one Gaussian and a mixture of ten to the codes of the training images."""
        codes = evaluate.codes(self.model, self.split.images)
        for name, kind in {"gaussian": latents.Gaussian, "gmm": latents.Mixture}.items():
            self.model.priors[name].load_state_dict(kind.fit(codes).state_dict())


def measure(model, dataset, n):
    """The reconstruction term, errors of reconstructions, distances of samples, live units."""
    return {
        "rec": _reconstruction_term(model, dataset.test.images[:10_000]),
        **evaluate.pixel_errors(model, dataset),
        **evaluate.distances(model, dataset, n),
        **evaluate.health(model, dataset),
    }


@torch.no_grad()
def _reconstruction_term(model, images):
    device, terms = nets.device_of(model), []
    for chunk in images.split(1000):
        x = data.to_unit(chunk.to(device))
        terms.append(bernoulli_log_likelihood(x, model.decoder(model.encode(x))).cpu().double())
    return torch.cat(terms).mean().item()
