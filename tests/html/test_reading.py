"""Reading with a keyboard, a large type, a phone, on paper, without JavaScript, without motion."""

import browser
import pytest
from page_checks import PAGES, contents

CHAPTER = next(page for page in PAGES if page.startswith("notebooks/03"))
FRONT = PAGES[0]

# What has the keyboard's focus: its selector, its name, where it leads.
FOCUSED = """() => {
  const node = document.activeElement
  const name = node.getAttribute('aria-label') || node.textContent.trim() || node.placeholder || ''
  const box = node.getBoundingClientRect()
  return {tag: node.localName, name, href: node.getAttribute('href') || '', class: node.className,
          seen: box.width > 0 && box.bottom > 0 && box.left >= 0 && box.left < innerWidth}
}"""


def focused(page, limit=150):
    """What Tab reaches, one after the other, until the page is left."""
    page.evaluate("document.body.focus()")
    for _ in range(limit):
        page.keyboard.press("Tab")
        here = page.evaluate(FOCUSED)
        if here["tag"] == "body":
            return
        yield here


def is_search(stop):
    return stop["tag"] in ("input", "button") and "search" in (stop["name"] + stop["class"]).lower()


def is_theme_switch(stop):
    return stop["tag"] == "button" and "theme" in (stop["name"] + stop["class"]).lower()


def is_chapter(stop):
    return stop["tag"] == "a" and "04-latent-dimension.html" in stop["href"]


def test_keyboard_reaches_everything(tab):
    stops = list(focused(tab().open(CHAPTER).page))
    assert stops[0]["href"].startswith("#"), f"the first stop is no skip link: {stops[0]}"
    for wanted in (is_search, is_theme_switch, is_chapter):
        reached = [stop for stop in stops if wanted(stop)]
        assert reached, wanted.__name__
        assert all(stop["seen"] for stop in reached), f"{wanted.__name__}: out of sight"


def test_skip_link_leads_into_the_text(tab):
    page = tab().open(CHAPTER).page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    inside = "document.querySelector('main').contains(document.activeElement)"
    assert page.evaluate(inside)


def test_contents_open_by_keyboard_on_a_phone(tab):
    page = tab(375).open(CHAPTER).page
    link = page.locator("a[href$='04-latent-dimension.html']:visible").first
    for stop in focused(page):
        if "primary-toggle" in stop["class"] or "toggle primary" in stop["name"].lower():
            break
    else:
        pytest.fail("Tab does not reach the button that opens the contents")
    page.keyboard.press("Enter")
    sidebar = page.locator("dialog[open], .bd-sidebar-primary.show, .bd-sidebar-primary").first
    sidebar.locator("a[href$='04-latent-dimension.html']").first.wait_for(state="visible")
    assert any(is_chapter(stop) and stop["seen"] for stop in focused(page)), link


SWITCH = "button:is(.theme-switch-button, .theme-switch):visible"


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_theme_switch(tab, scheme):
    visit = tab(mode="light", scheme=scheme).open(CHAPTER)
    page, theme = visit.page, "document.documentElement.dataset.theme"
    colour = "getComputedStyle(document.body).backgroundColor"
    seen = {(page.evaluate(theme), page.evaluate(colour))}
    for _ in range(3):
        page.locator(SWITCH).first.click()
        seen.add((page.evaluate(theme), page.evaluate(colour)))
    assert {name for name, _ in seen} == {"light", "dark"} and len(seen) == 2
    while page.evaluate(theme) != "dark":
        page.locator(SWITCH).first.click()
    visit.open(FRONT)
    assert page.evaluate(theme) == "dark", "the choice is forgotten on the next page"
    assert not visit.trouble()


def search(page, words):
    """Type words into the page's own search and go to the results."""
    page.evaluate("document.activeElement.blur()")
    field = page.locator("input[type=search]:visible")
    if not field.count():
        page.locator("button:visible", has_text="Search").or_(
            page.locator("button.search-button-field:visible, button.search-button__button:visible")
        ).first.click()
    field.first.fill(words)
    field.first.press("Enter")
    page.wait_for_url("**/search.html*")


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize("words", ["Fréchet", "posterior"])
def test_search_finds_a_word(tab, scheme, words):
    visit = tab(scheme=scheme).open(CHAPTER)
    search(visit.page, words)
    found = visit.page.locator("ul.search li a[href*='html']")
    found.first.wait_for()
    names = [link.get_attribute("href") for link in found.all()]
    assert any("notebooks/" in name for name in names), names
    found.first.click()
    visit.page.wait_for_url(lambda url: "search.html" not in url)
    visit.settle()
    assert words.lower() in visit.page.locator("article").inner_text().lower()
    assert not visit.trouble()


def test_search_says_when_there_is_nothing(tab):
    page = tab().open(FRONT).page
    search(page, "xyzzyplugh")
    page.get_by_text("did not match any documents").wait_for()


ON_PAPER = """() => [...document.querySelectorAll(`nav, dialog, [role=navigation], [role=search],
    button, input, select, .bd-sidebar-primary, .bd-sidebar-secondary, .skip-link`)]
  .filter(node => node.checkVisibility({visibilityProperty: true, opacityProperty: true})
          && node.getBoundingClientRect().height > 1)
  .map(node => `${node.localName}.${node.className} is of no use on paper`)"""


@pytest.mark.parametrize("name", PAGES)
def test_fits_when_enlarged_and_on_paper(name, tab, maths, fail_with):
    visit = tab(640).open(name, maths(name))
    found = [f"200 % zoom of 1280 px | {line}" for line in visit.overflow()]
    visit.page.set_viewport_size({"width": 320, "height": 600})
    found += [f"400 % zoom, 320 px | {line}" for line in visit.overflow()]
    visit.page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dpi
    visit.page.emulate_media(media="print")
    found += [f"paper | {line}" for line in visit.overflow() + visit.page.evaluate(ON_PAPER)[:5]]
    if not visit.page.locator("h1:visible").count():
        found.append("paper | no heading")
    fail_with(f"{name} | {line}" for line in found)


# A closed box (<details>) opens without scripts, too.
OPEN_BOXES = "() => document.querySelectorAll('details').forEach(box => { box.open = true })"
HIDDEN = """() => [...document.querySelectorAll('article :is(p, li, table, pre, img, h1, h2, h3)')]
  .filter(n => (n.localName === 'img' || n.textContent.trim()) && !n.closest('summary')
          && !n.checkVisibility({visibilityProperty: true}))
  .map(n => `hidden: ${n.localName} ${n.textContent.trim().slice(0, 60)}`)"""
DECODED = "i => i.decode().then(() => i.naturalWidth > 0, () => false)"


@pytest.mark.parametrize("name", [f"{name}.html" for name in contents()])
def test_reads_without_javascript(name, tab, whole, fail_with):
    visit = tab(java_script_enabled=False)
    visit.page.goto(visit.address + name)
    text = " ".join(visit.page.locator("article").inner_text().split())
    complaints = [] if len(text.split()) > 25 else [f"only {len(text.split())} words are shown"]
    for title in whole[name].all("h1", "h2"):
        if title.text().strip().rstrip("#") not in text:
            complaints.append(f"not shown: {title.text()!r}")
    visit.page.evaluate(OPEN_BOXES)
    complaints += visit.page.evaluate(HIDDEN)
    for image in visit.page.locator("article img:visible").all():
        image.scroll_into_view_if_needed()
        if not image.evaluate(DECODED):
            complaints.append(f"picture: {image.get_attribute('src')[:80]}")
    fail_with(f"{name} | {line}" for line in complaints + visit.troubles)


@pytest.mark.parametrize("name", [FRONT, CHAPTER, "search.html"])
def test_nothing_moves_where_motion_is_not_wanted(name, tab, fail_with):
    visit = tab(reduced_motion="reduce").open(name)
    complaints = visit.page.evaluate(browser.RUNNING)
    smooth = "getComputedStyle(document.documentElement).scrollBehavior"
    if visit.page.evaluate(smooth) == "smooth":
        complaints.append("moves: the page scrolls smoothly")
    fail_with(f"{name} | {line}" for line in complaints)


def test_404_is_whole_wherever_it_is_shown(tab, folder, fail_with):
    """A host shows it at the address that does not exist: its own links must not depend on that."""
    for lost in ("none.html", "no/such/page.html"):
        visit = tab().open(lost, maths=0)
        own = [t for t in visit.trouble() if f"{lost} 404" not in t and "status of 404" not in t]
        fail_with(f"404 at {lost} | {line}" for line in own + visit.overflow() + visit.axe())
        assert visit.page.locator("h1").count() == 1
        visit.page.locator("main a, body a").first.click()
        visit.page.wait_for_url("**/*.html")
        assert visit.page.locator("article").count()
