"""Files that are written whole or not at all, and never believed when they are damaged.

Writes go to a temporary file that is renamed when it is complete: a killed run leaves the old
file or the new one. Whatever else can go wrong is one sentence, StoreError or Corrupt.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
import time
from pathlib import Path

PATIENCE = 60  # seconds to wait for another process that writes into the same folder


class StoreError(OSError):
    """A file could not be read or written, or could not be had."""


class Corrupt(ValueError):
    """A file is damaged: its bytes are not those that were written."""


def sha256(data):
    """Hex digest of bytes, or of the file at a path."""
    if isinstance(data, (str, Path)):
        data = Path(data).read_bytes()
    return hashlib.sha256(data).hexdigest()


def write_bytes(path, data):
    """Write bytes to `path` atomically: temporary file, fsync, rename.

    A link is followed, permissions are those that opening the file would give, and what is no
    regular file (a device, a pipe) is written to as it stands. Raises StoreError, with the old
    file intact, when the disk is full or cannot be written.
    """
    write_all([(Path(path), data)])


def write_all(files):
    """Write several files, (path, bytes) each; none is renamed before all are on the disk."""
    staged = []
    try:
        for path, data in files:
            target = _target(path)
            if target is None:
                with open(path, "wb") as file:
                    file.write(data)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
            staged.append((temporary, target))
            _fill(temporary, data, target)
        for temporary, path in staged:
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"Could not write {path}: {error.strerror or error}. Nothing was changed; make room or "
            "choose another folder with GENCORE_HOME or GENCORE_RUNS."
        ) from None
    finally:
        for temporary, _ in staged:
            with contextlib.suppress(OSError):  # those that were renamed are gone
                os.unlink(temporary)


def _target(path):
    """The regular file that `path` names, through links; None for a device or a pipe."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(None, "it is a folder")
    return Path(os.path.realpath(path)) if stat.S_ISREG(mode) else None


def _fill(temporary, data, target):
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))


def _sync_folder(folder):
    """Make renames in a folder last through a power cut, where the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def locked(folder):
    """Keep other processes from saving into a folder meanwhile; yields whether that can be done."""
    try:
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):  # Windows; or a folder that `write_all` will complain of
        yield False
        return
    try:
        yield _lock(fcntl, handle, folder)
    finally:
        os.close(handle)


def _lock(fcntl, handle, folder):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                raise StoreError(
                    f"Could not write into {folder}: another process has been writing there for "
                    f"{PATIENCE} seconds. Nothing was changed; wait for it, or end it."
                ) from None
            time.sleep(0.01)
        except OSError:  # a network disk without locks
            return False


def write_json(path, value):
    """Write `value` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_bytes(path, json_bytes(value))


def json_bytes(value):
    """`value` as indented JSON: the bytes of a file. Raises ValueError for NaN and infinities."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def read_json(path):
    """Read a JSON file; one that is damaged, or holds what `write_json` refuses, raises Corrupt."""
    content = read_bytes(path)
    try:
        value = json.loads(content)
        json_bytes(value)  # finds NaN, infinities and half characters, which JSON cannot hold
        return value
    except (ValueError, RecursionError) as error:
        raise Corrupt(
            f"{path} is not valid JSON ({error}): delete it and train or download again."
        ) from None


def read_bytes(path):
    """The bytes of a regular file."""
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # to open a pipe would wait for ever
            raise Corrupt(f"{path} is damaged: it is no file. Delete it and try again.")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"Could not read {path}: {error.strerror or error}.") from None
