"""Three ways from one image to another."""

from gencore import data, embed, evaluate
from gencore.explore import Live, shared


def interpolate(run):
    """Two real images and a slider: a straight line of codes, an arc of codes, a mixture of pixels.

    Raises ValueError for a model that finds no codes of given images.
    """
    dataset, model = run.data, run.model
    rows = shared.examples(dataset)
    images, means = dataset.test.images[rows], shared.means(run, dataset.test.images[rows])
    names = [dataset.classes[dataset.test.labels[row]] for row in rows]
    a, b = 0, min(5, len(rows) - 1)
    xa, xb = data.to_unit(images[[a]]), data.to_unit(images[[b]])
    line, arc = _half_way(means[[a]], means[[b]])
    both = f"half-way between {names[a]} and {names[b]}, {run.name}"
    line, arc = evaluate.decode(model, line), evaluate.decode(model, arc)
    parts = (
        embed.shown("from", xa, f"The test image at the start: {both}.", "from"),
        embed.shown("line", line, f"Decoded from the straight line, {both}.", "straight line"),
        embed.shown("sphere", arc, f"Decoded from the sphere, {both}.", "on the sphere"),
        embed.shown("pixels", xa / 2 + xb / 2, f"Mixture of pixels, {both}.", "in pixels"),
        embed.shown("to", xb, f"The test image at the end: {both}.", "to"),
    )
    return Live(
        "interpolate", f"from one image to another through the latent space of {run.name}",
        embed.stage(embed.pictures(*parts, columns=5), controls=9),
        {"run": run.name, "dim": model.latent_dim, "decoder": shared.decoder(model),
         "means": embed.encode_array(means), "examples": shared.encode_examples(dataset, rows)},
        {"a": a, "b": b, "t": 0.5},
    )  # fmt: skip


def _half_way(a, b):
    """Half-way between codes (n, d) on a straight line, and on an arc about the origin."""
    la, lb = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
    direction = a / la + b / lb
    return (a + b) / 2, direction / direction.norm(dim=1, keepdim=True) * (la + lb) / 2
