"""Bring the script and style inside every committed live figure up to date, without executing.

A figure's HTML carries the core of gencore/assets/explore, its style, and the file of its own
figure. After a change to one of them: python tools/refresh_figures.py
"""

import re

from notebook_files import ROOT, notebooks, read, write

from gencore import explore

STYLE = re.compile(r"(<style>\n).*?(</style>)", re.DOTALL)
SCRIPT = re.compile(r'(<script type="module">)/\* explore\.js \*/\n.*?(</script>)', re.DOTALL)
FIGURE = re.compile(r'<div class="gencore-live"[^>]* data-figure="(\w+)"')


def refreshed(page):
    """The HTML of a live figure with the present style and script.

    A figure that gencore no longer has keeps its old ones: its cell has to be changed.
    """
    name = FIGURE.search(page)[1]
    if name not in explore.FIGURES:
        return page
    page = STYLE.sub(lambda m: m[1] + explore.STYLE + m[2], page, count=1)
    return SCRIPT.sub(lambda m: m[1] + explore.script(name) + m[2], page, count=1)


def live_outputs(notebook):
    """The data of every output that is a live figure."""
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if 'class="gencore-live"' in "".join(output.get("data", {}).get("text/html", "")):
                yield output["data"]


def main(root=ROOT):
    """Refresh the notebooks below a folder; those without a change are not written."""
    for path in notebooks(root):
        notebook, count = read(path), 0
        for data in live_outputs(notebook):
            page = "".join(data["text/html"])
            count += refreshed(page) != page
            data["text/html"] = refreshed(page).splitlines(True)
        if count:
            write(path, notebook)
            print(f"{path.name}: {count} figures refreshed")


if __name__ == "__main__":
    main()
