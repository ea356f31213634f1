"""Make the embedded dataset: a stratified subset of Fashion-MNIST, at most 4 MB.

Usage: python tools/make_fashion_mini.py FOLDER_WITH_IDX_GZ_FILES OUT_FOLDER

Reads the four original `*-ubyte.gz` files and writes `fashion-mini.npz` (600 training and 200 test
images of each class, chosen with a fixed seed) and `fashion-mnist.npz` (all images, for
GENCORE_DATA) into OUT_FOLDER.
"""

import gzip
import sys
from pathlib import Path

import numpy as np


def read_idx(path):
    """An IDX file of unsigned bytes as an array: two zeros, type 8, how many axes, sizes, bytes."""
    data = gzip.decompress(Path(path).read_bytes())
    axes = data[3]
    shape = np.frombuffer(data, ">u4", axes, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def stratified(labels, per_class, rng):
    """Indices of `per_class` images of each class, shuffled."""
    chosen = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(10)]
    return rng.permutation(np.concatenate(chosen))


def main(source, out):
    rng = np.random.default_rng(0)
    full, mini = {}, {}
    for part, stem, per_class in (("train", "train", 600), ("test", "t10k", 200)):
        images = read_idx(Path(source) / f"{stem}-images-idx3-ubyte.gz")[..., None]
        labels = read_idx(Path(source) / f"{stem}-labels-idx1-ubyte.gz")
        rows = stratified(labels, per_class, rng)
        full |= {f"{part}_images": images, f"{part}_labels": labels}
        mini |= {f"{part}_images": images[rows], f"{part}_labels": labels[rows]}
    np.savez_compressed(Path(out) / "fashion-mnist.npz", **full)
    np.savez_compressed(Path(out) / "fashion-mini.npz", **mini)


if __name__ == "__main__":
    main(*sys.argv[1:])
