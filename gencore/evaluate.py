"""What a run is measured by: blocks that a paper's `measure` puts together.

They need no more of a model than `priors`, `decode` and, if it can, `infer`. All distances compare
N images with the N first test images, on the features of the dataset's ruler: 64 numbers of a
frozen classifier and 64 of a network that knows no labels, or the coordinates of points.
`frechet_floor` is what N real training images score. Fixed seeds make every number repeatable from
the artefact alone.
"""

import math
import platform
from pathlib import Path

import torch
from torch import nn

from gencore import data, latents, metrics, nets, rulers

CHUNK = 1000  # images in memory at a time
MOST_BYTES = 1_000_000_000  # what one call of `sample` may return
SNAPSHOT_BYTES = 600_000  # what the pictures of all snapshots of a run may take
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh)


@torch.no_grad()
def codes(model, images, seed=0):
    """Codes of uint8 images, (n, d) on the CPU: draws from the posterior if it is no point."""
    generator = latents.generator(seed, nets.device_of(model))
    return torch.cat([model.infer(x, generator).cpu() for x in _chunks(model, images)])


@torch.no_grad()
def decode(model, z):
    """Images of codes, (n, d) -> (n, C, H, W) in [0, 1] on the CPU, in chunks to keep memory small.

    Raises ValueError when they are no numbers in [0, 1] (points may be anywhere).
    """
    device = nets.device_of(model)
    images = torch.cat([model.decode(chunk.to(device)).float().cpu() for chunk in z.split(CHUNK)])
    low, high = images.min().item(), images.max().item()
    if images.ndim > 2 and not -1e-6 <= low <= high <= 1 + 1e-6 or not math.isfinite(high - low):
        raise ValueError(
            f"{type(model).__module__}.{type(model).__name__} decodes images from {low:.3g} to "
            f"{high:.3g}; they should lie in [0, 1]: end its decode with a sigmoid or a clamp."
        )
    return images


@torch.no_grad()
def reconstruct(model, images):
    """Uint8 images through code (the posterior's mean) and decoder: (n, C, H, W) in [0, 1]."""
    means = [model.infer(x).cpu() for x in _chunks(model, images)]
    return decode(model, torch.cat(means))


def sample(model, n, seed=0, prior=None):
    """n images, decoded from draws of a density in `model.priors`; None is the model's own.

    The draws are made on the CPU, so that a seed means the same codes on every device. Raises
    ValueError for an unknown density, a bad n or seed, or more images than memory should hold.
    """
    names = list(model.priors)
    prior = names[0] if prior is None else prior
    if prior not in names:
        raise ValueError(f"prior is {prior!r}; this model has {', '.join(map(repr, names))}.")
    if not latents.whole(n) or n < 1:
        raise ValueError(f"n is {n!r}; it should be a whole number of images, at least 1.")
    n = int(n)
    generator, density = latents.generator(seed), model.priors[prior]
    size = decode(model, density.sample(1, latents.generator(0)))[0].numel() * 4
    if n * size > MOST_BYTES:
        raise ValueError(
            f"{n:,} images take {n * size / 1e9:,.0f} GB; ask for at most {MOST_BYTES // size:,} "
            f"at a time, with another seed for each."
        )
    return decode(model, density.sample(n, generator))


def check(model, dataset):
    """Draw two images from each density of an untrained model: mistakes show before training.

    Raises ValueError, in one sentence, for a density of the wrong dimension, images of another
    shape than the dataset's, or values outside [0, 1].
    """
    training = model.training
    for name, density in model.eval().priors.items():
        try:
            images = decode(model, density.sample(2, latents.generator(0)))
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"The density {name!r} draws codes of {density.dim} numbers, which the model's "
                f"decode does not take ({str(error).splitlines()[0]})."
            ) from None
        if tuple(images.shape[1:]) != tuple(dataset.shape):
            raise ValueError(
                f"The model decodes {tuple(images.shape[1:])}, but {dataset.name} has images of "
                f"{tuple(dataset.shape)} (channels, height, width)."
            )
    model.train(training)


@torch.no_grad()
def pixel_errors(model, dataset):
    """Squared errors per pixel of reconstructions of seen and unseen images, and the PSNR in dB."""
    values = {}
    for part in ("train", "test"):
        images = getattr(dataset, part).images[:10_000]
        error = (reconstruct(model, images) - data.to_unit(images)).square().mean().item()
        values |= {f"mse_{part}": error}
    return values | {"mse": values["mse_test"], "psnr": -10 * math.log10(values["mse_test"])}


def distances(model, dataset, n=10_000):
    """Distances of reconstructions and of samples from the test images, and the floor.

    A key ends with what was compared: `floor`, `rec`, or the name of a density, as in
    `frechet_prior`; `frechet_ssl_prior` is the same on the network that knows no labels, which
    points lack. Precision, recall, density and coverage are those of the model's own prior;
    another density that comes last, the one fitted best, has `precision_gmm` and `recall_gmm`.
    All sets have the same size.
    """
    n = min(n, len(dataset.test), len(dataset.train))
    real, seen = dataset.test.images[:n], dataset.train.images[:n]
    target = _features(real, dataset)
    if n <= target.shape[1]:
        least = target.shape[1] + 1
        print(f"{n} images are too few to measure distances with ({least} are needed): none is.")
        return {"n": n}
    sets = {"floor": data.to_unit(seen)}
    if hasattr(model, "infer"):
        sets["rec"] = reconstruct(model, seen)
    first, *others = model.priors
    sets |= {name: sample(model, n, prior=name) for name in model.priors}
    values = {"n": n, **_sharpness("real", data.to_unit(real))}
    for what, images in sets.items():
        features = _features(images, dataset)
        values |= _apart(what, features, target)
        values |= _sharpness(what, images) if what != "floor" else {}
        if what == first:
            values |= metrics.prdc(target, features)
            if dataset.centres is not None:
                values |= metrics.modes(images, dataset.centres)
        elif what in others[-1:]:
            found = metrics.prdc(target, features)
            values |= {f"{key}_{what}": found[key] for key in ("precision", "recall")}
    for network in rulers.networks(dataset.ruler)[1:]:
        target = _features(real, dataset, network)
        for what, images in sets.items():
            values |= _apart(f"ssl_{what}", _features(images, dataset, network), target)
    return values


def _features(images, dataset, network="classifier"):
    """On a network of the dataset's ruler, brought to its shape."""
    return metrics.features(images, dataset.ruler, dataset.resized, network)


def _apart(what, features, target):
    kernel, _ = metrics.kid(features, target, size=min(1000, len(target)))
    return {f"frechet_{what}": metrics.frechet(features, target), f"kid_{what}": kernel}


def _sharpness(what, images):
    return {f"sharpness_{what}": metrics.sharpness(images)} if images.ndim == 4 else {}


@torch.no_grad()
def health(model, dataset, n=1000):
    """Are the networks alive, and do the codes use their dimensions? Shares and a number.

    A hidden unit (a channel, in a convolution) is live if it is positive anywhere for any of the
    first n test images: `live_units` is their share, `live_units_least` that of the worst layer.
    `code_rank` is the effective rank of the covariance of the codes (of a posterior, of its
    means) of 10 n test images, exp of the entropy of its normalised eigenvalues: Roy & Vetterli
    (2007). A covariance of fewer images looks narrower than it is.
    """
    fired, hooks = {}, []

    def watch(module, inputs, output):
        over = [axis for axis in range(output.ndim) if axis != 1]
        now = (output.detach().amax(over) > 0).cpu()
        fired[module] = fired.get(module, torch.zeros_like(now)) | now

    for module in model.modules():
        if isinstance(module, ACTIVATIONS):
            hooks.append(module.register_forward_hook(watch))
    try:
        decode(model, _some_codes(model, dataset.test.images[:n]))  # runs both networks
    finally:
        for hook in hooks:
            hook.remove()
    values = {"code_rank": effective_rank(_some_codes(model, dataset.test.images[: 10 * n]))}
    if fired:
        shares = [layer.double().mean().item() for layer in fired.values()]
        units = torch.cat([layer for layer in fired.values()])
        values |= {"live_units": units.double().mean().item(), "live_units_least": min(shares)}
    return values


def _some_codes(model, images):
    if hasattr(model, "infer"):
        return torch.cat([model.infer(x).cpu() for x in _chunks(model, images)])
    return next(iter(model.priors.values())).sample(len(images), latents.generator(0)).cpu()


def effective_rank(z):
    """exp of the entropy of the normalised eigenvalues of codes' covariance: (n, d) -> 1 to d."""
    values = torch.linalg.eigvalsh(torch.atleast_2d(z.double().T.cov())).clamp_min(0)
    shares = values / values.sum().clamp_min(1e-300)
    return torch.special.entr(shares).sum().exp().item()


def _chunks(model, images):
    device = nets.device_of(model)
    return (data.to_unit(chunk.to(device)) for chunk in images.split(CHUNK))


def rounded(value):
    """Six significant digits: more would only record the machine's last bits."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


def machine(device="cpu"):
    """Versions, hardware and the networks' precision in training, for the record."""
    device = torch.device(device)
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":")[1].strip() if lines else cpu
    hardware = f"{cpu}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}, {hardware}"
    return {
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "hardware": hardware, "device": device.type,
        "precision": str(nets.precision(device)).removeprefix("torch."),
    }  # fmt: skip


class Snapshots:
    """Samples of the same fixed codes at log-spaced steps of a training run, and their distance.

    For any model that can draw. A part of the run's checkpoint: it has a state_dict.
    """

    def __init__(self, model, dataset, steps, count=24):
        self.model, self.dataset = model, dataset
        spaced = torch.logspace(0, math.log10(steps), count).round().long()
        self.due = {*spaced.tolist(), steps} if count else set()
        self.z = next(iter(model.priors.values())).sample(2000, latents.generator(1))
        each = math.prod(dataset.shape)
        self.size = max(1, min(16 if each > 2 else 500, SNAPSHOT_BYTES // (max(1, count) * each)))
        self.images, self.steps, self.frechet = [], [], []
        self.target = _features(dataset.test.images[:10_000], dataset)

    def look(self, step):
        """Take one if it is due after this step."""
        if step not in self.due or step in self.steps:
            return
        training = self.model.training
        images = decode(self.model.eval(), self.z)
        self.model.train(training)
        kept = images[: self.size]
        self.images.append((kept * 255).round().byte() if kept.ndim == 4 else kept)
        self.steps.append(step)
        if len(self.target) > self.target.shape[1]:
            distance = metrics.frechet(_features(images, self.dataset), self.target)
            self.frechet.append(float(f"{distance:.6g}"))

    def state_dict(self):
        if not self.steps:
            return {}
        return {
            "images": torch.stack(self.images),
            "steps": torch.tensor(self.steps),
            "frechet": torch.tensor(self.frechet),
        }

    def load_state_dict(self, state):
        if state:
            self.images, self.steps = list(state["images"]), state["steps"].tolist()
            self.frechet = [float(f"{v:.6g}") for v in state["frechet"].tolist()]
