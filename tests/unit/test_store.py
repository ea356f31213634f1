"""store and files: what is written comes back whole, or one sentence says why not."""

import contextlib
import errno
import json
import os
import pwd
import stat
import threading

import pytest
import torch

from gencore import files, store


@pytest.fixture
def pair(tmp_path):
    """A saved pair of files: (path without suffix, its tensors)."""
    tensors = {
        "half": torch.randn(3, 4).half(),
        "double": torch.randn(5, dtype=torch.float64),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "nested/scalar": torch.tensor(2.5),
    }
    store.save(tmp_path / "run.v1", tensors, {"losses": [1.5, None], "word": "é"})
    return tmp_path / "run.v1", tensors


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# places


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


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GENCORE_HOME", "~/mine")
    monkeypatch.setenv("GENCORE_RUNS", "~/runs")
    assert store.cache_dir() == tmp_path / "mine" and store.runs_dir() == tmp_path / "runs"


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    """A user without a home folder, as in a container that was given a bare number."""

    def unknown(uid):
        raise KeyError(uid)

    for name in ("GENCORE_HOME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(store.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"gencore-{os.getuid()}"


def test_a_user_without_a_home_has_a_private_folder(nobody):
    assert store.cache_dir() == store.cache_dir() == nobody
    assert stat.S_IMODE(nobody.stat().st_mode) == 0o700


def test_a_folder_that_somebody_else_has_put_there_is_not_trusted(nobody, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    nobody.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(store.StoreError, match="belongs to somebody else.*set GENCORE_HOME"):
        store.cache_dir()
    nobody.unlink()
    nobody.write_text("a file")
    with pytest.raises(store.StoreError, match="cannot be used .File exists.*set GENCORE_HOME"):
        store.cache_dir()


def test_the_profile(monkeypatch):
    assert store.profile() == "full"
    for value in ("quick", "smoke", "full"):
        monkeypatch.setenv("GENCORE_PROFILE", value)
        assert store.profile() == value
    monkeypatch.setenv("GENCORE_PROFILE", "fast")
    with pytest.raises(ValueError, match="'fast'; it can be full, quick or smoke"):
        store.profile()


@pytest.mark.parametrize("kind", ["quick", "smoke"])
def test_only_full_runs_go_where_the_published_ones_are(kind, tmp_path, monkeypatch):
    assert store.own_dir() == store.runs_dir() == store.CHECKOUT / "book" / "runs"
    monkeypatch.setenv("GENCORE_PROFILE", kind)
    assert store.own_dir() == store.cache_dir() / "runs" / kind
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "b"))
    assert store.own_dir() == tmp_path / "b" / kind
    monkeypatch.setenv("GENCORE_PROFILE", "full")
    assert store.own_dir() == store.runs_dir() == tmp_path / "b"


def test_a_profiles_own_runs_come_before_the_published_ones(own_runs, monkeypatch):
    save = {name: torch.ones(2) for name in "x"}
    store.save(own_runs / "one", save, {})
    store.save(own_runs / "quick" / "one", save, {})
    store.save(own_runs / "quick" / "two", save, {})
    assert store.artefact("one") == own_runs / "one"
    with pytest.raises(store.StoreError, match="The artefact two is not in"):
        store.artefact("two")
    monkeypatch.setenv("GENCORE_PROFILE", "quick")
    assert store.artefact("one") == own_runs / "quick" / "one"
    assert store.artefact("two") == own_runs / "quick" / "two"
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    assert store.artefact("one") == own_runs / "one"


def test_sha256_of_bytes_and_of_a_file(tmp_path):
    # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.sha256(b"abc") == expected
    (tmp_path / "f").write_bytes(b"abc")
    assert store.sha256(tmp_path / "f") == store.sha256(str(tmp_path / "f")) == expected


# pairs


def test_a_pair_comes_back_bit_by_bit(pair):
    path, tensors = pair
    found, meta = store.load(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    assert meta["losses"] == [1.5, None] and meta["word"] == "é" and meta["name"] == "run.v1"
    assert meta["sha256"] == store.sha256(path.with_name("run.v1.safetensors"))
    assert meta == store.describe(path)
    assert sorted(contents(path.parent)) == ["run.v1.json", "run.v1.safetensors"]


def test_a_tensor_of_any_layout_is_saved_by_value(tmp_path):
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    parameter = torch.nn.Parameter(torch.randn(3, 5)).T
    tied = torch.randn(6)
    tensors = {"x": x, "part": x[:, 1:2], "p": parameter, "tied": tied, "too": tied[:2]}
    store.save(tmp_path / "a", tensors | {"wide": torch.ones(1).expand(3)}, {})
    found = store.load(tmp_path / "a")[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert not found["p"].requires_grad and found["wide"].tolist() == [1, 1, 1]


def test_the_same_content_has_the_same_bytes(pair, tmp_path):
    path, tensors = pair
    before = contents(path.parent)
    store.save(tmp_path / "again" / path.name, tensors, store.load(path)[1])
    assert contents(tmp_path / "again") == before


def test_saving_again_replaces_both(pair):
    path, _ = pair
    store.save(path, {"other": torch.ones(3)}, {"word": "new"})
    tensors, meta = store.load(path)
    assert list(tensors) == ["other"] and meta["word"] == "new" and "losses" not in meta
    assert sorted(contents(path.parent)) == ["run.v1.json", "run.v1.safetensors"]


def test_numbers_without_weights(pair):
    """A run can keep its JSON alone, with the sha256 of what was measured, and no older weights."""
    path, tensors = pair
    digest = store.describe(path)["sha256"]
    store.save(path, tensors, {"metrics": {"a": 1}}, keep=False)
    assert sorted(contents(path.parent)) == ["run.v1.json"]
    meta = store.describe(path)
    assert meta["sha256"] == digest and meta["weights"] == "not kept"
    with pytest.raises(store.StoreError, match="the weights are not: .*retrain=True.*again"):
        store.load(path)
    store.save(path, tensors, meta)  # the weights are kept after all
    assert "weights" not in store.load(path)[1]


def test_an_artefact_without_weights_is_found_by_those_who_want_numbers(own_runs):
    store.save(own_runs / "run-s1", {"x": torch.ones(2)}, {}, keep=False)
    assert store.artefact("run-s1", weights=False) == own_runs / "run-s1"
    with pytest.raises(store.StoreError, match='runs.get."run-s1", retrain=True.` trains it'):
        store.artefact("run-s1")


def test_what_killed_saves_left_goes_with_the_next_save(pair):
    path, tensors = pair
    others = [
        "run.v10.json",
        ".run.v10.json-0123abcd",
        "run.0123456789ab.safetensors",
        "run.v1.0123456789ab.json",  # a run that has such a name
        "run.v1.0123456789ab.safetensors",
        "run.v1.notes.safetensors",
    ]
    left = [
        ".run.v1.json-0123abcd",
        ".run.v1.safetensors-x_y_z_12",  # as an older version named them
        ".run.v1.0123456789ab.safetensors-0123abcd",
        "run.v1.ba9876543210.safetensors",
    ]
    for name in others + left:
        path.with_name(name).write_bytes(b"something")
    store.save(path, tensors, {})
    assert set(contents(path.parent)) == {"run.v1.json", "run.v1.safetensors", *others}


def test_numbers_that_still_wait_for_their_name_are_loaded(pair, own_runs):
    """The state after a kill between the two renames."""
    path, tensors = pair
    digest = store.describe(path)["sha256"]
    final, waiting = path.with_name("run.v1.safetensors"), f"run.v1.{digest[:12]}.safetensors"
    final.rename(path.with_name(waiting))
    assert store.load(path)[0].keys() == tensors.keys()
    final.write_bytes(b"the numbers of the run before")
    assert store.load(path)[0].keys() == tensors.keys()
    for name in (waiting, "run.v1.json"):
        path.with_name(name).rename(own_runs / name)
    assert store.artefact("run.v1") == own_runs / "run.v1"
    assert store.load(own_runs / "run.v1")[0].keys() == tensors.keys()


def test_a_saved_file_of_another_pair_is_corrupt(pair, tmp_path):
    path, tensors = pair
    store.save(tmp_path / "b", {name: tensor + 1 for name, tensor in tensors.items()}, {})
    (tmp_path / "b.safetensors").replace(path.with_name("run.v1.safetensors"))
    with pytest.raises(store.Corrupt, match=r"run\.v1\.safetensors is damaged"):
        store.load(path)


def test_both_files_of_another_pair_are_corrupt(pair, tmp_path):
    """They fit each other, but the description names another run."""
    path, tensors = pair
    store.save(tmp_path / "b", tensors, {})
    for end in (".json", ".safetensors"):
        (tmp_path / f"b{end}").replace(path.with_name(path.name + end))
    for read in (store.load, store.describe):
        with pytest.raises(store.Corrupt, match=r"run\.v1\.json describes another artefact, 'b'"):
            read(path)


@pytest.mark.parametrize("end", [".json", ".safetensors"])
def test_a_missing_half_is_not_taken_for_a_run(pair, end, own_runs):
    store.save(own_runs / "run", pair[1], {})
    assert store.artefact("run") == own_runs / "run"
    (own_runs / f"run{end}").unlink()
    with pytest.raises(FileNotFoundError):
        store.load(own_runs / "run")
    with pytest.raises(store.StoreError, match="make it with `python -m gencore train run`"):
        store.artefact("run")


def test_numbers_with_the_right_sha256_that_are_no_tensors(pair):
    path, _ = pair
    for content in (b"", b"x" * 100, (10).to_bytes(8, "little") + b"[" * 10):
        path.with_name("run.v1.safetensors").write_bytes(content)
        rewrite(path, sha256=store.sha256(content))
        with pytest.raises(store.Corrupt, match=r"run\.v1\.safetensors holds no tensors") as caught:
            store.load(path)
        assert "\n" not in str(caught.value)


# descriptions


def rewrite(path, **changes):
    """Change a description and let its own sha256 follow, as a tool would."""
    meta = store.describe(path) | changes
    meta = {key: value for key, value in meta.items() if value is not ...}
    digest = store.sha256(files.json_bytes(meta))
    files.write_json(path.with_name(path.name + ".json"), meta | {"description_sha256": digest})


NO_JSON = {
    "nothing": b"",
    "a half": b"{",
    "other bytes": b"\xff\xfe",
    "bad UTF-8": b'{"a": "\xc3"}',
    "a comma": b'{"a": 1,}',
    "zeros": b"\0" * 40,
    "a page": b"<html>",
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "a float that is infinite": b'{"a": 1e999}',
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "a deep nest": b"[" * 200_000,
    "half a character": b'{"a": "\\ud800"}',
}
NO_DESCRIPTION = {
    "null": b"null",
    "list": b"[]",
    "empty": b"{}",
    "text": b'"sha256"',
    "number": b"7",
    "sha256 is null": b'{"sha256": null}',
    "sha256 is a path": b'{"sha256": "../../../../etc/passwd"}',
}


@pytest.mark.parametrize("case", NO_JSON)
def test_damaged_json_is_one_sentence(pair, case):
    path, _ = pair
    path.with_name("run.v1.json").write_bytes(NO_JSON[case])
    for read in (store.describe, store.load):
        with pytest.raises(
            store.Corrupt, match=r"run\.v1\.json is not valid JSON .*delete it"
        ) as e:
            read(path)
        assert "\n" not in str(e.value) and len(str(e.value)) < 400


@pytest.mark.parametrize("case", NO_DESCRIPTION)
def test_a_description_of_something_else_is_corrupt(pair, case):
    path, _ = pair
    path.with_name("run.v1.json").write_bytes(NO_DESCRIPTION[case])
    for read in (store.describe, store.load):
        with pytest.raises(store.Corrupt, match="damaged: it describes no artefact"):
            read(path)


def test_a_changed_description_is_corrupt_and_one_of_another_name_too(pair):
    path, _ = pair
    file = path.with_name("run.v1.json")
    file.write_text(file.read_text().replace("1.5", "1.4"))
    with pytest.raises(store.Corrupt, match="sha256 is not its description_sha256"):
        store.describe(path)
    store.save(path, {"x": torch.ones(1)}, {})
    meta = store.describe(path)
    files.write_json(file, meta)  # as before descriptions had a sha256
    with pytest.raises(store.Corrupt, match="is an older artefact: it has no sha256 of its own"):
        store.describe(path)
    for name in ("other", None, 3, ["run.v1"], ...):
        store.save(path, {"x": torch.ones(1)}, {})
        rewrite(path, name=name)
        with pytest.raises(store.Corrupt, match="describes another artefact"):
            store.describe(path)


@pytest.mark.parametrize("end", [".json", ".safetensors"])
def test_no_file_at_all_in_a_files_place(pair, end):
    path, _ = pair
    file = path.with_name(path.name + end)
    file.unlink()
    file.mkdir()
    with pytest.raises(store.Corrupt, match=rf"^\S+{end} is damaged: it is no file"):
        store.load(path)
    file.rmdir()
    os.mkfifo(file)  # to open it would wait for ever
    with pytest.raises(store.Corrupt, match=rf"^\S+{end} is damaged: it is no file"):
        store.load(path)


def test_a_file_that_may_not_be_read_is_not_called_damaged(pair, monkeypatch):
    path, _ = pair

    def refuse(self):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(store.StoreError, match=r"^Could not read .*json: Permission denied\.$"):
        store.describe(path)


@pytest.mark.parametrize(
    "value",
    [{"x": float("nan")}, {"x": [float("inf")]}, {"x": torch.ones(1)}, {"x": "\ud800"}],
    ids=["NaN", "infinity", "tensor", "half a character"],
)
def test_a_description_that_json_cannot_hold_changes_nothing(pair, value):
    path, _ = pair
    before = contents(path.parent)
    with pytest.raises((ValueError, TypeError)):
        store.save(path, {"other": torch.ones(3)}, value)
    with pytest.raises((ValueError, TypeError)):
        files.write_json(path.with_name("run.v1.json"), value)
    assert contents(path.parent) == before


def test_json_round_trip(tmp_path):
    value = {"a": [1, 2.5, None, True], "ö": {"deep": "~"}, "tiny": 5e-324, "third": 1 / 3}
    files.write_json(tmp_path / "x.json", value)
    assert store.read_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value


# writing


def test_write_bytes_makes_folders_and_replaces(tmp_path):
    file = tmp_path / "a" / "b" / "c"
    for content in (b"one", b"", b"three" * 1000):
        store.write_bytes(file, content)
        assert file.read_bytes() == content
    assert [p.name for p in file.parent.iterdir()] == ["c"]


def test_the_bytes_are_on_the_disk_before_the_name_is_given(tmp_path, monkeypatch):
    """temp + fsync + rename + fsync of the folder: a power cut leaves the old file or the new."""
    file, data, events = tmp_path / "file", b"x" * 100_000, []
    file.write_bytes(b"old")
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle):
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        size = "folder" if is_folder else os.fstat(handle).st_size
        events.append(("fsync", size, file.read_bytes()[:3]))
        fsync(handle)

    def spy_replace(source, target):
        events.append(("replace", os.path.getsize(source), file.read_bytes()[:3]))
        assert os.path.dirname(source) == str(tmp_path), "a rename is atomic in one folder only"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    store.write_bytes(file, data)
    size = len(data)
    expected = [("fsync", size, b"old"), ("replace", size, b"old"), ("fsync", "folder", b"xxx")]
    assert events == expected


def test_of_a_pair_nothing_is_renamed_before_all_is_written(pair, monkeypatch):
    """The disk fills up at the description: the old pair stays whole."""
    path, _ = pair
    before = contents(path.parent)
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.StoreError, match=r"run\.v1\.json: No space left on device"):
        store.save(path, {"other": torch.ones(3)}, {})
    assert contents(path.parent) == before


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_new_file_has_the_callers_permissions(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        store.write_bytes(tmp_path / "new", b"x")
        store.save(tmp_path / "pair", {"x": torch.ones(1)}, {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir() if p.is_file()} == {mode}


def test_an_old_file_keeps_its_permissions(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o604)
    store.write_bytes(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == 0o604 and file.read_bytes() == b"new"


def test_links_are_followed(tmp_path):
    target, link = tmp_path / "deep" / "target", tmp_path / "link"
    link.symlink_to(target)  # to nothing, as yet
    for content in (b"first", b"second"):
        store.write_bytes(link, content)
        assert link.is_symlink() and target.read_bytes() == content
    assert os.listdir(target.parent) == ["target"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(store.StoreError, match="loop: Too many levels of symbolic links"):
        store.write_bytes(tmp_path / "loop", b"x")


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    store.write_bytes(pipe, b"through the pipe")
    reader.join(20)
    assert found == [b"through the pipe"] and stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_device_is_written_to_and_stays_a_device():
    """A terminal of the test's own: no device that anybody else could miss."""
    ours, theirs = os.openpty()
    try:
        name = os.ttyname(theirs)
        store.write_bytes(name, b"to the terminal")
        assert os.read(ours, 100) == b"to the terminal"
        assert stat.S_ISCHR(os.stat(name).st_mode)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_node_in_a_folder_that_could_be_replaced_is_not(tmp_path):
    """As root nothing but our own care keeps a device from being replaced by a file."""
    node = tmp_path / "null"
    with contextlib.suppress(PermissionError):
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    if not node.exists():
        pytest.skip("only root makes device nodes")
    with contextlib.suppress(store.StoreError):  # a folder mounted with nodev
        store.write_bytes(node, b"into the void")
    assert stat.S_ISCHR(node.stat().st_mode)


def test_a_folder_is_not_written_to(tmp_path):
    with pytest.raises(store.StoreError, match="it is a folder"):
        store.write_bytes(tmp_path, b"x")


def test_a_folder_that_another_process_holds_for_ever_is_one_sentence(pair, monkeypatch):
    path, tensors = pair
    before = contents(path.parent)
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    with files.locked(path.parent) as alone:
        assert alone
        with pytest.raises(store.StoreError, match="another process has been writing there"):
            store.save(path, tensors, {})
    assert contents(path.parent) == before
    store.save(path, tensors, {})


def test_where_nothing_can_be_locked_it_is_saved_all_the_same(pair, monkeypatch):
    """On a network disk; then nobody knows whether temporary files are somebody's: they stay."""
    import fcntl

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path, _ = pair
    monkeypatch.setattr(fcntl, "flock", refuse)
    path.with_name(".run.v1.json-0123abcd").write_bytes(b"of another process, perhaps")
    store.save(path, {"x": torch.ones(1)}, {})
    assert list(store.load(path)[0]) == ["x"]
    names = [".run.v1.json-0123abcd", "run.v1.json", "run.v1.safetensors"]
    assert sorted(contents(path.parent)) == names


# the release


def test_the_registry_names_every_file_and_its_sha256(tmp_path, monkeypatch):
    runs = tmp_path / "book" / "runs"
    monkeypatch.setattr(store, "CHECKOUT", tmp_path)
    monkeypatch.setattr(store, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("GENCORE_RELEASE", "http://127.0.0.1/v1")
    store.save(runs / "b", {"x": torch.ones(2)}, {})
    store.save(runs / "a", {"x": torch.zeros(2)}, {})
    store.save(runs / "a-s1", {"x": torch.zeros(2)}, {}, keep=False)
    (runs / ".b.json-01234567").write_bytes(b"half")
    digest = store.describe(runs / "b")["sha256"]
    (runs / "b.safetensors").rename(runs / f"b.{digest[:12]}.safetensors")  # killed before a rename
    store.write_registry()
    address, registry = store.release()
    assert address == "http://127.0.0.1/v1/"
    assert list(registry) == ["a-s1.json", "a.json", "a.safetensors", "b.json", "b.safetensors"]
    assert all(registry[p] == store.sha256(runs / p) for p in registry)
    assert set(registry) == set(os.listdir(runs))


def test_a_release_without_the_weights_says_so(tmp_path, monkeypatch, own_runs):
    (tmp_path / "registry.txt").write_text("run-s1.json 0\n")
    monkeypatch.setattr(store, "ASSETS", tmp_path)
    monkeypatch.setenv("GENCORE_RELEASE", "http://127.0.0.1/v1")
    with pytest.raises(
        store.StoreError, match="Of run-s1 the numbers are kept and the weights are"
    ):
        store.artefact("run-s1")


def test_the_placeholder_address_has_no_artefacts(monkeypatch):
    monkeypatch.setenv("GENCORE_RELEASE", "https://github.com/OWNER/book/releases/latest/download")
    assert store.release()[1] == {}
    with pytest.raises(store.StoreError, match="no release has it: make it with"):
        store.artefact("vae-mnist-nowhere")


def test_the_address_stands_in_one_file():
    address, _ = store.release()
    stamped = json.loads((store.ASSETS / "release.json").read_text())["address"]
    assert address == stamped.rstrip("/") + "/" and address.startswith("https://")
