"""Draw a digit: its codes and what is made of them."""

import numpy as np
import torch

from gencore import data, embed, evaluate, nets, style
from gencore.explore import Live, shared


def draw(models):
    """Draw a digit and see the code and the reconstruction that each model makes of it.

    models: runs on 28 x 28 grey images whose encoder and decoder are small enough for a page.
    """
    several = shared.listed(models)
    dataset = several[0].data
    rows = shared.examples(dataset)
    x, what = dataset.test.images[rows[:1]], dataset.classes[dataset.test.labels[rows[0]]]
    pad = embed.image(style.to_uint8(x)[0], f"Drawing area with a test image: {what}.")
    seen = "what the encoder sees"
    specs, small = [], [embed.shown("seen", x, f"Test image: {what}, {seen}.", seen)]
    for run in several:
        d, rec = run.model.latent_dim, evaluate.reconstruct(run.model, x)
        encoder = embed.network(run.model.encoder, x.shape[1:], room=100_000)
        specs.append(
            {"run": run.name, "dim": d, "decoder": shared.decoder(run.model), "encoder": encoder}
        )
        numbers = f"from {d} numbers"
        small.append(
            embed.shown(f"rec-{d}", rec, f"Reconstruction of the {what} {numbers}.", numbers)
        )
    for run, kind in zip(several, ("picture second", *["picture"] * len(several)), strict=False):
        chart = _code(run.model, x)
        small.append(embed.part(f"code-{run.model.latent_dim}", chart, "code ± 2 sd", kind))
    columns = len(several) + 1
    right = embed.pictures(*small, columns=columns, narrow=columns)
    return Live(
        "draw", "draw a digit and see its codes and reconstructions",
        embed.stage(embed.part("pad", pad, kind="plane"), right,
                    split="minmax(0, 5fr) minmax(0, 6fr)", controls=6),
        {"models": specs, "examples": shared.encode_examples(dataset, rows)},
        {"example": 0, "pixels": x.flatten().tolist()},
    )  # fmt: skip


@torch.no_grad()
def _code(model, x):
    """Means and two standard deviations of q(z|x) over two of the prior, as a small chart."""
    x = data.to_unit(x.to(nets.device_of(model)))
    mu, logvar = (part[0].cpu().numpy() for part in model.encode(x))
    fig = embed.paper(1, 1)
    ax = fig.add_axes((0, 0, 1, 1), xlim=(-0.5, len(mu) - 0.5), ylim=(-4, 4))
    ax.axis("off")
    ax.axhspan(-2, 2, color=style.FAINT)
    ax.errorbar(
        range(len(mu)), mu, 2 * np.exp(logvar / 2), fmt="o", ms=3, color=style.COLOURS["vae"]
    )
    return embed.chart_image(
        fig, f"Code of {len(mu)} numbers: {', '.join(f'{m:.1f}' for m in mu)}."
    )
