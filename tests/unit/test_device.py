"""Nothing is pinned to the CPU: every paper trains, is measured and drawn from on another device.

The device of most tests is a pretence (`elsewhere`), the same on every machine. The last tests ask
the same of a real accelerator, where there is one.
"""

import copy
import dataclasses
import functools
import inspect
import math
import threading

import numpy as np
import pytest
import torch
from small_networks import SMALL
from threadpoolctl import threadpool_limits

from gencore import (
    bench,
    catalogue,
    check,
    checkpoint,
    controls,
    data,
    embed,
    evaluate,
    explore,
    latents,
    metrics,
    nets,
    runs,
    show,
    train,
    vae,
)

REASON = "this torch lets no device be written in Python"
elsewhere = pytest.importorskip("elsewhere", reason=REASON, exc_type=ImportError)
STEPS = 2


def narrow(conf):
    """A configuration with the narrowest networks, whose weights keep their bits."""
    small = {"width": 4, "latent_dim": 10}
    model = {key: min(value, small.get(key, value)) if key in small else value for key, value in conf.model.items()}
    taken = inspect.signature(conf.paper.Model).parameters
    model |= {key: SMALL[key] for key in SMALL if key in taken}
    return dataclasses.replace(conf, model=model, batch=16, half=False, snapshots=min(2, conf.snapshots))


def _kinds():
    """The runs that differ in more than sizes, data and seed: {what they are: name}."""
    kinds = {}
    for name, conf in catalogue.runs().items():
        options = {key: value for key, value in conf.model.items() if isinstance(value, (str, float))}
        what = catalogue.short_name(conf.paper), str(options), str(conf.objective)
        kinds.setdefault(what, name)
    return list(kinds.values())


def _papers():
    """{paper: its first run that keeps its weights}."""
    kept = [(name, conf) for name, conf in catalogue.runs().items() if not runs.numbers_only(name)]
    return {catalogue.short_name(conf.paper): name for name, conf in reversed(kept)}


KINDS, PAPERS = _kinds(), _papers()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of artefacts under the profile smoke, with what other runs need, made on the CPU."""
    place = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        _small_world(patch, place)
        for name in {n for k in KINDS for n in catalogue.needed(catalogue.config(k))}:
            if runs.state(name) != "ready":
                runs.publish(name)
    with threadpool_limits(1):  # small matrices: more threads only wait for each other
        yield place


def _small_world(patch, place):
    patch.setenv("GENCORE_PROFILE", "smoke")
    patch.setenv("GENCORE_RUNS", str(place))
    patch.setenv("GENCORE_HOME", str(place / "home"))
    patch.setenv("GENCORE_PRECISION", "float32")
    patch.setenv("GENCORE_DEVICE", "cpu")
    patch.delenv("GENCORE_DATA", raising=False)
    for name, conf in catalogue.runs().items():
        patch.setitem(catalogue.runs(), name, narrow(conf))
    whole = data.load

    def load(name):
        few = whole(name)
        train, test = (data.Split(s.images[:n], s.labels[:n]) for s, n in ((few.train, 400), (few.test, 100)))
        return dataclasses.replace(few, train=train, test=test)

    patch.setattr(data, "load", load)
    patch.setitem(runs.STEPS, "smoke", 2)
    patch.setattr(metrics, "kid", functools.partial(metrics.kid, subsets=3))


@pytest.fixture
def small(folder, monkeypatch):
    """The catalogue with narrow networks, and that folder."""
    _small_world(monkeypatch, folder)
    return folder


@pytest.fixture
def far(small, monkeypatch):
    """The device elsewhere, chosen by GENCORE_DEVICE."""
    with elsewhere.device() as device:
        monkeypatch.setenv("GENCORE_DEVICE", elsewhere.NAME)
        yield torch.device(device)


def steps(name, device, count, folder=None):
    """The step of a run, and the terms of its first steps."""
    conf = catalogue.config(name)
    dataset = data.load(conf.data)
    step = runs.begin(conf, dataset)
    batches = data.batches(dataset.train, conf.batch, conf.seed, device=train.device())
    terms = [record.losses for record in train.loop(step, batches, count, folder)]
    for tensor in next(batches):
        assert tensor.device == device
    return step, terms


def lies(module, device):
    return {tensor.device for tensor in (*module.parameters(), *module.buffers())} <= {torch.device(device)}


# the pretence


def test_the_pretence_refuses_what_a_real_device_refuses(far):
    """Else the tests of this file could not fail."""
    x, cpu = torch.ones(3, 2, device=far), torch.ones(3, 2)
    here, there = torch.Generator(), torch.Generator(far)
    net, far_net = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).to(far)
    refused = [
        lambda: x + cpu, lambda: cpu + x, lambda: cpu.add_(x[0, 0]), lambda: x @ cpu.T, lambda: net(x),
        lambda: far_net(cpu), lambda: torch.cat([x, cpu]), lambda: torch.stack([x[0, 0], cpu[0, 0]]),
        lambda: cpu[x[:, 0] > 0], lambda: torch.where(x > 0, x, cpu), lambda: x.lerp_(cpu, 0.5),
        lambda: torch.nn.functional.conv2d(x[None, None], cpu[None, None]),
        lambda: torch.nn.functional.cross_entropy(x, torch.zeros(3, dtype=torch.long)),
        lambda: torch.randn(2, device=far, generator=here), lambda: x.normal_(generator=here),
        lambda: torch.randn(2, generator=there), lambda: cpu.normal_(generator=there),
        lambda: torch.randperm(5, generator=there), lambda: torch.multinomial(x[0], 1, generator=here),
    ]  # fmt: skip
    for use in refused:
        with pytest.raises(RuntimeError, match="same device|for generator"):
            use()
    for use in (x.numpy, lambda: np.asarray(x), lambda: np.array([1.0]) + x[0].numpy()):
        with pytest.raises(TypeError, match="numpy"):
            use()
    with pytest.raises(RuntimeError, match="state"):
        here.set_state(there.get_state())


def test_the_pretence_takes_what_a_real_device_takes(far):
    x = torch.arange(6.0, device=far).view(3, 2)
    assert x.device == far != torch.device(elsewhere.NAME)  # a device without a number is another
    assert (x + torch.tensor(1.0)).device == far and x[torch.tensor([0, 2])].tolist() == [[0, 1], [4, 5]]
    assert x.sum().item() == 15 and x.cpu().numpy().sum() == 15 and x.new_zeros(2).device == far
    assert type(x.cpu()) is torch.Tensor and torch.zeros(2).copy_(x[0]).tolist() == [0, 1]
    view = x[1:]
    view += 1
    assert x.tolist() == [[0, 1], [3, 4], [5, 6]]
    one, two = (torch.Generator(d).manual_seed(3) for d in ("cpu", far))
    assert torch.randn(9, generator=one).tolist() != torch.randn(9, device=far, generator=two).tolist()
    state, drawn = two.get_state(), torch.rand(3, device=far, generator=two).tolist()
    two.set_state(state)
    assert torch.rand(3, device=far, generator=two).tolist() == drawn


def test_the_pretence_computes_as_the_cpu_does(far):
    torch.manual_seed(0)
    near = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    ).to(memory_format=torch.channels_last)
    away, x = copy.deepcopy(near).to(far), torch.randn(8, 1, 8, 8)
    assert isinstance(away[0].weight, torch.nn.Parameter) and away[0].weight.stride() == near[0].weight.stride()
    for make in (lambda p: torch.optim.Adam(p, 0.01, fused=True), lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)):
        for net, images in ((near, x), (away, x.to(far))):
            optimiser = make(net.parameters())
            for _ in range(3):
                train.update(optimiser, net(images).square().mean())
        twin = copy.deepcopy(away)
        assert lies(twin, far) and all(p.requires_grad for p in twin.parameters())
        for key, value in near.state_dict().items():
            assert torch.equal(value, twin.state_dict()[key].cpu())
    away.cpu()
    assert all(torch.equal(a, b) for a, b in zip(near.parameters(), away.parameters(), strict=True))


def test_every_paper_is_tried():
    assert set(PAPERS) == {catalogue.short_name(conf.paper) for conf in catalogue.runs().values()}
    assert {catalogue.short_name(catalogue.config(name).paper) for name in KINDS} == set(PAPERS)


# training


@pytest.mark.parametrize("name", KINDS)
def test_a_paper_trains_there_as_it_does_here(name, small, monkeypatch):
    """The same terms, since the numbers are computed alike; all that has state lies on the device."""
    _, here = steps(name, torch.device("cpu"), STEPS)
    with elsewhere.device(own_numbers=False) as device:
        monkeypatch.setenv("GENCORE_DEVICE", elsewhere.NAME)
        step, there = steps(name, torch.device(device), STEPS)
        assert lies(step.model, device)
        tensors, _ = checkpoint.capture({k: p for k, p in step.parts.items() if not isinstance(p, torch.Generator)})
        assert {tensor.device.type for tensor in tensors.values() if tensor.ndim} == {elsewhere.NAME}
    for one, two in zip(here, there, strict=True):
        assert one.keys() == two.keys()
        assert all(math.isclose(one[key], two[key], rel_tol=1e-5, abs_tol=1e-5) for key in one)


@pytest.mark.parametrize("name", PAPERS.values())
def test_a_checkpoint_is_gone_on_with(name, far, tmp_path):
    whole, terms = steps(name, far, 3)
    steps(name, far, 1, tmp_path)
    step, rest = steps(name, far, 3, tmp_path)
    assert rest == terms[1:] and lies(step.model, far)
    for one, two in zip(whole.model.parameters(), step.model.parameters(), strict=True):
        assert torch.equal(one.cpu(), two.cpu())


@pytest.mark.parametrize("name", PAPERS.values())
def test_a_checkpoint_of_another_device_is_gone_on_with(name, small, monkeypatch, tmp_path, capsys):
    """Its weights and averages are taken; only noise cannot be gone on with, and a line says so."""
    with elsewhere.device() as device:
        for done, (kind, where) in enumerate(((elsewhere.NAME, device), ("cpu", "cpu"), (elsewhere.NAME, device))):
            monkeypatch.setenv("GENCORE_DEVICE", kind)
            step, terms = steps(name, torch.device(where), done + 1, tmp_path)
            assert len(terms) == 1 and lies(step.model, where)
            draws = any(isinstance(part, torch.Generator) for part in step.parts.values())
            assert ("noise begins anew" in capsys.readouterr().out) == (draws and done > 0)


def test_an_average_of_weights_lies_where_they_do(far):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).to(far)
    average = train.EMA(net, decay=0.5)
    before = average.model[0].weight.tolist()
    with torch.no_grad():
        net[0].weight.add_(1)
    average.update(net)
    assert lies(average, far) and np.allclose(average.model[0].weight.tolist(), np.array(before) + 0.5)
    twin = train.EMA(net, decay=0.5)
    parts = {"average": average}
    checkpoint.restore({"average": twin}, *checkpoint.capture(parts))
    assert lies(twin, far) and torch.equal(twin.model[0].weight.cpu(), average.model[0].weight.cpu())


# runs


@pytest.mark.parametrize("name", PAPERS.values())
def test_a_run_is_trained_and_measured_there_and_drawn_from_anywhere(name, far, monkeypatch):
    """From the first step to the artefact; of one seed both devices make the same pictures."""
    seen = _watch_measure(monkeypatch, catalogue.config(name).paper)
    elsewhere.unseeded.clear()
    run = runs.publish(name)
    assert not elsewhere.unseeded  # all noise comes from seeds
    assert seen == {elsewhere.NAME} and run.meta["device"] == elsewhere.NAME
    assert lies(run.model, "cpu") and runs.state(name) == "ready"
    values = [v for value in run.metrics.values() for v in (value if isinstance(value, list) else [value])]
    assert all(isinstance(v, (int, float)) and math.isfinite(v) for v in values)
    loaded = runs.get(name)
    assert lies(loaded.model, "cpu") and (len(loaded.snapshots) > 0) == (loaded.config.snapshots > 0)
    if not hasattr(loaded.model, "priors"):
        return
    for prior in loaded.model.priors:
        here = loaded.sample(5, seed=3, prior=prior)
        loaded.model.to(far)
        there = loaded.sample(5, seed=3, prior=prior)
        loaded.model.cpu()
        assert type(there) is torch.Tensor and torch.allclose(here, there, atol=1e-6)


def _watch_measure(monkeypatch, paper):
    """The kinds of devices on which a paper's models lie when they are measured."""
    seen, original = set(), paper.measure

    def measure(model, dataset, n):
        seen.add(nets.device_of(model).type)
        return original(model, dataset, n)

    monkeypatch.setattr(paper, "measure", measure)
    return seen


@pytest.mark.parametrize("name", [n for n in PAPERS.values() if "linear" not in n])
def test_a_device_that_lacks_what_mps_lacks_will_do(name, small, monkeypatch):
    """What is averaged in float64 is averaged on the CPU; the classifier's pooling is no adaptive one."""
    with elsewhere.device(like_mps=True) as device:
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, device=device).double()
        with pytest.raises(RuntimeError, match="divisible"):
            torch.nn.functional.adaptive_avg_pool2d(torch.ones(1, 1, 7, 7, device=device), 2)
        monkeypatch.setenv("GENCORE_DEVICE", elsewhere.NAME)
        run = runs.fresh(catalogue.config(name))
    assert run.meta["device"] == elsewhere.NAME and run.metrics


def test_features_are_arrays_from_any_device(small, monkeypatch):
    images = data.load("mnist").test.images[:20]

    def all_of_them(x):
        second = metrics.features(x, "mnist", network="contrast")
        return metrics.features(x, "mnist"), second, metrics.classify(x, "mnist")

    here = all_of_them(images)
    with elsewhere.device() as far:
        monkeypatch.setenv("GENCORE_DEVICE", elsewhere.NAME)
        there, moved = all_of_them(images), all_of_them(images.to(far))
    for one, two, three in zip(here, there, moved, strict=True):
        assert type(two) is np.ndarray and np.allclose(one, two) and np.allclose(one, three)


# what is done with a model


@pytest.fixture
def model(far):
    """A VAE with a two-dimensional latent, elsewhere."""
    torch.manual_seed(0)
    return vae.Model(2, **SMALL).to(far).eval()


def test_codes_and_images_come_back_to_the_cpu(far, model):
    images, twin = data.load("mnist").test.images[:8], copy.deepcopy(model).cpu()
    z = evaluate.codes(model, images)
    for found in (z, evaluate.decode(model, z), evaluate.reconstruct(model, images), evaluate.sample(model, 4)):
        assert type(found) is torch.Tensor and found.device.type == "cpu"
    assert torch.allclose(evaluate.reconstruct(model, images), evaluate.reconstruct(twin, images), atol=1e-6)
    assert torch.allclose(evaluate.decode(model, z.to(far)), evaluate.decode(twin, z), atol=1e-6)
    taken = evaluate.Snapshots(model, data.load("mnist"), 4, 2)
    for step in (1, 2, 3, 4):
        taken.look(step)
    assert taken.steps == [1, 4] and {t.device.type for t in taken.images} == {"cpu"}


@pytest.mark.parametrize("density", [latents.Normal, latents.Gaussian, latents.Mixture])
def test_densities_draw_the_same_codes_on_both_devices(density, far):
    z = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[1.0, 2, 0], [0, 1, 1], [0, 0, 1]])
    here = density(3) if density is latents.Normal else density.fit(z)
    there = copy.deepcopy(here).to(far)
    one, two = (d.sample(50, latents.generator(1)) for d in (here, there))
    assert two.device == far and torch.allclose(one, two.cpu(), atol=1e-6)
    assert torch.allclose(here.log_prob(z), there.log_prob(z.to(far)).cpu(), atol=1e-4)
    assert there.sample(5).device == far and there.sample(5, latents.generator(1, far)).device == far


def test_figures_take_models_from_any_device(model):
    x = data.to_unit(data.load("mnist").test.images[:2])
    assert show.png(show.manifold(model, 3)) and show.png(show.interpolation(model, x[:1], x[1:], 4))


def test_controls_train_there(far):
    box = controls.Training(PAPERS["vae"], steps=20)
    before = threading.active_count()
    box.start()
    box.thread.join(60)
    assert threading.active_count() <= before + 1 and box.status.value.startswith("Step 20 of 20")
    assert nets.device_of(box.model).type in (elsewhere.NAME, "cpu") and box.picture.value


def test_the_measurements_of_speed_run_there(far):
    split = data.load("fashion-mini").train
    next(bench._looped(split, far)), next(bench._bare(split, far))


def test_live_figures_take_models_from_any_device(far):
    run, small = runs.get("vae-mnist-d2"), runs.fresh(catalogue.config(PAPERS["encoder"]))
    figures = (explore.latent, run), (explore.interpolate, run), (explore.draw, small)
    pages = [figure(of).page() for figure, of in figures]
    for moved in (run, small):
        moved.model.to(far)
    assert [figure(of).page() for figure, of in figures] == pages
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6)).eval()
    assert embed.network(net, (4,)) == embed.network(net.to(far), (4,))


def test_answers_are_checked_on_any_device(far):
    """A reader's tensors may be on the accelerator where the expected ones are not."""
    x = torch.arange(3.0)
    assert check.same(lambda v: v.square().to(far), lambda v: v**2, x)
    assert not check.same(lambda v: v.to(far), lambda v: v**2, x)
    assert check.same(lambda v: v.square(), lambda v: v**2, x.to(far)) and check.number(x.to(far).sum(), 3.0)


# a real accelerator, where there is one

REAL = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
REAL = [pytest.param(d, marks=pytest.mark.skipif(not here, reason=f"there is no {d}")) for d, here in REAL.items()]


@pytest.mark.parametrize("device", REAL)
@pytest.mark.parametrize("name", PAPERS.values())
def test_a_real_device_trains_and_measures(name, device, small, monkeypatch):
    monkeypatch.setenv("GENCORE_DEVICE", device)
    monkeypatch.delenv("GENCORE_PRECISION")
    if device == "mps" and "linear" in name:
        pytest.skip("MPS has no float64")
    run = runs.fresh(catalogue.config(name))
    pays = nets.bfloat16_pays(device)
    assert run.meta["device"] == device and run.meta["precision"] == ("bfloat16" if pays else "float32")
    values = [v for value in run.metrics.values() for v in (value if isinstance(value, list) else [value])]
    assert all(math.isfinite(v) for v in values)
    if hasattr(run.model, "priors"):
        here = run.sample(5, seed=3)
        run.model.to(device)
        assert torch.allclose(here, run.sample(5, seed=3), atol=1e-3)


@pytest.mark.parametrize("device", REAL)
@pytest.mark.parametrize("name", KINDS)
def test_a_real_device_trains_as_the_cpu_does(name, device, small, monkeypatch):
    """In float32 the first terms are nearly those of the CPU, up to the noise that both draw."""
    if device == "mps" and "linear" in name:
        pytest.skip("MPS has no float64")
    _, here = steps(name, torch.device("cpu"), 1)
    monkeypatch.setenv("GENCORE_DEVICE", device)
    _, there = steps(name, torch.device(device, 0), 1)
    for key, value in here[0].items():
        assert math.isclose(value, there[0][key], rel_tol=0.2, abs_tol=0.3)


@pytest.mark.parametrize("device", REAL)
@pytest.mark.parametrize("name", PAPERS.values())
def test_a_real_device_goes_on_with_a_checkpoint(name, device, small, monkeypatch, tmp_path):
    if device == "mps" and "linear" in name:
        pytest.skip("MPS has no float64")
    monkeypatch.setenv("GENCORE_DEVICE", device)
    steps(name, torch.device(device, 0), 1, tmp_path)
    step, terms = steps(name, torch.device(device, 0), 3, tmp_path)
    assert len(terms) == 2 and nets.device_of(step.model).type == device


def test_bfloat16_is_the_default_where_the_hardware_has_it(monkeypatch):
    monkeypatch.delenv("GENCORE_PRECISION", raising=False)
    for kind, here in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if here:
            assert (nets.precision(kind) == torch.bfloat16) == nets.bfloat16_pays(kind)
    assert nets.precision(elsewhere.NAME) == torch.float32
