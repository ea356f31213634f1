"""The frozen classifiers: the networks whose features the book measures images with.

Small convolutional networks, trained once for each dataset. The Fréchet distance and its relatives
are taken on their 64 penultimate features, as published work takes them on Inception's 2,048.
"""

import torch
from torch import nn

from gencore import data, latents, nets, train

TERMS = {"loss": "cross-entropy, nats", "accuracy": "accuracy of the batches, share"}


class Model(nn.Module):
    """A convolutional classifier: images (B, C, H, W) in [0, 1] -> logits (B, classes).

    `features(x)` gives the 64 numbers before the last layer. It does not draw images: it has
    neither `decode` nor `priors`.
    """

    def __init__(self, channels=1, size=28, width=32, feature_dim=64, classes=10):
        super().__init__()
        side = size // 4  # adaptive pooling gives the same bits, but MPS lacks it for odd sides
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
            nn.AvgPool2d(side - side // 2, side // 2),  # (B, 4w, 2, 2), halves that may overlap
            nn.Flatten(),
            nn.Linear(16 * width, feature_dim),
            nn.ReLU(),
        ).to(memory_format=torch.channels_last)
        self.head = nn.Linear(feature_dim, classes)

    def features(self, x):
        return self.net(x)  # (B, 64)

    @nets.mixed
    def forward(self, x):
        return self.head(self.net(x))  # (B, classes)


def augment(x, generator, pad=4):
    """Each image mirrored with probability 1/2 and shifted by up to `pad` pixels: (B, C, H, W)."""
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=generator, device=x.device) < 0.5
    x = nn.functional.pad(torch.where(flip, x.flip(3), x), (pad,) * 4, mode="reflect")
    top, left = torch.randint(2 * pad + 1, (2, n, 1), generator=generator, device=x.device)
    rows = (top + torch.arange(height, device=x.device))[:, :, None]  # (B, H, 1)
    columns = (left + torch.arange(width, device=x.device))[:, None, :]  # (B, 1, W)
    picked = x[torch.arange(n, device=x.device)[:, None, None], :, rows, columns]  # (B, H, W, C)
    return picked.permute(0, 3, 1, 2)


class Step:
    """One update of a classifier on a labelled batch. `step(batch) -> {loss, accuracy}`."""

    def __init__(self, model, split=None, lr=0.1, seed=0, augmented=False):
        self.model, self.augmented = model, augmented
        self.generator = latents.generator(seed, nets.device_of(model))
        self.optimiser = torch.optim.SGD(
            model.parameters(), lr, momentum=0.9, weight_decay=5e-4, nesterov=True
        )
        self.parts = {"model": model, "optimiser": self.optimiser, "noise": self.generator}

    def __call__(self, batch):
        x, y = batch.x, batch.y
        logits = self.model(augment(x, self.generator) if self.augmented else x)
        loss = nn.functional.cross_entropy(logits, y, label_smoothing=0.05)
        train.update(self.optimiser, loss)
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == y).float().mean().item()}


@torch.no_grad()
def measure(model, dataset, n):
    """The share of all test images that are classified rightly; `n` is not looked at."""
    device, test = nets.device_of(model), dataset.test
    pairs = zip(test.images.split(1000), test.labels.split(1000), strict=True)
    found = ((model(data.to_unit(x.to(device))).argmax(1).cpu(), y) for x, y in pairs)
    return {"accuracy": sum((named == y).sum().item() for named, y in found) / len(test)}
