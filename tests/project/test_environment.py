"""Versions stand in pyproject.toml; the lock, environment.yml and the workflows agree with it."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires

import pytest
import yaml
from notebook_files import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
OUTSIDE = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)")
IMPORTS = {
    "scikit-learn": "sklearn",
    "pillow": "PIL",
}  # distributions whose module has another name
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_environment_yml():
    lines = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert lines[0] == f"python{PROJECT['requires-python']}"
    assert lines[2]["pip"] == PROJECT["dependencies"] + EXTRAS["book"] + EXTRAS["lab"]


def test_lower_bounds_only():
    for line in PROJECT["dependencies"]:
        assert {s.operator for s in Requirement(line).specifier} == {">="}, line


def test_each_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in PROJECT["dependencies"] + sum(EXTRAS.values(), []):
        assert re.search(rf'"{re.escape(line)}", +# \S+', text), line


def test_dependencies_are_those_that_are_imported():
    found = set()
    for path in (ROOT / "gencore").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    third = found - set(sys.stdlib_module_names) - {"gencore"}
    # Offered where they are there: show.numbers asks for IPython only inside a notebook.
    third -= {"IPython", "myst_nb"}
    names = {Requirement(line).name for line in PROJECT["dependencies"]}
    assert third == {IMPORTS.get(name, name) for name in names}


def lock_problems(text):
    """What is wrong with a lock: anything but `name==version` with sha256 hashes."""
    blocks = [b for b in re.split(r"\n(?=\S)", text.strip()) if not b.startswith("#")]
    for block in blocks:
        head, *hashes = block.split(" \\\n")
        if not re.fullmatch(r"[a-z0-9-]+==\S+( ; .+)?", head):
            yield f"not pinned: {head}"
        elif OUTSIDE.fullmatch(head.split("==")[0]):
            yield f"must stay outside: {head}"
        if not hashes or not all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}", h) for h in hashes):
            yield f"without hashes: {head}"


LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def test_lock_is_well_formed():
    assert not list(lock_problems(LOCK))


@pytest.mark.parametrize(
    "text",
    ["numpy>=1.0 \\\n    --hash=sha256:" + "0" * 64, "numpy==2.0",
     "numpy==2.0 \\\n    --hash=md5:00",
     "torch==2.0 \\\n    --hash=sha256:" + "0" * 64, "--index-url https://example.org/simple"],
)  # fmt: skip
def test_a_bad_lock_is_found(text):
    assert list(lock_problems(text))


def test_lock_holds_what_pyproject_asks_for():
    pinned = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^\s;]+)", LOCK, re.M):
        pinned.setdefault(name, []).append(version)
    for line in PROJECT["dependencies"] + EXTRAS["book"] + EXTRAS["dev"]:
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        if not OUTSIDE.fullmatch(name):
            assert pinned.get(name), f"{name} is not in the lock: python tools/lock.py"
            assert all(requirement.specifier.contains(v, prereleases=True) for v in pinned[name]), (
                line
            )


def test_torch_brings_nothing_but_gpu_libraries_past_the_lock():
    """What torch and torchvision need is installed from the lock, where its hash is checked."""
    pinned = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.M))
    for line in requires("torch") + requires("torchvision"):
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            name = canonicalize_name(needed.name)
            assert name in pinned or OUTSIDE.fullmatch(name), f"{line} is in no lock"


def test_the_lock_is_installed_first_and_torch_replaces_none_of_it():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    steps = [line for line in makefile.splitlines() if "pip install" in line and "$(PY)" in line]
    assert "--require-hashes -r requirements.lock" in steps[0]
    assert steps[1].endswith("--constraint $(VENV)/constraints.txt torch torchvision")


def stamp(folder):
    """The name of the file that says what is installed in a checkout's environment."""
    command = ["make", "-n", "--no-print-directory", "lab"]
    said = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return re.search(r"\S+/\.installed-\d+", said)[0]


def test_the_environment_follows_from_contents_not_from_times(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    first = stamp(tmp_path)
    os.utime(tmp_path / "pyproject.toml", (4e9, 4e9))
    assert stamp(tmp_path) == first
    (tmp_path / "requirements.lock").write_text(LOCK + "# changed\n")
    assert stamp(tmp_path) != first
    (tmp_path / "requirements.lock").write_text(LOCK)
    (tmp_path / ".venv").mkdir()
    (tmp_path / first).touch()
    command = ["make", "-n", "--no-print-directory", "lab"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "torchvision" not in said


def test_ruff_finds_nothing():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    found = subprocess.run([*command, "."], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def workflow_problems(text):
    """Actions that are not pinned, permissions that are not named, events that run foreign code."""
    workflow = yaml.safe_load(text)
    if workflow.get("permissions") != {}:
        yield "permissions: {} is missing at the top"
    if "pull_request_target" in text:
        yield "pull_request_target"
    for job, body in workflow["jobs"].items():
        called = "uses" in body  # another workflow of ours, whose jobs have their own limits
        if not (called or "timeout-minutes" in body) or "permissions" not in body:
            yield f"{job} needs timeout-minutes and permissions"
    for line in re.findall(r"uses: *(.+)", text):
        if not line.startswith("./.github/workflows/") and not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line):
            yield f"not pinned by SHA with its version: {line}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_workflows(path):
    assert not list(workflow_problems(path.read_text(encoding="utf-8")))


def test_workflows_are_there():
    assert {path.stem for path in WORKFLOWS} >= {"test", "publish", "weekly"}


def test_a_bad_workflow_is_found():
    text = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert not list(workflow_problems(text))
    for old, new in (
        ("@08c6903cd8c0fde910a37f88322edcfb5dd907a8 # v5.0.0", "@v5"),
        ("permissions: {}", "permissions: write-all"),
        ("pull_request:", "pull_request_target:"),
        ("timeout-minutes: 45", "name: no limit"),
    ):
        assert old in text
        assert list(workflow_problems(text.replace(old, new)))


def test_nothing_is_published_before_the_tests_of_its_commit_have_passed():
    jobs = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text("utf-8"))["jobs"]
    assert jobs["deploy"]["needs"] == "build" and jobs["build"]["needs"] == "test"
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"


def test_a_bot_looks_for_new_versions():
    text = (ROOT / ".github/dependabot.yml").read_text(encoding="utf-8")
    kinds = {entry["package-ecosystem"] for entry in yaml.safe_load(text)["updates"]}
    assert kinds == {"github-actions", "pip"}


def test_continuous_integration_calls_make_test():
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = (ROOT / "gencore/__init__.py").read_text(encoding="utf-8")
    assert citation["version"] == PROJECT["version"]
    assert f'__version__ = "{PROJECT["version"]}"' in package


def test_wheel_holds_the_package_and_nothing_else(tmp_path):
    shutil.copytree(
        ROOT / "gencore", tmp_path / "gencore", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "dist",
        ".",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    names = zipfile.ZipFile(
        tmp_path / f"dist/gencore-{PROJECT['version']}-py3-none-any.whl"
    ).namelist()
    own = [name for name in names if ".dist-info/" not in name]
    assert set(own) == {
        str(p.relative_to(ROOT))
        for p in (ROOT / "gencore").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert "gencore/assets/fashion-mini.npz" in own
