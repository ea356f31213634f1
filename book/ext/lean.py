"""Keep the pages lean: what the theme and its extensions load on every page, only where it is used.

Once all pages are written, each keeps one style sheet for nine (see styles.py), the scripts that it
has a use for, all of them deferred, and pictures that are fetched when they come near. Files that
no page asks for any more are removed. Launch and repository buttons would lead to a dead address
while `_config.yml` still has its placeholder, so they are left out until then.
"""

import hashlib
import posixpath
import re
import struct
from pathlib import Path

import markup
import styles
from sphinx.util import logging

PLACEHOLDER = "github.com/OWNER/"
SHEET = "_static/all.css"
MATHJAX = "/mathjax/"
NEVER = {"fontawesome.js", "sphinx-thebe.js"}  # the templates draw the icons; Thebe is off
ONLY_WITH = {  # script -> one of these classes must be on the page
    "clipboard.min.js": {"highlight"},
    "copybutton.js": {"highlight"},
    "togglebutton.js": {"toggle", "dropdown"},
    "design-tabs.js": {"sd-tab-set"},
    "maths.js": {"math"},
}
SEARCH = {"searchtools.js", "language_data.js", "searchindex.js"}
INLINE = {  # beginning of an inline script -> what it is for, or None if nothing reads it
    "DOCUMENTATION_OPTIONS.": None,  # version switcher and search as you type: there are none
    "window.MathJax": "maths.js",
    "let toggle": "togglebutton.js",
    "var togglebutton": "togglebutton.js",
    "const THEBE": "sphinx-thebe.js",
    "kernelName": "sphinx-thebe.js",
}
logger = logging.getLogger(__name__)


def options(app, config):
    """One search box, in the sidebar; without an address, no button that needs one."""
    theme = config.html_theme_options
    theme["navbar_persistent"] = []
    if PLACEHOLDER in theme.get("repository_url", ""):
        theme["launch_buttons"] = {}
        for button in ("repository", "issues", "edit_page"):
            theme[f"use_{button}_button"] = False


def wanted(script, classes, searching):
    """Whether a page with these classes has a use for a script, external or inline."""
    source = script.attributes.get("src", "").partition("?")[0]
    name = posixpath.basename(source)
    if not source:
        text = script.content.strip()
        name = next((INLINE[begin] for begin in INLINE if text.startswith(begin)), "")
    thebe = script.attributes.get("type") == "text/x-thebe-config"
    if thebe or name is None or name in NEVER or (name in SEARCH and not searching):
        return False
    return name not in ONLY_WITH or bool(ONLY_WITH[name] & classes)


def scripts(page, searching):
    """The edits that leave out scripts without a use, repeated ones, and defer the others."""
    classes = {name for element in page.elements for name in element.classes}
    seen = set()
    sources = [e.attributes.get("src", "") for e in page.all("script")]
    maths = next((source for source in sources if MATHJAX in source), "")
    for script in page.all("script"):
        what = script.attributes.get("src") or script.content
        repeated = what in seen and "article" not in script.inside
        seen.add(what)
        if repeated or not wanted(script, classes, searching) or MATHJAX in what:
            yield script.start, script.close, ""
        elif what.partition("?")[0].endswith("/maths.js"):  # it fetches MathJax when it is time
            yield script.start, script.end, f'<script defer src="{what}" data-mathjax="{maths}">'
        elif "src" in script.attributes and not {"defer", "async"} & set(script.attributes):
            yield script.start, script.start + len("<script"), "<script defer"
    for link in page.all("link"):
        if link.attributes.get("rel") == "preload" and link.attributes.get("as") == "script":
            yield link.start, link.end, ""


def sheets(page):
    """The links to style sheets of the book's own."""
    found = [e for e in page.all("link") if e.attributes.get("rel") == "stylesheet"]
    return [e for e in found if "://" not in e.attributes["href"]]


def size(path):
    """(width, height) of a PNG file, or None."""
    head = path.read_bytes()[:24] if path.suffix == ".png" and path.exists() else b""
    return struct.unpack(">II", head[16:24]) if head[:4] == b"\x89PNG" else None


def images(page, folder):
    """The edits that give pictures their size and let all but the first wait for their turn."""
    found = [e for e in page.all("img") if "article" in e.inside]
    for i, image in enumerate(found):
        source, extra = image.attributes.get("src", ""), ""
        known = size(folder / source) if not source.startswith("data:") else None
        if known and not {"width", "height"} & set(image.attributes):
            extra += f' width="{known[0]}" height="{known[1]}"'
        if i and "loading" not in image.attributes:
            extra += ' loading="lazy"'
        if "decoding" not in image.attributes:
            extra += ' decoding="async"'
        yield image.start + len("<img"), image.start + len("<img"), extra


def bundle(folder, texts):
    """Write the one style sheet of all pages; returns its address with a version."""
    names = {}  # a dict keeps the order in which the pages load them
    for path, text in texts.items():
        for link in sheets(markup.Page(text)):
            names.setdefault((path.parent / link.attributes["href"].partition("?")[0]).resolve())
    scripts = [p.read_text("utf-8") for p in (folder / "_static").rglob("*.js")
               if "mathjax" not in p.parts and p.name not in NEVER]  # fmt: skip
    words = styles.words_of([*texts.values(), *scripts])
    css = styles.bundle([path.read_text("utf-8") for path in names], words)
    (folder / SHEET).write_text(css, encoding="utf-8")
    return f"{SHEET}?v={hashlib.sha256(css.encode()).hexdigest()[:8]}"


def lean(path, text, folder, sheet):
    """The text of one page, without what it does not need."""
    page = markup.Page(text)
    edits = [*scripts(page, path.name == "search.html"), *images(page, path.parent)]
    for i, link in enumerate(sheets(page)):
        # where the page is and whether it says so relatively (404.html does not) stays as it is
        href = link.attributes["href"]
        root = href[: href.index("_static/")]
        new = f'<link rel="stylesheet" href="{root}{sheet}" />'
        edits.append((link.start, link.end, "" if i else new))
    views = [e for e in page.all("meta") if e.attributes.get("name") == "viewport"]
    edits += [(e.start, e.end, "") for e in views[1:]]
    return page.edited(edits)


def quiet_search(folder):
    """Search results quote the pages, but not from a disk, where a page may not fetch others."""
    path = folder / "_static/documentation_options.js"
    text = path.read_text("utf-8")
    always, over_http = (
        f"SHOW_SEARCH_SUMMARY: {v}" for v in ("true", 'location.protocol !== "file:"')
    )
    if always not in text:
        logger.warning("%s is not as expected: search from a file will log errors", path.name)
    path.write_text(text.replace(always, over_http), encoding="utf-8")


def tidy(folder, pages):
    """Remove the static files that no page and no style sheet names; MathJax loads its own."""
    static = folder / "_static"
    named = set(re.findall(r"""url\(["']?([^"')]+)""", (folder / SHEET).read_text("utf-8")))
    for path in [p for p in static.rglob("*") if p.is_file() and "mathjax" not in p.parts]:
        name = path.relative_to(static).as_posix()
        if name not in named and not any(f"_static/{name}" in text for text in pages):
            path.unlink()
    for path in sorted((p for p in static.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def finish(app, error):
    """Go over all pages once they are written."""
    if error or app.builder.name != "html":
        return
    folder = Path(app.outdir)
    texts = {path: path.read_text("utf-8") for path in markup.pages(folder)}
    texts = {path: text for path, text in texts.items() if "_static/" in text}
    sheet = bundle(folder, texts)
    pages = {path: lean(path, text, folder, sheet) for path, text in texts.items()}
    for path, text in pages.items():
        path.write_text(text, encoding="utf-8")
    quiet_search(folder)
    tidy(folder, pages.values())


def setup(app):
    """Register with Sphinx; MyST-NB writes its style sheet at the end of the build, so after it."""
    app.connect("config-inited", options)
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
