"""Small random networks of every layer that a page can compute, and small runs to make figures of."""

from types import SimpleNamespace

import torch
from torch import nn

from gencore import data, latents, nets

# arguments of the Model of a VAE or an autoencoder: networks that take no time
SMALL = {"encoder": {"widths": [4], "hidden": [8]}, "decoder": {"widths": [4, 4], "hidden": [8]}}


def random_norms(module):
    """Norms as after some training: neither statistics nor gains are trivial."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)) and layer.weight is not None:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module.eval()


NETWORKS = {
    "linear": (lambda: nn.Linear(7, 5), (7,)),
    "without bias": (lambda: nn.Linear(7, 5, bias=False), (7,)),
    "conv": (lambda: nn.Conv2d(2, 3, 3, 1, 1), (2, 6, 6)),
    "strided conv": (lambda: nn.Conv2d(2, 3, 4, 2, 1), (2, 8, 6)),
    "conv without padding": (lambda: nn.Conv2d(1, 2, 5, 2), (1, 9, 9)),
    "transposed conv": (lambda: nn.ConvTranspose2d(3, 2, 4, 2, 1), (3, 4, 5)),
    "transposed conv, bare": (lambda: nn.ConvTranspose2d(3, 2, 3, bias=False), (3, 4, 4)),
    "batch norm after linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (4,)),
    "batch norm after conv": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)), (2, 5, 5)),
    "batch norm after transposed conv": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 4, 2, 1), nn.BatchNorm2d(3, affine=False)), (2, 4, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9)), (7,)),
    "layer norm with an epsilon": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9, eps=0.3)), (7,)),
    "layer norm without scale": (
        lambda: nn.Sequential(nn.Linear(7, 9), nn.LayerNorm(9, elementwise_affine=False)), (7,)),
    "layer norm of rows": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm(4)), (1, 6, 6)),
    "centre": (lambda: nn.Sequential(nets.Centre(), nn.Conv2d(2, 3, 3)), (2, 5, 5)),
    "encoder": (lambda: nets.Encoder(3, 2, 8, (4, 3), hidden=(6, 5)), (2, 8, 8)),
    "small encoder of the book": (lambda: nets.Encoder(10, widths=(16,), hidden=(64, 64)), (1, 28, 28)),
    "decoder": (lambda: nets.Decoder(3, 2, 8, (4, 3), (6, 5)), (3,)),
    "decoder of the book": (lambda: nets.Decoder(10), (10,)),
    "leaky relu": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LeakyReLU(0.3)), (7,)),
    "silu": (lambda: nn.Sequential(nn.Linear(7, 9), nn.SiLU()), (7,)),
    "gelu": (lambda: nn.Sequential(nn.Linear(7, 9), nn.GELU()), (7,)),
    "gelu by tanh": (lambda: nn.Sequential(nn.Linear(7, 9), nn.GELU(approximate="tanh")), (7,)),
    "activations": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.Tanh(),
                              nn.Dropout(), nn.Linear(6, 3), nn.ReLU(), nn.Sigmoid()), (4,)),
    "shapes": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2))), nn.Conv2d(2, 1, 1),
                              nn.Flatten(), nn.Identity(), nn.Linear(4, 2)), (3,)),
}  # fmt: skip


def rounded(module):
    """A module with the weights of a page: numbers of 16 bits."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half())
    return module


def network(name):
    """A random network of the list with the weights of a page, and its input's shape."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    return rounded(random_norms(make())), shape


class Model(nn.Module):
    """A random autoencoder of images as the figures know it: a VAE, or with a Gaussian `fitted`."""

    def __init__(self, latent_dim=3, shape=(1, 28, 28), fitted=False):
        super().__init__()
        torch.manual_seed(latent_dim)
        self.latent_dim, size = latent_dim, shape[0] * shape[1] * shape[2]
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 6), nn.Tanh(), nn.Linear(6, size),
                                     nn.Unflatten(1, shape))  # fmt: skip
        with torch.no_grad():
            self.encoder[1].weight[:latent_dim] *= 6  # codes that differ
            self.decoder[2].weight *= 8  # and so do the images of codes
        rounded(self)
        self.priors = nn.ModuleDict({"prior": latents.Normal(latent_dim)})
        if fitted:
            self.followed = "gaussian"
            z = torch.randn(50, latent_dim).cumsum(1) + torch.arange(1, latent_dim + 1)
            self.priors["gaussian"] = latents.Gaussian.fit(z)

    def encode(self, x):
        return self.encoder(x).chunk(2, 1)

    def infer(self, x, generator=None):
        return self.encode(x)[0]

    def decode(self, z):
        return self.decoder(z).sigmoid()


def images(shape=(1, 28, 28), count=60, classes=5):
    """A dataset of noise, different in each of its classes."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % classes
    noise = (
        torch.rand(count, *shape, generator=draw)
        * torch.rand(classes, *shape, generator=draw)[labels]
    )
    split = data.Split((255 * noise).round().byte(), labels)
    return data.Dataset("noise", split, split, tuple(f"class {c}" for c in range(classes)))


def run(model=None, dataset=None, terms=None, history=None, snapshots=None, name="small"):
    """What a figure asks of a run."""
    paper = SimpleNamespace(TERMS=terms or {}, __name__="gencore.vae")
    return SimpleNamespace(
        name=name, model=model or Model(), data=dataset or images(), history=history or {},
        snapshots=snapshots or {}, config=SimpleNamespace(paper=paper),
    )  # fmt: skip


def trained(points=False):
    """A run with four snapshots and three terms, one of which is reported now and then."""
    draw = torch.Generator().manual_seed(0)
    shape = (4, 40, 2) if points else (4, 6, 1, 28, 28)
    drawn = torch.rand(shape, generator=draw)
    split = data.Split(torch.randn(300, 2, generator=draw), torch.zeros(300, dtype=torch.long))
    toy = data.Dataset("toy", split, split, ("one",))
    return run(
        dataset=toy if points else None,
        terms={"d": "discriminator loss, nats", "g": "generator loss, nats", "r1": "penalty, R₁"},
        history={"step": [10, 20, 30, 40], "d": [1.5, 1.25, 1.125, 1.0625], "g": [0.5, 0.75, 0.875, 1.0],
                 "r1": [None, 0.25, None, 0.125], "seconds": [1, 1, 1, 1]},
        snapshots={"images": drawn if points else (255 * drawn).byte(), "steps": torch.tensor([1, 10, 20, 40]),
                   "frechet": torch.tensor([8.0, 4.0, 2.0, 1.0])},
    )  # fmt: skip
