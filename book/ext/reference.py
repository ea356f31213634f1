"""The API reference: the line `<!-- gencore:api -->` of a page becomes every public docstring.

Read with `ast`, so that the page needs neither torch nor an import. A docstring is plain text with
`code` in backticks; whatever Markdown could misread in it is escaped. Each entry has an anchor:
`[kl_normal](#gencore.vae.kl_normal)` links to it from any page.
"""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "gencore"
# The one list of the modules, in the order of their imports: a module imports only from those
# before it. A test reads it, too; a name that is not there yet is left out of the page.
MODULES = """files store formats derived data nets latents checkpoint train classifier contrast
             rulers metrics evaluate vae ae linear ppca encoder gan aae avb vaegan pyramid glo
             catalogue runs style naming tables show diagram embed explore controls check bench
             __init__ __main__""".split()
MARKER = "<!-- gencore:api -->"


def plain(text):
    """Markdown of a docstring: `code` stays, other marks are escaped, `name: what` is a list."""
    lines = []
    for line in text.splitlines():
        parts = re.split(r"(`[^`]+`)", line.strip())
        parts[::2] = [re.sub(r"([\\*_$<>\[\]{}|~^#])", r"\\\1", part) for part in parts[::2]]
        item = re.match(r"([a-z_]+(, [a-z_]+)*): ", line)
        if item:
            parts[0] = (
                f"- `{item[1]}`: " + parts[0].replace("\\_", "_", item[1].count("_"))[item.end() :]
            )
        elif line.startswith("Raises"):
            parts[0] = "\n" + parts[0]
        lines.append("".join(parts))
    return "\n".join(lines)


def signature(node):
    """`name(a, b=1)` of a function, or of a class: that of its constructor, without self."""
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if getattr(n, "name", "") == "__init__"), None)
        if init is None:
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]  # of a dataclass
            known = [
                ast.unparse(n.target) + (f"={ast.unparse(n.value)}" if n.value else "")
                for n in fields
            ]
            return f"class {node.name}({', '.join(known or map(ast.unparse, node.bases))})"
        return f"class {node.name}({arguments(init)})"
    return f"{node.name}({arguments(node)})"


def arguments(function):
    text = ast.unparse(function.args)
    return re.sub(r"^self(, )?", "", text)


def public(body):
    """The definitions with a docstring and without a leading underscore."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [n for n in body if isinstance(n, kinds) and n.name[0] != "_" and ast.get_docstring(n)]


def entry(module, node, taken):
    """One function or class: anchor, signature, docstring, then a class's methods."""
    name = f"{module}.{node.name}"
    # Anchors do not tell `Batches` from `batches`: the class gives way.
    anchor = f"gencore.{name}" + (
        "-class" if name.lower() in taken and isinstance(node, ast.ClassDef) else ""
    )
    lines = [f"({anchor})=", f"```python\n{signature(node)}\n```", ""]
    lines += [plain(ast.get_docstring(node)), ""]
    if isinstance(node, ast.ClassDef):
        for method in public(node.body):
            doc = plain(ast.get_docstring(method)).replace("\n", "\n  ")
            prop = any("property" in ast.unparse(d) for d in method.decorator_list)
            shown = method.name if prop else f"{method.name}({arguments(method)})"
            lines += [f"- `.{shown}`: {doc}", ""]
    return "\n".join(lines)


def module(name):
    """(docstring, public definitions) of a module; a package's `_name.py` holds its `name`."""
    folder = PACKAGE / name
    path = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{name}.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = public(tree.body)
    for part in sorted(folder.glob("_[a-z]*.py")):
        found = public(ast.parse(part.read_text(encoding="utf-8")).body)
        nodes += [node for node in found if node.name == part.stem[1:]]
    return ast.get_docstring(tree) or "", nodes


def page():
    """The Markdown of the whole reference."""
    parts = []
    for name in MODULES:
        there = (PACKAGE / f"{name}.py").exists() or (PACKAGE / name / "__init__.py").exists()
        if there and not name.startswith("_"):
            doc, nodes = module(name)
            taken = {f"{name}.{node.name}" for node in nodes if isinstance(node, ast.FunctionDef)}
            parts += [f"(gencore.{name})=", f"## `gencore.{name}`", "", plain(doc), ""]
            parts += [entry(name, node, taken) for node in nodes]
    return "\n".join(parts)


def insert(app, docname, source):
    """Replace the marker when Sphinx reads the page."""
    if MARKER in source[0] and docname.startswith("book/"):
        source[0] = source[0].replace(MARKER, page())


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
