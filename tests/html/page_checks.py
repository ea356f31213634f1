"""Checks of built HTML without a browser: each function returns complaints, one line each."""

import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import yaml
from notebook_files import ROOT

VOID = set("area base br col embed hr img input link meta source track wbr".split())
URLS = {"href", "src", "action", "poster", "data", "xlink:href", "data-src"}  # they name a file
HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"]
FILE_NAME = re.compile(r"\S+\.(png|svg|jpe?g|gif|webp|ico)|[0-9a-f]{16,}", re.I)


def contents():
    """The pages of the table of contents, in its order: "book/intro", ..."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


# What Sphinx and our extensions add to the contents stands at the end.
PAGES = [f"{name}.html" for name in [*contents(), "search", "genindex", "404"]]


class Node:
    """One element: `tag`, its attributes, its parent, and its children (elements and strings)."""

    def __init__(self, tag, attributes=(), parent=None):
        self.tag, self.parent, self.children = tag, parent, []
        self.attributes = {name: value or "" for name, value in attributes}

    def get(self, name, default=None):
        """An attribute's value."""
        return self.attributes.get(name, default)

    def has(self, name):
        """Whether the element has this class."""
        return name in self.get("class", "").split()

    def all(self, *tags):
        """The elements below, in the page's order; if tags are named, only those."""
        for child in self.children:
            if isinstance(child, Node):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    def classed(self, name):
        """The elements below that have this class."""
        return [node for node in self.all() if node.has(name)]

    def above(self):
        """The elements that this one is in, the nearest first."""
        node = self.parent
        while node:
            yield node
            node = node.parent

    def text(self):
        """The text below, as it stands in the source."""
        return "".join(c if isinstance(c, str) else c.text() for c in self.children)

    def __str__(self):
        shown = "".join(f' {k}="{v[:60]}"' for k, v in self.attributes.items() if k in
                        ("id", "class", "src", "href"))  # fmt: skip
        return f"<{self.tag}{shown}>"


class Tree(HTMLParser):
    """Builds the Nodes of a page."""

    def __init__(self):
        super().__init__()
        self.root = self.here = Node("")

    def handle_starttag(self, tag, attributes):
        node = Node(tag, attributes, self.here)
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_startendtag(self, tag, attributes):
        self.here.children.append(Node(tag, attributes, self.here))

    def handle_endtag(self, tag):
        node = self.here
        while node and node.tag != tag:  # an end without a start closes nothing
            node = node.parent
        if node and node.parent:
            self.here = node.parent

    def handle_data(self, data):
        self.here.children.append(data)


def parse(text):
    """The root Node of an HTML text."""
    tree = Tree()
    tree.feed(text)
    tree.close()
    return tree.root


def read(folder):
    """{"book/intro.html": root} of all pages of a built book."""
    return {
        str(path.relative_to(folder)): parse(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.relative_to(folder).parts
    }


def redirects(root):
    """Whether the page only leads to another one."""
    return any(node.get("http-equiv", "").lower() == "refresh" for node in root.all("meta"))


# ---------------------------------------------------------------- one page


def frame(root):
    """A language, one title that says something, no id twice."""
    html = next(root.all("html"), Node("html"))
    if not re.fullmatch(r"[a-z]{2}(-[A-Z]{2})?", html.get("lang", "")):
        yield f"lang is {html.get('lang')!r}"
    titles = [node for node in root.all("title") if not any(a.tag == "svg" for a in node.above())]
    if len(titles) != 1 or not titles[0].text().strip():
        yield f"{len(titles)} titles: {[node.text() for node in titles]}"
    ids = [node.get("id") for node in root.all() if node.get("id")]
    for twice in sorted({i for i in ids if ids.count(i) > 1}):
        yield f"the id {twice!r} stands {ids.count(twice)} times"


def headings(root):
    """Exactly one h1, and no level is skipped on the way down."""
    found = [(int(node.tag[1]), node.text().strip()) for node in root.all(*HEADINGS)]
    if (n := sum(level == 1 for level, _ in found)) != 1:
        yield f"{n} headings of level 1"
    for (before, _), (level, title) in zip([(0, ""), *found], found, strict=False):
        if level > before + 1:
            yield f"heading {title!r} goes from level {before} to {level}"


def in_named_link(image):
    """Whether an image stands in a link that has a name without it."""
    return any(a.tag == "a" and (a.text().strip() or a.get("aria-label")) for a in image.above())


def alts(root):
    """Each image says what is to be seen: 15 to 150 characters, no file name, not twice."""
    seen = set()
    for image in root.all("img"):
        alt = " ".join(image.get("alt", "").split())
        if "alt" in image.attributes and len(alt) < 15 and in_named_link(image):
            continue  # the link's text names it
        if not 15 <= len(alt) <= 150:
            yield f"alt text of {len(alt)} characters: {image}"
        elif FILE_NAME.fullmatch(alt) or alt in os.path.basename(image.get("src", "")):
            yield f"the alt text is a file name: {alt!r}"
        elif alt in seen:
            yield f"alt text is not unique: {alt!r}"
        seen.add(alt)


def figures(root):
    """Each picture that a cell shows, and each live figure, has a numbered caption."""
    shown = [i for i in root.all("img") if any(a.has("cell_output") for a in i.above())]
    live = root.classed("gencore-live")
    shown = [i for i in shown if not any(a.has("gencore-live") for a in i.above())] + live
    for node in shown:
        figure = next((a for a in node.above() if a.tag == "figure"), Node("figure"))
        caption = next(figure.all("figcaption"), Node("figcaption"))
        number = "".join(n.text() for n in caption.classed("caption-number"))
        words = "".join(n.text() for n in caption.classed("caption-text"))
        if not re.search(r"\d", number):
            yield f"no number in its caption: {node}"
        if len(words.split()) < 3:
            yield f"no caption: {node}"


def maths(root):
    """How many formulas the source of the page has."""
    spans = [node for node in root.classed("math") if re.match(r"\s*\\[(\[]", node.text())]
    return len(spans)


def links_out(root):
    """Links to other hosts use https; a page's text has each of them once, its references again."""
    for node in root.all("a"):
        if urlsplit(node.get("href", "")).scheme not in ("", "https", "mailto", "data"):
            yield f"not https: {node}"
    links = [node for article in root.all("article") for node in article.all("a")]
    links = [node for node in links if urlsplit(node.get("href", "")).netloc]
    found = [(any(n.get("id") == "references" for n in node.above()), node.get("href"))
             for node in links]  # fmt: skip
    for listed, url in sorted({link for link in found if found.count(link) > 1}):
        yield f"linked {found.count((listed, url))} times: {url}"


def loads_out(root):
    """Nothing is loaded, or connected to ahead of time, from another host."""
    silent = {"canonical", "license", "author", "alternate", "me", "cite"}
    for node in root.all():
        names = URLS if node.tag not in ("a", "area") else ()
        if node.tag == "link" and set(node.get("rel", "").lower().split()) <= silent:
            continue
        urls = [node.get(name, "") for name in names] + list(in_css(node.get("style", "")))
        urls += [u.split()[0] for u in node.get("srcset", "").split(",") if u.strip()]
        if node.tag == "style":
            urls += list(in_css(node.text()))
        for url in urls:
            if urlsplit(url).netloc:
                yield f"loads {url}: {node}"


PAGE = [frame, headings, alts, figures, links_out, loads_out]


# ---------------------------------------------------------------- pages together


IN_CSS = re.compile(r"""url\(\s*("[^"]*"|'[^']*'|[^)"'\s]*)\s*\)|@import\s+("[^"]*"|'[^']*')""")


def in_css(text):
    """The addresses in a style sheet."""
    found = IN_CSS.findall(re.sub(r"/\*.*?\*/", "", text, flags=re.S))
    return [(a or b).strip("\"'") for a, b in found if (a or b).strip("\"'")]


def named(root):
    """The addresses that a page names: to load or to link."""
    for node in root.all():
        yield from (node.get(name) for name in URLS if node.get(name))
        yield from (u.split()[0] for u in node.get("srcset", "").split(",") if u.strip())
        yield from in_css(node.get("style", ""))
        if node.tag == "style":
            yield from in_css(node.text())
        if node.get("http-equiv", "").lower() == "refresh":
            yield node.get("content").partition("url=")[2]


def anchors(root):
    """What a #fragment can lead to."""
    return {n.get("id") for n in root.all()} | {n.get("name") for n in root.all("a")}


def wrong(url, source, folder, pages):
    """What is wrong with an address named in the file `source`; None if it leads somewhere."""
    parts = urlsplit(url)
    if parts.scheme == "javascript" or (parts.netloc and not parts.scheme):
        return "bad address"
    if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
        return None
    if parts.path.startswith("/"):
        return "starts at the root: wrong under a sub-path"
    path = os.path.normpath(os.path.join(os.path.dirname(source), unquote(parts.path)))
    path = path if parts.path else source
    if path.startswith("..") or not (folder / path).is_file():
        return "leads to no file"
    if parts.fragment and path in pages and unquote(parts.fragment) not in anchors(pages[path]):
        return "no such anchor"
    return None


def broken(folder, pages):
    """Addresses in pages and style sheets that lead nowhere when the folder is opened as files."""
    named_in = {name: set(named(root)) for name, root in pages.items()}
    for path in sorted(folder.rglob("*.css")):
        named_in[str(path.relative_to(folder))] = set(in_css(path.read_text(encoding="utf-8")))
    for source, urls in named_in.items():
        for url in sorted(urls):
            if problem := wrong(url, source, folder, pages):
                yield f"{source}: {problem}: {url[:120]}"


def same_titles(pages):
    """Two pages with one title."""
    titles = {n: next(root.all("title"), Node("")).text().strip() for n, root in pages.items()}
    for name, title in titles.items():
        if list(titles.values()).count(title) > 1:
            yield f"{name} is not alone with its title {title!r}"
