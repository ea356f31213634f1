"""Notebooks as files: read, write, the hash of a cell, the marked blocks of a chapter's card."""

import hashlib
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def notebooks(root=ROOT):
    """All chapters, in order."""
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
