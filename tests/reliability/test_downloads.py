"""Downloads from a server that behaves well or badly: the right bytes, or one sentence."""

import gzip
import hashlib
import io
import struct
import tarfile
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision.datasets import cifar

from gencore import catalogue, classifier, data, runs, store

FAULTS = {  # what the server does -> what the sentence says of it
    404: "404",
    403: "403",
    503: "503",
    "wrong": "hash",
    "truncated": "",
    "hang": "timed out",
}


# artefacts from the release


@pytest.fixture
def release(server, tmp_path, own_runs, monkeypatch):
    """A release that holds one artefact, and of a second one the numbers only."""
    torch.manual_seed(0)
    conf = catalogue.config("classifier-mnist")
    conf = replace(conf, model=conf.model | {"width": 2})
    monkeypatch.setitem(catalogue.runs(), conf.name, conf)
    source = tmp_path / "book" / "runs"
    meta = {"config": conf.record(), "profile": "full", "metrics": {"accuracy": 0.5}, "history": {}}
    tensors = classifier.Model(**conf.model).half().state_dict()
    store.save(source / conf.name, tensors, meta)
    store.save(source / f"{conf.name}-s1", tensors, meta, keep=False)
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    monkeypatch.setattr(store, "ASSETS", tmp_path)
    monkeypatch.setattr(store, "TIMEOUT", 0.3)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    monkeypatch.setenv("GENCORE_RELEASE", server.address + "v1")
    store.write_registry()
    server.files = {f"v1/{p.name}": p.read_bytes() for p in source.iterdir()}
    return server


def test_an_artefact_comes_from_the_release_and_stays(release, own_runs):
    run = runs.get("classifier-mnist")
    assert run.metrics == {"accuracy": 0.5} and store.describe(own_runs / run.name) == run.meta
    for file in own_runs.iterdir():
        assert file.read_bytes() == release.files[f"v1/{file.name}"]
    asked = len(release.asked)
    assert asked == len(list(own_runs.iterdir())) == 2
    release.fault = 503
    assert runs.get("classifier-mnist").metrics == run.metrics  # from the folder
    assert len(release.asked) == asked


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_server_is_one_sentence_and_leaves_nothing(release, own_runs, fault):
    release.fault = fault
    with pytest.raises(
        store.StoreError, match="^Could not download classifier-mnist.safetensors"
    ) as caught:
        runs.get("classifier-mnist")
    text = str(caught.value)
    assert release.address + "v1/" in text and FAULTS[fault] in text and "\n" not in text
    assert (
        "Check the network, or train it here with `python -m gencore train classifier-mnist`"
        in text
    )
    assert list(own_runs.iterdir()) == []
    assert runs.state("classifier-mnist") == "missing"
    release.fault = None  # the next day
    assert runs.get("classifier-mnist").metrics == {"accuracy": 0.5}


def test_numbers_come_without_weights(release, own_runs):
    assert store.artefact("classifier-mnist", weights=False) == own_runs / "classifier-mnist"
    assert release.asked == ["v1/classifier-mnist.json"]
    assert runs.metrics("classifier-mnist") == {"accuracy": 0.5}
    assert len(release.asked) == 1  # from the folder
    assert runs.get("classifier-mnist").metrics == {"accuracy": 0.5}
    assert release.asked[1:] == ["v1/classifier-mnist.safetensors"]


def test_of_a_repetition_the_release_has_the_numbers(release, own_runs):
    path = store.artefact("classifier-mnist-s1", weights=False)
    assert store.describe(path)["metrics"] == {"accuracy": 0.5}
    with pytest.raises(store.StoreError, match="the weights are not: .*retrain=True"):
        store.artefact("classifier-mnist-s1")
    assert release.asked == ["v1/classifier-mnist-s1.json"]


def test_under_another_profile_the_release_serves_as_well(release, own_runs, monkeypatch):
    monkeypatch.setenv("GENCORE_PROFILE", "quick")
    assert store.artefact("classifier-mnist") == own_runs / "classifier-mnist"
    assert not (own_runs / "quick").exists()


def test_a_damaged_half_is_fetched_again(release, own_runs):
    """A download that was killed: what is there is checked, and what is missing is fetched."""
    path = store.artefact("classifier-mnist")
    tensors = store.load(path)[0]
    path.with_name("classifier-mnist.json").write_bytes(b"{")
    path.with_name("classifier-mnist.safetensors").unlink()
    with pytest.raises(store.Corrupt, match=r"classifier-mnist\.json is not valid JSON"):
        store.artefact("classifier-mnist")
    path.with_name("classifier-mnist.json").unlink()
    assert store.load(store.artefact("classifier-mnist"))[0].keys() == tensors.keys()


def test_no_server_at_all(release, server):
    server.close()
    with pytest.raises(store.StoreError, match="Could not download .*ConnectionError") as caught:
        store.artefact("classifier-mnist")
    assert "\n" not in str(caught.value)


def test_the_release_of_a_fork_is_asked_for_and_nothing_else(
    release, own_runs, monkeypatch, offline
):
    monkeypatch.setenv("GENCORE_RELEASE", "https://example.org/fork/v2/")
    with pytest.raises(store.StoreError, match="from https://example.org/fork/v2/ "):
        store.artefact("classifier-mnist")
    assert set(offline) == {"example.org"} and not release.asked


def test_what_the_registry_does_not_name_is_not_asked_for(release):
    with pytest.raises(store.StoreError, match="no release has it: make it with"):
        store.artefact("vae-mnist-d10")
    assert not release.asked


def test_two_at_once(release, own_runs):
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(store.load(store.artefact("classifier-mnist")))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    names = ["classifier-mnist.json", "classifier-mnist.safetensors"]
    assert sorted(file.name for file in own_runs.iterdir()) == names


# datasets, by torchvision's own code from its own formats


def idx(array):
    """An IDX file as LeCun describes it: two zeros, type 8, number of dimensions, sizes, bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def arrays():
    """Random images, (N, H, W, C), and labels in the four arrays of the `.npz` format."""
    rng = np.random.default_rng(0)

    def make(shape):
        out = {}
        for part, n in (("train", 20), ("test", 10)):
            out[f"{part}_images"] = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
            out[f"{part}_labels"] = rng.integers(0, 10, n, dtype=np.uint8)
        return out

    return make


@pytest.fixture(params=["mnist", "fashion-mnist", "cifar10"])
def origin(request, arrays, server, monkeypatch, bare):
    """A dataset's place of origin: (name, the arrays that it offers, the server)."""
    channels, size, _ = data.SHAPES[request.param]
    made = arrays((size, size, channels))
    monkeypatch.setattr(store, "TIMEOUT", 0.3)
    if request.param == "cifar10":
        serve_cifar(made, server, monkeypatch)
    else:
        source = {"mnist": datasets.MNIST, "fashion-mnist": datasets.FashionMNIST}[request.param]
        serve_idx(made, source, server, monkeypatch)
    return request.param, made, server


def serve_idx(made, source, server, monkeypatch):
    resources = []
    for file, key in (("train", "train"), ("t10k", "test")):
        for kind, array in ((3, made[f"{key}_images"][..., 0]), (1, made[f"{key}_labels"])):
            name = f"{file}-{'images' if kind == 3 else 'labels'}-idx{kind}-ubyte.gz"
            server.files[name] = idx(array)
            resources.append((name, md5(server.files[name])))
    monkeypatch.setattr(source, "mirrors", [server.address])
    monkeypatch.setattr(source, "resources", resources)


def serve_cifar(made, server, monkeypatch):
    parts = {f"data_batch_{i + 1}": ("train", slice(4 * i, 4 * i + 4)) for i in range(5)}
    parts["test_batch"] = ("test", slice(None))
    files = {"batches.meta": {"label_names": list(data.TABLE["cifar10"].classes)}}
    for file, (part, rows) in parts.items():
        pixels = made[f"{part}_images"][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        files[file] = {"data": pixels, "labels": made[f"{part}_labels"][rows].tolist()}
    archive, sums = io.BytesIO(), {}
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for file, entry in files.items():
            content = cifar.pickle.dumps(entry)  # what torchvision's reader of this format expects
            sums[file], info = md5(content), tarfile.TarInfo(f"cifar-10-batches-py/{file}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    server.files["cifar.tar.gz"] = archive.getvalue()
    monkeypatch.setattr(datasets.CIFAR10, "url", server.address + "cifar.tar.gz")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive.getvalue()))
    train = [[f, sums[f]] for f in parts if f != "test_batch"]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)


def assert_holds(dataset, name, made):
    assert dataset.name == name and not dataset.stand_in
    for part in ("train", "test"):
        split = getattr(dataset, part)
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        expected = torch.from_numpy(made[f"{part}_images"]).permute(0, 3, 1, 2)
        assert torch.equal(split.images, expected)
        assert split.labels.tolist() == made[f"{part}_labels"].tolist()


def test_a_dataset_is_fetched_once_and_cached_in_our_format(origin, monkeypatch):
    name, made, server = origin
    found, place = data.where(name)
    assert not found and "not here" in place
    assert_holds(data.load(name), name, made)
    cached = store.cache_dir() / "data" / f"{name}.npz"
    assert data.where(name) == (True, str(cached))
    with np.load(cached, allow_pickle=False) as archive:
        assert set(archive.files) == set(made)
        for key, array in made.items():
            assert archive[key].dtype == np.uint8 and np.array_equal(archive[key], array)
    asked = list(server.asked)
    server.close()
    monkeypatch.setattr(data, "_download", None)  # neither the network nor torchvision any more
    assert_holds(data.load(name), name, made)
    assert server.asked == asked


@pytest.mark.parametrize("fault", [404, 503, "wrong", "truncated", "hang"])
def test_a_bad_mirror_is_one_sentence_and_the_next_try_starts_afresh(origin, fault):
    name, made, server = origin
    server.fault = fault
    with pytest.raises(data.DataError, match=f"^{name} could not be had: looked for ") as caught:
        data.load(name)
    text = str(caught.value)
    assert str(store.cache_dir() / "data" / f"{name}.npz") in text and "\n" not in text
    assert f"Put {name}.npz into a folder and set GENCORE_DATA to it" in text
    assert 'data.load("fashion-mini")' in text
    assert ("timed out" in text) == (fault == "hang")
    assert not data.where(name)[0]
    server.fault = None
    assert_holds(data.load(name), name, made)


def test_a_mirror_that_fails_half_way(origin):
    name, made, server = origin
    last = list(server.files)[-1]
    content = server.files.pop(last)
    with pytest.raises(data.DataError, match="could not be had"):
        data.load(name)
    server.files[last] = content
    assert_holds(data.load(name), name, made)


@pytest.mark.parametrize("origin", ["mnist", "fashion-mnist"], indirect=True)
def test_half_an_extracted_file_is_not_kept(origin):
    """Its md5 is not checked by torchvision: it would be read, and fail, for ever."""
    name, made, server = origin
    raw = store.cache_dir() / "torchvision" / name
    folder = raw / {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name] / "raw"
    folder.mkdir(parents=True)
    for file, content in server.files.items():
        (folder / file[:-3]).write_bytes(gzip.decompress(content)[:100])
    with pytest.raises(data.DataError, match="could not be had"):
        data.load(name)
    assert_holds(data.load(name), name, made)


def test_a_disk_without_room_for_the_cache_says_so(origin, monkeypatch):
    def full(file, content):
        raise store.StoreError(f"Could not write {file}: No space left on device.")

    monkeypatch.setattr(store, "write_bytes", full)
    with pytest.raises(store.StoreError, match="Could not write .*npz: No space left"):
        data.load(origin[0])


@pytest.mark.parametrize("name", list(data.SHAPES))
def test_no_network_is_one_sentence(name, bare, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("GENCORE_DATA", str(tmp_path / "mine"))
    with pytest.raises(data.DataError, match=f"^{name} could not be had") as caught:
        data.load(name)
    text = str(caught.value)
    assert "\n" not in text and "Network is unreachable" in text
    for place in (tmp_path / "mine", store.cache_dir() / "data"):
        assert str(place / f"{name}.npz") in text
    assert offline, "torchvision should have been tried"


def test_the_callers_timeout_is_given_back(bare, offline):
    import socket

    socket.setdefaulttimeout(17)
    try:
        with pytest.raises(data.DataError):
            data.load("mnist")
        assert socket.getdefaulttimeout() == 17
    finally:
        socket.setdefaulttimeout(None)
