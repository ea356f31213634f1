"""Files survive kill -9, a full disk and a read-only one; a damaged one is never believed."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time

import pytest
import torch

from gencore import nets, runs, store

SIZE = 1_000_000


def write_for_ever(file, ready):
    """Replace a file by all zeros, all ones, all twos, ... until killed."""
    for turn in range(1_000_000):
        store.write_bytes(file, bytes([turn % 251]) * SIZE)
        ready.set()


def save_for_ever(path, ready):
    """Save a pair again and again: tensor and description hold the same number."""
    for turn in range(1_000_000):
        store.save(path, {"x": torch.full((200_000,), float(turn))}, {"turn": turn})
        ready.set()


def killed(forks, function, target, rng):
    """Run function(target) in a child and kill it, some milliseconds after its first write."""
    ready = forks.Event()
    child = forks.Process(target=function, args=(target, ready))
    child.start()
    assert ready.wait(60)
    time.sleep(rng.uniform(0, 0.02))
    child.kill()
    child.join()
    assert child.exitcode == -9


def test_kill_leaves_the_old_file_or_the_new_one(tmp_path, forks):
    rng, file = random.Random(0), tmp_path / "file"
    seen = set()
    for _ in range(10):
        killed(forks, write_for_ever, file, rng)
        content = file.read_bytes()
        assert len(content) == SIZE and content.count(content[:1]) == SIZE
        seen.add(content[0])
    assert len(seen) > 1, "the kills should have come at different times"


def test_kill_never_leaves_a_pair_that_loads_and_lies(tmp_path, forks):
    """Between the two renames of a pair a kill may leave a mismatch: it is found, not believed."""
    rng = random.Random(1)
    for _ in range(10):
        killed(forks, save_for_ever, tmp_path / "pair", rng)
        try:
            tensors, meta = store.load(tmp_path / "pair")
        except store.Corrupt:
            continue
        assert (tensors["x"] == meta["turn"]).all()


# a disk that is full, or cannot be written


SMALL_DISK = """
import errno, os, sys
sys.path.insert(0, {checkout!r})
from gencore import store
file = {file!r}
store.write_bytes(file, b"old" * 1000)
try:
    store.write_bytes(file, bytes(10_000_000))
except store.StoreError as error:
    print(error)
assert open(file, "rb").read() == b"old" * 1000
assert os.listdir(os.path.dirname(file)) == ["file"]
store.write_bytes(file, b"new" * 1000)       # what was half written has been given back
os.system("mount -o remount,ro " + os.path.dirname(file))
try:
    store.write_bytes(file, b"newer")
except store.StoreError as error:
    print(error)
assert open(file, "rb").read() == b"new" * 1000
"""


def test_a_disk_of_64_kilobytes_then_read_only(tmp_path):
    """A real one: a memory disk in a mount namespace of its own; root obeys it, too."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "script.py"
    script.write_text(SMALL_DISK.format(checkout=str(store.CHECKOUT), file=str(disk / "file")))
    inside = f"mount -t tmpfs -o size=64k tmpfs '{disk}' && '{sys.executable}' '{script}'"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if (
        not shutil.which("unshare")
        or subprocess.run([*command, "true"], capture_output=True).returncode
    ):
        pytest.skip("this machine lets nobody mount a small disk (unshare --user --mount)")
    done = subprocess.run([*command, inside], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    full, read_only = done.stdout.splitlines()
    assert full.startswith(f"Could not write {disk / 'file'}: No space left on device. Nothing was")
    assert read_only.startswith(f"Could not write {disk / 'file'}: Read-only file system.")


class FullDisk:
    """A file that takes some bytes and then has no space left."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        self.file.write(data[:1000])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def test_no_space_in_the_middle_of_a_write(tmp_path, monkeypatch):
    file = tmp_path / "file"
    store.write_bytes(file, b"old")
    fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *a: FullDisk(fdopen(*a)))
    with pytest.raises(
        store.StoreError, match="No space left on device. Nothing was changed; make room"
    ):
        store.write_bytes(file, bytes(5000))
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_an_interrupt_in_the_middle_of_a_write_leaves_no_litter(tmp_path, monkeypatch):
    file = tmp_path / "file"
    store.write_bytes(file, b"old")

    def stop(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        store.write_bytes(file, b"new")
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(
        store.StoreError, match="^Could not write .*(Not a directory|File exists)"
    ) as caught:
        store.write_bytes(tmp_path / "file" / "below", b"y")
    assert "\n" not in str(caught.value) and (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(store.StoreError, match="Permission denied"):
        store.write_bytes(folder / "file", b"x")


# damage


@pytest.fixture
def artefact(own_runs):
    """A small artefact of a run that the catalogue knows: its path without suffix."""
    torch.manual_seed(0)
    conf = runs.config("classifier-mnist")
    net = nets.Classifier(width=2)
    meta = {"config": {"model": {"width": 2}}, "digest": conf.digest, "profile": "full"}
    meta |= {"metrics": {"accuracy": 0.5}, "history": {}}
    store.save(own_runs / conf.name, net.half().state_dict(), meta)
    assert runs.state(conf.name) == "ready"
    return own_runs / conf.name


def test_every_97th_byte_of_the_tensors_flipped_is_found(artefact):
    file = artefact.with_name(artefact.name + ".safetensors")
    whole = file.read_bytes()
    positions = range(0, len(whole), 97)
    assert len(positions) > 50
    for position in positions:
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        file.write_bytes(broken)
        with pytest.raises(store.Corrupt, match="is damaged: its sha256"):
            store.load(artefact)
    file.write_bytes(whole)
    assert store.load(artefact)[0]["head.bias"].shape == (10,)


def test_every_byte_of_the_description_flipped_is_found(artefact):
    """All but the name of its own sha256, without which it counts as an older artefact's."""
    file = artefact.with_name(artefact.name + ".json")
    whole = file.read_bytes()
    name = whole.index(b"description_sha256")
    for position in set(range(len(whole) - 1)) - set(range(name, name + 18)):
        broken = bytearray(whole)
        broken[position] ^= 2
        file.write_bytes(broken)
        with pytest.raises(store.Corrupt) as caught:
            store.load(artefact)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("end", [".safetensors", ".json"])
def test_truncated_anywhere_is_found_and_named(artefact, end):
    file = artefact.with_name(artefact.name + end)
    whole = file.read_bytes()
    for length in [0, 1, 7, 8, 9, *range(10, len(whole) - 1, len(whole) // 25), len(whole) - 2]:
        file.write_bytes(whole[:length])
        with pytest.raises(store.Corrupt, match=file.name) as caught:
            runs.get(artefact.name)
        assert "\n" not in str(caught.value)
        assert runs.state(artefact.name) == "damaged"


def test_bytes_appended_are_found(artefact):
    file = artefact.with_name(artefact.name + ".safetensors")
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(store.Corrupt):
        store.load(artefact)


@pytest.mark.parametrize("key", ["sha256", "config", "digest", "metrics", "history", "profile"])
def test_a_description_without_one_of_its_keys_is_corrupt(artefact, key):
    file = artefact.with_name(artefact.name + ".json")
    meta = json.loads(file.read_text())
    del meta[key], meta["description_sha256"]
    file.write_text(json.dumps(meta))
    with pytest.raises(store.Corrupt, match=artefact.name):
        runs.get(artefact.name)
    assert runs.state(artefact.name) == "damaged"
