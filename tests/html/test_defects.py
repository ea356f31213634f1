"""Each check of a page in the browser finds the defect that it is there for.

A copy of one page gets one defect; the other pages and files are the book's own.
"""

import re

import browser
import pytest
from page_checks import PAGES

FRONT, MATHS = PAGES[0], "book/notation.html"
FOREIGN = '<img src="https://tracker.example/dot.png" alt="A dot of a tracker">'
POLICY = '<meta http-equiv="Content-Security-Policy" content="img-src \'self\'">'
WIDE = '<p id="wide" style="min-width: 3000px">wide</p>'


@pytest.fixture
def broken_copy(folder, tmp_path, serve):
    """`broken_copy(name, edit)`: the book with another page `name`: (its folder, its address)."""

    def make(name, edit):
        copy = tmp_path / "copy"
        (copy / "book").mkdir(parents=True)
        own = [folder / "book", folder / "_live"]  # what is added to; all else is only linked
        for path in [*folder.iterdir(), *(path for each in own for path in each.glob("*"))]:
            if path not in own:
                (copy / path.relative_to(folder)).parent.mkdir(exist_ok=True)
                (copy / path.relative_to(folder)).symlink_to(path)
        before = (folder / name).read_text(encoding="utf-8")
        after = edit(before)
        assert after != before
        (copy / name).unlink()
        (copy / name).write_text(after, encoding="utf-8")
        (copy / "book/heavy.png").write_bytes(bytes(browser.LIMIT))
        (copy / "_live").mkdir(exist_ok=True)
        (copy / "_live/heavy.js").write_text("/*" + browser.LIMIT * " " + "*/")
        (copy / "book/script.txt").write_text("1")
        return copy, serve(copy)

    return make


def into(place, html):
    """An edit that puts some HTML before the end of the page's head, or of its article."""
    return lambda text: text.replace(f"</{place}>", f"{html}</{place}>", 1)


def without_policy(edit):
    """The same edit on a page whose policy would have stopped the defect."""
    policy = re.compile("<meta[^>]*Content-Security-Policy[^>]*>", re.I)
    return lambda text: edit(policy.sub("", text))


def both(*edits):
    """One edit after the other."""

    def edit(text):
        for each in edits:
            text = each(text)
        return text

    return edit


DEFECTS = {
    "picture of another host": (into("article", FOREIGN), "other host"),
    "script of another host":
        (into("head", '<script src="https://tracker.example/a.js"></script>'), "other host"),
    "console error":
        (into("article", "<script>console.error('no order')</script>"), "console: no order"),
    "exception": (into("article", "<script>nothing.at.all()</script>"), "page error: nothing"),
    "picture that is not there":
        (into("article", '<img src="none.png">'), "failed request: book/none.png 404"),
    "script that is not there":
        (into("head", '<script src="none.js"></script>'), "failed request: book/none.js 404"),
    "script of a wrong type": (into("head", '<script src="script.txt"></script>'), "MIME type"),
    "against the policy": (both(into("head", POLICY), into("article", FOREIGN)), "policy: img-src"),
    "too heavy": (into("article", '<img src="heavy.png">'), "bytes"),
    "too heavy by data in a script":
        (into("article", '<script src="../_live/heavy.js"></script>'), "bytes"),
    "dead figure": (into("article", '<div class="gencore-live" id="d"></div>'), "live: d is not"),
    "too wide": (into("article", WIDE), "px too wide"),
    "too wide, and it tells whom": (into("article", WIDE), "overflow: #wide"),
    "cut off": (into("article", "<style>html, body { overflow-x: hidden }</style>" + WIDE),
                "overflow: #wide"),
    "theme is stuck":
        (into("head", "<script>addEventListener('load', () => setInterval(() =>"
              " document.documentElement.dataset.theme = 'dark', 20))</script>"),
         "theme: dark on"),
    "dark ground in light mode":
        (into("head", "<style>body { background: #222 !important }</style>"), "on dark ground"),
    "no alt text": (into("article", '<img src="../_static/file.png">'), "axe image-alt"),
    "low contrast":
        (into("article", '<p style="color: #999; background: #aaa">low</p>'),
         "axe color-contrast"),
    "nameless button": (into("article", "<button></button>"), "axe button-name"),
    "skipped heading": (into("article", "<h6>deep</h6>"), "axe heading-order"),
}  # fmt: skip


def complaints(visit, name, formulas, axe):
    visit.open(name, formulas)
    found = visit.trouble() + visit.heavy() + visit.look("light", formulas)
    return found + (visit.axe() if axe else [])


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(name, tab, broken_copy, maths):
    edit, said = DEFECTS[name]
    copy, address = broken_copy(FRONT, without_policy(edit))
    visit = tab(folder=copy, address=address)
    visit.patience = 3000
    found = complaints(visit, FRONT, maths(FRONT), axe=said.startswith("axe"))
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    "formula, said",
    [(r"\(\frac{a}\)", "maths: error"), (r"\(\nothing x\)", "maths: unknown macro")],
)  # fmt: skip
def test_a_wrong_formula_is_found(formula, said, tab, broken_copy, maths):
    edit = into("article", f'<p><span id="f" class="math">{formula}</span></p>')
    visit = tab(**dict(zip(("folder", "address"), broken_copy(MATHS, edit), strict=True)))
    found = complaints(visit, MATHS, maths(MATHS) + 1, axe=False)
    assert any(line.startswith(said) for line in found), found


def test_a_formula_that_stays_source_is_found(tab, broken_copy, maths):
    edit = into("article", r'<p><span class="math">\(x</span></p>')
    visit = tab(**dict(zip(("folder", "address"), broken_copy(MATHS, edit), strict=True)))
    visit.patience = 3000
    n = maths(MATHS)
    found = complaints(visit, MATHS, n + 1, axe=False)
    assert found == [f"maths: {n} formulas are typeset, not {n + 1}"]


def test_the_books_own_policy_stops_a_foreign_picture(tab, broken_copy, maths):
    copy, address = broken_copy(FRONT, into("article", FOREIGN))
    found = complaints(tab(folder=copy, address=address), FRONT, maths(FRONT), axe=False)
    assert any(line.startswith("policy: img-src") for line in found), found


def test_motion_is_found(tab, broken_copy):
    moving = (
        "<style>@keyframes gone { to { opacity: 0 } } #m { animation: gone 9s infinite }</style>"
        '<p id="m">moving</p>'
    )
    copy, address = broken_copy(FRONT, into("article", moving))
    visit = tab(folder=copy, address=address, reduced_motion="reduce").open(FRONT)
    assert any("moves: gone" in line for line in visit.page.evaluate(browser.RUNNING))


def test_a_missing_chromium_is_said(monkeypatch):
    monkeypatch.setenv("GENCORE_CHROMIUM", "/no/such/chromium")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="Chromium was not found"):
        browser.need()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Chromium was not found"):
        browser.need()
