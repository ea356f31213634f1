"""The published experiments: the one place that knows all papers.

A row is a Config: a name, the paper's module, the data, and what differs from the defaults. A new
paper is its module and its rows here.
"""

import difflib
import functools
import inspect
import re
from dataclasses import dataclass, field, fields, replace
from types import ModuleType

from gencore import ae, classifier, contrast, data, encoder, linear, ppca, rulers, train, vae

PROMISED = ("Model", "Step", "measure", "TERMS")  # what a paper's module offers


@dataclass(frozen=True)
class Config:
    """One experiment. `model` and `objective` are keyword arguments of the paper's Model and Step.

    `uses` names the runs whose models are further arguments of the Model: {argument: run name}.
    """

    name: str
    paper: ModuleType
    data: str  # a dataset's name, a folder of images, or an .npz
    model: dict = field(default_factory=dict)
    objective: dict = field(default_factory=dict)
    uses: dict = field(default_factory=dict)
    epochs: int = 12
    batch: int = 128
    lr: float = 2e-3
    schedule: str = "cosine"  # a key of train.SCHEDULES
    quick: int = 600  # steps under the profile quick, at most
    half: bool = True  # weights are kept in half precision
    least_live: float = 0.9  # share of live units, of the worst layer, to be published
    seed: int = 0
    snapshots: int = 0  # how many there are along the way
    weights: bool = True  # are kept; without them the artefact is the record alone

    def __post_init__(self):
        lacking = [name for name in PROMISED if not hasattr(self.paper, name)]
        if lacking or self.schedule not in train.SCHEDULES:
            paper, kinds = short_name(self.paper), ", ".join(train.SCHEDULES)
            raise ValueError(
                f"The run {self.name}: "
                + (f"its paper {paper} has no {', '.join(lacking)}." if lacking else
                   f"its schedule is {self.schedule!r}; it can be {kinds}.")
            )  # fmt: skip

    def record(self):
        """The configuration as JSON: the paper by the name of its module."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return values | {"paper": short_name(self.paper)}


def short_name(paper):
    """The name of a paper's module, without the package's."""
    return paper.__name__.rpartition(".")[2]


FEWEST = 80  # of the reader's own images to train on
MNIST = {"channels": 1, "size": 28}
CIFAR = {"channels": 3, "size": 32}
PATCHES = {"encoder": {"widths": [48], "hidden": []}, "decoder": {"widths": [48], "hidden": []}}
WIDE = {"epochs": 20, "lr": 3e-3}  # the budget of all runs with these networks
CALM = {"adam_beta2": 0.99}  # with 0.999 the runs of sigma = 1 and of ten latents diverged
LADDER = ("mnist-32", "fashion-mnist-32", "cifar10-grey", "cifar10-smooth")  # and cifar10
LAST = CALM | {"standardised": True}  # of their VAEs
KEPT_SOLUTIONS = (("mnist", 10), ("cifar10", 200))


def _classifiers():
    yield Config("classifier-mnist", classifier, "mnist", MNIST | {"width": 24}, epochs=4, lr=0.1)
    yield Config("classifier-cifar10", classifier, "cifar10", CIFAR | {"width": 32},
                 {"augmented": True}, epochs=15, lr=0.1)  # fmt: skip
    yield Config("classifier-fashion-mnist", classifier, "fashion-mnist", MNIST | {"width": 24},
                 epochs=5, lr=0.1)  # fmt: skip


def _contrasts():
    """The second ruler of each dataset."""
    budget = {"batch": 256, "lr": 2e-3}
    yield Config("contrast-mnist", contrast, "mnist", MNIST | {"width": 16}, epochs=5, **budget)
    yield Config("contrast-fashion-mnist", contrast, "fashion-mnist", MNIST | {"width": 16},
                 epochs=5, **budget)  # fmt: skip
    yield Config("contrast-cifar10", contrast, "cifar10", CIFAR | {"width": 16}, epochs=10,
                 **budget)  # fmt: skip


def _digits(seed):
    """VAEs of digits and their deterministic twins, with one seed."""
    end, first = f"-s{seed}" if seed else "", not seed
    budget = {"epochs": 16, "lr": 6e-3, "seed": seed}
    for d in (10, 2, 4, 64, 20, 32):
        net, shown = MNIST | {"latent_dim": d}, first and d in (2, 4, 10, 64)
        yield Config(f"vae-mnist-d{d}{end}", vae, "mnist", net, weights=shown,
                     snapshots=24 if first and d in (2, 10) else 0, **budget)  # fmt: skip
        yield Config(f"ae-mnist-d{d}{end}", ae, "mnist", net, weights=shown, **budget)
    net = MNIST | {"latent_dim": 20, "likelihood": "binary"}
    yield Config(f"vae-mnist-d20-binary{end}", vae, "mnist", net, weights=False, **budget)


def _photographs(seed):
    """VAEs of CIFAR-10 with 200 latents, and the deterministic twin, with one seed."""
    end, kept = f"-s{seed}" if seed else "", not seed
    budget = WIDE | {"seed": seed, "snapshots": 0 if seed else 24}
    net = CIFAR | PATCHES | {"latent_dim": 200, "likelihood": "gaussian"}
    for what, sigma in (("-sigma", "optimal"), ("", 1.0)):
        yield Config(f"vae-cifar10-d200{what}{end}", vae, "cifar10", net | {"sigma": sigma}, LAST,
                     weights=kept, **budget)  # fmt: skip
    yield Config(f"ae-cifar10-d200{end}", ae, "cifar10", net, CALM, weights=False, seed=seed,
                 **WIDE)  # fmt: skip


def _one_factor_at_a_time():
    """What changes with the latent dimension, the data, the network, the likelihood's weight."""
    net = PATCHES | {"likelihood": "gaussian"}
    learned = net | {"sigma": "optimal"}
    for d in (64, 10, 32, 128, 512):
        size = CIFAR | {"latent_dim": d}
        yield Config(f"vae-cifar10-d{d}-sigma", vae, "cifar10", size | learned, LAST,
                     weights=d == 64, **WIDE)  # fmt: skip
        yield Config(f"ae-cifar10-d{d}", ae, "cifar10", size | net, CALM, weights=False, **WIDE)
    for name in LADDER:
        shape = {"channels": data.TABLE[name].shape[0], "size": 32, "latent_dim": 64}
        yield Config(f"vae-{name}-d64-sigma", vae, name, shape | learned, LAST, **WIDE)
    size = CIFAR | {"latent_dim": 200}
    wide = learned | {"encoder": {"widths": [96], "hidden": []},
                      "decoder": {"widths": [96], "hidden": []}}  # fmt: skip
    yield Config("vae-cifar10-d200-sigma-wide", vae, "cifar10", size | wide, LAST, weights=False,
                 **WIDE)  # fmt: skip
    yield Config("vae-cifar10-d200-sigma-long", vae, "cifar10", size | learned, LAST, weights=False,
                 **WIDE | {"epochs": 60})  # fmt: skip
    yield Config("vae-cifar10-d200-mean", vae, "cifar10", size | net, LAST | {"reduction": "mean"},
                 weights=False, **WIDE)  # fmt: skip


def _solved():
    """Linear models: one that is trained to its optimum, and the optimum, solved, beside each d."""
    yield Config("vae-mnist-linear", linear, "mnist", {"latent_dim": 10, "shape": [1, 28, 28]},
                 schedule="constant", epochs=1, batch=500, lr=1.0, half=False)  # fmt: skip
    sizes = [("mnist", d) for d in (2, 4, 10, 20, 32, 64)]
    sizes += [("cifar10", d) for d in (10, 32, 64, 128, 200, 512)]
    for name, d in [*sizes, *((name, 64) for name in LADDER)]:
        net = {"latent_dim": d, "shape": list(data.TABLE[name].shape)}
        yield Config(f"ppca-{name}-d{d}", ppca, name, net, weights=(name, d) in KEPT_SOLUTIONS,
                     schedule="constant", epochs=1, batch=500, lr=1.0, half=False)  # fmt: skip


def _encoders():
    """Encoders that are small enough for a page."""
    for d in (2, 4, 10):
        net = MNIST | {"widths": [16], "hidden": [64, 64]}
        yield Config(f"encoder-mnist-d{d}", encoder, "mnist", net, uses={"of": f"vae-mnist-d{d}"},
                     epochs=16, lr=6e-3)  # fmt: skip


@functools.cache
def runs():
    """{name: Config} of every published run, in the order in which they are trained."""
    repeated = [row for seed in (0, 1, 2) for kind in (_digits, _photographs) for row in kind(seed)]
    single = [*_one_factor_at_a_time(), *_encoders()]
    rows = [*_classifiers(), *_contrasts(), *_solved(), *repeated, *single]
    return {config.name: config for config in rows}


def config(name):
    """The configuration of a run; an unknown name raises LookupError with the nearest match."""
    if name in runs():
        return runs()[name]
    near = difflib.get_close_matches(str(name), runs(), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise LookupError(f"There is no run {name!r}.{hint} `python -m gencore runs` lists them.")


def seeds(name):
    """The run `name` and its repetitions `name-s1`, `name-s2`, ... that are in the catalogue."""
    config(name)
    repetition = re.compile(rf"{re.escape(name)}-s\d+")
    return [other for other in runs() if other == name or repetition.fullmatch(other)]


def from_record(record):
    """The Config that was recorded, of a run that need not be in the catalogue.

    Raises LookupError when the record names a paper that is not among the catalogue's.
    """
    papers = {short_name(c.paper): c.paper for c in runs().values()}
    if record.get("paper") not in papers:
        raise LookupError(
            f"{record.get('name')} was made by the paper {record.get('paper')!r}, which this "
            f"gencore does not know; it knows {', '.join(papers)}."
        )
    known = {f.name for f in fields(Config)}
    values = {key: value for key, value in record.items() if key in known}
    return Config(**values | {"paper": papers[record["paper"]]})


def differences(record, conf):
    """The fields in which a recorded configuration is not `conf`: an empty list if it is current.

    A field, or a keyword argument of Model or Step, that one of them lacks means its default of
    today: a new option makes nothing stale.
    """
    defaults = {f.name: f.default if f.default_factory is not dict else {} for f in fields(Config)}
    ours, theirs = conf.record(), {**defaults, **record}
    for key, made in (("model", conf.paper.Model), ("objective", conf.paper.Step)):
        for side in (ours, theirs):
            side[key] = _arguments(made) | side[key]
    ignored = {"name", "least_live", "weights"}  # none says how the run was trained
    compared = ours.keys() - ignored
    return sorted(key for key in compared if _plain(ours[key]) != _plain(theirs[key]))


def _arguments(made):
    """The default of each keyword argument of a class."""
    parameters = inspect.signature(made).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _plain(value):
    """A value as JSON gives it back: lists for tuples."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value


def needed(conf):
    """The runs that must be there before this one is trained: those it uses, and its rulers.

    A ruler itself, which draws no images, is not measured with one.
    """
    row = data.TABLE.get(conf.data)
    ruler = row.ruler if row else data.load(conf.data).ruler
    networks = rulers.networks(ruler) if hasattr(conf.paper.Model, "decode") else ()
    return [*conf.uses.values(), *(f"{network}-{ruler}" for network in networks)]


def on_other_images(conf, path, name):
    """The experiment `conf` on another dataset, a folder of images or an `.npz`, under a new name.

    Models that take `channels` and `size` get those of the images, which must be square then. A
    batch is no larger than the data. Raises ValueError for a run that draws no images, and for too
    few of them to fit a density to their codes.
    """
    images = data.load(path)
    shape, n = images.shape, len(images.train)
    if not hasattr(conf.paper.Model, "decode"):
        raise ValueError(f"{conf.name} draws no images: choose a run that does, as vae-mnist-d10.")
    if n < FEWEST:
        raise ValueError(f"{path} has {n} images to train on; at least {FEWEST} are needed.")
    if "size" in conf.model and (len(shape) != 3 or shape[1] != shape[2]):
        raise ValueError(f"{path} has images of shape {shape} (C, H, W); they should be square.")
    found = {"channels": shape[0], "size": shape[-1], "shape": list(shape)}
    model = conf.model | {key: value for key, value in found.items() if key in conf.model}
    told = {"name": name, "data": str(path), "model": model, "batch": min(conf.batch, n)}
    return replace(conf, weights=True, **told)  # published or not, of one's own they are kept
