"""One style sheet instead of nine, with the rules that no page can use left out.

The theme brings Bootstrap, an icon font and styles for things that this book does not have: 570 kB
that must be read before anything is painted; 160 kB of them are in use. A rule stays if each class
and id of one of its selectors is a word of some page or script, as PurgeCSS does it; so what a
script adds later is kept. tinycss2 reads and writes the rules.
"""

import re
from itertools import groupby, pairwise

import tinycss2

WORD = re.compile(r"[\w-]+")
NESTING = {"media", "supports", "layer", "container"}
DROPPED = "Font Awesome"  # 700 kB of fonts for a dozen icons, which the templates draw
COMMA = tinycss2.ast.LiteralToken(0, 0, ",")


def words_of(texts):
    """Every word of some pages and scripts that could be the name of a class or an id."""
    return {word for text in texts for word in WORD.findall(text)}


def usable(selector, words):
    """Whether all classes and ids of a selector are known words.

    What stands in :not() need not occur, and of :is() and :where() one branch is enough, so
    brackets, whose contents are no tokens of the selector's own, are not looked into.
    """
    names = {token.value for token in selector if token.type == "hash"}
    names |= {name.value for dot, name in pairwise(selector) if dot == "."}
    return names <= words


def purged(tokens, words):
    """The rules in some CSS that something can match."""
    for rule in tinycss2.parse_rule_list(tokens, skip_comments=True, skip_whitespace=True):
        if rule.type == "qualified-rule":
            parts = groupby(rule.prelude, lambda token: token == ",")
            lists = [list(part) for comma, part in parts if not comma]
            lists = [part for part in lists if usable(part, words)]
            rule.prelude = [token for part in lists for token in (*part, COMMA)][:-1]
            if lists and rule.content:
                yield rule
        elif rule.type == "at-rule" and rule.at_keyword in NESTING and rule.content is not None:
            rule.content = [*purged(rule.content, words)]
            if rule.content:
                yield rule
        elif rule.type == "error":
            raise ValueError(f"line {rule.source_line}: {rule.message}")
        elif rule.at_keyword != "charset" and DROPPED not in tinycss2.serialize([rule]):
            yield rule


def bundle(sheets, words):
    """One style sheet of several, in their order; all of them lie in one folder."""
    licences, rules = {}, []
    for css in sheets:
        top = tinycss2.parse_stylesheet(css)
        licences |= {t.value: None for t in top if t.type == "comment" and "icense" in t.value}
        rules += purged(tinycss2.parse_component_value_list(css, skip_comments=True), words)
    heads = ['@charset "utf-8";', *(f"/*{text}*/" for text in licences)]
    return "\n".join([*heads, *(tinycss2.serialize([rule]) for rule in rules), ""])
