"""data: names, formats, stand-ins, toys, your own images, and the order of batches."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from gencore import data, store

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


def test_the_profile(monkeypatch):
    assert data.profile() == "full"
    for value in ("quick", "smoke", "full"):
        monkeypatch.setenv("GENCORE_PROFILE", value)
        assert data.profile() == value
    monkeypatch.setenv("GENCORE_PROFILE", "fast")
    with pytest.raises(data.DataError, match="'fast'; it can be full, quick or smoke"):
        data.profile()


@pytest.mark.parametrize("name", list(data.SHAPES))
def test_the_stand_in_says_so_and_has_the_right_shape(name, monkeypatch, capsys, own_data):
    own_data(name, **image_arrays(shape=(*data.SHAPES[name][1:], data.SHAPES[name][0])))
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    stand_in = data.load(name)
    assert capsys.readouterr().out == (
        f"Profile smoke: 6000 embedded Fashion-MNIST images stand in for {name}.\n"
    )
    mini = data.load("fashion-mini")
    assert stand_in.stand_in and stand_in.name == name
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
    file = own_data("mnist", **image_arrays())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("extra.npy", array)
    with pytest.raises(data.DataError, match="Object arrays cannot be loaded"):
        data.load("mnist")
    assert not trap.exists()


def test_labels_are_optional_and_then_unknown(own_data):
    arrays = image_arrays(shape=(9, 7, 2))
    file = own_data("mine", train_images=arrays["train_images"], test_images=arrays["test_images"])
    mine = data.load(str(file))
    assert mine.name == "mine" and mine.train.images.shape == (12, 2, 9, 7)
    assert mine.train.labels.tolist() == [-1] * 12
    own_data("mine", **arrays | {"train_labels": arrays["train_labels"].astype(">i4")})
    assert data.load(file).train.labels.tolist() == arrays["train_labels"].tolist()


def test_our_own_writer_makes_the_format(tmp_path):
    arrays = image_arrays()
    data._write_npz(tmp_path / "x.npz", arrays)
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


def test_transparency_and_palettes_become_colours(tmp_path):
    for index in range(10):
        Image.new("RGBA", (4, 4), (10, 20, 30, 128)).save(tmp_path / f"{index}.png")
    assert data.load(tmp_path).train.images[0, :, 0, 0].tolist() == [10, 20, 30]


def test_a_bad_folder_is_one_sentence(tmp_path):
    with pytest.raises(data.DataError, match="holds 0 images; at least 10"):
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
    return [(255 * next(batches)).round().flatten().int().tolist() for _ in range(n)]


def test_an_epoch_has_no_repetition_and_leaves_the_small_batch_out(numbered):
    batches = data.batches(numbered, 8, seed=3)
    assert batches.per_epoch == 6
    for _ in range(4):
        epoch = sum(draw(batches, 6), [])
        assert len(set(epoch)) == 48
    assert next(batches).shape == (8, 1, 1, 1) and next(batches).dtype == torch.float32
    assert next(batches).max() <= 1


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


def test_labels_go_with_their_images(numbered):
    batches = data.batches(numbered, 8, labels=torch.arange(50) * 2)
    for _ in range(15):
        x, y = next(batches)
        assert ((255 * x).round().flatten() * 2 == y).all()


def test_points_pass_through_as_they_are():
    points = torch.randn(20, 2)
    batch = next(data.batches(points, 20))
    assert torch.equal(batch[batch[:, 0].argsort()], points[points[:, 0].argsort()])


@pytest.mark.parametrize("size", [51, 0, -1])
def test_a_batch_that_cannot_be_is_one_sentence(numbered, size):
    with pytest.raises(data.DataError, match=f"A batch of {size} was asked of only 50 images"):
        data.batches(numbered, size)
