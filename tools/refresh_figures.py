"""Bring the script and style inside every committed live figure up to date, without executing.

A figure's HTML carries gencore/assets/explore.js and explore.css. After a change to one of them:
python tools/refresh_figures.py
"""

import re

from notebook_files import ROOT, notebooks, read, write

STYLE = re.compile(r"(<style>\n).*?(</style>)", re.DOTALL)
SCRIPT = re.compile(r'(<script type="module">/\* explore\.js \*/\n).*?(</script>)', re.DOTALL)


def assets(root=ROOT):
    """The present style and script."""
    folder = root / "gencore/assets"
    return [(folder / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")]


def refreshed(page, css, js):
    """The HTML of a live figure with this style and script."""
    page = STYLE.sub(lambda m: m[1] + css + m[2], page, count=1)
    return SCRIPT.sub(lambda m: m[1] + js + m[2], page, count=1)


def live_outputs(notebook):
    """The data of every output that is a live figure."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if 'class="gencore-live"' in "".join(output.get("data", {}).get("text/html", "")):
                yield output["data"]


def main():
    css, js = assets()
    for path in notebooks():
        notebook, count = read(path), 0
        for data in live_outputs(notebook):
            page = "".join(data["text/html"])
            count += refreshed(page, css, js) != page
            data["text/html"] = refreshed(page, css, js).splitlines(True)
        if count:
            write(path, notebook)
            print(f"{path.name}: {count} figures refreshed")


if __name__ == "__main__":
    main()
