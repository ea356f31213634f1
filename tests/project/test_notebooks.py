"""Chapters keep their form, outputs are those of their code, taught code is the package's."""

import ast
import base64
import copy
import io
import re

import execute_notebooks
import lint
import nbformat
import new_chapter
import numpy as np
import pytest
import stamp_repository
from notebook_files import ROOT, chapters, fill, notebooks, read, sha256
from PIL import Image

from gencore import explore, show


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_chapter(chapter, rule):
    problems = rule(chapter)
    assert not problems, "\n".join(problems)


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


# ---------------------------------------------------------------- one list of chapters


def test_the_contents_list_every_notebook():
    assert chapters() == [path.stem for path in notebooks()]


def test_the_path_of_the_front_page_leads_through_every_chapter_in_order():
    text = (ROOT / "book/intro.md").read_text(encoding="utf-8")
    stops = re.findall(r"^\[(\d+) · ([^\]]+)\]\(\.\./notebooks/([^)]+)\.ipynb\)$", text, re.M)
    titles = {p.stem: read(p)["cells"][0]["source"].splitlines()[0][2:] for p in notebooks()}
    assert stops == [(str(int(name[:2])), titles[name], name) for name in chapters()]
    assert "TODO" not in text


# ---------------------------------------------------------------- papers


def test_every_paper_is_linked_or_cited():
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "book").glob("*.md")]
    texts = pages + [text for path in notebooks() for text in lint.markdown(read(path))]
    linked = {lint.address(url) for text in texts for _, url, _ in lint.links(text)}
    cited = set(
        re.findall(r"\w+", " ".join(re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", "".join(pages))))
    )
    entries = lint.bibliography()
    known = {entry[3] for place, entry in entries.items() if place in linked} | cited
    assert known == {entry[3] for entry in entries.values()}


def test_two_spellings_of_one_address():
    assert lint.address("http://arxiv.org/pdf/1312.6114v10.pdf") == "arxiv.org/abs/1312.6114"
    assert lint.address("https://dx.doi.org/10.1/A%28b%29") == lint.address(
        "https://doi.org/10.1/a(b)"
    )


# ---------------------------------------------------------------- the rules themselves can fail


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


PAPER = (
    "As Theis et al. ([2016](https://arxiv.org/abs/1511.01844)) say ([Pearson 1901]"
    "(https://doi.org/10.1080/14786440109462720)).\n\n- K. Pearson (1901). [On lines and planes]"
    "(https://doi.org/10.1080/14786440109462720).\n- Higgins et al. (2017), [beta-VAE]"
    "(https://openreview.net/forum?id=Sy2fzU9gl)."
)


def good():
    """A small notebook that breaks no rule."""
    text = "# Title\n\n" + "words of prose " * 5 + "by <!--n:x-->1<!--/n--> measurement\n\n" + PAPER
    sections = "\n\n".join(f"## {name}\n\nwords" for name in lint.HEADINGS)
    sections = sections.replace("## Objective", "<small>Objective</small>\n\n## A bound")
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
    table = {"output_type": "display_data", "data": {"text/plain": "x  1"},
             "metadata": {"gencore": {"numbers": {"x": "1"}}}}  # fmt: skip
    results = [[], [table], [show]]
    cells = [
        {"cell_type": "code", "id": f"c{i}", "execution_count": i + 1, "source": source,
         "metadata": {"gencore": {"source_sha256": sha256(source)}}, "outputs": output}
        for i, (source, output) in enumerate(zip(sources, results, strict=True))
    ]  # fmt: skip
    cells[2]["metadata"]["mystnb"] = figure
    page = {"cell_type": "markdown", "id": "m", "metadata": {}, "source": f"{text}\n\n{sections}"}
    record = {"profile": "full", "smaller_runs": []}
    meta = {"kernelspec": {"name": "python3"}, "gencore": record}
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
).format(css=explore.STYLE, js=explore.script("latent").removeprefix("/* explore.js */\n"))
NOTE = '<p class="gencore-kernel">Controls, when the notebook runs.</p>'


def page(text, figure=None):
    """A live figure, or what pretends to be one, in the first code cell."""

    def plant(nb):
        nb["cells"][1]["outputs"].append(
            {"output_type": "display_data", "data": {"text/html": text}}
        )
        nb["cells"][1]["metadata"]["mystnb"] = {
            "figure": {"caption": "Noise, to be dragged.", "name": "fig"}
            if figure is None
            else figure
        }

    return plant


def test_a_table_of_results_may_stand_in_a_chapter_and_a_script_in_it_may_not():
    rows = {"a & <b>": {"x": (1.5, 0.2), "y": "exact"}, "c": {"x": 12.25, "y": None}}
    written = show.table(rows, 'A "caption".', best={"x": max}, corner="model")._repr_html_()
    assert lint.TABLE.fullmatch(written)
    for old, new in (("<tbody>", "<tbody><script>"), ("<strong", '<strong onclick="x"'), ("</caption>", "</caption><a>"),
                     ("<caption", "<p"), (' tabindex="0"', "")):  # fmt: skip
        assert old in written and not lint.TABLE.fullmatch(written.replace(old, new))


BLANK = png(np.full((8, 8), 255, dtype=np.uint8))
DEFECTS = {
    "no title": (lint.headings, source(lambda s: s.replace("# Title", "Title"))),
    "two titles": (lint.headings, source(lambda s: s + "\n\n# Again")),
    "a section is missing": (
        lint.headings,
        source(lambda s: s.replace("## Train", "Train")),
    ),
    "a title without a step": (
        lint.headings,
        source(lambda s: s.replace("<small>Objective</small>", "")),
    ),
    "an unknown step": (lint.headings, source(lambda s: s.replace("<small>Obj", "<small>Ob"))),
    "a step far from its title": (
        lint.headings,
        source(lambda s: s.replace("## A bound", "words\n\n## Objective")),
    ),
    "sections are swapped": (lint.headings, source(lambda s: s.replace("## Data", "## Show", 1))),
    "a level is skipped": (
        lint.headings,
        source(lambda s: s.replace("## Summary", "#### Deep\n\n## Summary")),
    ),
    "a long cell": (lint.cells, source(lambda s: "x = 1\n" * 26, 2)),
    "long cells": (lint.cells, lambda nb: [source(lambda s: "x = 1\n" * 9, i)(nb) for i in (2, 3)]),
    "a long first cell": (lint.cells, source(lambda s: "x = 1\n" * 6, 1)),
    "a wide line": (lint.cells, source(lambda s: s + "  # " + "x" * 80, 2)),
    "too little prose": (lint.words, source(lambda s: "# Title")),
    "too much prose": (lint.words, source(lambda s: s + " word" * 3500)),
    "a number from myst": (lint.plain, source(lambda s: s + " {glue:text}`x`")),
    "a citation from myst": (lint.plain, source(lambda s: s + " {cite}`theis2016note`")),
    "a role in a caption": (lint.plain, image(figure={"caption": "See {numref}`fig-1`."})),
    "a directive": (lint.plain, source(lambda s: s + "\n\n```{note}\nwords\n```")),
    "a directive in a quote": (lint.plain, source(lambda s: s + "\n\n> :::{note}\n> words\n> :::")),
    "a target": (lint.plain, source(lambda s: "(title)=\n" + s)),
    "a link that only myst can name": (lint.plain, source(lambda s: s + " [](#fig-1)")),
    "something to do": (lint.todo, source(lambda s: s + "\n\nTODO: words")),
    "something to do in code": (lint.todo, source(lambda s: s + "  # TODO", 2)),
    "a number typed over": (lint.numbers, source(lambda s: s.replace("-->1<", "-->2<"))),
    "a number not yet written": (lint.numbers, source(lambda s: s.replace("-->1<", "--><"))),
    "a number of a new run": (
        lint.numbers,
        lambda nb: nb["cells"][2]["outputs"][0]["metadata"]["gencore"]["numbers"].update(x="3"),
    ),
    "a number that nobody recorded": (lint.numbers, source(lambda s: s.replace("n:x", "n:y"))),
    "a name with two numbers": (
        lint.numbers,
        lambda nb: (
            nb["cells"][3]["outputs"].insert(
                0, {"metadata": {"gencore": {"numbers": {"x": "0"}}}, "data": {}}
            )
            or nb["cells"].insert(2, nb["cells"].pop(3))
        ),
    ),
    "half a mark": (lint.numbers, source(lambda s: s.replace("<!--/n-->", ""))),
    "a mark with blanks": (lint.numbers, source(lambda s: s.replace("<!--n:x-->", "<!-- n:x -->"))),
    "a mark begins a line": (lint.numbers, source(lambda s: s.replace("by <!--", "by\n<!--"))),
    "a mark begins a list item": (
        lint.numbers,
        source(lambda s: s.replace("by <!--", "by\n\n- <!--")),
    ),
    "a mark begins a quote": (lint.numbers, source(lambda s: s.replace("by <!--", "by\n\n> <!--"))),
    "a mark in code": (lint.numbers, source(lambda s: s.replace("by <!--", "`by <!--") + "`")),
    "a mark in a formula": (lint.numbers, source(lambda s: s.replace("by <!--", "$b <!--") + "$")),
    "a mark in a heading": (
        lint.numbers,
        source(lambda s: s.replace("# Title", "# T <!--n:x-->1<!--/n-->")),
    ),
    "a typed measurement": (lint.numbers, source(lambda s: s + " 1.5 ± 0.2")),
    "a paper without an entry": (
        lint.papers,
        source(lambda s: s.replace("1511.01844", "1511.01845")),
    ),
    "another year": (lint.papers, source(lambda s: s.replace("[2016]", "[2015]"))),
    "another author": (lint.papers, source(lambda s: s.replace("Theis et al.", "Thies et al."))),
    "another author in a link": (
        lint.papers,
        source(lambda s: s.replace("[Pearson 1", "[Person 1")),
    ),
    "another title": (lint.papers, source(lambda s: s.replace("[On lines", "[Of lines"))),
    "another year in the list": (lint.papers, source(lambda s: s.replace("(1901)", "(1902)"))),
    "another author in the list": (
        lint.papers,
        source(lambda s: s.replace("Higgins et", "Higgs et")),
    ),
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
    "a table in a figure": (
        lint.figures,
        lambda nb: nb["cells"][3]["outputs"].append(nb["cells"][2]["outputs"][0]),
    ),
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
    "loaded runs of a smaller profile": (
        lint.stale,
        lambda nb: nb["metadata"]["gencore"].update(smaller_runs=["vae-mnist-d2"]),
    ),
    "runs that nobody looked at": (
        lint.stale,
        lambda nb: nb["metadata"]["gencore"].pop("smaller_runs"),
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


# ---------------------------------------------------------------- numbers are written, not typed


def test_numbers_are_written_where_the_marks_are():
    text = "> | **<!--n:x-->1<!--/n-->** | a\n<!--n:y--><!--/n-->b <!--n:z-->9<!--/n-->"
    done = "> | **<!--n:x-->−2.0 ± 0.1<!--/n-->** | a\n<!--n:y-->3<!--/n-->b <!--n:z-->9<!--/n-->"
    assert fill(text, {"x": "−2.0 ± 0.1", "y": "3"}) == done
    notebook = good()
    assert execute_notebooks.quote(notebook) == [] and notebook == good()
    source(
        lambda s: s.replace("n:x-->1", "n:x-->7").replace("words of", "<!--n:y-->7<!--/n-->", 1)
    )(notebook)
    assert execute_notebooks.quote(notebook) == ["y"]
    assert "<!--n:x-->1<!--/n-->" in notebook["cells"][0]["source"]


def test_no_front_end_shows_the_marks():
    """Where a mark may stand it is an inline comment; CommonMark hides it as it hides any other."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("gfm-like", {"linkify": False})
    text = (
        "a **<!--n:x-->1<!--/n-->** b\n\n> q <!--n:x-->1<!--/n-->, *r*\n\n- l <!--n:x-->1<!--/n-->%\n\n"
        "| <!--n:x-->1<!--/n--> | (<!--n:x-->1<!--/n-->) |\n| --- | --- |\n\n"
        "<details><summary>s</summary>\n\nd <!--n:x-->1<!--/n--> `c`\n\n</details>"
    )
    page = re.sub(r"<!--n:x-->1<!--/n-->", "1", markdown.render(text))
    assert page == markdown.render(text.replace("<!--n:x-->", "").replace("<!--/n-->", ""))


# ---------------------------------------------------------------- a new chapter


@pytest.fixture
def begun(tmp_path):
    """A copy of the lists with one chapter more, and the chapter."""
    for name in ("_toc.yml", "README.md", "_config.yml", "pyproject.toml", "book/intro.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "notebooks").mkdir()
    for path in notebooks():
        (tmp_path / "notebooks" / path.name).symlink_to(path)
    new_chapter.begin("98-a-new-chapter", "A new chapter", tmp_path)
    return tmp_path, tmp_path / "notebooks/98-a-new-chapter.ipynb"


def test_a_skeleton_lacks_only_what_its_author_must_write(begun):
    folder, path = begun
    notebook = read(path)
    nbformat.validate(nbformat.read(path, as_version=4))
    assert list(execute_notebooks.lacking(notebook, root=ROOT)) == []
    left = {rule.__name__ for rule in lint.RULES if rule(notebook)}
    assert left == {"todo", "numbers", "papers", "execution", "stale"}
    assert lint.numbers(notebook) == ["no cell records 'training_images'"]


def test_a_new_chapter_is_in_every_list(begun):
    folder, _ = begun
    assert chapters(folder) == [*chapters(), "98-a-new-chapter"]
    assert stamp_repository.readme_table(stamp_repository.address(), folder) in (
        folder / "README.md"
    ).read_text(encoding="utf-8")
    intro = (folder / "book/intro.md").read_text(encoding="utf-8")
    assert intro.count("[98 · A new chapter](../notebooks/98-a-new-chapter.ipynb)") == 1
    new_chapter.begin("97-between", "Between", folder)
    assert chapters(folder)[-2:] == ["97-between", "98-a-new-chapter"]
    intro = (folder / "book/intro.md").read_text(encoding="utf-8")
    assert intro.index("97 · Between") < intro.index("98 · A new chapter")
    with pytest.raises(ValueError, match="chapter 97 already"):
        new_chapter.begin("97-again", "Again", folder)


LACKING = {
    "no title": (source(lambda s: s.replace("# A new", "A new")), "begins with the title"),
    "no promise": (source(lambda s: s.replace("**You will", "**You may")), "You will be able to"),
    "no mark": (source(lambda s: s.replace("<!-- card:time -->", "")), "card:time.*new_chapter.py"),
    "no other mark": (source(lambda s: s.replace("<!-- /card:links -->", "")), "card:links"),
    "another first cell": (cell(1, source="import gencore"), "run tools/stamp_repository.py"),
    "no list of runs": (lambda nb: nb["metadata"].update(gencore={}), '"runs": .*vae-mnist'),
    "an unknown run": (lambda nb: nb["metadata"]["gencore"].update(runs=["no-such-*"]), "no-such"),
    "a taught cell of no module": (cell(3, metadata={"tags": ["taught"]}), '"module": "vae"'),
}


@pytest.mark.parametrize("name", LACKING)
def test_what_a_card_lacks_is_said_before_anything_is_executed(name, begun, monkeypatch):
    plant, said = LACKING[name]
    path = begun[1]
    notebook = nbformat.read(path, as_version=4)
    plant(notebook)
    nbformat.write(notebook, path)
    monkeypatch.setattr(execute_notebooks, "execute", lambda *_: pytest.fail("executed"))
    found = list(execute_notebooks.problems(path, "full"))
    assert len(found) == 1 and re.search(said, found[0])


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
    found = [name for cell in taught(chapter) for name in differences(cell)]
    assert not found, f"taught otherwise than gencore defines it: {found}; make both the same"


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
