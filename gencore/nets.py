"""The networks: encoders, decoders and classifiers for images of 28 or 32 pixels.

They are small on purpose. A decoder for 28 x 28 digits has some 40,000 parameters, so that it can
be trained in minutes on a laptop and run inside a web page.
"""

import itertools
import math

import torch
from torch import nn


class Diverged(ArithmeticError):
    """A loss or a gradient stopped being a finite number; the weights were left as they were."""


class Encoder(nn.Module):
    """An image to `heads` vectors of `latent_dim` numbers: (B, C, H, W) -> (B, heads, d).

    `heads=2` gives mean and log-variance of a Gaussian posterior, `heads=1` a plain code; `hidden`
    are the units of each layer between the convolutions and the heads.
    """

    def __init__(self, latent_dim, channels=1, size=28, width=24, heads=2, hidden=(128,)):
        super().__init__()
        self.heads, self.latent_dim = heads, latent_dim
        units = [2 * width * (size // 4) ** 2, *hidden]
        dense = [f for a, b in itertools.pairwise(units) for f in (nn.Linear(a, b), nn.ReLU())]
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 4, 2, 1),  # (B, w, H/2, W/2)
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),  # (B, 2w, H/4, W/4)
            nn.ReLU(),
            nn.Flatten(),
            *dense,
            nn.Linear(units[-1], heads * latent_dim),
        ).to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.net(x).unflatten(1, (self.heads, self.latent_dim))  # (B, heads, d)


class Decoder(nn.Module):
    """A code to the parameters of an image distribution, before the sigmoid: (B, d) -> (B, C, H, W)."""

    def __init__(self, latent_dim, channels=1, size=28, width=24):
        super().__init__()
        cells = size // 4
        self.net = nn.Sequential(
            nn.Linear(latent_dim, 2 * width * cells * cells),
            nn.ReLU(),
            nn.Unflatten(1, (2 * width, cells, cells)),  # (B, 2w, H/4, W/4)
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),  # (B, w, H/2, W/2)
            nn.ReLU(),
            nn.ConvTranspose2d(width, channels, 4, 2, 1),  # (B, C, H, W)
        ).to(memory_format=torch.channels_last)

    def forward(self, z):
        return self.net(z)


class Classifier(nn.Module):
    """A small convolutional classifier whose 64 penultimate features measure images.

    The book's Fréchet distance is taken on `features(x)`: (B, C, H, W) in [0, 1] -> (B, 64).
    `forward` gives the logits of the 10 classes.
    """

    def __init__(self, channels=1, size=28, width=32, feature_dim=64):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (B, w, H/2, W/2)
            nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.MaxPool2d(2),  # (B, 2w, H/4, W/4)
            nn.Conv2d(2 * width, 4 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.Conv2d(4 * width, 4 * width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),  # (B, 4w, 2, 2)
            nn.Flatten(),
            nn.Linear(16 * width, feature_dim),
            nn.ReLU(),
        ).to(memory_format=torch.channels_last)
        self.head = nn.Linear(feature_dim, 10)

    def features(self, x):
        return self.net(x)  # (B, 64)

    def forward(self, x):
        return self.head(self.net(x))  # (B, 10)


def update(optimiser, loss):
    """One optimiser step on `loss` that refuses to spoil the weights.

    Raises Diverged, before anything is changed, when a gradient is not finite: one NaN would
    otherwise reach every weight through Adam's averages.
    """
    optimiser.zero_grad()
    loss.backward()
    grads = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(grads)
    if not math.isfinite(norm.item()):
        raise Diverged(f"the gradient became {norm.item()} (loss {loss.item():.4g})")
    optimiser.step()


def augment(x, generator, pad=4):
    """Each image mirrored with probability 1/2 and shifted by up to `pad` pixels: (B, C, H, W)."""
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    x = nn.functional.pad(torch.where(flip, x.flip(3), x), (pad,) * 4, mode="reflect")
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator)
    rows = (top + torch.arange(height))[:, :, None]  # (B, H, 1)
    columns = (left + torch.arange(width))[:, None, :]  # (B, 1, W)
    picked = x[torch.arange(n)[:, None, None], :, rows, columns]  # (B, H, W, C)
    return picked.permute(0, 3, 1, 2)


class ClassifierStep:
    """One update of a classifier on a labelled batch. `step((x, y)) -> {loss, accuracy}`."""

    def __init__(self, model, lr=0.1, augmented=False, seed=0):
        self.model, self.augmented = model, augmented
        self.generator = torch.Generator().manual_seed(seed)
        self.optimiser = torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        self.parts = {"model": model, "optimiser": self.optimiser, "noise": self.generator}

    def __call__(self, batch):
        x, y = batch
        logits = self.model(augment(x, self.generator) if self.augmented else x)
        loss = nn.functional.cross_entropy(logits, y, label_smoothing=0.05)
        update(self.optimiser, loss)
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == y).float().mean().item()}


def parameters(*modules):
    """The number of trainable parameters of some modules together."""
    return sum(p.numel() for module in modules for p in module.parameters())


# What artefacts keep of the weights. A model is measured after `rounded`, so that the numbers of a
# run are those of its file.

BIG = 400_000  # weights: repetitions of a run, there for their numbers, keep 8 bits above it


def rounded(tensor, exact=False, eight_bits=False):
    """A tensor in half precision; with `eight_bits`, a big matrix in 255 steps per row (float32)."""
    if exact or not tensor.is_floating_point():
        return tensor
    if eight_bits and tensor.ndim == 2 and tensor.numel() > BIG:
        scale = _scale(tensor)
        return (tensor / scale).round().clamp(-127, 127) * scale
    return tensor.half()


def _scale(matrix):
    return (matrix.abs().amax(1, keepdim=True) / 127).half().clamp_min(1e-7).float()


def packed(state, exact=False, eight_bits=False):
    """A state_dict as the tensors of a file: 8-bit matrices go with a scale for each row."""
    tensors = {}
    for key, value in state.items():
        value = rounded(value, exact, eight_bits)
        if value.dtype == torch.float32 and not exact:
            scale = _scale(value)
            tensors |= {key: (value / scale).round().to(torch.int8), f"scale.{key}": scale.half()}
        else:
            tensors[key] = value
    return tensors


def unpacked(tensors):
    """The state_dict of `packed` tensors."""
    scales = {key[6:]: value for key, value in tensors.items() if key.startswith("scale.")}
    kept = {key: value for key, value in tensors.items() if not key.startswith("scale.")}
    return {k: v * scales[k].float() if k in scales else v for k, v in kept.items()}
