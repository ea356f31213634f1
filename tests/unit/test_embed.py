"""What goes into a page says the same as what it was made from."""

import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import NETWORKS, network
from torch import nn
from torch.nn import functional as F

from gencore import catalogue, embed, nets, runs


def numbers(encoded):
    """Read back what `encode_array` wrote, as the page does."""
    if "u8" in encoded:
        return np.frombuffer(base64.b64decode(encoded["u8"]), np.uint8).astype(float)
    if "f16" in encoded:
        return np.frombuffer(base64.b64decode(encoded["f16"]), "<f2").astype(float)
    steps = np.frombuffer(base64.b64decode(encoded["i8"]), np.int8).astype(float)
    scale = numbers(encoded["scale"])
    return (steps.reshape(len(scale), -1) * scale[:, None]).ravel()


ACTIVATIONS = {
    "relu": lambda x, _: F.relu(x), "tanh": lambda x, _: x.tanh(), "sigmoid": lambda x, _: x.sigmoid(),
    "silu": lambda x, _: F.silu(x), "leaky": lambda x, layer: F.leaky_relu(x, layer["slope"]),
    "centre": lambda x, _: 2 * x - 1,
    "gelu": lambda x, _: F.gelu(x), "gelu_tanh": lambda x, _: F.gelu(x, approximate="tanh"),
}  # fmt: skip


def run(spec, x):
    """A network of a page through PyTorch's own functions: one example, flat, in and out."""
    x, shape = torch.as_tensor(x, dtype=torch.float64)[None], {}
    for layer in spec["layers"]:
        op = layer["op"]
        if "weight" in layer:
            bias = torch.from_numpy(numbers(layer["bias"]).copy())
            weight = torch.from_numpy(numbers(layer["weight"]).copy())
        if op == "linear":
            x = F.linear(x.flatten(1), weight.view(layer["out"], -1), bias)
        elif op in ("conv", "deconv"):
            k, out, channels = layer["kernel"], layer["out"], x.shape[1]
            shape = (out, channels, k, k) if op == "conv" else (channels, out, k, k)
            f = F.conv2d if op == "conv" else F.conv_transpose2d
            x = f(x, weight.view(shape), bias, layer["stride"], layer["padding"])
        elif op == "layer_norm":
            x = F.layer_norm(x, (len(weight),), weight, bias, layer["eps"])
        elif op == "reshape":
            x = x.view(1, *layer["shape"])
        elif op == "flatten":
            x = x.flatten(1)
        else:
            x = ACTIVATIONS[op](x, layer)
    return x.flatten().numpy()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_network_in_a_page_computes_what_the_module_does(name):
    module, shape = network(name)
    x = torch.randn(1, *shape)
    wanted = module.double()(x.double()).flatten().numpy()
    np.testing.assert_allclose(run(embed.network(module, shape), x.flatten()), wanted, atol=3e-3, rtol=3e-3)


@torch.no_grad()
def test_the_decoders_of_the_book():
    torch.manual_seed(0)
    decoder = nets.Decoder(10).eval()
    z = torch.randn(1, 10)
    out = run(embed.network(decoder, (10,), sigmoid=True), z[0])
    np.testing.assert_allclose(out, decoder(z).sigmoid().flatten().numpy(), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("d", [2, 4, 10])
def test_the_networks_of_digits_fit_into_a_page(d):
    """A decoder with 16 bits throughout, or in two thirds of the room; what encodes a reader's digit, in half."""
    for compact, room, eight in ((False, embed.LIMIT, 0), (True, 110_000, 1)):
        decoder = embed.network(nets.Decoder(d), (d,), sigmoid=True, compact=compact)
        kinds = [next(iter(layer["weight"])) for layer in decoder["layers"] if "weight" in layer]
        assert kinds.count("i8") == eight and len(json.dumps(decoder)) < room
    row = catalogue.config(f"encoder-mnist-d{d}")
    sizes = {key: row.model[key] for key in ("widths", "hidden")}
    encoder = embed.network(nets.Encoder(d, **sizes), (1, 28, 28), room=100_000)
    big = [layer for layer in encoder["layers"] if "i8" in layer.get("weight", {})]
    assert len(big) == 1 and len(json.dumps(encoder)) < 100_000, "its one big layer has 8 bits"


@torch.no_grad()
def test_eight_bits_are_taken_where_sixteen_do_not_fit():
    torch.manual_seed(0)
    module, x = nn.Sequential(nn.Linear(300, 400), nn.Linear(400, 10)).eval(), torch.randn(1, 300)
    kinds = {}
    for room in (400_000, 200_000, 172_000):
        spec = embed.network(module, (300,), room=room)
        kinds[room] = [next(iter(layer["weight"])) for layer in spec["layers"]]
        assert np.abs(run(spec, x[0]) - module(x)[0].numpy()).max() < 0.02
        assert len(json.dumps(spec)) <= room
    assert list(kinds.values()) == [["f16", "f16"], ["i8", "f16"], ["i8", "i8"]]
    with pytest.raises(ValueError, match="may take 200,000 bytes"):
        embed.network(nn.Linear(600, 400), (600,))


@torch.no_grad()
@pytest.mark.parametrize("d", [2, 4, 10])
def test_eight_bits_in_the_big_layer_are_enough_and_throughout_too_few(d):
    """A pixel would miss the tolerance of the tests in the browser, which is 0.02."""
    model = runs.get(f"vae-mnist-d{d}").model
    z = torch.randn(200, d, generator=torch.Generator().manual_seed(0))
    wanted = model.decode(z).flatten(1).numpy()
    layers = [embed._layer(layer) for layer in embed._flat(model.decoder)] + [{"op": "sigmoid"}]
    worst = {}
    for least in (np.inf, embed.BIG, 0):
        spec = {"layers": [embed._pack(layer, least) for layer in layers]}
        worst[least] = max(np.abs(run(spec, code) - image).max() for code, image in zip(z, wanted, strict=True))
    assert worst[np.inf] < 2e-3 and worst[embed.BIG] < 0.018 and worst[0] > 0.02, worst


@pytest.mark.parametrize(
    "module",
    [nn.MaxPool2d(2), nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(1, 1, 3, dilation=2), nn.Conv2d(1, 1, (3, 5)),
     nn.ConvTranspose2d(1, 1, 3, 2, output_padding=1), nn.BatchNorm1d(3),
     nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)), nn.Conv2d(1, 1, 3, padding="same"),
     nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), nn.Flatten(2), nn.Unflatten(2, (1, 2)), nn.ELU(),
     nn.LayerNorm((2, 3)), nn.GroupNorm(1, 2)],
    ids=str,
)  # fmt: skip
def test_what_the_page_cannot_compute_is_refused(module):
    with pytest.raises(TypeError, match="explore.js"):
        embed.network(module.eval(), (2,))


@torch.no_grad()
def test_batch_norm_is_folded_with_its_epsilon():
    """Where a unit hardly varies, the epsilon is most of what it is divided by."""
    layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, eps=1e-2)).eval()
    layers[1].running_var.fill_(1e-4)
    layers[1].running_mean.fill_(0.25)
    x = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    wanted = layers(x)[0].numpy()
    np.testing.assert_allclose(run(embed.network(layers, (3,)), x[0]), wanted, rtol=3e-3, atol=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_what_is_no_number_of_16_bits_is_refused(value):
    for row in (None, 2):
        with pytest.raises(ValueError, match="up to 65,504"):
            embed.encode_array(np.array([1.0, value]), row)
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight[0, 1] = value
    with pytest.raises(ValueError, match="up to 65,504"):
        embed.network(layer, (2,))


def test_arrays_survive():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 50))
    np.testing.assert_array_equal(numbers(embed.encode_array(x)), x.astype(np.float16).ravel())
    octets = rng.integers(0, 256, 40, dtype=np.uint8)
    np.testing.assert_array_equal(numbers(embed.encode_array(octets)), octets)
    steps = np.abs(x).max(1, keepdims=True) / 127
    assert (np.abs(numbers(embed.encode_array(x, 50)).reshape(x.shape) - x) < 0.51 * steps).all()
    assert not np.isnan(numbers(embed.encode_array(np.zeros((2, 3)), 3))).any()
    assert embed.encode_array(torch.ones(3)) == embed.encode_array(np.ones(3))


def picture(tag):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(tag.split("base64,")[1].split('"')[0]))).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_exact(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    pixels = np.broadcast_to(pixels, (5, 7, 3))
    tag = embed.image(pixels, 'A "loud" <picture>')
    np.testing.assert_array_equal(picture(tag), pixels)
    assert 'width="7" height="5"' in tag
    assert 'alt="A &quot;loud&quot; &lt;picture&gt;"' in tag
    np.testing.assert_array_equal(picture(embed.webp(np.ascontiguousarray(pixels)) + '"'), pixels)
