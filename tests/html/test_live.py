"""What every live figure owes its reader, whatever it shows; test_figures.py tests each one."""

import base64
import io
from collections import Counter

import numpy as np
import pytest
from page_checks import parse
from PIL import Image

from gencore import explore

NARROW = """() => [...document.querySelectorAll('.gencore-live, .gencore-live *')]
  .filter(n => n.checkVisibility() && n.getBoundingClientRect().width > 1
          && n.getBoundingClientRect().right > innerWidth + 1)
  .map(n => `${n.closest('.gencore-live').id}: ${n.localName}.${n.className} sticks out`)"""


@pytest.fixture(scope="session")
def live(whole):
    """{page: its live figures} of all pages that have some."""
    found = {name: root.classed("gencore-live") for name, root in whole.items()}
    return {name: nodes for name, nodes in found.items() if nodes}


def blank(node, folder):
    """Whether the first picture of a figure in a page of this folder is missing, or one colour."""
    src = next((image.get("src", "") for image in node.all("img")), "")
    if src.startswith("data:image/"):
        file = io.BytesIO(base64.b64decode(src.partition(",")[2]))
    elif src and (folder / src).is_file():
        file = folder / src
    else:
        return True
    return np.asarray(Image.open(file).convert("L")).std() < 5


def test_there_are_live_figures(live):
    assert live


def test_first_picture_stands_in_the_page(live, folder):
    found = [(name, node) for name in live for node in live[name]]
    assert not [str(node) for name, node in found if blank(node, (folder / name).parent)]


def test_each_is_named_and_the_page_has_one_module(live, whole):
    for name, nodes in live.items():
        for node in nodes:
            assert node.get("role") == "group" and len(node.get("aria-label", "")) >= 10, name
            assert node.get("data-figure") and node.get("id"), name
        modules = [n for n in whole[name].all("script") if n.get("type") == "module"]
        assert len(modules) == 1, f"{name}: {len(modules)} module scripts"


def test_a_page_carries_the_core_and_the_parts_of_its_own_figures(live, folder):
    for name, nodes in live.items():
        kinds = sorted({node.get("data-figure") for node in nodes})
        assert (folder / name).read_text(encoding="utf-8").count(explore.script(*kinds)) == 1, name


def test_first_picture_is_there_without_javascript(live, tab):
    for name, nodes in live.items():
        visit = tab(java_script_enabled=False)
        visit.page.goto(visit.address + name)
        shown = visit.page.locator(".gencore-live")
        assert shown.count() == len(nodes)
        for each in shown.all():
            picture = each.locator("img").first
            picture.scroll_into_view_if_needed()
            assert picture.is_visible() and picture.evaluate("i => i.naturalWidth > 0"), name
            dead = each.locator("button:visible, input:visible, select:visible, [tabindex]:visible")
            assert not dead.count(), f"{name}: controls that cannot work are shown"


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_each_mounts_with_named_controls(live, tab, maths, scheme, fail_with):
    complaints = []
    for name, nodes in live.items():
        visit = tab(320, scheme=scheme).open(name, maths(name))
        page = visit.page
        assert page.locator(".gencore-live[data-mounted]").count() == len(nodes), name
        found = visit.trouble() + visit.overflow() + page.evaluate(NARROW)
        for each in page.locator(".gencore-live").all():
            handles = each.locator(":is(button, input, select, [tabindex='0']):visible")
            if not handles.count():
                found.append(f"{each.get_attribute('id')} has nothing to take hold of")
        ids = Counter(page.evaluate("[...document.querySelectorAll('[id]')].map(n => n.id)"))
        found += [f"the id {i!r} stands {n} times" for i, n in ids.items() if n > 1]
        found += visit.axe(".gencore-live") if scheme == "http" else []
        complaints += [f"{name} | {scheme} 320 | {line}" for line in found]
    fail_with(complaints)


def test_a_blank_or_missing_picture_is_found(tmp_path):
    def figure(src):
        return parse(f'<div><img src="{src}"></div>')

    def inlined(image):
        data = io.BytesIO()
        image.save(data, "png")
        return figure("data:image/png;base64," + base64.b64encode(data.getvalue()).decode())

    Image.linear_gradient("L").save(tmp_path / "there.png")
    assert blank(parse("<div></div>"), tmp_path) and blank(figure("none.png"), tmp_path)
    assert blank(inlined(Image.new("L", (8, 8), 200)), tmp_path)
    assert not blank(inlined(Image.linear_gradient("L")), tmp_path)
    assert not blank(figure("there.png"), tmp_path)
