"""A run that was stopped, or killed, ends with the very bits of one that never was."""

import dataclasses
import hashlib
import random
import time

import numpy as np
import pytest
import torch

from gencore import data, evaluate, nets, runs, store, train, vae

PAPERS = ["vae", "sigma", "ae", "classifier", "linear", "encoder"]
STEPS = 24


def images():
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (96, 1, 8, 8), dtype=torch.uint8, generator=g)


def build(paper, seed=0):
    """(step, batches) of a small run of each paper, its weights drawn with this seed."""
    torch.manual_seed(100)
    of = vae.VAE(3, size=8, width=4)  # the frozen model that an encoder is for
    torch.manual_seed(seed)
    x, labels = images(), None
    if paper == "classifier":
        labels = x.flatten(1).float().mean(1).long() % 10
        step = nets.ClassifierStep(nets.Classifier(1, 8, width=2), 0.05, augmented=True, seed=seed)
    elif paper == "ae":
        step = vae.AutoencoderStep(vae.Autoencoder(3, size=8, width=4))
    elif paper == "encoder":
        step = vae.Step(vae.Recognition(of, size=8, width=4), seed=seed)
    elif paper == "linear":
        mean, cov = runs.moments(x)
        step = vae.LinearStep(vae.LinearVAE(64, 2).double(), mean, cov)
    else:
        options = {"likelihood": "gaussian", "sigma": "optimal"} if paper == "sigma" else {}
        step = vae.Step(vae.VAE(3, size=8, width=4, **options), seed=seed)
    return step, data.batches(x, 16, seed=7, labels=labels)


def digest(step):
    """sha256 of all that a later step depends on: weights, averages, noise."""
    content = hashlib.sha256()
    for name, part in sorted(step.parts.items()):
        if isinstance(part, torch.Generator):
            content.update(part.get_state().numpy().tobytes())
        elif isinstance(part, torch.optim.Optimizer):
            for parameter in part.param_groups[0]["params"]:
                for slot, value in sorted(part.state[parameter].items()):
                    content.update(value.contiguous().numpy().tobytes())
        else:
            for tensor in part.state_dict().values():
                content.update(tensor.contiguous().numpy().tobytes())
    return content.hexdigest()


def losses_of(history):
    return {key: values for key, values in history.items() if "seconds" not in key}


def whole(paper):
    """A run without interruption: (digest, history)."""
    step, batches = build(paper)
    history = {}
    list(train.loop(step, batches, STEPS, history=history, schedule=train.cosine, log_every=2))
    return digest(step), losses_of(history)


@pytest.fixture
def eager(monkeypatch):
    """A checkpoint at every window."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)


# L-BFGS keeps its curvature pairs in no tensor that could be saved: a linear run, which takes
# seconds, goes on from its weights and reaches the same optimum, by another path.
EXACT = [paper for paper in PAPERS if paper != "linear"]


@pytest.mark.parametrize("paper", EXACT)
def test_resume_is_bit_exact(paper, tmp_path, eager):
    expected, history = whole(paper)
    found = {}
    for stop in (3, 10, 11, 17, STEPS):  # five sessions; what the later ones draw is not to matter
        step, batches = build(paper, seed=stop if any(tmp_path.iterdir()) else 0)
        found = {}
        records = train.loop(step, batches, STEPS, tmp_path, found, train.cosine, log_every=2)
        for record in records:
            if record.step == stop:
                next(records, None)  # the checkpoint of this step is written on the way to the next
                break
    assert digest(step) == expected
    assert losses_of(found) == history


@pytest.mark.parametrize("paper", EXACT)
def test_two_runs_with_one_seed_are_equal_and_with_another_are_not(paper):
    assert whole(paper) == whole(paper)
    step, batches = build(paper, seed=1)
    list(train.loop(step, batches, STEPS, schedule=train.cosine))
    assert digest(step) != whole(paper)[0]


def test_the_global_generator_has_no_say_in_training():
    expected, history = whole("vae")
    step, batches = build("vae")
    for record in train.loop(step, batches, STEPS, schedule=train.cosine):
        torch.manual_seed(record.step)
        torch.rand(3), np.random.rand()
    assert digest(step) == expected


def test_the_linear_run_reaches_its_optimum_after_a_stop(tmp_path, eager):
    mean, cov = runs.moments(images())
    optimum = vae.ppca(mean, cov, 2)[2].item()
    for stop in (3, STEPS):
        step, batches = build("linear", seed=stop)
        for record in train.loop(step, batches, STEPS, tmp_path, log_every=1):
            if record.step == stop:
                break
        if stop == 3:
            first = vae.linear_elbo(step.model, mean, cov).item()
    bound = vae.linear_elbo(step.model, mean, cov).item()
    assert first < bound and optimum - 0.01 < bound <= optimum + 1e-9


def test_the_film_goes_on_where_it_was(tmp_path, eager, monkeypatch):
    """Samples along the way: the frames before the stop are kept, those after it are the same."""
    monkeypatch.setattr(
        evaluate.metrics, "features", lambda x, name: np.asarray(x)[:, 0].reshape(len(x), -1)[:, :3]
    )
    split = data.Split(images(), torch.zeros(96).long())
    dataset = data.Dataset("none", split, split)

    def film(folder, stops):
        for stop in stops:
            step, batches = build("vae", seed=0 if stop == stops[0] else stop)
            step.parts["film"] = taken = evaluate.Film(step.model, dataset, STEPS, frames=6)
            records = train.loop(step, batches, STEPS, folder, log_every=2)
            for record in records:
                taken.look(record.step)
                if record.step == stop:
                    next(records, None)
                    break
        return taken

    once = film(tmp_path / "a", [STEPS])
    assert once.steps == sorted(once.due) and len(once.steps) >= 5
    parts = film(tmp_path / "b", [5, 6, 14, STEPS])
    assert parts.steps == once.steps and parts.frechet == once.frechet
    assert all(torch.equal(a, b) for a, b in zip(parts.images, once.images, strict=True))
    assert not torch.equal(once.images[0], once.images[-1])


# kill -9


def work(paper, folder, started):
    """The child: train with a checkpoint at every step."""
    torch.set_num_threads(1)
    train.CHECKPOINT_SECONDS = -1
    step, batches = build(paper)
    for _ in train.loop(step, batches, 10**6 if started else STEPS, folder, log_every=1):
        if started:
            started.set()


@pytest.mark.parametrize("paper", EXACT)
def test_kill_at_any_time_leaves_a_checkpoint_and_the_run_goes_on_bit_by_bit(
    paper, tmp_path, forks
):
    rng = random.Random(paper)
    done = 0
    for _ in range(5):
        started = forks.Event()
        child = forks.Process(target=work, args=(paper, tmp_path, started))
        child.start()
        assert started.wait(60)
        time.sleep(rng.uniform(0, 0.15))
        child.kill()
        child.join()
        step, _ = build(paper, seed=9)
        reached = train.resume(tmp_path, step.parts, {})
        assert reached >= done, "a kill never loses what an earlier checkpoint held"
        done = reached
    assert done > 0
    step, batches = build(paper, seed=9)
    history = {}
    list(train.loop(step, batches, done + 5, tmp_path, history, log_every=1))
    reference, batches = build(paper)
    expected = {}
    list(train.loop(reference, batches, done + 5, history=expected, log_every=1))
    assert digest(step) == digest(reference)
    assert losses_of(history) == losses_of(expected)
    train.remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


# a whole published run


def artefact(folder, name):
    tensors, meta = store.load(folder / name)
    volatile = {"wall_s", "cpu_s", "evaluation_cpu_s", "hardware"}
    return {k: v for k, v in meta.items() if k not in volatile} | {
        "history": losses_of(meta["history"])
    }


def test_a_published_run_that_was_killed_is_the_run_that_was_not(
    smoke, monkeypatch, eager, tmp_path
):
    """Stopped dead in step 56 of 60, then started again: the same artefact, nothing left over."""
    monkeypatch.setitem(runs.STEPS, "smoke", 60)
    wide = runs.config("vae-mnist-d4")
    narrow = dataclasses.replace(wide, batch=16, model=wide.model | {"width": 4})
    monkeypatch.setattr(runs, "catalogue", lambda: {wide.name: narrow})
    monkeypatch.setattr(runs.evaluate, "evaluate", lambda *a: {"elbo": 1.0})
    monkeypatch.setattr(
        runs, "state", lambda name: "ready"
    )  # of the classifier, which is not asked
    runs.publish("vae-mnist-d4")
    expected = artefact(smoke, "vae-mnist-d4")
    monkeypatch.setenv("GENCORE_HOME", str(tmp_path / "other"))
    make_step, calls, dies_at = runs.make_step, [], 56

    def counted(*arguments):
        step = make_step(*arguments)

        class Counted:
            parts = step.parts

            def __call__(self, batch):
                calls.append(1)
                if len(calls) == dies_at:
                    raise SystemExit("the power is off")
                return step(batch)

        return Counted()

    monkeypatch.setattr(runs, "make_step", counted)
    (smoke / "vae-mnist-d4.json").unlink()
    with pytest.raises(SystemExit):
        runs.publish("vae-mnist-d4")
    assert not (smoke / "vae-mnist-d4.json").exists()
    left = list((tmp_path / "other" / "checkpoints").rglob("step-00000050.json"))
    assert len(left) == 1
    calls.clear()
    runs.publish("vae-mnist-d4")
    assert len(calls) == 10, "it goes on from step 50"
    assert artefact(smoke, "vae-mnist-d4") == expected
    assert not left[0].parent.exists()


def report(file):
    """The child: train each paper and write down what came out."""
    torch.set_num_threads(1)
    file.write_text(" ".join(whole(paper)[0] for paper in EXACT))


def test_the_same_run_in_another_process_is_bit_equal(tmp_path, forks):
    child = forks.Process(target=report, args=(tmp_path / "out",))
    child.start()
    child.join(300)
    assert (tmp_path / "out").read_text().split() == [whole(paper)[0] for paper in EXACT]
