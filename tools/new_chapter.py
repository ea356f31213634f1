"""Begin a chapter: `python tools/new_chapter.py 06-adversarial-networks "Adversarial networks"`.

It writes a notebook with the card, the first cell and all sections, adds it to _toc.yml (the one
list of chapters), and from there to the table in README.md and to the path in book/intro.md. What
it leaves to the author says TODO, and tests/project/lint.py finds each one that is left.

A section carries the step that it belongs to, a small label on the line above, and says in its
title what is found. Several sections may belong to one step; the order is Data, Model, Objective,
Train, Evaluate, Show, When it fails (optional), Exercises, Summary, References, and the last three
are titles themselves:

    <small>Objective</small>

    ## A bound you can compute

A number in the text is never typed. A cell records it with `show.numbers(elbo=...)`, the text has
the marks `<!--n:elbo--><!--/n-->` where it shall stand, not at the beginning of a line, and
tools/execute_notebooks.py writes it between them. A paper is a link with author, year and DOI or
arXiv address, `([Theis et al. 2016](https://arxiv.org/abs/1511.01844))`, and an entry in refs.bib.
"""

import re
import sys

from notebook_files import ROOT, block, chapters, write
from stamp_repository import address, card_links, first_cell, readme_table

CARD = """\
# {title}

> **You will be able to** TODO: three things, each a verb that can be tested.
>
> **Before you start** TODO: the chapters to read, with links, and the mathematics you need.
>
> <!-- card:time -->
> **Measured time** is written here when the chapter is executed.
> <!-- /card:time -->
>
> <!-- card:links -->
{links}
> <!-- /card:links -->"""
SECTION = """\
<small>{step}</small>

## TODO: {title}

TODO: {text}"""
SECTIONS = {
    "Data": ("what the data look like", "what the images are, how many, and the question."),
    "Model": ("what maps what to what", "the networks, with the drawn diagram of the method."),
    "Objective": ("what is optimised, and why", "mechanism, derivation, then a taught cell."),
    "Train": ("what the curves say", "the loop in the open, then the published runs."),
    "Evaluate": ("what was measured", "a table with floor and baselines, then what it says."),
    "Show": ("what the reader can see", "samples, not chosen, and one live figure."),
    "When it fails": ("what breaks it", "one experiment that makes the method fail, and why."),
}
IMPORTS = """\
import torch
from gencore import check, data, evaluate, metrics, runs, show"""
DATA = """\
images = data.load("mnist").train.images              # uint8 (60000, 1, 28, 28)
show.numbers(training_images=len(images))"""
QUOTE = """\
TODO: a sentence that quotes what a cell recorded: there are \
<!--n:training_images--><!--/n--> training images."""
EXERCISE = """\
**{number}. TODO: a name ({minutes}).** TODO: a question{kind}.

<details><summary>Hint</summary>

TODO

</details>"""
EXERCISES = (
    ("2 minutes, a prediction", ", to be answered before any code is run"),
    ("10 minutes", " whose answer a function of `gencore.check` can judge"),
    ("20 minutes", " that takes an experiment"),
    ("an open project", " that nobody has answered yet"),
)
ENDING = """\
## Summary

TODO: what was found, in five sentences.

## References

- TODO: A. Author, B. Author (2026). [Title](https://arxiv.org/abs/0000.00000). What it is for."""
STOP = """\
:::{{div}} stop
[{number} · {title}](../notebooks/{name}.ipynb)

TODO: what the chapter before left open, and what this one does about it.
:::

"""


def markdown(source):
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code(source, **metadata):
    empty = {"cell_type": "code", "execution_count": None, "outputs": []}
    return empty | {"metadata": metadata, "source": source}


def notebook(name, title, root=ROOT):
    """The skeleton of a chapter, as plain dicts."""
    repo = address(root)
    links = card_links(repo, f"{name}.ipynb")
    cells = [markdown(CARD.format(title=title, links=links)), code(first_cell(repo, root))]
    cells += [markdown("TODO: the question of this chapter, in a paragraph."), code(IMPORTS)]
    for step, (heading, text) in SECTIONS.items():
        cells.append(markdown(SECTION.format(step=step, title=heading, text=text)))
        cells += [code(DATA), markdown(QUOTE)] if step == "Data" else []
    cells.append(markdown("## Exercises"))
    for number, (minutes, kind) in enumerate(EXERCISES, 1):
        cells.append(markdown(EXERCISE.format(number=number, minutes=minutes, kind=kind)))
        if number in (2, 3):
            cells.append(code('print("TODO: a solution")', tags=["hide-cell", "solution"]))
    cells.append(markdown(ENDING))
    metadata = {
        "gencore": {"runs": []},
        "kernelspec": {"display_name": "Python 3", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    cells = [cell | {"id": f"{name[:2]}-{i:02}"} for i, cell in enumerate(cells)]
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def listed(toc, name):
    """The text of _toc.yml with one chapter more, after the last one that comes before it."""
    before = [m for m in re.finditer(r"^( *)- file: notebooks/(\S+)\n", toc, re.M) if m[2] < name]
    if not before:
        raise ValueError("_toc.yml has no chapter before this one: add it there by hand.")
    end, indent = before[-1].end(), before[-1][1]
    return f"{toc[:end]}{indent}- file: notebooks/{name}\n{toc[end:]}"


def on_the_path(intro, name, title):
    """The text of book/intro.md with one stop more, before the first that comes after it."""
    stops = re.finditer(r"^:::\{div\} stop\n(?:(?!^:::$).)*?\[(\d+) · ", intro, re.M | re.S)
    later = [m.start() for m in stops if int(m[1]) > int(name[:2])]
    at = min(later, default=None)
    if at is None:
        at = re.compile(r"^::::$", re.M).search(intro, intro.index("::::{div} book-path")).start()
    stop = STOP.format(number=int(name[:2]), title=title, name=name)
    return intro[:at] + stop + intro[at:]


def begin(name, title, root=ROOT):
    """Write the chapter and put it into the lists."""
    path, toc, intro = root / f"notebooks/{name}.ipynb", root / "_toc.yml", root / "book/intro.md"
    if path.exists() or name[:2] in {other[:2] for other in chapters(root)}:
        raise ValueError(f"There is a chapter {name[:2]} already.")
    contents = listed(toc.read_text(encoding="utf-8"), name)
    write(path, notebook(name, title, root))
    toc.write_text(contents, encoding="utf-8")
    text = on_the_path(intro.read_text(encoding="utf-8"), name, title)
    intro.write_text(text, encoding="utf-8")
    readme = root / "README.md"
    text = block(readme.read_text(encoding="utf-8"), "chapters", readme_table(address(root), root))
    readme.write_text(text, encoding="utf-8")


def main(arguments):
    if len(arguments) != 2 or not re.fullmatch(r"\d\d(-[a-z0-9]+)+", arguments[0]):
        return 'Usage: python tools/new_chapter.py 06-adversarial-networks "Adversarial networks"'
    name, title = arguments
    try:
        begin(name, title)
    except ValueError as error:
        return str(error)
    print(
        f"notebooks/{name}.ipynb is there, and in _toc.yml, README.md and book/intro.md.\n"
        "Write what says TODO (in the notebook, and its stop in book/intro.md), name the runs\n"
        'that it loads in the notebook\'s metadata ("gencore": {"runs": ["vae-mnist-d*"]}), then\n'
        f"  .venv/bin/python tools/execute_notebooks.py {name[:2]}\n"
        "  .venv/bin/python -m pytest tests/project"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
