"""The catalogue: rows that say what they are, comparisons that are fair, records that stay valid."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from gencore import ae, catalogue, classifier, contrast, data, ppca, runs, vae
from gencore.catalogue import Config, differences

ROWS = catalogue.runs()
NAME = re.compile(r"[a-z0-9]+-[a-z0-9-]+?(-s[1-9])?")


def fields(name):
    return ROWS[name].record()


def unlike(one, other):
    return {key for key in one if one[key] != other[key]}


# rows


@pytest.mark.parametrize("name", ROWS)
def test_a_name_says_what_the_run_is(name):
    conf = ROWS[name]
    assert conf.name == name and NAME.fullmatch(name)
    row = data.TABLE[conf.data]
    told = name.removesuffix(f"-s{conf.seed}")
    assert conf.data in told or conf.data.removesuffix("10") in told
    linear = catalogue.short_name(conf.paper) == "linear"
    assert name.split("-")[0] == ("vae" if linear else catalogue.short_name(conf.paper))
    if match := re.search(r"-d(\d+)", name):
        of = ROWS[conf.uses.get("of", name)]
        assert of.model["latent_dim"] == conf.model.get("latent_dim", int(match[1])) == int(match[1])
    channels, side, _ = row.shape if len(row.shape) == 3 else (None, None, None)
    assert conf.model.get("channels", channels) == channels
    assert conf.model.get("size", side) == side
    assert conf.seed == (int(name[-1]) if re.search(r"-s\d$", name) else 0)
    assert runs.numbers_only(name) == (not conf.weights)


@pytest.mark.parametrize("name", ROWS)
def test_repetitions_differ_in_the_seed_and_in_what_is_kept_alone(name):
    first, *others = (fields(n) for n in catalogue.seeds(name))
    for other in others:
        assert "seed" in unlike(first, other) <= {"name", "seed", "snapshots", "weights"}
        assert not other["weights"] and not other["snapshots"], "numbers only"
    assert catalogue.seeds(name)[0] == name


def test_headline_runs_have_three_seeds():
    assert catalogue.seeds("vae-mnist-d2") == ["vae-mnist-d2", "vae-mnist-d2-s1", "vae-mnist-d2-s2"]
    found = ["ae-mnist-d2", "ae-mnist-d2-s1", "ae-mnist-d2-s2"]
    assert catalogue.seeds("ae-mnist-d2") == found, "and not those of ae-mnist-d20"
    assert len(catalogue.seeds("vae-mnist-d20")) == 3, "and not those of vae-mnist-d20-binary"
    repeated = {name.removesuffix(f"-s{conf.seed}") for name, conf in ROWS.items() if conf.seed}
    assert {len(catalogue.seeds(name)) for name in repeated} == {3}
    first = {name: conf for name, conf in ROWS.items() if conf.paper in (vae, ae) and not conf.seed}
    digits = {name for name, conf in first.items() if conf.data == "mnist"}
    photographs = {"vae-cifar10-d200", "vae-cifar10-d200-sigma", "ae-cifar10-d200"}
    assert repeated == digits | photographs and len(digits) == 13
    assert digits | photographs < first.keys(), "of the others, one changes one thing in one of these"


def test_nine_of_ten_units_of_the_worst_layer_have_to_be_alive_in_every_row():
    assert {conf.least_live for conf in ROWS.values()} == {Config("x", vae, "mnist").least_live} == {0.9}


def test_codes_of_all_vaes_with_the_networks_for_photographs_are_standardised():
    vaes = {name: conf for name, conf in ROWS.items() if conf.paper is vae}
    photographs = {name for name, conf in vaes.items() if conf.model.get("likelihood") == "gaussian"}
    asked = {name for name, conf in ROWS.items() if conf.objective.get("standardised")}
    assert asked == photographs and len(asked) > 10


def test_what_the_book_compares_differs_in_one_thing():
    """Twins: the same network, data and budget; over latent dimensions nothing else changes."""
    free = {"name", "snapshots", "weights"}
    for name, conf in ROWS.items():
        if conf.paper is ae:
            twin = name.replace("ae-", "vae-", 1)
            twin = twin if twin in ROWS else f"{twin}-sigma"
            assert unlike(fields(name), fields(twin)) <= free | {"paper", "model", "objective"}
            asked = fields(twin)["objective"] | conf.objective
            assert asked == fields(twin)["objective"] and asked.keys() - conf.objective.keys() <= {"standardised"}
            deterministic = {key: value for key, value in fields(twin)["model"].items() if key != "sigma"}
            assert fields(name)["model"] == deterministic
        match = re.fullmatch(r"(vae|ae|encoder)-mnist-d\d+", name)
        if match:
            first = next(n for n in ROWS if n.startswith(f"{match[1]}-mnist-d"))
            one, other = fields(first), fields(name)
            assert unlike(one, other) <= free | {"model", "uses"}
            assert unlike(one["model"], other["model"]) <= {"latent_dim"}
    grey, binary = fields("vae-mnist-d20"), fields("vae-mnist-d20-binary")
    assert unlike(grey, binary) <= free | {"model"}
    assert unlike(grey["model"] | {"likelihood": "bernoulli"}, binary["model"]) == {"likelihood"}
    mean = differences(fields("vae-cifar10-d200"), ROWS["vae-cifar10-d200-mean"])
    assert set(mean) <= free | {"objective"}


def changed(name, other):
    """What differs between the trainings of two rows: fields, and in their place arguments of the model."""
    found = set(differences(fields(name), ROWS[other])) - {"snapshots"}
    one, two = ({**catalogue._arguments(ROWS[n].paper.Model), **fields(n)["model"]} for n in (name, other))
    return found - {"model"} | {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}


def test_runs_on_photographs_change_one_factor_at_a_time():
    base = "vae-cifar10-d200-sigma"
    for other, factor in {
        "vae-cifar10-d200": {"sigma"}, f"{base}-wide": {"encoder", "decoder"}, f"{base}-long": {"epochs"},
        **{f"vae-cifar10-d{d}-sigma": {"latent_dim"} for d in (10, 32, 64, 128, 512)},
    }.items():  # fmt: skip
        assert changed(base, other) == factor, other
    assert changed("vae-cifar10-d200", "vae-cifar10-d200-mean") == {"objective"}
    for step in ("mnist-32", "fashion-mnist-32", "cifar10-grey", "cifar10-smooth"):
        found = changed("vae-cifar10-d64-sigma", f"vae-{step}-d64-sigma")
        colours = {"channels"} if data.TABLE[step].shape[0] == 1 else set()
        assert found == {"data"} | colours, step


def test_beside_each_dimension_and_each_step_of_the_ladder_there_is_a_closed_form():
    for conf in list(ROWS.values()):
        if conf.paper in (vae, ae):
            solved = ROWS[f"ppca-{conf.data}-d{conf.model['latent_dim']}"]
            assert solved.model == {"latent_dim": conf.model["latent_dim"], "shape": list(data.TABLE[conf.data].shape)}


def test_what_a_run_needs_comes_before_it():
    order = list(ROWS)
    for name, conf in ROWS.items():
        for other in catalogue.needed(conf):
            assert order.index(other) < order.index(name)
        assert set(conf.uses.values()) <= set(catalogue.needed(conf))
        networks = {f"{kind}-{data.TABLE[conf.data].ruler}" for kind in ("classifier", "contrast")}
        measures = conf.paper in (classifier, contrast)
        assert networks & set(catalogue.needed(conf)) == (set() if measures else networks)
    toy = Config("toy", vae, "ring")
    assert catalogue.needed(toy) == [], "points are measured by their coordinates"


def solves_again(name):
    """Whether its step solves an eigenvalue problem of 3072 pixels that another row's has solved."""
    conf = ROWS[name]
    large = conf.paper is ppca and np.prod(conf.model["shape"]) > 1024
    return large and name != "ppca-cifar10-d10"


@pytest.mark.parametrize("name", [n for n in ROWS if not ROWS[n].uses and not solves_again(n)])
def test_every_model_can_be_built_and_a_step_made_for_it(name):
    conf = ROWS[name]
    shape = data.TABLE[conf.data].shape
    some = conf.model["latent_dim"] + 20 if conf.paper is ppca else 20  # a noise is left to be solved for
    images = torch.randint(0, 256, (some, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = data.Split(images, torch.zeros(some).long())
    step = runs.begin(conf, data.Dataset(conf.data, split, split))
    assert type(step) is conf.paper.Step and type(step.model) is conf.paper.Model
    rates = {g["lr"] for p in step.parts.values() if isinstance(p, torch.optim.Optimizer) for g in p.param_groups}
    assert rates == (set() if conf.paper is ppca else {conf.lr}), "what is solved has no optimiser"
    again = runs.begin(conf, data.Dataset(conf.data, split, split))
    one, other = step.model.state_dict(), again.model.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("name", "near"),
    [("vae-mnist-10", "vae-mnist-d10"), ("ae_mnist_d4", "ae-mnist-d4"), ("vae-cifar-d200", "vae-cifar10-d200")],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest(name, near):
    for function in (runs.get, catalogue.config, catalogue.seeds, runs.publish, runs.describe):
        with pytest.raises(LookupError) as caught:
            function(name)
        assert str(caught.value) == (
            f"There is no run {name!r}. Did you mean {near!r}? `python -m gencore runs` lists them."
        )
    with pytest.raises(LookupError, match=r"There is no run 'zzz'\. `python"):
        catalogue.config("zzz")


def test_the_catalogue_is_one_dict_and_a_row_does_not_change():
    assert catalogue.runs() is catalogue.runs()
    with pytest.raises(dataclasses.FrozenInstanceError):
        ROWS["vae-mnist-d2"].lr = 1


# records


def record(name="vae-cifar10-d200-mean"):
    """A configuration as it comes back from an artefact's JSON."""
    return json.loads(json.dumps(fields(name)))


@pytest.mark.parametrize("name", ROWS)
def test_a_record_is_current_and_becomes_the_row_again(name):
    found = record(name)
    assert differences(found, ROWS[name]) == []
    again = catalogue.from_record(found)
    assert again.record() == fields(name) and again.paper is ROWS[name].paper


def test_a_new_option_makes_nothing_stale():
    """A missing key means the default of today: of the row, of Model, of Step."""
    conf = ROWS["vae-mnist-linear"]
    for key, value in fields("vae-mnist-linear").items():
        default = {f.name: f.default for f in dataclasses.fields(Config)}.get(key)
        shorter = record("vae-mnist-linear")
        del shorter[key]
        same = value == default or (value == {} and key in ("objective", "uses"))
        assert differences(shorter, conf) == ([] if same or key == "name" else [key])


def test_a_new_field_of_the_row_makes_nothing_stale(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Wider(Config):
        clip: float = 0.5

    old = record()
    conf = ROWS[old["name"]]
    values = {f.name: getattr(conf, f.name) for f in dataclasses.fields(conf)}
    monkeypatch.setattr(catalogue, "Config", Wider)
    assert differences(old, Wider(**values)) == []
    assert differences(old, Wider(**values, clip=1.0)) == ["clip"]


def test_a_new_argument_of_model_or_step_makes_nothing_stale(monkeypatch):
    old = record("vae-mnist-d10")
    conf = ROWS["vae-mnist-d10"]

    class Model(vae.Model):
        def __init__(self, latent_dim, channels=1, size=28, encoder=None, decoder=None, likelihood="bernoulli",
                     sigma=1.0, norm=None):  # fmt: skip
            pass

    class Step(vae.Step):
        def __init__(self, model, split=None, lr=1e-3, seed=0, beta=1.0, reduction="sum", free=0.0):
            pass

    monkeypatch.setattr(vae, "Model", Model)
    monkeypatch.setattr(vae, "Step", Step)
    assert differences(old, conf) == []
    written = dataclasses.replace(conf, model=conf.model | {"norm": None, "decoder": None}, objective={"free": 0.0})
    assert differences(old, written) == [], "a default that is written out is no difference"
    assert differences(written.record(), conf) == []
    assert differences(old, dataclasses.replace(conf, objective={"free": 0.1})) == ["objective"]
    assert differences(old, dataclasses.replace(conf, model=conf.model | {"norm": "batch"})) == ["model"]


def test_the_order_of_keys_and_tuples_make_no_difference():
    old = record()
    conf = ROWS[old["name"]]
    turned = {key: dict(reversed(v.items())) if isinstance(v, dict) else v for key, v in reversed(old.items())}
    assert list(turned) != list(old) and differences(turned, conf) == []
    shaped = dataclasses.replace(ROWS["vae-mnist-linear"], model={"latent_dim": 10, "shape": (1, 28, 28)})
    assert differences(record("vae-mnist-linear"), shaped) == []


CHANGES = {
    "paper": ae, "data": "mnist", "model": {"latent_dim": 3}, "objective": {"beta": 2.0}, "uses": {"of": "x"},
    "epochs": 11, "batch": 129, "lr": 1.01e-3, "schedule": "constant", "quick": 599, "half": False, "seed": 1,
    "snapshots": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_every_change_of_the_training_is_named(key):
    conf = Config("x", vae, "cifar10", {"latent_dim": 2}, {"beta": 4.0}, {"of": "y"}, epochs=10, lr=1e-3)
    assert differences(conf.record(), conf) == []
    assert differences(conf.record(), dataclasses.replace(conf, **{key: CHANGES[key]})) == [key]


def test_every_field_is_either_compared_or_said_not_to_be():
    ignored = {"name": "x", "least_live": 0.1, "weights": False}
    assert {f.name for f in dataclasses.fields(Config)} == set(CHANGES) | ignored.keys()
    conf = ROWS["vae-mnist-d2"]
    for key, value in ignored.items():
        assert getattr(conf, key) != value
        assert differences(fields("vae-mnist-d2"), dataclasses.replace(conf, **{key: value})) == []


def test_a_record_of_an_unknown_paper_is_one_sentence():
    with pytest.raises(LookupError, match="x was made by the paper 'nvae', which this gencore does not know; it"):
        catalogue.from_record({"name": "x", "paper": "nvae", "data": "mnist"})
    assert catalogue.from_record(record() | {"later": 1}).name == record()["name"], "a field of another version"


# the reader's own images


def pictures(folder, n=100, shape=(20, 20, 3)):
    folder.mkdir()
    draw = np.random.default_rng(0)
    for i in range(n):
        pixels = draw.integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels.squeeze()).save(folder / f"{i:03}.png")
    return folder


@pytest.mark.parametrize("shape", [(20, 20, 3), (28, 28, 1), (64, 64, 3)])
def test_a_run_on_other_images_takes_their_shape(shape, tmp_path):
    folder = pictures(tmp_path / "pictures", shape=shape)
    for name in ("vae-mnist-d2", "ae-mnist-d4", "vae-cifar10-d200", "vae-mnist-linear", "vae-mnist-d20-binary"):
        conf = catalogue.on_other_images(ROWS[name], folder, "mine")
        assert conf.name == "mine" and conf.data == str(folder) and conf.batch == 90
        height, width, channels = shape
        told = {"channels": channels, "size": height, "shape": [channels, height, width]}
        for key in ROWS[name].model:
            assert conf.model[key] == told.get(key, ROWS[name].model[key])
        left = {"name", "data", "model", "batch"} | ({"weights"} if runs.numbers_only(name) else set())
        assert conf.weights, "those of one's own run are kept"
        assert unlike(conf.record(), fields(name)) <= left
        ruler = "classifier-cifar10" if channels == 3 else "classifier-fashion-mnist"
        assert catalogue.needed(conf) == [ruler, ruler.replace("classifier", "contrast")]
        assert json.loads(json.dumps(conf.record())) == conf.record()


@pytest.mark.parametrize(
    ("name", "n", "shape", "sentence"),
    [("vae-mnist-d2", 100, (20, 24, 1), r"images of shape \(1, 20, 24\) .*; they should be square"),
     ("vae-mnist-d2", 60, (20, 20, 1), "has 54 images to train on; at least 80 are needed"),
     ("classifier-mnist", 100, (20, 20, 1), "classifier-mnist draws no images: choose a run that does")],
)  # fmt: skip
def test_other_images_that_will_not_do_are_one_sentence(name, n, shape, sentence, tmp_path):
    folder = pictures(tmp_path / "pictures", n, shape)
    with pytest.raises(ValueError, match=sentence) as caught:
        catalogue.on_other_images(ROWS[name], folder, "mine")
    assert "\n" not in str(caught.value)


def test_what_a_row_lacks_is_said_when_it_is_written():
    with pytest.raises(ValueError, match="its schedule is 'linear'; it can be cosine, constant"):
        dataclasses.replace(catalogue.config("vae-mnist-d2"), schedule="linear")
    with pytest.raises(ValueError, match="its paper data has no Model, Step, measure, TERMS"):
        dataclasses.replace(catalogue.config("vae-mnist-d2"), paper=data)
