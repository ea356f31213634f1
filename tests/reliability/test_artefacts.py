"""The committed artefacts: all there, whole, small, current, as good as the book says."""

import json
import math

import papers
import pytest
import torch

from gencore import catalogue, data, evaluate, nets, ppca, runs, store, vae

LIMIT_ALL, LIMIT_ONE = 40e6, 5e6  # bytes
ACCURACY = {"mnist": 0.99, "fashion-mnist": 0.90, "cifar10": 0.78}  # the bars of the book
IMAGES = {"mnist": 60_000, "fashion-mnist": 60_000, "cifar10": 50_000}
ROWS = catalogue.runs()
KEPT = [name for name in ROWS if not runs.numbers_only(name)]
DRAWING = [name for name in KEPT if papers.can_draw(ROWS[name])]


def described(name):
    """The description of a committed artefact; both sha256 are checked on the way."""
    assert (store.runs_dir() / f"{name}.json").exists(), f"missing: python -m gencore train {name}"
    return runs.describe(name)


@pytest.mark.parametrize("name", ROWS)
def test_every_run_is_ready_and_says_how_it_was_made(name):
    assert runs.state(name) == "ready"
    meta, conf = described(name), ROWS[name]
    assert meta["profile"] == "full" and not meta["stand_in"] and meta["ruler"] == data.TABLE[conf.data].ruler
    assert meta["name"] == meta["config"]["name"] == name
    assert catalogue.differences(meta["config"], conf) == []
    images = IMAGES[data.TABLE[conf.data].of or conf.data]
    assert meta["steps"] == meta["history"]["step"][-1] == conf.epochs * (images // conf.batch)
    assert meta["wall_s"] > 0 and meta["cpu_s"] > 0 and meta["versions"].keys() >= {"python", "torch"}
    assert meta["precision"] in ("float32", "bfloat16") and meta["device"] and meta["hardware"]


@pytest.mark.parametrize("name", ROWS)
def test_the_history_has_the_terms_of_the_paper_and_training_made_them_better(name):
    history, terms = described(name)["history"], list(ROWS[name].paper.TERMS)
    assert {"step", "seconds", "cpu_seconds", *terms} == set(history)
    assert len({len(values) for values in history.values()}) == 1
    if "loss" in terms and ROWS[name].paper is not ppca:  # which is solved before its first step
        assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("name", KEPT)
def test_the_weights_are_whole_and_kept_as_the_run_says(name, published):
    tensors, meta = store.load(published / name)
    assert meta["sha256"] == store.sha256(published / f"{name}.safetensors")
    run, conf = runs.get(name), ROWS[name]
    weights = {key: value for key, value in tensors.items() if not key.startswith("snapshots.")}
    assert weights.keys() == run.model.state_dict().keys()
    for key, value in run.model.state_dict().items():
        assert torch.isfinite(value).all() and torch.equal(value, weights[key].to(value.dtype))
        if value.is_floating_point():
            assert weights[key].dtype == (torch.float16 if conf.half else torch.float32)
    assert meta["parameters"] == nets.parameters(run.model)
    assert meta.get("used", {}).keys() == set(conf.uses.values())
    assert (len(run.snapshots.get("steps", ())) > 0) == bool(conf.snapshots)


@pytest.mark.parametrize("name", [name for name in KEPT if ROWS[name].snapshots])
def test_the_snapshots_go_from_the_first_step_to_the_last(name):
    run = runs.get(name)
    steps, images = run.snapshots["steps"], run.snapshots["images"]
    assert steps[0] == 1 and steps[-1] == run.meta["steps"] and (steps.diff() > 0).all()
    assert len(steps) == len(images) == len(run.snapshots["frechet"]) <= ROWS[name].snapshots
    assert images.dtype == torch.uint8 and images.shape[2:] == data.TABLE[ROWS[name].data].shape
    # the last is of the published weights, but for their rounding: the same codes, decoded by them
    z = next(iter(run.model.priors.values())).sample(2000, torch.Generator().manual_seed(1))
    now = evaluate.decode(run.model, z[: images.shape[1]])
    assert (now - images[-1] / 255).abs().mean() < 0.01
    assert run.snapshots["frechet"][-1] < run.snapshots["frechet"][0]


@pytest.mark.parametrize("name", [name for name in ROWS if runs.numbers_only(name)])
def test_of_a_run_without_weights_only_numbers_are_kept(name, published):
    assert described(name)["weights"] == "not kept" and not (published / f"{name}.safetensors").exists()
    with pytest.raises(store.StoreError, match="retrain=True"):
        runs.get(name)


@pytest.mark.parametrize("name", DRAWING)
def test_every_generator_draws_from_each_of_its_densities(name):
    run = runs.get(name)
    for prior in run.model.priors:
        images = run.sample(8, prior=prior)
        assert images.shape == (8, *data.TABLE[run.config.data].shape) and images.dtype == torch.float32
        assert images.min() >= 0 and images.max() <= 1 and torch.equal(run.sample(8, prior=prior), images)
        assert images.std(0).mean() > 0.02


# metrics


@pytest.fixture(scope="module")
def promised():
    """{paper: the metrics that its `measure` gives}, on a few images."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCORE_PROFILE", "smoke")
        patch.delenv("GENCORE_RUNS", raising=False)
        for paper, name in papers.smallest().items():
            dataset = papers.few(data.load(ROWS[name].data))
            found[paper] = set(ROWS[name].paper.measure(runs.get(name).model, dataset, papers.IMAGES[1]))
    return found


@pytest.mark.parametrize("name", ROWS)
def test_every_promised_number_is_recorded_and_finite(name, promised):
    values, conf = described(name)["metrics"], ROWS[name]
    assert promised[catalogue.short_name(conf.paper)] <= values.keys()
    for value in values.values():
        assert all(math.isfinite(v) for v in (value if isinstance(value, list) else [value]))


def recorded(name):
    """What a description says, unchecked: tests are chosen by it. Nothing, where there is none."""
    file = store.CHECKOUT / "book" / "runs" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {"metrics": {}}


def has(*keys):
    """The runs that recorded all of these numbers."""
    found = [name for name in ROWS if set(keys) <= recorded(name)["metrics"].keys()]
    assert found, f"no run has {keys}"
    return pytest.mark.parametrize("name", found)


@has("elbo", "rec", "kl", "iwae", "kl_per_dim", "active_units")
def test_the_bounds_agree_with_their_parts(name):
    values = described(name)["metrics"]
    assert values["elbo"] <= values["iwae"] + 1, "on 10,000 and on 1,000 images"
    assert values["elbo"] == pytest.approx(values["rec"] - values["kl"], abs=0.01)
    assert sum(values["kl_per_dim"]) == pytest.approx(values["kl"], rel=1e-3, abs=1e-6)
    conf = ROWS[name]
    of = ROWS[conf.uses["of"]] if conf.uses else conf
    assert len(values["kl_per_dim"]) == of.model["latent_dim"] >= values["active_units"]


@has("iwae", "iwae_elbo", "iwae_gain", "iwae_gain_se", "iwae_samples", "iwae_curve")
def test_weighted_bounds_rise_from_the_elbo_of_the_same_images(name):
    values, curve = described(name)["metrics"], described(name)["metrics"]["iwae_curve"]
    assert values["iwae_samples"] == [1, 4, 16, 64, 128] and len(curve) == 5
    assert [values["iwae_elbo"], values["iwae"]] == [curve[0], curve[-1]]
    assert all(b >= a - 1e-3 for a, b in zip(curve, curve[1:], strict=False)), "of the same draws"
    assert values["iwae_gain"] == pytest.approx(curve[-1] - curve[0], abs=2e-3)
    assert 0 <= values["iwae_gain_se"] < 1 + 0.05 * values["iwae_gain"]
    assert values["iwae_elbo"] == pytest.approx(values["elbo"], rel=0.05, abs=3), "1,000 of the images, other coins"
    if ROWS[name].paper is ppca:
        assert abs(values["iwae_gain"]) < 0.05, "its posterior is exact: there is nothing to gain"


@has("kl", "mismatch_gmm")
def test_a_fitted_density_finds_no_more_mismatch_than_the_rate(name):
    """The rate is the information of the codes about their images and their mismatch with the prior."""
    values = described(name)["metrics"]
    for key in (key for key in values if key.startswith("mismatch_")):
        assert -0.05 < values[key] < values["kl"] + 0.05, key


@has("live_units_least")
def test_no_layer_of_a_published_run_is_dead(name):
    values = described(name)["metrics"]
    assert ROWS[name].least_live == 0.9 <= values["live_units_least"] <= values["live_units"] <= 1


@has("elbo", "ppca")
def test_no_bound_is_above_its_optimum(name):
    values = described(name)["metrics"]
    assert values["ppca"] - 0.1 < values["elbo"] <= values["ppca"] + 1e-3


@has("frechet_floor", "frechet_rec", "n")
def test_no_distance_is_below_the_floor(name):
    values = described(name)["metrics"]
    assert values["n"] == 10_000
    found = {key: v for key, v in values.items() if key.startswith("frechet_")}
    for start in ("frechet_", "frechet_ssl_"):
        own = {key: v for key, v in found.items() if key.startswith(start) and ("_ssl_" in key) == ("_ssl_" in start)}
        assert own and min(own.values()) == values[f"{start}floor"]
    shares = [key for key in values if key.split("_")[0] in ("precision", "recall", "coverage")]
    assert len(shares) >= 3 and all(0 <= values[key] <= 1 for key in shares)


@has("frechet_prior")
def test_each_density_of_the_model_has_its_distance(name):
    values, conf = described(name)["metrics"], ROWS[name]
    for prior in conf.paper.Model(**conf.model).priors:
        assert {f"frechet_{prior}", f"kid_{prior}", f"sharpness_{prior}", f"frechet_ssl_{prior}"} <= values.keys()


@has("psnr", "mse", "mse_test", "mse_train")
def test_the_signal_to_noise_ratio_is_that_of_the_error(name):
    values = described(name)["metrics"]
    assert values["psnr"] == pytest.approx(-10 * math.log10(values["mse"]), abs=1e-3)
    assert values["mse"] == values["mse_test"]


@has("code_rank")
def test_the_rank_of_codes_is_at_most_their_dimension(name):
    values, conf = described(name)["metrics"], ROWS[name]
    of = ROWS[conf.uses["of"]] if conf.uses else conf
    assert 1 <= values["code_rank"] <= of.model["latent_dim"] + 1e-6


@pytest.mark.parametrize("name", [name for name in ROWS if "recomputed" in recorded(name)])
def test_a_number_that_was_measured_again_says_what_it_was(name):
    meta = described(name)
    assert meta["recomputed"]["why"] and meta["recomputed"]["before"].keys() <= meta["metrics"].keys()


@pytest.mark.parametrize("name", ACCURACY)
def test_classifiers_are_good_enough_to_measure_with(name, published):
    run = f"classifier-{name}"
    assert described(run)["metrics"]["accuracy"] >= ACCURACY[name]
    assert (published / f"{run}.safetensors").stat().st_size < 1e6
    assert runs.get(run).model.features(torch.zeros(1, *data.TABLE[name].shape)).shape == (1, 64)


@pytest.mark.parametrize("name", [name for name in ROWS if ROWS[name].uses])
def test_a_small_encoder_is_small_and_as_good_as_the_published_one_to_a_nat(name, published):
    of = ROWS[name].uses["of"]
    tensors, meta = store.load(published / name)
    assert {key.split(".")[0] for key in tensors} == {"encoder"}, "no weight of the decoder"
    assert meta["used"] == {of: store.sha256(published / f"{of}.safetensors")}
    network = sum(value.numel() * value.element_size() for value in tensors.values())
    assert network * 4 / 3 < 160_000, "bytes of it as base64 in a page, where 200 KB are the bar"
    whole, small = described(of)["metrics"], meta["metrics"]
    # It may even be better (more layers, trained longer), but both are bounds of one log p(x).
    assert whole["elbo"] - 1 < small["elbo"] < min(whole["iwae"], small["iwae"])
    assert small["iwae"] == pytest.approx(whole["iwae"], abs=1)
    assert small["mse"] == pytest.approx(whole["mse"], rel=0.05)


# the folder


def files(published):
    """All of them, but for what git ignores: the half of a write that was killed."""
    return sorted(p for p in published.iterdir() if p.name[0] != ".")


def test_they_are_small(published):
    sizes = {p.name: p.stat().st_size for p in files(published)}
    assert max(sizes.values()) < LIMIT_ONE, max(sizes, key=sizes.get)
    assert sum(sizes.values()) < LIMIT_ALL, f"{sum(sizes.values()) / 1e6:.1f} MB"


def test_there_is_nothing_else(published):
    ends = {name: [".json"] if runs.numbers_only(name) else [".json", ".safetensors"] for name in ROWS}
    assert {p.name for p in files(published)} == {f"{n}{end}" for n in ROWS for end in ends[n]}


def test_the_registry_is_that_of_the_committed_files(published):
    lines = (store.ASSETS / "registry.txt").read_text().splitlines()
    registry = dict(line.split() for line in lines)
    assert len(registry) == len(lines)
    assert registry == {p.name: store.sha256(p) for p in files(published)}


def test_no_description_holds_a_place_on_some_machine(published):
    for file in published.glob("*.json"):
        assert not [p for p in ("/home/", "/root/", "/tmp/", "/Users/") if p in file.read_text()]


# again, on the real test set


CLOSE = {"rel": 1e-3, "abs": 1e-6}
# differences of nearly equal numbers, or shares of 10,000, or of units
SHARES = ("precision", "recall", "density", "coverage", "live_units", "live_units_least")
LOOSE = {"kid_floor": {"abs": 2e-5}, **dict.fromkeys(SHARES, {"abs": 5e-3})}


@pytest.mark.parametrize("name", [n for n in papers.smallest().values() if not n.startswith("classifier")])
def test_the_recorded_metrics_are_found_again(name, real, monkeypatch):
    """From the artefact alone, by the whole protocol, on the 10,000 real test images.

    Weighted bounds, which take the most time by far, are found again for the small encoder alone.
    """
    dataset = real(ROWS[name].data)
    run = runs.get(name)
    if not ROWS[name].uses and "iwae" in run.metrics:
        values = {key: value for key, value in run.metrics.items() if key.startswith("iwae")}
        monkeypatch.setattr(vae, "weighted_bounds", lambda *a: values)
    again = evaluate.rounded(run.config.paper.measure(run.model, dataset, 10_000))
    assert again.keys() == run.metrics.keys()
    for key, value in run.metrics.items():
        assert again[key] == pytest.approx(value, **LOOSE.get(key, CLOSE)), key


@pytest.mark.parametrize("name", list(ACCURACY))
def test_the_recorded_accuracies_are_found_again(name, real):
    dataset = real(name)
    run = runs.get(f"classifier-{name}")
    again = run.config.paper.measure(run.model, dataset, 10_000)["accuracy"]
    assert again == pytest.approx(run.metrics["accuracy"], abs=2.5e-4)  # two images of 10,000


def test_a_copy_under_another_name_is_not_believed(published, own_runs):
    """The description says whose it is: a committed pair cannot stand for another run."""
    for end in (".json", ".safetensors"):
        (own_runs / f"vae-mnist-d4{end}").write_bytes((published / f"vae-mnist-d2{end}").read_bytes())
    assert runs.state("vae-mnist-d4") == "damaged"
