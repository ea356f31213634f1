"""Measurements of speed, each a ratio within one run or a time against its bar.

The two sides of a ratio take turns in short slices, so that whatever else the machine does
falls on both.
"""

import os
import subprocess
import sys
import time

import torch
from torch import nn

from gencore import data, nets, train, vae

BATCH = 128


class MLP(nn.Module):
    """The 784-400-20-400-784 network of the best-known VAE example script."""

    def __init__(self):
        super().__init__()
        into = nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40)
        self.encoder = nn.Sequential(nn.Flatten(), *into)
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def encode(self, x):
        return self.encoder(x).chunk(2, 1)

    def log_likelihood(self, x, z):
        return vae.bernoulli_log_likelihood(x.flatten(1), self.decoder(z))


def measure(slices=8, steps=25):
    """A list of rows {what, value, unit, bar, ok}."""
    split, device = data.load("fashion-mini").train, train.device()
    loop, bare = _alternate(_looped(split, device), _bare(split, device), slices, steps)
    mlp, script = _looped(split, "cpu", MLP()), _script(split.images)
    ours, theirs = _alternate(mlp, script, slices, steps)
    formats = (_looped(split, device, number=name) for name in ("bfloat16", "float32"))
    low, full = _alternate(*formats, slices, steps)
    pays = nets.bfloat16_pays(device.type)
    seconds = min(_import_seconds() for _ in range(3))
    where = "" if pays else " (no units for it here)"
    return [
        _row("train.loop against the bare step", loop / bare, "x", at_least=0.95),
        _row("against the VAE example script, same network", ours / theirs, "x", at_least=2.5),
        _row(f"bfloat16 against float32{where}", low / full, "x", at_least=1.8 if pays else None),
        _row("import gencore and all that notebooks import", seconds, "s", at_most=2.5),
        _row(f"convolutional VAE, training on {device}", loop, "img/s"),
        _row("convolutional VAE, in bfloat16", low, "img/s"),
        _row("convolutional VAE, in float32", full, "img/s"),
    ]


def _row(what, value, unit, at_least=None, at_most=None):
    ok = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    bar = f">= {at_least:g}" if at_least is not None else ""
    bar = f"<= {at_most:g}" if at_most is not None else bar
    return {"what": what, "value": round(value, 3), "unit": unit, "bar": bar, "ok": bool(ok)}


def _alternate(first, second, slices, steps):
    """Median images per second of two endless iterators, measured in turns."""
    rates = ([], [])
    for turn in range(slices + 1):
        for iterator, kept in zip((first, second), rates, strict=True):
            began = time.perf_counter()
            for _ in range(steps):
                next(iterator)
            if turn:  # the first turn warms up
                kept.append(BATCH * steps / (time.perf_counter() - began))
    return tuple(sorted(kept)[len(kept) // 2] for kept in rates)


def _looped(split, device, model=None, number=None):
    """Our loop; `number` sets the format of the networks' products while it works."""
    model = (vae.Model(10) if model is None else model).to(device)
    records = train.loop(vae.Step(model), data.batches(split, BATCH, device=device), 10**9)
    before = os.environ.get("GENCORE_PRECISION")
    while True:
        if number:
            os.environ["GENCORE_PRECISION"] = number
        next(records)
        if number:
            os.environ.pop("GENCORE_PRECISION")
            os.environ |= {"GENCORE_PRECISION": before} if before else {}
        yield


def _bare(split, device):
    """The same update written by hand: index, forward, backward, Adam."""
    model, images = vae.Model(10).to(device), split.images.to(device)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    while True:
        order = torch.randperm(len(images)).to(device)
        for rows in order[: len(images) // BATCH * BATCH].split(BATCH):
            bound, _, _ = vae.elbo(model, images[rows].float() / 255)
            optimiser.zero_grad()
            (-bound.mean()).backward()
            optimiser.step()
            yield


def _script(images):
    """How the example script trains: a PIL image, a transform and a copy for each picture."""
    from PIL import Image
    from torchvision.transforms import ToTensor

    class PerImage(torch.utils.data.Dataset):
        def __init__(self):
            self.transform = ToTensor()

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return self.transform(Image.fromarray(images[index, 0].numpy(), mode="L")), 0

    model = MLP()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    while True:
        loader = torch.utils.data.DataLoader(PerImage(), BATCH, shuffle=True, drop_last=True)
        for x, _ in loader:
            mu, logvar = model.encode(x)
            z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
            recon = model.decoder(z).sigmoid()
            bce = nn.functional.binary_cross_entropy(recon, x.flatten(1), reduction="sum")
            loss = bce - 0.5 * (1 + logvar - mu.square() - logvar.exp()).sum()
            optimiser.zero_grad()
            loss.backward()
            loss.item()
            optimiser.step()
            yield


def _import_seconds():
    code = "import gencore.runs, gencore.show, gencore.check, sys; "
    code += "assert 'torchvision' not in sys.modules"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began
