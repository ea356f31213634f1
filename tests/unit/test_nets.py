"""nets: shapes, sizes, and updates that cannot spoil the weights."""

import math
from copy import deepcopy as copy_of

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gencore import nets

SIZES = [(1, 28), (3, 32), (1, 8)]


@pytest.mark.parametrize(("channels", "size"), SIZES)
@pytest.mark.parametrize("latent_dim", [1, 10])
def test_shapes(channels, size, latent_dim):
    x = torch.rand(5, channels, size, size)
    for heads in (1, 2):
        net = nets.Encoder(latent_dim, channels, size, width=4, heads=heads)
        assert net(x).shape == (5, heads, latent_dim)
    z = torch.randn(5, latent_dim)
    assert nets.Decoder(latent_dim, channels, size, width=4)(z).shape == x.shape
    classifier = nets.Classifier(channels, size, width=4).eval()
    assert classifier.features(x).shape == (5, 64) and classifier(x).shape == (5, 10)
    assert torch.equal(classifier(x), classifier.head(classifier.features(x)))


def encoder_size(d, c, s, w, heads):
    return (
        (16 * c * w + w)
        + (32 * w * w + 2 * w)
        + (2 * w * (s // 4) ** 2 + 1) * 128
        + 129 * heads * d
    )


def decoder_size(d, c, s, w):
    return (d + 1) * 2 * w * (s // 4) ** 2 + (32 * w * w + w) + (16 * c * w + c)


@pytest.mark.parametrize(("channels", "size"), SIZES)
def test_parameter_counts_are_those_of_the_layers(channels, size):
    for d, w in ((2, 24), (10, 8), (200, 32)):
        arguments = d, channels, size, w
        assert nets.parameters(nets.Encoder(*arguments)) == encoder_size(*arguments, 2)
        assert nets.parameters(nets.Decoder(*arguments)) == decoder_size(*arguments)
        both = nets.parameters(nets.Encoder(*arguments), nets.Decoder(*arguments))
        assert both == encoder_size(*arguments, 2) + decoder_size(*arguments)


@pytest.mark.parametrize("d", [2, 4, 10])
def test_a_decoder_that_lives_in_a_page_is_under_100_kilobytes_in_half_precision(d):
    assert 2 * nets.parameters(nets.Decoder(d)) < 100_000


@pytest.mark.parametrize("hidden", [(), (7,), [32, 64, 16]])
def test_an_encoder_has_the_hidden_layers_it_is_asked_for(hidden):
    net = nets.Encoder(3, width=4, hidden=hidden)
    dense = [m for m in net.net if isinstance(m, torch.nn.Linear)]
    assert [m.in_features for m in dense] == [8 * 7 * 7, *hidden]
    assert [m.out_features for m in dense] == [*hidden, 6]
    assert sum(isinstance(m, torch.nn.ReLU) for m in net.net) == 2 + len(hidden)
    assert isinstance(net.net[-1], torch.nn.Linear), "what comes out is not confined"
    assert net(torch.rand(5, 1, 28, 28)).shape == (5, 2, 3)


def test_the_names_of_the_weights_are_those_of_the_published_files():
    sizes = {key: tuple(value.shape) for key, value in nets.Encoder(2).state_dict().items()}
    assert sizes == {
        "net.0.weight": (24, 1, 4, 4), "net.0.bias": (24,),
        "net.2.weight": (48, 24, 4, 4), "net.2.bias": (48,),
        "net.5.weight": (128, 2352), "net.5.bias": (128,),
        "net.7.weight": (4, 128), "net.7.bias": (4,),
    }  # fmt: skip


def test_one_image_does_not_see_another():
    torch.manual_seed(0)
    x, z = torch.rand(6, 1, 28, 28), torch.randn(6, 3)
    encoder, decoder = nets.Encoder(3, width=4), nets.Decoder(3, width=4)
    assert torch.allclose(encoder(x)[2:4], encoder(x[2:4]), atol=1e-6)
    assert torch.allclose(decoder(z)[2:4], decoder(z[2:4]), atol=1e-6)
    heads = encoder(x)
    assert not torch.allclose(heads[:, 0], heads[:, 1]), "the two heads are two"


def test_every_pixel_is_seen_and_painted():
    torch.manual_seed(0)
    x = torch.rand(8, 1, 28, 28, requires_grad=True)
    nets.Encoder(3, width=8)(x).square().sum().backward()
    assert (x.grad.abs().sum(0) > 0).all()
    z = torch.randn(2, 3)
    images = nets.Decoder(3, width=8)(z)
    assert (images[0] != images[1]).all()


# update


@pytest.fixture
def small():
    """A linear net with Adam, after three good steps: (net, optimiser)."""
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(3):
        nets.update(optimiser, net(torch.randn(5, 4)).square().sum())
    return net, optimiser


def bits(net, optimiser):
    slots = [v for state in optimiser.state.values() for v in state.values()]
    return [t.detach().clone().numpy().tobytes() for t in (*net.parameters(), *slots)]


def test_update_is_one_step_of_the_optimiser_on_this_loss_alone(small):
    net, optimiser = small
    copy = torch.nn.Linear(4, 3)
    copy.load_state_dict(net.state_dict())
    other = torch.optim.Adam(copy.parameters(), 0.01)
    other.load_state_dict(copy_of(optimiser.state_dict()))
    x = torch.randn(5, 4)
    for _ in range(2):  # the second shows gradients that were left over from the first
        nets.update(optimiser, net(x).exp().sum())
        other.zero_grad()
        copy(x).exp().sum().backward()
        other.step()
    assert bits(net, optimiser) == bits(copy, other)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_update_refuses_what_is_not_finite_and_leaves_every_bit(small, bad):
    net, optimiser = small
    before = bits(net, optimiser)
    x = torch.randn(5, 4)
    x[2, 1] = bad
    with pytest.raises(nets.Diverged, match="the gradient became (nan|inf) "):
        nets.update(optimiser, net(x).square().sum())
    assert bits(net, optimiser) == before
    nets.update(optimiser, net(torch.randn(5, 4)).square().sum())  # and it can go on
    after = bits(net, optimiser)
    assert after != before and all(np.isfinite(np.frombuffer(b, np.float32)).all() for b in after)


def test_one_bad_number_among_many_is_found(small):
    net, optimiser = small
    before = bits(net, optimiser)
    spoil = torch.zeros(3, 4)
    spoil[2, 3] = math.nan
    net.weight.register_hook(lambda grad: grad + spoil)
    with pytest.raises(nets.Diverged, match=r"loss 2"):
        nets.update(optimiser, (net.weight * 0 + net.bias.sum() * 0).sum() + 2)
    assert bits(net, optimiser) == before


def test_diverged_is_an_arithmetic_error():
    assert issubclass(nets.Diverged, ArithmeticError)


# augmentation


def test_augment_shifts_and_mirrors_and_changes_no_value():
    """Each result is one of the 2 x 9 x 9 crops of the reflected image, found by brute force."""
    n, pad, size = 300, 4, 8
    x = torch.rand(n, 3, size, size)
    got = nets.augment(x, torch.Generator().manual_seed(0), pad)
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
        return nets.augment(x, torch.Generator().manual_seed(seed))

    assert torch.equal(make(1), make(1)) and not torch.equal(make(1), make(2))
    keep = x.clone()
    state = torch.get_rng_state()
    make(3)
    assert torch.equal(x, keep) and torch.equal(torch.get_rng_state(), state)


# the classifier's step


def test_classifier_step_is_label_smoothed_cross_entropy_with_nesterov_sgd(mini):
    def build():
        torch.manual_seed(0)
        return nets.Classifier(width=2)

    x, y = mini.images[:32].float() / 255, mini.labels[:32]
    model, reference = build(), build()
    step = nets.ClassifierStep(model, lr=0.1)
    for _ in range(2):
        losses = step((x, y))
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
    step = nets.ClassifierStep(nets.Classifier(width=4), lr=0.05, augmented=False)
    history = [step((x, y)) for _ in range(50)]
    assert history[0]["accuracy"] < 0.4 and history[-1]["accuracy"] > 0.8
    assert history[-1]["loss"] < history[0]["loss"] / 2


def test_weights_are_rounded_as_they_are_stored():
    """Packed and unpacked, a state is what was measured: half, or 8 bits for a big matrix."""
    big, small = torch.randn(500, 1000), torch.randn(30, 40)
    state = {"big": big, "small": small, "count": torch.tensor(3)}
    half = nets.packed(state)
    assert {k: v.dtype for k, v in half.items()} == {
        "big": torch.float16, "small": torch.float16, "count": torch.int64}  # fmt: skip
    assert torch.equal(nets.packed(state, exact=True)["big"], big)
    eight = nets.packed(state, eight_bits=True)
    assert eight["big"].dtype == torch.int8 and eight["small"].dtype == torch.float16
    measured = nets.rounded(big, eight_bits=True)
    step = big.abs().amax(1, keepdim=True) / 127
    assert ((measured - big).abs() <= 0.5 * step + 0.1 * step).all() and not torch.equal(measured, big)
    assert torch.equal(nets.unpacked(eight)["big"], measured)
    assert torch.equal(nets.rounded(measured, eight_bits=True), measured)
    empty = torch.zeros(500, 1000)
    assert torch.equal(nets.rounded(empty, eight_bits=True), empty)
