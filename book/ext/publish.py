"""What a page says to machines, and what it forbids: metadata, site map, llms.txt, the CSP.

Everything follows from `_config.yml`, CITATION.cff and the pages. Published at GitHub Pages, a book
has the address https://OWNER.github.io/NAME/, so canonical links and the site map follow from the
repository's address, or from html.baseurl where that is set; while the address has its placeholder
there is none, and no page names an address that does not exist.

The Content-Security-Policy of a page allows the book's own files and, by their sha256, the inline
scripts that the theme and the live figures bring. A script in any other output of a notebook gets
no hash and is reported: it would not run.
"""

import base64
import hashlib
import html
import json
import posixpath
import re
import struct
from pathlib import Path

import markup
import results
import yaml
from docutils import nodes
from lean import PLACEHOLDER
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
LIVE = "/* explore.js */"  # how the module script of a live figure begins
EXECUTED = {"", "module", "text/javascript", "application/javascript"}
PICTURE = "_static/social.png"
NOT_PAGES = {"404", "book/404", "search", "genindex", "py-modindex"}
# Opened from a disk, a page's own files are `file:`, which 'self' means in Chromium but not in
# every browser. Over http the word does no harm: no browser lets a web page load files.
OWN = "'self' file:"
POLICY = {
    "default-src": "'none'",
    "script-src": OWN,
    "style-src": f"{OWN} 'unsafe-inline'",  # MathJax and the live figures style what they draw
    "img-src": f"{OWN} data:",
    "font-src": OWN,
    "connect-src": "'self'",
    "manifest-src": "'self'",
    "base-uri": "'none'",
    "form-action": OWN,  # the search box
    "object-src": "'none'",
}
logger = logging.getLogger(__name__)


# ---------------------------------------------------------------- addresses and metadata


def pages_address(repository):
    """https://OWNER.github.io/NAME/ of a repository at GitHub, or "" if there is none."""
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?/?", repository or "")
    if not found or PLACEHOLDER in repository:
        return ""
    owner, name = found[1].lower(), found[2]
    return f"https://{owner}.github.io/" + (
        "" if name.lower() == f"{owner}.github.io" else f"{name}/"
    )


def options(app, config):
    """The address that the pages will have."""
    if not config.html_baseurl:
        config.html_baseurl = pages_address(config.html_theme_options.get("repository_url", ""))


def citation():
    """CITATION.cff: authors, licences, version."""
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def licence(name):
    """The address of a licence's text; SPDX knows all of them, Creative Commons its own."""
    found = re.fullmatch(r"CC-(BY[A-Z-]*)-(\d\.\d)", name)
    if found:
        return f"https://creativecommons.org/licenses/{found[1].lower()}/{found[2]}/"
    return f"https://spdx.org/licenses/{name}.html"


def shortened(text, limit=158):
    """The beginning of a text: whole sentences if they say enough, or else whole words."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    sentences = text[: limit + 1].rpartition(". ")[0]
    if len(sentences) > limit / 2:
        return sentences + "."
    return text[: limit - 1].rpartition(" ")[0].rstrip(" ,;:(") + "…"


def prose(node):
    """The text of a paragraph as a reader sees it; a formula loses its dollars and commands."""
    text = re.sub(r"<!--.*?-->", "", node.astext())  # the marks of numbers
    for formula in node.findall(nodes.math):
        plain = re.sub(r"\\(?:mathbf|mathrm|text|mathcal)\b|[{}]", "", formula.astext())
        text = text.replace(formula.astext(), plain)
    return text


def description(doctree, title):
    """The first paragraph of running text, or the title where a page has none."""
    for paragraph in doctree.findall(nodes.paragraph):
        around = paragraph.parent
        running = isinstance(around, nodes.section) or "lede" in around.get("classes", [])
        if running and len(text := prose(paragraph)) >= 50:
            return shortened(text)
    return f"{title}: a page of the book From Latents to Images."


def numbered(env, pagename):
    """The number of a chapter as the contents print it, or None."""
    number = env.toc_secnumbers.get(pagename, {}).get("")
    return number[0] if number else None


def facts(app, pagename, title, text):
    """The page in the words of schema.org."""
    cff, base = citation(), app.config.html_baseurl
    book = {
        "@type": "Book",
        "name": app.config.html_title,
        "author": [{"@type": "Organization", "name": author.get("name")} if "name" in author else
                   {"@type": "Person", "name": f"{author['given-names']} {author['family-names']}"}
                   for author in cff["authors"]],
        "license": [licence(name) for name in cff["license"]],
        "inLanguage": app.config.language,
    }  # fmt: skip
    address = {"url": base} if base else {}
    if pagename == app.config.root_doc:
        about = {"description": text, "version": str(cff["version"]), "keywords": cff["keywords"],
                 "learningResourceType": "textbook", "isAccessibleForFree": True}  # fmt: skip
        return {"@context": "https://schema.org", **book, **about, **address}
    number = numbered(app.env, pagename)
    fact = {
        "@context": "https://schema.org",
        "@type": ["Chapter", "LearningResource"] if number else "WebPage",
        "name": title,
        "description": text,
        "author": book["author"],
        "license": book["license"],
        "inLanguage": book["inLanguage"],
        "isPartOf": {"@type": "Book", "name": book["name"], **address},
    }
    fact |= {"position": number} if number else {}
    return fact | ({"url": f"{base}{pagename}.html"} if base else {})


def picture(base, alt):
    """The tags of the preview picture: services that show one want a whole address."""
    path = ROOT / "book/assets" / posixpath.basename(PICTURE)
    if not base or not path.exists():
        return {}
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return {
        "og:image": base + PICTURE,
        "og:image:width": str(width),
        "og:image:height": str(height),
        "og:image:alt": alt,
    }


def describe(app, pagename, templatename, context, doctree):
    """Add the description, the tags of Open Graph and the facts to the head of one page."""
    if doctree is None or pagename in NOT_PAGES:
        if pagename in NOT_PAGES:
            context["pageurl"] = None
            context["metatags"] = (
                context.get("metatags", "") + '<meta name="robots" content="noindex" />'
            )
        return
    base, root = app.config.html_baseurl, pagename == app.config.root_doc
    title = html.unescape(re.sub(r"<[^>]+>", "", context.get("title", "")))
    title = re.sub(r"^\d+\.\s+", "", title)
    text = app.env.metadata[pagename].get("description") or description(doctree, title)
    graph = {
        "og:title": title,
        "og:type": "book" if root else "article",
        "og:site_name": app.config.html_title,
        "og:description": text,
        **({"og:url": f"{base}{pagename}.html"} if base else {}),
        **picture(base, app.config.html_title),
    }
    card = "summary_large_image" if "og:image" in graph else "summary"
    lines = (
        [("name", "description", text)] if 'name="description"' not in context["metatags"] else []
    )
    lines += [("property", name, value) for name, value in graph.items()]
    lines += [("name", "twitter:card", card)]
    tags = [
        f'<meta {kind}="{name}" content="{html.escape(value)}" />' for kind, name, value in lines
    ]
    data = json.dumps(facts(app, pagename, title, text), ensure_ascii=False).replace("</", "<\\/")
    tags.append(f'<script type="application/ld+json">{data}</script>')
    context["metatags"] = context.get("metatags", "") + "\n    " + "\n    ".join(tags)


# ---------------------------------------------------------------- files beside the pages


def contents(env):
    """[(caption of the part, [pages])] in the order of the book, the front page first."""
    root = env.config.root_doc
    parts = [(None, [root])]
    for toctree in env.get_doctree(root).findall(lambda node: node.tagname == "toctree"):
        parts.append((toctree.get("caption"), list(toctree["includefiles"])))
    return parts


def printed_by(output):
    """What an output says in words: a stream, or a table of numbers."""
    if output["output_type"] == "stream":
        return "".join(output["text"])
    recorded = "numbers" in output.get("metadata", {}).get("gencore", {})
    return "".join(output["data"]["text/plain"]) + "\n" if recorded else ""


def notebook_text(notebook):
    """A notebook as Markdown: its prose, its code, and what the code printed."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            printed = "".join(printed_by(output) for output in cell["outputs"]).strip()
            parts += [f"```text\n{printed}\n```"] if printed else []
            options = cell["metadata"].get("mystnb", {})
            if caption := options.get("figure", {}).get("caption"):
                alt = options.get("image", {}).get("alt", "")
                parts.append(f"*Figure: {caption}* {alt}".strip())
    return "\n\n".join(parts)


def without_comments(text):
    """Markdown without HTML comments: a line of its own goes whole, a mark in a line alone."""
    text = re.sub(r"^(?:> ?)?(?:<!--(?:(?!-->).)*-->[ \t]*)+\n", "", text, flags=re.M | re.S)
    return re.sub(r"<!--.*?-->", "", text, flags=re.S).strip()


def source_text(app, pagename):
    """The Markdown of a page, without comments that only the build reads."""
    path = Path(app.env.doc2path(pagename))
    if path.suffix == ".ipynb":
        text = notebook_text(json.loads(path.read_text(encoding="utf-8")))
    else:
        lines = [path.read_text(encoding="utf-8")]
        app.emit("source-read", pagename, lines)
        text = re.sub(r"\{run\}`([^`]+)`", lambda match: results.number(match[1]), lines[0])
    return without_comments(text)


def write_texts(app, described):
    """llms.txt, the contents with a line on each page, and llms-full.txt, the whole text."""
    base, lines, full = app.config.html_baseurl, [], []
    for caption, names in contents(app.env):
        lines += [f"\n## {caption}\n"] if caption else []
        for name in names:
            title, text = described[name]
            full.append(source_text(app, name))
            if name != app.config.root_doc:
                lines.append(f"- [{title}]({base}{name}.html): {text}")
    title, text = described[app.config.root_doc]
    cff = citation()
    whole = f"The whole text is in [llms-full.txt]({base}llms-full.txt)."
    licences = f"Licences: {', '.join(cff['license'])}. Version {cff['version']}."
    head = [f"# {title}\n", f"> {text}\n", f"{licences} {whole}"]
    out = Path(app.outdir)
    (out / "llms.txt").write_text("\n".join(head + lines) + "\n", encoding="utf-8")
    (out / "llms-full.txt").write_text("\n\n---\n\n".join(full) + "\n", encoding="utf-8")


def write_map(app, names):
    """sitemap.xml, where the pages have an address, and robots.txt, which names it."""
    base, out = app.config.html_baseurl, Path(app.outdir)
    robots = "User-agent: *\nAllow: /\n"
    if base:
        urls = "".join(f" <url><loc>{html.escape(base)}{n}.html</loc></url>\n" for n in names)
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{space}">\n{urls}</urlset>\n'
        )
        (out / "sitemap.xml").write_text(text, encoding="utf-8")
        robots += f"\nSitemap: {base}sitemap.xml\n"
    (out / "robots.txt").write_text(robots, encoding="utf-8")


def write_index(app):
    """index.html leads to the front page, in an instant or, where that is forbidden, by a link."""
    front, base = f"{app.config.root_doc}.html", app.config.html_baseurl
    canonical = f'<link rel="canonical" href="{base}{front}" />\n' if base else ""
    title = html.escape(app.config.html_title)
    text = f"""<!DOCTYPE html>
<html lang="{app.config.language}">
<head>
<meta charset="utf-8" />
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1.0" />
<meta http-equiv="refresh" content="0; url={front}" />
{canonical}<link rel="icon" href="data:," />
</head>
<body><main><h1><a href="{front}">{title}</a></h1></main></body>
</html>
"""
    (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- the policy


def trusted(script):
    """Whether a script is the theme's or a live figure's, not another output's."""
    data = re.fullmatch(r"(?:\.\./)*_live/[0-9a-f]{16}\.js", script.attributes.get("src", ""))
    live = data or script.content.lstrip().startswith(LIVE)
    return "article" not in script.inside or bool(live)


def policy(page):
    """The Content-Security-Policy of one page."""
    hashes = []
    for script in page.all("script"):
        inline = "src" not in script.attributes
        if inline and script.attributes.get("type", "").lower() in EXECUTED and trusted(script):
            digest = hashlib.sha256(script.content.encode()).digest()
            hashes.append(f"'sha256-{base64.b64encode(digest).decode()}'")
    rules = POLICY | {"script-src": " ".join([OWN, *dict.fromkeys(hashes)])}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def forbidden(page):
    """What the policy would stop: scripts of outputs, inline handlers, javascript: addresses."""
    for element in page.elements:
        values = element.attributes
        script = element.tag == "script" and values.get("type", "").lower() in EXECUTED
        if script and not trusted(element):
            yield f"a script in the text: {(values.get('src') or element.content).strip()[:60]!r}"
        yield from (f"<{element.tag} {name}>" for name in values if name.startswith("on"))
        if any(
            values.get(n, "").strip().lower().startswith("javascript:") for n in ("href", "src")
        ):
            yield f"<{element.tag}> with a javascript: address"
        if element.tag in ("iframe", "object", "embed", "base"):
            yield f"<{element.tag}>"


def protect(path):
    """Put the policy in front of everything that a page loads."""
    page = markup.Page(path.read_text(encoding="utf-8"))
    for what in forbidden(page):
        logger.warning("%s has what its Content-Security-Policy forbids: %s", path.name, what)
    anchor = next(e for e in page.all("meta") if "charset" in e.attributes)
    tag = f'\n    <meta http-equiv="Content-Security-Policy" content="{policy(page)}" />'
    path.write_text(page.edited([(anchor.end, anchor.end, tag)]), encoding="utf-8")


def finish(app, error):
    """Write what lies beside the pages, then seal every page."""
    if error or app.builder.name != "html":
        return
    names = [name for _, part in contents(app.env) for name in part if name not in NOT_PAGES]
    described = {}
    for name in names:
        title = app.env.titles[name].astext()
        doctree = app.env.get_doctree(name)
        text = app.env.metadata[name].get("description") or description(doctree, title)
        described[name] = title, text
    write_texts(app, described)
    write_map(app, names)
    write_index(app)
    for path in markup.pages(Path(app.outdir)):
        protect(path)


def setup(app):
    """Register with Sphinx; the hashes come last, after lean.py has edited the pages."""
    app.connect("config-inited", options, priority=900)
    app.connect("html-page-context", describe, priority=900)
    app.connect("build-finished", finish, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
