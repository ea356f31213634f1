"""Execute the chapters and keep their outputs: `make notebooks`, or this script with names.

Each code cell keeps the hash of the source it was executed from, so that a test finds an output
that is older than its code. The card's time and the numbers of the prose are written from what was
measured. What a chapter lacks is said before anything is executed; a notebook that raises, writes
to stderr, or quotes a number that nothing recorded is left as it was. `--numbers` only writes the
recorded numbers into the text again, after an edit of the prose.
"""

import argparse
import fnmatch
import json
import os
import sys
import time
import tomllib

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from notebook_files import NUMBER, ROOT, block, fill, notebooks, recorded, sha256
from stamp_repository import address, first_cell

SKELETON = "tools/new_chapter.py writes a first cell to copy from"


def duration(seconds):
    """12 s, 3 min 5 s or 2 h 10 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def published(patterns, root=ROOT):
    """The records of the published runs that match the patterns, from their artefacts."""
    files = sorted((root / "book/runs").glob("*.json"))
    wanted = [f for f in files if any(fnmatch.fnmatch(f.stem, p) for p in patterns)]
    return [json.loads(path.read_text(encoding="utf-8")) for path in wanted]


def training(patterns, root=ROOT):
    """(number, CPU seconds) of the published runs that match the patterns."""
    records = published(patterns, root)
    return len(records), round(sum(record["cpu_s"] for record in records))


def smaller(patterns, root=ROOT):
    """The published runs among them that were not trained under the full profile."""
    return [r["name"] for r in published(patterns, root) if r.get("profile") != "full"]


def time_line(record):
    """The card's line about time, from the notebook's metadata."""
    wall, cores = duration(record["wall_s"]), record["cores"]
    line = f"> **Measured time** {wall} for “Run all” on {cores} CPU cores"
    if not record.get("train_runs"):
        return line + "."
    runs = (
        "its published run"
        if record["train_runs"] == 1
        else f"its {record['train_runs']} published runs"
    )
    training_time = duration(record["train_cpu_s"])
    return (
        f"{line}, with trained networks loaded; training {runs} took {training_time} of CPU time."
    )


def lacking(notebook, profile="full", root=ROOT):
    """What the card or the metadata of a chapter lacks, each with the remedy."""
    cells, record = notebook["cells"], notebook["metadata"].get("gencore", {})
    card = cells[0]["source"] if cells and cells[0]["cell_type"] == "markdown" else ""
    first = next((cell["source"] for cell in cells if cell["cell_type"] == "code"), None)
    if not card.startswith("# "):
        yield f"the first cell is not a text that begins with the title, '# Title'; {SKELETON}"
    for words in ("**You will be able to**", "**Before you start**"):
        if words not in card:
            yield f"the first cell does not say {words}; {SKELETON}"
    for mark in ("card:time", "card:links"):
        try:
            block(card, mark)
        except ValueError as error:
            yield f"{error} from the first cell, each on a line of its own; {SKELETON}"
    if first != first_cell(address(root), root):
        yield "the first code cell is not the one that gets gencore; run tools/stamp_repository.py"
    if not isinstance(record.get("runs"), list):
        yield ('the metadata have no list of the runs that it loads, as in "gencore": {"runs": '
               '["vae-mnist-d*"]}; an empty list if there are none')  # fmt: skip
    for pattern in record.get("runs") or []:
        if profile == "full" and not published([pattern], root):
            yield (f"no run in book/runs is named like {pattern!r}; train it, mend the metadata, "
                   f"or try the chapter with --profile quick")  # fmt: skip
    for cell in cells:
        if "taught" in cell["metadata"].get("tags", []):
            module = cell["metadata"].get("gencore", {}).get("module")
            if not module or not (root / f"gencore/{module}.py").exists():
                yield (f"the taught cell {cell['source'].strip()[:40]!r} does not name its module,"
                       ' as in its metadata "gencore": {"module": "vae"}')  # fmt: skip


def execute(notebook, profile):
    """Execute in place, on the published runs, and return the wall time in seconds."""
    os.environ |= {"GENCORE_PROFILE": profile, "TQDM_DISABLE": "1"}
    os.environ.pop("GENCORE_RUNS", None)
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=3600, resources=where)
    began = time.perf_counter()
    client.execute()
    return time.perf_counter() - began


def complaints(notebook):
    """What stderr has: a published page must not show it."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")


def quote(notebook):
    """Write the recorded numbers into the prose; returns the names that nothing recorded."""
    values, unknown = recorded(notebook), []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            unknown += [name for name, _ in NUMBER.findall(cell["source"]) if name not in values]
            cell["source"] = fill(cell["source"], values)
    return sorted(set(unknown))


def tidy(notebook, profile, wall):
    """Keep what a reader needs: hashes and times in, timestamps and widget state out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    record = notebook.metadata.setdefault("gencore", {})
    count, seconds = training(record.get("runs", []))
    record |= {"profile": profile, "wall_s": round(wall, 1), "version": project["version"]}
    record |= {"cores": os.cpu_count(), "train_runs": count, "train_cpu_s": seconds}
    record["smaller_runs"] = smaller(record.get("runs", []))
    for key in ("widgets", "jupytext"):
        notebook.metadata.pop(key, None)
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.metadata.setdefault("gencore", {})["source_sha256"] = sha256(cell.source)
            for output in cell.outputs:  # a page has no kernel: figures live on in their HTML
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    card = notebook.cells[0]
    card.source = block(card.source, "card:time", time_line(record))


def save(path, notebook):
    """Replace the file: the old notebook is there or the new one."""
    nbformat.validate(notebook)
    temporary = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def problems(path, profile, numbers=False):
    """Execute one notebook, or only quote its numbers, and replace the file; yields problems."""
    notebook = nbformat.read(path, as_version=4)
    if not numbers:
        if found := list(lacking(notebook, profile)):
            yield from found
            return
        try:
            wall = execute(notebook, profile)
        except (CellExecutionError, DeadKernelError, TimeoutError) as error:
            yield f"it raises: {error}"
            return
        if text := complaints(notebook):
            yield f"it writes to stderr:\n{text}"
            return
        tidy(notebook, profile, wall)
    if unknown := quote(notebook):
        yield f"its text quotes {', '.join(unknown)}, which no show.numbers(...) records"
        return
    save(path, notebook)
    print(f"{path.name}: {'numbers' if numbers else duration(wall)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="parts of file names; all notebooks if none is given"
    )
    parser.add_argument("--profile", default="full", choices=["full", "quick", "smoke"])
    parser.add_argument("--numbers", action="store_true", help="only quote what is recorded")
    options = parser.parse_args()
    paths = [p for p in notebooks() if any(name in p.name for name in options.names or [""])]
    if not paths:
        return f"No notebook is named like {options.names}."
    found = []
    for path in paths:
        found += [f"{path.name}: {p}" for p in problems(path, options.profile, options.numbers)]
    return "\n\n".join([*found, "What is named here was left as it was."]) if found else None


if __name__ == "__main__":
    sys.exit(main())
