"""The contract that every paper of the catalogue keeps, and any new one: `papers.NEW` has three.

Build, step, be killed, go on bit by bit, draw twice, infer, be measured, be published and loaded
back: a paper is covered by its row in the catalogue, without a line here.
"""

import json
import math
import random
import re
import shutil
import time

import papers
import pytest
import torch
from papers import CASES, NEW

from gencore import (
    catalogue,
    checkpoint,
    data,
    evaluate,
    explore,
    metrics,
    rulers,
    runs,
    show,
    store,
    train,
)
from gencore.__main__ import main

N = papers.IMAGES[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder in which each of them is published, with what it needs."""
    folder = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        papers.world(patch, folder)
        for name in CASES:
            if runs.state(name) != "ready":
                runs.publish(name)
    return folder


@pytest.fixture
def world(place, monkeypatch):
    """The small catalogue, and that folder."""
    papers.world(monkeypatch, place)
    return place


@pytest.fixture
def own(world, tmp_path, monkeypatch):
    """The small catalogue, and a copy of that folder."""
    shutil.copytree(world / "smoke", tmp_path / "own" / "smoke")
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "own"))
    monkeypatch.setenv("GENCORE_HOME", str(tmp_path / "home"))
    return tmp_path / "own" / "smoke"


@pytest.fixture(params=CASES)
def name(request):
    return request.param


def draws(name):
    return hasattr(catalogue.config(name).paper.Model, "decode")


def densities(run):
    return list(run.model.priors) if draws(run.name) else []


def numbers(values):
    """All numbers among metrics."""
    return [v for value in values.values() for v in (value if isinstance(value, list) else [value])]


def test_every_paper_of_the_catalogue_is_a_case():
    found = {conf.paper for conf in catalogue.runs().values()}
    assert {catalogue.config(name).paper for name in CASES if name not in NEW} == found


# steps


def test_a_step_reports_its_terms_in_their_order(name, world):
    paper = catalogue.config(name).paper
    step, batches = papers.begin(name)
    assert isinstance(step.model, paper.Model) and isinstance(step, paper.Step)
    history, seen, order = {}, set(), list(paper.TERMS)
    for record in train.loop(step, batches, 9, history=history, log_every=3):
        terms = list(record.losses)
        assert terms == [key for key in order if key in terms], "in the order of TERMS, and no others"
        assert all(type(v) in (int, float) and math.isfinite(v) for v in record.losses.values())
        seen |= set(terms)
    assert seen == set(order)
    assert all(text.strip() for text in paper.TERMS.values())
    assert set(history) == {"step", "seconds", "cpu_seconds", *order}


def test_training_has_a_seed_of_its_own(name, world):
    """Twice the same, whatever the global generator does; with another seed something else."""
    found = []
    for noise, seed in ((1, None), (2, None), (3, 5)):
        torch.manual_seed(noise)
        step, batches = papers.begin(name, seed)
        before = torch.random.get_rng_state()
        terms = [record.losses for record in train.loop(step, batches, 3)]
        assert torch.equal(torch.random.get_rng_state(), before), "no draw from the global generator"
        found.append((terms, papers.digest(step.parts)))
    assert found[0] == found[1]
    random_start = any(p.requires_grad for p in step.model.parameters())
    assert (found[0] != found[2]) or not random_start


def test_killed_at_any_time_it_goes_on_bit_by_bit(name, world, tmp_path, forks):
    """kill -9, twice, at random moments; then on with other networks, which must not matter."""
    rng, done = random.Random(name), 0
    for _ in range(2):
        started = forks.Event()
        child = forks.Process(target=doomed, args=(name, world, tmp_path, started))
        child.start()
        assert started.wait(120)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        step, _ = papers.begin(name, seed=9)
        reached = checkpoint.resume(tmp_path, {**step.parts, "window": train.Window()}, {})
        assert reached > done or reached == done > 0, "a kill loses nothing that was saved"
        done = reached
    found = []
    for seed, folder in ((9, tmp_path), (None, None)):
        step, batches = papers.begin(name, seed)
        history = {}
        tail = [r.losses for r in train.loop(step, batches, done + 4, folder, history, log_every=3)]
        history = {key: value for key, value in history.items() if "seconds" not in key}
        found.append((tail[-4:], history, papers.digest(step.parts), papers.digest(step.model)))
    assert found[0] == found[1]


def doomed(*arguments):
    papers.trains_for_ever(pytest.MonkeyPatch(), *arguments)


# what is published


def test_a_run_that_was_stopped_is_the_run_that_was_not(name, own, monkeypatch):
    """Stopped behind step 5, whose snapshot is not in the last checkpoint: the same all the same."""
    expected = artefact(own, name)
    for file in own.glob(f"{name}.*"):
        file.unlink()
    monkeypatch.setattr(train, "FIRST_CHECKPOINT", -1)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    loop = train.loop

    def stopped(*arguments, **more):
        for record in loop(*arguments, **more):
            yield record
            if record.step == 5:
                raise KeyboardInterrupt

    torch.manual_seed(77)
    monkeypatch.setattr(train, "loop", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.publish(name)
    assert runs.state(name) == "missing"
    counted = []
    monkeypatch.setattr(train, "loop", lambda *a, **k: (counted.append(r) or r for r in loop(*a, **k)))
    runs.publish(name)
    assert [record.step for record in counted] == list(range(5, 1 + runs.describe(name)["steps"]))
    found = artefact(own, name)
    assert found[1] == expected[1]
    assert papers.digest(found[0]) == papers.digest(expected[0])
    assert not list((store.cache_dir() / "checkpoints").glob("*"))


def artefact(folder, name):
    """Tensors and description without what a clock has measured."""
    tensors, meta = store.load(folder / name)
    clocks = {"wall_s", "cpu_s", "evaluation_cpu_s", "description_sha256"}
    meta = {key: value for key, value in meta.items() if key not in clocks}
    meta["history"] = {k: v for k, v in meta["history"].items() if "seconds" not in k}
    return tensors, meta


def test_what_is_loaded_is_what_was_measured(name, world):
    run = runs.get(name)
    assert runs.state(name) == "ready" and not run.model.training
    conf = catalogue.config(name)
    again = evaluate.rounded(conf.paper.measure(run.model, run.data, N))
    assert again == run.metrics
    assert json.loads(json.dumps(run.metrics, allow_nan=False)) == run.metrics
    assert numbers(run.metrics) and all(type(v) in (int, float) for v in numbers(run.metrics))
    weights = [v for k, v in store.load(world / "smoke" / name)[0].items() if not k.startswith("snapshots")]
    expected = {torch.float16} if conf.half else {torch.float32}
    assert {v.dtype for v in weights if v.is_floating_point()} <= expected
    assert all(p.dtype == torch.float32 for p in run.model.parameters())


def test_what_is_drawn_is_what_was_measured(name, world):
    run = runs.get(name)
    measured = {key for key in run.metrics if re.fullmatch("frechet_(?!.*(floor|rec)$).*", key)}
    if not measured:
        return  # its measure draws nothing
    networks = dict(zip(rulers.networks(run.data.ruler) or ["classifier"], ["", "ssl_"], strict=False))
    assert measured == {f"frechet_{end}{prior}" for end in networks.values() for prior in densities(run)}
    test = run.data.test.images[:N]
    for network, end in networks.items():
        target = metrics.features(test, run.data.ruler, network=network)
        for prior in densities(run):
            drawn = metrics.features(run.sample(N, prior=prior), run.data.ruler, network=network)
            frechet, kid = metrics.frechet(drawn, target), metrics.kid(drawn, target, size=N)[0]
            assert frechet == pytest.approx(run.metrics[f"frechet_{end}{prior}"], rel=1e-5)
            assert kid == pytest.approx(run.metrics[f"kid_{end}{prior}"], rel=1e-4, abs=1e-6)
    target, last = metrics.features(test, run.data.ruler), densities(run)[-1]
    own, other = (metrics.features(run.sample(N, prior=p), run.data.ruler) for p in (None, last))
    found = metrics.prdc(target, own)
    assert found == pytest.approx({key: run.metrics[key] for key in found})
    if last != densities(run)[0]:
        found = metrics.prdc(target, other)
        assert [run.metrics[f"{k}_{last}"] for k in ("precision", "recall")] == pytest.approx(
            [found["precision"], found["recall"]])  # fmt: skip


def test_it_draws_the_same_with_one_seed_and_something_else_with_another(name, world):
    run = runs.get(name)
    if not draws(name):
        with pytest.raises(ValueError, match=f"^{name} is a .*: it does not generate images.$"):
            run.sample(2)
        return
    assert densities(run)
    for prior in (None, *densities(run)):
        torch.manual_seed(random.randrange(10**6))
        images = run.sample(7, prior=prior)
        assert images.shape == (7, *run.data.shape) and images.dtype == torch.float32
        assert not images.requires_grad and torch.isfinite(images).all()
        assert images.ndim == 2 or 0 <= images.min() <= images.max() <= 1
        assert torch.equal(run.sample(7, prior=prior), images)
        assert not torch.equal(run.sample(7, seed=1, prior=prior), images)
    assert torch.equal(run.sample(7), run.sample(7, prior=densities(run)[0])), "the first is its own"


def test_codes_have_the_shape_of_its_densities(name, world):
    run = runs.get(name)
    if not draws(name):
        return
    dim = next(iter(run.model.priors.values())).dim
    for density in run.model.priors.values():
        z = density.sample(5, torch.Generator().manual_seed(0))
        assert z.shape == (5, density.dim) == (5, dim)
        assert run.model.decode(z).shape == (5, *run.data.shape)
    if not hasattr(run.model, "infer"):
        return
    x = data.to_unit(run.data.test.images[:5])
    with torch.no_grad():
        z = run.model.infer(x)
        one, two, other = (run.model.infer(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
        assert z.shape == one.shape == (5, dim) and torch.equal(run.model.infer(x), z)
        assert torch.equal(one, two)
        assert torch.equal(one, other) == torch.equal(one, z), "either all draws are one, or none"
        assert run.model.decode(z).shape == x.shape


def test_its_snapshots_are_at_the_due_steps_and_can_be_scrubbed(name, world):
    run = runs.get(name)
    if not draws(name):
        assert run.snapshots == {}
        return
    steps = run.meta["steps"]
    due = sorted({round(steps ** (k / 3)) for k in range(4)})
    assert run.snapshots["steps"].tolist() == due
    images = run.snapshots["images"]
    assert len(images) == len(due) and images.shape[2:] == run.data.shape
    assert images.dtype == (torch.uint8 if images.ndim == 5 else torch.float32)
    z = next(iter(run.model.priors.values()))
    page = explore.training(run).page()
    first = next(iter(catalogue.config(name).paper.TERMS.values())).rpartition(", ")[0]
    assert first in page and name in page and z is not None


def test_it_is_on_the_results_page(name, world):
    import results

    page = results.page()
    assert f"(run-{name})=" in page
    run = runs.get(name)
    key, value = next((k, v) for k, v in run.metrics.items() if isinstance(v, float))
    own = page.split(f"(run-{name})=")[1].split("\n(run-")[0]
    assert results.label(key) in own and results.shown(value) in own


def test_loading_leaves_the_random_state_alone(name, world):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    runs.get(name)
    assert torch.equal(torch.rand(3), expected)


# three papers of the tests' own


def test_a_new_paper_needs_its_module_and_its_row_alone(own, tmp_path, capsys):
    """A Gaussian in pixels: from the command line to a grid of samples."""
    name = "pixels-mnist"
    for file in own.glob(f"{name}.*"):
        file.unlink()
    assert main(["train", name]) == 0
    assert runs.state(name) == "ready"
    out = tmp_path / "grid.png"
    assert main(["sample", name, "-n", "4", "-o", str(out)]) == 0 and out.stat().st_size > 500
    assert "density prior" in capsys.readouterr().out
    main(["runs"])
    assert re.search(rf"^{name} +ready +smoke$", capsys.readouterr().out, re.M)
    run = runs.get(name)
    assert show.grid(run.sample(4)).alt
    assert runs.summary(name, "frechet_prior") == (run.metrics["frechet_prior"], None, 1)
    flat = data.to_unit(run.data.train.images).flatten(1)
    drawn = run.sample(2000).flatten(1)
    assert (drawn.mean(0) - flat.mean(0)).abs().mean() < 0.03
    assert run.metrics["frechet_prior"] < runs.metrics(papers.smallest()["vae"])["frechet_prior"]


def test_a_game_publishes_the_average(world):
    step, batches = papers.begin("game-ring")
    history = {}
    list(train.loop(step, batches, papers.STEPS, history=history, schedule=train.cosine))
    run = runs.get("game-ring")
    for key, value in step.average.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[key], value)
    last = step.trained.state_dict()
    assert not all(torch.equal(run.model.state_dict()[key], value) for key, value in last.items())
    assert run.history["r1"] == history["r1"] and len(run.history["step"]) == 1
    assert {"modes", "good", "modes_kl", "frechet_prior"} <= set(run.metrics)
    assert run.meta["ruler"] == "points" and not hasattr(run.model, "infer")


def test_a_penalty_now_and_then_is_averaged_over_the_steps_that_have_it(world):
    step, batches = papers.begin("game-ring")
    history = {}
    records = list(train.loop(step, batches, 12, history=history, log_every=3))
    reported = [r.step for r in records if "r1" in r.losses]
    assert reported == [1, 5, 9]
    values = [r.losses["r1"] for r in records if "r1" in r.losses]
    assert history["r1"] == [*(pytest.approx(v, rel=1e-5) for v in values), None]


def test_learned_codes_stay_at_home(world):
    """The generator and the density are published; the rows that no batch had have never moved."""
    step, batches = papers.begin("codes-mnist")
    start = step.codes.weight.clone()
    seen = set()
    for _ in range(3):
        batch = next(batches)
        seen |= set(batch.rows.tolist())
        step(batch)
    moved = (step.codes.weight != start).any(1).nonzero().flatten().tolist()
    assert set(moved) == seen and len(seen) == 48 < len(start)
    step, batches = papers.begin("codes-mnist")
    list(train.loop(step, batches, papers.STEPS, schedule=train.cosine))
    runs._finish(step, half=True)
    run = runs.get("codes-mnist")
    kept = store.load(world / "smoke" / "codes-mnist")[0]
    keys = {key for key in kept if not key.startswith("snapshots.")}
    assert keys == set(run.model.state_dict()) and not any("codes" in key for key in keys)
    for key, value in step.model.state_dict().items():
        assert torch.equal(run.model.state_dict()[key], value), key
    z = step.codes.weight
    assert torch.allclose(run.model.priors["gaussian"].mean, z.mean(0), atol=2e-3)
    chol = run.model.priors["gaussian"].chol
    assert torch.allclose(chol @ chol.T, z.T.cov(correction=0), rtol=0.01, atol=2e-3)


# what is wrong with a paper is one sentence


class NoNumber(papers.pixels.Step):
    def __call__(self, batch):
        return {"distance": torch.zeros(())}


class Bright(papers.pixels.Model):
    def decode(self, z):
        return super().decode(z) + 0.5


class WrongPrior(papers.pixels.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.priors["prior"] = papers.pixels.latents.Normal(3)


class WrongShape(papers.pixels.Model):
    def decode(self, z):
        return super().decode(z)[..., :-1]


@pytest.mark.parametrize(
    ("part", "wrong", "sentence"),
    [("Step", NoNumber, r"A step should return {term: number}.*NoNumber returned a dict {'distance': 'Tensor'}"),
     ("Model", Bright, r"Bright decodes images from 0.5 to .*should lie in \[0, 1\]"),
     ("Model", WrongPrior, r"The density 'prior' draws codes of 3 numbers, which the model's decode does not take"),
     ("Model", WrongShape, r"The model decodes \(1, 28, 27\), but mnist has images of \(1, 28, 28\)")],
)  # fmt: skip
def test_what_is_wrong_with_a_paper_is_one_sentence(part, wrong, sentence, own, monkeypatch, capsys):
    """Also on the command line, and before a minute of training was spent, where that can be."""
    monkeypatch.setattr(papers.pixels, part, wrong)
    assert main(["train", "pixels-mnist", "--again"]) == 1
    error = capsys.readouterr().err
    assert re.match(f"gencore: .*{sentence}", error) and error.count("\n") == 1
