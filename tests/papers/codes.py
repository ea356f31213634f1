"""Codes as parameters, one a row of the data, and a generator: what is published has no codes."""

import torch
from torch import nn

from gencore import evaluate, latents, nets, train

TERMS = {"loss": "squared error of a pixel, 1"}


class Model(nn.Module):
    """A generator and a density for its codes, which `Step.finish` fits."""

    def __init__(self, latent_dim=3, channels=1, size=28, width=4):
        super().__init__()
        self.decoder = nets.Decoder(latent_dim, channels, size, (width, width), (2 * width,))
        self.priors = nn.ModuleDict({"gaussian": latents.Gaussian(latent_dim)})

    def decode(self, z):
        return self.decoder(z).sigmoid()


class Step:
    def __init__(self, model, split, lr=1e-3, seed=0, rate=1.0):
        self.model, self.rate, device = model, rate, nets.device_of(model)
        dim = model.priors["gaussian"].dim
        self.codes = nn.Embedding(len(split), dim).to(device).requires_grad_(False)
        self.optimiser = torch.optim.Adam(model.decoder.parameters(), lr)
        self.parts = {"model": model, "codes": self.codes, "optimiser": self.optimiser}

    def __call__(self, batch):
        z = self.codes.weight[batch.rows].requires_grad_()
        loss = (self.model.decode(z) - batch.x).square().mean()
        train.update(self.optimiser, loss)
        with torch.no_grad():
            moved = z - self.rate * len(z) * z.grad
            self.codes.weight[batch.rows] = moved / moved.norm(dim=1, keepdim=True).clamp_min(1)
        return {"loss": loss.item()}

    def finish(self):
        fitted = latents.Gaussian.fit(self.codes.weight)
        self.model.priors["gaussian"].load_state_dict(fitted.state_dict())


def measure(model, dataset, n):
    return {**evaluate.distances(model, dataset, n), **evaluate.health(model, dataset)}
