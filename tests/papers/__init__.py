"""All papers of the catalogue as small runs, and three papers of the tests' own.

`world` is where they live: the profile smoke, narrow networks, few images, folders of the test's
own. It is the same in a test and in a process that a test starts and kills.
"""

import dataclasses
import hashlib
import inspect
import os

import threadpoolctl
import torch
from small_networks import SMALL

from gencore import catalogue, data, runs, train
from papers import codes, game, pixels

threadpoolctl.threadpool_limits(1)  # as torch.set_num_threads(1): on busy cores a second one waits

NEW = {
    "pixels-mnist": catalogue.Config("pixels-mnist", pixels, "mnist", {"channels": 1, "size": 28}),
    "game-ring": catalogue.Config("game-ring", game, "ring", {"latent_dim": 4}, half=False),
    "codes-mnist": catalogue.Config("codes-mnist", codes, "mnist", {"latent_dim": 3}),
}
STEPS, IMAGES = 8, (256, 100)


def size(conf):
    """How large a run's networks are, nearly."""
    return sum(value for value in conf.model.values() if isinstance(value, int))


def smallest():
    """{paper: name of its smallest run in the catalogue}."""
    rows = sorted(catalogue.runs().values(), key=size, reverse=True)
    return {catalogue.short_name(conf.paper): conf.name for conf in rows if not runs.numbers_only(conf.name)}


CASES = [*smallest().values(), *NEW]


def narrow(conf):
    """A run with narrow networks and small batches."""
    own = {"width": 4, "widths": [4], "hidden": [8, 8]}  # as a row may have them
    model = {key: own.get(key, value) for key, value in conf.model.items()}
    taken = inspect.signature(conf.paper.Model).parameters
    model |= {key: SMALL[key] for key in SMALL if key in taken}
    return dataclasses.replace(conf, model=model, batch=16)


def few(dataset):
    """The first images of a dataset."""
    parts = {p: getattr(dataset, p) for p in ("train", "test")}
    kept = {p: data.Split(s.images[:n], s.labels[:n]) for (p, s), n in zip(parts.items(), IMAGES, strict=True)}
    return dataclasses.replace(dataset, **kept)


def world(patch, place):
    """Make the papers small, and `place` the folder of artefacts."""
    for key in ("GENCORE_DATA", "GENCORE_DEVICE", "GENCORE_RELEASE"):
        patch.delenv(key, raising=False)
    settings = {"GENCORE_PROFILE": "smoke", "GENCORE_RUNS": place, "GENCORE_HOME": place / "home",
                "GENCORE_THREADS": 1}  # fmt: skip
    for key, value in settings.items():
        patch.setenv(key, str(value))
    for name, conf in (catalogue.runs() | NEW).items():
        small = dataclasses.replace(narrow(conf), snapshots=4 if name in CASES and can_draw(conf) else 0)
        patch.setitem(catalogue.runs(), name, small)
    whole = data.load
    patch.setattr(data, "load", lambda name: few(whole(name)))
    patch.setitem(runs.SAMPLES, "smoke", IMAGES[1])
    patch.setitem(runs.STEPS, "smoke", STEPS)


def can_draw(conf):
    return hasattr(conf.paper.Model, "decode")


def begin(name, seed=None):
    """(step, batches) of a run; with a `seed` its networks and its noise begin as others do."""
    conf = catalogue.config(name)
    dataset = data.load(conf.data)
    batches = data.batches(dataset.train, conf.batch, conf.seed)
    other = conf if seed is None else dataclasses.replace(conf, seed=seed)
    return runs.begin(other, dataset), batches


def digest(*things):
    """sha256 of all that a later step depends on: weights, averages, noise, counters."""
    content = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            content.update(str((value.dtype, value.shape)).encode())
            content.update(value.detach().contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                content.update(str(key).encode())
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for part in value:
                add(part)
        elif isinstance(value, torch.Generator):
            add(value.get_state())
        elif hasattr(value, "state_dict"):
            add(value.state_dict())
        else:
            content.update(repr(value).encode())

    add(things)
    return content.hexdigest()


def trains_for_ever(patch, name, place, folder, started):
    """What a process that is to be killed does: train, with a checkpoint at each step."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    world(patch, place)
    train.FIRST_CHECKPOINT = train.CHECKPOINT_SECONDS = -1
    step, batches = begin(name)
    for record in train.loop(step, batches, 10**6, folder, log_every=3):
        if record.step > 1:
            started.set()
