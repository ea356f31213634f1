"""One style sheet instead of nine, with the rules that no page can use left out.

The theme brings Bootstrap, an icon font and styles for things that this book does not have: 500 kB
that must be read before anything is painted. A rule stays if every class and id of one of its
selectors occurs in some page or as a word in some script; so what a script adds later is kept.
"""

import posixpath
import re

COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
LICENCE = re.compile(r"/\*!.*?\*/", re.DOTALL)  # comments that are to be kept begin so
DROPPED = "Font Awesome"  # 700 kB of fonts for a dozen icons, which the templates draw
# A string or an address may hold braces and commas; they are stepped over.
TOKEN = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|url\((?:\\.|[^)"'\\])*\)|[{};]""")
NAMED = re.compile(r"[.#](-?(?:[A-Za-z_]|\\.)(?:[\w-]|\\.)*)")
NESTING = ("@media", "@supports", "@layer", "@container")
WORD = re.compile(r"[A-Za-z_][\w-]*")


def blocks(css):
    """(head, body) of each rule of a style sheet; body is None for a statement such as @charset."""
    start, depth, head, opened = 0, 0, "", 0
    for token in TOKEN.finditer(css):
        if token[0] == "{":
            if depth == 0:
                head, opened = css[start : token.start()].strip(), token.end()
            depth += 1
        elif token[0] == "}":
            depth -= 1
            if depth == 0:
                yield head, css[opened : token.start()]
                start = token.end()
        elif token[0] == ";" and depth == 0:
            yield css[start : token.start()].strip(), None
            start = token.end()


def split(selectors):
    """The selectors of a list: commas in brackets, as in `:is(a, b)`, do not separate."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(selectors):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append(selectors[start:i])
            start = i + 1
    return [part.strip() for part in [*parts, selectors[start:]]]


def usable(selector, words):
    """Whether all classes and ids of a selector are known words.

    What stands in :not() need not occur, and of :is() and :where() one branch is enough, so
    brackets are not looked into; neither are attribute selectors.
    """
    outer = re.sub(r"\([^()]*\)|\[[^\]]*\]", "", re.sub(r"\([^()]*\)", "", selector))
    return all(name.replace("\\", "") in words for name in NAMED.findall(outer))


def purged(css, words):
    """The style sheet without the rules that nothing can match."""
    out = []
    for head, body in blocks(css):
        if body is None:
            out.append("" if head.startswith("@charset") else f"{head};")
        elif head.startswith(NESTING):
            inner = purged(body, words)
            out.append(f"{head}{{{inner}}}" if inner else "")
        elif head.startswith("@"):
            out.append(f"{head}{{{body.strip()}}}")
        else:
            kept = [s for s in split(head) if usable(s, words)]
            out.append(
                f"{','.join(kept)}{{{' '.join(body.split())}}}" if kept and body.strip() else ""
            )
    return "\n".join(filter(None, out))


def used(css):
    """The style sheet without fonts and animations that none of its own rules name."""
    rules = list(blocks(css))
    text = " ".join(
        f"{h}{{{b}}}" for h, b in rules if not h.startswith(("@font-face", "@keyframes"))
    )
    out = []
    for head, body in rules:
        name = head.split()[-1] if head.startswith("@keyframes") else ""
        if head.startswith("@font-face"):
            found = re.search(r"font-family:\s*([^;}]+)", body)
            name = found[1].strip().strip("\"'").replace("\\", "") if found else ""
        if name.startswith(DROPPED):
            continue
        if not name or name in text.replace("\\", ""):
            out.append(f"{head};" if body is None else f"{head}{{{body}}}")
    return "\n".join(out)


def moved(css, old, new):
    """The style sheet with its relative addresses changed for another folder."""

    def change(match):
        url = match[2]
        if re.match(r"[a-z]+:|/|#", url):
            return match[0]
        path = posixpath.relpath(posixpath.normpath(posixpath.join(old, url)), new)
        return f"url({match[1]}{path}{match[1]})"

    return re.sub(r"""url\((["']?)([^"')]+)\1\)""", change, css)


def words_of(texts):
    """Every word of some pages and scripts that could be the name of a class or an id."""
    return {word for text in texts for word in WORD.findall(text)}


def bundle(sheets, words, folder="_static"):
    """One style sheet of several, `[(folder, css)]` in their order."""
    texts = [moved(COMMENT.sub("", css), old, folder) for old, css in sheets]
    licences = dict.fromkeys(c for _, css in sheets for c in LICENCE.findall(css) if "icense" in c)
    return "\n".join([*licences, used("\n".join(purged(css, words) for css in texts)), ""])
