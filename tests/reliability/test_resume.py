"""A run that was stopped, or killed, ends with the very bits of one that never was.

Each kind of run that the catalogue has, and the papers of the tests' own. That every paper can be
killed at all is in the contract, tests/unit/test_contract.py; here it is killed more often, stopped
in the middle of an average, and gone on with under other conditions.
"""

import random
import time

import numpy as np
import papers
import pytest
import torch

from gencore import catalogue, checkpoint, data, evaluate, linear, runs, store, train

STEPS = 12


def kinds():
    """{what they are: name} of the runs that differ in more than sizes, data and seed."""
    found = {}
    for name, conf in sorted(catalogue.runs().items(), key=lambda item: papers.size(item[1])):
        options = {key: value for key, value in conf.model.items() if isinstance(value, (str, float))}
        found.setdefault((conf.paper, str(options), str(conf.objective)), name)
    return [*found.values(), *papers.NEW]


KINDS = kinds()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the runs use."""
    folder = tmp_path_factory.mktemp("used")
    with pytest.MonkeyPatch.context() as patch:
        papers.world(patch, folder)
        for name in {other for kind in KINDS for other in catalogue.config(kind).uses.values()}:
            conf = catalogue.config(name)
            meta = {"config": conf.record(), "profile": "smoke"}
            runs.save(runs.Run(name, conf, runs._model(conf), {}, {}, meta))
    return folder


@pytest.fixture(autouse=True)
def world(place, monkeypatch):
    """The small catalogue, and a checkpoint at every step."""
    papers.world(monkeypatch, place)
    monkeypatch.setattr(train, "FIRST_CHECKPOINT", -1)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    return place


def without_clocks(history):
    return {key: values for key, values in history.items() if "seconds" not in key}


def state(step, history):
    return papers.digest(step.parts), papers.digest(step.model), without_clocks(history)


def whole(name, seed=None):
    """A run without interruption."""
    step, batches = papers.begin(name, seed)
    history = {}
    list(train.loop(step, batches, STEPS, history=history, schedule=train.cosine, log_every=5))
    return state(step, history)


@pytest.mark.parametrize("name", KINDS)
def test_resume_is_bit_exact(name, tmp_path):
    expected = whole(name)
    for stop in (3, 5, 6, 10, STEPS):  # five sessions; what the later ones begin with is not to matter
        step, batches = papers.begin(name, stop if any(tmp_path.iterdir()) else None)
        found = {}
        records = train.loop(step, batches, STEPS, tmp_path, found, train.cosine, log_every=5)
        for record in records:
            if record.step == stop:
                next(records, None)  # the checkpoint of this step is written on the way to the next
                break
    assert state(step, found) == expected


@pytest.mark.parametrize("name", KINDS)
def test_a_finished_run_has_nothing_left_to_do(name, tmp_path):
    for seed in (None, 5):
        step, batches = papers.begin(name, seed)
        history = {}
        records = list(train.loop(step, batches, 4, tmp_path, history, log_every=3))
        found = state(step, history)
        if seed is None:
            expected = found
    assert records == [] and found == expected


def test_the_global_generators_have_no_say_in_training():
    name = papers.smallest()["vae"]
    expected = whole(name)
    step, batches = papers.begin(name)
    history = {}
    for record in train.loop(step, batches, STEPS, None, history, train.cosine, log_every=5):
        torch.manual_seed(record.step)
        torch.rand(3), np.random.rand()
    assert state(step, history) == expected


def test_the_linear_run_reaches_its_optimum_after_a_stop(tmp_path):
    name = papers.smallest()["linear"]
    dataset = data.load("mnist")
    mean, cov = linear.moments(dataset.train.images)
    bounds = []
    for stop in (3, 15):
        step, batches = papers.begin(name, stop)
        for record in train.loop(step, batches, 15, tmp_path):
            if record.step == stop:
                break
        bounds.append(linear.elbo(step.model, mean, cov).item())
    optimum = linear.ppca(mean, cov, step.model.latent_dim)[2].item()
    assert bounds[0] < bounds[1] <= optimum + 1e-6 and optimum - bounds[1] < 0.5 * (optimum - bounds[0])


def test_snapshots_go_on_where_they_were(tmp_path, monkeypatch):
    """Those before the stop are kept, those after it are the same."""
    plain = lambda images, *a, **k: np.asarray(images, np.float64)[:, 0, 9:12, 14]  # noqa: E731
    monkeypatch.setattr(evaluate.metrics, "features", plain)
    name = papers.smallest()["vae"]

    def taken_in(folder, stops):
        for stop in stops:
            step, batches = papers.begin(name, None if stop == stops[0] else stop)
            step.parts["snapshots"] = taken = evaluate.Snapshots(step.model, data.load("mnist"), STEPS, 5)
            records = train.loop(step, batches, STEPS, folder)
            for record in records:
                taken.look(record.step)
                if record.step == stop:
                    next(records, None)
                    break
        return taken

    once = taken_in(tmp_path / "a", [STEPS])
    assert once.steps == sorted(once.due) and len(once.steps) == 5
    parts = taken_in(tmp_path / "b", [2, 3, 7, STEPS])
    assert parts.steps == once.steps and parts.frechet == once.frechet
    assert all(torch.equal(a, b) for a, b in zip(parts.images, once.images, strict=True))
    assert not torch.equal(once.images[0], once.images[-1])


# kill -9


def doomed(*arguments):
    papers.trains_for_ever(pytest.MonkeyPatch(), *arguments)


@pytest.mark.parametrize("name", ["game-ring", "codes-mnist", papers.smallest()["vae"]])
def test_killed_again_and_again_it_loses_nothing(name, world, tmp_path, forks):
    rng, done = random.Random(name), 0
    for _ in range(5):
        started = forks.Event()
        child = forks.Process(target=doomed, args=(name, world, tmp_path, started))
        child.start()
        assert started.wait(120)
        time.sleep(rng.uniform(0, 0.15))
        child.kill()
        child.join()
        step, _ = papers.begin(name, 9)
        reached = checkpoint.resume(tmp_path, {**step.parts, "window": train.Window()}, {})
        assert reached >= done, "a kill never loses what an earlier checkpoint held"
        done = reached
    assert done > 0
    found = []
    for seed, folder in ((9, tmp_path), (None, None)):
        step, batches = papers.begin(name, seed)
        history = {}
        list(train.loop(step, batches, done + 5, folder, history, log_every=3))
        found.append(state(step, history))
    assert found[0] == found[1]
    checkpoint.remove(tmp_path)
    assert not tmp_path.exists()


def publishes(name, place, home, started, ended):
    """The child: publish a run of 60 steps, from the start or from where another one was killed."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    papers.world(patch, place)
    patch.setenv("GENCORE_HOME", str(home))
    patch.setitem(runs.STEPS, "smoke", 60)
    patch.setattr(catalogue, "needed", lambda conf: [])
    train.FIRST_CHECKPOINT = train.CHECKPOINT_SECONDS = -1
    begin = runs.begin

    def noted(*arguments):
        step = begin(*arguments)
        started.set()
        return step

    patch.setattr(runs, "begin", noted)
    runs.publish(name)
    ended.set()


def test_a_run_that_is_killed_until_it_is_published_is_the_run_that_was_not(tmp_path, forks):
    """Whenever the kill falls: in training, in the measurement, in the writing."""
    name, rng = "game-ring", random.Random(5)
    results = {}
    for place, killed in ((tmp_path / "once", False), (tmp_path / "killed", True)):
        for attempt in range(40):
            started, ended = forks.Event(), forks.Event()
            child = forks.Process(target=publishes, args=(name, place, place / "home", started, ended))
            child.start()
            assert started.wait(120)
            if killed and attempt < 4:
                time.sleep(rng.uniform(0, 0.3))
                child.kill()
            child.join(120)
            if ended.is_set():
                break
        tensors, meta = store.load(place / "smoke" / name)
        clocks = {"wall_s", "cpu_s", "evaluation_cpu_s", "description_sha256"}
        meta = {k: v for k, v in meta.items() if k not in clocks} | {"history": without_clocks(meta["history"])}
        results[killed] = meta, papers.digest(tensors)
        assert not list((place / "home" / "checkpoints").glob("*"))
        assert {p.name for p in (place / "smoke").iterdir()} == {f"{name}.json", f"{name}.safetensors"}
    assert results[True] == results[False]


def report(place, file):
    """The child: train each kind and write down what came out."""
    torch.set_num_threads(1)
    papers.world(pytest.MonkeyPatch(), place)
    file.write_text(" ".join(whole(name)[0] for name in KINDS))


def test_the_same_run_in_another_process_is_bit_equal(tmp_path, forks, world):
    child = forks.Process(target=report, args=(world, tmp_path / "out"))
    child.start()
    child.join(300)
    assert (tmp_path / "out").read_text().split() == [whole(name)[0] for name in KINDS]
