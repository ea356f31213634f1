"""One address, stamped everywhere: first cells, cards, citation, downloads; and cards' times."""

import importlib.util
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
    "CITATION.cff",
    "README.md",
    "pyproject.toml",
    "gencore/assets/release.json",
]


def test_first_cell(chapter):
    assert code(chapter)[0]["source"] == stamp.first_cell(stamp.address())
    assert len(code(chapter)[0]["source"].splitlines()) <= 3


def test_card(chapter_path, chapter):
    card = chapter["cells"][0]["source"]
    assert "**You will be able to**" in card and "**Before you start**" in card
    assert block(card, "card:links") == stamp.card_links(stamp.address(), chapter_path.name)


def test_card_time_is_what_was_measured(chapter):
    record = chapter["metadata"]["gencore"]
    assert block(chapter["cells"][0]["source"], "card:time") == execute_notebooks.time_line(record)
    measured = execute_notebooks.training(record.get("runs", []))
    assert (record["train_runs"], record["train_cpu_s"]) == measured, (
        "make notebooks: runs were trained anew"
    )
    assert record["version"] == stamp.version()


def test_card_names_the_runs_that_the_chapter_loads(chapter):
    runs = pytest.importorskip("gencore.runs")
    patterns = chapter["metadata"]["gencore"].get("runs", [])
    text = "\n".join(cell["source"] for cell in code(chapter))
    for name in re.findall(r'runs\.(?:get|summary)\("([^"{}]+)"', text):
        assert name in runs.names(), name
        assert any(execute_notebooks.fnmatch.fnmatch(name, p) for p in patterns), (
            f"{name} is not in the card"
        )


def test_links_between_files_lead_somewhere():
    for path in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", read_text(path)):
            assert (ROOT / target).exists(), f"{path.name}: {target}"


def test_one_address():
    assert read_text(ROOT / "README.md").count(stamp.readme_table(stamp.address())) == 1
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
    assert changed == set(before) - {type(next(iter(before)))("pyproject.toml")}
    assert not [name for name, data in stamped.items() if b"github.com/OWNER" in data]
    assert stamp.address(copy) == FORK
    for path in notebooks(copy):
        notebook = read(path)
        assert f"{FORK}/releases/download/v{stamp.version()}/" in code(notebook)[0]["source"]
        assert stamp.colab(FORK, path.name) in notebook["cells"][0]["source"]
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
    commands = []

    class Shell:
        def run_line_magic(self, *command):
            commands.append(command)

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if missing else find(name))
    monkeypatch.setattr(sys, "path", sys.path[:])
    exec(stamp.first_cell(repo), {"get_ipython": Shell})
    return commands


def test_first_cell_installs_from_the_release(monkeypatch, capsys):
    wheel = f"gencore-{stamp.version()}-py3-none-any.whl"
    address = f"{FORK}/releases/download/v{stamp.version()}/{wheel}"
    assert run_cell(FORK, monkeypatch) == [("pip", f"install -q {address}")]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_first_cell_installs_nothing_where_gencore_is(monkeypatch):
    assert run_cell(FORK, monkeypatch, missing=False) == []


def test_first_cell_of_an_unpublished_copy_says_what_to_do(monkeypatch):
    with pytest.raises(ImportError, match="open the notebook inside a clone"):
        run_cell(stamp.PLACEHOLDER, monkeypatch)
