"""The package stays small, layered, quick to import, and free of pickle."""

import ast
import subprocess
import sys
import time

import pytest
from notebook_files import ROOT, notebooks, read

# A module imports only from those before it.
ORDER = """store data nets vae gan aae avb vaegan pyramid glo train metrics evaluate runs style
           show embed explore controls check bench __init__ __main__""".split()
MODULES = sorted((ROOT / "gencore").glob("*.py"))
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(node_tree):
    """(module, names) of every import, also of those inside functions."""
    for node in ast.walk(node_tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield ("." * node.level + (node.module or ""), [alias.name for alias in node.names])


def siblings(node_tree):
    """The modules of gencore that a module imports."""
    for module, names in imported(node_tree):
        assert not module.startswith("."), "imports name the package: from gencore import ..."
        if module == "gencore":
            yield from (name for name in names if (ROOT / "gencore" / f"{name}.py").exists())
        elif module.startswith("gencore."):
            yield module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_import_order(path):
    assert path.stem in ORDER, f"{path.stem} has no place in the order of modules"
    below = ORDER[ORDER.index(path.stem) :]
    assert not [name for name in siblings(tree(path)) if name in below]


def test_an_import_from_below_is_found():
    found = set(
        siblings(ast.parse("from gencore import runs, nope\ndef f():\n    import gencore.show"))
    )
    assert found == {"runs", "show"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_size(path):
    text = path.read_text(encoding="utf-8").splitlines()
    assert len(text) <= 300
    assert max(map(len, text)) <= 110
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 < 40, f"{node.name} is too long"
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            count = len([a for a in arguments if a.arg not in ("self", "cls")])
            assert count <= 8, f"{node.name} has {count} parameters"


def python(source):
    return subprocess.run(
        [sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


def test_import_is_lazy():
    heavy = {"torchvision", "matplotlib", "sklearn", "scipy", "ipywidgets", "pooch"}
    assert not heavy & set(python("import sys, gencore; print(*sys.modules)"))


def test_torchvision_waits_for_a_download():
    names = ", ".join(f"gencore.{p.stem}" for p in MODULES if p.stem[0] != "_")
    assert "torchvision" not in python(f"import sys, {names}; print(*sys.modules)")


def test_import_is_quick():
    def seconds():
        began = time.perf_counter()
        python("import gencore")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 2.5


def unsafe(node_tree):
    """Imports and calls that could unpickle."""
    for module, names in imported(node_tree):
        if {module.split(".")[0], *names} & PICKLES:
            yield module
    for node in ast.walk(node_tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            if name in ("torch.load", "torch.save") or any(
                ast.unparse(v) != "False" for v in allowed
            ):
                yield name


def test_nothing_is_pickled():
    files = [p for folder in ("gencore", "tools", "book/ext") for p in (ROOT / folder).glob("*.py")]
    assert not [(p.name, hit) for p in files for hit in unsafe(tree(p))]
    for path in notebooks():
        cells = [c["source"] for c in read(path)["cells"] if c["cell_type"] == "code"]
        plain = [
            line
            for cell in cells
            for line in cell.splitlines()
            if line.lstrip()[:1] not in ("%", "!")
        ]
        assert not list(unsafe(ast.parse("\n".join(plain))))


@pytest.mark.parametrize(
    "source",
    ["import pickle", "def f():\n    from joblib import load", "torch.load(f)", "torch.save(x, f)",
     "np.load(f, allow_pickle=True)", "np.load(f, allow_pickle=flag)"],
)  # fmt: skip
def test_a_pickle_is_found(source):
    assert list(unsafe(ast.parse(source)))
