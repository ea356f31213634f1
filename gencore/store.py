"""Where files live, and how they get there and back whole.

Everything the book keeps is a pair of files: `name.safetensors` (numbers) and `name.json`
(what they mean, with the sha256 of the numbers). Writes go to a temporary file that is renamed
when it is complete, so that a killed run leaves the old file or the new one, never half of one.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
CHECKOUT = Path(__file__).parents[1]
TIMEOUT = 20  # seconds without an answer after which a server counts as not there


class StoreError(OSError):
    """A file could not be written, or could not be had."""


class Corrupt(ValueError):
    """A file is damaged: its bytes are not those that were written."""


def cache_dir():
    """The folder for downloads and checkpoints: `$GENCORE_HOME`, or the user's cache."""
    if home := os.environ.get("GENCORE_HOME"):
        return Path(home)
    import pooch

    return Path(pooch.os_cache("gencore"))


def runs_dir():
    """The folder of trained artefacts: `$GENCORE_RUNS`, the checkout's `book/runs`, or the cache."""
    if folder := os.environ.get("GENCORE_RUNS"):
        return Path(folder)
    local = CHECKOUT / "book" / "runs"
    return local if local.is_dir() else cache_dir() / "runs"


def sha256(data):
    """Hex digest of bytes, or of the file at a path."""
    if isinstance(data, (str, Path)):
        data = Path(data).read_bytes()
    return hashlib.sha256(data).hexdigest()


def write_bytes(path, data):
    """Write bytes to `path` atomically: temporary file, fsync, rename.

    Raises StoreError, with the old file intact, when the disk is full or cannot be written.
    """
    _write([(Path(path), data)])


def _write(files):
    """Write several files, (path, bytes) each; none is renamed before all are on the disk."""
    staged = []
    try:
        for path, data in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
            staged.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)  # mkstemp makes private files; artefacts are for everyone
        for temporary, path in staged:
            os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"Could not write {path}: {error.strerror or error}. Nothing was changed; make room or "
            "choose another folder with GENCORE_HOME or GENCORE_RUNS."
        ) from None
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):  # those that were renamed are gone
                os.unlink(temporary)


def write_json(path, value):
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_bytes(path, _json_bytes(value))


def _json_bytes(value):
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path):
    """Read a JSON file; a damaged one raises Corrupt."""
    try:
        return json.loads(Path(path).read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Corrupt(
            f"{path} is not valid JSON ({error}): delete it and train or download again."
        ) from None


def save(path, tensors, meta):
    """Save tensors and their description as `path.safetensors` and `path.json`.

    `path` has no suffix; `tensors` maps names to tensors; `meta` is JSON-able and gets the keys
    `sha256`, of the tensor file, and `description_sha256`, of itself; `load` checks both.
    """
    from safetensors.torch import save as to_bytes

    data = to_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    path = Path(path)
    meta = {**meta, "sha256": sha256(data)}
    text = _json_bytes({**meta, "description_sha256": sha256(_json_bytes(meta))})
    # The description goes last: a run without it counts as not finished.
    parts = {".safetensors": data, ".json": text}
    _write([(path.with_name(path.name + end), part) for end, part in parts.items()])


def load(path):
    """Load `(tensors, meta)` that `save` wrote.

    Raises FileNotFoundError when a file is missing and Corrupt when the bytes have changed.
    """
    from safetensors.torch import load as from_bytes

    path = Path(path)
    meta = read_json(path.with_name(path.name + ".json"))
    file = path.with_name(path.name + ".safetensors")
    data = file.read_bytes()
    meta = meta if isinstance(meta, dict) else {}
    own = meta.pop("description_sha256", None)  # older artefacts have none
    if own not in (None, sha256(_json_bytes(meta))):
        file = path.with_name(path.name + ".json")
    elif sha256(data) == meta.get("sha256"):
        return from_bytes(data), meta
    raise Corrupt(
        f"{file} is damaged: its sha256 is not the one in {path.name}.json. Delete both files and "
        f"train or download again."
    )


def artefact(name):
    """The path (no suffix) of the artefact `name`, downloaded from the release if need be.

    In a checkout it is `book/runs/<name>`. Elsewhere the two files come from the release of the
    repository that this package was stamped with, are checked against `assets/registry.txt`, and
    stay in the cache. Raises StoreError with what was tried.
    """
    path = runs_dir() / name
    files = [f"{name}.json", f"{name}.safetensors"]
    if all(path.with_name(file).exists() for file in files):
        return path
    address, registry = release()
    if not all(file in registry for file in files):
        raise StoreError(
            f"The artefact {name} is not in {path.parent} and no release has it: make it with "
            f"`python -m gencore train {name}`."
        )
    return _download(address, registry, files, path.parent) / name


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
            f"Could not download {file} from {address} ({type(error).__name__}: {error}). Check the "
            f"network, or train it here with `python -m gencore train {Path(file).stem}`."
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
    files = sorted(p for p in (CHECKOUT / "book" / "runs").glob("*.*") if p.name[0] != ".")
    lines = [f"{file.name} {sha256(file)}\n" for file in files]
    write_bytes(ASSETS / "registry.txt", "".join(lines).encode())
