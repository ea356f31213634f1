"""classifier: the network whose features measure images, its augmentation and its step."""

import pytest
import torch
from torch.nn import functional as F

from gencore import classifier, data


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8)])
def test_shapes(channels, size):
    x = torch.rand(5, channels, size, size)
    model = classifier.Model(channels, size, width=4).eval()
    assert model.features(x).shape == (5, 64) and model(x).shape == (5, 10)
    assert torch.equal(model(x), model.head(model.features(x)))
    assert classifier.Model(channels, size, width=4, classes=7)(x).shape == (5, 7)


def test_it_draws_no_images():
    assert not hasattr(classifier.Model(width=2), "decode") and not hasattr(classifier.Model, "priors")


def test_features_of_an_image_do_not_depend_on_the_others():
    torch.manual_seed(0)
    x = torch.rand(6, 1, 28, 28)
    model = classifier.Model(width=2).eval()
    assert torch.allclose(model.features(x)[2:4], model.features(x[2:4]), atol=1e-6)


def test_augment_shifts_and_mirrors_and_changes_no_value():
    """Each result is one of the 2 x 9 x 9 crops of the reflected image, found by brute force."""
    n, pad, size = 300, 4, 8
    x = torch.rand(n, 3, size, size)
    got = classifier.augment(x, torch.Generator().manual_seed(0), pad)
    assert got.shape == x.shape
    seen = set()
    for image, result in zip(x, got, strict=True):
        crops = {}
        for flip in (False, True):
            wide = F.pad(image.flip(2) if flip else image, (pad,) * 4, mode="reflect")
            for top in range(2 * pad + 1):
                for left in range(2 * pad + 1):
                    crop = wide[:, top : top + size, left : left + size]
                    crops[crop.contiguous().numpy().tobytes()] = flip, top, left
        seen.add(crops[result.contiguous().numpy().tobytes()])
    flips, tops, lefts = zip(*seen, strict=True)
    assert set(flips) == {False, True}
    assert set(tops) == set(lefts) == set(range(2 * pad + 1)), (
        "every shift comes, in both directions"
    )
    assert len(seen) > 100, "rows, columns and mirror are drawn independently"


def test_augment_draws_from_its_generator_alone():
    x = torch.rand(20, 1, 8, 8)

    def make(seed):
        return classifier.augment(x, torch.Generator().manual_seed(seed))

    assert torch.equal(make(1), make(1)) and not torch.equal(make(1), make(2))
    keep = x.clone()
    state = torch.get_rng_state()
    make(3)
    assert torch.equal(x, keep) and torch.equal(torch.get_rng_state(), state)


# the classifier's step


def test_classifier_step_is_label_smoothed_cross_entropy_with_nesterov_sgd(mini):
    def build():
        torch.manual_seed(0)
        return classifier.Model(width=2)

    x, y = mini.images[:32].float() / 255, mini.labels[:32]
    model, reference = build(), build()
    step = classifier.Step(model, lr=0.1)
    for _ in range(2):
        losses = step(data.Batch(x, y, None))
    velocity = {}
    for _ in range(2):
        logits = reference(x)
        log_p = logits.log_softmax(1)
        target = torch.full_like(log_p, 0.05 / 10)
        target[torch.arange(32), y] += 0.95
        loss = -(target * log_p).sum(1).mean()
        reference.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in reference.parameters():  # Sutskever et al. (2013) in torch's form
                grad = p.grad + 5e-4 * p
                velocity[p] = 0.9 * velocity[p] + grad if p in velocity else grad
                p -= 0.1 * (grad + 0.9 * velocity[p])
    assert losses["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert losses["accuracy"] == (logits.argmax(1) == y).float().mean().item()
    for p, q in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)


def test_a_classifier_learns_a_rule(mini):
    torch.manual_seed(0)
    x, y = mini.images[:64].float() / 255, mini.labels[:64]
    step = classifier.Step(classifier.Model(width=4), lr=0.05, augmented=False)
    history = [step(data.Batch(x, y, None)) for _ in range(50)]
    assert history[0]["accuracy"] < 0.4 and history[-1]["accuracy"] > 0.8
    assert history[-1]["loss"] < history[0]["loss"] / 2


def test_half_of_the_images_are_mirrored_and_every_shift_is_equally_likely():
    """2,000 copies of an image whose pixels are all different: which crop each is can be read off."""
    n, pad, size = 2000, 2, 6
    ramp = torch.arange(float(size * size)).view(1, 1, size, size)
    got = classifier.augment(ramp.expand(n, 1, size, size), torch.Generator().manual_seed(0), pad)
    middle = got[:, 0, 2, 2:4]
    flipped = middle[:, 0] > middle[:, 1]
    assert flipped.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)
    row, column = middle[:, 0] // size, middle[:, 0] % size
    tops = torch.bincount(row.long(), minlength=5)[:5]
    assert (tops.double() - n / 5).abs().max() < 4 * (n * 0.2 * 0.8) ** 0.5
    lefts = torch.bincount(torch.where(flipped, size - 1 - column, column).long(), minlength=5)[:5]
    assert (lefts.double() - n / 5).abs().max() < 4 * (n * 0.2 * 0.8) ** 0.5


def test_augmented_batches_are_drawn_from_the_steps_own_generator(mini):
    x, y = mini.images[:32].float() / 255, mini.labels[:32]

    def train(seed, augmented):
        torch.manual_seed(0)
        step = classifier.Step(classifier.Model(width=2), seed=seed, augmented=augmented)
        return [step(data.Batch(x, y, None))["loss"] for _ in range(3)], step

    first, step = train(1, True)
    assert first == train(1, True)[0] != train(2, True)[0]
    assert set(step.parts) == {"model", "optimiser", "noise"} and step.parts["noise"] is step.generator
    assert train(1, False)[0] == train(2, False)[0] != first
    expected = torch.Generator().manual_seed(1)
    for _ in range(3):
        classifier.augment(x, expected)
    assert torch.equal(step.generator.get_state(), expected.get_state())


def test_measure_is_the_share_of_all_test_images_that_are_named_rightly(mini):
    """2,500 images, so that the last chunk is a smaller one; the answer is planted in a pixel."""
    labels = torch.arange(2500) % 10
    images = torch.zeros(2500, 1, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0] = (labels + (torch.arange(2500) < 700).long()) % 10  # 700 are wrong

    class Reader(torch.nn.Module):
        def forward(self, x):
            return F.one_hot((x[:, 0, 0, 0] * 255).round().long(), 10).float()

    test = data.Split(images, labels)
    dataset = data.Dataset("planted", data.Split(images[:1], labels[:1]), test)
    assert classifier.measure(Reader(), dataset, 10) == {"accuracy": 1800 / 2500}
