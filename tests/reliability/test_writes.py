"""Files survive kill -9, a full disk and a read-only one; a damaged one is never believed."""

import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from gencore import catalogue, classifier, files, runs, store

SIZE = 1_000_000
SYSTEM = ("posix", "_io", "io", "fcntl")  # modules whose functions ask the kernel for something


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
    child = forks.Process(target=function, args=(target, ready), daemon=True)
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


def test_kill_leaves_the_old_pair_or_the_new_one(tmp_path, forks):
    rng, path = random.Random(1), tmp_path / "pair"
    for _ in range(10):
        killed(forks, save_for_ever, path, rng)
        tensors, meta = store.load(path)
        assert (tensors["x"] == meta["turn"]).all()
    store.save(path, {"x": torch.ones(1)}, {})
    assert sorted(os.listdir(tmp_path)) == ["pair.json", "pair.safetensors"]


def die_at(event):
    """Kill this process before one of the calls into the system that it makes from now.

    They are counted from 0. Before one call is after the one before it.
    """
    count = 0

    def look(frame, kind, function):
        nonlocal count
        if kind != "c_call":
            return
        owner = getattr(function, "__self__", None)
        if getattr(function, "__module__", "") in SYSTEM or isinstance(owner, io.IOBase):
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

    sys.setprofile(look)


def is_killed(path, turn, keep, event):
    """Save the pair of a turn in a process that dies at an event; False if it came to its end."""
    child = os.fork()
    if child == 0:
        tensors, meta = {"x": torch.full((5000,), float(turn))}, {"turn": turn}
        die_at(event)
        store.save(path, tensors, meta, keep)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f"event {event} ended with {code}"
    return code != 0


def turn_of(path):
    """The turn whose pair is there, numbers and description alike; None if there is no pair."""
    try:
        meta = store.describe(path)
        if "weights" not in meta:
            tensors, meta = store.load(path)
            assert (tensors["x"] == meta["turn"]).all() and len(tensors["x"]) == 5000
    except FileNotFoundError:
        return None
    return meta["turn"]


def kill_at_each_event(path, first, keep, answer):
    """Send "old" or "new" for each event at which a save was killed, or what went wrong."""
    try:
        torch.set_num_threads(1)
        store.save(path.with_name("warm"), {"x": torch.ones(1)}, {})  # everything is imported
        store.load(path.with_name("warm"))
        seen, going = [], True
        while going:
            if first != "leftovers":  # else each save meets what the last kill has left
                for file in [*path.parent.glob("pair*"), *path.parent.glob(".pair*")]:
                    file.unlink()
            if first in ("a pair", "numbers only"):
                old = {"x": torch.full((5000,), -1.0)}
                store.save(path, old, {"turn": -1}, keep=first == "a pair")
            before, event = turn_of(path), len(seen)
            going = is_killed(path, event, keep, event)
            after = turn_of(path)
            assert after in (before, event), f"a kill at event {event} lost both pairs"
            seen.append("new" if after == event else "old")
        store.save(path, {"x": torch.ones(1)}, {})
        answer.send(seen)
    except Exception as error:  # noqa: BLE001
        answer.send(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("first", "keep"),
    [("nothing", True), ("a pair", True), ("leftovers", True), ("numbers only", True)]
    + [("a pair", False), ("leftovers", False)],
)
def test_kill_at_each_system_call_of_a_save(tmp_path, forks, first, keep):
    """Between any two calls, over whatever was there: the old pair loads, or the new one."""
    here, there = forks.Pipe()
    arguments = tmp_path / "pair", first, keep, there
    child = forks.Process(target=kill_at_each_event, args=arguments, daemon=True)
    child.start()
    assert here.poll(120)
    seen = here.recv()
    child.join()
    assert isinstance(seen, list), seen
    assert len(seen) > 15 and seen[0] == "old" and seen[-1] == "new"
    if first != "leftovers":
        assert seen == sorted(seen, reverse=True), "one call switches, and for good"
    names = ["pair.json", "pair.safetensors", "warm.json", "warm.safetensors"]
    assert sorted(os.listdir(tmp_path)) == names


def test_two_writers_of_one_name_and_a_reader(tmp_path, forks):
    """The reader always has a whole pair, and the name is that of one of the writers in the end."""
    path, ready, turns = tmp_path / "pair", [forks.Event(), forks.Event()], set()
    children = [forks.Process(target=save_for_ever, args=(path, e), daemon=True) for e in ready]
    try:
        for child in children:
            child.start()
        assert all(event.wait(60) for event in ready)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            tensors, meta = store.load(path)
            assert (tensors["x"] == meta["turn"]).all()
            turns.add(meta["turn"])
        for child in children:
            assert child.is_alive(), "neither has come upon a file that the other removed"
    finally:
        for child in children:
            child.kill()
            child.join()
    tensors, meta = store.load(path)
    assert (tensors["x"] == meta["turn"]).all() and len(turns) > 3


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
    monkeypatch.setattr(files, "open", lambda *a: FullDisk(open(*a)), raising=False)  # noqa: SIM115
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
def artefact(own_runs, monkeypatch):
    """A small artefact of a run that the catalogue knows: its path without suffix."""
    torch.manual_seed(0)
    conf = catalogue.config("classifier-mnist")
    conf = replace(conf, model=conf.model | {"width": 2})
    monkeypatch.setitem(catalogue.runs(), conf.name, conf)
    meta = {"config": conf.record(), "profile": "full", "metrics": {"accuracy": 0.5}, "history": {}}
    store.save(own_runs / conf.name, classifier.Model(**conf.model).half().state_dict(), meta)
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
    file = artefact.with_name(artefact.name + ".json")
    whole = file.read_bytes()
    for position in range(len(whole) - 1):
        broken = bytearray(whole)
        broken[position] ^= 2
        file.write_bytes(broken)
        with pytest.raises(store.Corrupt) as caught:
            store.describe(artefact)
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


@pytest.mark.parametrize("key", ["sha256", "config", "metrics", "history", "profile"])
def test_a_description_without_one_of_its_keys_is_corrupt(artefact, key):
    file = artefact.with_name(artefact.name + ".json")
    meta = json.loads(file.read_text())
    del meta[key], meta["description_sha256"]
    files.write_json(file, meta | {"description_sha256": store.sha256(files.json_bytes(meta))})
    with pytest.raises(store.Corrupt, match=artefact.name):
        runs.get(artefact.name)
    assert runs.state(artefact.name) == "damaged"
