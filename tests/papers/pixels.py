"""One Gaussian in pixels, fitted in one step: the smallest paper that there can be."""

import torch
from torch import nn

from gencore import data, evaluate, latents, metrics

TERMS = {"distance": "squared distance from the mean image, 1"}


class Model(nn.Module):
    """x = mean + L z, clipped; as many codes as pixels."""

    def __init__(self, channels=1, size=28):
        super().__init__()
        self.shape = (channels, size, size)
        d = channels * size * size
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("L", torch.zeros(d, d))
        self.priors = nn.ModuleDict({"prior": latents.Normal(d)})

    def decode(self, z):
        return (self.mean + z @ self.L.T).clamp(0, 1).view(-1, *self.shape)


class Step:
    def __init__(self, model, split, lr=1.0, seed=0):
        self.model, self.images, self.parts = model, split.images, {"model": model}

    def __call__(self, batch):
        if not self.model.L.any():
            flat = data.to_unit(self.images).flatten(1).double()
            self.model.mean.copy_(flat.mean(0))
            self.model.L.copy_(torch.from_numpy(metrics.sqrt_psd(flat.T.cov().numpy())))
        return {"distance": (batch.x.flatten(1) - self.model.mean).square().sum(1).mean().item()}


def measure(model, dataset, n):
    return evaluate.distances(model, dataset, n)
