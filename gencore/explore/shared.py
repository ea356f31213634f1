"""What several live figures need of a run: codes, example images, networks for the page."""

import torch

from gencore import data, embed, nets


def listed(models):
    """Runs as a list, of one run or of several."""
    return [models] if hasattr(models, "model") else list(models)


def examples(dataset):
    """The first test image of each class: positions in the test set."""
    labels = dataset.test.labels
    return [int(torch.nonzero(labels == c)[0, 0]) for c in labels.unique()]


def encode_examples(dataset, rows):
    """Test images for a page: how many, their shape, what they show, their pixels."""
    images = dataset.test.images[rows]
    said = [dataset.classes[dataset.test.labels[row]] for row in rows]
    return {
        "count": len(rows), "shape": list(images.shape[1:]), "names": said,
        **embed.encode_array(images),
    }  # fmt: skip


@torch.no_grad()
def means(run, images):
    """The code of each uint8 image, without noise: (n, d).

    Raises ValueError for a model that draws images but finds no codes of given ones.
    """
    if not hasattr(run.model, "infer"):
        raise ValueError(
            f"{run.name} can draw images but infers no codes of given ones (its model has no "
            f"`infer`), and this figure shows codes of test images."
        )
    device = nets.device_of(run.model)
    chunks = (data.to_unit(chunk.to(device)) for chunk in images.split(1000))
    return torch.cat([run.model.infer(chunk).cpu() for chunk in chunks])


@torch.no_grad()
def decoder(model):
    """The network of a model that turns codes into images, for a page.

    A chapter has several: with 8 bits in its big layer a decoder takes 105 instead of 170 kB, and
    a pixel in [0, 1] is off by at most 0.02. Raises TypeError for a model whose `decode` is not its
    `decoder` with a sigmoid behind it.
    """
    z = torch.linspace(-1, 1, 2 * model.latent_dim, device=nets.device_of(model)).view(2, -1)
    net = getattr(model, "decoder", None)
    if net is None or not torch.allclose(model.decode(z), net(z).sigmoid(), atol=1e-5):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise TypeError(
            f"{kind}.decode is not its `decoder` and a sigmoid, as live figures need it."
        )
    return embed.network(net, (model.latent_dim,), sigmoid=True, compact=True)
