"""The built HTML as it lies on disk: structure, texts for pictures, captions, links."""

import re

import page_checks
import pytest
from notebook_files import ROOT
from page_checks import alts, figures, frame, headings, links_out, loads_out


@pytest.mark.parametrize("check", page_checks.PAGE, ids=lambda check: check.__name__)
def test_every_page(check, whole, fail_with):
    fail_with(f"{name} | {line}" for name, root in whole.items() for line in check(root))


def test_titles_differ(whole, fail_with):
    fail_with(page_checks.same_titles(whole))


def test_every_address_leads_somewhere(folder, trees, fail_with):
    fail_with(page_checks.broken(folder, trees))


def test_every_source_of_the_bibliography_is_printed_with_its_address(trees):
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/refs.bib").read_text("utf-8"), re.M)
    printed = trees["book/references.html"].classed("citation")
    assert len(printed) == len(keys) > 0
    for entry in printed:
        assert [a for a in entry.all("a") if a.get("href").startswith("https://")], entry.text()


def defect(check, body, head="<title>A page</title>", lang="en"):
    text = f'<!DOCTYPE html><html lang="{lang}"><head>{head}</head><body>{body}</body></html>'
    return list(check(page_checks.parse(text)))


WELL = "A row of ten handwritten digits"
HEALTHY = [
    (frame, '<p id="a"></p><p id="b"></p>'),
    (headings, "<h1>1</h1><h2>2</h2><h3>3</h3><h2>2</h2>"),
    (alts, f'<img src="a.png" alt="{WELL}"><a href="i.html"><img src="l.svg" alt="">Book</a>'),
    (
        figures,
        f'<figure><div class="cell_output"><img alt="{WELL}"></div><figcaption><span '
        'class="caption-number">Fig. 1</span><span class="caption-text">What is to be seen</span>'
        "</figcaption></figure>",
    ),
    (links_out, '<article><a href="https://a.org">a</a> <a href="b.html">b</a><section '
     'id="references"><p><a href="https://a.org">a</a></p></section></article>'),
    (loads_out, '<a href="https://a.org">a</a><img src="a.png"><img src="data:,x">'),
]
DEFECTS = [
    (frame, '<p id="a"></p><p id="a"></p>', "'a' stands 2 times"),
    (headings, "<h2>2</h2>", "0 headings of level 1"),
    (headings, "<h1>1</h1><h1>2</h1>", "2 headings of level 1"),
    (headings, "<h1>1</h1><h3>Deep</h3>", "from level 1 to 3"),
    (alts, '<img src="a.png">', "0 characters"),
    (alts, '<img src="a.png" alt="">', "0 characters"),
    (alts, '<a href="#"><img src="a.png" alt=""></a>', "0 characters"),
    (alts, f'<img src="a.png" alt="{"long " * 40}">', "199 characters"),
    (alts, '<img src="x.png" alt="../_images/front-page.png">', "file name"),
    (alts, f'<img src="x.png" alt="{"0f" * 20}">', "file name"),
    (alts, '<img src="latent-plane-of-digits.png" alt="latent-plane-of-digits">', "file name"),
    (alts, f'<img alt="{WELL}"><img alt="{WELL}">', "not unique"),
    (figures, '<div class="cell_output"><img></div>', "no number"),
    (figures, '<figure><div class="gencore-live"></div></figure>', "no number"),
    (
        figures,
        '<figure><div class="gencore-live"></div><figcaption><span class="caption-number">Fig. 1'
        "</span></figcaption></figure>",
        "no caption",
    ),
    (links_out, '<a href="http://a.org">a</a>', "not https"),
    (links_out, f"<article>{2 * '<a href=https://a.org>a</a>'}</article>", "linked 2 times"),
    (links_out, f"<article><p id=references>{2 * '<a href=https://a.org>a</a>'}</p></article>",
     "linked 2 times"),
    (loads_out, '<img src="https://a.org/a.png">', "loads https://a.org"),
    (loads_out, '<script src="//a.org/a.js"></script>', "loads //a.org"),
    (loads_out, '<link rel="preconnect" href="https://a.org">', "loads https://a.org"),
    (loads_out, '<img srcset="a.png 1x, https://a.org/b.png 2x">', "loads https://a.org"),
    (loads_out, '<p style="background: url(https://a.org/b.png)">', "loads https://a.org"),
    (loads_out, '<style>@import "https://a.org/a.css";</style>', "loads https://a.org"),
]


@pytest.mark.parametrize("check, body", HEALTHY, ids=[c.__name__ for c, _ in HEALTHY])
def test_nothing_is_said_of_a_good_page(check, body):
    assert defect(check, body) == []


NAMES = [f"{check.__name__}-{said}" for check, _, said in DEFECTS]


@pytest.mark.parametrize("check, body, said", DEFECTS, ids=NAMES)
def test_a_defect_is_found(check, body, said):
    found = defect(check, body)
    assert len(found) >= 1 and said in found[0]


def test_a_page_without_language_or_title_is_found():
    assert "lang is ''" in defect(frame, "", lang="")[0]
    assert "0 titles" in defect(frame, "", head="")[0]
    assert "titles: ['']" in defect(frame, "", head="<title></title>")[0]


@pytest.mark.parametrize(
    "body, said",
    [('<a href="none.html">a</a>', "leads to no file"), ('<a href="#none">a</a>', "no such anchor"),
     ('<a href="b.html#none">a</a>', "no such anchor"), ('<img src="no.png">', "leads to no file"),
     ('<script data-src="none.js"></script>', "leads to no file"),
     ('<a href="sub">a</a>', "leads to no file"), ('<a href="../b.html">a</a>', "leads to no file"),
     ('<a href="/b.html">a</a>', "starts at the root"), ('<a href="//a.org">a</a>', "bad address"),
     ('<a href="javascript:go()">a</a>', "bad address"),
     ('<img srcset="b.html 1x, no.png 2x">', "leads to no file"),
     ('<p style="background: url(none.png)">', "leads to no file"),
     ('<meta http-equiv="refresh" content="0; url=none.html">', "leads to no file"),
     ('<svg><use href="#none"></use></svg>', "no such anchor"),
     ('<link rel="stylesheet" href="a.css">', "leads to no file: none.woff2")],
)  # fmt: skip
def test_a_broken_address_is_found(body, said, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.html").write_text('<p id="b"><a href="sub/c.html#c">c</a><a href="#b">b</a></p>')
    (tmp_path / "sub/c.html").write_text('<p id="c"><a href="../b.html?q=1#b">b</a></p>')
    assert not list(page_checks.broken(tmp_path, page_checks.read(tmp_path)))
    if ".css" in body:
        (tmp_path / "a.css").write_text("/* url(no) */ @font-face { src: url('none.woff2') }")
    (tmp_path / "a.html").write_text(body)
    found = list(page_checks.broken(tmp_path, page_checks.read(tmp_path)))
    assert len(found) == 1 and said in found[0]


def test_two_pages_with_one_title_are_found():
    pages = {name: page_checks.parse("<title>Same</title>") for name in ("a.html", "b.html")}
    assert len(list(page_checks.same_titles(pages))) == 2


def test_formulas_are_counted_in_the_source():
    text = r'<span class="math">\(x\)</span><div class="math">\[y\]</div><p class="math">none</p>'
    assert page_checks.maths(page_checks.parse(text)) == 2
