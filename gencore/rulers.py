"""What images are measured on: the 64 features of a small frozen network of the same data.

Each dataset has two networks: a classifier, whose features tell classes apart, and one trained
without labels (`contrast`), whose features tell images of one class apart as well. Neither is
Inception: distances on them compare the models of this book and mean nothing beside a published
FID, and those of two datasets have two rulers. A toy's points are their own features.
"""

import functools

import numpy as np
import torch

from gencore import classifier, contrast, data, store, train

RULERS = tuple(data.SHAPES)  # datasets with frozen networks
NETWORKS = {"classifier": classifier, "contrast": contrast}


@torch.no_grad()
def features(images, ruler, resize=False, network="classifier"):
    """What a data set's distances are measured on: (n, C, H, W) -> (n, 64) float64.

    The features of a frozen network of the dataset `ruler`, its "classifier" or the "contrast"
    network that knows no labels; `images` are uint8, or float in [0, 1], in the shape of its data.
    With `resize` other images, the reader's own, are brought to that shape: smoothly to its size,
    to grey by their mean, to colours by repetition. For "points" and the toys, which have no
    network, they are the coordinates (n, 2) themselves.
    """
    if _ruler(ruler) == "points" and network == "classifier":
        return as_sets(images)[0]
    net, shape, device = _frozen(ruler, network)
    found = tuple(np.shape(images))
    if len(found) != 4 or not all(found) or (found[1:] != shape and not resize):
        raise ValueError(f"{network}-{_ruler(ruler)} takes images (n, *{shape}), not {found}.")
    parts = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # all of float32, as on a CPU
        for rows in blocks(len(images)):
            x = _resized(torch.from_numpy(to_float64(images[rows])).float(), shape)
            parts.append(net.features(x.to(device)).cpu().double())
    return torch.cat(parts).numpy()


def _resized(x, shape):
    """Images (n, C, H, W) in another shape (C, H, W), smoothed where they shrink."""
    channels, *size = shape
    if x.shape[1] != channels:
        x = x.mean(1, keepdim=True).expand(-1, channels, -1, -1)
    if list(x.shape[2:]) == size:
        return x
    return torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)


@torch.no_grad()
def classify(images, ruler):
    """Class probabilities by the same classifier: images (n, C, H, W) -> (n, 10) float64."""
    x = torch.from_numpy(features(images, ruler)).float()
    net, _, device = _frozen(ruler, "classifier")
    return net.head(x.to(device)).cpu().double().softmax(1).numpy()


def networks(ruler):
    """The names of the frozen networks of a dataset: points have none."""
    return () if _ruler(ruler) == "points" else tuple(NETWORKS)


def _ruler(name):
    ruler = data.TABLE[name].ruler if name in data.TABLE else name
    if ruler != "points" and ruler not in RULERS:
        raise ValueError(f"{name!r} has no frozen classifier, as {', '.join(RULERS)} have.")
    return ruler


def _frozen(ruler, network):
    """A frozen network of a dataset, the shape (C, H, W) of its images, and its device."""
    ruler = _ruler(ruler)
    if network not in networks(ruler):
        known = " or ".join(networks(ruler)) or "none"
        raise ValueError(f"The network of {ruler} can be {known}, not {network!r}.")
    path, device = store.artefact(f"{network}-{ruler}"), train.device()
    digest = store.describe(path)["sha256"]  # it may have been trained anew meanwhile
    net = _loaded(path, network, ruler, digest, device, store.profile())
    return net, data.TABLE[ruler].shape, device


@functools.lru_cache
def _loaded(path, network, ruler, digest, device, profile):
    tensors, meta = store.load(path)
    config = meta["config"] if isinstance(meta.get("config"), dict) else {}
    fits = config.get("paper") == network and config.get("data") == ruler
    if not fits or (profile == "full" and meta.get("profile") != "full"):
        raise store.Corrupt(
            f"{path} is not the published {network} network of {ruler} (its profile is "
            f"{meta.get('profile')}): delete it and run `python -m gencore train {path.name}`."
        )
    net = NETWORKS[network].Model(**config["model"])
    net.load_state_dict(tensors)  # float16 in the file, float32 in the network
    return net.eval().to(device)


def as_array(x):
    """A tensor or an array, from wherever it is, as an array."""
    return x.detach().cpu().numpy() if torch.is_tensor(x) else np.asarray(x)


def to_float64(images):
    """Images uint8, or float in [0, 1], as float64 in [0, 1]."""
    x = as_array(images)
    if x.dtype == np.uint8:
        return x / 255
    if x.dtype.kind != "f" or not (x.min() >= 0 and x.max() <= 1):  # NaN fails both comparisons
        found = f"{x.dtype} from {x.min()} to {x.max()}"
        raise ValueError(f"Expected images uint8, or float in [0, 1], not {found}.")
    return x.astype(np.float64)


def as_sets(*sets):
    """Sets of vectors as float64 (n, d) with one d, all finite."""
    sets = [as_array(x).astype(np.float64) for x in sets]
    shapes = [x.shape for x in sets]
    if any(x.ndim != 2 or not x.size for x in sets) or len({x.shape[1] for x in sets}) > 1:
        raise ValueError(f"Expected sets (n, d) with the same d, not shapes {shapes}.")
    if not all(np.isfinite(x).all() for x in sets):
        raise ValueError(f"NaN or infinite values in the sets of shapes {shapes}.")
    return sets


def blocks(n, size=1000):
    """Slices of at most `size` that cover n rows."""
    return [slice(start, start + size) for start in range(0, n, size)]
