"""Datasets as tensors in memory, and batches cut from them.

Small images fit in memory whole, so there is no per-image loader here: a batch is one indexing
operation. `load` looks in `$GENCORE_DATA`, then in the cache, then lets torchvision download.
"""

import difflib
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from gencore import derived, formats, store
from gencore.formats import DataError


@dataclass(frozen=True, eq=False)
class Row:
    """What the book knows of a dataset: one row of TABLE."""

    shape: tuple  # of an image, (C, H, W), or of a point, (2,)
    classes: tuple  # their names, in the order of the labels
    ruler: str  # the dataset whose frozen classifier measures it, or "points": its coordinates
    source: str  # torchvision's name for it, "embedded" or "computed"
    centres: torch.Tensor | None = None  # of a toy's modes, (K, 2)
    of: str = ""  # the dataset whose images are changed
    change: Callable | None = None  # by this: float (N, C, H, W) in [0, 1] -> the same kind


def _ring():
    angle = torch.arange(8) * (torch.pi / 4)
    return 2 * torch.stack([angle.cos(), angle.sin()], 1)


def _grid():
    return torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3))


DIGITS = tuple("0123456789")
CLOTHES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
THINGS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
TABLE = {
    "mnist": Row((1, 28, 28), DIGITS, "mnist", "MNIST"),
    "fashion-mnist": Row((1, 28, 28), CLOTHES, "fashion-mnist", "FashionMNIST"),
    "cifar10": Row((3, 32, 32), THINGS, "cifar10", "CIFAR10"),
    "fashion-mini": Row((1, 28, 28), CLOTHES, "fashion-mnist", "embedded"),
    "ring": Row((2,), tuple(map(str, range(8))), "points", "computed", _ring()),
    "grid": Row((2,), tuple(map(str, range(25))), "points", "computed", _grid()),
    "mnist-32": Row((1, 32, 32), DIGITS, "mnist", "computed", None, "mnist", derived.enlarged),
    "fashion-mnist-32": Row((1, 32, 32), CLOTHES, "fashion-mnist", "computed", None,
                            "fashion-mnist", derived.enlarged),
    "cifar10-grey": Row((1, 32, 32), THINGS, "cifar10", "computed", None, "cifar10", derived.grey),
    "cifar10-smooth": Row((3, 32, 32), THINGS, "cifar10", "computed", None, "cifar10",
                          derived.smooth),
}  # fmt: skip
NAMES = tuple(TABLE)
SHAPES = {
    name: row.shape for name, row in TABLE.items() if row.source[0].isupper()
}  # torchvision's
MOST_CLASSES = 10_000  # of your own data
TOY_SD = 0.05  # of each Gaussian of ring and grid

PARTS = "train", "test"
profile = store.profile


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), and labels, int64 (N,); toys hold float32 points (N, 2)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self):
        return len(self.images)

    def to(self, device):
        """The same split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A training and a test split, and what is known of them (see Row).

    `stand_in` says that these are not the images of `name`; `own` that they are the reader's,
    so that the ruler belongs to other data; `source` is the file or folder they come from.
    """

    name: str
    train: Split
    test: Split
    classes: tuple = ()
    ruler: str = ""
    centres: torch.Tensor | None = None
    stand_in: bool = False
    own: bool = False
    source: str = ""

    @property
    def shape(self):
        """Of an image, (C, H, W), or of a point, (2,)."""
        return tuple(self.train.images.shape[1:])

    @property
    def resized(self):
        """Whether images have another shape than the data of their ruler."""
        return self.own or self.ruler in TABLE and self.shape != TABLE[self.ruler].shape

    def to(self, device):
        """The same dataset on a device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


class Batch(NamedTuple):
    """Images in [0, 1], float32 (B, ...), or points; labels and rows of the split, int64 (B,)."""

    x: torch.Tensor
    y: torch.Tensor
    rows: torch.Tensor


def load(name):
    """Load a dataset by name, or your own images from a folder or an `.npz` file.

    Names: mnist, fashion-mnist, cifar10; fashion-mini, which is embedded and needs no network;
    the 2-D toys ring and grid; mnist-32, fashion-mnist-32, cifar10-grey and cifar10-smooth, which
    are computed from the others. Under the profile smoke the embedded images stand in for every
    real dataset, and a line says so. Raises DataError when the data cannot be had: nothing else
    is put in its place.
    """
    path, name = Path(name), str(name)
    if name in ("ring", "grid"):
        return _toy(name)
    if name == "fashion-mini":
        return _read_npz(store.ASSETS / "fashion-mini.npz", name)
    if name in SHAPES:
        return _stand_in(name) if profile() == "smoke" else _real(name)
    if name in TABLE:
        return _changed(name, TABLE[name])
    if path.is_dir():
        return _folder(path)
    if name.endswith(".npz") and path.exists():
        return _read_npz(path, path.stem)
    near = difflib.get_close_matches(name, NAMES, 1)
    hint = f"did you mean {near[0]!r}?" if near else "it is no file or folder either."
    raise DataError(f"There is no dataset {name!r}: {hint} Known names: {', '.join(NAMES)}.")


def _dataset(name, train, test, source, row=None, stand_in=False):
    """A dataset with what its row of TABLE says, or, if it is the reader's own, what is seen."""
    own = row is None
    if own:
        most = max(split.labels.max().item() for split in (train, test))
        classes = tuple(str(label) for label in range(most + 1))
        ruler = "cifar10" if train.images.shape[1] == 3 else "fashion-mnist"
        row = Row(tuple(train.images.shape[1:]), classes, ruler, "own")
    known = row.classes, row.ruler, row.centres
    return Dataset(name, train, test, *known, stand_in, own, str(source))


def to_unit(images):
    """uint8 images as float32 in [0, 1]; float tensors pass through unchanged."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


class Batches:
    """An endless iterator of shuffled batches, each a Batch, that can be set to any step.

    The order is a function of `seed` and of the epoch alone, so a run that is resumed at step s
    (set `.step = s`) sees the same images as one that never stopped. The last, smaller batch of
    an epoch is left out. Batches are on the device of the split.
    """

    def __init__(self, split, batch_size, seed=0):
        if not 1 <= batch_size <= len(split):
            raise DataError(f"A batch of {batch_size} was asked of only {len(split)} images.")
        if not (split.images.dtype == torch.uint8 or split.images.is_floating_point()):
            raise DataError(
                f"Batches are cut from uint8 or float images, not {split.images.dtype}."
            )
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self.step = 0
        self._epoch, self._order = None, None

    @property
    def per_epoch(self):
        return len(self.split) // self.batch_size

    def __iter__(self):
        return self

    def __next__(self):
        epoch, position = divmod(self.step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.split), generator=generator)  # alike on every device
            self._epoch, self._order = epoch, order.to(self.split.images.device)
        start = position * self.batch_size
        self.step += 1
        rows = self._order[start : start + self.batch_size]
        return Batch(to_unit(self.split.images[rows]), self.split.labels[rows], rows)


def batches(split, batch_size=128, seed=0, device=None):
    """Shuffled batches without end (see Batches) of a Split, or of a tensor of images.

    The images of a tensor have the label -1. With a `device` all images are moved there once.
    """
    if torch.is_tensor(split):
        split = Split(split, torch.full((len(split),), -1, device=split.device))
    return Batches(split if device is None else split.to(device), batch_size, seed)


def where(name):
    """`(found, place)`: the file that `load(name)` would read, or where it has looked."""
    if name in TABLE and TABLE[name].of:
        return where(TABLE[name].of)
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
    formats.write_npz(file, arrays)
    return _read_npz(file, name)


def _download(name):
    """The four arrays of a torchvision dataset, which torchvision fetches and verifies."""
    import torchvision

    root, arrays = store.cache_dir() / "torchvision" / name, {}
    patience = socket.getdefaulttimeout()
    source = getattr(torchvision.datasets, TABLE[name].source)
    try:
        socket.setdefaulttimeout(store.TIMEOUT)  # torchvision itself would wait for ever
        for part in PARTS:
            dataset = source(root, part == "train", download=True)
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


def _read_npz(file, name):
    row = TABLE.get(name)
    arrays = formats.read_npz(file, len(row.classes) if row else MOST_CLASSES)
    train, test = (_split(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in PARTS)
    expected = row.shape if row else tuple(train.images.shape[1:])
    for found in (tuple(split.images.shape[1:]) for split in (train, test)):
        if found != expected:
            raise DataError(
                f"{file} holds images of shape {found}, but {name} has {expected} (channels, "
                f"height, width)."
            )
    return _dataset(name, train, test, file, row)


def _split(images, labels=None):
    """A Split of arrays, images (N, H, W, C); without labels they are -1."""
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    labels = torch.full((len(images),), -1) if labels is None else torch.from_numpy(labels)
    return Split(images, labels)


def _stand_in(name):
    """Embedded images in the shape of another dataset, for tests that must not need the network."""
    mini = load("fashion-mini")
    channels, size, _ = SHAPES[name]
    pad = (size - 28) // 2
    print(f"Profile smoke: {len(mini.train)} embedded Fashion-MNIST images stand in for {name}.")

    def reshape(split):
        images = torch.nn.functional.pad(split.images, (pad,) * 4)
        return Split(images.repeat(1, channels, 1, 1), split.labels)

    return _dataset(name, reshape(mini.train), reshape(mini.test), mini.source, TABLE[name], True)


def _changed(name, row):
    """The images of another dataset, changed: enlarged, in grey, smoothed."""
    before = load(row.of)

    def change(split):
        chunks = (row.change(to_unit(chunk)) for chunk in split.images.split(1000))
        images = torch.cat([(x * 255).round().clamp(0, 255).byte() for x in chunks])
        return Split(images, split.labels)

    train, test = change(before.train), change(before.test)
    return _dataset(name, train, test, before.source, row, before.stand_in)


def _toy(name, n=10_000):
    """8 Gaussians on a circle of radius 2, or 25 on a 5 x 5 grid; a label is the number of one."""
    centres = TABLE[name].centres
    generator = torch.Generator().manual_seed(0)

    def draw():
        labels = torch.randint(len(centres), (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator)
        return Split(centres[labels] + TOY_SD * noise, labels)

    return _dataset(name, draw(), draw(), "", TABLE[name])


def _folder(folder):
    """The pictures below a folder (`formats.read_folder`); each tenth goes to the test split."""
    images = formats.read_folder(folder)
    test = torch.arange(len(images)).numpy() % 10 == 9
    return _dataset(folder.resolve().name, _split(images[~test]), _split(images[test]), folder)
