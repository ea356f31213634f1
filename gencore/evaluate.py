"""What a run is measured by: one protocol for every model of the book.

All Fréchet distances compare N images with the N first test images, on the 64 features of the
dataset's own frozen classifier. `frechet_floor` is what N real training images score. Fixed
seeds make every number repeatable from the artefact alone.
"""

import math
import platform
from pathlib import Path

import torch

from gencore import data, metrics, vae

PRIORS = {"vae": ("prior", "gmm"), "ae": ("prior", "gaussian", "gmm")}


@torch.no_grad()
def codes(model, images, seed=0):
    """Codes of uint8 images, (n, d): draws from q(z|x) for a VAE, the codes themselves otherwise."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for chunk in images.split(1000):
        code = model.encode(data.to_unit(chunk))
        out.append(vae.reparameterise(*code, generator) if isinstance(code, tuple) else code)
    return torch.cat(out)


@torch.no_grad()
def decode(model, z):
    """Images of codes, in chunks that keep memory small: (n, d) -> (n, C, H, W)."""
    return torch.cat([model.decode(chunk) for chunk in z.split(1000)])


@torch.no_grad()
def reconstruct(model, images):
    """The decoded posterior mean (or code) of uint8 images: (n, C, H, W) in [0, 1]."""
    out = []
    for chunk in images.split(1000):
        code = model.encode(data.to_unit(chunk))
        out.append(model.decode(code[0] if isinstance(code, tuple) else code))
    return torch.cat(out)


def draw_codes(z, n, prior, seed=0):
    """n draws from a density fitted to the codes z (N, d): one "gaussian", or a "gmm" of ten.

    Ghosh et al. (2020), arXiv:1903.12436, sample autoencoders in this way.
    """
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(10 if prior == "gmm" else 1, random_state=seed, reg_covar=1e-5)
    mixture.fit(z[:20_000].double().numpy())
    return torch.from_numpy(mixture.sample(n)[0]).float()[_shuffle(n, seed)]


def _shuffle(n, seed):
    # scikit-learn returns the draws sorted by component
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def evaluate(model, paper, dataset, n=10_000):
    """All metrics of a trained model as a flat dict of JSON-able numbers and lists."""
    model.eval()
    if paper == "classifier":
        return {"accuracy": _accuracy(model, dataset.test)}
    if paper == "linear":
        return _linear(model, dataset)
    values = {} if paper == "ae" else _bound(model, dataset.test.images, n)
    values |= _pixels(model, paper, dataset)
    if paper in PRIORS:  # what an encoder's model samples is measured with the run it is for
        values |= _distances(model, paper, dataset, n)
    return {key: _rounded(value) for key, value in values.items()}


def _rounded(value):
    """Six significant digits: more would only record the machine's last bits."""
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


@torch.no_grad()
def _accuracy(model, split):
    pairs = zip(split.images.split(1000), split.labels.split(1000), strict=True)
    hits = sum((model(data.to_unit(x)).argmax(1) == y).sum().item() for x, y in pairs)
    return hits / len(split)


def _linear(model, dataset):
    flat = dataset.train.images.flatten(1).double() / 255
    mean, cov = flat.mean(0), flat.T.cov(correction=0)
    with torch.no_grad():
        bound = vae.linear_elbo(model.double(), mean, cov).item()
    model.float()
    _, sigma2, optimum = vae.ppca(mean, cov, model.latent_dim)
    sigma = model.log_sigma.exp().item()
    return {"elbo": bound, "ppca": optimum.item(), "sigma": sigma, "ppca_sigma": sigma2.sqrt().item()}


@torch.no_grad()
def _bound(model, images, n):
    """ELBO and its parts on the test images, and the IWAE bound on some of them."""
    generator = torch.Generator().manual_seed(0)
    parts, mus, kls = [], [], []
    for chunk in images[:n].split(500):
        x = data.to_unit(chunk)
        mu, logvar = model.encode(x)
        z = vae.reparameterise(mu, logvar, generator)
        parts.append(model.log_likelihood(x, z).double())
        kls.append(0.5 * (mu.square() + logvar.exp() - 1 - logvar).double())
        mus.append(mu)
    rec, kl = torch.cat(parts).mean().item(), torch.cat(kls).mean(0)
    some, k = images[: n // 10], 100 if n >= 10_000 else 10
    tight = torch.cat([vae.iwae(model, data.to_unit(c), k, generator) for c in some.split(100)])
    return {
        "elbo": rec - kl.sum().item(), "rec": rec, "kl": kl.sum().item(), "kl_per_dim": kl.tolist(),
        "iwae": tight.double().mean().item(), "active_units": metrics.active_units(torch.cat(mus)),
        "sigma": model.sigma.item(),
    }  # fmt: skip


@torch.no_grad()
def _pixels(model, paper, dataset):
    """Squared errors per pixel of reconstructions of seen and unseen images."""
    values = {}
    for part in ("train", "test"):
        images = getattr(dataset, part).images[:10_000]
        x = data.to_unit(images)
        mse = (reconstruct(model, images) - x).square().mean().item()
        values |= {f"mse_{part}": mse}
    values |= {"mse": values["mse_test"], "psnr": -10 * math.log10(values["mse_test"])}
    if paper == "ae":
        x = data.to_unit(dataset.test.images[:10_000])
        logits = torch.cat([model.decoder(model.encode(c)) for c in x.split(1000)])
        values["rec"] = vae.bernoulli_log_likelihood(x, logits).double().mean().item()
    return values


def _distances(model, paper, dataset, n):
    """Distances of reconstructions and samples from the test images, and the floor."""
    real, seen = dataset.test.images[:n], dataset.train.images[:n]
    n = len(real)
    z = codes(model, dataset.train.images)
    sets = {"floor": data.to_unit(seen), "rec": reconstruct(model, seen)}
    for prior in PRIORS[paper]:
        if prior == "prior":
            code = torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(0))
        else:
            code = draw_codes(z, n, prior)
        sets[prior] = decode(model, code)
    target = metrics.features(real, dataset.name)
    values = {"sharpness_real": metrics.sharpness(data.to_unit(real)), "n": n}
    for what, images in sets.items():
        features = metrics.features(images, dataset.name)
        values[f"frechet_{what}"] = metrics.frechet(features, target)
        values[f"kid_{what}"] = metrics.kid(features, target, size=min(1000, n))[0]
        if what != "floor":
            values[f"sharpness_{what}"] = metrics.sharpness(images)
        if what == "prior":
            values |= metrics.prdc(target, features)
    return values


def machine():
    """Versions and hardware, for the record."""
    cpu = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = lines[0].split(":")[1].strip() if lines else cpu
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {"versions": versions, "hardware": f"{cpu}, {torch.get_num_threads()} threads"}


class Film:
    """Samples of the same fixed noise at log-spaced steps of a training run, and their distance.

    It has a state_dict, so that a checkpoint keeps it.
    """

    def __init__(self, model, dataset, steps, frames=24, size=16):
        self.model, self.dataset = model, dataset
        spaced = torch.logspace(0, torch.tensor(float(steps)).log10().item(), frames).round().long()
        self.due = set(spaced.tolist()) | {steps} if frames else set()
        self.z = torch.randn(2000, model.latent_dim, generator=torch.Generator().manual_seed(1))
        self.size, self.images, self.steps, self.frechet = size, [], [], []
        self.target = metrics.features(dataset.test.images[:10_000], dataset.name)

    def look(self, step):
        """Take a picture if one is due after this step."""
        if step not in self.due or step in self.steps:
            return
        self.model.eval()
        images = decode(self.model, self.z)
        distance = metrics.frechet(metrics.features(images, self.dataset.name), self.target)
        self.model.train()
        self.images.append((images[: self.size] * 255).round().byte())
        self.steps.append(step)
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
