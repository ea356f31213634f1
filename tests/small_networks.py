"""Small random networks of every layer that a page can compute."""

import torch
from torch import nn


def random_norms(module):
    """Batch norms as after some training: neither statistics nor gains are trivial."""
    for layer in module.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            if layer.affine:
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
    "leaky relu": (lambda: nn.Sequential(nn.Linear(7, 9), nn.LeakyReLU(0.3)), (7,)),
    "activations": (
        lambda: nn.Sequential(nn.Linear(4, 6), nn.LeakyReLU(0.1), nn.Linear(6, 6), nn.Tanh(),
                              nn.Dropout(), nn.Linear(6, 3), nn.ReLU(), nn.Sigmoid()), (4,)),
    "shapes": (
        lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 8), nn.Unflatten(1, (2, 2, 2))), nn.Conv2d(2, 1, 1),
                              nn.Flatten(), nn.Identity(), nn.Linear(4, 2)), (3,)),
}  # fmt: skip


def network(name):
    """A random network of the list with the weights of a page (16 bits), and its input's shape."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    module = random_norms(make())
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half())
    return module, shape
