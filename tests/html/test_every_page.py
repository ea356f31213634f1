"""Every page, light and dark, wide and narrow, from a file and from a server: whole and quiet."""

import pytest
from page_checks import PAGES

# Each mode and each width is loaded afresh; then the reader turns the phone, or widens the window.
WIDTHS = {"light": [1280, 375], "dark": [375, 1280]}


def test_these_are_all_pages(whole):
    assert set(whole) == set(PAGES)


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("name", PAGES)
def test_page(name, scheme, tab, maths, fail_with):
    formulas, complaints = maths(name), []
    visits = {mode: tab(WIDTHS[mode][0], mode, scheme).start(name) for mode in WIDTHS}
    for turn in (0, 1):
        for mode, visit in visits.items():
            if turn:
                visit.resize(WIDTHS[mode][turn])
            visit.settle(formulas)
            if scheme == "http":  # accessibility does not depend on where a page comes from
                visit.axe_start(again=bool(turn))
        for mode, visit in visits.items():
            found = visit.look(mode, formulas) + (visit.axe() if scheme == "http" else [])
            found += visit.heavy() + visit.trouble()
            complaints += [f"{name} | {scheme} {mode} {WIDTHS[mode][turn]} | {x}" for x in found]
    fail_with(complaints)


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_first_address_leads_to_the_front_page(scheme, tab):
    first = tab(scheme=scheme).start("index.html")
    first.page.wait_for_url(f"**/{PAGES[0]}")
    first.settle()
    assert not first.trouble()
