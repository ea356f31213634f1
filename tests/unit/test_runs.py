"""runs: what an artefact gives back, how it is made, and what is said when it is not what it was."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import papers
import pytest
import torch
from PIL import Image

import gencore.__main__ as command_line
from gencore import catalogue, checkpoint, data, linear, nets, runs, store, train

NAME = "vae-mnist-d4"
SIX = {"encoder": {"widths": [6], "hidden": [8]}}  # another network than the small ones of the tests
MNIST_RULERS = ["classifier-mnist", "contrast-mnist"]
OWN_RULERS = [f"{kind}-{of}" for kind in ("classifier", "contrast") for of in ("cifar10", "fashion-mnist")]


def save(folder, name, *, metrics=None, profile="full", keep=None, **changes):
    """An artefact of a small network under a published name: its model as it was before saving.

    `changes` are arguments of its Model; `keep` edits what is recorded.
    """
    conf = dataclasses.replace(catalogue.config(name), half=True)
    conf = dataclasses.replace(conf, model=conf.model | changes)
    torch.manual_seed(0)
    model = runs._model(conf)
    record = conf.record() | {"half": catalogue.config(name).half}
    meta = {"name": name, "config": record, "profile": profile, "metrics": metrics or {"elbo": -1.0},
            "history": {"step": [1], "loss": [2.0]}}  # fmt: skip
    if keep:
        keep(meta)
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    if hasattr(model, "priors"):
        tensors |= {"snapshots.images": torch.zeros(2, 16, 1, 28, 28, dtype=torch.uint8),
                    "snapshots.steps": torch.tensor([1, 9])}  # fmt: skip
    store.save(folder / name, tensors, meta, keep=not runs.numbers_only(name))
    return model


@pytest.fixture
def narrow(monkeypatch):
    """The catalogue with networks a few channels wide, and quick numbers on few images."""
    monkeypatch.setenv("GENCORE_THREADS", "1")
    whole = data.load
    monkeypatch.setattr(data, "load", lambda name: papers.few(whole(name)))
    for name, conf in catalogue.runs().items():
        small = dataclasses.replace(papers.narrow(conf), snapshots=min(1, conf.snapshots))
        monkeypatch.setitem(catalogue.runs(), name, small)
    monkeypatch.setitem(runs.SAMPLES, "smoke", 100)


def quietly(name):
    """`runs.get` that does not complain."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return runs.get(name)


# artefacts


def test_get_gives_back_what_was_saved(own_runs, narrow):
    model = save(own_runs, NAME, metrics={"elbo": -3.5, "kl_per_dim": [1.0, 2.0]})
    run = quietly(NAME)
    assert run.name == NAME and run.config == catalogue.config(NAME)
    assert run.metrics == runs.metrics(NAME) == {"elbo": -3.5, "kl_per_dim": [1.0, 2.0]}
    assert run.history == {"step": [1], "loss": [2.0]} and not run.model.training
    assert run.snapshots["steps"].tolist() == [1, 9] and run.snapshots["images"].shape == (2, 16, 1, 28, 28)
    assert set(run.snapshots) == {"steps", "images"}
    for name, value in model.state_dict().items():
        found = run.model.state_dict()[name]
        assert found.dtype == torch.float32 and torch.equal(found, value.half().float())
    described = runs.describe(NAME)
    assert described["metrics"] == run.metrics and described["sha256"] == run.meta["sha256"]
    size = (own_runs / f"{NAME}.safetensors").stat().st_size
    numbers = sum(v.numel() for v in model.state_dict().values())
    assert size < 2 * numbers + 2 * 16 * 784 + 4000, "two bytes a number"


def test_loading_leaves_the_readers_random_numbers_alone(own_runs, narrow, capsys):
    """What comes after `runs.get` is what would have come without it: error bars are not 0."""
    save(own_runs, NAME)
    for seed in (3, 4):
        torch.manual_seed(seed), np.random.seed(seed)
        expected = torch.rand(1).item(), torch.rand(1).item(), np.random.rand()
        torch.manual_seed(seed), np.random.seed(seed)
        first = torch.rand(1).item()
        run = runs.get(NAME)
        run.sample(3), run.sample(3, prior="gmm")
        assert (first, torch.rand(1).item(), np.random.rand()) == expected


def test_training_leaves_the_readers_random_numbers_alone(smoke, narrow, capsys):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    runs.get("classifier-mnist", retrain=True)
    assert torch.equal(torch.rand(1), expected)


def test_ready_stale_damaged_missing(own_runs, narrow, monkeypatch):
    assert runs.state(NAME) == "missing"
    with pytest.raises(store.StoreError, match=f"make it with `python -m gencore train {NAME}`"):
        runs.get(NAME)
    save(own_runs, NAME)
    assert runs.state(NAME) == "ready"
    save(own_runs, NAME, profile="smoke")
    assert runs.state(NAME) == "stale", "eight steps are not what the book prints"
    with pytest.warns(UserWarning, match=f"{NAME} is stale: it was made under the profile smoke"):
        runs.get(NAME)
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    assert runs.state(NAME) == "ready"
    (own_runs / f"{NAME}.safetensors").write_bytes(b"x")
    assert runs.state(NAME) == "damaged"
    with pytest.raises(store.Corrupt, match=f"{NAME}.safetensors is damaged"):
        runs.get(NAME)


def test_a_changed_value_is_stale_and_is_named(own_runs, narrow):
    def keep(meta):
        meta["config"] |= {"lr": 0.5, "epochs": 3}

    save(own_runs, NAME, keep=keep)
    assert runs.state(NAME) == "stale"
    with pytest.warns(UserWarning) as caught:
        run = runs.get(NAME)
    text = str(caught[0].message)
    assert text.startswith(f"The artefact {NAME} is stale: it was made from another configuration (epochs, lr). ")
    assert text.endswith(f"`python -m gencore train {NAME}` makes it anew.") and caught[0].filename == __file__
    assert run.metrics == {"elbo": -1.0}


def test_a_key_that_was_not_yet_there_makes_nothing_stale(own_runs, narrow):
    def keep(meta):
        for key in ("schedule", "quick", "least_live", "uses", "objective"):
            del meta["config"][key]

    save(own_runs, NAME, keep=keep)
    assert runs.state(NAME) == "ready" and quietly(NAME).config == catalogue.config(NAME)


def test_a_stale_artefact_of_another_size_still_loads(own_runs, narrow):
    save(own_runs, NAME, **SIX)
    with pytest.warns(UserWarning, match=r"stale: .*\(model\)"):
        assert runs.get(NAME).model.encoder.net[1].out_channels == 6


def test_a_stale_run_says_its_own_configuration(own_runs, narrow):
    save(own_runs, NAME, **SIX)
    with pytest.warns(UserWarning, match="stale"):
        assert runs.get(NAME).config.model["encoder"]["widths"] == [6]


def test_weights_that_do_not_fit_are_damage_for_state_as_for_get(own_runs, narrow):
    save(own_runs, NAME)
    tensors, meta = store.load(own_runs / NAME)
    del tensors["encoder.net.1.weight"]
    store.save(own_runs / NAME, tensors, {k: v for k, v in meta.items() if k != "sha256"})
    with pytest.raises(store.Corrupt, match="does not fit its own configuration"):
        runs.get(NAME)
    assert runs.state(NAME) == "damaged"


def test_an_encoder_is_stored_alone_and_comes_with_the_decoder_it_is_for(own_runs, narrow):
    name = "encoder-mnist-d4"
    of = save(own_runs, NAME)
    used = {NAME: runs.describe(NAME)["sha256"]}
    model = save(own_runs, name, keep=lambda meta: meta.update(used=used))
    assert runs.state(name) == "ready"
    run = quietly(name)
    for key, value in model.state_dict().items():
        assert key.startswith("encoder.") and torch.equal(run.model.state_dict()[key], value.half().float())
    x, z = torch.rand(2, 1, 28, 28), torch.randn(2, 4)
    assert [t.shape for t in run.model.encode(x)] == [(2, 4), (2, 4)]
    assert torch.equal(run.model.decode(z), runs.get(NAME).model.decode(z))
    assert not torch.equal(run.model.encode(x)[0], of.encode(x)[0])
    assert torch.equal(run.sample(3), runs.get(NAME).sample(3))


def test_a_run_is_stale_when_what_it_uses_is_another_or_gone(own_runs, narrow):
    name = "encoder-mnist-d4"
    save(own_runs, NAME)
    save(own_runs, name, keep=lambda meta: meta.update(used={NAME: "0" * 64}))  # configured alike, other weights
    assert runs.state(name) == "stale"
    with pytest.warns(UserWarning, match=f"{name} is stale: it was made for another {NAME} than the one that is here"):
        runs.get(name)
    for file in own_runs.glob(f"{NAME}.*"):
        file.unlink()
    assert runs.state(name) == "stale"
    with pytest.warns(UserWarning), pytest.raises(store.StoreError, match=f"make it with `.* train {NAME}`"):
        runs.get(name)


def test_of_a_repetition_there_are_numbers_and_no_weights(own_runs, narrow):
    values = [-100.0, -101.5, -99.1]
    for name, value in zip(catalogue.seeds("vae-mnist-d2"), values, strict=True):
        save(own_runs, name, metrics={"elbo": value, "kl_per_dim": [1.0]})
    one = "vae-mnist-d2-s1"
    assert not (own_runs / f"{one}.safetensors").exists() and runs.state(one) == "ready"
    assert runs.metrics(one)["elbo"] == -101.5
    with pytest.raises(store.StoreError, match=rf'runs.get\("{one}", retrain=True\)` trains it again') as caught:
        runs.get(one)
    assert "\n" not in str(caught.value)
    mean, sd, n = runs.summary("vae-mnist-d2", "elbo")
    assert (mean, sd, n) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)), 3)
    save(own_runs, "vae-mnist-linear", metrics={"sigma": 0.5})
    assert runs.summary("vae-mnist-linear", "sigma") == (0.5, None, 1)
    for metric in ("fid", "kl_per_dim"):
        with pytest.raises(LookupError, match=f"vae-mnist-d2 has no number '{metric}'; it has elbo."):
            runs.summary("vae-mnist-d2", metric)
    assert runs.numbers_only(one) and not runs.numbers_only("vae-mnist-d2")
    assert not runs.numbers_only("mine-s1") and not runs.numbers_only("vae-mnist-d2-s9")


NUMBERS_ONLY = ["vae-mnist-d2-s1", "vae-mnist-d20", "vae-mnist-d20-binary", "ppca-mnist-d2"]


@pytest.mark.parametrize("name", NUMBERS_ONLY)
def test_of_a_run_without_weights_there_is_the_record_whether_it_is_a_repetition_or_not(name, own_runs, narrow):
    assert runs.numbers_only(name) and not catalogue.config(name).weights
    (own_runs / f"{name}.safetensors").write_bytes(b"of an edition that kept them")
    save(own_runs, name, metrics={"mse": 0.25})
    assert {p.name for p in own_runs.iterdir() if p.name[0] != "."} == {f"{name}.json"}
    assert runs.state(name) == "ready" and runs.metrics(name) == {"mse": 0.25}
    assert runs.describe(name)["weights"] == "not kept" and len(runs.describe(name)["sha256"]) == 64
    with pytest.raises(store.StoreError) as caught:
        runs.get(name)
    assert str(caught.value) == (
        f'Of {name} the numbers are kept and the weights are not: `runs.get("{name}", retrain=True)` trains it again.'
    )


def test_weights_that_are_wanted_now_and_were_not_kept_make_a_run_stale(own_runs, narrow, monkeypatch):
    """Not damaged: its numbers are good. The other way round, what is there is still good."""
    name = "vae-mnist-d20"
    save(own_runs, name)
    monkeypatch.setitem(catalogue.runs(), name, dataclasses.replace(catalogue.config(name), weights=True))
    assert runs.state(name) == "stale" and runs.metrics(name) == {"elbo": -1.0}
    with pytest.raises(store.StoreError, match="trains it again"):
        runs.get(name)
    save(own_runs, name)
    assert runs.state(name) == "ready" and quietly(name).metrics == {"elbo": -1.0}
    monkeypatch.setitem(catalogue.runs(), name, dataclasses.replace(catalogue.config(name), weights=False))
    assert runs.state(name) == "ready"


def test_an_autoencoder_is_drawn_from_the_density_that_is_named(own_runs, narrow):
    save(own_runs, "ae-mnist-d2")
    run = runs.get("ae-mnist-d2")
    gaussian = run.model.priors["gaussian"]
    gaussian.mean.copy_(torch.tensor([3.0, -1.0]))
    gaussian.tril.copy_(torch.tensor([2.0, 1.0, 0.5]))
    seen = []
    run.model.decode = lambda z: seen.append(z) or torch.zeros(len(z), 1, 28, 28)
    run.sample(20_000, prior="gaussian")
    z = torch.cat(seen)
    assert z.mean(0).tolist() == pytest.approx([3, -1], abs=0.06)
    assert torch.allclose(z.T.cov(), torch.tensor([[4.0, 2.0], [2.0, 1.25]]), atol=0.15)


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [({"prior": "uniform"}, "prior is 'uniform'; this model has 'prior', 'gaussian', 'gmm'"),
     ({"seed": -1, "prior": "gmm"}, "The seed is -1; it should be a whole number"),
     ({"seed": 2**64}, "The seed is 18446744073709551616; it should be a whole number"),
     ({"n": 10**12}, r"1,000,000,000,000 images take 3,136,000 GB; ask for at most 318,877 at a time"),
     ({"n": 0}, "n is 0; it should be a whole number of images, at least 1"), ({"n": 2.0}, "n is 2.0")],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_sentence(request_, sentence, own_runs, narrow):
    save(own_runs, "vae-mnist-d2")
    with pytest.raises(ValueError, match=sentence) as caught:
        runs.get("vae-mnist-d2").sample(**{"n": 2} | request_)
    assert "\n" not in str(caught.value)
    save(own_runs, "classifier-mnist")
    with pytest.raises(ValueError, match="classifier-mnist is a classifier: it does not generate images."):
        runs.get("classifier-mnist").sample(2)


# artefacts that are not what they should be


def rewrite(folder, change, name=NAME):
    """Change a description and its own sha256: it is whole, only wrong."""
    file = folder / f"{name}.json"
    meta = json.loads(file.read_text())
    meta.pop("description_sha256")
    change(meta)
    file.write_bytes(store.json_bytes(meta | {"description_sha256": store.sha256(store.json_bytes(meta))}))


def set_to(value, *keys):
    def change(meta):
        for key in keys[:-1]:
            meta = meta[key]
        meta[keys[-1]] = value

    return change


WRONG = {
    "config null": set_to(None, "config"), "config list": set_to([], "config"), "no paper": set_to(None, "config", "paper"),
    "paper list": set_to([1], "config", "paper"), "unknown paper": set_to("nvae", "config", "paper"),
    "model null": set_to(None, "config", "model"), "model list": set_to([2], "config", "model"),
    "argument unknown": set_to(1, "config", "model", "nope"), "size text": set_to("wide", "config", "model", "encoder"),
    "size of text": set_to({"widths": ["wide"]}, "config", "model", "decoder"),
    "huge": set_to({"widths": [10**9]}, "config", "model", "encoder"), "no data": lambda m: m["config"].pop("data"),
    "uses text": set_to("x", "config", "uses"), "uses unknown": set_to({"of": "x"}, "config", "uses"),
    "metrics null": set_to(None, "metrics"), "metrics list": set_to([1.0], "metrics"), "a metric null": set_to(None, "metrics", "elbo"),
    "history null": set_to(None, "history"), "profile null": set_to(None, "profile"), "no profile": lambda m: m.pop("profile"),
    "used null": set_to(None, "used"), "used list": set_to([1], "used"), "another name": set_to("vae-mnist-d2", "name"),
    "name of another": set_to("vae-mnist-d2", "config", "name"), "sha256 of another": set_to("0" * 64, "sha256"),
    "deep": set_to(json.loads("[" * 900 + "]" * 900), "config", "objective"),
}  # fmt: skip
BYTES = {
    "empty": b"", "half": b'{"sha256": "', "null": b"null", "list": b"[]", "number": b"5", "text": b'"x"', "object": b"{}",
    "NaN": b'{"sha256": NaN}', "Infinity": b'{"a": Infinity}', "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 100_000, "surrogate": rb'{"sha256": "\ud800"}', "latin": b'{"a": "\xff"}', "zeros": bytes(100),
}  # fmt: skip


@pytest.fixture
def broken(own_runs, narrow, monkeypatch):
    """One good artefact; the catalogue has two runs."""
    save(own_runs, NAME)
    rows = {name: catalogue.config(name) for name in (NAME, "vae-mnist-d2")}
    monkeypatch.setattr(catalogue, "runs", lambda: rows)
    return own_runs


def assert_named(broken, capsys, states=("damaged",)):
    """All that looks at a bad artefact names it and goes on; the error of `get` is one sentence."""
    assert runs.state(NAME) in states
    for function in (runs.get, lambda name: runs.summary(name, "elbo")):
        try:
            with warnings.catch_warnings(action="ignore"):
                function(NAME)
        except (store.Corrupt, LookupError, OSError) as error:
            text = error.args[-1] if isinstance(error, KeyError) else str(error)
            assert "\n" not in text and len(text) < 600
    assert command_line.main(["runs"]) == 0
    out = capsys.readouterr().out
    assert f"{NAME} " in out and any(state in out for state in states) and "vae-mnist-d2" in out
    assert command_line.main(["doctor"]) == 1
    assert f": {NAME}" in capsys.readouterr().out
    trained = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command_line, "_publish", trained.append)
        assert command_line.main(["train", "--all"]) == 0
    assert trained == [NAME, "vae-mnist-d2"]
    capsys.readouterr()


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_description_is_named_and_stops_nothing(how, broken, capsys):
    rewrite(broken, WRONG[how])
    if how == "a metric null":  # the weights are good all the same
        assert runs.state(NAME) == "ready"
        with pytest.raises(LookupError, match=f"{NAME} has no number 'elbo'"):
            runs.summary(NAME, "elbo")
        return
    assert_named(broken, capsys, ("damaged", "stale"))


@pytest.mark.parametrize("how", BYTES)
def test_bytes_that_are_no_description_are_named_and_stop_nothing(how, broken, capsys):
    (broken / f"{NAME}.json").write_bytes(BYTES[how])
    with pytest.raises(store.Corrupt):
        runs.get(NAME)
    assert_named(broken, capsys)


@pytest.mark.parametrize("end", [".json", ".safetensors"])
def test_a_folder_in_place_of_a_file(end, broken, capsys):
    (broken / f"{NAME}{end}").unlink()
    (broken / f"{NAME}{end}").mkdir()
    assert_named(broken, capsys)


@pytest.mark.parametrize("content", [b"", b"x", bytes(8), (2**63).to_bytes(8, "little"), b"\x02" + bytes(7) + b"{}"])
def test_weights_that_are_none_under_a_right_sha256(content, broken, capsys):
    (broken / f"{NAME}.safetensors").write_bytes(content)
    assert_named(broken, capsys)
    rewrite(broken, set_to(store.sha256(content), "sha256"))
    with pytest.raises(store.Corrupt) as caught:
        runs.get(NAME)
    assert "\n" not in str(caught.value)
    if runs.state(NAME) != "ready":  # a file of no tensors at all is a whole one
        assert_named(broken, capsys)


def test_weights_of_another_architecture_are_one_sentence(broken):
    tensors, meta = store.load(broken / NAME)
    del tensors["encoder.net.1.weight"]
    store.save(broken / NAME, tensors | {"more": torch.zeros(2)}, meta)
    with pytest.raises(store.Corrupt, match=f"{NAME} does not fit its own configuration: .*more") as caught:
        runs.get(NAME)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["vae-mnist-d2", "vae-cifar10-d200", "classifier-mnist", "ae-mnist-d4"])
def test_both_files_of_another_run_are_not_taken_for_this_one(other, own_runs, narrow, capsys):
    for name in (NAME, other):
        save(own_runs, name, metrics={"elbo": -5.0})
    for end in (".json", ".safetensors"):
        shutil.copy(own_runs / f"{other}{end}", own_runs / f"{NAME}{end}")
    assert runs.state(NAME) == "damaged" and runs.state(other) == "ready"
    for function in (runs.get, runs.describe, runs.metrics, lambda name: runs.summary(name, "elbo")):
        with pytest.raises(store.Corrupt, match=f"{NAME}.json describes another artefact, '{other}'"):
            function(NAME)


# making them


def files(folder):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir() if p.is_file()}


def test_publish_makes_what_is_needed_first_and_the_second_time_does_nothing(smoke, narrow, capsys):
    names = [NAME, "ae-mnist-d4"]
    assert command_line.main(["train", *names]) == 0
    out = capsys.readouterr().out
    assert "0 ready, 2 to train (profile smoke)" in out
    own = smoke / "smoke"
    before = files(own)
    all_of_them = [*names, *MNIST_RULERS]
    assert set(before) == {f"{name}{end}" for name in all_of_them for end in (".json", ".safetensors")}
    assert [runs.state(name) for name in all_of_them] == ["ready"] * 4
    assert not list((store.cache_dir() / "checkpoints").glob("*"))
    assert command_line.main(["train", *names]) == 0
    assert capsys.readouterr().out == "2 ready, 0 to train (profile smoke).\n"
    assert files(own) == before
    for name in names:
        run, conf = quietly(name), catalogue.config(name)
        assert run.meta["steps"] == run.history["step"][-1] == 8 and run.meta["stand_in"]
        assert run.meta["config"] == json.loads(json.dumps(conf.record())) and run.meta["ruler"] == "mnist"
        assert run.meta["parameters"] == nets.parameters(run.model)
        assert run.meta["versions"]["torch"] == torch.__version__ and "threads" in run.meta["hardware"]
        assert run.meta["wall_s"] == pytest.approx(sum(run.history["seconds"]), abs=0.1)
        assert run.meta["profile"] == "smoke" and run.meta["precision"] in ("float32", "bfloat16")
        assert run.metrics["n"] == 100


def test_what_a_run_needs_is_missed_before_the_training_and_not_after_it(smoke, narrow, monkeypatch):
    monkeypatch.setattr(train, "loop", None)
    for name, missed in ((NAME, "classifier-mnist"), ("encoder-mnist-d4", NAME)):
        with pytest.raises(store.StoreError, match=f"The artefact {missed} is not in"):
            runs.get(name, retrain=True)


def test_what_the_release_has_is_not_trained(smoke, narrow, monkeypatch):
    """An installed package has no artefacts at first: the classifier comes from where they are."""
    artefact, asked, begun = store.artefact, [], []

    def downloaded(name, weights=True):
        if name not in asked and name.startswith(("classifier", "contrast")):
            save(store.own_dir(), name, profile="smoke")
        asked.append(name)
        return artefact(name, weights)

    begin = runs.begin
    monkeypatch.setattr(store, "artefact", downloaded)
    monkeypatch.setattr(runs, "begin", lambda conf, dataset: begun.append(conf.name) or begin(conf, dataset))
    runs.publish("ae-mnist-d4")
    assert begun == ["ae-mnist-d4"] and set(MNIST_RULERS) <= set(asked)


def test_publish_trains_the_decoder_that_an_encoder_is_for(smoke, narrow, capsys):
    name = "encoder-mnist-d4"
    runs.publish(name)
    own = smoke / "smoke"
    assert {p.stem for p in own.iterdir()} == {name, NAME, *MNIST_RULERS}
    before = files(own)
    kept, meta = store.load(own / name)
    assert {key.split(".")[0] for key in kept} == {"encoder"}
    assert meta["used"] == {NAME: store.sha256(own / f"{NAME}.safetensors")}
    runs.publish(name)
    again = files(own)
    assert {key for key in before if before[key] != again[key]} <= {f"{name}.json", f"{name}.safetensors"}
    assert again[f"{name}.safetensors"][1] == before[f"{name}.safetensors"][1]
    (own / f"{NAME}.json").write_text("{")
    assert runs.state(name) == "stale", "what it is for is damaged"


def test_a_checkpoint_for_another_decoder_is_not_gone_on_from(smoke, narrow, monkeypatch):
    folders = []
    loop = train.loop

    def noted(step, batches, steps, checkpoint=None, *others, **more):
        folders.append(checkpoint)
        return loop(step, batches, steps, checkpoint, *others, **more)

    monkeypatch.setattr(train, "loop", noted)
    (smoke / "smoke").mkdir()
    for name in MNIST_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    for seed in (4, 5):
        save(smoke / "smoke", NAME, profile="smoke", keep=lambda m, seed=seed: m.update(seed=seed))
        with torch.no_grad():
            model = runs.get(NAME).model
            next(model.parameters()).add_(seed)
            runs.save(dataclasses.replace(runs.get(NAME), model=model))
        runs.publish("encoder-mnist-d4")
    assert len(set(folders)) == 2


def test_a_quick_run_leaves_the_published_ones_alone(own_runs, narrow, monkeypatch, capsys):
    """Neither over them nor among them: full, nothing has changed."""
    for name in (*MNIST_RULERS, "ae-mnist-d2"):
        save(own_runs, name)
    before, names = files(own_runs), runs.names()
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    monkeypatch.delenv("GENCORE_DATA", raising=False)
    assert runs.state("ae-mnist-d2") == "ready", "the published one is as good"
    assert command_line.main(["train", "ae-mnist-d2", "--again"]) == 0
    assert runs.get("ae-mnist-d2").meta["profile"] == "smoke", "under smoke, smoke's own come first"
    assert runs.get("classifier-mnist").meta["profile"] == "full", "and what it needs was there"
    good = (own_runs / "smoke" / "ae-mnist-d2.json").read_text()
    (own_runs / "smoke" / "ae-mnist-d2.json").write_text("{")
    assert runs.state("ae-mnist-d2") == "damaged", "and it is smoke's own state"
    (own_runs / "smoke" / "ae-mnist-d2.json").write_text(good)
    monkeypatch.delenv("GENCORE_PROFILE")
    assert files(own_runs) == before and runs.names() == names
    assert quietly("ae-mnist-d2").meta["profile"] == "full"
    assert {p.stem for p in (own_runs / "smoke").iterdir()} == {"ae-mnist-d2"}


def test_a_quick_run_does_not_go_to_the_checkout(monkeypatch, bare, tmp_path):
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    place = tmp_path / "book" / "runs"
    place.mkdir(parents=True)
    monkeypatch.setattr(store, "write_registry", lambda: pytest.fail("a quick run is not registered"))
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    monkeypatch.setitem(catalogue.runs(), "mini", tiny())
    for profile in ("smoke", "quick"):
        monkeypatch.setenv("GENCORE_PROFILE", profile)
        runs.publish("mini")
        assert not list(place.iterdir())
        assert (store.cache_dir() / "runs" / profile / "mini.json").exists()


def tiny(**changes):
    """A run on the embedded images, which takes a second under any profile."""
    conf = catalogue.config("classifier-fashion-mnist")
    values = {"name": "mini", "data": "fashion-mini", "epochs": 1, "batch": 1000, "quick": 2}
    return dataclasses.replace(conf, model=conf.model | {"width": 2}, **values | changes)


def test_a_full_run_in_the_checkout_keeps_the_registry(monkeypatch, bare, tmp_path):
    """Published into book/runs, an artefact is named in the registry; elsewhere it is not."""
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    (tmp_path / "book" / "runs").mkdir(parents=True)
    written = []
    monkeypatch.setattr(store, "write_registry", lambda: written.append(1))
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    monkeypatch.setitem(catalogue.runs(), "mini", tiny())
    runs.publish("mini")
    assert written == [1] and (tmp_path / "book" / "runs" / "mini.json").exists()
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "elsewhere"))
    runs.publish("mini")
    assert written == [1] and (tmp_path / "elsewhere" / "mini.json").exists()


@pytest.mark.parametrize("name", [*NUMBERS_ONLY, "vae-mnist-d2"])
def test_a_run_that_keeps_no_weights_is_published_as_numbers(name, smoke, narrow, monkeypatch, capsys):
    (smoke / "smoke").mkdir()
    for ruler in MNIST_RULERS:
        save(smoke / "smoke", ruler, profile="smoke")
    assert command_line.main(["train", name]) == 0
    told, kept = capsys.readouterr().out, name == "vae-mnist-d2"
    assert (f"{store.own_dir()} (its numbers, not its weights), " in told) == (not kept)
    assert "repetition" not in told
    assert {p.suffix for p in smoke.rglob(f"{name}.*")} == ({".json", ".safetensors"} if kept else {".json"})
    assert runs.metrics(name)["mse"] > 0 and runs.state(name) == "ready"
    assert command_line.main(["train", name]) == 0 and "1 ready, 0 to train" in capsys.readouterr().out


def test_a_run_of_ones_own_keeps_its_weights_though_its_row_keeps_none(smoke, narrow, tmp_path):
    (smoke / "smoke").mkdir()
    for name in OWN_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    own_images(tmp_path / "own")
    words = ["train", "vae-mnist-d20-binary", "--data", str(tmp_path / "own"), "--name", "mine"]
    assert command_line.main(words) == 0
    assert quietly("mine").config.weights and quietly("mine").sample(2).shape == (2, 3, 20, 20)


def test_the_budget_of_a_profile(monkeypatch, bare):
    """full: every epoch; quick: what the run says; smoke: a few; none makes a run longer."""
    asked = []
    monkeypatch.setattr(train, "loop", lambda step, batches, steps, *a, **k: asked.append(steps) or iter(()))
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    conf = tiny(epochs=12, batch=10, quick=300)
    for profile in ("full", "quick", "smoke"):
        monkeypatch.setenv("GENCORE_PROFILE", profile)
        runs.fresh(conf)
    assert asked == [12 * 600, 300, runs.STEPS["smoke"]]
    runs.fresh(dataclasses.replace(conf, epochs=1, batch=3000))
    assert asked[-1] == 2, "a run that is shorter than the budget stays as it is"


def test_the_schedule_is_that_of_the_run(monkeypatch, smoke):
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    for schedule in train.SCHEDULES:
        seen = []
        monkeypatch.setattr(train, "loop", lambda *a, seen=seen, **k: seen.append(a[5]) or iter(()))
        runs.fresh(tiny(schedule=schedule))
        assert seen == [train.SCHEDULES[schedule]]


def test_retraining_leaves_the_artefact_alone(smoke, narrow, capsys):
    (smoke / "smoke").mkdir()
    save(smoke / "smoke", "classifier-fashion-mnist", profile="smoke")
    before = files(smoke / "smoke")
    run = runs.get("classifier-fashion-mnist", retrain=True)
    assert run.meta["profile"] == "smoke" and run.history["step"] == [8]
    assert files(smoke / "smoke") == before
    assert 0 <= run.metrics["accuracy"] <= 1 and not run.model.training
    assert "Done: step 8" in capsys.readouterr().out


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_is_interrupted_is_never_published(at, smoke, narrow, monkeypatch, capsys):
    """Not even before its first step; the command line says how to go on."""
    begin = runs.begin

    def stopped(*arguments):
        step = begin(*arguments)
        calls = []

        class Stopped:
            parts, model = step.parts, step.model

            def __call__(self, batch):
                calls.append(1)
                if len(calls) == at:
                    raise KeyboardInterrupt
                return step(batch)

        return Stopped()

    monkeypatch.setattr(runs, "begin", stopped)
    with pytest.raises(KeyboardInterrupt):
        runs.publish("classifier-mnist", progress=True)
    assert not list(smoke.rglob("*.json"))
    assert command_line.main(["train", "classifier-mnist"]) == 130
    assert "goes on from the last checkpoint" in capsys.readouterr().err
    assert not list(smoke.rglob("*.json")) and runs.state("classifier-mnist") == "missing"
    # in a notebook, the same stop leaves a model that can be looked at
    run = runs.get("classifier-mnist", retrain=True)
    assert all(torch.isfinite(p).all() for p in run.model.parameters()) and "accuracy" in run.metrics


def test_networks_that_are_dead_are_not_published(monkeypatch, bare, own_runs):
    """Under full; the checkpoint stays, so nothing has to be trained again to look at it."""
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    conf = tiny(least_live=0.9)
    measured = {"live_units": 0.99, "live_units_least": 0.5}
    monkeypatch.setattr(conf.paper, "measure", lambda *a: measured)
    with pytest.raises(ValueError, match="mini is not published: .* only 50% of the hidden units .*and 90% should"):
        runs.publish(conf)
    assert not list(own_runs.iterdir())
    measured["live_units_least"] = 0.9
    runs.publish(conf)
    assert runs.metrics("mini") == {"live_units": 0.99, "live_units_least": 0.9}


def test_the_weights_that_are_measured_are_those_that_are_kept(monkeypatch, bare, own_runs):
    """Rounded to half precision before the measurement; a run that keeps all its bits keeps them."""
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    for half in (True, False):
        seen = []
        conf = tiny(half=half)
        monkeypatch.setattr(conf.paper, "measure", lambda model, *a, seen=seen: seen.append({k: v.clone() for k, v in model.state_dict().items()}) or {"a": 1})
        runs.publish(conf)
        kept = store.load(own_runs / "mini")[0]
        assert any(not torch.equal(v.half().float(), v) for v in seen[0].values() if v.is_floating_point()) != half
        assert all(torch.equal(kept[key].to(value.dtype), value) for key, value in seen[0].items())
        assert kept["head.weight"].dtype == (torch.float16 if half else torch.float32)


def test_the_linear_run_is_measured_against_its_optimum(smoke, monkeypatch):
    g = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (300, 1, 5, 5), dtype=torch.uint8, generator=g)
    split = data.Split(images, torch.zeros(300).long())
    monkeypatch.setattr(data, "load", lambda name: data.Dataset(name, split, split))
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    row = catalogue.config("vae-mnist-linear")
    conf = dataclasses.replace(row, model={"shape": [1, 5, 5], "latent_dim": 3}, batch=10)
    run = runs.fresh(conf)
    optimum = linear.ppca(*linear.moments(images), 3)[2].item()
    assert run.metrics["ppca"] == pytest.approx(optimum, rel=1e-5)
    assert run.metrics["ppca"] - 0.2 < run.metrics["elbo"] < run.metrics["ppca"] + 1e-3
    assert next(run.model.parameters()).dtype == torch.float32


# the reader's own images


def own_images(folder, size=20, colour=True, n=100):
    """A folder of blobs whose colour and place differ."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    for i in range(n):
        cx, cy, *rgb = draw.random(5)
        blob = np.exp(-40 * ((x - cx) ** 2 + (y - cy) ** 2))[..., None] * (255 * np.array(rgb))
        pixels = blob.round().astype(np.uint8)
        Image.fromarray(pixels if colour else pixels[..., 0]).save(folder / f"{i}.png")
    return folder


def own_file(file, size=20, colour=True, n=100):
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (n, size, size, 3 if colour else 1), np.uint8)
    np.savez(file, train_images=images, test_images=images[: n * 4 // 5])
    return file


@pytest.mark.parametrize(
    ("run", "size", "colour", "npz"),
    [("vae-mnist-d2", 20, True, False), ("vae-mnist-d2", 28, False, True), ("ae-mnist-d2", 20, False, False),
     ("vae-mnist-d2", 64, True, True)],
)  # fmt: skip
def test_a_run_on_ones_own_images_is_a_run_like_any_other(run, size, colour, npz, smoke, narrow, tmp_path, capsys):
    """From the command line: trained, drawn from, measured, listed."""
    make = own_file if npz else own_images
    place = make(tmp_path / ("own.npz" if npz else "own"), size, colour)
    main = command_line.main
    (smoke / "smoke").mkdir()
    for name in OWN_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    assert main(["train", run, "--data", str(place), "--name", "mine"]) == 0
    shape = (3 if colour else 1, size, size)
    assert main(["sample", "mine", "-n", "4", "-o", str(tmp_path / "grid.png")]) == 0
    assert Image.open(tmp_path / "grid.png").size == (2 * size, 2 * size)
    capsys.readouterr()
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["mine", "ready", "smoke"] and runs.names()[-1] == "mine"
    mine = quietly("mine")
    assert mine.sample(3).shape == (3, *shape) and mine.data.shape == shape
    ruler = "cifar10" if colour else "fashion-mnist"
    assert mine.meta["ruler"] == ruler and not mine.meta["stand_in"]
    metric = "elbo" if "elbo" in mine.metrics else "mse"
    assert runs.summary("mine", metric) == (mine.metrics[metric], None, 1)
    if "n" in mine.metrics and npz:
        assert mine.metrics["n"] == 80 and mine.metrics["frechet_prior"] > 0


def test_a_run_of_ones_own_is_trained_again_by_its_name_and_never_replaced_unasked(smoke, narrow, tmp_path, capsys):
    (smoke / "smoke").mkdir()
    for name in OWN_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    one, two = str(own_images(tmp_path / "one")), str(own_images(tmp_path / "two"))
    main, file = command_line.main, smoke / "smoke" / "mine.json"
    assert main(["train", "vae-mnist-d2", "--data", one, "--name", "mine"]) == 0
    before = file.read_bytes()
    assert main(["train", "vae-mnist-d2", "--data", one, "--name", "mine"]) == 0
    assert "mine is ready." in capsys.readouterr().out and file.read_bytes() == before
    assert main(["train", "vae-mnist-d2", "--data", two, "--name", "mine"]) == 1
    assert f"There is a run mine already, trained on {one}: choose" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main(["train", "mine", "--again"]) == 0 and runs.known("mine").data == one
    assert main(["train", "vae-mnist-d2", "--data", two, "--name", "mine", "--again"]) == 0
    assert runs.known("mine").data == two


def test_a_dataset_of_the_table_is_meant_by_its_name(smoke, narrow, capsys):
    (smoke / "smoke").mkdir()
    for name in OWN_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    words = ["train", "vae-mnist-d2", "--data", "fashion-mini", "--name", "clothes"]
    assert command_line.main(words) == 0
    assert runs.known("clothes").data == "fashion-mini" and runs.state("clothes") == "ready"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--name", "mine"], "train RUN --data PATH --name NEW"), (["--data", "own"], "train RUN --data PATH --name NEW"),
     (["--data", "own", "--name", "vae-mnist-d4"], "'vae-mnist-d4' cannot be the name of this run"),
     (["--data", "own", "--name", "../x"], "'../x' cannot be the name of this run"),
     (["--data", "own", "--name", ".x"], "'.x' cannot be the name of this run"),
     (["--data", "odd", "--name", "mine"], "its side must be a multiple of 4, from 8; it is 22"),
     (["--data", "five", "--name", "mine"], "five holds 5 images (.png, .jpg, .jpeg, .bmp, .gif, .webp); at least 10 are needed"),
     (["--data", "nowhere", "--name", "mine"], "nowhere': it is no file or folder either")],
)  # fmt: skip
def test_own_images_that_will_not_do_are_one_sentence(words, sentence, smoke, narrow, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own_images(tmp_path / "own"), own_images(tmp_path / "odd", 22), own_images(tmp_path / "five", n=5)
    (smoke / "smoke").mkdir()
    for name in OWN_RULERS:
        save(smoke / "smoke", name, profile="smoke")
    assert command_line.main(["train", "vae-mnist-d2", *words]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.startswith("gencore: ") and error.count("\n") == 1
    assert "mine" not in runs.names()


def test_a_checkpoint_of_a_finished_run_is_gone(smoke, monkeypatch):
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    removed = []
    monkeypatch.setattr(checkpoint, "remove", removed.append)
    runs.publish(tiny())
    assert len(removed) == 1 and removed[0].parent == store.cache_dir() / "checkpoints"
    assert removed[0].name.startswith("mini-smoke-")


def test_a_run_knows_its_data(smoke, narrow):
    (smoke / "smoke").mkdir()
    save(smoke / "smoke", NAME, profile="smoke")
    assert runs.get(NAME).data.name == "mnist" and runs.get(NAME).data.stand_in
