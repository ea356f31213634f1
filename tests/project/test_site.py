"""What a page says to machines, what it forbids and what it does without: book/ext at work.

The whole book is looked at as it was built; what depends on the address or on mistakes is tried on
a book of two pages.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import xml.etree.ElementTree as ElementTree
import zipfile
from urllib.parse import urlsplit

import lean
import lighthouse
import live
import markup
import offline
import publish
import pytest
import stamp_repository
import styles
import yaml
from notebook_files import ROOT, notebooks, read

FORK = "https://github.com/Me/my-fork"
PAGES = "https://me.github.io/my-fork/"


@pytest.fixture(scope="module")
def folder(built):
    """The folder of the built HTML."""
    return built[0]


@pytest.fixture(scope="module")
def pages(folder):
    """{"book/intro.html": Page} of every page."""
    return {
        path.relative_to(folder).as_posix(): markup.Page(path.read_text("utf-8"))
        for path in markup.pages(folder)
    }


@pytest.fixture(scope="module")
def texts(pages):
    """The pages that the contents name."""
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    names = re.findall(r"(?:file|root): (\S+)", toc)
    return {name: pages[f"{name}.html"] for name in names}


def meta(page, name):
    """The contents of the <meta> elements with this name, property or http-equiv."""
    kinds = ("name", "property", "http-equiv")
    found = [e.attributes for e in page.all("meta")]
    return [a["content"] for a in found if name in [a.get(kind) for kind in kinds]]


def facts(page):
    """The JSON-LD of a page."""
    kind = "application/ld+json"
    found = [e.content for e in page.all("script") if e.attributes.get("type") == kind]
    assert len(found) == 1
    return json.loads(found[0])


# ---------------------------------------------------------------- the policy


def test_every_page_has_one_policy_before_anything_else(pages):
    for name, page in pages.items():
        assert len(meta(page, "Content-Security-Policy")) == 1, name
        first = [e for e in page.elements if e.tag in ("link", "script", "style", "img", "meta")][
            :2
        ]
        assert "charset" in first[0].attributes, name
        assert first[1].attributes.get("http-equiv") == "Content-Security-Policy", name


def test_policy_allows_the_pages_own_scripts_and_no_other(pages):
    for name, page in pages.items():
        rules = dict(
            rule.split(" ", 1) for rule in meta(page, "Content-Security-Policy")[0].split("; ")
        )
        assert rules["default-src"] == rules["object-src"] == rules["base-uri"] == "'none'"
        assert not re.search(r"unsafe|https?:|\*|data:|blob:", rules["script-src"]), name
        hashes = set(re.findall(r"'sha256-([^']+)'", rules["script-src"]))
        inline = [s for s in page.all("script") if "src" not in s.attributes]
        run = [s.content for s in inline if "json" not in s.attributes.get("type", "")]
        assert hashes == {
            base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run
        }, name


def test_nothing_is_there_that_the_policy_forbids(pages):
    assert {name: [*publish.forbidden(page)] for name, page in pages.items()} == {
        name: [] for name in pages
    }


SAFE = (
    "<html><head><meta charset='utf-8'><script>theme()</script></head><body><article>{}</article>"
)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<script>steal()</script>", "a script in the text: 'steal()'"),
        ("<script src='_live/../../x.js'></script>", "a script in the text"),
        ("<script type=module>import 'x'</script>", "a script in the text"),
        ("<img src=x onerror='steal()'>", "<img onerror>"),
        ("<a href=' JavaScript:steal()'>x</a>", "<a> with a javascript: address"),
        ("<iframe src='x.html'></iframe>", "<iframe>"),
        ("<base href='https://example.org'>", "<base>"),
    ],
)
def test_what_an_output_smuggles_in_is_reported_and_gets_no_hash(body, said):
    bad, good = markup.Page(SAFE.format(body)), markup.Page(SAFE.format("<p>x</p>"))
    assert any(complaint.startswith(said) for complaint in publish.forbidden(bad))
    assert not [*publish.forbidden(good)]
    assert publish.policy(bad) == publish.policy(good)


def test_a_live_figures_module_and_weights_are_let_through():
    module = f'<script type="module">{publish.LIVE}\nmount()</script>'
    weights = '<script defer src="../_live/0123456789abcdef.js"></script>'
    page = markup.Page(SAFE.format(module + weights + '<script type="application/json">1</script>'))
    assert not [*publish.forbidden(page)]
    assert publish.policy(page).count("'sha256-") == 2


def chromium():
    """Chromium's path. Without one a test is skipped; in continuous integration it fails."""
    named = [os.environ.get("GENCORE_CHROMIUM", ""), "chromium", "chromium-browser",
             "google-chrome", "google-chrome-stable"]  # fmt: skip
    if path := next(filter(None, map(shutil.which, named)), None):
        return path
    said = "Chromium was not found: the policy was not tried in a browser."
    pytest.fail(said) if os.environ.get("CI") in ("true", "1") else pytest.skip(said)


def test_an_injected_script_is_blocked(folder, tmp_path):
    """In Chromium, from a file: a script that comes into a page after the build does not run."""
    from playwright.sync_api import sync_playwright

    program = chromium()

    text = (folder / "book/results.html").read_text("utf-8")
    inline, late = (
        "<script>document.title = 'stolen'</script>",
        "<img src=x onerror=\"document.title='x'\">",
    )
    own = "<script>document.documentElement.dataset.mine = 1</script>"
    page = markup.Page(text.replace("</body>", f"{inline}{late}</body>"))
    copy = tmp_path / "page.html"
    copy.write_text(page.text, encoding="utf-8")
    sealed = tmp_path / "sealed.html"  # and one with a hash does: the policy blocks, nothing else
    sealed.write_text(f"<head><meta charset='utf-8'></head><body>{own}{inline}", encoding="utf-8")
    publish.protect(sealed)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        tab = browser.new_page()
        said = []
        tab.on("console", lambda message: said.append(message.text))
        tab.goto(copy.as_uri())
        assert tab.title().startswith("Results")
        assert (
            len([text for text in said if "Content Security Policy" in text and "inline" in text])
            >= 2
        )
        tab.goto(sealed.as_uri())
        assert tab.evaluate("document.documentElement.dataset.mine") == "1"
        browser.close()


# ---------------------------------------------------------------- what pages say of themselves


def test_descriptions(texts):
    found = {name: meta(page, "description") for name, page in texts.items()}
    assert all(len(value) == 1 and 50 <= len(value[0]) <= 160 for value in found.values()), found
    assert len({value[0] for value in found.values()}) == len(found)
    assert not [value for value in found.values() if re.search(r"[{}$`]|glue", value[0])]


def test_social_tags_follow_the_description(texts):
    for name, page in texts.items():
        assert meta(page, "og:description") == meta(page, "description"), name
        assert meta(page, "og:title") and meta(page, "twitter:card"), name
        assert meta(page, "og:type") == ["book" if name == "book/intro" else "article"]


def test_facts(texts):
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    book = facts(texts["book/intro"])
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]
    assert book["@type"] == "Book" and book["name"] == title
    assert [author["name"] for author in book["author"]] == [a["name"] for a in cff["authors"]]
    assert book["inLanguage"] == "en" and book["version"] == cff["version"]
    assert len(book["license"]) == len(cff["license"])
    for path in notebooks():
        chapter = facts(texts[f"notebooks/{path.stem}"])
        assert chapter["@type"] == ["Chapter", "LearningResource"]
        assert chapter["position"] == int(path.stem[:2]) and chapter["isPartOf"]["name"] == title
        assert read(path)["cells"][0]["source"].startswith(f"# {chapter['name']}")
    assert facts(texts["book/results"])["@type"] == "WebPage"


def test_every_page_is_whole_without_the_theme(pages):
    for name, page in pages.items():
        assert page.all("html")[0].attributes.get("lang") == "en", name
        assert len(meta(page, "viewport")) == 1 and page.all("title"), name
        assert [e for e in page.all("link") if "icon" in e.attributes.get("rel", "")], name
    for name in ("search.html", "genindex.html", "404.html"):
        assert meta(pages[name], "robots") == ["noindex"], name


def test_texts_for_language_models(folder, texts):
    short, full = ((folder / name).read_text("utf-8") for name in ("llms.txt", "llms-full.txt"))
    links = re.findall(r"\]\(([^)]+)\)", short)
    names = [link.removesuffix(".html").removeprefix(published(texts)) for link in links]
    assert set(names) == {*texts, "llms-full.txt"} - {"book/intro"}
    assert short.startswith("# ") and short.splitlines()[2].startswith("> ")
    for path in notebooks():
        assert read(path)["cells"][0]["source"].splitlines()[0] in full
    assert "gencore.vae" in full and "<!--" not in full and "base64," not in full
    assert not re.search(r"\{(run|glue:text)\}`[a-z]", full)


def test_comments_are_not_part_of_the_text():
    text = ("> <!-- a mark -->\n> The bound is <!--n:elbo-->−104.7<!--/n--> nats.\n<!-- two\nlines -->\n"
            "<!--n:x-->4<!--/n--> units\n")  # fmt: skip
    assert publish.without_comments(text) == "> The bound is −104.7 nats.\n4 units"


def published(texts):
    """The address at which this copy of the book is published, or ""."""
    return publish.pages_address(stamp_repository.address())


def test_addresses_are_those_of_the_repository(folder, pages, texts):
    base = published(texts)
    canonical = {
        name: [
            e.attributes["href"] for e in page.all("link") if e.attributes.get("rel") == "canonical"
        ]
        for name, page in pages.items()
    }
    if base:
        assert {f"{n}.html": [f"{base}{n}.html"] for n in texts}.items() <= canonical.items()
    else:
        assert not any(canonical.values()) and not (folder / "sitemap.xml").exists()
        assert not [n for n, p in pages.items() if "github.io" in p.text or "OWNER" in p.text]


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        (FORK, PAGES),
        (f"{FORK}/", PAGES),
        (f"{FORK}.git", PAGES),
        ("https://github.com/me/me.github.io", "https://me.github.io/"),
        (stamp_repository.PLACEHOLDER, ""),
        ("https://gitlab.com/me/my-fork", ""),
        ("", ""),
    ],
)
def test_pages_address(repository, address):
    assert publish.pages_address(repository) == address


# ---------------------------------------------------------------- a book of two pages

FIGURE = """<div class="gencore-live" id="live-0000{n}" data-figure="latent" role="group">
<style>.gencore-live {{ margin: 0 }}</style>
<div class="stage"><img alt="A digit" width="4" height="4" src="data:image/png;base64,{png}"></div>
<script type="application/json">{{"n": {n}, "weights": "{weights}"}}</script>
<script type="module">/* explore.js */
mount("dataset.src")</script>
</div>"""


def figure(n=1, png="AAAA", weights="A" * 5000):
    """The HTML of a live figure as gencore.explore makes it."""
    return FIGURE.format(n=n, png=png, weights=weights)


def cell(n):
    """A code cell with a live figure, and with what only a kernel could show."""
    options = {"figure": {"caption": f"Drag $x_{n}$.", "name": f"fig-live-{n}"}}
    data = {"text/html": figure(n).splitlines(True), "text/plain": ["<live figure>"],
            "application/vnd.jupyter.widget-view+json": {"model_id": "0", "version_major": 2}}  # fmt: skip
    output = {"output_type": "execute_result", "execution_count": 1, "metadata": {}, "data": data}
    return {"cell_type": "code", "id": f"c{n}", "execution_count": 1, "source": ["draw()"],
            "metadata": {"mystnb": options}, "outputs": [output]}  # fmt: skip


LANGUAGE = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
CONF = """
import sys; sys.path.insert(0, {ext!r})
project = html_title = "Two pages"
extensions = ["myst_nb", "lean", "live", "publish"]
nb_execution_mode, nb_ipywidgets_js, numfig, root_doc = "off", {{}}, True, "intro"
html_theme, templates_path = "sphinx_book_theme", [{templates!r}]
html_theme_options = {{"repository_url": {repository!r}}}
myst_enable_extensions = ["dollarmath"]
"""
INTRO = """# Front

A first paragraph that is long enough to say what the whole of this small book is about.

```{live} NAME
:name: fig-here
A *caption* of its own.
```

See {numref}`fig-here`.

```{toctree}
:caption: Chapters
chapter
```
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """`small(repository, name)` builds a book whose front page shows the live figure `name`."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    def build(repository=stamp_repository.PLACEHOLDER, name="fig-live-1", builder="html"):
        source = tmp_path_factory.mktemp("small")
        title = {
            "cell_type": "markdown",
            "id": "t",
            "metadata": {},
            "source": [
                "# Chapter\n\nBoth {numref}`fig-live-1` and {numref}`fig-live-2` are to be found in it."
            ],
        }
        notebook = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": LANGUAGE,
            "cells": [title, cell(1), cell(2)],
        }
        (source / "chapter.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
        (source / "intro.md").write_text(INTRO.replace("NAME", name), encoding="utf-8")
        settings = {"ext": str(ROOT / "book/ext"), "templates": str(ROOT / "book/templates")}
        (source / "conf.py").write_text(CONF.format(repository=repository, **settings))
        said, out = (source / "said.txt").open("w+"), source / "out"
        with patch_docutils(str(source)), docutils_namespace(), contextlib.closing(said):
            app = Sphinx(source, source, out, source / "trees", builder, status=None, warning=said)
            app.build()
            said.seek(0)
            return out, said.read()

    return build


@pytest.fixture(scope="module")
def unpublished(small):
    """The small book as it is while the repository has no address."""
    return small()


def test_live_figures_are_numbered_and_share_their_files(unpublished):
    out, said = unpublished
    assert "WARNING" not in said
    chapter, front = ((out / f"{name}.html").read_text("utf-8") for name in ("chapter", "intro"))
    for text, count in ((chapter, 2), (front, 1)):
        assert text.count('class="gencore-live"') == count
        assert text.count("/* explore.js */") == text.count("<style>.gencore-live") == 1
        assert "<live figure>" not in text and text.count('class="caption-number">Fig. ') == count
    assert 'id="fig-live-2"' in chapter and 'id="fig-here"' in front
    assert "<em>caption</em>" in front and "math" in chapter.partition("caption-text")[2]
    assert chapter.count('<span class="std std-numref">Fig. ') == 2
    assert set(re.findall(r'data-src="(\S+?)"', front)) <= set(
        re.findall(r'data-src="(\S+?)"', chapter)
    )
    assert len(list((out / "_live").glob("*.js"))) == 2


def test_an_unknown_live_figure_is_a_warning(small):
    assert "no live figure is called 'fig-nowhere'" in small(name="fig-nowhere")[1]


def test_other_builders_get_the_caption(small):
    out, said = small(builder="text")
    text = (out / "chapter.txt").read_text("utf-8")
    assert "Drag" in text and "explore.js" not in text and "WARNING" not in said


def test_an_unpublished_book_names_no_address(unpublished):
    out = unpublished[0]
    for path in markup.pages(out):
        assert "canonical" not in path.read_text("utf-8") and "og:url" not in path.read_text(
            "utf-8"
        )
        assert "github" not in path.read_text("utf-8"), path.name
    assert not (out / "sitemap.xml").exists()
    assert "Sitemap" not in (out / "robots.txt").read_text()
    assert "](chapter.html)" in (out / "llms.txt").read_text("utf-8")


def test_a_published_book_names_its_own(small):
    """`make repo` changes one line of _config.yml; all of this follows from it."""
    out, said = small(repository=FORK)
    assert "WARNING" not in said
    page = markup.Page((out / "chapter.html").read_text("utf-8"))
    links = [
        e.attributes["href"] for e in page.all("link") if e.attributes.get("rel") == "canonical"
    ]
    assert links == meta(page, "og:url") == [f"{PAGES}chapter.html"]
    assert meta(page, "og:image") == [f"{PAGES}_static/social.png"]
    assert meta(page, "og:image:width") == ["1200"] and meta(page, "og:image:height") == ["630"]
    assert meta(page, "og:image:alt") == ["Two pages"]
    assert meta(page, "twitter:card") == ["summary_large_image"]
    assert facts(page)["url"] == f"{PAGES}chapter.html" and facts(page)["isPartOf"]["url"] == PAGES
    tree = ElementTree.parse(out / "sitemap.xml")
    assert [e.text for e in tree.iter() if e.tag.endswith("loc")] == [
        f"{PAGES}intro.html", f"{PAGES}chapter.html"]  # fmt: skip
    assert f"Sitemap: {PAGES}sitemap.xml" in (out / "robots.txt").read_text()
    assert f"]({PAGES}chapter.html)" in (out / "llms.txt").read_text("utf-8")
    assert f'<link rel="canonical" href="{PAGES}intro.html" />' in (out / "index.html").read_text()
    assert "canonical" not in (out / "search.html").read_text("utf-8")


def test_ids_are_made_unique():
    shared = live.share([figure(1), figure(1), figure(2)])
    page = markup.Page("".join(shared))
    ids = [e.attributes["id"] for e in page.all("div") if "id" in e.attributes]
    assert ids == ["live-00001", "live-00001-2", "live-00002"]
    assert [e.tag for e in page.all("style")] == ["style"]
    assert "explore.js" in shared[2] and "explore.js" not in shared[0] + shared[1]
    assert live.share([]) == []


@pytest.mark.parametrize("lazy", [True, False])
def test_weights_outside_the_page_are_the_same(lazy, tmp_path):
    html = figure(
        weights='<\\/é"'.replace('"', "") * 1500, png=base64.b64encode(bytes(6000)).decode()
    )
    page = markup.Page(live.outside(html, tmp_path, "../", lazy))
    holder = next(e for e in page.all("script") if e.attributes.get("type") == "application/json")
    source = holder.attributes.get("data-src") or page.all("script")[1].attributes["src"]
    assert source.startswith("../_live/") and holder.content == ""
    code = (tmp_path / source.removeprefix("../")).read_text("utf-8")
    value = code.removeprefix(live.FILL.partition("{}")[0]).removesuffix(
        live.FILL.partition("{}")[2]
    )
    assert json.loads(value) == re.search(r"json\">(.*?)</script>", html)[1]
    picture = page.all("img")[0].attributes["src"]
    assert (tmp_path / picture.removeprefix("../")).read_bytes() == bytes(6000)


# ---------------------------------------------------------------- what pages do without


def test_scripts_only_where_they_are_of_use(pages):
    for name, page in pages.items():
        classes = {c for e in page.elements for c in e.classes}
        loaded = [e for e in page.all("script") if "src" in e.attributes]
        names = {urlsplit(e.attributes["src"]).path.rpartition("/")[2] for e in loaded}
        assert not names & lean.NEVER and "tex-mml-chtml.js" not in names, name
        assert bool(names & lean.SEARCH) == (name == "search.html"), name
        assert ("maths.js" in names) == ("math" in classes), name
        assert ("copybutton.js" in names) == ("highlight" in classes), name
        assert all({"defer", "async"} & set(e.attributes) for e in loaded), name
        assert len(names) == len(loaded), name


def test_one_small_style_sheet(folder, pages):
    for name, page in pages.items():
        links = [e for e in page.all("link") if e.attributes.get("rel") == "stylesheet"]
        assert len(links) <= 1, name
    css = (folder / lean.SHEET).read_text("utf-8")
    assert len(css) < 180_000 and "Bootstrap" in css and css.startswith('@charset "utf-8";')
    named = re.findall(r"""url\(["']?(?!data:|#)([^"')]+)""", css)
    assert named and all((folder / "_static" / name).exists() for name in named)
    assert "Font Awesome" not in "".join(re.findall(r"@font-face *\{[^}]*\}", css))


def test_static_files_are_those_in_use(folder):
    size = sum(path.stat().st_size for path in (folder / "_static").rglob("*") if path.is_file())
    assert size < 2e6
    texts = "".join(path.read_text("utf-8") for path in markup.pages(folder))
    css = (folder / lean.SHEET).read_text("utf-8")
    for path in (folder / "_static").rglob("*"):
        if path.is_file() and "mathjax" not in path.parts:
            name = path.relative_to(folder).as_posix()
            assert name in texts or name.removeprefix("_static/") in css, name


def test_pictures_keep_their_place_and_wait_their_turn(pages):
    for name, page in pages.items():
        images = [e.attributes for e in page.all("img") if "article" in e.inside]
        assert all("width" in a and "height" in a for a in images if a["src"].endswith(".png")), (
            name
        )
        assert all(a.get("loading") == "lazy" for a in images[1:]), name
        assert not images or images[0].get("loading") != "lazy", name


CSS = """@charset "utf-8"; /*! License: kept */ /* .known, but dropped */
.used, .unused { color: red } .unused > a { x: y } #known a:not(.unused) { c: "}" }
@media (min-width: 10px) { .unused { a: b } .used::before { content: "{,}" } }
@media print { .unused { a: b } } @layer one, two; @keyframes spin { to { rotate: 1turn } }
a:is(.unused, .used) { background: url("img/x.png") } #unused { a: b } a#known.unused {}
@font-face { font-family: "Font Awesome 6"; src: url(a.woff) } .used.unused { a: b }
@supports (display: grid) { @media print { .known { --empty: ; } } .unused { a: b } }
[class*="unused"] { d: e } :root { --one: 1 } .used /* , */ > .known, .unused { f: g }"""


def test_rules_that_nothing_can_match_are_dropped():
    css = styles.bundle([CSS], {"used", "known"})
    lines = css.splitlines()
    assert lines[:2] == ['@charset "utf-8";', "/*! License: kept */"]
    assert [re.sub(" +", " ", line).replace(" {", "{") for line in lines[2:]] == [
        ".used{ color: red }",
        '#known a:not(.unused){ c: "}" }',
        '@media (min-width: 10px){.used::before{ content: "{,}" }}',
        "@layer one, two;",
        "@keyframes spin{ to{ rotate: 1turn } }",
        'a:is(.unused, .used){ background: url("img/x.png") }',
        "@supports (display: grid){@media print{.known{ --empty: ; }}}",
        '[class*="unused"]{ d: e }',
        ":root{ --one: 1 }",
        ".used > .known{ f: g }",
    ]
    assert ".w-1" in styles.bundle([".w-1 { a: b }"], styles.words_of(['<p class="w-1 x">']))
    with pytest.raises(ValueError, match="line 2"):
        styles.bundle([".known { a: b }\n} .used"], {"known"})


def test_css_means_the_same_when_it_was_written_again():
    """Strings, escapes and addresses, as a second reading of the result finds them."""
    css = '.a\\:b::before { content: "\\201C \\"\\f107"; width: calc(1px + 2%); x: url(a\\)b) }'
    once = styles.bundle([css], {"a:b"})
    assert styles.bundle([once], {"a:b"}) == once and "“" in once


def test_editing_leaves_the_rest_as_it_was():
    text = "<p title='a>b'>é &amp; <br/><script>if (a</b/) '<p>'</script>\n<IMG SRC=x>"
    page = markup.Page(text)
    assert page.edited([]) == text
    assert [text[e.start : e.end] for e in page.elements] == [
        "<p title='a>b'>", "<br/>", "<script>", "<IMG SRC=x>"]  # fmt: skip
    assert page.elements[2].content == "if (a</b/) '<p>'"
    with pytest.raises(ValueError):
        page.edited([(0, 5, ""), (4, 6, "")])


# ---------------------------------------------------------------- offline, and served


def test_archive_is_complete_and_always_the_same(folder, tmp_path):
    first, second = (offline.pack(folder, tmp_path / name) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    digest, name = (tmp_path / "a" / f"{first.name}.sha256").read_text().split()
    assert digest == hashlib.sha256(first.read_bytes()).hexdigest() and name == first.name
    with zipfile.ZipFile(first) as archive:
        assert archive.testzip() is None
        top = f"{offline.NAME}-{stamp_repository.version()}/"
        unpacked = {n.removeprefix(top): archive.read(n) for n in archive.namelist()}
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert {n for n in there if not n.rpartition("/")[2].startswith(".")} == set(unpacked)
    assert all(there[name].read_bytes() == data for name, data in unpacked.items())
    assert not list(tmp_path.rglob("*.new"))


def test_a_book_that_is_not_built_is_said(tmp_path, capsys):
    assert "make book" in offline.main([str(tmp_path), str(tmp_path / "dist")])
    assert "usage" in offline.main([])


# ---------------------------------------------------------------- the record of Lighthouse


def report(page, performance, spoilt=()):
    """A report of Lighthouse as far as it is read."""
    audits = {name: {"score": 1, "numericValue": 10} for name in lighthouse.TIMES}
    audits |= {name: {"score": 0} for name in spoilt} | {"unscored": {"score": None}}
    refs = [{"id": name, "weight": 1} for name in audits]
    categories = {name: {"score": 1, "auditRefs": refs} for name in lighthouse.CATEGORIES}
    categories["performance"]["score"] = performance
    return {"requestedUrl": f"http://localhost:1/{page}", "lighthouseVersion": "1.0",
            "audits": audits, "categories": categories,
            "environment": {"benchmarkIndex": 1000}}  # fmt: skip


@pytest.mark.parametrize("slow, said", [(0.9, 0), (0.8, "Below 95: book/intro.html mobile")])
def test_lighthouse_keeps_medians_and_says_what_is_below_the_bar(slow, said, tmp_path, monkeypatch):
    def collect(book, device):
        scores = (slow, 0.99, 0.97 if slow == 0.9 else 0.9)
        return [report(page, score if page == lighthouse.PAGES[0] and device == "mobile" else 1,
                       ["alt"] if score == slow else [])
                for page in lighthouse.PAGES for score in scores]  # fmt: skip

    (tmp_path / "book").mkdir()
    monkeypatch.setattr(lighthouse, "ROOT", tmp_path)
    monkeypatch.setattr(lighthouse, "collect", collect)
    assert lighthouse.main("_build/html") == said
    record = json.loads((tmp_path / "book/quality.json").read_text())
    first = record["medians"]["book/intro.html mobile"]
    assert first["performance"] == (97 if said == 0 else 90) and first["failed"] == ["alt"]
    assert first["FCP"] == 10 and first["machine"] == 1000 and record["lighthouse"] == "1.0"
    assert len(record["medians"]) == len(lighthouse.PAGES) * len(lighthouse.DEVICES)


def test_lighthouse_measured_what_the_book_promises():
    record = json.loads((ROOT / "book/quality.json").read_text(encoding="utf-8"))
    names = {f"{page} {device}" for page in lighthouse.PAGES for device in lighthouse.DEVICES}
    assert set(record["medians"]) == names and record["runs"] >= lighthouse.RUNS
    for median in record["medians"].values():
        assert all(median[category] >= lighthouse.BAR for category in lighthouse.CATEGORIES)
