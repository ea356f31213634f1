"""The latent plane: drag a code, see its image."""

import numpy as np

from gencore import embed, evaluate, style
from gencore.explore import Live, shared


def latent(models, images=2000):
    """Drag a code through the plane of a latent space and see what the decoder makes of it.

    models: a run, or several on the same data, between which the reader can switch. Behind the
    code are `images` test images, coloured by class, in the two units whose codes vary most.
    Beside it are a test image, its reconstruction, and the image of the code. Raises ValueError
    for a model that finds no codes of given images, or has one latent dimension.
    """
    several = shared.listed(models)
    run, kind = several[0], " or ".join(r.name for r in several)
    dataset, rows = run.data, shared.examples(run.data)
    specs, codes = zip(*(_model(r, dataset, images, rows) for r in several), strict=True)
    start = shared.means(run, dataset.test.images[[rows[min(7, len(rows) - 1)]]])
    described = f"{images:,} test images in the latent plane of {kind}, coloured by class."
    plane = embed.part("plane", _plane(specs[0], codes[0], start[0], described), kind="plane")
    small = embed.pictures(*_pictures(run, dataset, rows[0], start, kind))
    longest = max(spec["dim"] for spec in specs)
    fitted = _fitted(run.model) is not None
    return Live(
        "latent", f"the latent space of {kind}",
        embed.stage(plane, small, split="minmax(0, 5fr) minmax(0, 6fr)", controls=11),
        {"models": list(specs), "longest": longest, "names": list(dataset.classes),
         "colours": list(style.CLASSES), "ink": style.INK, "described": described,
         "radii": [] if fitted else [1, 2],
         "drawn": "Draw z from the fitted Gaussian" if fitted else "Draw z from N(0, I)",
         "examples": shared.encode_examples(dataset, rows)},
        {"model": 0, "z": start[0].tolist() + [0.0] * (longest - specs[0]["dim"]), "example": 0},
    )  # fmt: skip


def _model(run, dataset, images, rows):
    """What the page has to know of one model, and the codes it shows (n, d)."""
    test = dataset.test
    codes, labels = shared.means(run, test.images[:images]).numpy(), test.labels[:images].numpy()
    axes = sorted(np.argsort(-codes.var(0), kind="stable")[:2].tolist())
    if len(axes) == 1:
        raise ValueError(f"{run.name} has one latent dimension; a plane needs two.")
    middle, spread = np.zeros(codes.shape[1]), {}
    if (gaussian := _fitted(run.model)) is not None:
        middle, spread = gaussian.mean.cpu().numpy(), {"spread": gaussian.chol.flatten().tolist()}
    reach = max(3.0, np.quantile(np.abs(codes - middle), 0.995))
    medians = {
        dataset.classes[c]: np.median(codes[labels == c][:, axes], 0) for c in np.unique(labels)
    }
    medians = {
        name: place.round(3).tolist() for name, place in style.apart(medians, 0.13 * reach).items()
    }
    return {
        "run": run.name, "dim": codes.shape[1], "axes": axes, "decoder": shared.decoder(run.model),
        "codes": embed.encode_array(codes, row=codes.size),
        "labels": embed.encode_array(labels.astype(np.uint8)),
        "means": embed.encode_array(shared.means(run, test.images[rows])),
        "medians": medians, "middle": middle.tolist(), "reach": float(np.ceil(2 * reach) / 2),
        **spread,
    }, codes  # fmt: skip


def _fitted(model):
    """The Gaussian that codes follow, of a model that has no prior for them; None for a VAE."""
    return model.priors["gaussian"] if getattr(model, "followed", "") == "gaussian" else None


def _plane(spec, codes, start, alt):
    """The first frame of the plane: what latent.js will draw, as a picture."""
    fig = embed.paper(4, 4)
    (i, j), middle, reach = spec["axes"], spec["middle"], spec["reach"]
    ax = fig.add_axes((0, 0, 1, 1), xlim=(middle[i] - reach, middle[i] + reach),
                      ylim=(middle[j] - reach, middle[j] + reach))  # fmt: skip
    ax.axis("off")
    labels = np.frombuffer(embed.raw(spec["labels"]["u8"]), np.uint8)
    ax.scatter(
        codes[:, i], codes[:, j], s=5, c=np.array(style.CLASSES)[labels % 10], alpha=0.75, lw=0
    )
    for name, (x, y) in spec["medians"].items():
        ax.text(x, y, name, weight="bold", ha="center", va="center", color=style.INK)
    ax.plot(start[i], start[j], "o", ms=11, mfc="none", mec=style.INK, mew=1.6)
    return embed.chart_image(fig, alt)


def _pictures(run, dataset, row, start, kind):
    """A test image, its reconstruction, and what the code at the start is decoded to."""
    x, what = dataset.test.images[[row]], dataset.classes[dataset.test.labels[row]]
    rec, image = evaluate.reconstruct(run.model, x), evaluate.decode(run.model, start)
    return (
        embed.shown("x", x, f"Test image: {what}, for {kind}.", "test image"),
        embed.shown("rec", rec, f"Its reconstruction by {run.name}.", "reconstruction"),
        embed.shown("z", image, f"What {run.name} decodes from one code.", "decoded from z"),
    )
