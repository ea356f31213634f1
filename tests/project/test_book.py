"""`make book` builds without a warning, and its pages are whole and need no other host."""

import hashlib
import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from notebook_files import ROOT, notebooks

PAGES = [*sorted((ROOT / "book").glob("*.md")), *notebooks()]


class Page(HTMLParser):
    """What a page loads and links to, its anchors, and its images with their alt texts."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.anchors, self.images = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        self.anchors.add(a.get("id"))
        self.loads += [a["src"]] if "src" in a else []
        if tag == "link" and a.get("rel") in (
            "stylesheet",
            "preload",
            "icon",
            "manifest",
            "modulepreload",
        ):
            self.loads.append(a["href"])
        if tag == "a" and "href" in a:
            self.links.append(a["href"])
        if tag == "img":
            self.images.append((a.get("src", ""), a.get("alt")))


@pytest.fixture(scope="module")
def pages(built):
    """{path: Page} of every HTML page."""
    return {path: Page(path) for path in built[0].rglob("*.html") if "_static" not in path.parts}


def test_make_book_names_the_page_to_open(built):
    folder, output = built
    assert str(folder / "index.html") in output.splitlines()[-1]
    assert (folder / "index.html").exists()


def test_every_page_of_the_contents_is_there(pages):
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:file|root): (\S+)", toc))
    assert named == {str(p.relative_to(ROOT).with_suffix("")) for p in PAGES}
    assert named <= {"/".join(path.with_suffix("").parts[-2:]) for path in pages}


def test_no_other_host_is_asked(pages):
    for path, page in pages.items():
        assert not [url for url in page.loads if urlsplit(url).netloc], path.name
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"unpkg\.com|jsdelivr\.net|cdnjs\.|thebe_(js|selector)", text, re.I), (
            path.name
        )


def test_internal_links_and_files_exist(pages, built):
    missing = []
    for path, page in pages.items():
        for url in page.links + page.loads:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                missing.append((path.name, url))
            elif (
                parts.fragment
                and target in pages
                and unquote(parts.fragment) not in pages[target].anchors
            ):
                missing.append((path.name, url))
    assert not missing


def test_images_have_alt_text(pages):
    for path, page in pages.items():
        for src, alt in page.images:
            assert alt and not alt.endswith((".png", ".svg", ".jpg")), (path.name, src)


def test_pages_are_small(pages):
    assert {path.name: path.stat().st_size for path in pages if path.stat().st_size > 1.5e6} == {}


def test_api_page_names_the_package(built):
    text = (built[0] / "book/api.html").read_text(encoding="utf-8")
    assert 'id="gencore-vae-kl-normal"' in text and "gencore.store" in text


def test_results_page_has_every_trained_run(built):
    text = (built[0] / "book/results.html").read_text(encoding="utf-8")
    for path in (ROOT / "book/runs").glob("*.json"):
        assert re.sub(r"-s[12]$", "", path.stem) in text


def test_mathjax_is_the_published_one():
    folder = ROOT / "book/assets/mathjax"
    sums = dict(line.split()[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    own = {"README.md", "SHA256SUMS"}
    files = {
        f"./{p.relative_to(folder)}": p
        for p in folder.rglob("*")
        if p.is_file() and p.name not in own
    }
    assert sums == {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}


def test_no_static_folder_at_the_root():
    assert not (ROOT / "_static").exists(), (
        "Jupyter Book would load each of its scripts in every page"
    )


def test_nothing_is_executed_at_build_time():
    assert (
        yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]["execute_notebooks"] == "off"
    )


# ---------------------------------------------------------------- the bibliography


def entries():
    """{key: text of the entry} of refs.bib."""
    text = (ROOT / "book/refs.bib").read_text(encoding="utf-8")
    return dict(re.findall(r"^@\w+\{([^,]+),\n(.*?)^\}", text, re.M | re.S))


def test_every_entry_can_be_found_again():
    lacking = [
        k
        for k, text in entries().items()
        if not re.search(r"^\s*(doi|eprint|url)\s*=", text, re.M | re.I)
    ]
    assert not lacking
