"""evaluate: the blocks that every run is measured by, on models whose answers are known."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from gencore import data, evaluate, latents, linear, metrics, nets


def pixels(n, seed=0, size=4):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, size, size), dtype=torch.uint8, generator=g)


@pytest.fixture
def dataset():
    """300 training and 200 test images of 4 x 4 noise."""
    parts = data.Split(pixels(300), torch.arange(300) % 10), data.Split(pixels(200, 1), torch.arange(200) % 10)
    return data.Dataset("noise", *parts, ruler="mnist", own=True)


@pytest.fixture
def plain_features(monkeypatch):
    """Features without networks: six of the pixels, and for the second network six others."""

    def features(images, ruler, resize=False, network="classifier"):
        assert ruler == "mnist" and resize
        x = np.asarray(images, np.float64) / (255 if images.dtype == torch.uint8 else 1)
        start = {"classifier": 0, "contrast": 7}[network]
        return x.reshape(len(x), -1)[:, start : start + 6]

    monkeypatch.setattr(metrics, "features", features)
    return features


class Identity(nn.Module):
    """An autoencoder that codes an image as itself, plus `shift` in what it decodes."""

    def __init__(self, shift=0.0, **priors):
        super().__init__()
        self.shift = shift
        self.priors = nn.ModuleDict({"prior": latents.Normal(16)} | priors)

    def infer(self, x, generator=None):
        return x.flatten(1)

    def decode(self, z):
        return (z.view(-1, 1, 4, 4) + self.shift).clamp(0, 1)


class Noisy(Identity):
    """Its codes are draws: the image, and noise of 1 % on it."""

    def infer(self, x, generator=None):
        z = x.flatten(1)
        return z if generator is None else z + 0.01 * torch.randn(z.shape, generator=generator)


def fitted(dataset):
    z = evaluate.codes(Identity(), dataset.train.images)
    return {"gaussian": latents.Gaussian.fit(z), "gmm": latents.Mixture.fit(z, 3)}


# codes, decoding, drawing


def test_codes_are_draws_from_the_posterior():
    torch.manual_seed(0)
    model, images = linear.Model(3, (1, 4, 4)), pixels(2300)
    with torch.no_grad():
        model.logvar.copy_(torch.tensor([-1.0, 0.0, 0.5]))
    mu, logvar = model.encode(data.to_unit(images))
    z = evaluate.codes(model, images)
    standard = ((z - mu) / (logvar / 2).exp()).detach().flatten().numpy()
    assert stats.kstest(standard, "norm").pvalue > 1e-3
    chunks = [standard.reshape(-1, 3)[k : k + 1000] for k in (0, 1000)]
    assert not np.allclose(*chunks), "each chunk has noise of its own"
    torch.manual_seed(1)
    assert torch.equal(z, evaluate.codes(model, images)) and not z.requires_grad
    assert not torch.equal(z, evaluate.codes(model, images, seed=1)), "the seed decides"


def test_codes_of_an_autoencoder_are_its_codes():
    images = pixels(1500)
    assert torch.equal(evaluate.codes(Identity(), images), images.flatten(1) / 255)


def test_reconstruct_decodes_the_mean_of_the_posterior():
    images = pixels(1200)
    for model in (Identity(), Noisy()):
        assert torch.equal(evaluate.reconstruct(model, images), images / 255)
    z = torch.rand(2001, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(evaluate.decode(Identity(), z), Identity().decode(z)), "in chunks, and in order"


@pytest.mark.parametrize("bad", [1.01, -0.01, math.nan, math.inf, -math.inf])
def test_images_outside_of_the_unit_interval_are_one_sentence(bad):
    class Bad(Identity):
        def decode(self, z):
            return torch.full((len(z), 1, 4, 4), 0.5).index_fill_(0, torch.tensor(1), bad)

    with pytest.raises(ValueError, match=r"test_evaluate.Bad decodes images from .*should lie in \[0, 1\]") as caught:
        evaluate.decode(Bad(), torch.zeros(3, 16))
    assert "\n" not in str(caught.value)


def test_points_may_be_anywhere_and_are_numbers():
    class Points(Identity):
        def decode(self, z):
            return 100 * z[:, :2]

    assert evaluate.decode(Points(), torch.ones(3, 16)).tolist() == [[100, 100]] * 3
    with pytest.raises(ValueError, match="decodes images from nan"):
        evaluate.decode(Points(), torch.full((3, 16), math.nan))


def test_a_sample_is_a_decoded_draw_of_the_named_density(dataset):
    model = Identity(**fitted(dataset))
    for prior, density in model.priors.items():
        for seed in (0, 5):
            z = density.sample(1203, torch.Generator().manual_seed(seed))
            found = evaluate.sample(model, 1203, seed, prior)
            assert torch.equal(found, model.decode(z)) and found.dtype == torch.float32
    assert torch.equal(evaluate.sample(model, 9), evaluate.sample(model, 9, 0, "prior"))
    assert not torch.equal(evaluate.sample(model, 9), evaluate.sample(model, 9, 0, "gaussian"))
    turned = Identity()
    turned.priors = nn.ModuleDict({"gaussian": model.priors["gaussian"], "prior": latents.Normal(16)})
    assert torch.equal(evaluate.sample(turned, 9), evaluate.sample(model, 9, 0, "gaussian")), "its first"


def test_a_sample_is_bounded_by_memory(monkeypatch):
    monkeypatch.setattr(evaluate, "MOST_BYTES", 10 * 64)  # ten images of 16 floats
    assert len(evaluate.sample(Identity(), 10)) == 10
    with pytest.raises(ValueError, match="11 images take 0 GB; ask for at most 10 at a time, with another seed"):
        evaluate.sample(Identity(), 11)


def test_a_check_leaves_the_model_as_it_was(dataset):
    for training in (True, False):
        model = Identity().train(training)
        evaluate.check(model, dataset)
        assert model.training == training


# numbers


def test_pixel_errors_of_a_constant_offset():
    """Black images decoded as 0.1: the squared error is 0.01 and the PSNR 20 dB (science 6.13)."""
    black = data.Split(torch.zeros(50, 1, 4, 4, dtype=torch.uint8), torch.zeros(50).long())
    grey = data.Split(black.images + 255, black.labels)  # white, decoded as white
    values = evaluate.pixel_errors(Identity(0.1), data.Dataset("noise", grey, black))
    assert values["mse"] == values["mse_test"] == pytest.approx(0.01, rel=1e-5)
    assert values["mse_train"] == 0 and values["psnr"] == pytest.approx(20, rel=1e-5)


def test_a_perfect_reconstruction_is_at_the_floor(dataset, plain_features):
    values = evaluate.distances(Identity(), dataset, 200)
    real, seen = (plain_features(s.images[:200], "mnist", True) for s in (dataset.test, dataset.train))
    assert values["frechet_floor"] == pytest.approx(metrics.frechet(seen, real), rel=1e-6)
    assert values["kid_floor"] == pytest.approx(metrics.kid(seen, real, size=200)[0], rel=1e-6)
    assert values["frechet_rec"] == pytest.approx(values["frechet_floor"], rel=1e-4)
    for key, split in (("sharpness_rec", dataset.train), ("sharpness_real", dataset.test)):
        assert values[key] == pytest.approx(metrics.sharpness(split.images[:200]), rel=1e-4)
    assert values["n"] == 200 and "sharpness_floor" not in values
    assert values["frechet_ssl_rec"] == pytest.approx(values["frechet_ssl_floor"], rel=1e-4)
    worse = evaluate.distances(Identity(0.3), dataset, 200)
    assert worse["frechet_rec"] > 3 * values["frechet_rec"]
    assert worse["frechet_floor"] == values["frechet_floor"]


def test_each_density_is_measured_as_it_is_drawn(dataset, plain_features):
    model = Identity(**fitted(dataset))
    values = evaluate.distances(model, dataset, 150)
    real = plain_features(dataset.test.images[:150], "mnist", True)
    for prior in model.priors:
        images = evaluate.sample(model, 150, prior=prior)
        fake = plain_features(images, "mnist", True)
        assert values[f"frechet_{prior}"] == pytest.approx(metrics.frechet(fake, real), rel=1e-5)
        assert values[f"kid_{prior}"] == pytest.approx(metrics.kid(fake, real, size=150)[0], rel=1e-5)
        assert values[f"sharpness_{prior}"] == pytest.approx(metrics.sharpness(images), rel=1e-5)
    own = metrics.prdc(real, plain_features(evaluate.sample(model, 150), "mnist", True))
    assert {k: values[k] for k in own} == pytest.approx(own), "those of its own prior"
    last = metrics.prdc(real, plain_features(evaluate.sample(model, 150, prior="gmm"), "mnist", True))
    assert own["recall"] != last["recall"]
    assert [values[f"{k}_gmm"] for k in ("precision", "recall")] == [last["precision"], last["recall"]]
    assert not {"precision_prior", "recall_gaussian", "density_gmm"} & values.keys()
    # of images that are noise in [0, 1], one Gaussian of the codes is nearer than N(0, 1)
    assert values["frechet_gaussian"] < values["frechet_prior"] / 3
    assert values["n"] == 150


def test_every_set_is_measured_on_both_networks(dataset, plain_features):
    model = Identity(0.1, **fitted(dataset))
    values = evaluate.distances(model, dataset, 150)
    real = plain_features(dataset.test.images[:150], "mnist", True, "contrast")
    seen = dataset.train.images[:150]
    sets = {"floor": data.to_unit(seen), "rec": evaluate.reconstruct(model, seen)}
    sets |= {prior: evaluate.sample(model, 150, prior=prior) for prior in model.priors}
    for what, images in sets.items():
        fake = plain_features(images, "mnist", True, "contrast")
        assert values[f"frechet_ssl_{what}"] == pytest.approx(metrics.frechet(fake, real), rel=1e-9)
        assert values[f"kid_ssl_{what}"] == pytest.approx(metrics.kid(fake, real, size=150)[0], rel=1e-9)
        assert values[f"frechet_ssl_{what}"] != values[f"frechet_{what}"]
    assert {k for k in values if "_ssl_" in k} == {f"{kind}_ssl_{what}" for kind in ("frechet", "kid") for what in sets}


def test_all_sets_have_the_size_of_the_smallest_split(dataset, monkeypatch):
    sizes = []
    monkeypatch.setattr(metrics, "features", lambda x, *a: sizes.append(len(x)) or np.random.rand(len(x), 3))
    few = data.Dataset("noise", dataset.train, data.Split(dataset.test.images[:90], dataset.test.labels[:90]), ruler="mnist", own=True)
    assert evaluate.distances(Identity(), few)["n"] == 90 and set(sizes) == {90}
    sizes.clear()
    turned = data.Dataset("noise", few.test, few.train, ruler="mnist", own=True)
    assert evaluate.distances(Identity(), turned)["n"] == 90 and set(sizes) == {90}


def test_a_model_with_one_density_has_its_precision_once(dataset, plain_features):
    values = evaluate.distances(Identity(), dataset, 100)
    assert {k for k in values if k.startswith(("precision", "recall"))} == {"precision", "recall"}


def test_a_model_that_infers_nothing_has_no_reconstructions(dataset, plain_features):
    class Drawing(nn.Module):
        priors, decode = Identity().priors, Identity().decode

    values = evaluate.distances(Drawing(), dataset, 200)
    assert {k for k in values if k.startswith("frechet")} == {
        "frechet_floor", "frechet_prior", "frechet_ssl_floor", "frechet_ssl_prior"}  # fmt: skip
    assert evaluate.health(Drawing(), dataset)["code_rank"] > 10


def test_too_few_images_are_said_and_not_measured(dataset, plain_features, capsys):
    assert evaluate.distances(Identity(), dataset, 6) == {"n": 6}
    assert capsys.readouterr().out == "6 images are too few to measure distances with (7 are needed): none is.\n"
    assert evaluate.distances(Identity(), dataset, 7)["frechet_prior"] > 0


def test_modes_of_a_toy_are_counted_under_names_of_their_own():
    """`kl` is a VAE's: the divergence of the modes' shares is `modes_kl`."""

    class Points(Identity):
        def decode(self, z):
            return 2 * nn.functional.normalize(z[:, :2])

    values = evaluate.distances(Points(), data.load("ring"), 500)
    assert values["modes"] == 8 and 0 < values["good"] < 1 and 0 <= values["modes_kl"] < 0.2
    assert "kl" not in values and not any(key.startswith("sharpness") for key in values)
    assert not any("_ssl_" in key for key in values), "points have no network"


def test_own_images_are_brought_to_the_size_of_their_ruler(dataset, monkeypatch):
    """And those of a known dataset are not: another size is a mistake there."""
    seen = []
    monkeypatch.setattr(metrics, "features", lambda x, ruler, resize, network: seen.append(resize) or np.random.rand(len(x), 3))
    evaluate.distances(Identity(), dataset, 100)
    assert seen and all(seen)
    seen.clear()
    split = data.Split(pixels(9, size=28), torch.arange(9))
    for network in ("classifier", "contrast"):
        evaluate._features(split.images, data.Dataset("mnist", split, split, ruler="mnist"), network)
    assert seen == [False, False]


class Layers(nn.Module):
    """Four units; the second never fires, the fourth on one image alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.ReLU(), nn.LeakyReLU()
        self.priors = nn.ModuleDict({"prior": latents.Normal(4)})

    def infer(self, x, generator=None):
        bias = torch.tensor([1.0, -2.0, 1.0, -0.995])
        return self.first(x.flatten(1)[:, :1] + bias)

    def decode(self, z):
        self.second(z[:, :2, None, None] - 3)  # a layer of channels that is dead
        return z.sigmoid().view(-1, 1, 2, 2)


def test_live_units_are_those_that_fire_on_some_image():
    images = torch.zeros(1200, 1, 2, 2, dtype=torch.uint8)
    images[999] = 255
    split = data.Split(images, torch.zeros(1200).long())
    values = evaluate.health(Layers(), data.Dataset("x", split, split))
    assert values["live_units"] == pytest.approx(3 / 6) and values["live_units_least"] == 0
    images[999], images[1000] = 0, 255  # not among the first thousand
    assert evaluate.health(Layers(), data.Dataset("x", split, split))["live_units"] == pytest.approx(2 / 6)
    images[5] = 255
    dark = data.Split(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.zeros(9).long())
    one, two = data.Dataset("x", dark, split), data.Dataset("x", split, dark)
    assert evaluate.health(Layers(), one)["live_units"] > evaluate.health(Layers(), two)["live_units"], "of test images"
    model = Layers()
    evaluate.health(model, data.Dataset("x", split, split))
    assert not model.first._forward_hooks, "nothing is left behind"


def test_the_effective_rank_of_codes():
    """Roy & Vetterli: d equal variances have rank d; one direction has rank 1; p and 1 - p their perplexity."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(20_000, 5, generator=g)
    assert evaluate.effective_rank(z) == pytest.approx(5, abs=0.01)
    assert evaluate.effective_rank(z[:, :1] * torch.ones(5)) == pytest.approx(1, abs=1e-6)
    two = z[:, :2] * torch.tensor([3.0, 1.0]) + 100
    assert evaluate.effective_rank(two) == pytest.approx(math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1)), rel=0.02)
    assert evaluate.effective_rank(z[:, :1]) == pytest.approx(1)
    assert evaluate.effective_rank(torch.ones(10, 3)) == pytest.approx(1), "codes that are all one"


def test_the_rank_is_that_of_ten_thousand_codes():
    class Corner(nn.Module):
        def infer(self, x):
            return x.flatten(1)[:, :2]

        def decode(self, z):
            return torch.zeros(len(z), 1, 2, 2)

    def rank(late):
        images = torch.zeros(12_000, 1, 2, 2, dtype=torch.uint8)
        images[::2, 0, 0, 0], images[late, 0, 0, 1] = 255, 255
        split = data.Split(images, torch.zeros(12_000).long())
        return evaluate.health(Corner(), data.Dataset("x", split, split))["code_rank"]

    assert rank(slice(1000, 10_000, 3)) > 1.9 and rank(slice(10_000, None)) == pytest.approx(1)


def test_all_numbers_are_repeatable_and_leave_the_model_alone(dataset, plain_features):
    model = Noisy(0.01, **fitted(dataset))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed)
        values = {**evaluate.pixel_errors(model, dataset), **evaluate.distances(model, dataset, 200)}
        found.append(evaluate.rounded(values | evaluate.health(model, dataset)))
    assert found[0] == found[1]
    assert json.loads(json.dumps(found[0], allow_nan=False)) == found[0]
    assert all(v == float(f"{v:.6g}") for v in found[0].values())


def test_rounding_is_to_six_digits_at_any_depth():
    values = {"a": 1 / 3, "b": [1234567.8, {"c": 2e-9 / 3}], "n": 10_000_001, "s": True}
    assert evaluate.rounded(values) == {"a": 0.333333, "b": [1234570.0, {"c": 6.66667e-10}], "n": 10_000_001, "s": True}


def test_the_record_of_the_machine():
    found = evaluate.machine("cpu")
    assert found["device"] == "cpu" and found["precision"] == str(nets.precision("cpu")).removeprefix("torch.")
    assert found["versions"]["torch"] == torch.__version__
    assert f"{torch.get_num_threads()} threads" in found["hardware"]


# snapshots


@pytest.mark.parametrize("steps", [1, 8, 100, 5616])
def test_snapshots_are_due_at_the_first_step_the_last_and_log_spaced_between(steps, dataset, plain_features):
    due = sorted(evaluate.Snapshots(Identity(), dataset, steps).due)
    assert due[0] == 1 and due[-1] == steps and len(due) <= 24
    gaps = np.diff(np.log(due))
    assert len(due) == steps if steps < 9 else np.median(gaps) == pytest.approx(math.log(steps) / 23, rel=0.15)
    assert evaluate.Snapshots(Identity(), dataset, steps, count=0).due == set()


def test_snapshots_show_fixed_codes_and_leave_the_model_in_training(dataset, plain_features):
    for training in (True, False):
        model = Identity().train(training)
        taken = evaluate.Snapshots(model, dataset, 10, count=3)
        for step in range(1, 11):
            model.shift = step / 20
            taken.look(step)
            taken.look(step)  # a second look at one step changes nothing
            assert model.training == training
        assert taken.steps == sorted(taken.due) == [1, 3, 10]
        z = model.priors["prior"].sample(2000, torch.Generator().manual_seed(1)).view(-1, 1, 4, 4)
        for step, frame, distance in zip(taken.steps, taken.images, taken.frechet, strict=True):
            images = (z + step / 20).clamp(0, 1)
            assert frame.dtype == torch.uint8 and torch.equal(frame, (255 * images[:16]).round().byte())
            target = plain_features(dataset.test.images, "mnist", True)
            expected = metrics.frechet(plain_features(images, "mnist", True), target)
            assert distance == pytest.approx(expected, rel=1e-5)


def test_snapshots_keep_within_their_bytes(dataset, plain_features, monkeypatch):
    """Fewer images of each where they are large; of points, a cloud."""
    large = data.Split(torch.zeros(100, 3, 64, 64, dtype=torch.uint8), torch.zeros(100).long())
    taken = evaluate.Snapshots(Identity(), data.Dataset("x", large, large, ruler="mnist", own=True), 100)
    assert 1 <= taken.size < 16 and 24 * taken.size * 3 * 64 * 64 <= evaluate.SNAPSHOT_BYTES
    ring = data.load("ring")
    monkeypatch.undo()

    class Points(Identity):
        def decode(self, z):
            return z[:, :2]

    taken = evaluate.Snapshots(Points(), ring, 4, count=2)
    taken.look(1), taken.look(4)
    state = taken.state_dict()
    assert state["images"].shape == (2, 500, 2) and state["images"].dtype == torch.float32
    assert len(state["frechet"]) == 2


def test_snapshots_come_back_from_their_state(dataset, plain_features):
    taken, other = (evaluate.Snapshots(Identity(), dataset, 10, count=3) for _ in range(2))
    assert taken.state_dict() == {}
    other.load_state_dict({})
    taken.look(1), taken.look(3)
    other.load_state_dict({k: v.clone() for k, v in taken.state_dict().items()})
    assert other.steps == taken.steps and other.frechet == taken.frechet
    other.look(3)
    assert len(other.images) == 2 and torch.equal(other.images[1], taken.images[1])


def test_without_enough_test_images_snapshots_have_no_distances(dataset, plain_features):
    few = data.Dataset("noise", dataset.train, data.Split(dataset.test.images[:5], dataset.test.labels[:5]), ruler="mnist", own=True)
    taken = evaluate.Snapshots(Identity(), few, 4, count=2)
    taken.look(1)
    assert len(taken.images) == 1 and taken.frechet == [] and len(taken.state_dict()["frechet"]) == 0
