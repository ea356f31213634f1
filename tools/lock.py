"""Write requirements.lock from pyproject.toml with `uv`: python tools/lock.py

The lock holds what builds and tests the book, with hashes, for every platform and Python >= 3.11.
torch, torchvision and the GPU libraries they bring stay outside: the Makefile installs those two
in their own line, unpinned, so that each machine gets the build that fits it.
"""

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
HEADER = "# Written by tools/lock.py from pyproject.toml; torch and torchvision stay outside.\n"


def compile_lock():
    """The text of the lock: one block per package, `name==version ; marker` and its hashes."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--extra", "book", "--extra", "dev"]
    options = ["--universal", "--python-version", "3.11", "--generate-hashes", "--upgrade"]
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    # uv reads the registry from its own configuration; no address may end up in the file.
    text = subprocess.run(
        command + options + quiet, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    blocks = re.split(r"\n(?=[a-z0-9])", text.strip(), flags=re.IGNORECASE)
    return HEADER + "\n".join(block for block in blocks if not OUTSIDE.match(block)) + "\n"


if __name__ == "__main__":
    temporary = ROOT / "requirements.lock.new"
    temporary.write_text(compile_lock())
    os.replace(temporary, ROOT / "requirements.lock")
