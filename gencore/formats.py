"""Images on disk: the `.npz` files of the datasets, and folders of the reader's own pictures.

What numpy or Pillow can open is not yet what a network can be trained on: 16 bits, palettes,
transparency, rotation marks and animations are converted rightly here, or refused in one sentence.
"""

import contextlib
import io
import warnings

import numpy as np

from gencore import store

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
MOST_PIXELS = 2**24  # of one picture; larger ones are photographs, or bombs
FEWEST = 10  # pictures in a folder


class DataError(ValueError):
    """A dataset could not be had, or its files are not what they should be."""


def write_npz(file, arrays):
    """Write arrays into a compressed `.npz` file, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    store.write_bytes(file, buffer.getvalue())


def read_npz(file, most):
    """The four arrays of a dataset's `.npz`: a dict of `<part>_images` and `<part>_labels`.

    `<part>` is train or test; images are uint8 (N, H, W, C); labels become int64 (N,) from -1,
    unknown, to below `most`, and are None where the file has none. What else the file holds is
    not read. Raises DataError.
    """
    parts = "train", "test"
    wanted = [f"{part}_{what}" for part in parts for what in ("images", "labels")]
    _check_file(file)
    damaged = "{file} is damaged ({error}): delete it and get it again."
    with _sentences(file, damaged), np.load(file, allow_pickle=False) as archive:
        arrays = {key: archive[key] if key in archive.files else None for key in wanted}
    for part in parts:
        images = _check_images(arrays[f"{part}_images"], f"{file}: the array {part}_images")
        key = f"{part}_labels"
        if arrays[key] is not None:
            arrays[key] = _check_labels(arrays[key], len(images), most, f"{file}: the array {key}")
    return arrays


def _check_file(file):
    if not file.is_file():  # to open a pipe would wait for ever
        raise DataError(f"{file} is no file: remove it.")


def _check_images(images, what):
    if images is None or images.dtype != "uint8" or images.ndim != 4 or not images.size:
        found = "missing" if images is None else f"{images.dtype} {images.shape}"
        raise DataError(f"{what} should be uint8 of shape (N, H, W, C); it is {found}.")
    if images.shape[3] not in (1, 3):
        raise DataError(f"{what} has {images.shape[3]} channels; grey has 1 and colour 3.")
    return images


def _check_labels(labels, n, most, what):
    if labels.dtype.kind not in "iu" or labels.shape != (n,):
        raise DataError(f"{what} should be {n} whole numbers; it is {labels.dtype} {labels.shape}.")
    if labels.min() < -1 or labels.max() >= most:
        raise DataError(
            f"{what} should be numbers of classes below {most}, or -1 for unknown; it goes from "
            f"{labels.min()} to {labels.max()}."
        )
    return labels.astype("int64")


@contextlib.contextmanager
def _sentences(file, sentence):
    """Any error in reading a file as a DataError; `sentence` is for those that the bytes cause."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{file} does not fit into this machine's memory.") from None
    except PermissionError:
        raise DataError(f"{file} cannot be read: permission denied.") from None
    except Exception as error:  # of the archive, its compression, the format: they share no base
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(sentence.format(file=file, error=reason)) from None


def read_folder(folder):
    """Every picture below a folder, in the order of their names, as one array (N, H, W, C) uint8.

    All have one size. C is 1 for grey pictures, 3 for coloured ones. Pictures stand upright as
    their EXIF mark says, 16-bit values are scaled to 8, and transparent pixels lie on white paper.
    Hidden files and folders are passed over. Raises DataError with the name of a file that cannot
    be used.
    """
    arrays = []
    for file in _files(folder):
        array = _read(file)
        if arrays and array.shape != arrays[0].shape:
            raise DataError(
                f"{file} is {array.shape} (height, width, channels), the first image of {folder} "
                f"is {arrays[0].shape}: resize them to one shape."
            )
        arrays.append(array)
    if len(arrays) < FEWEST:
        raise DataError(
            f"{folder} holds {len(arrays)} images ({', '.join(ENDINGS)}); at least {FEWEST} are "
            "needed."
        )
    with _sentences(folder, "{file} cannot be used ({error})."):
        return np.stack(arrays)


def _files(folder):
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if file.suffix.lower() not in ENDINGS or hidden or file.is_dir():
            continue
        yield file


def _read(file):
    from PIL import Image

    _check_file(file)
    with (
        _sentences(file, "{file} is not a readable image ({error})."),
        warnings.catch_warnings(action="ignore"),
        Image.open(file) as image,
    ):
        if image.width * image.height > MOST_PIXELS:
            raise DataError(
                f"{file} is {image.width} x {image.height} pixels, too many for the small networks "
                "of this book: make it smaller."
            )
        return _pixels(image, file)


def _pixels(image, file):
    """The pixels (H, W, C) of an open picture: grey (C = 1) or RGB (C = 3), uint8."""
    from PIL import Image, ImageOps

    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a telephone's second picture
        raise DataError(f"{file} is animated: save its frames as pictures of their own.")
    grey = image.mode in ("1", "L", "LA", "La") or image.mode == "P" and _grey_palette(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _from_16_bits(np.asarray(image), file)[..., None]
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image.convert("RGB").convert("L" if grey else "RGB"))
    return array.reshape(*array.shape[:2], -1)


def _grey_palette(image):
    colours = np.array(image.getpalette("RGB")).reshape(-1, 3)
    used = np.unique(np.asarray(image))
    return bool((np.ptp(colours[used[used < len(colours)]], axis=1) == 0).all())


def _from_16_bits(array, file):
    if array.dtype.kind == "f" or array.min() < 0 or array.max() > 65535:
        raise DataError(
            f"{file} has pixels from {array.min()} to {array.max()}: save it with 8 bits."
        )
    return np.round(array / 257).astype(np.uint8)  # 65535 is white, as 255 is
