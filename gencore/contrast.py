"""The second frozen network that images are measured with: features learnt without labels.

A classifier is trained to give all images of a class one answer, so its features hardly tell them
apart. Here a network of the same kind learns to tell each single image from all others, whatever
their class, by the contrastive loss of SimCLR, Chen et al. (2020), arXiv:2002.05709. Its features
ignore what the two views of an image differ in (`augment`) and keep the rest, style among it.
"""

import math

import torch
from torch import nn

from gencore import classifier, data, latents, nets, train

TERMS = {"loss": "NT-Xent, nats", "found": "views that find their partner, share"}
NEIGHBOURS = 5  # of an image, by which `measure` names its class


class Model(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> points (B, 32) that the loss compares.

    `features(x)` are the 64 numbers below the two layers of the head: the convolutions of
    `classifier.Model`, without its last ReLU, brought to mean 0 and variance 1 by a batch norm.
    """

    def __init__(self, channels=1, size=28, width=16, feature_dim=64, projected=32):
        super().__init__()
        layers = classifier.Model(channels, size, width, feature_dim).net[:-1]
        self.net = nn.Sequential(*layers, nn.BatchNorm1d(feature_dim, affine=False))
        self.head = nn.Sequential(
            nn.Linear(feature_dim, 2 * feature_dim),
            nn.ReLU(),
            nn.Linear(2 * feature_dim, projected),
        )

    def features(self, x):
        return self.net(x)  # (B, 64)

    @nets.mixed
    def forward(self, x):
        return self.head(self.net(x))  # (B, 32)


def nt_xent(a, b, temperature):
    """The loss of points a, b (B, d) of two views of B images, and who is found: (2B,) booleans.

    NT-Xent, eq. 1 of the paper, averaged over all 2B views: the cross-entropy of naming, by the
    cosine similarity over the temperature, a view's partner among the 2B - 1 other views.
    """
    z = nn.functional.normalize(torch.cat([a, b]))  # (2B, d), on the unit sphere
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)  # (2B, 2B)
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    return nn.functional.cross_entropy(logits, partner), logits.argmax(1) == partner


def augment(x, generator):
    """Another view of each image, (B, C, H, W) in [0, 1]: moved, recoloured, partly hidden.

    Grey images are turned by up to 10 degrees, scaled by up to 1.2 either way and shifted by up to
    a tenth of their side. Of coloured ones a part, of half the side or more, is enlarged, half are
    mirrored, and their colours change. A rectangle of each is set to its mean.
    """
    x = move(x, generator)
    return erase(recolour(x, generator) if x.shape[1] == 3 else x, generator)


def move(x, generator):
    """Grey images turned, scaled and shifted; of coloured ones a part enlarged, half mirrored."""
    turn, scale, *shift, mirror = _uniform(5, x, generator)
    if x.shape[1] == 3:
        zoom, angle = 0.75 + 0.25 * scale, torch.zeros_like(turn)
        across, room = torch.where(mirror < 0, -zoom, zoom), (1 - zoom) * (1 - 1 / x.shape[-1])
    else:
        zoom, angle = torch.exp(math.log(1.2) * scale), math.radians(10) * turn
        across, room = zoom, 0.2  # in units of half a side
    rows = [across * angle.cos(), -zoom * angle.sin(), room * shift[0],
            across * angle.sin(), zoom * angle.cos(), room * shift[1]]  # fmt: skip
    matrices = torch.stack(rows, 1).view(-1, 2, 3)
    grid = nn.functional.affine_grid(matrices, x.shape, align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False).clamp(0, 1)


def recolour(x, generator):
    """Images with another brightness, contrast and tint; one in five becomes grey."""
    bright, contrast, grey, *tint = _uniform(6, x, generator)
    x = torch.where(_spread(grey) < -0.6, x.mean(1, keepdim=True), x)
    middle = x.mean((1, 2, 3), keepdim=True)
    x = middle + (x - middle) * _spread(1 + 0.4 * contrast) + _spread(0.2 * bright)
    return (x * (1 + 0.2 * torch.stack(tint, 1)[:, :, None, None])).clamp(0, 1)


def erase(x, generator):
    """Images with a rectangle, of up to half of each side, set to the image's mean."""
    height, width = x.shape[2:]
    y, x_, h, w = (_spread(u) for u in _uniform(4, x, generator))
    rows = torch.linspace(-1, 1, height, device=x.device)[:, None]
    columns = torch.linspace(-1, 1, width, device=x.device)
    hidden = ((rows - y).abs() < (1 + h) / 4) & ((columns - x_).abs() < (1 + w) / 4)  # (B, 1, H, W)
    return torch.where(hidden, x.mean((1, 2, 3), keepdim=True), x)


def _uniform(count, x, generator):
    """Numbers of each image, uniform in (-1, 1): `count` tensors (B,)."""
    return 2 * torch.rand(count, len(x), generator=generator, device=x.device) - 1


def _spread(numbers):
    return numbers[:, None, None, None]


class Step:
    """One update on two views of a batch of images. `step(batch) -> {loss, found}`."""

    def __init__(self, model, split=None, lr=2e-3, seed=0, temperature=0.2):
        self.model, self.temperature = model, temperature
        self.generator = latents.generator(seed, nets.device_of(model))
        self.optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=1e-2)
        self.parts = {"model": model, "optimiser": self.optimiser, "noise": self.generator}

    def __call__(self, batch):
        views = [augment(batch.x, self.generator) for _ in range(2)]
        points = self.model(torch.cat(views))
        loss, found = nt_xent(*points.chunk(2), self.temperature)
        train.update(self.optimiser, loss)
        return {"loss": loss.item(), "found": found.float().mean().item()}


@torch.no_grad()
def measure(model, dataset, n):
    """What the features are good for, on the first n test images; a dict of three shares.

    `accuracy`: of images whose class most of the 5 nearest of n training images have. `between`:
    of the features' variance, what lies between the classes; the rest is style within them.
    `found`: of two views of each of 1,000 images, those whose partner is the most similar of all.
    """
    known, test = dataset.train, dataset.test
    labels, among = test.labels[:n], known.labels[:n]
    features, theirs = (_features(model, split.images[:n]) for split in (test, known))
    named = [_vote(rows, theirs, among) for rows in features.split(1000)]
    images, generator = data.to_unit(test.images[: min(n, 1000)]), latents.generator(0)
    views = [augment(images, generator).to(nets.device_of(model)) for _ in range(2)]
    found = nt_xent(*map(model, views), 1.0)[1]
    return {
        "accuracy": (torch.cat(named) == labels).double().mean().item(),
        "between": share_between(features, labels), "found": found.cpu().double().mean().item(),
    }  # fmt: skip


def share_between(features, labels):
    """The share of the variance of features (n, d) that lies between their classes: 0 to 1."""
    features = features - features.mean(0)
    _, each, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = features.new_zeros(len(counts), features.shape[1]).index_add_(0, each, features)
    between = (sums.square() / counts[:, None]).sum()  # n_c times the squared mean of class c
    total = features.square().sum()
    return (between / total).item() if total > 0 else 0.0


def _features(model, images):
    device, chunks = nets.device_of(model), images.split(1000)
    return torch.cat([model.features(data.to_unit(x.to(device))).cpu().double() for x in chunks])


def _vote(features, among, labels):
    nearest = torch.cdist(features, among).topk(min(NEIGHBOURS, len(among)), largest=False).indices
    return nn.functional.one_hot(labels[nearest]).sum(1).argmax(1)
