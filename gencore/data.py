"""Datasets as tensors in memory, and batches cut from them.

Small images fit in memory whole, so there is no per-image loader here: a batch is one indexing
operation. `load` looks in `$GENCORE_DATA`, then in the cache, then lets torchvision download.
"""

import difflib
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import torch

from gencore import store

SHAPES = {"mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
NAMES = (*SHAPES, "fashion-mini", "ring", "grid")
CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "fashion-mnist": "T-shirt trouser pullover dress coat sandal shirt sneaker bag boot".split(),
    "cifar10": "airplane automobile bird cat deer dog frog horse ship truck".split(),
}
CLASSES["fashion-mini"] = CLASSES["fashion-mnist"]


class DataError(ValueError):
    """A dataset could not be had, or its files are not what they should be."""


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), and labels, int64 (N,); toys hold float32 points (N, 2)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A training and a test split. `stand_in` says that these are not the images of `name`."""

    name: str
    train: Split
    test: Split
    stand_in: bool = False
    source: str = ""


def profile():
    """The budget of this process: `$GENCORE_PROFILE`, one of full (default), quick, smoke."""
    value = os.environ.get("GENCORE_PROFILE", "full")
    if value not in ("full", "quick", "smoke"):
        raise DataError(f"GENCORE_PROFILE is {value!r}; it can be full, quick or smoke.")
    return value


def load(name):
    """Load a dataset by name, or your own images from a folder or an `.npz` file.

    Names: mnist, fashion-mnist, cifar10; fashion-mini, which is embedded and needs no network;
    the 2-D toys ring and grid. Under the profile smoke the embedded images stand in for every
    real dataset, and a line says so. Raises DataError when the data cannot be had: nothing else
    is put in its place.
    """
    name = str(name)
    if name in ("ring", "grid"):
        return _toy(name)
    if name == "fashion-mini":
        return _read_npz(store.ASSETS / "fashion-mini.npz", name)
    if name in SHAPES:
        return _stand_in(name) if profile() == "smoke" else _real(name)
    if Path(name).is_dir():
        return _folder(Path(name))
    if name.endswith(".npz") and Path(name).exists():
        return _read_npz(Path(name), Path(name).stem)
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"did you mean {near[0]!r}?" if near else "it is no file or folder either."
    raise DataError(f"There is no dataset {name!r}: {hint} Known names: {', '.join(NAMES)}.")


def to_unit(images):
    """uint8 images as float32 in [0, 1]; float tensors pass through unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


class Batches:
    """An endless iterator of shuffled batches, float32 in [0, 1], that can be set to any step.

    The order is a function of `seed` and of the epoch alone, so a run that is resumed at step s
    (set `.step = s`) sees the same images as one that never stopped. The last, smaller batch of
    an epoch is left out. `images` is a uint8 or float tensor; batches are on its device. With
    `labels` each batch is a pair (images, labels).
    """

    def __init__(self, images, batch_size, seed=0, labels=None):
        if not 1 <= batch_size <= len(images):
            raise DataError(f"A batch of {batch_size} was asked of only {len(images)} images.")
        self.images, self.labels = images, labels
        self.batch_size, self.seed = batch_size, seed
        self.step = 0
        self._epoch, self._order = None, None

    @property
    def per_epoch(self):
        return len(self.images) // self.batch_size

    def __iter__(self):
        return self

    def __next__(self):
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.images), generator=generator)
            self._epoch, self._order = epoch, order.to(self.images.device)
        start = position * self.batch_size
        self.step += 1
        rows = self._order[start : start + self.batch_size]
        x = to_unit(self.images[rows])
        return x if self.labels is None else (x, self.labels[rows])


def batches(images, batch_size=128, seed=0, labels=None):
    """Shuffled batches without end: see Batches."""
    return Batches(images, batch_size, seed, labels)


def where(name):
    """`(found, place)`: the file that `load(name)` would read, or where it has looked."""
    if name not in SHAPES:
        return True, "embedded" if name == "fashion-mini" else "computed"
    files = _places(name)
    for file in files:
        if file.exists():
            return True, str(file)
    return False, "not here: looked for " + " and ".join(map(str, files))


def _places(name):
    own = os.environ.get("GENCORE_DATA")
    folders = ([Path(own)] if own else []) + [store.cache_dir() / "data"]
    return [folder / f"{name}.npz" for folder in folders]


def _real(name):
    for file in _places(name):
        if file.exists():
            return _read_npz(file, name)
    arrays = _download(name)
    file = store.cache_dir() / "data" / f"{name}.npz"
    _write_npz(file, arrays)
    return _read_npz(file, name)


def _download(name):
    """The four arrays of a torchvision dataset, which torchvision fetches and verifies."""
    import torchvision

    source = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR10"}[name]
    root, arrays = store.cache_dir() / "torchvision" / name, {}
    patience = socket.getdefaulttimeout()
    try:
        socket.setdefaulttimeout(store.TIMEOUT)  # torchvision itself would wait for ever
        for part in ("train", "test"):
            dataset = getattr(torchvision.datasets, source)(root, part == "train", download=True)
            images = torch.as_tensor(dataset.data)
            arrays[f"{part}_images"] = images.reshape(*images.shape[:3], -1).numpy()
            arrays[f"{part}_labels"] = torch.as_tensor(dataset.targets).numpy().astype("uint8")
    except Exception as error:  # of the network, the archive or the disk: they share no base
        shutil.rmtree(root, ignore_errors=True)  # half of a download is not taken for a whole one
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        looked = " and ".join(map(str, _places(name)))
        raise DataError(
            f"{name} could not be had: looked for {looked}, then torchvision could not download it "
            f"({reason}). Put {name}.npz into a folder and set GENCORE_DATA to it, or work with "
            f'the embedded data: data.load("fashion-mini").'
        ) from None
    finally:
        socket.setdefaulttimeout(patience)
    return arrays


def _write_npz(file, arrays):
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    store.write_bytes(file, buffer.getvalue())


def _read_npz(file, name):
    """Read `<part>_images`, uint8 (N, H, W, C), and the optional `<part>_labels`."""
    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # of the archive, its compression, its arrays: they share no base
        raise DataError(f"{file} is damaged ({error}): delete it and get it again.") from None
    splits = [_split(arrays, part, file) for part in ("train", "test")]
    expected = SHAPES.get(name, tuple(splits[0].images.shape[1:]))
    for found in (tuple(split.images.shape[1:]) for split in splits):
        if found != expected:
            raise DataError(
                f"{file} holds images of shape {found}, but {name} has {expected} (channels, "
                f"height, width)."
            )
    return Dataset(name, *splits, source=str(file))


def _split(arrays, part, file):
    images = arrays.get(f"{part}_images")
    if images is None or images.dtype != "uint8" or images.ndim != 4 or not len(images):
        found = "missing" if images is None else f"{images.dtype} {images.shape}"
        raise DataError(
            f"{file}: the array {part}_images should be uint8 of shape (N, H, W, C); it is {found}."
        )
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = arrays.get(f"{part}_labels")
    if labels is None:
        return Split(images, torch.full((len(images),), -1))
    if labels.dtype.kind not in "iu" or labels.shape != (len(images),):
        raise DataError(
            f"{file}: the array {part}_labels should be {len(images)} whole numbers; it is "
            f"{labels.dtype} {labels.shape}."
        )
    return Split(images, torch.from_numpy(labels.astype("int64")))


def _stand_in(name):
    """Embedded images in the shape of another dataset, for tests that must not need the network."""
    mini = load("fashion-mini")
    channels, size, _ = SHAPES[name]
    pad = (size - 28) // 2
    print(f"Profile smoke: {len(mini.train)} embedded Fashion-MNIST images stand in for {name}.")

    def reshape(split):
        images = torch.nn.functional.pad(split.images, (pad,) * 4)
        return Split(images.repeat(1, channels, 1, 1), split.labels)

    return Dataset(name, reshape(mini.train), reshape(mini.test), True, mini.source)


def _toy(name, n=10_000, scale=0.05):
    """8 Gaussians on a circle of radius 2, or 25 on a 5 x 5 grid of spacing 1 (sd 0.05)."""
    if name == "ring":
        angle = torch.arange(8) * (torch.pi / 4)
        centres = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    else:
        centres = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3))
    generator = torch.Generator().manual_seed(0)

    def draw():
        labels = torch.randint(len(centres), (n,), generator=generator)
        return Split(centres[labels] + scale * torch.randn(n, 2, generator=generator), labels)

    return Dataset(name, draw(), draw())


def _folder(folder):
    """Every image file below `folder`, all of one size; each tenth goes to the test split."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    arrays = []
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"):
            continue
        try:
            with Image.open(file) as image:
                array = np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(f"{file} is not a readable image ({error}).") from None
        array = array.reshape(*array.shape[:2], -1)
        if arrays and array.shape != arrays[0].shape:
            raise DataError(
                f"{file} is {array.shape} (height, width, channels), the first image of {folder} "
                f"is {arrays[0].shape}: resize them to one shape."
            )
        arrays.append(array)
    if len(arrays) < 10:
        raise DataError(f"{folder} holds {len(arrays)} images; at least 10 are needed.")
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    test = torch.arange(len(images)) % 10 == 9
    unknown = torch.full((len(images),), -1)
    train, test = Split(images[~test], unknown[~test]), Split(images[test], unknown[test])
    return Dataset(folder.name, train, test, source=str(folder))
