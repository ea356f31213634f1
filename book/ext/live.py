"""Live figures in the built pages.

gencore.explore leaves a live figure in a notebook as `text/html`: a `<div class="gencore-live">`
with a picture, its weights as JSON, a style and a module script. MyST-NB puts the output into a
numbered figure with the caption and the label of the cell's `mystnb.figure`; what is left to do is
here:

- of such an output the HTML is taken, never the widget that only a kernel could draw;
- a page keeps one style and one module script, with the core and each of its figures' parts once,
  and no id twice;
- the weights and the pictures move into files of their own, which the module asks for when their
  figure comes near (`data-src`): a page can be read before they are there, and two pages with the
  same figure share them. The weights' file is a script that fills in the element before it, because
  a page that was opened from a disk may run scripts but not fetch data;
- `{live} fig-04-latent` shows the figure of that name on another page, with the body of the
  directive, or else the notebook's caption, under it.

Other builders than HTML get the caption alone.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

MARK = '<div class="gencore-live"'
ID = re.compile(r'<div class="gencore-live" id="([^"]+)"')
# A style or script ends at the first closing tag, whatever stands before it: so says HTML.
STYLE = re.compile(r"<style>.*?</style>\n?", re.DOTALL)
MODULE = re.compile(r'<script type="module">(.*?)</script>\n?', re.DOTALL)
PART = re.compile(r"^/\* figure: (\w+) \*/\n", re.MULTILINE)  # what only figures of a kind need
LAZY = "dataset.src"  # a module that can fetch the weights by itself says so
DATA = re.compile(r'(<script type="application/json">)(.*?)(</script>\n?)', re.DOTALL)
PNG = re.compile(r'src="data:image/png;base64,([^"]+)"')
FILL = "document.currentScript.previousElementSibling.textContent = {};\n"
SMALL = 4000  # bytes that are not worth a request
logger = logging.getLogger(__name__)


def is_live(node):
    """Whether a node of the document tree is the HTML of a live figure."""
    return isinstance(node, nodes.raw) and node["format"] == "html" and MARK in node.astext()


def is_bundle(node):
    """Whether a node holds all forms of one output, of which one is a live figure."""
    bundle = isinstance(node, nodes.container) and node.get("nb_element") == "mime_bundle"
    return bundle and any(map(is_live, node.findall(nodes.raw)))


def unlike(html, taken):
    """The HTML of one figure with an id that is not yet among `taken`, a Counter."""
    if not (found := ID.search(html)):
        return html
    taken[found[1]] += 1
    count = taken[found[1]]
    return html if count == 1 else html.replace(found[1], f"{found[1]}-{count}")


def parts(html):
    """The texts of a figure's style and of its script's parts, the core's under the name ""."""
    core, *figures = PART.split("".join(MODULE.findall(html)))
    scripts = dict(zip(figures[::2], figures[1::2], strict=True))
    return {"<style>": "".join(STYLE.findall(html)), "": core} | scripts


def share(figures):
    """The figures of one page with unique ids, the first one's style, one script in the last."""
    taken, shared = Counter(), {}
    for html in figures:
        shared = parts(html) | shared
    shared.pop("<style>", "")
    core = shared.pop("", "")
    script = core + "".join(f"/* figure: {name} */\n{shared[name]}" for name in sorted(shared))
    figures = [unlike(html, taken) for html in figures]
    figures[1:] = [STYLE.sub("", html) for html in figures[1:]]
    figures[:-1] = [MODULE.sub("", html) for html in figures[:-1]]
    figures[-1:] = [MODULE.sub(lambda m: m[0].replace(m[1], script), html) for html in figures[-1:]]
    return figures


def named(folder, content, suffix):
    """Write a file of that content, named after its hash; returns its name."""
    name = hashlib.sha256(content).hexdigest()[:16] + suffix
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return name


def outside(html, out, root, lazy):
    """The HTML of a figure with its weights and pictures in files below the folder `out`.

    root: the way from the page to that folder, such as "../".
    lazy: the module fetches the weights; or else the page does, behind everything else.
    """

    def data(match):
        if len(match[2]) < SMALL:
            return match[0]
        name = named(out / "_live", FILL.format(json.dumps(match[2])).encode(), ".js")
        if lazy:
            return f'{match[1][:-1]} data-src="{root}_live/{name}">{match[3]}'
        return f'{match[1]}{match[3].rstrip()}<script defer src="{root}_live/{name}"></script>\n'

    def image(match):
        if len(match[1]) < SMALL:
            return match[0]
        name = named(out / "_live", base64.b64decode(match[1]), ".png")
        return f'src="{root}_live/{name}"'

    return PNG.sub(image, DATA.sub(data, html))


class LiveFigures(SphinxPostTransform):
    """Bring the live figures of one page into the form that its builder can show."""

    default_priority = 3  # MyST-NB chooses between the forms of an output at 4

    def run(self, **kwargs):
        html = self.app.builder.format == "html"
        for bundle in list(self.document.findall(is_bundle)):
            bundle.replace_self([node for node in bundle.findall(is_live)] if html else [])
        if not html:
            return
        found = list(self.document.findall(is_live))
        for node in found:
            if not any(isinstance(child, nodes.caption) for child in node.parent):
                logger.warning("a live figure has no caption", location=node)
        texts = [node.astext() for node in found]
        versions = {}
        for text in texts:
            for name, part in parts(text).items():
                versions.setdefault(name, set()).add(part)
        if any(len(same) > 1 for same in versions.values()):
            message = "live figures of different versions of gencore: make notebooks"
            logger.warning(message, location=found[-1])
        out, root = Path(self.app.outdir), "../" * self.env.docname.count("/")
        lazy = all(LAZY in script for text in texts for script in MODULE.findall(text))
        for node, text in zip(found, share(texts), strict=True):
            node.children = []
            node += nodes.Text(outside(text, out, root, lazy))


def cells(path):
    """(options of the figure, HTML) of every live figure in a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            html = "".join(output.get("data", {}).get("text/html", ""))
            if MARK in html:
                yield cell["metadata"].get("mystnb", {}).get("figure", {}), html


class Live(SphinxDirective):
    """`{live} fig-04-latent`: the live figure of that name, from the notebook where it was made."""

    required_arguments = 1
    has_content = True
    option_spec = {"name": directives.unchanged, "class": directives.class_option}

    def run(self):
        name = self.arguments[0]
        sources = [Path(self.env.doc2path(doc)) for doc in sorted(self.env.found_docs)]
        for path in sources:
            if path.suffix == ".ipynb":
                self.env.note_dependency(str(path))
                for options, html in cells(path):
                    if options.get("name") == name:
                        return [self.figure(html, options.get("caption", ""))]
        logger.warning("no live figure is called %r", name, location=self.get_location())
        return []

    def figure(self, html, caption):
        """The docutils figure; what follows the caption's first paragraph is its legend."""
        figure = nodes.figure(classes=self.options.get("class", []))
        self.set_source_info(figure)
        figure += nodes.raw(text=html, format="html", classes=["output", "text_html"])
        parsed = nodes.Element()
        text = self.content or StringList([caption], self.get_source_info()[0])
        self.state.nested_parse(text, self.content_offset, parsed)
        if parsed.children and isinstance(parsed[0], nodes.paragraph):
            figure += nodes.caption(parsed[0].rawsource, "", *parsed[0].children)
            figure += [nodes.legend("", *parsed[1:])] if len(parsed) > 1 else []
        self.add_name(figure)
        return figure


def setup(app):
    """Register with Sphinx."""
    app.add_post_transform(LiveFigures)
    app.add_directive("live", Live)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
