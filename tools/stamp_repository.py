"""Point every link of the book to one repository: `make repo REPO=https://github.com/you/your-fork`.

The address stands in _config.yml. This script writes it there and into what is derived from it: the
first cell of each notebook, the links of its card, the package's download address, CITATION.cff and
the table in README.md. Without an argument it brings all of them in line with _config.yml.
"""

import json
import re
import sys
import tomllib

from notebook_files import ROOT, block, chapters, notebooks, read, sha256, write

PLACEHOLDER = "https://github.com/OWNER/from-latents-to-images"
CELL = """\
import sys; from importlib.util import find_spec; sys.path.insert(0, "..")
{guard}
import gencore; gencore.setup()"""
INSTALL = """\
REPOSITORY = "{repo}"
if not find_spec("gencore"):
    %pip install -q {{REPOSITORY}}/releases/download/v{version}/{wheel}"""
REFUSE = """\
if not find_spec("gencore"):
    raise ImportError("gencore is missing: open this notebook in a clone of the book.")"""


def version(root=ROOT):
    """The version of the package, which names its release."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]


def address(root=ROOT):
    """The repository's address in _config.yml."""
    return re.search(r"^  url: (\S+)$", (root / "_config.yml").read_text(encoding="utf-8"), re.M)[1]


def first_cell(repo, root=ROOT):
    """The first code cell: it installs gencore only where it is missing and a release is known.

    It imports gencore before anything imports torch, whose threads the package settles.
    """
    if repo == PLACEHOLDER:
        return CELL.format(guard=REFUSE)
    v = version(root)
    wheel = f"gencore-{v}-py3-none-any.whl"
    return CELL.format(guard=INSTALL.format(repo=repo, version=v, wheel=wheel))


def colab(repo, name):
    """The address that opens a notebook of this repository in Colab."""
    path = repo.removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}"


def card_links(repo, name):
    """The line of links in a chapter's card."""
    if repo == PLACEHOLDER:
        return (
            "> **Run it yourself** with `make lab` in a clone of the repository. This copy has no "
            "published address yet, so there is no Colab link."
        )
    return (
        f"> **Run it yourself** [in Colab]({colab(repo, name)}) · "
        f"[download the notebook]({repo}/raw/main/notebooks/{name}) · [repository]({repo})"
    )


def stamp_notebook(path, repo, root=ROOT):
    """Stamp one notebook; its outputs stay, for the first cell prints the same from any address."""
    notebook = read(path)
    card = notebook["cells"][0]
    card["source"] = block(card["source"], "card:links", card_links(repo, path.name))
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    mark = first["metadata"].get("gencore", {})
    if mark.get("source_sha256") == sha256(first["source"]):
        mark["source_sha256"] = sha256(first_cell(repo, root))
    first["source"] = first_cell(repo, root)
    write(path, notebook)


def readme_table(repo, root=ROOT):
    """The table of chapters in README.md: executed notebooks, and Colab once there is a link."""
    lines = ["| chapter | open |", "| --- | --- |"]
    for name in chapters(root):
        file = f"{name}.ipynb"
        title = read(root / "notebooks" / file)["cells"][0]["source"].splitlines()[0]
        links = f"[text and outputs](notebooks/{file})"
        links += "" if repo == PLACEHOLDER else f" · [run in Colab]({colab(repo, file)})"
        lines.append(f"| {name[:2]} {title.removeprefix('# ')} | {links} |")
    return "\n".join(lines)


def replace(path, pattern, text):
    """Replace the one match of a pattern in a file."""
    old = path.read_text(encoding="utf-8")
    new, count = re.subn(pattern, lambda _: text, old, flags=re.M)
    if count != 1:
        raise ValueError(f"{path.name} has {count} lines like {pattern!r}; one is expected.")
    path.write_text(new, encoding="utf-8")


def stamp(repo, root=ROOT):
    """Write the address everywhere."""
    replace(root / "_config.yml", r"^  url: \S+$", f"  url: {repo}")
    replace(root / "CITATION.cff", r"^repository-code: \S+$", f"repository-code: {repo}")
    release = {"address": f"{repo}/releases/download/v{version(root)}/"}
    (root / "gencore/assets/release.json").write_text(json.dumps(release, indent=1) + "\n")
    for path in notebooks(root):
        try:
            stamp_notebook(path, repo, root)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
    readme = root / "README.md"
    text = block(readme.read_text(encoding="utf-8"), "chapters", readme_table(repo, root))
    readme.write_text(text, encoding="utf-8")


def main(arguments):
    repo = (arguments or [address()])[0].rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", repo):
        return f"{repo!r} is not like https://github.com/you/your-fork: Colab opens only GitHub."
    try:
        stamp(repo)
    except ValueError as error:
        return str(error)
    print(f"Every link now points to {repo}.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
