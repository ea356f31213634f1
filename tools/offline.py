"""Pack the built book into one file for a machine without a network: `make offline`.

    python tools/offline.py _build/html dist

writes dist/from-latents-to-images-VERSION-html.zip and its sha256 beside it. The same book gives
the same bytes: names are sorted, times and rights are fixed. Unpack it and open index.html.
"""

import hashlib
import os
import sys
import zipfile
from pathlib import Path

from stamp_repository import version

NAME = "from-latents-to-images"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can tell


def files(book):
    """The files of a built book, by name; hidden ones are Sphinx's own notes."""
    names = [path.relative_to(book) for path in book.rglob("*") if path.is_file()]
    return sorted(name.as_posix() for name in names if not name.name.startswith("."))


def pack(book, folder):
    """Write the archive and its sha256 into a folder; returns the archive's path."""
    if not (book / "index.html").exists():
        raise FileNotFoundError(f"{book} has no index.html: run `make book` first.")
    top = f"{NAME}-{version()}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{top}-html.zip"
    temporary = path.with_suffix(".zip.new")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in files(book):
            entry = zipfile.ZipInfo(f"{top}/{name}", EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            entry.create_system = 3  # the same bytes on every system
            archive.writestr(entry, (book / name).read_bytes(), compresslevel=9)
    os.replace(temporary, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return path


def main(arguments):
    if len(arguments) != 2:
        return "usage: python tools/offline.py BOOK FOLDER"
    try:
        path = pack(*map(Path, arguments))
    except FileNotFoundError as error:
        return str(error)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"sha256 {Path(f'{path}.sha256').read_text().split()[0]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
