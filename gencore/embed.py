"""What a live figure carries inside a page: arrays, networks and pictures as text.

`explore` builds its figures from these; the scripts in assets/explore read them.
"""

import base64
import html
import io
import json

import numpy as np
import torch
from torch import nn

from gencore import nets, style

LIMIT = 200_000  # bytes of one network in a page
BIG = 10_000  # weights of a layer that are the first to be stored in 8 bits
PLAIN = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu"}
PLAIN |= {nets.Centre: "centre"}


def encode_array(values, row=None):
    """An array as base64 of 16-bit floats, or of bytes with a scale for each `row` numbers.

    uint8 stays what it is. Raises ValueError for numbers that 16 bits cannot hold.
    """
    values = values.detach().cpu() if isinstance(values, torch.Tensor) else values
    array = np.ascontiguousarray(values)
    if array.dtype == np.uint8:
        return {"u8": _base64(array.tobytes())}
    if array.size and not np.abs(array).max() <= np.finfo(np.float16).max:
        raise ValueError(
            f"A page holds numbers up to 65,504; here is one of {np.abs(array).max():.3g}."
        )
    if row is None:
        return {"f16": _base64(array.astype("<f2").tobytes())}
    rows = array.reshape(-1, row)
    scale = np.maximum(np.abs(rows).max(1, keepdims=True) / 127, 6e-8).astype("<f2")
    steps = np.rint(rows / scale.astype(float)).clip(-127, 127).astype(np.int8)
    return {"i8": _base64(steps.tobytes()), "scale": encode_array(scale[:, 0])}


def _base64(octets):
    return base64.b64encode(octets).decode()


def raw(text):
    """The bytes of base64 text."""
    return base64.b64decode(text)


def network(module, shape, sigmoid=False, room=LIMIT, compact=False):
    """A trained network as layers that explore.js runs: {"layers": [...]}, in at most `room` bytes.

    shape: of one input without the batch axis. sigmoid: add one at the end. Linear layers,
    (transposed) convolutions, activations and reshapings are taken as they are; batch norm is
    folded into the layer before it. Weights have 16 bits; where that does not fit, or `compact` is
    asked for, those of big layers have 8; if need be, all have. Raises TypeError for a layer that
    explore.js does not know, ValueError for too many weights, or for one that is no number.
    """
    layers = [{"op": "reshape", "shape": list(shape)}] if len(shape) > 1 else []
    for layer in _flat(module):
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            _fold(layers, layer)
        elif not isinstance(layer, (nn.Identity, nn.Dropout)):  # both do nothing after training
            layers.append(_layer(layer))
    layers += [{"op": "sigmoid"}] if sigmoid else []
    for least in (BIG, 0) if compact else (np.inf, BIG, 0):
        spec = {"layers": [_pack(layer, least) for layer in layers]}
        if (size := len(json.dumps(spec))) <= room:
            return spec
    raise ValueError(
        f"This network may take {room:,} bytes in a page and takes {size:,} with 8 bits a weight. "
        f"Train a smaller one for the figure."
    )


def _flat(module):
    """The layers of nested nn.Sequentials, and of a net of the book by its `.net`, in order."""
    if isinstance(getattr(module, "net", None), nn.Module):
        module = module.net
    for child in module if isinstance(module, nn.Sequential) else [module]:
        yield from _flat(child) if isinstance(child, nn.Sequential) else [child]


def _layer(layer):
    if type(layer) in PLAIN:
        return {"op": PLAIN[type(layer)]}
    if isinstance(layer, nn.LeakyReLU):
        return {"op": "leaky", "slope": layer.negative_slope}
    if isinstance(layer, nn.GELU):
        return {"op": "gelu_tanh" if layer.approximate == "tanh" else "gelu"}
    if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
        return {"op": "flatten"}
    if isinstance(layer, nn.Unflatten) and layer.dim == 1:
        return {"op": "reshape", "shape": list(layer.unflattened_size)}
    if isinstance(layer, nn.Linear):
        return {"op": "linear", "out": layer.out_features} | _weights(layer)
    if isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        return {"op": "layer_norm", "eps": layer.eps} | _weights(layer)
    if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and (shape := _convolution(layer)):
        return shape | _weights(layer)
    raise TypeError(f"explore.js has no layer for {layer}; see gencore.embed.network.")


def _convolution(layer):
    """Kind and shape of a (transposed) convolution; None if it is not as plain as the page's."""
    kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
    pairs = (kernel, stride, padding)  # padding may be a word
    square = all(isinstance(pair, tuple) and len(set(pair)) == 1 for pair in pairs)
    plain = layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    if not (square and plain) or set(layer.output_padding) != {0}:
        return None
    op = "deconv" if isinstance(layer, nn.ConvTranspose2d) else "conv"
    return {"op": op, "out": layer.out_channels, "kernel": kernel[0], "stride": stride[0],
            "padding": padding[0]}  # fmt: skip


def _weights(layer):
    one = torch.ones(getattr(layer, "normalized_shape", ()))  # of a layer norm without a scale
    weight = (one if layer.weight is None else layer.weight).detach().cpu().double().numpy()
    bias = np.zeros(weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0])
    if layer.bias is not None:
        bias = layer.bias.detach().cpu().double().numpy()
    return {"weight": weight, "bias": bias}


def _fold(layers, norm):
    """Batch norm after training is a scale and a shift of each output of the layer before it."""
    if not layers or "weight" not in layers[-1]:
        raise TypeError("explore.js can fold batch norm only into the layer right before it.")
    before, one = layers[-1], torch.ones(norm.num_features)
    gain, shift = (one, 0 * one) if norm.weight is None else (norm.weight, norm.bias)
    scale = (gain.cpu() / (norm.running_var.cpu() + norm.eps).sqrt()).detach().double().numpy()
    middle = norm.running_mean.cpu().double().numpy()
    shift = shift.detach().cpu().double().numpy()
    axes = (1, -1, 1, 1) if before["op"] == "deconv" else (-1,) + (1,) * (before["weight"].ndim - 1)
    before["weight"] = before["weight"] * scale.reshape(axes)
    before["bias"] = (before["bias"] - middle) * scale + shift


def _pack(layer, least):
    """Its arrays as text: in 8 bits if it has `least` weights, in 16 otherwise."""
    if "weight" not in layer:
        return layer
    # Each scale serves at most 96 weights, and those of one unit only: the fewer share a scale, the
    # finer are its 255 steps.
    row = max(k for k in range(1, 97) if layer["weight"][0].size % k == 0)
    weight = encode_array(layer["weight"], row if layer["weight"].size >= least else None)
    return layer | {"weight": weight, "bias": encode_array(layer["bias"])}


def image(pixels, alt):
    """An <img> of uint8 pixels (H, W, 3)."""
    from PIL import Image

    grey = (pixels == pixels[..., :1]).all()
    small = io.BytesIO()
    Image.fromarray(pixels[..., 0] if grey else pixels).save(small, "png", optimize=True)
    return img(small.getvalue(), alt, "pixels")


def webp(pixels):
    """A big picture (H, W, 3) as a data address, without loss and smaller than as a PNG."""
    from PIL import Image

    small = io.BytesIO()
    Image.fromarray(pixels).save(small, "webp", lossless=True, method=4, quality=70)
    return f"data:image/webp;base64,{_base64(small.getvalue())}"


def chart_image(figure, alt):
    """An <img> of a matplotlib figure, in 64 colours."""
    from PIL import Image

    fine, small = io.BytesIO(), io.BytesIO()
    figure.savefig(fine, format="png")
    picture = Image.open(fine).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    picture.save(small, "png", optimize=True)
    return img(small.getvalue(), alt, "chart")


def img(png, alt, kind):
    """An <img> of a PNG file's bytes."""
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))  # in the header
    return (
        f'<img class="{kind}" width="{width}" height="{height}" alt="{html.escape(alt)}" '
        f'src="data:image/png;base64,{_base64(png)}">'
    )


def part(name, picture, caption="", kind="picture"):
    """A place of the stage: a picture and the words under it."""
    below = f"<span>{caption}</span>" if caption else ""
    return f'<div class="{kind}" data-name="{name}">{picture}{below}</div>'


def shown(name, images, alt, caption):
    """A part with the first of some images (n, C, H, W)."""
    return part(name, image(style.to_uint8(images)[0], alt), caption)


def paper(width, height):
    """An empty matplotlib figure on the book's paper, in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130, facecolor=style.PAPER)


def stage(*parts, split="1fr", controls=0):
    """The parts beside or above each other; `controls` is the room to keep for them, in rem."""
    return (
        f'<div class="stage" style="--split: {split}">{"".join(parts)}</div>\n'
        f'<div class="controls" style="--controls: {controls}rem"></div>'
    )


def pictures(*parts, columns=3, narrow=3):
    """Small pictures in rows of `columns`, or of `narrow` on a phone."""
    places = f"--columns: {columns}; --narrow: {narrow}"
    return f'<div class="pictures" style="{places}">{"".join(parts)}</div>'
