"""Live figures: networks that answer to a finger, in a notebook and in a page without a kernel.

Each function returns a widget. Under a kernel it is an anywidget, whose `.state` follows the
reader and can be set; its HTML holds everything the figure needs (script, weights, pictures), so
that the same figure lives on in the published page, in Colab's saved output and in a file opened
from a disk. One ES module, `assets/explore.js`, drives both.
"""

import hashlib
import html
import json
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets

from gencore import data, embed, evaluate, style
from gencore.embed import image, packed, part, pictures, shown

ASSETS = Path(__file__).parent / "assets"


class Live(anywidget.AnyWidget):
    """A live figure. `state` is what the reader has set, for example `{"z": [0.0, 1.2], ...}`.

    Reading it gives the present state, assigning to it moves the figure. `spec` and `html` are
    what assets/explore.js draws from, `label` names the figure to a screen reader.
    """

    _esm = (ASSETS / "explore.js").read_text(encoding="utf-8")
    _css = (ASSETS / "explore.css").read_text(encoding="utf-8")
    spec = traitlets.Dict().tag(sync=True)
    html = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __repr__(self):
        return f"<live figure: {self.label}>"

    def page(self):
        """The figure as one self-contained piece of HTML."""
        spec = json.dumps(self.spec | {"state": self.state}, separators=(",", ":"), ensure_ascii=False)
        name = hashlib.sha256((self.html + spec).encode()).hexdigest()[:8]
        script = spec.replace("</", "<\\/")  # nothing in it may end the script element
        return (
            f'<div class="gencore-live" id="live-{name}" data-figure="{self.spec["figure"]}" '
            f'role="group" aria-label="{html.escape(self.label)}">\n<style>\n{self._css}</style>\n'
            f'{self.html}\n<script type="application/json">{script}</script>\n'
            f'<script type="module">/* explore.js */\n{self._esm}</script>\n</div>'
        )

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        parts, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**parts, "text/plain": repr(self), "text/html": self.page()}, metadata


# The figures.


def latent(models, images=2000):
    """Drag a code through the plane of a latent space and see what the decoder makes of it.

    models: a run, or several on the same data, between which the reader can switch. Behind the
    code are `images` test images, coloured by class, in the two units whose codes vary most.
    Beside it are a test image, its reconstruction, and the image of the code.
    """
    several = _listed(models)
    test, names = _test(several[0])
    rows, run = _examples(test), several[0]
    specs, codes = zip(*(_latent(r, test, images, names, rows) for r in several), strict=True)
    spec, kind = specs[0], " or ".join(r.name for r in several)
    described = f"{images:,} test images as points of the latent plane of {kind}, coloured by class."
    start = _means(run.model, test.images[[rows[min(7, len(rows) - 1)]]])  # a code worth looking at
    x, what = test.images[rows[:1]], names[test.labels[rows[0]]]
    small = (
        shown("x", x, f"Test image: {what}, for {kind}.", "test image"),
        shown("rec", evaluate.reconstruct(run.model, x), f"Its reconstruction by {run.name}.",
              "reconstruction"),
        shown("z", evaluate.decode(run.model, start), f"What {run.name} decodes from one code.",
              "decoded from z"),
    )  # fmt: skip
    plane = part("plane", _plane(spec, codes[0], start[0], described), kind="plane")
    fitted = hasattr(run.model, "code_chol")
    longest = max(spec["dim"] for spec in specs)
    return Live(
        label=f"Live figure: the latent space of {kind}",
        html=embed.stage(plane, pictures(*small), split="minmax(0, 5fr) minmax(0, 6fr)", controls=11),
        spec={"figure": "latent", "models": list(specs), "longest": longest, "names": names,
              "colours": list(style.CLASSES), "ink": style.INK, "described": described,
              "radii": [] if fitted else [1, 2],
              "drawn": "Draw z from the fitted Gaussian" if fitted else "Draw z from N(0, I)",
              "examples": _packed_examples(test, rows, names)},
        state={"model": 0, "z": start[0].tolist() + [0.0] * (longest - spec["dim"]), "example": 0},
    )  # fmt: skip


def _latent(run, test, images, names, rows):
    """What the page has to know of one model, and the codes it shows (n, d)."""
    codes, labels = _means(run.model, test.images[:images]).numpy(), test.labels[:images].numpy()
    axes = sorted(np.argsort(-codes.var(0), kind="stable")[:2].tolist())
    if len(axes) == 1:
        raise ValueError(f"{run.name} has one latent dimension; a plane needs two.")
    spec = {
        "run": run.name, "dim": codes.shape[1], "axes": axes, "decoder": _decoder(run.model),
        "codes": packed(codes, row=codes.size), "labels": packed(labels.astype(np.uint8)),
        "means": packed(_means(run.model, test.images[rows])),
    }  # fmt: skip
    if hasattr(run.model, "code_chol"):  # an autoencoder has no prior, but a Gaussian fitted to its codes
        spec |= {"centre": run.model.code_mean.tolist(), "spread": run.model.code_chol.flatten().tolist()}
    middle = np.array(spec.get("centre", np.zeros(codes.shape[1])))
    reach = max(3.0, np.quantile(np.abs(codes - middle), 0.995))
    medians = {names[c]: np.median(codes[labels == c][:, axes], 0) for c in np.unique(labels)}
    medians = {name: place.round(3).tolist() for name, place in style.apart(medians, 0.13 * reach).items()}
    reach = float(np.ceil(2 * reach) / 2)
    return spec | {"medians": medians, "middle": middle.tolist(), "reach": reach}, codes


def _plane(spec, codes, start, alt):
    """The first frame of the plane: what explore.js will draw, as a picture."""
    made = embed.paper(4, 4)
    (i, j), middle, reach = spec["axes"], spec["middle"], spec["reach"]
    ax = made.add_axes((0, 0, 1, 1), xlim=(middle[i] - reach, middle[i] + reach),
                       ylim=(middle[j] - reach, middle[j] + reach))  # fmt: skip
    ax.axis("off")
    labels = np.frombuffer(embed.raw(spec["labels"]["u8"]), np.uint8)
    ax.scatter(codes[:, i], codes[:, j], s=5, c=np.array(style.CLASSES)[labels % 10], alpha=0.75, lw=0)
    for name, (x, y) in spec["medians"].items():
        ax.text(x, y, name, weight="bold", ha="center", va="center", color=style.INK)
    ax.plot(start[i], start[j], "o", ms=11, mfc="none", mec=style.INK, mew=1.6)
    return embed.chart(made, alt)


def interpolate(run):
    """Two real images and a slider: a straight line of codes, an arc of codes, a mixture of pixels."""
    test, names = _test(run)
    rows, model = _examples(test), run.model
    images, means = test.images[rows], _means(model, test.images[rows])
    a, b = 0, min(5, len(rows) - 1)
    za, zb, xa, xb = means[[a]], means[[b]], data.to_unit(images[[a]]), data.to_unit(images[[b]])
    arc = za / za.norm() + zb / zb.norm()
    arc = evaluate.decode(model, arc / arc.norm() * (za.norm() + zb.norm()) / 2)
    both = f"half-way between {names[test.labels[rows[a]]]} and {names[test.labels[rows[b]]]}, {run.name}"
    line = evaluate.decode(model, (za + zb) / 2)
    parts = (
        shown("from", xa, f"The test image at the start: {both}.", "from"),
        shown("line", line, f"Decoded from the straight line, {both}.", "straight line"),
        shown("sphere", arc, f"Decoded from the sphere, {both}.", "on the sphere"),
        shown("pixels", xa / 2 + xb / 2, f"Mixture of pixels, {both}.", "in pixels"),
        shown("to", xb, f"The test image at the end: {both}.", "to"),
    )
    return Live(
        label=f"Live figure: from one image to another through the latent space of {run.name}",
        html=embed.stage(pictures(*parts, columns=5), controls=9),
        spec={"figure": "interpolate", "run": run.name, "dim": model.latent_dim,
              "decoder": _decoder(model), "means": packed(means),
              "examples": _packed_examples(test, rows, names)},
        state={"a": a, "b": b, "t": 0.5},
    )  # fmt: skip


def training(run, count=16):
    """Scrub through a training run: samples of fixed noise, the terms of the loss, the distance.

    `run` must have a film (`snapshots` in its configuration); `count` of its images are shown. A
    term is the mean of the steps since the record before it.
    """
    if not run.film:
        raise ValueError(f"{run.name} kept no samples on the way; its configuration has snapshots=0.")
    steps, distance = run.film["steps"].tolist(), run.film["frechet"].tolist()
    frames = style.pixels(run.film["images"][:, :count].flatten(0, 1))  # (T * n, H, W, 3)
    high, wide = frames.shape[1:3]
    film = frames.reshape(-1, count, high, wide, 3).swapaxes(1, 2).reshape(-1, count * wide, 3)
    last = np.pad(frames[-count:], ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    board = last.reshape(-1, 4, high + 1, wide + 1, 3).swapaxes(1, 2).reshape(-1, 4 * (wide + 1), 3)
    curves, marks = _curves(run, steps, distance)
    alt = f"{count} samples of {run.name} from fixed noise after {steps[-1]:,} steps."
    return Live(
        label=f"Live figure: the training of {run.name}, step by step",
        html=embed.stage(part("samples", image(board[:-1, :-1], alt)), part("curves", curves, kind="curves"),
                         split="minmax(0, 2fr) minmax(0, 3fr)", controls=8),
        spec={"figure": "training", "run": run.name, "columns": 4, "count": count, "film": embed.film(film),
              "shape": [3, high, wide], "steps": steps, "marks": marks,
              "terms": [_terms(run, *pair) for pair in zip(steps, distance, strict=True)]},
        state={"frame": len(steps) - 1},
    )  # fmt: skip


TERMS = {"loss": "−ELBO", "rec": "reconstruction term", "kl": "KL term"}  # keys of a history


def _terms(run, step, distance):
    k = int(np.searchsorted(run.history["step"], step).clip(max=len(run.history["step"]) - 1))
    said = ", ".join(f"{name} {style.text(float(run.history[key][k]))}" for key, name in TERMS.items())
    first = run.history["step"][0]
    early = f" over the first {first} steps" if step < first else ""
    return f"{said} nats{early}; Fréchet distance of samples {style.text(distance)}"


@style.styled()
def _curves(run, steps, distance):
    """The curves as a picture, and how far from its left edge each step is, in per cent."""
    h, ink = run.history, style.COLOURS
    made = style.figure(5, "", width=4.4)
    terms, kl, samples = made.subplots(3, sharex=True, height_ratios=(3, 2, 2))
    terms.plot(h["step"], h["loss"], color=ink["vae"], label="−ELBO")
    terms.plot(h["step"], [-rec for rec in h["rec"]], color=ink["rec"], label="−reconstruction", ls="--")
    terms.legend(loc="upper right", bbox_to_anchor=(1, 1.3), ncols=2, columnspacing=1)
    terms.set_title("nats", loc="left")
    kl.plot(h["step"], h["kl"], color=ink["prior"])
    kl.set_title("KL, nats", loc="left")
    samples.plot(steps, distance, color=ink["vae"], marker="o", ms=3.5)
    samples.set(xscale="log", xlabel="optimiser steps", ylim=(0, None))
    samples.set_xlim(min(steps) * 0.9, max(steps) * 1.1)
    samples.set_title("Fréchet distance of samples", loc="left")
    picture = embed.chart(made, f"Terms of the loss and distance of the samples: {run.name} in training.")
    places = samples.transData.transform([(step, 0) for step in steps])[:, 0] / made.bbox.width
    return picture, (100 * places).round(2).tolist()


def draw(models):
    """Draw a digit and see the code and the reconstruction that each model makes of it.

    models: runs on 28 x 28 grey images whose encoder and decoder are small enough for a page.
    """
    several = _listed(models)
    test, names = _test(several[0])
    rows = _examples(test)
    x, what = test.images[rows[:1]], names[test.labels[rows[0]]]
    pad = part("pad", image(style.pixels(x)[0], f"Drawing area with a test image: {what}."), kind="pad")
    seen = "what the encoder sees"
    specs, small = [], [shown("seen", x, f"Test image: {what}, {seen}.", seen)]
    for run in several:
        d, rec = run.model.latent_dim, evaluate.reconstruct(run.model, x)
        encoder = embed.network(run.model.encoder, x.shape[1:], room=100_000)
        specs.append({"run": run.name, "dim": d, "decoder": _decoder(run.model), "encoder": encoder})
        numbers = f"from {d} numbers"
        small.append(shown(f"rec-{d}", rec, f"Reconstruction of the {what} {numbers}.", numbers))
    for run, kind in zip(several, ("picture second", *["picture"] * len(several)), strict=False):
        small.append(part(f"code-{run.model.latent_dim}", _code(run.model, x), "code ± 2 sd", kind))
    right = pictures(*small, columns=len(several) + 1, narrow=len(several) + 1)
    return Live(
        label="Live figure: draw a digit and see its codes and reconstructions",
        html=embed.stage(pad, right, split="minmax(0, 5fr) minmax(0, 6fr)", controls=6),
        spec={"figure": "draw", "models": specs, "examples": _packed_examples(test, rows, names)},
        state={"example": 0, "pixels": test.images[rows[0]].flatten().tolist()},
    )  # fmt: skip


def _code(model, x):
    """Means and two standard deviations of q(z|x) over two of the prior, as a small chart."""
    mu, logvar = (part[0].numpy() for part in _encoded(model, x))
    made = embed.paper(1, 1)
    ax = made.add_axes((0, 0, 1, 1), xlim=(-0.5, len(mu) - 0.5), ylim=(-4, 4))
    ax.axis("off")
    ax.axhspan(-2, 2, color=style.FAINT)
    ax.errorbar(range(len(mu)), mu, 2 * np.exp(logvar / 2), fmt="o", ms=3, color=style.COLOURS["vae"])
    return embed.chart(made, f"Code of {len(mu)} numbers: {', '.join(f'{m:.1f}' for m in mu)}.")


# What the figures have in common.


def _listed(models):
    return [models] if hasattr(models, "model") else list(models)


def _test(run):
    dataset = run.data
    return dataset.test, data.CLASSES[dataset.name]


def _examples(test):
    """The first test image of each class."""
    return [int(torch.nonzero(test.labels == c)[0, 0]) for c in test.labels.unique()]


def _packed_examples(test, rows, names):
    images = test.images[rows]
    said = [names[test.labels[row]] for row in rows]
    return {"count": len(rows), "shape": list(images.shape[1:]), "names": said, **packed(images)}


@torch.no_grad()
def _encoded(model, images):
    code = model.encode(data.to_unit(images))
    return code if isinstance(code, tuple) else (code, None)


def _means(model, images):
    """The code of each image, for a VAE the mean of q(z|x): (n, d)."""
    return torch.cat([_encoded(model, chunk)[0] for chunk in images.split(1000)])


def _decoder(model):
    owner = model.decode.__self__  # a small encoder borrows the decoder of another model
    return embed.network(owner.decoder, (model.latent_dim,), sigmoid=True)
