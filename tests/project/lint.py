"""What a chapter must look like: each function returns a list of complaints about one notebook."""

import base64
import html
import io
import re
import statistics

import numpy as np
import refresh_figures
from notebook_files import sha256
from PIL import Image

HEADINGS = "Data Model Objective Train Evaluate Show Exercises Summary References".split()
OPTIONAL = "When it fails"  # after Show; else it stands inside Evaluate
MIMES = re.compile(r"text/plain|image/png|application/papermill\.record/.+")
LIVE = re.compile(  # what gencore.explore writes, and nothing else may be HTML
    r'<div class="gencore-live" id="live-[0-9a-f]{8}" data-figure="[a-z]+" role="group" aria-label="[^"]+">\n'
    r"<style>\n[^<]*</style>\n(?P<stage><div class=\"stage\".*</div>)\n"
    r'<script type="application/json">(?P<spec>[^<]*|(?:(?!</script).)*)</script>\n'
    r'<script type="module">/\* explore\.js \*/\n(?:(?!</script).)*</script>\n</div>', re.DOTALL)  # fmt: skip
KERNEL = re.compile(r'<p class="gencore-kernel">[^<>]+</p>')
PATHS = re.compile(r"(?<![\w.:/])(/home/|/root/|/Users/|/work/|/tmp/|/usr/|/opt/|/mnt/)|\b[A-Z]:\\")
METADATA = {"kernelspec", "language_info", "gencore"}


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook):
    """All Markdown, without fenced code and HTML comments."""
    text = "\n\n".join(c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown")
    text = re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.M | re.S)
    return re.sub(r"<!--.*?-->", "", text, flags=re.S)


def lines(cell):
    return [line for line in cell["source"].splitlines() if line.strip()]


def headings(notebook):
    found = [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#+) (.+)$", prose(notebook), re.M)]
    problems = []
    if [level for level, _ in found].count(1) != 1 or found[0][0] != 1:
        problems.append("there must be one heading of level 1, the first")
    for (before, _), (level, title) in zip(found, found[1:], strict=False):
        if level > before + 1:
            problems.append(f"heading {title!r} skips a level")
    second = [title.split(":")[0] for level, title in found if level == 2]
    if second[6:7] == [OPTIONAL]:
        del second[6]
    if second != HEADINGS:
        problems.append(f"headings of level 2 are {second}, not {HEADINGS}")
    return problems


def cells(notebook):
    sizes = [len(lines(cell)) for cell in code(notebook)]
    problems = [
        f"a cell has {n} lines: {code(notebook)[i]['source'][:60]!r}"
        for i, n in enumerate(sizes)
        if n > 25
    ]
    if statistics.median(sizes) > 8:
        problems.append(f"the median cell has {statistics.median(sizes)} lines, more than 8")
    if len(lines(code(notebook)[0])) > 3:
        problems.append("the first cell has more than 3 lines")
    return problems


def words(notebook):
    """The rhythm of the chapter proper, up to its exercises."""
    cells = notebook["cells"]
    ends = [i for i, cell in enumerate(cells) if re.search("^## Exercises", cell["source"], re.M)]
    body = {"cells": cells[: ends[0]] if ends and ends[0] else cells}
    ratio = len(prose(body).split()) / sum(len(lines(cell)) for cell in code(body))
    return [] if 3 <= ratio <= 12 else [f"{ratio:.1f} words of prose per code line, not 3 to 12"]


def outputs(notebook):
    problems = []
    for number, cell in enumerate(code(notebook), 1):
        for output in cell["outputs"]:
            kind = output["output_type"]
            if kind == "error" or output.get("name") == "stderr":
                problems.append(f"cell {number} shows {kind if kind == 'error' else 'stderr'}")
            for mime, data in output.get("data", {}).items():
                page = "".join(data) if mime == "text/html" else ""
                if not (MIMES.fullmatch(mime) or LIVE.fullmatch(page) or KERNEL.fullmatch(page)):
                    problems.append(f"cell {number} has an output of type {mime}")
    return problems


def images(cell):
    data = [output.get("data", {}) for output in cell["outputs"]]
    return ["".join(d["image/png"]) for d in data if "image/png" in d]


def pages(cell):
    """The HTML of the cell's live figures."""
    found = ["".join(output.get("data", {}).get("text/html", "")) for output in cell["outputs"]]
    return [page for page in found if LIVE.fullmatch(page)]


def live(notebook):
    """A live figure has a name, a caption, described pictures, and the present script and style."""
    problems, seen = [], set()
    for number, cell in enumerate(code(notebook), 1):
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        for page in pages(cell):
            if refresh_figures.refreshed(page, *refresh_figures.assets()) != page:
                problems.append(f"cell {number}: an old script; run tools/refresh_figures.py")
            if len(figure.get("caption", "")) < 15 or "name" not in figure:
                problems.append(f"cell {number}: a live figure without a caption or a name")
            alts = [html.unescape(alt) for alt in re.findall(r'<img [^>]*?alt="([^"]*)"', page)]
            problems += [f"cell {number}: alt text {alt!r}" for alt in alts
                         if not 15 <= len(alt) <= 150 or alt in seen]  # fmt: skip
            seen.update(alts)
    return problems


def figures(notebook):
    problems, seen = [], set()
    for number, cell in enumerate(code(notebook), 1):
        if not (found := images(cell)):
            continue
        if len(found) > 1:
            problems.append(f"cell {number} shows {len(found)} images; one has alt text")
        mystnb = cell["metadata"].get("mystnb", {})
        alt = mystnb.get("image", {}).get("alt", "")
        if not 15 <= len(alt) <= 150:
            problems.append(f"cell {number}: alt text of {len(alt)} characters, not 15 to 150")
        if alt in seen:
            problems.append(f"cell {number}: alt text is not unique: {alt!r}")
        seen.add(alt)
        if not mystnb.get("figure", {}).get("caption", "").strip():
            problems.append(f"cell {number}: an image without a caption")
        for image in found:
            pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image))).convert("L"))
            if pixels.std() < 5:
                problems.append(f"cell {number}: the image is blank")
    return problems


def execution(notebook):
    counts = [cell["execution_count"] for cell in code(notebook)]
    problems = (
        [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts are {counts}"]
    )
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        problems.append("cell ids are missing or not unique")
    return problems


def stale(notebook):
    """Outputs that are older than their code."""
    marks = [
        (cell, cell["metadata"].get("gencore", {}).get("source_sha256")) for cell in code(notebook)
    ]
    problems = [
        f"cell {number} was changed after it was executed: {cell['source'][:60]!r}"
        for number, (cell, mark) in enumerate(marks, 1)
        if mark != sha256(cell["source"])
    ]
    if notebook["metadata"].get("gencore", {}).get("profile") != "full":
        problems.append("the outputs are not of profile full")
    return problems


def metadata(notebook):
    problems = [f"notebook metadata {key!r}" for key in set(notebook["metadata"]) - METADATA]
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        problems.append("the kernel is not python3")
    for number, cell in enumerate(notebook["cells"], 1):
        if cell.get("attachments"):
            problems.append(f"cell {number} has attachments")
        if extra := set(cell["metadata"]) - {"tags", "mystnb", "gencore"}:
            problems.append(f"cell {number} has metadata {sorted(extra)}")
    return problems


def texts(notebook):
    """Sources and textual outputs."""
    for cell in notebook["cells"]:
        yield cell["source"]
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", ""))
            yield "".join(output.get("data", {}).get("text/plain", ""))


def paths(notebook):
    hits = [
        text[max(0, m.start() - 30) : m.end() + 30]
        for text in texts(notebook)
        for m in PATHS.finditer(text)
    ]
    return [f"an absolute path: {hit!r}" for hit in hits]


RULES = [headings, cells, words, outputs, figures, live, execution, stale, metadata, paths]
