"""data and formats: names, files, stand-ins, toys, your own images, and the order of batches."""

import errno
import io
import os
import struct
import threading
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from gencore import data, formats, store

pytestmark = pytest.mark.usefixtures("bare")


def image_arrays(n=12, shape=(28, 28, 1), seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for part in ("train", "test"):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 10, n, dtype=np.uint8)
    return arrays


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A folder that GENCORE_DATA names, and a function that puts an `.npz` there."""
    monkeypatch.setenv("GENCORE_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()

    def put(name, **arrays):
        np.savez_compressed(tmp_path / "data" / f"{name}.npz", **arrays)
        return tmp_path / "data" / f"{name}.npz"

    return put


# the embedded images


def test_fashion_mini_is_there_with_no_network_and_no_setting(monkeypatch):
    for name in ("GENCORE_HOME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    mini = data.load("fashion-mini")
    assert mini.train.images.shape == (6000, 1, 28, 28) and mini.test.images.shape == (
        2000,
        1,
        28,
        28,
    )
    assert mini.train.images.dtype == torch.uint8 and mini.train.labels.dtype == torch.int64
    assert not mini.stand_in and len(mini.train) == 6000


def test_fashion_mini_is_stratified_without_a_repetition():
    mini = data.load("fashion-mini")
    assert mini.train.labels.bincount().tolist() == [600] * 10
    assert mini.test.labels.bincount().tolist() == [200] * 10
    every = torch.cat([mini.train.images, mini.test.images]).flatten(1)
    assert len({row.numpy().tobytes() for row in every}) == len(every)
    # not sorted by class: the first 100 images, as a quick figure shows them, are of all of them
    assert len(set(mini.train.labels[:100].tolist())) == 10


def test_fashion_mini_is_small_and_carries_its_licence():
    assert (store.ASSETS / "fashion-mini.npz").stat().st_size < 4 * 2**20
    assert "MIT" in (store.ASSETS / "fashion-mini.LICENSE").read_text()


def test_fashion_mini_is_part_of_fashion_mnist(real):
    every, mini = real("fashion-mnist"), data.load("fashion-mini")
    for part in ("train", "test"):
        whole, some = getattr(every, part), getattr(mini, part)
        labels = {
            x.numpy().tobytes(): y for x, y in zip(whole.images, whole.labels.tolist(), strict=True)
        }
        found = [labels.get(x.numpy().tobytes()) for x in some.images]
        assert found == some.labels.tolist()


# names and places


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("minst", "mnist"),
        ("cifar-10", "cifar10"),
        ("fashion_mnist", "fashion-mnist"),
        ("rings", "ring"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, near):
    with pytest.raises(
        data.DataError, match=f"no dataset '{name}': did you mean '{near}'"
    ) as caught:
        data.load(name)
    assert all(known in str(caught.value) for known in data.NAMES)


def test_a_name_like_no_other_and_a_file_that_is_not_there(tmp_path):
    for name in ("zzz", str(tmp_path / "none.npz"), str(tmp_path / "folder")):
        with pytest.raises(data.DataError, match="There is no dataset"):
            data.load(name)


def test_own_folder_first_then_the_cache(own_data, tmp_path):
    own = image_arrays(seed=1)
    cached = image_arrays(seed=2)
    (store.cache_dir() / "data").mkdir(parents=True)
    np.savez_compressed(store.cache_dir() / "data" / "mnist.npz", **cached)
    assert data.where("mnist") == (True, str(store.cache_dir() / "data" / "mnist.npz"))
    assert data.load("mnist").train.images.numpy().tobytes() == cached["train_images"].tobytes()
    file = own_data("mnist", **own)
    assert data.where("mnist") == (True, str(file))
    loaded = data.load("mnist")
    assert loaded.train.images.numpy().tobytes() == own["train_images"].tobytes()
    assert loaded.test.labels.tolist() == own["test_labels"].tolist()
    assert loaded.source == str(file) and loaded.name == "mnist"


def test_channels_come_first_and_pixels_stay_in_place(own_data):
    arrays = image_arrays(shape=(32, 32, 3))
    own_data("cifar10", **arrays)
    images = data.load("cifar10").train.images
    assert images.shape == (12, 3, 32, 32) and images.is_contiguous()
    assert images[5, 2, 7, 30] == arrays["train_images"][5, 7, 30, 2]


def test_one_row_a_dataset():
    assert list(data.TABLE) == list(data.NAMES) == [*data.SHAPES, "fashion-mini", "ring", "grid"]
    assert data.profile is store.profile
    rulers = {name: row.ruler for name, row in data.TABLE.items()}
    assert rulers == {name: name for name in data.SHAPES} | {
        "fashion-mini": "fashion-mnist", "ring": "points", "grid": "points",
    }  # fmt: skip
    assert {name: len(row.classes) for name, row in data.TABLE.items()} == {
        "mnist": 10, "fashion-mnist": 10, "cifar10": 10, "fashion-mini": 10, "ring": 8, "grid": 25,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["fashion-mini", "ring", "grid", "cifar10"])
def test_a_dataset_has_what_its_row_says(name, own_data):
    own_data("cifar10", **image_arrays(shape=(32, 32, 3)))
    found, row = data.load(name), data.TABLE[name]
    assert found.shape == row.shape == tuple(found.test.images.shape[1:])
    assert (found.classes, found.ruler, found.centres) == (row.classes, row.ruler, row.centres)
    assert not found.own and not found.stand_in
    assert found.train.labels.max() < len(found.classes)


@pytest.mark.parametrize("name", list(data.SHAPES))
def test_the_stand_in_says_so_and_has_the_right_shape(name, monkeypatch, capsys, own_data):
    own_data(name, **image_arrays(shape=(*data.SHAPES[name][1:], data.SHAPES[name][0])))
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    stand_in = data.load(name)
    assert capsys.readouterr().out == (
        f"Profile smoke: 6000 embedded Fashion-MNIST images stand in for {name}.\n"
    )
    mini = data.load("fashion-mini")
    assert stand_in.stand_in and stand_in.name == name and not stand_in.own
    row = data.TABLE[name]
    assert (stand_in.shape, stand_in.classes, stand_in.ruler) == (row.shape, row.classes, row.ruler)
    assert stand_in.train.images.shape == (6000, *data.SHAPES[name])
    assert stand_in.test.images.shape == (2000, *data.SHAPES[name])
    pad = (data.SHAPES[name][1] - 28) // 2
    for channel in range(data.SHAPES[name][0]):
        inner = stand_in.train.images[:, channel, pad : pad + 28, pad : pad + 28]
        assert torch.equal(inner, mini.train.images[:, 0])
        assert stand_in.train.images[:, channel].sum() == inner.sum()  # the border is black
    assert torch.equal(stand_in.test.labels, mini.test.labels)


# the format


PIXELS, LABELS = image_arrays()["train_images"], image_arrays()["train_labels"]
BAD = {  # what one of the four arrays is instead (None: it is missing), and what the sentence says
    "float pixels": ("train_images", PIXELS / 255, "train_images should be uint8"),
    "no channel axis": ("test_images", PIXELS[..., 0], r"test_images .* uint8 \(12, 28, 28\)"),
    "no images": ("train_images", PIXELS[:0], r"uint8 \(0, 28, 28, 1\)"),
    "no test images": ("test_images", None, "test_images .* is missing"),
    "no training images": ("train_images", None, "train_images .* is missing"),
    "another size": ("train_images", PIXELS[:, :14], r"\(1, 14, 28\), but mnist has \(1, 28, 28\)"),
    "test unlike train": ("test_images", PIXELS[:, 4:, 4:], r"\(1, 24, 24\), but mnist has"),
    "too few labels": ("train_labels", LABELS[:5], r"should be 12 whole numbers.*\(5,\)"),
    "one label": ("train_labels", np.uint8(3), r"12 whole numbers; it is uint8 \(\)"),
    "words for labels": ("test_labels", np.array(["cat"] * 12), "whole numbers; it is <U3"),
    "labels beyond the classes": ("train_labels", LABELS + 8, "below 10, or -1 .* from 8 to 17"),
    "a label too many": ("test_labels", np.full(12, 10), "below 10, or -1 .* from 10 to 10"),
    "labels beyond 64 bits": (
        "test_labels",
        np.full(12, 2**64 - 1, "u8"),
        "to 18446744073709551615",
    ),
    "labels below": ("test_labels", np.full(12, -2), "from -2 to -2"),
    "no pixels": ("train_images", PIXELS[:, :0], r"uint8 \(12, 0, 28, 1\)"),
    "broken labels": ("test_labels", np.full(12, 0.5), "whole numbers; it is float64"),
    "objects": ("train_images", np.array([None, {}], object), "damaged .*Object arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_npz_is_one_sentence(own_data, case):
    key, value, message = BAD[case]
    arrays = image_arrays() | {key: value}
    file = own_data("mnist", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("mnist")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_npz_is_never_believed(own_data):
    """Every 97th byte flipped and twenty lengths of truncation: refused, or the same images."""
    file = own_data("mnist", **image_arrays(4))
    whole, expected = file.read_bytes(), data.load("mnist")
    refused = 0
    broken = [whole[:n] for n in range(0, len(whole), len(whole) // 20)]
    for position in range(0, len(whole), 97):
        copy = bytearray(whole)
        copy[position] ^= 1 << position % 8
        broken.append(bytes(copy))
    for content in broken:
        file.write_bytes(content)
        try:
            found = data.load("mnist")
        except data.DataError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        for part in ("train", "test"):  # flipped were bytes that mean nothing, as a date
            assert torch.equal(getattr(found, part).images, getattr(expected, part).images)
    assert refused > 0.9 * len(broken)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"<html>quota exceeded</html>", bytes(1000)]
)
def test_a_file_that_is_no_npz(own_data, content):
    file = own_data("mnist", **image_arrays())
    file.write_bytes(content)
    with pytest.raises(data.DataError, match="mnist.npz is damaged .*delete it and get it again"):
        data.load("mnist")


def test_objects_in_an_npz_are_never_made(own_data, tmp_path):
    """An array of objects runs code when it is read: the code must not have run."""
    trap = tmp_path / "sprung"
    payload = f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode()  # what numpy would have to execute
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    header += b" " * (117 - len(header)) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + payload
    arrays = image_arrays()
    del arrays["test_labels"]
    file = own_data("mnist", **arrays)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("test_labels.npy", array)
    with pytest.raises(data.DataError, match="Object arrays cannot be loaded"):
        data.load("mnist")
    assert not trap.exists()


def test_what_else_an_npz_holds_is_not_read(own_data):
    """A header that promises a terabyte, which nobody has asked for."""
    file = own_data("mnist", **image_arrays())
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (137438953472,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(file, "a") as archive:
        huge = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        archive.writestr("notes.npy", huge)
    assert len(data.load("mnist").train) == 12


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "does not fit into this machine's memory"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be read: permission denied"),
    ],
)
def test_good_files_are_not_called_damaged(own_data, tmp_path, monkeypatch, error, sentence):
    def fail(*arguments, **options):
        raise error

    own_data("mnist", **image_arrays())
    monkeypatch.setattr(np, "load", fail)
    save_images(tmp_path / "pics", 12)
    monkeypatch.setattr(Image, "open", fail)
    for name, file in (("mnist", "mnist.npz"), (tmp_path / "pics", "000.png")):
        with pytest.raises(data.DataError, match=sentence) as caught:
            data.load(name)
        assert file in str(caught.value) and "damaged" not in str(caught.value)


def test_labels_are_optional_and_then_unknown(own_data):
    arrays = image_arrays(shape=(9, 7, 1))
    file = own_data("mine", train_images=arrays["train_images"], test_images=arrays["test_images"])
    mine = data.load(str(file))
    assert mine.name == "mine" and mine.train.images.shape == (12, 1, 9, 7)
    assert mine.train.labels.tolist() == [-1] * 12 and mine.classes == ()
    own_data("mine", **arrays | {"train_labels": arrays["train_labels"].astype(">i4")})
    mine = data.load(file)
    assert mine.train.labels.tolist() == arrays["train_labels"].tolist()
    assert mine.classes == tuple("0123456789")[: max(mine.train.labels) + 1]
    assert mine.own and mine.shape == (1, 9, 7) and mine.ruler == "fashion-mnist"


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_are_grey_or_colour(own_data, channels):
    arrays = image_arrays(shape=(9, 7, channels))
    with pytest.raises(data.DataError, match=f"has {channels} channels; grey has 1 and colour 3"):
        data.load(str(own_data("mine", **arrays)))


def test_some_labels_may_be_unknown(own_data):
    own_data("mnist", **image_arrays() | {"train_labels": np.array([-1, 9] * 6)})
    assert data.load("mnist").train.labels.tolist() == [-1, 9] * 6


def test_our_own_writer_makes_the_format(tmp_path):
    arrays = image_arrays()
    formats.write_npz(tmp_path / "x.npz", arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as archive:
        assert {k: archive[k].tobytes() for k in archive} == {
            k: v.tobytes() for k, v in arrays.items()
        }
        assert {archive[k].dtype for k in archive} == {np.dtype("uint8")}


# a folder of images


def save_images(folder, n, size=(6, 5), mode="RGB", end=".png"):
    rng = np.random.default_rng(0)
    shape = (*size, 3) if mode == "RGB" else size
    arrays = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    for index, array in enumerate(arrays):
        file = folder / f"sub{index % 2}" / f"{index:03}{end}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file)
    return arrays


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_of_images(tmp_path, mode):
    arrays = save_images(tmp_path / "pics", 40, mode=mode)
    (tmp_path / "pics" / "notes.txt").write_text("no image")
    pics = data.load(tmp_path / "pics")
    assert pics.name == "pics" and len(pics.train) == 36 and len(pics.test) == 4
    order = [*range(0, 40, 2), *range(1, 40, 2)]  # sub0 before sub1, then by name
    expected = torch.from_numpy(arrays[order]).reshape(40, 6, 5, -1).permute(0, 3, 1, 2)
    held_out = torch.arange(40) % 10 == 9
    assert torch.equal(pics.train.images, expected[~held_out])
    assert torch.equal(pics.test.images, expected[held_out])
    assert set(pics.train.labels.tolist()) == {-1}


def test_your_own_images_are_measured_by_the_ruler_of_their_channels(tmp_path):
    for mode, shape, ruler in (("L", (1, 6, 5), "fashion-mnist"), ("RGB", (3, 6, 5), "cifar10")):
        save_images(tmp_path / mode, 10, mode=mode)
        mine = data.load(tmp_path / mode)
        assert mine.own and (mine.shape, mine.ruler, mine.classes) == (shape, ruler, ())
    (tmp_path / "L").rename(tmp_path / "mnist")  # called so, it is not MNIST
    mine = data.load(tmp_path / "mnist")
    assert (mine.name, mine.ruler, mine.own) == ("mnist", "fashion-mnist", True)


def test_the_folder_that_one_stands_in_has_a_name(tmp_path, monkeypatch):
    save_images(tmp_path / "pics", 10)
    monkeypatch.chdir(tmp_path / "pics")
    assert data.load(".").name == "pics"


# what a picture means: {name of the case: (the picture, how it is saved, its pixels)}


def picture(mode, value, size=(5, 6)):
    return Image.new(mode, size, value)


def grey_palette():
    image = Image.new("P", (5, 6), 1)
    image.putpalette([3, 3, 3, 180, 180, 180, 10, 20, 30])  # of the last one nothing is painted
    return image


def colour_palette():
    image = Image.new("P", (5, 6), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    return image


def sixteen_bits():
    return Image.fromarray(np.full((6, 5), 51400, np.uint16))


def half_transparent(mode):
    image = Image.new(mode, (5, 6), {"RGBA": (10, 20, 30, 51), "LA": (50, 0)}[mode])
    return image


PICTURES = {
    "1 bit": (picture("1", 1), {}, [255]),
    "8 bits": (picture("L", 77), {}, [77]),
    "16 bits": (sixteen_bits(), {}, [200]),  # 51400 / 257
    "colours": (picture("RGB", (1, 2, 3)), {}, [1, 2, 3]),
    "palette of greys": (grey_palette(), {}, [180]),
    "palette of colours": (colour_palette(), {}, [10, 20, 30]),
    "transparent palette": (colour_palette(), {"transparency": 1}, [255, 255, 255]),
    "opaque": (picture("RGBA", (10, 20, 30, 255)), {}, [10, 20, 30]),
    "a fifth of ink": (half_transparent("RGBA"), {}, [206, 208, 210]),  # 255 - (255 - v) / 5
    "grey and transparent": (half_transparent("LA"), {}, [255]),
    "a transparent colour": (picture("RGB", (1, 2, 3)), {"transparency": (1, 2, 3)}, [255] * 3),
    "a transparent grey": (picture("L", 7), {"transparency": 7}, [255]),
}


@pytest.mark.parametrize("case", PICTURES)
def test_a_picture_means_what_is_seen(tmp_path, case):
    image, options, expected = PICTURES[case]
    for index in range(10):
        image.save(tmp_path / f"{index}.png", **options)
    images = data.load(tmp_path).train.images
    assert images.shape == (9, len(expected), 6, 5) and images.dtype == torch.uint8
    assert images[0, :, 2, 3].tolist() == expected
    assert (images == images[:1, :, :1, :1]).all()


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path):
    ramp = np.linspace(0, 65535, 30).round().astype(np.uint16).reshape(5, 6)
    for index in range(10):
        Image.fromarray(ramp).save(tmp_path / f"{index}.png")
    images = data.load(tmp_path).train.images
    assert images[0, 0].numpy() == pytest.approx(ramp / 257, abs=0.5)
    assert images.max() == 255 and len(images[0].unique()) == 30


def test_pictures_stand_upright(tmp_path):
    """A telephone saves the picture as its sensor lies, and a mark that says which way is up."""
    upright = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of the file is the right side
    for index in range(10):
        Image.fromarray(np.rot90(upright).copy()).save(tmp_path / f"{index}.png", exif=exif)
    images = data.load(tmp_path).train.images
    assert torch.equal(images[0], torch.from_numpy(upright).permute(2, 0, 1))


@pytest.mark.parametrize("end", ["gif", "png", "webp"])
def test_an_animation_is_refused(tmp_path, end):
    save_images(tmp_path, 10)
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / f"zz.{end}", save_all=True, append_images=frames[1:])
    with pytest.raises(data.DataError, match=f"zz.{end} is animated: save its frames as pictures"):
        data.load(tmp_path)


def test_the_second_picture_of_a_telephone_is_no_animation(tmp_path):
    for index in range(10):
        first, second = (Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
        first.save(tmp_path / f"{index}.jpg", "MPO", save_all=True, append_images=[second])
    assert data.load(tmp_path).train.images.max() == 0


def test_what_is_hidden_is_passed_over(tmp_path):
    save_images(tmp_path, 10)
    for hidden in ("__MACOSX/sub0/000.png", ".cache/1.png", "sub0/._000.png"):
        file = tmp_path / hidden
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"no picture")
    (tmp_path / "folder.png").mkdir()
    assert len(data.load(tmp_path).train) == 9


def test_a_folder_below_a_hidden_one_is_read(tmp_path):
    save_images(tmp_path / ".data" / "pics", 10)
    assert len(data.load(tmp_path / ".data" / "pics").train) == 9


def test_a_pipe_is_no_picture(tmp_path):
    save_images(tmp_path, 10)
    os.mkfifo(tmp_path / "zz.png")
    errors = []

    def read():
        try:
            data.load(tmp_path)
        except data.DataError as error:
            errors.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert errors == [f"{tmp_path / 'zz.png'} is no file: remove it."]
    (tmp_path / "zz.png").unlink()
    (tmp_path / "zz.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="zz.png is no file"):
        data.load(tmp_path)


def test_a_pipe_is_no_dataset(own_data, tmp_path):
    os.mkfifo(tmp_path / "data" / "mnist.npz")
    with pytest.raises(data.DataError, match="mnist.npz is no file"):
        data.load("mnist")


def png_header(width, height):
    """A PNG of one bit a pixel that says how large it is, and holds almost nothing."""

    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def bmp(width, height):
    """A bitmap whose header has been changed."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 6)).save(buffer, "bmp")
    content = bytearray(buffer.getvalue())
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


BROKEN = {
    "a bomb": ("png", png_header(60_000, 60_000), "is not a readable image .*exceeds limit"),
    "a photograph": ("png", png_header(9900, 9900), "9900 x 9900 pixels, too many"),
    "cut off": ("png", png_header(500, 500), "is not a readable image"),
    "a wide bitmap": ("bmp", bmp(2**31 - 1, 6), "is not a readable image"),
    "a flat bitmap": ("bmp", bmp(5, 0), "is not a readable image|height, width"),
    "a long bitmap": ("bmp", bmp(5, 4000), "is not a readable image"),
    "a negative bitmap": ("bmp", bmp(-5, 6), "is not a readable image"),
    "a text": ("jpg", b"<html>quota exceeded</html>", "is not a readable image"),
    "nothing": ("webp", b"", "is not a readable image"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_picture_is_one_sentence(tmp_path, case, recwarn):
    end, content, sentence = BROKEN[case]
    save_images(tmp_path, 10)
    (tmp_path / f"zz.{end}").write_bytes(content)
    with pytest.raises(data.DataError, match=sentence) as caught:
        data.load(tmp_path)
    assert f"zz.{end}" in str(caught.value) and "\n" not in str(caught.value)
    assert not recwarn.list, "Pillow's warning of a bomb would be a second sentence"


def test_an_error_of_several_lines_is_one_sentence(tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("of three\n  lines\n")

    save_images(tmp_path, 10)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(data.DataError, match=r"is not a readable image \(of three lines\)\.$"):
        data.load(tmp_path)


def test_every_byte_of_a_picture_flipped_is_a_picture_or_one_sentence(tmp_path):
    """Pillow raises what it likes; nothing of it comes through."""
    rng = np.random.default_rng(0)
    save_images(tmp_path, 10)
    array = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    for end in ("png", "bmp", "gif", "jpg", "webp"):
        buffer, file = io.BytesIO(), tmp_path / f"zz.{end}"
        array.save(buffer, {"jpg": "jpeg"}.get(end, end))
        for position in range(len(buffer.getvalue())):
            content = bytearray(buffer.getvalue())
            content[position] ^= 1 << position % 8
            file.write_bytes(content)
            try:
                formats._read(file)
            except data.DataError as error:
                assert "\n" not in str(error)
        file.unlink()


def test_five_pictures_are_too_few(tmp_path):
    save_images(tmp_path, 5)
    with pytest.raises(
        data.DataError, match=r"^.* holds 5 images \(\.png.*\); at least 10 are needed\.$"
    ):
        data.load(tmp_path)


def test_a_bad_folder_is_one_sentence(tmp_path):
    with pytest.raises(data.DataError, match="holds 0 images .*; at least 10"):
        data.load(tmp_path)
    save_images(tmp_path, 12)
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "png")
    (tmp_path / "zz.png").write_bytes(buffer.getvalue())
    with pytest.raises(data.DataError, match=r"zz\.png is \(9, 9, 3\) .* is \(6, 5, 3\): resize"):
        data.load(tmp_path)
    for content in (buffer.getvalue()[:40], b"GIF89a", b""):
        (tmp_path / "zz.png").write_bytes(content)
        with pytest.raises(data.DataError, match=r"zz\.png is not a readable image"):
            data.load(tmp_path)


# toys


def test_ring_is_eight_gaussians_on_a_circle():
    ring = data.load("ring")
    points, labels = ring.train.images.double(), ring.train.labels
    assert points.shape == (10_000, 2) and sorted(set(labels.tolist())) == list(range(8))
    assert labels.bincount().float().std() < 4 * (10_000 / 8) ** 0.5
    angle = torch.arange(8) * torch.pi / 4
    rest = points - 2 * torch.stack([angle.cos(), angle.sin()], 1).double()[labels]
    assert abs(rest.mean(0)).max() < 4 * 0.05 / 100
    assert rest.std(0) == pytest.approx([0.05, 0.05], abs=4 * 0.05 / (2 * 10_000) ** 0.5)
    assert (rest.norm(dim=1) < 0.15).double().mean() == pytest.approx(0.9889, abs=0.005)  # 3 sd


def test_grid_is_25_gaussians():
    grid = data.load("grid")
    points = grid.test.images
    modes = {tuple(p) for p in points.round().int().tolist()}
    assert modes == {(a, b) for a in range(-2, 3) for b in range(-2, 3)}
    assert (points - points.round()).std() == pytest.approx(0.05, rel=0.02)
    same = points.round()[grid.test.labels == 7]
    assert (same == same[0]).all()


def test_the_points_are_those_that_the_book_was_made_with():
    """The seed of the toys: recorded numbers depend on it."""
    ring, grid = data.load("ring"), data.load("grid")
    found = [ring.train.images[0], ring.test.images[-1], grid.train.images[0], grid.test.images[-1]]
    expected = [[-2.09938, 0.03306], [-2.02212, -0.02487], [0.90062, 2.03306], [0.97788, -1.02487]]
    assert torch.stack(found).numpy() == pytest.approx(np.array(expected), abs=1e-5)


def test_labels_of_toys_are_the_numbers_of_the_centres():
    for name in ("ring", "grid"):
        toy = data.load(name)
        distances = torch.cdist(toy.train.images, toy.centres)
        assert torch.equal(distances.argmin(1), toy.train.labels)
        assert distances.amin(1).max() < 6 * data.TOY_SD
        assert toy.ruler == "points" and len(toy.centres) == len(toy.classes)


def test_toys_are_the_same_each_time_and_train_is_not_test():
    for name in ("ring", "grid"):
        one, two = data.load(name), data.load(name)
        assert torch.equal(one.train.images, two.train.images)
        assert not torch.equal(one.train.images, one.test.images)


# batches


def test_to_unit_is_the_exact_255th():
    x = torch.arange(256, dtype=torch.uint8)
    assert data.to_unit(x).dtype == torch.float32
    assert torch.equal(data.to_unit(x), x.float() / 255)
    assert torch.equal(x, torch.arange(256, dtype=torch.uint8)), "the data are left alone"
    points = torch.tensor([[-1.5, 2.0]])
    assert data.to_unit(points) is points


@pytest.fixture
def numbered():
    """50 one-pixel images that show their own number."""
    return torch.arange(50, dtype=torch.uint8).reshape(50, 1, 1, 1)


def draw(batches, n):
    return [(255 * next(batches).x).round().flatten().int().tolist() for _ in range(n)]


def test_an_epoch_has_no_repetition_and_leaves_the_small_batch_out(numbered):
    batches = data.batches(numbered, 8, seed=3)
    assert batches.per_epoch == 6
    for _ in range(4):
        epoch = sum(draw(batches, 6), [])
        assert len(set(epoch)) == 48
    batch = next(batches)
    assert isinstance(batch, data.Batch) and batch.x.shape == (8, 1, 1, 1)
    assert batch.x.dtype == torch.float32 and batch.x.max() <= 1
    assert batch.y.dtype == batch.rows.dtype == torch.int64
    assert batch.y.shape == batch.rows.shape == (8,)


def test_over_many_epochs_every_image_comes_equally_often(numbered):
    batches = data.batches(numbered, 8)
    counts = np.bincount(sum(draw(batches, 6 * 200), []), minlength=50)
    # 200 epochs, each leaving out 2 of 50: binomial(200, .96), sd 2.8
    assert abs(counts - 192).max() < 4.5 * 2.8


def test_the_order_depends_on_seed_and_epoch_alone(numbered):
    first = draw(data.batches(numbered, 8, seed=1), 20)
    torch.manual_seed(99)  # the global generator has no say
    torch.rand(1000)
    assert draw(data.batches(numbered, 8, seed=1), 20) == first
    assert draw(data.batches(numbered, 8, seed=2), 20) != first
    assert first[:6] != first[6:12] != first[12:18]
    state = torch.get_rng_state()
    draw(data.batches(numbered, 8), 10)
    assert torch.equal(torch.get_rng_state(), state), "nor is it moved"


def test_different_seeds_share_no_epoch(numbered):
    epochs = {
        str(draw(data.batches(numbered, 50, seed=s), 30)[e]) for s in range(4) for e in range(30)
    }
    assert len(epochs) == 120


@pytest.mark.parametrize("step", [0, 1, 5, 6, 7, 13, 40])
def test_batches_can_be_set_to_any_step(numbered, step):
    whole = draw(data.batches(numbered, 8, seed=5), 50)
    batches = data.batches(numbered, 8, seed=5)
    draw(batches, 9)
    batches.step = step
    assert draw(batches, 10) == whole[step : step + 10]
    assert batches.step == step + 10


def test_labels_and_rows_go_with_their_images(numbered):
    batches = data.batches(data.Split(numbered, torch.arange(50) * 2), 8)
    for _ in range(15):
        x, y, rows = next(batches)
        assert ((255 * x).round().flatten() * 2 == y).all()
        assert torch.equal(data.to_unit(numbered[rows]), x)


def test_images_without_labels_have_the_label_minus_one(numbered):
    bare = data.batches(numbered, 8, seed=3)
    labelled = data.batches(data.Split(numbered, torch.arange(50)), 8, seed=3)
    for _ in range(14):
        batch = next(bare)
        assert batch.y.tolist() == [-1] * 8 and torch.equal(batch.rows, next(labelled).rows)


def test_the_order_is_that_which_the_published_runs_have_seen(numbered):
    expected = torch.randperm(50, generator=torch.Generator().manual_seed(4 * 1_000_003 + 2))
    batches = data.batches(numbered, 8, seed=4)
    batches.step = 2 * batches.per_epoch  # the third epoch
    assert next(batches).rows.tolist() == expected[:8].tolist()


def test_everything_of_a_batch_is_on_the_device_that_was_asked_for(numbered):
    """`meta` is a device that every machine has; it has no values."""
    for images in (numbered, data.Split(numbered, torch.arange(50))):
        batches = data.batches(images, 8, device="meta")
        held = batches.split.images
        for _ in range(7):
            batch = next(batches)
            assert {part.device.type for part in batch} == {"meta"}
            assert batches.split.images is held, "it was moved once"
    split = data.load("fashion-mini").train
    assert data.batches(split, 8).split.images is split.images
    moved = data.load("fashion-mini").to("meta")
    assert moved.test.images.is_meta and moved.train.labels.is_meta
    assert moved.name == "fashion-mini" and len(moved.train) == 6000


def test_points_pass_through_as_they_are():
    points = torch.randn(20, 2)
    batch = next(data.batches(points, 20)).x
    assert torch.equal(batch[batch[:, 0].argsort()], points[points[:, 0].argsort()])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int16, torch.bool])
def test_images_of_another_kind_are_one_sentence(numbered, dtype):
    with pytest.raises(data.DataError, match=f"from uint8 or float images, not {dtype}"):
        data.batches(numbered.to(dtype), 8)


@pytest.mark.parametrize("size", [51, 0, -1])
def test_a_batch_that_cannot_be_is_one_sentence(numbered, size):
    with pytest.raises(data.DataError, match=f"A batch of {size} was asked of only 50 images"):
        data.batches(numbered, size)
