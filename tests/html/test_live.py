"""What every live figure owes its reader, whatever it shows; test_explore.py tests each one."""

import base64
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

WAIT = "n => document.querySelectorAll('.gencore-live[data-mounted]').length === n"
NARROW = """() => [...document.querySelectorAll('.gencore-live, .gencore-live *')]
  .filter(n => n.checkVisibility() && n.getBoundingClientRect().width > 1
          && n.getBoundingClientRect().right > innerWidth + 1)
  .map(n => `${n.closest('.gencore-live').id}: ${n.localName}.${n.getAttribute('class')} is too wide`)"""


@pytest.fixture(scope="session")
def live(whole):
    """{page: its live figures} of all pages that have some."""
    found = {name: root.classed("gencore-live") for name, root in whole.items()}
    return {name: nodes for name, nodes in found.items() if nodes}


def blank(node):
    """Whether a figure has no picture of its own, or one without a motif."""
    sources = [image.get("src", "") for image in node.all("img")]
    inlined = [src for src in sources if src.startswith("data:image/")]
    if not inlined:
        return True
    data = base64.b64decode(inlined[0].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L")).std() < 5


def test_there_are_live_figures(live):
    assert live


def test_first_picture_stands_in_the_page(live):
    assert not [(name, node.get("id")) for name in live for node in live[name] if blank(node)]


def test_each_is_named_and_the_page_has_one_module(live, whole):
    for name, nodes in live.items():
        for node in nodes:
            assert node.get("role") == "group" and len(node.get("aria-label", "")) >= 10, name
            assert node.get("data-figure") and node.get("id"), name
        modules = [n for n in whole[name].all("script") if n.get("type") == "module"]
        assert len(modules) == 1, f"{name}: {len(modules)} module scripts"


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
        for each in page.locator(".gencore-live").all():
            each.scroll_into_view_if_needed()  # a figure may wait until it is near
        page.wait_for_function(WAIT, arg=len(nodes))
        found = visit.trouble() + visit.overflow() + page.evaluate(NARROW)
        for each in page.locator(".gencore-live").all():
            reachable = each.locator("button, input, select, [tabindex='0']").locator("visible=true")
            if not reachable.count():
                found.append(f"{each.get_attribute('id')} has nothing to take hold of")
        ids = Counter(page.evaluate("[...document.querySelectorAll('[id]')].map(n => n.id)"))
        found += [f"the id {i!r} stands {n} times" for i, n in ids.items() if n > 1]
        found += visit.axe(".gencore-live") if scheme == "http" else []
        complaints += [f"{name} | {scheme} 320 | {line}" for line in found]
    fail_with(complaints)


def test_a_blank_or_missing_picture_is_found():
    from page_checks import parse

    def figure(image):
        data = io.BytesIO()
        image.save(data, "png")
        src = base64.b64encode(data.getvalue()).decode()
        return parse(f'<div><img src="data:image/png;base64,{src}"></div>')

    assert blank(parse("<div></div>")) and blank(parse('<div><img src="a.png"></div>'))
    assert blank(figure(Image.new("L", (8, 8), 200)))
    assert not blank(figure(Image.linear_gradient("L")))
