"""runs: the catalogue, what an artefact gives back, and how it is made."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
import torch

import gencore.__main__ as command_line
from gencore import data, evaluate, nets, runs, store, train, vae

NAME = re.compile(
    r"(vae|ae|classifier|encoder)-(mnist|fashion-mnist|cifar10)(-[a-z0-9]+)*?(-s[12])?"
)
DIMS = (2, 4, 10, 20, 32, 64)
PROMISED = {
    *(f"vae-mnist-d{d}{end}" for d in DIMS for end in ("", "-s1", "-s2")),
    *(f"ae-mnist-d{d}" for d in DIMS),
    *(f"vae-cifar10-d200{what}{end}" for what in ("", "-sigma") for end in ("", "-s1", "-s2")),
    *(f"classifier-{name}" for name in data.SHAPES),
    "vae-mnist-linear",
    "vae-cifar10-d200-mean",
    *(f"encoder-mnist-d{d}" for d in (2, 4, 10)),
}


# the catalogue


def test_every_promised_run_is_there_under_a_speaking_name():
    assert set(runs.names()) == PROMISED and len(runs.names()) == len(PROMISED)
    for name in runs.names():
        conf = runs.config(name)
        assert conf.name == name and NAME.fullmatch(name)
        assert name.startswith(f"{'vae' if conf.paper == 'linear' else conf.paper}-{conf.data}")
        if match := re.search(r"-d(\d+)", name):
            of = runs.config(conf.model.get("of", name))
            assert of.model["latent_dim"] == int(match[1])
        assert conf.seed == (int(name[-1]) if re.search(r"-s\d$", name) else 0)


def test_seeds_differ_in_the_seed_and_the_pictures_alone():
    for name in runs.names():
        first, *others = (dataclasses.asdict(runs.config(n)) for n in runs.seeds(name))
        for other in others:
            unlike = {key for key in first if first[key] != other[key]}
            assert unlike <= {"name", "seed", "snapshots"} and "seed" in unlike
    assert runs.seeds("vae-mnist-d2") == ["vae-mnist-d2", "vae-mnist-d2-s1", "vae-mnist-d2-s2"]
    assert runs.seeds("ae-mnist-d2") == ["ae-mnist-d2"]


def test_twins_have_the_same_network_data_and_budget():
    """Claims C1 to C6 compare under equal conditions."""
    for d in DIMS:
        one, two = (dataclasses.asdict(runs.config(f"{p}-mnist-d{d}")) for p in ("vae", "ae"))
        assert {key for key in one if one[key] != two[key]} <= {"name", "paper", "snapshots"}
    mean, total = (dataclasses.asdict(runs.config(f"vae-cifar10-d200{w}")) for w in ("-mean", ""))
    mean["model"] = {"sigma": 1.0} | mean["model"]  # the default, written out in the other
    assert {key for key in mean if mean[key] != total[key]} <= {"name", "objective", "snapshots"}
    d10 = dataclasses.asdict(runs.config("vae-mnist-d10"))
    for d in DIMS:
        other = dataclasses.asdict(runs.config(f"vae-mnist-d{d}"))
        unlike = {key for key in other if other[key] != d10[key]}
        assert unlike <= {"name", "model", "snapshots"}
        assert {k: v for k, v in other["model"].items() if k != "latent_dim"} == {
            k: v for k, v in d10["model"].items() if k != "latent_dim"
        }


def test_no_digest_has_changed():
    """A new kind of run leaves the published artefacts valid; who changes a run changes this line."""
    old = [f"{n} {runs.config(n).digest}\n" for n in runs.names() if not n.startswith("encoder")]
    expected = "ed496fde688284664b4c648d846a2ccf56c9321c67d81f30157b174a92f48058"
    assert store.sha256("".join(old).encode()) == expected


def test_small_encoders_differ_in_the_decoder_that_they_are_for_alone():
    found = [dataclasses.asdict(runs.config(f"encoder-mnist-d{d}")) for d in (2, 4, 10)]
    for d, conf in zip((2, 4, 10), found, strict=True):
        assert conf.pop("name") and conf["model"].pop("of") == f"vae-mnist-d{d}"
    assert found[0] == found[1] == found[2]


def test_classifiers_come_before_what_they_measure_and_encoders_after_their_decoder():
    order = runs.names()
    for name in order:
        conf = runs.config(name)
        if conf.paper == "encoder":
            assert order.index(conf.model["of"]) < order.index(name)
        if conf.paper in ("vae", "ae"):
            assert order.index(f"classifier-{conf.data}") < order.index(name)


def test_every_network_can_be_built_and_a_step_made_for_it(mini):
    images = {
        "mnist": mini.images,
        "cifar10": torch.randint(0, 256, (200, 3, 32, 32), dtype=torch.uint8),
    }
    images["fashion-mnist"] = images["mnist"]
    kinds = {
        "vae": vae.Step,
        "ae": vae.AutoencoderStep,
        "linear": vae.LinearStep,
        "classifier": nets.ClassifierStep,
        "encoder": vae.Step,
    }
    for name in runs.names():
        conf = runs.config(name)
        split = data.Split(images[conf.data], torch.zeros(len(images[conf.data])).long())
        step = runs.make_step(conf, runs.build(conf), data.Dataset(conf.data, split, split))
        assert type(step) is kinds[conf.paper] and step.parts["model"] is step.model
        if conf.paper != "linear":
            assert step.optimiser.param_groups[0]["lr"] == conf.lr
    sigma = runs.build(runs.config("vae-cifar10-d200-sigma"))
    assert sigma.learn_sigma and not runs.build(runs.config("vae-cifar10-d200")).learn_sigma


def test_a_configuration_starts_from_the_same_weights_each_time():
    def first(name):
        torch.manual_seed(123)
        return next(runs.build(runs.config(name)).parameters()).detach()

    assert torch.equal(first("vae-mnist-d2"), first("vae-mnist-d2"))
    assert not torch.equal(first("vae-mnist-d2"), first("vae-mnist-d2-s1"))


def test_the_digest_changes_with_every_field():
    conf = runs.config("vae-cifar10-d200-mean")
    assert conf.digest == runs.Config(**dataclasses.asdict(conf)).digest
    other = {"name": "x", "paper": "ae", "data": "mnist", "model": conf.model | {"width": 33}}
    other |= {"objective": {}, "epochs": 11, "batch": 129, "lr": 1.01e-3, "seed": 1, "snapshots": 1}
    assert set(other) == {f.name for f in dataclasses.fields(runs.Config)}
    digests = {dataclasses.replace(conf, **{key: value}).digest for key, value in other.items()}
    assert len(digests | {conf.digest}) == len(other) + 1
    assert len({runs.config(name).digest for name in runs.names()}) == len(runs.names())
    turned = dataclasses.replace(conf, model=dict(reversed(conf.model.items())))
    assert turned.digest == conf.digest, "the order in which they are written is no difference"
    with pytest.raises(dataclasses.FrozenInstanceError):
        conf.lr = 1


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vae-mnist-10", "vae-mnist-d10"),
        ("ae_mnist_d4", "ae-mnist-d4"),
        ("vae-cifar-d200", "vae-cifar10-d200"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, near):
    for function in (runs.get, runs.config, runs.seeds, runs.publish):
        with pytest.raises(LookupError) as caught:
            function(name)
        assert str(caught.value) == (
            f"There is no run {name!r}. Did you mean {near!r}? `python -m gencore runs` lists them."
        )
    with pytest.raises(LookupError, match=r"There is no run 'zzz'\. `python"):
        runs.get("zzz")


# artefacts


def save(folder, name, *, metrics=None, digest=None, profile="full", width=4, of=None):
    """An artefact of small networks under a published name: its model as it was before saving."""
    torch.manual_seed(0)
    conf = runs.config(name)
    conf = dataclasses.replace(conf, model=conf.model | {"width": width})
    model = runs.build(conf)
    meta = {"config": dataclasses.asdict(conf), "digest": digest or runs.config(name).digest}
    meta |= {
        "profile": profile,
        "metrics": metrics or {"elbo": -1.0},
        "history": {"step": [1], "loss": [2.0]},
    } | ({"of": of} if of else {})
    tensors = nets.packed(model.state_dict(), **runs._kept(conf))
    tensors |= {
        "film.images": torch.zeros(2, 16, 1, 28, 28, dtype=torch.uint8),
        "film.steps": torch.tensor([1, 9]),
    }
    store.save(folder / name, tensors, meta)
    return model


def test_get_gives_back_what_was_saved(own_runs):
    model = save(own_runs, "vae-mnist-d4", metrics={"elbo": -3.5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = runs.get("vae-mnist-d4")
    assert run.name == "vae-mnist-d4" and run.config == runs.config("vae-mnist-d4")
    assert run.metrics == {"elbo": -3.5} and run.history == {"step": [1], "loss": [2.0]}
    assert run.film["steps"].tolist() == [1, 9] and run.film["images"].shape == (2, 16, 1, 28, 28)
    assert not run.model.training
    for name, value in model.state_dict().items():
        found = run.model.state_dict()[name]
        assert found.dtype == torch.float32 and torch.equal(found, value.half().float())
    x = torch.rand(2, 1, 28, 28)
    assert [t.shape for t in run.model.encode(x)] == [(2, 4), (2, 4)]
    size = (own_runs / "vae-mnist-d4.safetensors").stat().st_size
    assert size < 2 * nets.parameters(model) + 2 * 16 * 784 + 4000, "two bytes a number"


def test_the_linear_run_keeps_its_precision(own_runs):
    torch.manual_seed(0)
    conf = runs.config("vae-mnist-linear")
    model = runs.build(conf)
    assert all(nets.rounded(t, **runs._kept(conf)) is t for t in model.parameters())


def test_stale_damaged_missing_ready(own_runs, monkeypatch):
    name = "ae-mnist-d4"
    assert runs.state(name) == "missing"
    with pytest.raises(store.StoreError, match=f"make it with `python -m gencore train {name}`"):
        runs.get(name)
    save(own_runs, name)
    assert runs.state(name) == "ready"
    save(own_runs, name, digest="0" * 64)
    assert runs.state(name) == "stale"
    with pytest.warns(
        UserWarning, match=f"The artefact {name} is stale: .*`python -m gencore train {name}`"
    ):
        runs.get(name)
    save(own_runs, name, profile="smoke")
    assert runs.state(name) == "stale", "eight steps are not what the book prints"
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    assert runs.state(name) == "ready"
    (own_runs / f"{name}.safetensors").write_bytes(b"x")
    assert runs.state(name) == "damaged"
    with pytest.raises(store.Corrupt, match=f"{name}.safetensors is damaged"):
        runs.get(name)


def test_a_stale_artefact_of_another_size_still_loads(own_runs):
    save(own_runs, "vae-mnist-d4", digest="0" * 64, width=6)
    with pytest.warns(UserWarning, match="stale"):
        assert runs.get("vae-mnist-d4").model.encoder.net[0].out_channels == 6


def meta_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def test_an_encoder_is_stored_alone_and_comes_with_the_decoder_it_is_for(own_runs):
    of = save(own_runs, "vae-mnist-d4")
    model = save(own_runs, "encoder-mnist-d4", of=meta_of(own_runs, "vae-mnist-d4")["sha256"])
    assert runs.state("encoder-mnist-d4") == "ready"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = runs.get("encoder-mnist-d4")
    for name, value in model.state_dict().items():
        assert name.startswith("encoder.")
        assert torch.equal(run.model.state_dict()[name], value.half().float())
    x, z = torch.rand(2, 1, 28, 28), torch.randn(2, 4)
    assert [t.shape for t in run.model.encode(x)] == [(2, 4), (2, 4)]
    assert torch.equal(run.model.decode(z), runs.get("vae-mnist-d4").model.decode(z))
    assert not torch.equal(run.model.encode(x)[0], of.encode(x)[0])
    assert torch.equal(run.sample(3), runs.get("vae-mnist-d4").sample(3))


def test_an_encoder_is_stale_when_its_decoder_is_another(own_runs):
    name = "encoder-mnist-d4"
    save(own_runs, "vae-mnist-d4")
    save(own_runs, name, of="0" * 64)  # of a decoder with other weights, though configured alike
    assert runs.state(name) == "stale"
    with pytest.warns(UserWarning, match=f"The artefact {name} is stale"):
        runs.get(name)
    for file in own_runs.glob("vae-*"):
        file.unlink()
    assert runs.state(name) == "stale"
    with pytest.raises(store.StoreError, match="make it with `.* train vae-mnist-d4`"):
        runs.get(name)


def test_samples_are_images_and_repeatable(own_runs):
    save(own_runs, "vae-mnist-d4")
    run = runs.get("vae-mnist-d4")
    images = run.sample(1203)
    assert images.shape == (1203, 1, 28, 28) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1 and not images.requires_grad
    torch.manual_seed(77)
    assert torch.equal(run.sample(1203), images), "the global generator has no say"
    assert not torch.equal(run.sample(1203, seed=1), images)
    z = torch.randn(1203, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(images, run.model.decode(z), atol=1e-6)
    assert images.std(0).mean() > 1e-3, "the samples are not one image"


def test_samples_of_cifar_and_of_the_linear_model_have_their_shape(own_runs):
    save(own_runs, "vae-cifar10-d200", width=4)
    assert runs.get("vae-cifar10-d200").sample(3).shape == (3, 3, 32, 32)
    torch.manual_seed(0)
    conf = runs.config("vae-mnist-linear")
    meta = {"config": dataclasses.asdict(conf), "digest": conf.digest, "profile": "full"}
    store.save(
        own_runs / conf.name, runs.build(conf).state_dict(), meta | {"metrics": {}, "history": {}}
    )
    images = runs.get(conf.name).sample(50)
    assert images.shape == (50, 1, 28, 28) and 0 <= images.min() and images.max() <= 1


def test_an_autoencoder_can_be_sampled_from_one_gaussian_of_its_codes(own_runs):
    save(own_runs, "ae-mnist-d2")
    run = runs.get("ae-mnist-d2")
    run.model.code_mean.copy_(torch.tensor([3.0, -1.0]))
    run.model.code_chol.copy_(torch.tensor([[2.0, 0.0], [1.0, 0.5]]))
    seen = []
    run.model.decode = lambda z: seen.append(z) or torch.zeros(len(z), 1, 28, 28)
    run.sample(20_000, prior="gaussian")
    z = torch.cat(seen)
    assert z.mean(0).tolist() == pytest.approx([3, -1], abs=0.06)
    assert torch.allclose(z.T.cov(), torch.tensor([[4.0, 2.0], [2.0, 1.25]]), atol=0.15)


def test_a_mixture_fitted_to_the_codes_of_the_training_images(own_runs, monkeypatch, capsys):
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    save(own_runs, "ae-mnist-d2")
    run = runs.get("ae-mnist-d2")
    z = evaluate.codes(run.model, data.load("mnist").train.images)
    seen = []
    run.model.decode = lambda z: seen.append(z) or torch.zeros(len(z), 1, 28, 28)
    run.sample(4000, prior="gmm")
    drawn = torch.cat(seen)
    assert torch.allclose(drawn.mean(0), z.mean(0), atol=5 * z.std().item() / 4000**0.5)
    assert torch.allclose(drawn.T.cov(), z.T.cov(), atol=0.1 * z.var().item())
    assert "stand in for mnist" in capsys.readouterr().out


def test_what_cannot_be_sampled_is_one_sentence(own_runs):
    save(own_runs, "classifier-mnist")
    with pytest.raises(ValueError, match="classifier-mnist is a classifier: it does not generate"):
        runs.get("classifier-mnist").sample(2)
    save(own_runs, "vae-mnist-d2")
    with pytest.raises(
        ValueError, match="prior is 'uniform'; it can be 'normal', 'gaussian' or 'gmm'"
    ):
        runs.get("vae-mnist-d2").sample(2, prior="uniform")


def test_summary_is_mean_and_sd_over_the_seeds(own_runs):
    values = [-100.0, -101.5, -99.1]
    for name, value in zip(runs.seeds("vae-mnist-d2"), values, strict=True):
        save(own_runs, name, metrics={"elbo": value})
    mean, sd, n = runs.summary("vae-mnist-d2", "elbo")
    assert (
        mean == pytest.approx(np.mean(values))
        and sd == pytest.approx(np.std(values, ddof=1))
        and n == 3
    )
    save(own_runs, "ae-mnist-d2", metrics={"mse": 0.5})
    assert runs.summary("ae-mnist-d2", "mse") == (0.5, None, 1)


# making them


@pytest.fixture
def small(monkeypatch):
    """The published configurations with narrow networks and small batches, and quick numbers."""
    wide = runs.catalogue()
    narrow = {
        name: dataclasses.replace(conf, batch=16, model=conf.model | {"width": 4})
        for name, conf in wide.items()
        if conf.paper != "linear"
    }
    monkeypatch.setattr(runs, "catalogue", lambda: narrow)
    monkeypatch.setitem(runs.SAMPLES, "smoke", 100)
    return narrow


def test_publish_trains_the_classifier_too_and_the_second_time_does_nothing(smoke, small, capsys):
    names = ["vae-mnist-d4", "ae-mnist-d4"]
    assert command_line.main(["train", *names]) == 0
    assert "0 ready, 2 to train (profile smoke)" in capsys.readouterr().out
    files = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in smoke.iterdir()}
    expected = {
        f"{name}{end}" for name in [*names, "classifier-mnist"] for end in (".json", ".safetensors")
    }
    assert set(files) == expected
    assert [runs.state(name) for name in (*names, "classifier-mnist")] == ["ready"] * 3
    assert not (store.cache_dir() / "checkpoints").exists() or not list(
        (store.cache_dir() / "checkpoints").iterdir()
    )
    assert command_line.main(["train", *names]) == 0
    assert capsys.readouterr().out == "2 ready, 0 to train (profile smoke).\n"
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in smoke.iterdir()} == files
    for name in names:
        check_published(name)


def test_publish_trains_the_decoder_that_an_encoder_is_for(smoke, small, capsys):
    names = ["encoder-mnist-d4", "vae-mnist-d4", "classifier-mnist"]
    assert command_line.main(["train", names[0]]) == 0
    assert "0 ready, 1 to train (profile smoke)" in capsys.readouterr().out
    assert {p.stem for p in smoke.iterdir()} == set(names)
    assert [runs.state(name) for name in names] == ["ready"] * 3
    check_published(names[0])
    before = (smoke / "vae-mnist-d4.safetensors").read_bytes()
    kept, meta = store.load(smoke / names[0])
    assert {key.split(".")[0] for key in kept} == {"encoder"}
    assert meta["of"] == store.sha256(before)
    runs.publish(names[0])
    assert (smoke / "vae-mnist-d4.safetensors").read_bytes() == before
    again = store.load(smoke / names[0])[0]
    assert all(torch.equal(again[key], kept[key]) for key in kept)
    (smoke / "vae-mnist-d4.json").write_text("{")
    assert runs.state(names[0]) == "stale", "what it is for is damaged"
    # without its decoder, retraining is one clear sentence
    (smoke / "vae-mnist-d4.json").unlink()
    with pytest.raises(store.StoreError, match="The artefact vae-mnist-d4 is not in"):
        runs.get(names[0], retrain=True)


def test_a_checkpoint_of_an_encoder_for_another_decoder_is_not_gone_on_from(
    smoke, small, monkeypatch
):
    folders = []
    loop = train.loop

    def noted(step, batches, steps, checkpoint=None, *others):
        folders.append(checkpoint)
        return loop(step, batches, steps, checkpoint, *others)

    monkeypatch.setattr(train, "loop", noted)
    for width in (4, 5):
        save(smoke, "vae-mnist-d4", width=width)
        runs.publish("encoder-mnist-d4")
    assert len(set(folders)) == 2


def check_published(name):
    """What is measured is what is saved: the loaded model has the recorded numbers."""
    run, conf = runs.get(name), runs.config(name)
    assert evaluate.evaluate(run.model, conf.paper, run.data, 100) == run.metrics
    assert run.meta["steps"] == run.history["step"][-1] == 8 and run.meta["stand_in"]
    assert run.meta["digest"] == conf.digest and run.meta["config"] == json.loads(
        json.dumps(dataclasses.asdict(conf))
    )
    assert run.meta["parameters"] == nets.parameters(run.model)
    assert run.meta["versions"]["torch"] == torch.__version__ and "threads" in run.meta["hardware"]
    assert run.meta["wall_s"] == pytest.approx(sum(run.history["seconds"]), abs=0.1)
    if conf.paper == "ae":
        z = evaluate.codes(run.model, run.data.train.images)
        model = run.model
        assert torch.allclose(model.code_mean, z.mean(0), rtol=0.01, atol=0.01)
        assert torch.allclose(model.code_chol @ model.code_chol.T, z.T.cov(), rtol=0.02, atol=0.02)


def test_the_linear_run_is_measured_against_its_optimum(smoke, monkeypatch, capsys):
    g = torch.Generator().manual_seed(0)
    split = data.Split(
        torch.randint(0, 256, (300, 1, 5, 5), dtype=torch.uint8, generator=g),
        torch.zeros(300).long(),
    )
    monkeypatch.setattr(data, "load", lambda name: data.Dataset(name, split, split))
    conf = dataclasses.replace(
        runs.config("vae-mnist-linear"), model={"data_dim": 25, "latent_dim": 3}, batch=10
    )
    run = runs.fresh(conf)
    mean, cov = runs.moments(split.images)
    flat = split.images.flatten(1).double() / 255
    assert torch.allclose(cov, flat.T.cov(correction=0), atol=1e-12) and torch.allclose(
        mean, flat.mean(0)
    )
    assert run.metrics["ppca"] == pytest.approx(vae.ppca(mean, cov, 3)[2].item(), rel=1e-9)
    assert run.metrics["ppca"] - 0.2 < run.metrics["elbo"] < run.metrics["ppca"] + 1e-5
    assert next(run.model.parameters()).dtype == torch.float32


def test_retraining_takes_the_profiles_budget_and_leaves_the_artefact_alone(smoke, small, capsys):
    save(smoke, "classifier-fashion-mnist", profile="smoke")
    before = {p.name: p.read_bytes() for p in smoke.iterdir()}
    run = runs.get("classifier-fashion-mnist", retrain=True)
    assert run.meta["profile"] == "smoke" and run.history["step"] == [8]
    assert {p.name: p.read_bytes() for p in smoke.iterdir()} == before
    assert 0 <= run.metrics["accuracy"] <= 1 and not run.model.training
    assert "Done: step 8" in capsys.readouterr().out


def test_quick_is_at_most_600_steps_and_full_every_epoch(monkeypatch, bare):
    monkeypatch.setattr(evaluate, "evaluate", lambda *arguments: {})
    asked = []
    monkeypatch.setattr(
        train, "loop", lambda step, batches, steps, *a, **k: asked.append(steps) or iter(())
    )
    split = data.Split(
        torch.zeros(60_000, 1, 28, 28, dtype=torch.uint8), torch.zeros(60_000).long()
    )
    monkeypatch.setattr(data, "load", lambda name: data.Dataset(name, split, split))
    conf = dataclasses.replace(runs.config("classifier-mnist"), epochs=12, model={"width": 2})
    for profile in ("full", "quick", "smoke"):
        monkeypatch.setenv("GENCORE_PROFILE", profile)
        runs.fresh(conf)
    assert asked == [12 * (60_000 // 128), 600, 8]
    runs.fresh(dataclasses.replace(conf, epochs=1, batch=30_000))
    assert asked[-1] == 2, "a run that is shorter than the budget stays as it is"


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_is_interrupted_is_never_published(at, smoke, small, monkeypatch, capsys):
    """Not even before its first step; the command line says how to go on."""
    make_step = runs.make_step

    def stopped(*arguments):
        step = make_step(*arguments)
        calls = []

        class Stopped:
            parts = step.parts

            def __call__(self, batch):
                calls.append(1)
                if len(calls) == at:
                    raise KeyboardInterrupt
                return step(batch)

        return Stopped()

    monkeypatch.setattr(runs, "make_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.publish("classifier-mnist", progress=True)
    assert not list(smoke.iterdir())
    assert command_line.main(["train", "classifier-mnist"]) == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    assert not list(smoke.iterdir()) and runs.state("classifier-mnist") == "missing"
    # in a notebook, the same stop leaves a model that can be looked at
    run = runs.get("classifier-mnist", retrain=True)
    assert (
        all(torch.isfinite(p).all() for p in run.model.parameters()) and "accuracy" in run.metrics
    )


def test_a_run_in_the_checkout_keeps_the_registry(tmp_path, monkeypatch, bare, small):
    """Published into book/runs, an artefact is named in the registry; elsewhere it is not."""
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    (tmp_path / "book" / "runs").mkdir(parents=True)
    written = []
    monkeypatch.setattr(store, "write_registry", lambda: written.append(1))
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    runs.publish("classifier-mnist")
    assert written == [1] and (tmp_path / "book" / "runs" / "classifier-mnist.json").exists()
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "elsewhere"))
    runs.publish("classifier-mnist")
    assert written == [1] and (tmp_path / "elsewhere" / "classifier-mnist.json").exists()
