"""Every notebook runs from top to bottom in profile smoke: its checks hold, nothing raises.

nbval runs in a process of its own for each notebook, because it waits for the whole cell timeout
when a kernel has died; the process gets a time limit, and no notebook can hang the suite.
"""

import os
import subprocess
import sys

import nbformat
import pytest
from notebook_files import ROOT, chapters, notebooks

LIMIT = 300  # seconds for a notebook; CELL for one of its cells
CELL = 120


def run(path, home, cell=CELL, limit=LIMIT):
    """(exit code, output) of nbval on one notebook; 124 when the time is over."""
    profile = {"GENCORE_PROFILE": "smoke", "GENCORE_STRICT": "1", "TQDM_DISABLE": "1"}
    folders = {"GENCORE_HOME": str(home / "gencore"), "IPYTHONDIR": str(home / "ipython")}
    options = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={cell}", "-x", "-q"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(path)]
    with open(
        home / "log", "w+"
    ) as log:  # a file: a kernel that outlives its parent keeps a pipe open
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | profile | folders,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = 124
        log.seek(0)
        return code, log.read()


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_notebook(path, tmp_path):
    code, output = run(path, tmp_path)
    assert code == 0, output[-6000:]


def test_there_are_notebooks():
    assert notebooks() and [path.stem for path in notebooks()] == chapters()


@pytest.mark.parametrize(
    "source, found, cell",
    [("import gencore; gencore.setup()", None, CELL), ("assert 1 == 2", "AssertionError", CELL),
     ("import os; os._exit(1)", "imeout", 5)],
    ids=["healthy", "wrong", "dead kernel"],
)  # fmt: skip
def test_a_broken_notebook_is_found(tmp_path, source, found, cell):
    sources = [f"import sys; sys.path.insert(0, {str(ROOT)!r})", source, "print(1)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources])
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    code, output = run(path, tmp_path, cell=cell)
    assert (code != 0) == (found is not None), output
    assert found is None or found in output
