"""Execute the chapters and keep their outputs: `make notebooks`, or this script with names.

Each code cell keeps the hash of the source it was executed from, so that a test finds an output
that is older than its code. The card's time is written from what was measured. A notebook that
raises, or that writes to stderr, is left as it was.
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
from notebook_files import ROOT, block, notebooks, sha256


def duration(seconds):
    """12 s, 3 min 5 s or 2 h 10 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def training(patterns, root=ROOT):
    """(number, CPU seconds) of the published runs that match the patterns, from their artefacts."""
    files = {path.stem: path for path in sorted((root / "book/runs").glob("*.json"))}
    names = [name for name in files if any(fnmatch.fnmatch(name, p) for p in patterns)]
    seconds = [json.loads(files[name].read_text(encoding="utf-8"))["cpu_s"] for name in names]
    return len(names), round(sum(seconds))


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


def execute(notebook, profile):
    """Execute in place and return the wall time in seconds."""
    os.environ |= {"GENCORE_PROFILE": profile, "TQDM_DISABLE": "1"}
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    client = NotebookClient(notebook, kernel_name="python3", timeout=3600, resources=where)
    began = time.perf_counter()
    client.execute()
    return time.perf_counter() - began


def complaints(notebook):
    """What stderr has: a published page must not show it."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")


def tidy(notebook, profile, wall):
    """Keep what a reader needs: hashes and times in, timestamps and widget state out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    record = notebook.metadata.setdefault("gencore", {})
    count, seconds = training(record.get("runs", []))
    record |= {"profile": profile, "wall_s": round(wall, 1), "version": project["version"]}
    record |= {"cores": os.cpu_count(), "train_runs": count, "train_cpu_s": seconds}
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


def publish(path, profile):
    """Execute one notebook and replace the file; returns what went wrong, or None."""
    notebook = nbformat.read(path, as_version=4)
    try:
        wall = execute(notebook, profile)
    except (CellExecutionError, DeadKernelError, TimeoutError) as error:
        return f"{path.name} is left as it was: {error}"
    if text := complaints(notebook):
        return f"{path.name} is left as it was, because it writes to stderr:\n{text}"
    tidy(notebook, profile, wall)
    nbformat.validate(notebook)
    temporary = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)
    print(f"{path.name}: {duration(wall)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help="parts of file names; all notebooks if none is given"
    )
    parser.add_argument("--profile", default="full", choices=["full", "quick", "smoke"])
    options = parser.parse_args()
    wanted = options.names or [""]
    paths = [path for path in notebooks() if any(name in path.name for name in wanted)]
    problems = [problem for path in paths if (problem := publish(path, options.profile))]
    return "\n\n".join(problems) or None if paths else f"No notebook is named like {wanted}."


if __name__ == "__main__":
    sys.exit(main())
