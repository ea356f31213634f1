"""Read and edit the HTML of a written page without touching a byte that is not meant.

`Page(text)` knows where each element's start tag stands and, for scripts and styles, what is in it;
`edited` puts replacements in. Nothing is parsed by pattern: html.parser decides what a tag is.
"""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import accumulate

RAW = {"script", "style"}  # their text is taken as it stands
VOID = set("area base br col embed hr img input link meta source track wbr".split())


@dataclass
class Element:
    """A start tag: its attributes, the ancestors' names, and its place, `text[start:end]`.

    Of a script or style, `content` is the text in it and `close` the place after its end tag.
    """

    tag: str
    attributes: dict
    start: int
    end: int
    inside: tuple = ()
    content: str = ""
    close: int = 0
    classes: list = field(default_factory=list)


class Page(HTMLParser):
    """All start tags of a page, in order, as `elements`; `ends` has the place of each end tag."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.text, self.elements, self.ends, self.open = text, [], [], []
        self.lines = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self.feed(text)
        self.close()

    def place(self):
        line, column = self.getpos()
        return self.lines[line - 1] + column

    def handle_starttag(self, tag, attributes):
        start = self.place()
        end = start + len(self.get_starttag_text())
        known = {name: value or "" for name, value in attributes}
        element = Element(tag, known, start, end, tuple(self.open), close=end)
        element.classes = known.get("class", "").split()
        self.elements.append(element)
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        start = self.place()
        self.ends.append((tag, start))
        if tag in RAW and self.elements and self.elements[-1].tag == tag:
            self.elements[-1].content = self.text[self.elements[-1].end : start]
            self.elements[-1].close = self.text.index(">", start) + 1
        if tag in self.open:  # an end tag that is missing closes with its parent
            while self.open.pop() != tag:
                pass

    def all(self, *tags):
        """The elements of these names."""
        return [element for element in self.elements if element.tag in tags]

    def edited(self, edits):
        """The page with every `text[start:end]` of `(start, end, new)` replaced by `new`."""
        parts, at = [], 0
        for start, end, new in sorted(edits):
            if start < at:
                raise ValueError(f"two edits meet at {start}")
            parts += [self.text[at:start], new]
            at = end
        return "".join([*parts, self.text[at:]])


def pages(folder):
    """The HTML files of a built book that are pages: those of the theme's own folder are not."""
    return sorted(p for p in folder.rglob("*.html") if "_static" not in p.relative_to(folder).parts)
