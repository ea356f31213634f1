"""nets: shapes, sizes, and the format of their matrix products in training and outside it."""

import itertools

import pytest
import torch
from small_networks import SMALL
from torch import nn

from gencore import ae, catalogue, classifier, data, encoder, nets, train, vae

SIZES = [(1, 28), (3, 32), (1, 8)]
ROWS = {name: conf for name, conf in catalogue.runs().items() if conf.paper in (vae, ae, encoder)}


@pytest.mark.parametrize(("channels", "size"), SIZES)
@pytest.mark.parametrize("latent_dim", [1, 10])
def test_shapes(channels, size, latent_dim):
    x, z = torch.rand(5, channels, size, size), torch.randn(5, latent_dim)
    for heads, (widths, hidden) in itertools.product((1, 2), [((4,), (8,)), ([3, 5], []), ((2, 4, 3), (6, 7))]):
        net = nets.Encoder(latent_dim, channels, size, widths, heads, hidden)
        assert net(x).shape == (5, heads, latent_dim)
        assert nets.Decoder(latent_dim, channels, size, widths, hidden)(z).shape == x.shape


def normed(units):
    """Parameters of layers from each number of units to the next, each with its norm's scale and shift."""
    return sum((a + 1) * b + 2 * b for a, b in itertools.pairwise(units))


def smooth(widths):
    """Parameters of convolutions of 3 x 3 from each number of channels to the next."""
    return sum((9 * a + 1) * b for a, b in itertools.pairwise(widths))


def encoder_size(d, c, s, widths, heads, hidden):
    units = [widths[-1] * (s // 4) ** 2, *hidden]
    return (64 * c + 1) * widths[0] + smooth(widths) + normed(units) + (units[-1] + 1) * heads * d


def decoder_size(d, c, s, widths, hidden):
    return normed([d, *hidden, widths[0] * (s // 4) ** 2]) + smooth(widths) + 64 * widths[-1] * c + c


@pytest.mark.parametrize(("channels", "size"), SIZES)
@pytest.mark.parametrize(("d", "widths", "hidden"), [(2, (32,), (256,)), (10, (8, 6), ()), (200, [5, 7, 3], [9, 4])])
def test_parameter_counts_are_those_of_the_layers(channels, size, d, widths, hidden):
    of = d, channels, size
    for heads in (1, 2):
        counted = nets.parameters(nets.Encoder(*of, widths, heads, hidden))
        assert counted == encoder_size(*of, widths, heads, hidden)
    decoder = nets.Decoder(*of, widths, hidden)
    assert nets.parameters(decoder) == decoder_size(*of, widths, hidden)
    net = nets.Encoder(*of, widths, 2, hidden)
    assert nets.parameters(net, decoder) == encoder_size(*of, widths, 2, hidden) + decoder_size(*of, widths, hidden)


def published(conf):
    """The model of a row as it is before its training; of a small encoder, with its VAE."""
    used = {key: published(catalogue.config(name)) for key, name in conf.uses.items()}
    with torch.device("meta"):
        return conf.paper.Model(**used, **conf.model)


DIGITS = sorted({conf.model["latent_dim"]: name for name, conf in ROWS.items()
                 if conf.data == "mnist" and not conf.uses}.values())  # fmt: skip


@pytest.mark.parametrize("name", DIGITS)
def test_a_decoder_of_digits_has_at_most_100_000_parameters(name):
    count = nets.parameters(published(ROWS[name]).decoder)
    assert 20_000 < count <= 100_000
    assert {ROWS[n].model["latent_dim"] for n in DIGITS} == {2, 4, 10, 20, 32, 64}, "all that are published"


WEIGHTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
SHAPES = (nn.Flatten, nn.Unflatten, nets.Centre)


def kinds(net):
    """What stands between one layer of weights and the next, of a network."""
    between, found = [], []
    for layer in net.net:
        if isinstance(layer, WEIGHTS):
            found.append(between)
            between = []
        else:
            between.append(layer)
    return [*found, between]


@pytest.mark.parametrize("name", ROWS)
def test_every_hidden_unit_is_a_silu(name):
    """Behind a norm of the layer, where it is a dense one."""
    model = published(ROWS[name])
    own = [model.encoder] if ROWS[name].uses else [model.encoder, model.decoder]
    for net in own:
        first, *hidden, last = kinds(net)
        assert hidden and not last, "what comes out is not confined"
        assert all(isinstance(layer, SHAPES) for layer in first)
        weights = [layer for layer in net.net if isinstance(layer, WEIGHTS)]
        for layer, between in zip(weights, hidden, strict=False):
            active = [type(each) for each in between if not isinstance(each, SHAPES)]
            assert active == ([nn.LayerNorm, nn.SiLU] if isinstance(layer, nn.Linear) else [nn.SiLU])
        assert not any(isinstance(module, nn.ReLU) for module in net.modules())


@pytest.mark.parametrize("network", [nets.Encoder, nets.Decoder])
def test_a_unit_that_is_negative_everywhere_still_learns(network):
    """With ReLUs, no gradient would come through a layer that is off for every input."""
    torch.manual_seed(0)
    net = network(3, size=8, **{"widths": (4, 4), "hidden": (8,)})
    x = torch.rand(16, 1, 8, 8) if network is nets.Encoder else torch.randn(16, 3)
    kind = nn.Conv2d if network is nets.Encoder else nn.LayerNorm
    first = next(layer for layer in net.net if isinstance(layer, kind))
    with torch.no_grad():
        first.bias.fill_(-6)
    seen = []
    first.register_forward_hook(lambda module, inputs, output: seen.append(output.max()))
    net(x).square().sum().backward()
    assert seen[0] < 0, "all are off"
    assert (first.weight.grad.flatten(1 if kind is nn.Conv2d else 0) != 0).all() and (first.bias.grad != 0).all()


@pytest.mark.parametrize("hidden", [(), (7,), [32, 64, 16]])
def test_networks_have_the_hidden_layers_they_are_asked_for(hidden):
    net = nets.Encoder(3, widths=(4, 6), hidden=hidden)
    dense = [m for m in net.net if isinstance(m, nn.Linear)]
    assert [m.in_features for m in dense] == [6 * 7 * 7, *hidden]
    assert [m.out_features for m in dense] == [*hidden, 6]
    assert sum(isinstance(m, nn.SiLU) for m in net.net) == 2 + len(hidden)
    assert net(torch.rand(5, 1, 28, 28)).shape == (5, 2, 3)
    net = nets.Decoder(3, widths=(4, 6), hidden=hidden)
    dense = [m for m in net.net if isinstance(m, nn.Linear)]
    assert [m.in_features for m in dense] == [3, *hidden]
    assert [m.out_features for m in dense] == [*hidden, 4 * 7 * 7]
    assert sum(isinstance(m, nn.SiLU) for m in net.net) == 2 + len(hidden)


def names(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def test_the_names_of_the_weights_are_those_of_the_published_files():
    assert names(nets.Encoder(2)) == {
        "net.1.weight": (32, 1, 8, 8), "net.1.bias": (32,),
        "net.4.weight": (256, 1568), "net.4.bias": (256,), "net.5.weight": (256,), "net.5.bias": (256,),
        "net.7.weight": (4, 256), "net.7.bias": (4,),
    }  # fmt: skip
    assert names(nets.Decoder(2)) == {
        "net.0.weight": (64, 2), "net.0.bias": (64,), "net.1.weight": (64,), "net.1.bias": (64,),
        "net.3.weight": (784, 64), "net.3.bias": (784,), "net.4.weight": (784,), "net.4.bias": (784,),
        "net.7.weight": (48, 16, 3, 3), "net.7.bias": (48,),
        "net.9.weight": (48, 1, 8, 8), "net.9.bias": (1,),
    }  # fmt: skip


def test_units_of_a_dense_layer_are_normed_example_by_example():
    """Each example's pre-activations have mean 0 and variance 1 before scale and shift: few stay off for all."""
    torch.manual_seed(0)
    for net, h in ((nets.Encoder(3, size=8), torch.rand(9, 1, 8, 8)), (nets.Decoder(3, size=8), 50 * torch.randn(9, 3))):
        norms = 0
        for layer in net.net:
            h = layer(h)
            if isinstance(layer, nn.LayerNorm):
                norms += 1
                assert h.mean(1).abs().max() < 1e-5 and (h.var(1, correction=0) - 1).abs().max() < 0.05
        assert norms == sum(isinstance(layer, nn.Linear) for layer in net.net[:-1]) >= 1


def test_one_image_does_not_see_another():
    torch.manual_seed(0)
    x, z = torch.rand(6, 1, 28, 28), torch.randn(6, 3)
    encoder, decoder = nets.Encoder(3, widths=(4, 4)), nets.Decoder(3, widths=(4, 4))  # norms and all
    assert torch.allclose(encoder(x)[2:4], encoder(x[2:4]), atol=1e-6)
    assert torch.allclose(decoder(z)[2:4], decoder(z[2:4]), atol=1e-6)
    heads = encoder(x)
    assert not torch.allclose(heads[:, 0], heads[:, 1]), "the two heads are two"


@pytest.mark.parametrize(("channels", "size"), SIZES)
def test_every_pixel_is_seen_and_painted(channels, size):
    torch.manual_seed(0)
    x = torch.rand(8, channels, size, size, requires_grad=True)
    nets.Encoder(3, channels, size, widths=(8,))(x).square().sum().backward()
    assert (x.grad.abs().sum(0) > 0).all()
    z = torch.randn(2, 3)
    images = nets.Decoder(3, channels, size, widths=(8, 8))(z)
    assert (images[0] != images[1]).all()


def test_each_place_of_the_grid_paints_8_by_8_pixels_and_each_pixel_is_painted_four_times():
    torch.manual_seed(0)
    net = nets.Decoder(3, size=28).net
    grid = torch.randn(1, 48, 7, 7, requires_grad=True)
    net[-1](grid)[0, 0, 13, 13].backward()
    places = grid.grad[0].abs().sum(0) > 0
    assert places[2:4, 2:4].all() and places.sum() == 4, "patches overlap"
    one = torch.zeros(1, 48, 7, 7)
    one[0, :, 3, 3] = 1
    touched = (net[-1](one) != net[-1](torch.zeros(1, 48, 7, 7)))[0, 0]
    assert touched[10:18, 10:18].all() and touched.sum() == 64


def test_an_encoder_sees_pixels_from_minus_one_to_one():
    """So that a black image is not the same as no input: with any weights, it moves the first layer."""
    x = torch.tensor([0.0, 0.25, 1.0])
    assert nets.Centre()(x).tolist() == [-1, -0.5, 1]
    torch.manual_seed(0)
    net = nets.Encoder(3, size=8)
    assert isinstance(net.net[0], nets.Centre)
    black = torch.zeros(1, 1, 8, 8)
    filtered = net.net[1](net.net[0](black)) - net.net[1].bias[:, None, None]
    assert filtered.abs().min() > 1e-4
    image = torch.rand(4, 1, 8, 8)
    assert torch.equal(net(image), net.net[1:](2 * image - 1).unflatten(1, (2, 3)))


@pytest.mark.parametrize("size", [0, 2, 4, 30, 27])
@pytest.mark.parametrize("network", [nets.Encoder, nets.Decoder])
def test_a_side_that_is_not_made_of_patches_is_refused(network, size):
    with pytest.raises(ValueError, match=f"its side must be a multiple of 4, from 8; it is {size}") as caught:
        network(2, size=size)
    assert "\n" not in str(caught.value)


def test_the_device_of_a_model_is_that_of_what_it_holds():
    assert nets.device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert nets.device_of(torch.nn.BatchNorm1d(2, affine=False).to("meta")).type == "meta"
    assert nets.device_of(torch.nn.SiLU()) == torch.device("cpu")


# mixed precision


@pytest.fixture(params=["bfloat16", "where it pays"])
def half(request, monkeypatch):
    """Networks that compute in bfloat16 in training: because somebody says so, or the hardware."""
    if request.param == "bfloat16":
        monkeypatch.setenv("GENCORE_PRECISION", "bfloat16")
    else:
        monkeypatch.delenv("GENCORE_PRECISION", raising=False)
        monkeypatch.setattr(nets, "bfloat16_pays", lambda kind: kind == "cpu")


def networks():
    """{name: (network, its input)} of each network whose forward is mixed."""
    torch.manual_seed(0)
    x, z = torch.rand(16, 1, 28, 28), torch.randn(16, 5)
    return {"encoder": (nets.Encoder(5), x), "decoder": (nets.Decoder(5), z),
            "classifier": (classifier.Model(width=8), x)}  # fmt: skip


def in_float32(network, x):
    """The forward without its decorator, by autograd: (what it returns, gradients)."""
    for p in network.parameters():
        p.grad = None
    out = type(network).forward.__wrapped__(network, x)
    out.square().sum().backward()
    return out.detach(), [p.grad.clone() for p in network.parameters()]


NAMES = ["encoder", "decoder", "classifier"]


@pytest.mark.parametrize("name", NAMES)
def test_training_computes_in_bfloat16_and_gives_float32_back(half, name):
    """The error is that of numbers with 8 bits: more than float32's, less than some per cent."""
    network, x = networks()[name]
    network.train()
    exact, gradients = in_float32(network, x)
    for p in network.parameters():
        p.grad = None
    out = network(x)
    assert out.dtype == torch.float32 and out.requires_grad
    error = (out.detach() - exact).norm() / exact.norm()
    assert 2**-11 < error < 2**-4, "about 2^-9"
    out.square().sum().backward()
    for p in network.parameters():
        assert p.dtype == p.grad.dtype == torch.float32
        assert torch.isfinite(p.grad).all()
    found = torch.cat([p.grad.flatten() for p in network.parameters()])
    exact = torch.cat([gradient.flatten() for gradient in gradients])
    assert 2**-11 < (found - exact).norm() / exact.norm() < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_does_not_depend_on_the_precision(half, name):
    network, x = networks()[name]
    plain = type(network).forward.__wrapped__
    network.eval()
    assert torch.equal(network(x), plain(network, x)), "with gradients, too"
    with torch.no_grad():
        assert torch.equal(network(x), plain(network, x))
        if name != "classifier":  # in training its batch norms have other statistics
            network.train()
            assert torch.equal(network(x), plain(network, x)), "without gradients"
    with torch.inference_mode():
        assert torch.equal(network.eval()(x), plain(network, x))


@pytest.mark.parametrize("name", NAMES)
def test_float64_is_left_alone(half, name):
    network, x = networks()[name]
    network, x = network.double().train(), x.double()
    out = network(x)
    assert out.dtype == torch.float64 and torch.equal(out, type(network).forward.__wrapped__(network, x))


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_what_it_would_be_without_the_decorator(monkeypatch, name):
    monkeypatch.setenv("GENCORE_PRECISION", "float32")
    monkeypatch.setattr(nets, "bfloat16_pays", lambda kind: True)
    network, x = networks()[name]
    assert torch.equal(network(x), type(network).forward.__wrapped__(network, x))


def test_the_precision_is_the_one_asked_for_or_what_the_hardware_pays_for(monkeypatch):
    asked = []
    monkeypatch.setattr(nets, "bfloat16_pays", lambda kind: asked.append(kind) or kind == "cuda")
    for choice, expected in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        monkeypatch.setenv("GENCORE_PRECISION", choice)
        assert nets.precision("cpu") == nets.precision("cuda") == expected and not asked
    for unset in (True, False):
        monkeypatch.delenv("GENCORE_PRECISION") if unset else monkeypatch.setenv("GENCORE_PRECISION", "")
        assert nets.precision("cuda:1") == torch.bfloat16 and nets.precision("cpu") == torch.float32
    assert asked == ["cuda", "cpu"] * 2


@pytest.mark.parametrize("value", ["float16", "bf16", "Float32", "32", " "])
def test_another_precision_is_refused_in_one_sentence(monkeypatch, value):
    monkeypatch.setenv("GENCORE_PRECISION", value)
    with pytest.raises(ValueError, match=f"GENCORE_PRECISION is '{value}'; it can be float32 or bfloat16") as caught:
        nets.precision("cpu")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="GENCORE_PRECISION"):
        nets.Decoder(2, size=8)(torch.zeros(1, 2))


def test_bfloat16_pays_where_there_are_units_for_it(monkeypatch):
    ask = nets.bfloat16_pays.__wrapped__
    for has, expected in (({"amx_bf16": True}, True), ({"amx_bf16": False}, False), ({"avx512_bf16": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert ask("cpu") is expected
    calls = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: calls.append(options) or True)
    assert ask("cuda") is True and calls == [{"including_emulation": False}]
    assert ask("mps") is False and ask("xpu") is False


@pytest.mark.parametrize("paper", [vae, ae, classifier])
def test_objectives_weights_and_optimiser_states_stay_in_float32(half, paper, mini, monkeypatch):
    losses, update = [], train.update
    monkeypatch.setattr(train, "update", lambda optimiser, loss: losses.append(loss) or update(optimiser, loss))
    torch.manual_seed(0)
    model = paper.Model(width=4) if paper is classifier else paper.Model(2, **SMALL)
    step = paper.Step(model)
    for batch, _ in zip(data.batches(mini, 32), range(3), strict=False):
        step(batch)
    assert [loss.dtype for loss in losses] == [torch.float32] * 3
    states = [v for slots in step.optimiser.state.values() for v in slots.values() if v is not None]
    tensors = [*model.parameters(), *(p.grad for p in model.parameters()), *states]
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float32}


def test_bfloat16_learns_what_float32_learns(mini, monkeypatch):
    """40 steps on the same batches: the bounds agree far more closely than they have moved."""
    found = {}
    for precision in ("float32", "bfloat16"):
        monkeypatch.setenv("GENCORE_PRECISION", precision)
        torch.manual_seed(0)
        step = vae.Step(vae.Model(4, **SMALL), lr=3e-3)
        batches = data.batches(mini, 64, seed=1)
        found[precision] = [step(next(batches))["loss"] for _ in range(40)]
    moved = found["float32"][0] - found["float32"][-1]
    gap = [abs(a - b) for a, b in zip(*found.values(), strict=True)]
    assert moved > 20 and max(gap) < 0.05 * moved and found["float32"] != found["bfloat16"]
