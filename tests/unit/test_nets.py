"""nets: shapes, sizes, and the format of their matrix products in training and outside it."""

import pytest
import torch

from gencore import ae, classifier, data, nets, train, vae

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


@pytest.mark.parametrize("size", [0, 2, 30, 27])
@pytest.mark.parametrize("network", [nets.Encoder, nets.Decoder])
def test_a_side_that_cannot_be_halved_twice_is_refused(network, size):
    with pytest.raises(ValueError, match=f"its side must be a multiple of 4; it is {size}"):
        network(2, size=size)


def test_the_device_of_a_model_is_that_of_what_it_holds():
    assert nets.device_of(torch.nn.Linear(1, 1, device="meta")).type == "meta"
    assert nets.device_of(torch.nn.BatchNorm1d(2, affine=False).to("meta")).type == "meta"
    assert nets.device_of(torch.nn.ReLU()) == torch.device("cpu")


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
        nets.Decoder(2, size=8, width=2)(torch.zeros(1, 2))


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
    model = paper.Model(width=4) if paper is classifier else paper.Model(2, width=4)
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
        step = vae.Step(vae.Model(4, width=4), lr=3e-3)
        batches = data.batches(mini, 64, seed=1)
        found[precision] = [step(next(batches))["loss"] for _ in range(40)]
    moved = found["float32"][0] - found["float32"][-1]
    gap = [abs(a - b) for a, b in zip(*found.values(), strict=True)]
    assert moved > 20 and max(gap) < 0.05 * moved and found["float32"] != found["bfloat16"]
