"""What a chapter must look like: each function returns a list of complaints about one notebook."""

import base64
import html
import io
import re
import statistics
import unicodedata
from functools import cache
from itertools import groupby
from urllib.parse import unquote

import numpy as np
import refresh_figures
from notebook_files import NUMBER, ROOT, recorded, sha256
from PIL import Image
from pybtex.database import parse_file

HEADINGS = "Data Model Objective Train Evaluate Show Exercises Summary References".split()
OPTIONAL = "When it fails"  # after Show; else it stands inside Evaluate
SECTION = re.compile(
    r"(?:^<small>(?P<step>[^<>\n]+)</small>\n\n)?^(?P<marks>#+) (?P<title>.+)$", re.M
)
COLUMNS = 88
LONGEST = 3500  # words of a chapter up to its exercises; 2,000 are enough for most
MIMES = re.compile(r"text/plain|image/png")
LIVE = re.compile(  # what gencore.explore writes, and nothing else may be HTML
    r'<div class="gencore-live" id="live-[0-9a-f]{8}" data-figure="[a-z]+" role="group" aria-label="[^"]+">\n'
    r"<style>\n[^<]*</style>\n(?P<stage><div class=\"stage\".*</div>)\n"
    r'<script type="application/json">(?P<spec>[^<]*|(?:(?!</script).)*)</script>\n'
    r'<script type="module">/\* explore\.js \*/\n(?:(?!</script).)*</script>\n</div>', re.DOTALL)  # fmt: skip
KERNEL = re.compile(r'<p class="gencore-kernel">[^<>]+</p>')
TABLE = re.compile(  # what show.table writes: a caption, header cells, and no script or link
    r'<div class="gencore-table" role="region" tabindex="0" aria-label="[^"<>]+" style="[^"<>]*">\n'
    r'<table class="table" style="[^"<>]*">\n<caption style="[^"<>]*"><span style="[^"<>]*">[^<>]+</span>'
    r'</caption>\n(?:<(?:/?(?:thead|tbody|tr|th|td|strong|span)|/table|/caption)'
    r'(?: (?:style|scope)="[^"<>]*")*>|[^<>])*</div>')  # fmt: skip
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
    sections = list(SECTION.finditer(prose(notebook)))
    found = [(len(m["marks"]), m["title"].strip()) for m in sections]
    problems = []
    if [level for level, _ in found].count(1) != 1 or found[0][0] != 1:
        problems.append("there must be one heading of level 1, the first")
    for (before, _), (level, title) in zip(found, found[1:], strict=False):
        if level > before + 1:
            problems.append(f"heading {title!r} skips a level")
    labels = [m["step"] or m["title"].split(":")[0] for m in sections if len(m["marks"]) == 2]
    steps = [label for label, _ in groupby(labels)]  # several sections may belong to one step
    if steps[6:7] == [OPTIONAL]:
        del steps[6]
    if steps != HEADINGS:
        problems.append(
            f"the steps of the sections are {steps}, not {HEADINGS}; a title that says what is found "
            "has its step above it, '<small>Objective</small>', an empty line, '## A bound'"
        )
    labelled = sum(m["step"] is not None for m in sections)
    if prose(notebook).count("<small>") != labelled:
        problems.append("<small>...</small> stands elsewhere than two lines above a heading")
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
    if len(lines(code(notebook)[0])) > 5:
        problems.append("the first cell has more than 5 lines")
    problems += [
        f"cell {number}: a line of {len(line)} columns, more than {COLUMNS}: {line[:60]!r}"
        for number, cell in enumerate(code(notebook), 1)
        for line in lines(cell)
        if len(line) > COLUMNS
    ]
    return problems


def words(notebook):
    """Code is explained, and the chapter proper, up to its exercises, has an end."""
    cells = notebook["cells"]
    ends = [i for i, cell in enumerate(cells) if re.search("^## Exercises", cell["source"], re.M)]
    body = {"cells": cells[: ends[0]] if ends and ends[0] else cells}
    count, size = len(prose(body).split()), sum(len(lines(cell)) for cell in code(body))
    problems = [] if count >= 3 * size else [f"{count} words explain {size} lines of code"]
    return problems + ([f"{count} words, more than {LONGEST}"] if count > LONGEST else [])


def markdown(notebook):
    """The text of each Markdown cell, and each caption."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            yield cell["source"]
        elif caption := cell["metadata"].get("mystnb", {}).get("figure", {}).get("caption"):
            yield caption


MYST = {
    "a role": r"\{[\w:.+-]+\}`",
    "a directive": r"^[ >]*(?:`{3,}|~{3,}|:{3,}) *\{[\w:.+-]+\}|^[ >]*:{3,}",
    "a target": r"^\([\w-]+\)=$",
    "a substitution": r"\{\{.*?\}\}(?!\})",
    "a link without words": r"(?<!!)\[\]\(",
}


def plain(notebook):
    """JupyterLab, Colab and GitHub show MyST as it is typed: the text is plain Markdown."""
    text = "\n\n".join(re.sub(r"(\$\$?)[^$]+\1", "", text) for text in markdown(notebook))
    return [
        f"{what} of MyST: {text[max(0, m.start() - 20) : m.end() + 20]!r}"
        for what, pattern in MYST.items()
        for m in re.finditer(pattern, text, re.M)
    ]


def todo(notebook):
    found = [text for cell in notebook["cells"] for text in cell["source"].splitlines()]
    return [f"left to do: {line[:80]!r}" for line in found if "TODO" in line]


MARKED = re.compile(r"^[ >]*(?:[-*+] |\d+[.)] )?<!--n:.*", re.M)  # there, a comment begins HTML
HIDDEN = re.compile(r"(?s)(`+)(?!`).*?(?<!`)\1(?!`)|(\$\$?).*?\2|^#[^\n]*", re.M)  # comments show


def values(notebook):
    """{name: [values]} as the cells recorded them, one after the other."""
    found = {}
    for cell in notebook["cells"]:
        for name, value in recorded({"cells": [cell]}).items():
            found.setdefault(name, []).append(value)
    return found


def numbers(notebook):
    """Each number between marks is the one that a cell recorded."""
    known, problems = values(notebook), []
    remedy = "run tools/execute_notebooks.py"
    for text in markdown(notebook):
        for name, number in NUMBER.findall(text):
            if name not in known:
                problems.append(f"no cell records {name!r}")
            elif number != known[name][-1]:
                problems.append(f"{name} is {known[name][-1]}, the text says {number!r}; {remedy}")
            elif len(set(known[name])) > 1:
                problems.append(f"{name} is recorded as {known[name]}: one name, one number")
            if re.search(r"[*_`<>|$\[\]\\]|--", number):
                problems.append(f"{name}: Markdown would read {number!r} as more than text")
        rest = NUMBER.sub("", text)
        halves = [rest[m.start() :][:60] for m in re.finditer(r"<!-- ?/?n\b", rest)]
        problems += [f"half a mark: {half!r}" for half in halves]
        problems += [f"a mark begins a line: {m[0][:60]!r}" for m in MARKED.finditer(text)]
        shown = [m[0] for m in HIDDEN.finditer(text) if "<!--n:" in m[0]]
        problems += [f"a mark in code, a formula or a heading: {span[:60]!r}" for span in shown]
        problems += [f"typed, not recorded: {m[0]!r}" for m in re.finditer(r"\d ?± ?\d", rest)]
    return problems


# ---------------------------------------------------------------- papers

LINK = re.compile(r"\[([^\[\]]+)\]\((https?://[^\s()]+)\)")
PAPERS = re.compile(r"https?://(?:dx\.)?(?:doi\.org|arxiv\.org|openreview\.net|proceedings\.)")


def address(url):
    """One spelling of an address: arXiv's without version, a DOI in small letters."""
    url = re.sub(r"^https?://(www\.|dx\.)?", "", unquote(url)).rstrip("/")
    url = re.sub(r"^arxiv\.org/(abs|pdf)/([\w./-]+?)(v\d+)?(\.pdf)?$", r"arxiv.org/abs/\2", url)
    return url.lower() if url.startswith("doi.org/") else url


@cache
def bibliography():
    """{address: (first author's last name, year, title, key)} of refs.bib; several addresses each."""
    found = {}
    for key, entry in parse_file(str(ROOT / "book/refs.bib"), "bibtex").entries.items():
        person, fields = entry.persons["author"][0], entry.fields
        name = " ".join(map(str, person.rich_prelast_names + person.rich_last_names))
        places = [
            fields.get("url"),
            f"https://doi.org/{fields['doi']}" if "doi" in fields else None,
        ]
        places += [f"https://arxiv.org/abs/{fields['eprint']}"] if "eprint" in fields else []
        for place in filter(None, places):
            found[address(place)] = name, fields["year"], fields["title"], key
    return found


def letters(text):
    text = unicodedata.normalize("NFKD", text.replace("\\l", "l").replace("ł", "l"))
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\\.", "", text).lower())


def disagreement(text, before, name, year, title):
    """What is wrong with the words of a link to a paper, and with those before it in its item."""
    since = LINK.split(before)[-1]
    if dated := re.search(r"\b(\d{4})$", text):
        wrong = dated[1] != year or letters(name) not in letters(text + since[-60:])
        return f"{since[-40:]}[{text}], not {name} and {year}" if wrong else None
    if not (letters(text) and letters(title).startswith(letters(text))):
        return f"[{text}] is neither author and year nor the title {title!r}"
    years = re.findall(r"\((\d{4})\)", since)
    wrong = years[-1:] != [year] or letters(name) not in letters(since)
    return f"before [{text}] {name} ({year}) is expected" if wrong else None


def links(text):
    """(words of the link, address, what stands before it in its paragraph or item)."""
    for part in re.split(r"\n\n|\n(?=- )", text):
        for m in LINK.finditer(part):
            yield m[1], m[2], part[: m.start()]


def papers(notebook):
    """Links to papers have their entry in refs.bib and agree with it."""
    problems = []
    for text in markdown(notebook):
        for words_, url, before in links(text):
            entry = bibliography().get(address(url))
            if entry and (found := disagreement(words_, before, *entry[:3])):
                problems.append(f"{url}: {found}")
            elif not entry and PAPERS.match(url):
                problems.append(f"{url} has no entry in book/refs.bib")
    return problems


# ---------------------------------------------------------------- outputs


def outputs(notebook):
    problems = []
    for number, cell in enumerate(code(notebook), 1):
        for output in cell["outputs"]:
            kind = output["output_type"]
            if kind == "error" or output.get("name") == "stderr":
                problems.append(f"cell {number} shows {kind if kind == 'error' else 'stderr'}")
            for mime, data in output.get("data", {}).items():
                page = "".join(data) if mime == "text/html" else ""
                known = any(kind.fullmatch(page) for kind in (LIVE, KERNEL, TABLE))
                if not (MIMES.fullmatch(mime) or known):
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
            if refresh_figures.refreshed(page) != page:
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
        if "figure" in cell["metadata"].get("mystnb", {}) and recorded({"cells": [cell]}):
            problems.append(
                f"cell {number} shows a table and a figure, under one caption: split it"
            )
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
    if notebook["metadata"].get("gencore", {}).get("smaller_runs") != []:
        problems.append("runs that it loads were trained under a smaller profile, or nobody looked")
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


RULES = [headings, cells, words, plain, todo, numbers, papers, outputs, figures, live, execution]
RULES += [stale, metadata, paths]
