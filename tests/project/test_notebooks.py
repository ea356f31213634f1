"""Chapters keep their form, outputs are those of their code, taught code is the package's."""

import ast
import base64
import copy
import io
import re

import lint
import numpy as np
import pytest
import refresh_figures
from notebook_files import ROOT, notebooks, read, sha256
from PIL import Image


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_chapter(chapter, rule):
    assert not rule(chapter)


def test_size(chapter_path):
    assert chapter_path.stat().st_size < 1.5e6


def test_figure_names_are_unique_in_the_book():
    found = [
        c["metadata"].get("mystnb", {}).get("figure", {})
        for p in notebooks()
        for c in lint.code(read(p))
    ]
    names = [figure["name"] for figure in found if "name" in figure]
    assert names and len(set(names)) == len(names)


# ---------------------------------------------------------------- the rules themselves can fail


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def good():
    """A small notebook that breaks no rule."""
    text = "# Title\n\n" + "words of prose " * 5
    sections = "\n\n".join(f"## {name}\n\nwords" for name in lint.HEADINGS)
    noise = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    show = {
        "output_type": "display_data",
        "data": {"image/png": png(noise), "text/plain": "<Figure>"},
    }
    figure = {
        "image": {"alt": "Noise in eight rows of eight pixels"},
        "figure": {"caption": "Noise."},
    }
    sources = ["x = 1\ny = 2", "print(x)", "plot(x)\nplot(y)"]
    results = [[], [{"output_type": "stream", "name": "stdout", "text": "1\n"}], [show]]
    cells = [
        {"cell_type": "code", "id": f"c{i}", "execution_count": i + 1, "source": source,
         "metadata": {"gencore": {"source_sha256": sha256(source)}}, "outputs": output}
        for i, (source, output) in enumerate(zip(sources, results, strict=True))
    ]  # fmt: skip
    cells[2]["metadata"]["mystnb"] = figure
    page = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": f"{text}\n\n{sections}"}
    meta = {"kernelspec": {"name": "python3"}, "gencore": {"profile": "full"}}
    return {"cells": [page, *cells], "metadata": meta}


def source(text, cell=0):
    return lambda nb: nb["cells"][cell].update(source=text(nb["cells"][cell]["source"]))


def output(**fields):
    return lambda nb: nb["cells"][2]["outputs"].append(fields)


def cell(number, **fields):
    return lambda nb: nb["cells"][number].update(fields)


def image(**fields):
    return lambda nb: nb["cells"][3]["metadata"]["mystnb"].update(fields)


WIDGET = "application/vnd.jupyter.widget-view+json"
STAGE = '<div class="stage"><img alt="Noise in some rows of pixels" src=""></div><div></div>'
PAGE = (
    '<div class="gencore-live" id="live-01234567" data-figure="latent" role="group" aria-label="A">\n'
    "<style>\n{css}</style>\n" + STAGE + '\n<script type="application/json">{{}}</script>\n'
    '<script type="module">/* explore.js */\n{js}</script>\n</div>'
).format(**dict(zip(("css", "js"), refresh_figures.assets(), strict=True)))
NOTE = '<p class="gencore-kernel">Controls, when the notebook runs.</p>'


def page(text, figure=None):
    """A live figure, or what pretends to be one, as the last output."""

    def plant(nb):
        nb["cells"][2]["outputs"].append({"output_type": "display_data", "data": {"text/html": text}})
        nb["cells"][2]["metadata"]["mystnb"] = {
            "figure": {"caption": "Noise, to be dragged.", "name": "fig"} if figure is None else figure
        }

    return plant


BLANK = png(np.full((8, 8), 255, dtype=np.uint8))
DEFECTS = {
    "no title": (lint.headings, source(lambda s: s.replace("# Title", "Title"))),
    "two titles": (lint.headings, source(lambda s: s + "\n\n# Again")),
    "a section is missing": (
        lint.headings,
        source(lambda s: s.replace("## Objective", "Objective")),
    ),
    "sections are swapped": (lint.headings, source(lambda s: s.replace("## Data", "## Show", 1))),
    "a level is skipped": (
        lint.headings,
        source(lambda s: s.replace("## Summary", "#### Deep\n\n## Summary")),
    ),
    "a long cell": (lint.cells, source(lambda s: "x = 1\n" * 26, 2)),
    "long cells": (lint.cells, lambda nb: [source(lambda s: "x = 1\n" * 9, i)(nb) for i in (2, 3)]),
    "a long first cell": (lint.cells, source(lambda s: "x = 1\n" * 4, 1)),
    "too little prose": (lint.words, source(lambda s: "# Title")),
    "too much prose": (lint.words, source(lambda s: s + " word" * 200)),
    "stderr": (lint.outputs, output(output_type="stream", name="stderr", text="warning")),
    "an error": (lint.outputs, output(output_type="error", ename="E", evalue="", traceback=[])),
    "html": (lint.outputs, output(output_type="display_data", data={"text/html": "<script>"})),
    "html before a figure": (lint.outputs, page("<script>1</script>" + PAGE)),
    "html after a figure": (lint.outputs, page(PAGE + "<script>1</script>")),
    "a script in a figure": (lint.outputs, page(PAGE.replace("{}", "</script><script>1"))),
    "html in a note": (lint.outputs, page(NOTE.replace("when", "<b>when</b>"))),
    "an old script": (lint.live, page(PAGE.replace("export default", "export  default"))),
    "an old style": (lint.live, page(PAGE.replace("display: grid", "display:grid", 1))),
    "a live figure without a caption": (lint.live, page(PAGE, {"name": "fig"})),
    "a live figure without a name": (lint.live, page(PAGE, {"caption": "Noise, to be dragged."})),
    "a picture without words": (lint.live, page(PAGE.replace("Noise in some rows of pixels", ""))),
    "a widget": (lint.outputs, output(output_type="display_data", data={WIDGET: {}})),
    "no alt text": (lint.figures, image(image={})),
    "a file name as alt text": (lint.figures, image(image={"alt": "image.png"})),
    "no caption": (lint.figures, image(figure={})),
    "two images": (
        lint.figures,
        lambda nb: nb["cells"][3]["outputs"].append(nb["cells"][3]["outputs"][0]),
    ),
    "a blank image": (
        lint.figures,
        lambda nb: nb["cells"][3]["outputs"][0]["data"].update({"image/png": BLANK}),
    ),
    "the same alt text": (
        lint.figures,
        lambda nb: nb["cells"].append(copy.deepcopy(nb["cells"][3])),
    ),
    "not executed": (lint.execution, cell(2, execution_count=None)),
    "executed out of order": (lint.execution, cell(2, execution_count=7)),
    "the same id": (lint.execution, cell(2, id="c0")),
    "an old output": (lint.stale, source(lambda s: s + "  # changed", 2)),
    "never executed": (lint.stale, cell(2, metadata={})),
    "outputs of a quick run": (
        lint.stale,
        lambda nb: nb["metadata"]["gencore"].update(profile="quick"),
    ),
    "widget state": (lint.metadata, lambda nb: nb["metadata"].update(widgets={})),
    "timestamps": (lint.metadata, lambda nb: nb["cells"][2]["metadata"].update(execution={})),
    "another kernel": (lint.metadata, lambda nb: nb["metadata"]["kernelspec"].update(name="mine")),
    "an attachment": (lint.metadata, cell(0, attachments={"a.png": {}})),
    "a path in the code": (lint.paths, source(lambda s: "open('/home/me/data')", 2)),
    "a path in an output": (
        lint.paths,
        output(output_type="stream", name="stdout", text="read /" + "root/x\n"),
    ),
}


def test_a_good_notebook_passes():
    assert not [problem for rule in lint.RULES for problem in rule(good())]


@pytest.mark.parametrize("text", [PAGE, NOTE])
def test_a_live_figure_passes(text):
    notebook = good()
    page(text)(notebook)
    assert not [problem for rule in lint.RULES for problem in rule(notebook)]


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name):
    rule, plant = DEFECTS[name]
    notebook = good()
    plant(notebook)
    assert rule(notebook)


# ---------------------------------------------------------------- taught code is the package's code


def definitions(text):
    """{name: syntax tree without docstrings} of the functions and classes at the top level."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", text, flags=re.M))
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return {node.name: ast.dump(node) for node in tree.body if isinstance(node, kinds)}


def differences(cell):
    """The names that a taught cell defines otherwise than the package does."""
    module = cell["metadata"].get("gencore", {}).get("module", "?")
    package = definitions((ROOT / "gencore" / f"{module}.py").read_text(encoding="utf-8"))
    taught = definitions(cell["source"])
    assert taught, f"a taught cell defines nothing: {cell['source'][:60]!r}"
    return [name for name in taught if taught[name] != package.get(name)]


def taught(notebook):
    return [cell for cell in lint.code(notebook) if "taught" in cell["metadata"].get("tags", [])]


def test_taught_code_is_the_packages(chapter):
    assert not [name for cell in taught(chapter) for name in differences(cell)]


def test_the_objectives_are_taught():
    names = {
        name
        for path in notebooks()
        for cell in taught(read(path))
        for name in definitions(cell["source"])
    }
    assert {"kl_normal", "reparameterise", "elbo"} <= names


def test_a_changed_sign_in_taught_code_is_found():
    text = (ROOT / "gencore/vae.py").read_text(encoding="utf-8")
    source = ast.get_source_segment(
        text, next(n for n in ast.parse(text).body if getattr(n, "name", "") == "kl_normal")
    )
    cell = {
        "metadata": {"gencore": {"module": "vae"}},
        "source": source.replace('"""KL', '"""Another docstring'),
    }
    assert not differences(cell)
    assert differences(cell | {"source": source.replace("- 1", "+ 1")}) == ["kl_normal"]
