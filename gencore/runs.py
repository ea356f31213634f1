"""The published experiments: a name, its configuration, and the trained artefact.

`runs.get("vae-mnist-d10")` loads what the book prints. Every number of the book comes from one of
these runs; `python -m gencore train --all` makes all of them again.
"""

import difflib
import hashlib
import json
import statistics
import sys
import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from functools import cache

import torch

from gencore import data, evaluate, nets, store, train, vae

SHAPE = {name: {"channels": c, "size": h} for name, (c, h, _) in data.SHAPES.items()}
STEPS = {"quick": 600, "smoke": 8}  # at most so many, where `full` takes the published number
SAMPLES = {"full": 10_000, "quick": 2_000, "smoke": 500}  # images in each set of an evaluation


@dataclass(frozen=True)
class Config:
    """One experiment. `objective` and `model` are keyword arguments of the paper's step and net."""

    name: str
    paper: str  # vae, ae, linear, classifier, encoder (for the decoder of the run model["of"])
    data: str
    model: dict
    objective: dict = field(default_factory=dict)
    epochs: int = 12
    batch: int = 128
    lr: float = 2e-3
    seed: int = 0
    snapshots: int = 0  # how often 16 samples of fixed noise are kept along the way

    @property
    def digest(self):
        """sha256 of the whole configuration: an artefact with another one is stale."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass
class Run:
    """A trained model with everything that was recorded about it."""

    name: str
    config: Config
    model: torch.nn.Module
    metrics: dict
    history: dict
    meta: dict
    film: dict = field(default_factory=dict, repr=False)  # images (T, 16, C, H, W), steps, frechet

    def sample(self, n, seed=0, prior="normal"):
        """n generated images, float32 (n, C, H, W) in [0, 1]; the same seed gives the same images.

        prior: "normal" decodes z ~ N(0, I), "gaussian" and "gmm" decode draws from one Gaussian or
        a mixture of ten that are fitted to the codes of the training images.
        """
        if not hasattr(self.model, "decode"):
            raise ValueError(f"{self.name} is a {self.config.paper}: it does not generate images.")
        z = torch.randn(n, self.model.latent_dim, generator=torch.Generator().manual_seed(seed))
        if prior == "gmm" or (prior == "gaussian" and self.config.paper != "ae"):
            z = evaluate.draw_codes(evaluate.codes(self.model, self.data.train.images), n, prior, seed)
        elif prior == "gaussian":
            z = self.model.code_mean + z @ self.model.code_chol.T
        elif prior != "normal":
            raise ValueError(f"prior is {prior!r}; it can be 'normal', 'gaussian' or 'gmm'.")
        images = evaluate.decode(self.model, z).clamp(0, 1)
        return images.view(n, *data.SHAPES[self.config.data])

    @property
    def data(self):
        """The dataset this run was trained on."""
        return data.load(self.config.data)


@cache
def catalogue():
    """{name: Config} of every published run, in the order in which they are trained."""
    configs = [
        Config("classifier-mnist", "classifier", "mnist", SHAPE["mnist"] | {"width": 24}, epochs=4, lr=0.1),
        Config("classifier-cifar10", "classifier", "cifar10", SHAPE["cifar10"] | {"width": 32},
               {"augmented": True}, epochs=15, lr=0.1),
        Config("classifier-fashion-mnist", "classifier", "fashion-mnist",
               SHAPE["fashion-mnist"] | {"width": 24}, epochs=5, lr=0.1),
        Config("vae-mnist-linear", "linear", "mnist", {"data_dim": 784, "latent_dim": 10},
               epochs=1, batch=500),
    ]  # fmt: skip
    dims, mnist = (10, 2, 4, 32, 20, 64), SHAPE["mnist"]
    cifar = SHAPE["cifar10"] | {"latent_dim": 200, "width": 32, "likelihood": "gaussian"}
    for seed in (0, 1, 2):
        end = f"-s{seed}" if seed else ""
        for d in dims:
            keep = 24 if d in (2, 10) and not seed else 0
            net = mnist | {"latent_dim": d}
            configs.append(Config(f"vae-mnist-d{d}{end}", "vae", "mnist", net, seed=seed, snapshots=keep))
            if not seed:
                configs.append(Config(f"ae-mnist-d{d}", "ae", "mnist", net))
        for what, sigma in (("", 1.0), ("-sigma", "optimal")):
            configs.append(
                Config(f"vae-cifar10-d200{what}{end}", "vae", "cifar10", cifar | {"sigma": sigma},
                       epochs=10, lr=1e-3, seed=seed, snapshots=0 if seed else 24)
            )  # fmt: skip
        if not seed:
            configs.append(
                Config("vae-cifar10-d200-mean", "vae", "cifar10", cifar, {"reduction": "mean"},
                       epochs=10, lr=1e-3)
            )  # fmt: skip
    for d in (2, 4, 10):  # small enough for a page
        net = mnist | {"of": f"vae-mnist-d{d}", "width": 8, "hidden": [64, 64]}
        configs.append(Config(f"encoder-mnist-d{d}", "encoder", "mnist", net, epochs=20, lr=5e-3))
    return {config.name: config for config in configs}


def names():
    """The names of all published runs."""
    return list(catalogue())


def config(name):
    """The configuration of a run; an unknown name raises LookupError with the nearest match."""
    if name in catalogue():
        return catalogue()[name]
    near = difflib.get_close_matches(name, catalogue(), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise LookupError(f"There is no run {name!r}.{hint} `python -m gencore runs` lists them.")


def seeds(name):
    """The run `name` and its repetitions `name-s1`, `name-s2` that are in the catalogue."""
    config(name)
    return [n for n in (name, f"{name}-s1", f"{name}-s2") if n in catalogue()]


def summary(name, metric):
    """(mean, standard deviation, n) of a metric over the seeds of a run; sd is None if n is 1."""
    values = [store.read_json(f"{store.artefact(n)}.json")["metrics"][metric] for n in seeds(name)]
    sd = statistics.stdev(values) if len(values) > 1 else None
    return statistics.mean(values), sd, len(values)


def state(name):
    """ready, stale (of another configuration or of a smaller profile), damaged or missing."""
    path = store.runs_dir() / name
    if not path.with_name(name + ".json").exists():
        return "missing"
    try:
        meta = _load(path)[1]
    except (store.Corrupt, FileNotFoundError):
        return "damaged"
    fits = meta["profile"] in ("full", data.profile()) and _current(meta, config(name))
    return "ready" if fits else "stale"


def _load(path):
    tensors, meta = store.load(path)
    if lacking := {"config", "digest", "profile", "metrics", "history"} - meta.keys():
        raise store.Corrupt(
            f"{path}.json does not describe a run, for it lacks {', '.join(sorted(lacking))}: "
            f"delete it and train or download again."
        )
    return tensors, meta


def _current(meta, conf):
    return meta["digest"] == conf.digest and meta.get("of", "") == _decoder(conf)


def _decoder(conf):
    """The sha256 of the weights that an encoder is for, "missing", or "" for any other run."""
    try:
        return _load(store.runs_dir() / conf.model["of"])[1]["sha256"] if "of" in conf.model else ""
    except (store.Corrupt, FileNotFoundError):
        return "missing"


def get(name, retrain=False):
    """The run `name`: the published artefact, or with `retrain=True` one trained now.

    Retraining takes the budget of the profile (`GENCORE_PROFILE`) and leaves the artefact alone.
    Raises LookupError for an unknown name, store.Corrupt for a damaged file, store.StoreError when
    the artefact is neither here nor in the release.
    """
    conf = config(name)
    if retrain:
        return fresh(conf, progress=True)
    tensors, meta = _load(store.artefact(name))
    model = build(replace(conf, model=meta["config"]["model"]))
    if not _current(meta, conf):
        warnings.warn(
            f"The artefact {name} is stale: it was made from another configuration. Its numbers are "
            f"of that one; `python -m gencore train {name}` makes it anew.",
            stacklevel=2,
        )
    film = {k[5:]: tensors.pop(k) for k in list(tensors) if k.startswith("film.")}
    model.load_state_dict(nets.unpacked(tensors))  # copied into float32, whatever the file holds
    return Run(name, conf, model.eval(), meta["metrics"], meta["history"], meta, film)


def build(conf):
    """The untrained network of a configuration; an encoder comes with its decoder, as published."""
    arguments = conf.model | ({"of": get(conf.model["of"]).model} if "of" in conf.model else {})
    kinds = {"vae": vae.VAE, "ae": vae.Autoencoder, "linear": vae.LinearVAE, "encoder": vae.Recognition,
             "classifier": nets.Classifier}  # fmt: skip
    torch.manual_seed(conf.seed)
    return kinds[conf.paper](**arguments)


def make_step(conf, model, dataset):
    """The paper's step for a configuration."""
    if conf.paper in ("vae", "encoder"):
        return vae.Step(model, conf.lr, seed=conf.seed, **conf.objective)
    if conf.paper == "ae":
        return vae.AutoencoderStep(model, conf.lr)
    if conf.paper == "classifier":
        return nets.ClassifierStep(model, conf.lr, seed=conf.seed, **conf.objective)
    mean, cov = moments(dataset.train.images)
    model.double()
    with torch.no_grad():
        model.b.copy_(mean)
    return vae.LinearStep(model, mean, cov)


def moments(images):
    """Mean (D,) and covariance (D, D) of flat images in [0, 1], in float64."""
    flat = images.flatten(1).double() / 255
    mean = flat.mean(0)
    return mean, (flat - mean).T @ (flat - mean) / len(flat)


def fresh(conf, checkpoint=None, progress=False):
    """Train `conf` under the profile and evaluate it: a Run that is not saved anywhere."""
    dataset, budget = data.load(conf.data), data.profile()
    model = build(conf)
    step = make_step(conf, model, dataset)
    labels = dataset.train.labels if conf.paper == "classifier" else None
    batches = data.batches(dataset.train.images, conf.batch, conf.seed, labels)
    steps = min(conf.epochs * batches.per_epoch, STEPS.get(budget, sys.maxsize))
    film = evaluate.Film(model, dataset, steps, conf.snapshots) if conf.snapshots else None
    if film:
        step.parts["film"] = film
    history = {}
    records = train.loop(step, batches, steps, checkpoint, history, train.cosine)
    for record in train.watch(records, steps) if progress else records:
        if film:
            film.look(record.step)
    if checkpoint and history.get("step", [0])[-1] != steps:
        raise KeyboardInterrupt  # an unfinished run is never published; its checkpoint stays
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(nets.rounded(tensor, **_kept(conf)))  # what is measured is what is saved
    model.float()
    if conf.paper == "ae":
        z = evaluate.codes(model, dataset.train.images).double()
        model.code_mean.copy_(z.mean(0))
        model.code_chol.copy_(torch.linalg.cholesky(z.T.cov()))
    began = time.process_time()
    values = evaluate.evaluate(model, conf.paper, dataset, SAMPLES[budget])
    meta = {
        "name": conf.name, "config": asdict(conf), "digest": conf.digest, "profile": budget,
        "steps": steps, "stand_in": dataset.stand_in, "parameters": nets.parameters(model),
        "wall_s": round(sum(history.get("seconds", [])), 1),
        "cpu_s": round(sum(history.get("cpu_seconds", [])), 1),
        "evaluation_cpu_s": round(time.process_time() - began, 1), **evaluate.machine(),
    }  # fmt: skip
    tensors = film.state_dict() if film else {}
    return Run(conf.name, conf, model, values, history, meta, tensors)


def _kept(conf):
    """How the artefact rounds weights: the linear model is exact, repetitions are in 8 bits."""
    return {"exact": conf.paper == "linear", "eight_bits": conf.seed > 0}


def publish(name, progress=False):
    """Train the run `name`, or go on with it, and save its artefact; then its checkpoint goes."""
    conf = config(name)
    needed = conf.model.get("of", f"classifier-{conf.data}")
    if conf.paper in ("vae", "ae", "encoder") and state(needed) != "ready":
        publish(needed, progress)
    of = _decoder(conf)
    mark = f"{name}-{data.profile()}-{conf.digest[:8]}{of[:8]}"
    checkpoint = store.cache_dir() / "checkpoints" / mark
    run = fresh(conf, checkpoint, progress)
    tensors = nets.packed(run.model.state_dict(), **_kept(conf))
    tensors |= {f"film.{key}": value for key, value in run.film.items()}
    meta = run.meta | {"metrics": run.metrics, "history": run.history} | ({"of": of} if of else {})
    store.save(store.runs_dir() / name, tensors, meta)
    if store.runs_dir() == store.CHECKOUT / "book" / "runs":
        store.write_registry()
    train.remove_checkpoints(checkpoint)
    return run
