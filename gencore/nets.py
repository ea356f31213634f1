"""The networks: encoders and decoders for images of 28 or 32 pixels.

They are small on purpose. A decoder for 28 x 28 digits has some 60,000 parameters, so that it can
be trained in minutes on a laptop and run inside a web page. All hidden units are SiLUs, x times
the sigmoid of x (Elfwing et al. 2018, arXiv:1702.03118): unlike a ReLU, one that is negative
everywhere still has a gradient, so that it can come back to life.

Training computes their matrix products in bfloat16 where the hardware has units for it (`mixed`);
weights, results and everything outside the networks stay in float32.
"""

import functools
import itertools
import os

import torch
from torch import nn


@functools.cache
def bfloat16_pays(kind):
    """Whether devices of a kind ("cpu", "cuda", "mps") have units for bfloat16.

    A CPU without them emulates bfloat16 and takes several times as long as for float32.
    """
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def precision(device):
    """The format in which networks compute while they train on a device: a torch dtype.

    `GENCORE_PRECISION` decides (float32 or bfloat16); without it the hardware does. Raises
    ValueError for any other value.
    """
    choice = os.environ.get("GENCORE_PRECISION", "")
    if choice not in ("", "float32", "bfloat16"):
        raise ValueError(f"GENCORE_PRECISION is {choice!r}; it can be float32 or bfloat16.")
    pays = choice == "bfloat16" if choice else bfloat16_pays(torch.device(device).type)
    return torch.bfloat16 if pays else torch.float32


def mixed(forward):
    """Decorator of a network's `forward(x)`: in training its matrix products are in `precision`.

    What it returns has the type of x. Evaluation, which is `eval()` or no gradients, computes in
    the type of x throughout, so that published numbers do not depend on the processor.
    """

    @functools.wraps(forward)
    def wrapped(self, x):
        trains = self.training and torch.is_grad_enabled() and x.dtype == torch.float32
        if not trains or precision(x.device) == torch.float32:
            return forward(self, x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return forward(self, x).float()

    return wrapped


class Encoder(nn.Module):
    """An image to `heads` vectors of `latent_dim` numbers: (B, C, H, W) -> (B, heads, d).

    `heads=2` gives mean and log-variance of a Gaussian posterior, `heads=1` a plain code. `widths`
    are the channels of the convolutions, `hidden` the units of the layers between them and the
    heads. `size` is a multiple of 4.
    """

    def __init__(self, latent_dim, channels=1, size=28, widths=(32,), heads=2, hidden=(256,)):
        super().__init__()
        cells = _cells(size)
        self.heads, self.latent_dim = heads, latent_dim
        units = [widths[-1] * cells**2, *hidden]
        self.net = nn.Sequential(
            Centre(),
            nn.Conv2d(channels, widths[0], 8, 4, 2),  # (B, w, H/4, W/4): patches that overlap
            nn.SiLU(),
            *_convolutions(widths),
            nn.Flatten(),
            *_dense(units),
            nn.Linear(units[-1], heads * latent_dim),
        ).to(memory_format=torch.channels_last)

    @mixed
    def forward(self, x):
        return self.net(x).unflatten(1, (self.heads, self.latent_dim))  # (B, heads, d)


class Decoder(nn.Module):
    """A code to the parameters of an image density, before the sigmoid: (B, d) -> (B, C, H, W).

    `hidden` are the units of its first layers, `widths` the channels on the grid of H/4 x W/4
    places, from each of which the last layer paints a patch of 8 x 8 pixels.
    """

    def __init__(self, latent_dim, channels=1, size=28, widths=(16, 48), hidden=(64,)):
        super().__init__()
        cells = _cells(size)
        self.net = nn.Sequential(
            *_dense([latent_dim, *hidden, widths[0] * cells**2]),
            nn.Unflatten(1, (widths[0], cells, cells)),  # (B, w, H/4, W/4)
            *_convolutions(widths),
            nn.ConvTranspose2d(widths[-1], channels, 8, 4, 2),  # (B, C, H, W)
        ).to(memory_format=torch.channels_last)

    @mixed
    def forward(self, z):
        return self.net(z)


class Centre(nn.Module):
    """Pixels from [0, 1] to [-1, 1], so that a black image is not the same as no input."""

    def forward(self, x):
        return 2 * x - 1


def _dense(units):
    """Linear layers with SiLUs behind them.

    The norm in between (Ba et al. 2016, arXiv:1607.06450) keeps units alive: without it up to a
    quarter of a layer ended negative for all images.
    """
    pairs = itertools.pairwise(units)
    return [part for a, b in pairs for part in (nn.Linear(a, b), nn.LayerNorm(b), nn.SiLU())]


def _convolutions(widths):
    pairs = itertools.pairwise(widths)
    return [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, 1, 1), nn.SiLU())]


def _cells(size):
    if size % 4 or size < 8:
        raise ValueError(
            f"These networks see an image in patches: its side must be a multiple of 4, from 8; "
            f"it is {size}."
        )
    return size // 4


def parameters(*modules):
    """The number of trainable parameters of some modules together."""
    return sum(p.numel() for module in modules for p in module.parameters())


def device_of(model):
    """The device on which a module's parameters and buffers lie; the CPU if it has none."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
