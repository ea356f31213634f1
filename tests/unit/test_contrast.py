"""contrast: NT-Xent against a plain loop, the views, the step, and what its features are good for."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from gencore import contrast, data


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(n, d, seed=0):
    return torch.randn(n, d, generator=generator(seed), dtype=torch.float64)


# the model


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8)])
def test_shapes(channels, size):
    x = torch.rand(5, channels, size, size)
    model = contrast.Model(channels, size, width=4).eval()
    assert model.features(x).shape == (5, 64) and model(x).shape == (5, 32)
    assert torch.equal(model(x), model.head(model.features(x)))
    assert contrast.Model(channels, size, width=4, feature_dim=7, projected=3)(x).shape == (5, 3)


def test_it_draws_no_images():
    assert not hasattr(contrast.Model(width=2), "decode") and not hasattr(contrast.Model, "priors")


def test_features_are_standardised_and_of_both_signs():
    """In training each has mean 0 and variance 1; none is cut off at zero."""
    torch.manual_seed(0)
    features = contrast.Model(width=4).train().features(torch.rand(64, 1, 28, 28))
    assert torch.allclose(features.mean(0), torch.zeros(64), atol=1e-5)
    assert torch.allclose(features.var(0, correction=0), torch.ones(64), atol=2e-2)
    assert (features < 0).any(0).all() and (features != 0).all()


def test_features_of_an_image_do_not_depend_on_the_others():
    torch.manual_seed(0)
    x = torch.rand(6, 1, 28, 28)
    model = contrast.Model(width=2).eval()
    assert torch.allclose(model.features(x)[2:4], model.features(x[2:4]), atol=1e-5)


# the loss


def plain_nt_xent(a, b, temperature):
    """Eq. 1 of the paper, term by term: l(i, j) averaged over both orders of all pairs."""
    z = [*a, *b]
    total, n = 0.0, len(a)

    def sim(u, v):
        return (u @ v / (u.norm() * v.norm())).item()

    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [math.exp(sim(z[i], z[k]) / temperature) for k in range(2 * n) if k != i]
        total -= math.log(math.exp(sim(z[i], z[j]) / temperature) / sum(others))
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_papers_sum(temperature):
    a, b = points(6, 5, 1), points(6, 5, 2)
    loss, _ = contrast.nt_xent(a, b, temperature)
    assert loss.item() == pytest.approx(plain_nt_xent(a, b, temperature), rel=1e-12)
    other, _ = contrast.nt_xent(b, 3 * a, temperature)
    assert loss.item() == pytest.approx(other.item(), rel=1e-12), "the views' order and lengths are free"


def test_nt_xent_by_hand():
    """Two images on two axes: each view has its partner at 1 and two others at 0."""
    a = torch.eye(2)
    loss, found = contrast.nt_xent(a, a, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + 2 * math.exp(-2)))
    assert found.tolist() == [True] * 4
    wrong, lost = contrast.nt_xent(a, a.flip(0), 0.5)
    assert wrong.item() == pytest.approx(math.log(2 + math.exp(2))) and not lost.any()
    equal, _ = contrast.nt_xent(torch.ones(8, 3), torch.ones(8, 3), 0.1)
    assert equal.item() == pytest.approx(math.log(15)), "all points alike: a guess among 15"


def test_found_are_those_whose_partner_is_the_most_similar():
    a, b = points(20, 3, 1), points(20, 3, 2)
    b[:10] = a[:10] + 0.01 * b[:10]
    z = nn.functional.normalize(torch.cat([a, b]))
    expected = []
    for i in range(40):
        scores = [(z[i] @ z[k]).item() if k != i else -math.inf for k in range(40)]
        expected.append(int(np.argmax(scores)) == (i + 20) % 40)
    found = contrast.nt_xent(a, b, 0.2)[1]
    assert found.tolist() == expected and 0.4 < found.double().mean() < 1


def test_the_gradient_pulls_partners_together_and_pushes_others_apart():
    a, b = points(5, 4, 1).requires_grad_(), points(5, 4, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: contrast.nt_xent(x, y, 0.5)[0], (a, b))
    contrast.nt_xent(a, b, 0.5)[0].backward()
    for x in (a, b):
        assert (x.grad * x).sum(1).abs().max() < 1e-12, "a length does not matter, so none is changed"
    cosines = nn.functional.cosine_similarity(a, b).detach()
    with torch.no_grad():
        moved = nn.functional.cosine_similarity(a - 0.01 * a.grad, b - 0.01 * b.grad)
    assert moved.mean() > cosines.mean()


# the views


@pytest.mark.parametrize("channels", [1, 3])
def test_views_keep_shape_and_range_and_draw_from_their_generator_alone(channels):
    x = torch.rand(50, channels, 32, 32)
    x[:10], x[10:20] = 0, 1
    keep, state = x.clone(), torch.get_rng_state()
    view = contrast.augment(x, generator(1))
    assert view.shape == x.shape and view.dtype == x.dtype
    assert 0 <= view.min() and view.max() <= 1
    assert torch.equal(view, contrast.augment(x, generator(1)))
    assert not torch.equal(view, contrast.augment(x, generator(2)))
    assert torch.equal(x, keep) and torch.equal(torch.get_rng_state(), state)
    changed = (view != x).flatten(1).any(1)
    assert changed[20:].all(), "each image is another one"


def blob(row, column, channels, n, size=28):
    """A disc of radius 2 around a place."""
    places = torch.arange(float(size))
    inside = (places[:, None] - row) ** 2 + (places - column) ** 2 < 4.5
    return inside.float().expand(n, channels, size, size)


def centre(x):
    """Where the mass of images lies: rows and columns, in pixels from the middle."""
    mass, places = x.mean(1), torch.arange(float(x.shape[-1])) - (x.shape[-1] - 1) / 2
    total = mass.sum((1, 2))
    return (mass.sum(2) * places).sum(1) / total, (mass.sum(1) * places).sum(1) / total


def test_a_grey_image_is_shifted_by_up_to_a_tenth():
    rows, columns = centre(contrast.move(blob(13.5, 13.5, 1, 2000), generator()))
    for found in (rows, columns):  # a shift of 2.8 pixels is scaled and turned, too
        assert 3 < found.abs().max() < 2.8 * 1.2 * (math.cos(math.pi / 18) + math.sin(math.pi / 18)) + 0.1
        assert found.mean().item() == pytest.approx(0, abs=4 * 1.7 / 2000**0.5)
        assert found.std().item() == pytest.approx(2.8 / 3**0.5, rel=0.1)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.1, "in each direction by a number of its own"


def test_a_grey_image_is_turned_and_scaled_a_little_and_never_mirrored():
    """Where a disc 8 pixels above the middle goes, beside one 8 pixels to its right."""
    n = 1000
    up, right = (contrast.move(blob(*at, 1, n), generator()) for at in ((5.5, 13.5), (13.5, 21.5)))
    middle = contrast.move(blob(13.5, 13.5, 1, n), generator())
    (y0, x0), (y1, x1), (y2, x2) = centre(middle), centre(up), centre(right)
    length = torch.hypot(y1 - y0, x1 - x0) / 8
    angle = torch.rad2deg(torch.atan2(x1 - x0, y0 - y1))
    assert 1 / 1.22 < length.min() < 0.87 and 1.15 < length.max() < 1.22
    assert 9 < angle.max() < 10.5 and -10.5 < angle.min() < -9
    assert ((y0 - y1) * (x2 - x0) - (x1 - x0) * (y0 - y2)).min() > 0, "up and right stay so"


def test_of_a_coloured_image_a_part_is_seen_and_half_are_mirrored():
    """Red falls from left to right, green from top to bottom: what a view shows can be read off."""
    n, size = 2000, 32
    ramp = (torch.arange(float(size)) + 0.5) / size
    x = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.ones(size, size)])
    view = contrast.move(x.expand(n, 3, size, size), generator())
    assert torch.allclose(view[:, 2], torch.ones(n, size, size), atol=1e-5), "never beyond the border"
    across = view[:, 0, 16, -1] - view[:, 0, 16, 0]
    down = view[:, 1, -1, 16] - view[:, 1, 0, 16]
    assert (across < 0).double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)
    assert torch.allclose(across.abs(), down, atol=0.02) and (down > 0).all(), "one scale for both"
    assert 0.47 < down.min() < 0.53 and 0.93 < down.max() < 0.97
    assert 0.01 <= view[:, :2].min() < 0.03 and 0.97 < view[:, :2].max() <= 0.99


def test_a_rectangle_is_hidden_and_nothing_else_changes():
    n, size = 2000, 20
    x = torch.rand(1, 1, size, size).expand(n, 1, size, size)
    view = contrast.erase(x, generator())
    changed = (view != x)[:, 0]
    mean = x.mean((1, 2, 3))[0]
    assert torch.allclose(view[:, 0][changed], mean)
    heights, widths = changed.any(2).sum(1), changed.any(1).sum(1)
    assert (changed.sum((1, 2)) == heights * widths).all(), "a rectangle"
    assert heights.max() == widths.max() == size // 2 and heights.min() == 0
    share = changed.double().mean((1, 2))
    assert 0.03 < share.mean() < 0.1 and share.max() <= 0.25
    hidden = changed.double().mean(0)
    assert hidden.min() > 0.01, "anywhere"


def test_colours_change_and_some_are_lost():
    n = 2000
    x = torch.tensor([0.3, 0.4, 0.6]).view(1, 3, 1, 1).expand(n, 3, 4, 4).clone()
    x[:, :, :2] *= 0.8
    view = contrast.recolour(x, generator())
    light, dark = view[:, :, 3, 0], view[:, :, 0, 0]
    kept = light[:, 2] - light[:, 0] > 0.1
    assert (~kept).double().mean().item() == pytest.approx(0.2, abs=0.08)
    assert 0.1 < light.mean(1).std() < 0.2 and (light - dark).mean(1).std() > 0.02
    same = (view[:, :, 3, :] - view[:, :, 3, :1]).abs().max()
    assert same < 1e-6, "one change for the whole image"


# the step


def test_a_step_is_the_loss_of_two_views_and_adamw(mini):
    x = mini.images[:24].float() / 255

    def build():
        torch.manual_seed(0)
        return contrast.Model(width=2)

    model, other, noise = build(), build(), generator(3)
    step = contrast.Step(model, lr=0.01, seed=3, temperature=0.3)
    optimiser = torch.optim.AdamW(other.parameters(), 0.01, weight_decay=1e-2)
    for _ in range(3):
        terms = step(data.Batch(x, None, None))
        views = contrast.augment(x, noise), contrast.augment(x, noise)
        a, b = other(torch.cat(views)).chunk(2)
        loss = plain_nt_xent(a.detach(), b.detach(), 0.3)
        assert terms["loss"] == pytest.approx(loss, rel=1e-3)
        optimiser.zero_grad()
        contrast.nt_xent(a, b, 0.3)[0].backward()
        optimiser.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
    assert set(step.parts) == {"model", "optimiser", "noise"} and step.model is model
    assert torch.equal(step.generator.get_state(), noise.get_state())


def test_every_weight_has_a_gradient_and_no_label_is_looked_at(mini):
    x = mini.images[:32].float() / 255
    found = []
    for labels in (mini.labels[:32], None):
        torch.manual_seed(0)
        step = contrast.Step(contrast.Model(width=2), seed=1)
        found.append([step(data.Batch(x, labels, None)) for _ in range(2)])
    assert found[0] == found[1]
    assert all(p.grad.abs().sum() > 0 for p in step.model.parameters() if p.ndim > 1)


def test_it_learns_to_find_partners_and_its_neighbours_are_of_one_class():
    """On the embedded images: 60 steps, and a random network beside it."""
    dataset = data.load("fashion-mini")
    torch.manual_seed(0)
    step = contrast.Step(contrast.Model(width=4), lr=4e-3)
    batches = data.batches(dataset.train, 64)
    before = contrast.measure(step.model.eval(), dataset, 500)
    step.model.train()
    history = [step(next(batches)) for _ in range(60)]
    after = contrast.measure(step.model.eval(), dataset, 500)
    assert np.mean([h["loss"] for h in history[-5:]]) < history[0]["loss"] - 0.5
    assert after["found"] > 2 * before["found"]
    assert after["accuracy"] > 0.6


# the numbers


class Planted(nn.Module):
    """Features that are the first pixels; points for the loss are they, too."""

    def features(self, x):
        return x.flatten(1)[:, :5]

    forward = features


def planted(n, seed=0):
    images = torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator(seed))
    labels = (images[:, 0, 0, 0] > 127).long() + (images[:, 0, 0, 1] > 200).long()
    return data.Split(images, labels)


def test_measure_beside_sklearn():
    dataset = data.Dataset("planted", planted(1500), planted(1200, 1))
    for n in (1100, 10_000):
        values = contrast.measure(Planted(), dataset, n)
        known, test = (s.images[:n].flatten(1)[:, :5].double().numpy() for s in (dataset.train, dataset.test))
        answers = KNeighborsClassifier(5).fit(known, dataset.train.labels[:n])
        accuracy = answers.score(test, dataset.test.labels[:n])
        assert values["accuracy"] == pytest.approx(accuracy, abs=2e-3)  # ties of votes
        assert values["between"] == pytest.approx(
            contrast.share_between(torch.from_numpy(test), dataset.test.labels[:n]))  # fmt: skip
        assert set(values) == {"accuracy", "between", "found"}


def test_the_share_between_classes_by_hand():
    labels = torch.tensor([0, 0, 3, 3])
    x = torch.tensor([[0.0], [2.0], [10.0], [12.0]], dtype=torch.float64)  # 25 between, 1 within
    assert contrast.share_between(x, labels) == pytest.approx(25 / 26)
    assert contrast.share_between(x[[0, 0, 2, 2]], labels) == pytest.approx(1)
    assert contrast.share_between(x[[0, 1, 0, 1]], labels) == pytest.approx(0)
    features, labels = points(300, 4), torch.arange(300) % 7 % 3
    total = np.cov(features.numpy().T, ddof=0).trace()
    within = sum(
        (labels == c).double().mean().item() * np.cov(features[labels == c].numpy().T, ddof=0).trace()
        for c in range(3)
    )
    assert contrast.share_between(features, labels) == pytest.approx(1 - within / total)
    assert contrast.share_between(torch.ones(4, 2), labels[:4]) == 0
