"""One address, stamped everywhere: first cells, cards, citation, downloads; and cards' times."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys

import execute_notebooks
import pytest
import stamp_repository as stamp
from lint import code
from notebook_files import ROOT, block, notebooks, read

FORK = "https://github.com/me/my-fork"
STAMPED = [
    "_config.yml",
    "_toc.yml",
    "CITATION.cff",
    "README.md",
    "pyproject.toml",
    "gencore/assets/release.json",
]


def test_card_and_first_cell(chapter_path, chapter):
    found = list(execute_notebooks.lacking(chapter))
    assert not found, "\n".join(found)
    links = block(chapter["cells"][0]["source"], "card:links")
    assert links == stamp.card_links(stamp.address(), chapter_path.name), (
        "run tools/stamp_repository.py"
    )


@pytest.mark.parametrize(
    "repo", [stamp.PLACEHOLDER, FORK, "https://github.com/someone-else/a-course"]
)
def test_the_first_cell_fits_on_the_screen(repo):
    lines = stamp.first_cell(repo).splitlines()
    assert len(lines) <= 5 and max(map(len, lines)) <= 88


def test_card_time_is_what_was_measured(chapter):
    record = chapter["metadata"]["gencore"]
    assert "wall_s" in record, "never executed: run tools/execute_notebooks.py"
    assert block(chapter["cells"][0]["source"], "card:time") == execute_notebooks.time_line(record)
    measured = execute_notebooks.training(record.get("runs", []))
    assert (record["train_runs"], record["train_cpu_s"]) == measured, (
        "make notebooks: runs were trained anew"
    )
    assert record["version"] == stamp.version(), "run make notebooks: another version of gencore"


def test_card_names_the_runs_that_the_chapter_loads(chapter):
    catalogue = pytest.importorskip("gencore.catalogue")
    patterns = chapter["metadata"]["gencore"].get("runs", [])
    text = "\n".join(cell["source"] for cell in code(chapter))
    for name in re.findall(r'runs\.(?:get|summary|metrics)\("([^"{}]+)"', text):
        assert name in catalogue.runs(), name
        assert any(execute_notebooks.fnmatch.fnmatch(name, p) for p in patterns), (
            f'the notebook\'s metadata do not name {name}: add it to "gencore": {{"runs": [...]}}'
        )


def test_a_run_of_a_smaller_profile_is_noticed(tmp_path):
    (tmp_path / "book/runs").mkdir(parents=True)
    for name, profile in (("a-1", "full"), ("a-2", "quick"), ("b-1", "smoke")):
        text = json.dumps({"name": name, "profile": profile, "cpu_s": 1.4})
        (tmp_path / f"book/runs/{name}.json").write_text(text)
    assert execute_notebooks.smaller(["a-*"], tmp_path) == ["a-2"]
    assert execute_notebooks.training(["a-*", "b-1"], tmp_path) == (3, 4)


def test_links_between_files_lead_somewhere():
    for path in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", read_text(path)):
            assert (ROOT / target).exists(), f"{path.name}: {target}"


def test_one_address():
    assert read_text(ROOT / "README.md").count(stamp.readme_table(stamp.address())) == 1, (
        "run tools/stamp_repository.py"
    )
    assert json.loads(read_text(ROOT / "gencore/assets/release.json"))["address"] == (
        f"{stamp.address()}/releases/download/v{stamp.version()}/"
    ), "run tools/stamp_repository.py: a release's networks belong to its version"
    folders = [
        ROOT,
        *(ROOT / name for name in ("book", "book/ext", "gencore", "gencore/assets", "tools")),
    ]
    kinds = {".md", ".yml", ".cff", ".toml", ".json", ".py", ".bib"}
    files = [path for folder in folders for path in folder.iterdir() if path.suffix in kinds]
    owners = {path.name for path in files if "github.com/OWNER" in read_text(path)}
    assert owners <= {
        "_config.yml",
        "CITATION.cff",
        "release.json",
        "stamp_repository.py",
        "lean.py",
    }


def read_text(path):
    return path.read_text(encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """The files that carry the address, in a folder of their own."""
    for name in STAMPED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    for path in notebooks():
        shutil.copy(path, tmp_path / "notebooks")
    return tmp_path


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_stamping_there_and_back(copy):
    before = contents(copy)
    stamp.stamp(FORK, copy)
    stamped = contents(copy)
    changed = {name for name in before if before[name] != stamped[name]}
    assert {path.name for path in set(before) - changed} == {"pyproject.toml", "_toc.yml"}
    assert not [name for name, data in stamped.items() if b"github.com/OWNER" in data]
    assert stamp.address(copy) == FORK
    for path in notebooks(copy):
        notebook = read(path)
        assert f'"{FORK}"' in code(notebook)[0]["source"]
        assert stamp.colab(FORK, path.name) in notebook["cells"][0]["source"]
    release = json.loads(read_text(copy / "gencore/assets/release.json"))["address"]
    assert release == f"{FORK}/releases/download/v{stamp.version()}/"
    stamp.stamp(stamp.PLACEHOLDER, copy)
    assert contents(copy) == before or stamp.address() != stamp.PLACEHOLDER


def test_stamping_keeps_outputs_fresh(copy):
    import lint

    stamp.stamp(FORK, copy)
    assert notebooks(copy)
    for path in notebooks(copy):
        assert lint.stale(read(path)) == lint.stale(read(ROOT / "notebooks" / path.name))


@pytest.mark.parametrize(
    "repo",
    [
        "me/fork",
        "http://github.com/me/fork",
        "https://example.org/me/fork",
        "https://github.com/me",
    ],
)
def test_a_bad_address_changes_nothing(repo):
    before = read_text(ROOT / "_config.yml")
    script = ROOT / "tools/stamp_repository.py"
    result = subprocess.run([sys.executable, script, repo], capture_output=True, text=True)
    assert result.returncode == 1 and repo in result.stderr and "Traceback" not in result.stderr
    assert read_text(ROOT / "_config.yml") == before


def run_cell(repo, monkeypatch, missing=True):
    """Run the first cell where gencore is missing; returns the commands that it gave to IPython."""
    transformer = pytest.importorskip("IPython.core.inputtransformer2").TransformerManager()
    commands = []

    class Shell:
        def run_line_magic(self, name, line):
            commands.append((name, line.format(REPOSITORY=repo)))  # as IPython does

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if missing else find(name))
    monkeypatch.setattr(sys, "path", sys.path[:])
    exec(transformer.transform_cell(stamp.first_cell(repo)), {"get_ipython": Shell})
    return commands


def test_first_cell_installs_from_the_release(monkeypatch, capsys):
    wheel = f"gencore-{stamp.version()}-py3-none-any.whl"
    address = f"{FORK}/releases/download/v{stamp.version()}/{wheel}"
    assert run_cell(FORK, monkeypatch) == [("pip", f"install -q {address}")]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_ipython_puts_the_address_into_the_command():
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell.instance()
    shell.user_ns["REPOSITORY"] = FORK
    line = next(line for line in stamp.first_cell(FORK).splitlines() if "%pip" in line)
    said = shell.var_expand(line.partition("%pip ")[2])
    shell.clear_instance()
    assert said.startswith(f"install -q {FORK}/releases/download/v{stamp.version()}/gencore-")


def test_first_cell_installs_nothing_where_gencore_is(monkeypatch):
    assert run_cell(FORK, monkeypatch, missing=False) == []


def test_first_cell_of_an_unpublished_copy_says_what_to_do(monkeypatch):
    with pytest.raises(ImportError, match="open this notebook in a clone"):
        run_cell(stamp.PLACEHOLDER, monkeypatch)


def test_gencore_is_imported_before_torch(chapter):
    """The package settles the number of threads when it is imported, which torch reads once."""
    text = "\n".join(cell["source"] for cell in code(chapter))
    first = re.search(r"^(?:import|from) (?:torch|gencore)", text, re.M)
    assert first and first[0] == "import gencore"
