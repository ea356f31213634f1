"""Where files live, and how they get there and back whole.

Everything the book keeps is a pair of files: `name.safetensors` (numbers) and `name.json` (what
they mean, with the sha256 of the numbers and of itself). Writes go to a temporary file that is
renamed when it is complete, and of a pair the description's rename switches both, so that a
killed run leaves the old pair or the new one, never half of one.
"""

import contextlib
import os
import re
import tempfile
from pathlib import Path

from gencore.files import (
    Corrupt,
    StoreError,
    json_bytes,
    locked,
    read_bytes,
    read_json,
    sha256,
    write_all,
    write_bytes,
)

ASSETS = Path(__file__).parent / "assets"
CHECKOUT = Path(__file__).parents[1]
TIMEOUT = 20  # seconds without an answer after which a server counts as not there
AGAIN = "Delete it and train or download again."


def profile():
    """The budget of this process: `$GENCORE_PROFILE`, one of full (default), quick, smoke."""
    value = os.environ.get("GENCORE_PROFILE", "full")
    if value not in ("full", "quick", "smoke"):
        raise ValueError(f"GENCORE_PROFILE is {value!r}; it can be full, quick or smoke.")
    return value


def cache_dir():
    """The folder for downloads and checkpoints: `$GENCORE_HOME`, or the user's cache.

    A user who has no home folder gets one in the folder for temporary files.
    """
    if home := os.environ.get("GENCORE_HOME"):
        return Path(os.path.expanduser(home))
    import pooch

    try:
        return Path(pooch.os_cache("gencore"))
    except RuntimeError:  # neither $HOME nor an entry for this user: a container with a bare uid
        return _private_folder()


def _private_folder():
    folder = Path(tempfile.gettempdir()) / f"gencore-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise PermissionError(None, "it belongs to somebody else")
    except OSError as error:
        raise StoreError(
            f"There is no home folder, and {folder} cannot be used ({error.strerror}): set "
            "GENCORE_HOME to a folder for downloads."
        ) from None
    return folder


def runs_dir():
    """The folder of published runs: `$GENCORE_RUNS`, the checkout's `book/runs`, or the cache."""
    if folder := os.environ.get("GENCORE_RUNS"):
        return Path(os.path.expanduser(folder))
    local = CHECKOUT / "book" / "runs"
    return local if local.is_dir() else cache_dir() / "runs"


def own_dir():
    """The folder that runs of this profile are written to.

    Full ones go to `runs_dir`; quick and smoke ones have a folder of their own below
    `$GENCORE_RUNS` or the cache, so that they never take the place of what is published.
    """
    kind = profile()
    if kind == "full":
        return runs_dir()
    return (runs_dir() if os.environ.get("GENCORE_RUNS") else cache_dir() / "runs") / kind


# Artefacts: numbers and their description


def describe(path):
    """The description of the artefact `path` (no suffix): the dict that `save` wrote.

    Raises FileNotFoundError when there is none and Corrupt when it is damaged, is that of
    another run, or is no description at all.
    """
    path = Path(path)
    file = _beside(path, ".json")
    meta = read_json(file)
    if not isinstance(meta, dict) or not re.fullmatch("[0-9a-f]{64}", str(meta.get("sha256"))):
        raise Corrupt(f"{file} is damaged: it describes no artefact. {AGAIN}")
    digest = meta.pop("description_sha256", None)
    if digest is None:
        raise Corrupt(f"{file} is an older artefact: it has no sha256 of its own. {AGAIN}")
    if digest != sha256(json_bytes(meta)):
        raise Corrupt(f"{file} is damaged: its sha256 is not its description_sha256. {AGAIN}")
    if meta.get("name") != path.name:
        raise Corrupt(f"{file} describes another artefact, {meta.get('name')!r:.80}. {AGAIN}")
    return meta


def save(path, tensors, meta, keep=True):
    """Save tensors and their description as `path.safetensors` and `path.json`.

    `path` has no suffix; `tensors` maps names to tensors; `meta` is JSON-able and gets the keys
    `name`, the last part of `path`, `sha256`, of the tensor file, and `description_sha256`, of
    itself; `load` checks them. With `keep=False` only the description is written, with the
    sha256 that the tensors would have.

    Over an older pair, `path.json` switches both: the new numbers wait under a name with their
    sha256 in it until the new description is there, so a killed save leaves a whole pair.
    """
    from safetensors.torch import save as to_bytes

    path = Path(path)
    data = to_bytes(
        {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    )
    meta = {**meta, "name": path.name, "sha256": sha256(data)}
    meta.pop("weights", None)
    if not keep:
        meta["weights"] = "not kept"
    text = json_bytes({**meta, "description_sha256": sha256(json_bytes(meta))})
    files = [(_waiting(path, meta["sha256"]), data)] if keep else []
    with locked(path.parent) as alone:
        write_all([*files, (_beside(path, ".json"), text)])
        _settle(path, meta, alone)


def _beside(path, end):
    return path.with_name(path.name + end)


def _waiting(path, digest):
    """Where the numbers with a sha256 lie until the description that names them is there."""
    return _beside(path, f".{digest[:12]}.safetensors")


def _settle(path, meta, clean):
    """Give the numbers that a description names their final name; remove what killed saves left."""
    final = _beside(path, ".safetensors")
    with contextlib.suppress(OSError):  # if it cannot be done now, `load` finds them all the same
        if meta.get("weights") == "not kept":
            final.unlink(missing_ok=True)
        else:
            os.replace(_waiting(path, meta["sha256"]), final)
    for file in _leftovers(path) if clean else []:
        with contextlib.suppress(OSError):
            file.unlink()


def _leftovers(path):
    """Temporary files, and numbers that no description names, of killed saves of one artefact."""
    name = re.escape(path.name)
    hidden = re.compile(rf"\.{name}(\.[0-9a-f]{{12}})?\.(json|safetensors)-[0-9a-z_]{{8}}")
    staged = re.compile(rf"{name}\.[0-9a-f]{{12}}\.safetensors")
    with contextlib.suppress(OSError):
        for file in list(path.parent.iterdir()):
            own = file.with_suffix(".json")  # there if a run itself has such a name
            if hidden.fullmatch(file.name) or (staged.fullmatch(file.name) and not own.exists()):
                yield file


def load(path):
    """Load `(tensors, meta)` that `save` wrote.

    Raises FileNotFoundError when a file is missing, StoreError when the numbers were not kept,
    and Corrupt when the bytes have changed or are those of another run.
    """
    path = Path(path)
    final = _beside(path, ".safetensors")
    while True:
        meta = describe(path)
        if meta.get("weights") == "not kept":
            raise StoreError(_not_kept(path.name))
        data = _numbers(path, meta["sha256"])
        if data is not None:
            return _tensors(final, data), meta
        if describe(path) != meta:  # another process has just saved
            continue
        if not final.exists():
            raise FileNotFoundError(2, "No such file", str(final))
        raise Corrupt(
            f"{final} is damaged: its sha256 is not the one in {path.name}.json. Delete both files "
            "and train or download again."
        )


def _numbers(path, digest):
    """The bytes of the numbers with a sha256, or None."""
    final, waiting = _beside(path, ".safetensors"), _waiting(path, digest)
    for file in (final, waiting, final):  # the second may be renamed between two looks
        with contextlib.suppress(FileNotFoundError):
            if sha256(data := read_bytes(file)) == digest:
                return data
    return None


def _tensors(file, data):
    import safetensors
    from safetensors.torch import load as from_bytes

    try:
        return from_bytes(data)
    except (safetensors.SafetensorError, ValueError, LookupError, RuntimeError) as error:
        raise Corrupt(f"{file} holds no tensors ({error}). {AGAIN}") from None


def _not_kept(name):
    return (
        f"Of {name} the numbers are kept and the weights are not: "
        f'`runs.get("{name}", retrain=True)` trains it again.'
    )


# Published artefacts


def artefact(name, weights=True):
    """The path (no suffix) of the artefact `name`, downloaded from the release if need be.

    Under a profile other than full the runs of that profile come first (`own_dir`), then those
    of `runs_dir`. Else the files come from the release of the repository that this package was
    stamped with, are checked against `assets/registry.txt`, and stay in `runs_dir`. Without
    `weights` the description is enough. Raises StoreError with what was tried.
    """
    for folder in dict.fromkeys([own_dir(), runs_dir()]):
        if (folder / f"{name}.json").exists() and (not weights or _has_weights(folder / name)):
            return folder / name
    files = [f"{name}.json", *([f"{name}.safetensors"] if weights else [])]
    address, registry = release()
    if files[0] in registry and files[-1] not in registry:
        raise StoreError(_not_kept(name))
    if files[-1] not in registry:
        raise StoreError(
            f"The artefact {name} is not in {runs_dir()} and no release has it: make it with "
            f"`python -m gencore train {name}`."
        )
    return _download(address, registry, files, runs_dir()) / name


def _has_weights(path):
    if _beside(path, ".safetensors").exists():
        return True
    meta = describe(path)
    if meta.get("weights") == "not kept":
        raise StoreError(_not_kept(path.name))
    return _waiting(path, meta["sha256"]).exists()


def _download(address, registry, files, folder):
    import pooch

    fetcher = pooch.create(folder, address, registry=registry, retry_if_failed=1)
    pooch.get_logger().setLevel("ERROR")
    get = pooch.HTTPDownloader(timeout=TIMEOUT)
    try:
        for file in reversed(files):  # the description last, as in `save`
            fetcher.fetch(file, downloader=get if address.startswith("http") else None)
    except Exception as error:
        raise StoreError(
            f"Could not download {file} from {address} ({type(error).__name__}: {error}). Check "
            f"the network, or train it here with `python -m gencore train {Path(file).stem}`."
        ) from None
    return Path(folder)


def release():
    """`(address, registry)` of the published artefacts: a base URL and {file name: sha256}.

    The address is `$GENCORE_RELEASE`, or the one in `assets/release.json` that `make repo` writes.
    """
    registry = {}
    if (ASSETS / "registry.txt").exists():
        lines = (ASSETS / "registry.txt").read_text().splitlines()
        registry = dict(line.split() for line in lines if line.strip())
    address = os.environ.get("GENCORE_RELEASE") or read_json(ASSETS / "release.json")["address"]
    return address.rstrip("/") + "/", registry if "OWNER" not in address else {}


def write_registry():
    """Write `assets/registry.txt`, the sha256 of each file in `book/runs`: a checkout's duty."""
    files = []
    for described in sorted((CHECKOUT / "book" / "runs").glob("[!.]*.json")):
        path = described.with_suffix("")
        with locked(path.parent) as alone:
            _settle(path, describe(path), alone)
        files += [file for file in (described, _beside(path, ".safetensors")) if file.exists()]
    lines = [f"{file.name} {sha256(file)}\n" for file in files]
    write_bytes(ASSETS / "registry.txt", "".join(lines).encode())
