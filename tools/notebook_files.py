"""Notebooks as files: read, write, the hash of a cell, the marks in its text, the list of chapters.

A number in the prose stands between two comments that no front end shows, as in
`<!--n:elbo-->−104.7<!--/n-->`. `show.numbers(elbo=...)` records the value; `fill` writes it there.
"""

import hashlib
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NUMBER = re.compile(r"<!--n:([\w-]+)-->(.*?)<!--/n-->", re.DOTALL)


def chapters(root=ROOT):
    """The names of the chapters, in order: _toc.yml is the one place that lists them."""
    toc = (root / "_toc.yml").read_text(encoding="utf-8")
    return re.findall(r"^ *- file: notebooks/(\S+)$", toc, re.M)


def notebooks(root=ROOT):
    """The files of all chapters, in order."""
    return sorted((root / "notebooks").glob("*.ipynb"))


def read(path):
    """The notebook as plain dicts and lists; sources are joined to one string."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def write(path, notebook):
    """Write as nbformat does, atomically: the old notebook is there or the new one."""
    cells = [cell | {"source": cell["source"].splitlines(True)} for cell in notebook["cells"]]
    text = json.dumps(notebook | {"cells": cells}, indent=1, sort_keys=True, ensure_ascii=False)
    temporary = path.with_suffix(".ipynb.new")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def sha256(source):
    """The hash by which an output that is older than its code is found."""
    return hashlib.sha256(source.encode()).hexdigest()


def block(text, name, content=None):
    """The lines between `<!-- name -->` and `<!-- /name -->`, or `text` with new ones put there."""
    pattern = re.compile(rf"(<!-- {name} -->\n)(.*?)(\n(?:> )?<!-- /{name} -->)", re.DOTALL)
    found = pattern.search(text)
    if not found:
        raise ValueError(f"the marks <!-- {name} --> ... <!-- /{name} --> are missing")
    if content is None:
        return found[2]
    return text[: found.start(2)] + content + text[found.end(2) :]


def recorded(notebook):
    """{name: value} of what `show.numbers` recorded in the outputs; the last one counts."""
    values = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            values |= output.get("metadata", {}).get("gencore", {}).get("numbers", {})
    return values


def fill(text, values):
    """The text with each marked number as recorded; a mark without a record stays as it is."""
    write = lambda found: f"<!--n:{found[1]}-->{values.get(found[1], found[2])}<!--/n-->"  # noqa: E731
    return NUMBER.sub(write, text)
