"""Runs: an experiment of the catalogue and its trained artefact.

`runs.get("vae-mnist-d10")` loads what the book prints. Every number of the book comes from one of
these runs; `python -m gencore train --all` makes all of them again. No function here asks which
paper a run is of.
"""

import contextlib
import json
import re
import statistics
import sys
import time
import warnings
from dataclasses import dataclass, field

import torch

from gencore import catalogue, checkpoint, data, evaluate, nets, store, train
from gencore.catalogue import Config, config, seeds

STEPS = {"quick": 600, "smoke": 8}  # at most so many in a profile; a run may have its own for quick
SAMPLES = {"full": 10_000, "quick": 2_000, "smoke": 500}  # images in each set of an evaluation
PROMISED = {"config": dict, "profile": str, "metrics": dict, "history": dict, "used": dict}
PROMISED |= {"config.name": str} | {f"config.{key}": dict for key in ("model", "objective", "uses")}
STATES = ("ready", "stale", "damaged", "missing")


@dataclass
class Run:
    """A trained model with everything that was recorded about it."""

    name: str
    config: Config
    model: torch.nn.Module
    metrics: dict
    history: dict
    meta: dict
    snapshots: dict = field(default_factory=dict, repr=False)  # images (T, n, ...), steps, frechet

    def sample(self, n, seed=0, prior=None):
        """n generated images, float32 (n, C, H, W) in [0, 1]; the same seed gives the same images.

        prior: one of the densities in `model.priors`, which decoding starts from; None is the
        model's own, the first. Raises ValueError for a run that does not generate images.
        """
        if not hasattr(self.model, "priors"):
            paper = catalogue.short_name(self.config.paper)
            raise ValueError(f"{self.name} is a {paper}: it does not generate images.")
        return evaluate.sample(self.model, n, seed, prior)

    @property
    def data(self):
        """The dataset this run was trained on."""
        return data.load(self.config.data)


def names():
    """The names of all published runs, and of runs of your own that lie beside them."""
    own = (path.stem for path in sorted(store.own_dir().glob("[!.]*.json")))
    return list(dict.fromkeys([*catalogue.runs(), *own]))


def describe(name):
    """What was recorded about a run: its configuration, metrics, history, versions, time (a dict).

    Raises LookupError for an unknown name, store.Corrupt for a damaged file, store.StoreError when
    the artefact is neither here nor in the release.
    """
    return _described(_path(name, weights=False))


def metrics(name):
    """The recorded metrics of a run, {name: number or list}; no weights are needed for them."""
    return describe(name)["metrics"]


def summary(name, metric):
    """(mean, standard deviation, n) of a metric over the seeds of a run; sd is None if n is 1."""
    repeated = seeds(name) if name in catalogue.runs() else [name]
    values = []
    for each in repeated:
        found = metrics(each)
        if not isinstance(found.get(metric), (int, float)):
            numbers = ", ".join(key for key, v in found.items() if isinstance(v, (int, float)))
            raise LookupError(f"{each} has no number {metric!r}; it has {numbers}.")
        values.append(found[metric])
    sd = statistics.stdev(values) if len(values) > 1 else None
    return statistics.mean(values), sd, len(values)


def state(name):
    """ready, stale (of another configuration or of a smaller profile), damaged or missing."""
    folders = dict.fromkeys([store.own_dir(), store.runs_dir()])
    path = next((f / name for f in folders if (f / f"{name}.json").exists()), None)
    if path is None:
        return "missing"
    try:
        meta = _described(path)
        if not numbers_only(name) and meta.get("weights") != "not kept":
            store.load(path)
        if _outdated(name, meta):
            return "stale"
        if not numbers_only(name):
            _opened(path)
        return "ready"
    except (store.Corrupt, OSError, LookupError):
        return "damaged"


def known(name):
    """The Config of a run of the catalogue, or of one of your own that is here by its record."""
    if name not in catalogue.runs() and (store.own_dir() / f"{name}.json").exists():
        return catalogue.from_record(_described(store.own_dir() / name)["config"])
    return config(name)


def numbers_only(name):
    """Whether of a published run only the record is kept, without weights to draw from."""
    return name in catalogue.runs() and not config(name).weights


def _path(name, weights=True):
    """Where the artefact of a run lies; a name neither known nor here raises LookupError."""
    if name not in catalogue.runs() and not (store.own_dir() / f"{name}.json").exists():
        config(name)
    return store.artefact(name, weights=weights)


def _described(path):
    meta = store.describe(path)
    conf = meta.get("config") if isinstance(meta.get("config"), dict) else {}
    found = {"used": {}, **meta}
    found |= {f"config.{key}": conf.get(key, {}) for key in ("model", "objective", "uses")}
    found |= {"config.name": conf.get("name")}
    for key, kind in PROMISED.items():
        if not isinstance(found.get(key), kind) or key == "config.name" and found[key] != path.name:
            raise store.Corrupt(
                f"{path}.json does not describe a run, for its {key!r} is {found.get(key)!r:.40}: "
                f"delete it and train or download again."
            )
    return meta


def _outdated(name, meta):
    """Why an artefact is not what the catalogue has: a text, "" if it is current."""
    if meta["profile"] not in ("full", store.profile()):
        return f"it was made under the profile {meta['profile']}"
    if name in catalogue.runs() and (unlike := catalogue.differences(meta["config"], config(name))):
        return f"it was made from another configuration ({', '.join(unlike)})"
    if meta.get("weights") == "not kept" and not numbers_only(name):
        return "its weights were not kept"
    for other, digest in meta.get("used", {}).items():
        same = False
        with contextlib.suppress(store.Corrupt, OSError, LookupError):
            same = describe(other)["sha256"] == digest
        if not same:
            return f"it was made for another {other} than the one that is here"
    return ""


def get(name, retrain=False):
    """The run `name`: the published artefact, or with `retrain=True` one trained now.

    Its model is on the CPU, where images and codes are; move it with `run.model.to(...)`, and
    `sample` follows. Retraining works on `train.device()`, takes the budget of the profile
    (`GENCORE_PROFILE`) and leaves the artefact alone.
    The state of torch's random generators stays as it is. Raises LookupError for an unknown name,
    store.Corrupt for a damaged file, store.StoreError when the artefact is neither here nor in the
    release, or when no weights of it are kept.
    """
    if retrain:
        return fresh(known(name), progress=True)
    path = _path(name)
    if why := _outdated(name, _described(path)):
        warnings.warn(
            f"The artefact {name} is stale: {why}. Its numbers are those of its own configuration; "
            f"`python -m gencore train {name}` makes it anew.",
            stacklevel=2,
        )
    conf, model, meta, kept = _opened(path)
    conf = conf if why else catalogue.runs().get(name, conf)
    return Run(name, conf, model.eval(), meta["metrics"], meta["history"], meta, kept)


def _opened(path):
    """(configuration, model, description, snapshots) of an artefact, as its own record has them."""
    _described(path)
    tensors, meta = store.load(path)
    prefix = "snapshots."
    kept = {k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)}
    try:
        conf = catalogue.from_record(meta["config"])
        model = _model(conf)
        model.load_state_dict(tensors)  # copied into float32, whatever the file holds
    except store.Corrupt:
        raise  # it is that of a run which this one uses
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise store.Corrupt(f"{path} does not fit its own configuration: {reason:.300}") from None
    return conf, model, meta, kept


def _model(conf):
    """The untrained model of a configuration, the same each time; no random state is touched."""
    used = {argument: get(name).model for argument, name in conf.uses.items()}
    with _seeded(conf):
        return conf.paper.Model(**used, **conf.model)


@contextlib.contextmanager
def _seeded(conf):
    """New networks have the weights that the run's seed gives; the global state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(conf.seed)
        yield


def begin(conf, dataset):
    """The paper's step for a configuration, before the first update, on `train.device()`.

    Raises ValueError in one sentence for a model that cannot draw what the dataset holds.
    """
    device = train.device()
    nets.precision(device)  # a setting that makes no sense is better told before the training
    model = _model(conf).to(device)
    if hasattr(model, "priors"):
        evaluate.check(model, dataset)
    with _seeded(conf):  # a step may have networks of its own: a discriminator
        return conf.paper.Step(model, dataset.train, lr=conf.lr, seed=conf.seed, **conf.objective)


def fresh(conf, checkpoint=None, progress=False):
    """Train `conf` under the profile and evaluate it: a Run that is not saved anywhere.

    What it needs (the model it uses, the classifier it is measured with) is missed before the
    training, not after it. Without a checkpoint folder an interrupt ends the training early and
    what there is then is evaluated; with one it is passed on, and the run can be gone on with.
    """
    for other in catalogue.needed(conf):
        get(other)
    dataset, profile = data.load(conf.data), store.profile()
    step = begin(conf, dataset)
    batches = data.batches(dataset.train, conf.batch, conf.seed, device=train.device())
    most = {"quick": conf.quick, "smoke": STEPS["smoke"]}.get(profile, sys.maxsize)
    steps, history = min(conf.epochs * batches.per_epoch, most), {}
    taken = None
    if conf.snapshots:
        taken = evaluate.Snapshots(step.model, dataset, steps, conf.snapshots)
    schedule, extra = train.SCHEDULES[conf.schedule], {"snapshots": taken} if taken else {}
    records = train.loop(step, batches, steps, checkpoint, history, schedule, extra=extra)
    try:
        for record in train.watch(records, steps) if progress else records:
            if taken:
                taken.look(record.step)
    except KeyboardInterrupt:
        if checkpoint:
            raise
    began = time.process_time()
    _finish(step, conf.half)
    values = conf.paper.measure(step.model, dataset, SAMPLES[profile])
    meta = {
        "name": conf.name, "config": conf.record(), "profile": profile,
        "steps": steps, "stand_in": dataset.stand_in, "parameters": nets.parameters(step.model),
        "ruler": dataset.ruler, "wall_s": _total(history, "seconds"),
        "cpu_s": _total(history, "cpu_seconds"),
        "evaluation_cpu_s": round(time.process_time() - began, 1),
        **evaluate.machine(train.device()),
    }  # fmt: skip
    kept = taken.state_dict() if taken else {}
    return Run(conf.name, conf, step.model.cpu(), evaluate.rounded(values), history, meta, kept)


def _total(history, key):
    return round(sum(history.get(key, [])), 1)


@torch.no_grad()
def _finish(step, half):
    """What a paper does after its last step, on the weights that are published and measured."""
    step.model.eval()
    _round(step.model, half)
    step.model.float()
    if finish := getattr(step, "finish", None):
        finish()
        _round(step.model, half)


def _round(model, half):
    for tensor in (*model.parameters(), *model.buffers()):
        if half and tensor.is_floating_point():
            tensor.copy_(tensor.half())


def checked(what):
    """The Config of a run that is to be trained, given by name or as a Config.

    Raises ValueError for a name that belongs to another run, or that no file should have.
    """
    conf = what if isinstance(what, Config) else known(what)
    if not re.fullmatch(r"\w[\w.-]*", conf.name) or conf != catalogue.runs().get(conf.name, conf):
        raise ValueError(
            f"{conf.name!r} cannot be the name of this run: it is that of another run, or has "
            f"characters beside letters, digits, dots and hyphens."
        )
    return conf


def publish(what, progress=False):
    """Train a run, given by name or as a Config, or go on with it, and save its artefact.

    Runs that it needs are made first. Under the profile full it goes into `store.runs_dir()`, else
    into a folder of its own. Raises ValueError for networks of which too many units are dead.
    """
    conf = checked(what)
    for other in catalogue.needed(conf):
        with contextlib.suppress(OSError):
            store.artefact(other)  # the release may have it
        if state(other) != "ready":
            publish(other, progress)
    used = {other: describe(other)["sha256"] for other in conf.uses.values()}
    mark = store.sha256(json.dumps([conf.record(), used], sort_keys=True).encode())[:12]
    folder = store.cache_dir() / "checkpoints" / f"{conf.name}-{store.profile()}-{mark}"
    run = fresh(conf, folder, progress)
    live = run.metrics.get("live_units_least", 1.0)
    if store.profile() == "full" and live < conf.least_live:
        raise ValueError(
            f"{conf.name} is not published: in one of its layers only {live:.0%} of the hidden "
            f"units ever fire, and {conf.least_live:.0%} should. Change the network, or its "
            f"learning rate."
        )
    save(run, used)
    checkpoint.remove(folder)
    return run


def save(run, used=None):
    """Write the artefact of a run: its record, and weights and snapshots if it keeps them."""
    half = run.config.half
    tensors = {
        key: value.half() if half and value.is_floating_point() else value
        for key, value in run.model.state_dict().items()
    }
    tensors |= {f"snapshots.{key}": value for key, value in run.snapshots.items()}
    meta = run.meta | {"metrics": run.metrics, "history": run.history}
    meta |= {"used": used} if used else {}
    folder = store.own_dir()
    store.save(folder / run.name, tensors, meta, keep=not numbers_only(run.name))
    if folder == store.CHECKOUT / "book" / "runs":
        store.write_registry()
