"""Write requirements.lock from pyproject.toml with `uv`: python tools/lock.py [--upgrade]

The lock holds what builds and tests the book, with hashes, for every platform and Python >= 3.11.
Pinned versions stay as they are; `--upgrade` takes the newest of all. torch, torchvision and the
GPU libraries that they bring stay outside: the Makefile installs those two in a line of their own,
so that each machine gets the build that fits it; what else they need is in the lock.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
HEADER = "# Written by tools/lock.py from pyproject.toml; torch and torchvision stay outside.\n"


def compile_lock(lock, *options):
    """Bring a lock up to date: one block per package, `name==version ; marker` and its hashes."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--extra", "book", "--extra", "dev"]
    universal = ["--universal", "--python-version", "3.11", "--generate-hashes"]
    # uv reads the registry from its own configuration; no address may end up in the file.
    quiet = ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet", "-o", str(lock)]
    subprocess.run([*command, *universal, *quiet, *options], cwd=ROOT, check=True)
    blocks = re.split(r"\n(?=[a-z0-9])", lock.read_text().strip(), flags=re.IGNORECASE)
    lock.write_text(HEADER + "\n".join(b for b in blocks if not OUTSIDE.match(b)) + "\n")


if __name__ == "__main__":
    temporary = ROOT / "requirements.lock.new"
    shutil.copy(ROOT / "requirements.lock", temporary)  # uv keeps the versions that it finds there
    compile_lock(temporary, *sys.argv[1:])
    os.replace(temporary, ROOT / "requirements.lock")
