"""store: what is written comes back whole, or one sentence says why not."""

import errno
import json
import os

import pytest
import torch

from gencore import store


@pytest.fixture
def pair(tmp_path):
    """A saved pair of files: (path without suffix, its tensors)."""
    tensors = {
        "half": torch.randn(3, 4).half(),
        "double": torch.randn(5, dtype=torch.float64),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "nested/scalar": torch.tensor(2.5),
    }
    store.save(tmp_path / "run.v1", tensors, {"name": "run", "losses": [1.5, None], "word": "é"})
    return tmp_path / "run.v1", tensors


def test_folders_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCORE_HOME", str(tmp_path / "a"))
    assert store.cache_dir() == tmp_path / "a"
    assert store.runs_dir() == store.CHECKOUT / "book" / "runs"
    monkeypatch.setattr(store, "CHECKOUT", tmp_path / "installed")  # as from a wheel
    assert store.runs_dir() == tmp_path / "a" / "runs"
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "b"))
    assert store.runs_dir() == tmp_path / "b"
    monkeypatch.delenv("GENCORE_HOME")
    assert store.cache_dir().name == "gencore" and store.cache_dir().is_absolute()


def test_sha256_of_bytes_and_of_a_file(tmp_path):
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.sha256(b"abc") == expected
    (tmp_path / "f").write_bytes(b"abc")
    assert store.sha256(tmp_path / "f") == store.sha256(str(tmp_path / "f")) == expected


def test_a_pair_comes_back_bit_by_bit(pair):
    path, tensors = pair
    found, meta = store.load(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert meta["losses"] == [1.5, None] and meta["word"] == "é"
    assert meta["sha256"] == store.sha256(path.with_name("run.v1.safetensors"))
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.v1.json", "run.v1.safetensors"]


def test_a_tensor_of_any_layout_is_saved_by_value(tmp_path):
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    parameter = torch.nn.Parameter(torch.randn(3, 5)).T
    store.save(tmp_path / "a", {"x": x, "part": x[:, 1:2], "p": parameter}, {})
    found = store.load(tmp_path / "a")[0]
    assert torch.equal(found["x"], x) and torch.equal(found["part"], x[:, 1:2])
    assert torch.equal(found["p"], parameter) and not found["p"].requires_grad


def test_the_same_content_has_the_same_bytes(pair, tmp_path):
    path, tensors = pair
    meta = {k: v for k, v in store.load(path)[1].items() if k != "sha256"}
    store.save(tmp_path / "again", tensors, meta)
    for end in (".json", ".safetensors"):
        assert (
            path.with_name(path.name + end).read_bytes() == (tmp_path / f"again{end}").read_bytes()
        )


def test_write_bytes_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "a" / "b" / "c"
    for content in (b"one", b"", b"three" * 1000):
        store.write_bytes(file, content)
        assert file.read_bytes() == content
    assert [p.name for p in file.parent.iterdir()] == ["c"]
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_bytes_are_on_the_disk_before_the_name_is_given(tmp_path, monkeypatch):
    """temp + fsync + rename, in this order: a power cut leaves the old file or the new one."""
    file, data, events = tmp_path / "file", b"x" * 100_000, []
    file.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle):
        events.append(("fsync", os.fstat(handle).st_size, file.read_bytes()))
        fsync(handle)

    def spy_replace(source, target):
        events.append(("replace", os.path.getsize(source), file.read_bytes()))
        assert os.path.dirname(source) == str(tmp_path), "a rename is atomic in one folder only"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    store.write_bytes(file, data)
    assert events == [("fsync", len(data), b"old"), ("replace", len(data), b"old")]


def test_of_a_pair_nothing_is_renamed_before_all_is_written(pair, monkeypatch):
    """The disk fills up at the description: the old pair stays whole."""
    path, tensors = pair
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.StoreError, match=r"run\.v1\.json: No space left on device"):
        store.save(path, {"other": torch.ones(3)}, {"name": "other"})
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


@pytest.mark.parametrize(
    "value", [{"x": float("nan")}, {"x": [float("inf")]}, {"x": torch.ones(1)}]
)
def test_a_description_that_json_cannot_hold_changes_nothing(pair, value):
    path, _ = pair
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises((ValueError, TypeError)):
        store.save(path, {"other": torch.ones(3)}, value)
    with pytest.raises((ValueError, TypeError)):
        store.write_json(path.with_name("run.v1.json"), value)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "ö": {"deep": "~"}, "tiny": 5e-324, "third": 1 / 3}
    store.write_json(tmp_path / "x.json", value)
    assert store.read_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"a": 1,}', b"\0" * 40, b"<html>"])
def test_damaged_json_is_one_sentence(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(store.Corrupt, match=r"x\.json is not valid JSON .*delete it") as caught:
        store.read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"null", b"[]", b"{}", b'"sha256"', b'{"sha256": null}'])
def test_a_description_of_something_else_is_corrupt(pair, content):
    path, _ = pair
    path.with_name("run.v1.json").write_bytes(content)
    with pytest.raises(store.Corrupt, match="damaged"):
        store.load(path)


def test_a_file_of_another_pair_is_corrupt(pair, tmp_path):
    path, tensors = pair
    store.save(tmp_path / "b", {name: tensor + 1 for name, tensor in tensors.items()}, {})
    (tmp_path / "b.safetensors").replace(path.with_name("run.v1.safetensors"))
    with pytest.raises(store.Corrupt, match=r"run\.v1\.safetensors is damaged"):
        store.load(path)


@pytest.mark.parametrize("end", [".json", ".safetensors"])
def test_a_missing_half_is_not_taken_for_a_run(pair, end, own_runs):
    path, tensors = pair
    store.save(own_runs / "run", tensors, {})
    assert store.artefact("run") == own_runs / "run"
    (own_runs / f"run{end}").unlink()
    with pytest.raises(FileNotFoundError):
        store.load(own_runs / "run")
    with pytest.raises(store.StoreError, match="make it with `python -m gencore train run`"):
        store.artefact("run")


def test_the_registry_names_every_file_and_its_sha256(tmp_path, monkeypatch):
    runs = tmp_path / "book" / "runs"
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    monkeypatch.setattr(store, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("GENCORE_RELEASE", "http://127.0.0.1/v1")
    store.save(runs / "b", {"x": torch.ones(2)}, {})
    store.save(runs / "a", {"x": torch.zeros(2)}, {})
    (runs / ".b.json-left-by-a-kill").write_bytes(b"half")
    store.write_registry()
    address, registry = store.release()
    assert address == "http://127.0.0.1/v1/"
    assert list(registry) == ["a.json", "a.safetensors", "b.json", "b.safetensors"]
    assert all(registry[p] == store.sha256(runs / p) for p in registry)


def test_the_placeholder_address_has_no_artefacts(monkeypatch):
    monkeypatch.setenv("GENCORE_RELEASE", "https://github.com/OWNER/book/releases/latest/download")
    assert store.release()[1] == {}
    with pytest.raises(store.StoreError, match="no release has it: make it with"):
        store.artefact("vae-mnist-nowhere")


def test_the_address_stands_in_one_file():
    address, _ = store.release()
    assert address == json.loads((store.ASSETS / "release.json").read_text())["address"]
    assert address.startswith("https://") and address.endswith("/")
