"""A page in Chromium: what it asked for, what went wrong, and checks of how it looks.

Each check returns complaints, one line each. None of them changes the page but `settle`, which has
loaded what waits for its turn.
"""

import os
import shutil
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.base import AXE_SCRIPT

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
FLAGS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no other host can answer
]  # fmt: skip
MISSING = (
    "Chromium was not found, so no page was looked at in a browser: install `chromium`, or name "
    "another Chromium in GENCORE_CHROMIUM."
)
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LIMIT = 1_500_000  # bytes of a page: its text, pictures and data; scripts and fonts are the book's
WATCH_POLICY = """window.brokenPolicies = [];
document.addEventListener('securitypolicyviolation', event => window.brokenPolicies.push(
  `${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));"""


def find():
    """The path of Chromium on this machine, or None. GENCORE_CHROMIUM names another one."""
    if named := os.environ.get("GENCORE_CHROMIUM"):
        return shutil.which(named)
    return next(filter(None, map(shutil.which, NAMES)), None)


def need():
    """Chromium's path. Without one the tests are skipped, in continuous integration they fail."""
    if path := find():
        return path
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(MISSING)
    pytest.skip(MISSING)


class Tab:
    """One page of one folder, opened at `address` (that of the folder: file: or http:)."""

    def __init__(self, context, folder, address):
        self.folder, self.address = folder, address
        self.requests, self.troubles = [], []
        self.patience = 20_000  # milliseconds for the last picture and formula
        self.page = context.new_page()
        self.page.add_init_script(WATCH_POLICY)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("requestfailed", self.failed)
        self.page.on("response", self.answered)
        self.page.on("console", self.said)
        self.page.on("pageerror", lambda error: self.troubles.append(f"page error: {error}"))

    def failed(self, request):
        # A page that is left or closed drops what it no longer needs.
        if request.failure != "net::ERR_ABORTED":
            self.troubles.append(f"failed request: {self.short(request.url)} {request.failure}")

    def answered(self, response):
        if response.status >= 400:
            self.troubles.append(f"failed request: {self.short(response.url)} {response.status}")

    def said(self, message):
        if message.type == "error":
            self.troubles.append(f"console: {self.short(message.text)[:300]}")

    def short(self, text):
        """An address without the folder that all addresses share."""
        return text.replace(self.address, "")

    def start(self, name):
        """Begin to load a page, and do not wait: tabs load side by side."""
        self.page.goto(self.address + name, wait_until="commit")
        return self

    def open(self, name, maths=None):
        """Load a page and wait until it is whole."""
        self.start(name)
        self.settle(maths)
        return self

    def settle(self, maths=None):
        """Wait for scripts, fonts, all pictures, and `maths` formulas (None: those it has)."""
        self.page.wait_for_load_state("load")
        self.page.evaluate(HURRY)
        try:
            self.page.wait_for_function(IS_WHOLE, arg=maths, timeout=self.patience)
        except Exception as error:  # the checks say what is lacking
            if "Timeout" not in str(error):
                raise

    def resize(self, width, height=800):
        """Make the window another size and wait for what answers to that."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_timeout(500)  # the theme looks again 300 ms after the last change
        self.page.wait_for_function(f"() => !({RUNNING})().length")

    # ------------------------------------------------------------ what went wrong

    def trouble(self):
        """Errors, failed requests, requests to other hosts, what the page's policy refused."""
        found = list(self.troubles)
        for request in self.requests:
            local = request.url.startswith(self.address)
            if not local and urlsplit(request.url).scheme not in ("data", "blob", "about"):
                found.append(f"other host: {request.url[:200]}")
        found += [f"policy: {event}" for event in self.page.evaluate("window.brokenPolicies")]
        return list(dict.fromkeys(found))

    def weight(self):
        """Bytes of the page itself: its HTML, its pictures, its data (also those in scripts)."""
        kinds = {"document", "image", "media", "fetch", "xhr", "other", "script"}
        urls = {r.url.partition("#")[0] for r in self.requests if r.resource_type in kinds}
        own = [url for url in urls if url.startswith(self.address) and "/_static/" not in url]
        pictures = [r.url for r in self.requests if r.resource_type == "image"]
        return sum(self.size(url) for url in {*own, *pictures} if url.startswith(self.address))

    def size(self, url):
        path = self.folder / unquote(urlsplit(self.short(url)).path)
        return path.stat().st_size if path.is_file() else 0

    def heavy(self):
        """A page over the limit."""
        return [f"{self.weight():,} bytes"] if self.weight() > LIMIT else []

    def look(self, theme, maths):
        """The theme that the reader's system asks for; no overflow; formulas; pictures."""
        found = self.page.evaluate(LOOK, {"theme": theme, "maths": maths})
        return found + self.overflow()

    def overflow(self):
        """Whatever makes a reader scroll sideways, or is cut off at the page's edge."""
        return self.page.evaluate(OVERFLOW)

    # ------------------------------------------------------------ axe

    def axe_start(self, within=None, again=False):
        """Begin the accessibility checks of the page, or of what a selector names.

        again: the text was looked at in these colours at another width. To measure the contrast of
        each of its words is most of the work, and is left out.
        """
        self.page.evaluate(AXE_SCRIPT)
        self.page.evaluate(AXE, {"within": within, "again": again, "tags": TAGS})

    def axe(self, within=None):
        """Violations, of what was begun or else of now: rule, selector, what axe says of it."""
        if within or not self.page.evaluate("'axeResult' in window"):
            self.axe_start(within)
        found = self.page.evaluate("window.axeResult.finally(() => delete window.axeResult)")
        return [f"axe {r}: {where}: {' '.join(said.split())[:160]}" for r, where, said in found]


# Style sheets need no second download (preload): the one rule that wants them is experimental.
AXE = """({within, again, tags}) => {
  const common = {resultTypes: ['violations'], preload: false}
  const violations = async (context, options) =>
    (await axe.run(context, {...common, ...options})).violations.flatMap(rule => rule.nodes.map(
      node => [rule.id, node.target.flat().join(' '), node.failureSummary]))
  const all = {runOnly: {type: 'tag', values: tags}}
  const rest = {...all, rules: {'color-contrast': {enabled: false}}}
  const contrast = {runOnly: {type: 'rule', values: ['color-contrast']}}
  window.axeResult = again && document.querySelector('article')
    ? violations(document, rest).then(async found =>
        [...found, ...await violations({exclude: [['article']]}, contrast)])
    : violations(within ?? document, all)
}"""

# Formulas and live figures that wait until they are near are met by scrolling; pictures, some of
# them in closed boxes, are simply asked for. A tab that is not painted has no frames: 50 ms do.
HURRY = """async () => {
  const frame = () => Promise.race([new Promise(requestAnimationFrame),
                                    new Promise(done => setTimeout(done, 50))])
  for (const image of document.images) image.loading = 'eager'
  if (document.querySelector('mjx-lazy, [data-mjx-lazy], .gencore-live:not([data-mounted])')) {
    for (let y = 0; y < document.scrollingElement.scrollHeight; y += innerHeight) {
      scrollTo({top: y, behavior: 'instant'})
      await frame()
      await frame()
    }
    scrollTo({top: 0, behavior: 'instant'})
  }
}"""

IS_WHOLE = """maths => {
  const pictures = [...document.images].every(image => image.complete)
  const formulas = document.querySelectorAll('mjx-container').length
  const wanted = maths ?? document.querySelectorAll('.math').length
  return pictures && document.fonts.status === 'loaded' && formulas >= wanted
    && !document.querySelector('mjx-lazy, [data-mjx-lazy], .gencore-live:not([data-mounted])')
}"""

# The path of an element that a maintainer can paste into the console.
SELECTOR = """const selector = node => {
  const name = node => node.id ? '#' + node.id
    : node.localName + [...node.classList].slice(0, 2).map(c => '.' + c).join('')
  const path = []
  for (let n = node; n && n !== document.body && path.length < 3; n = n.parentElement) {
    path.unshift(name(n))
    if (n.id) break
  }
  return path.join(' > ')
}"""

LOOK = """({theme, maths}) => {
  SELECTOR
  const found = []
  const pixel = new OffscreenCanvas(1, 1).getContext('2d')
  pixel.fillStyle = getComputedStyle(document.body).backgroundColor
  pixel.fillRect(0, 0, 1, 1)
  const [red, green, blue, opaque] = pixel.getImageData(0, 0, 1, 1).data
  const shown = opaque && red + green + blue < 384 ? 'dark' : 'light'
  const named = document.documentElement.dataset.theme ?? shown  // a page without scripts has none
  if (shown !== theme || named !== theme)
    found.push(`theme: ${named} on ${shown} ground, not ${theme}`)
  const formulas = document.querySelectorAll('mjx-container').length
  if (formulas !== maths) found.push(`maths: ${formulas} formulas are typeset, not ${maths}`)
  // MathJax shows what it cannot read as an error, and a macro that it does not know in red.
  for (const node of document.querySelectorAll('mjx-merror, mjx-container [style*="color: red"]'))
    found.push(`maths: ${node.localName === 'mjx-merror' ? 'error' : 'unknown macro'} in `
               + selector(node.closest('.math') ?? node))
  for (const image of document.images)
    if (!image.naturalWidth) found.push(`picture: ${image.src.slice(0, 80)} is not there`)
  for (const figure of document.querySelectorAll('.gencore-live:not([data-mounted])'))
    found.push(`live: ${figure.id} is not alive`)
  return found
}""".replace("SELECTOR", SELECTOR)

# What scrolls or cuts off inside a figure, a table or a block of code is meant to; what does so
# around the title is the page itself.
OVERFLOW = """() => {
  SELECTOR
  const page = [], found = [], width = document.documentElement.clientWidth
  const title = document.querySelector('h1') ?? document.body
  for (let n = title; n; n = n.parentElement) {
    const box = n === document.body ? document.scrollingElement : n
    const over = box.scrollWidth - box.clientWidth
    if (over > 0 && (n === document.body || getComputedStyle(n).overflowX !== 'visible'))
      page.push(`overflow: ${n === document.body ? 'page' : selector(n)} is ${over} px too wide`)
  }
  const held = node => {
    for (let n = node.parentElement; !n.contains(title); n = n.parentElement)
      if (getComputedStyle(n).overflowX !== 'visible') return true
    return false
  }
  for (const node of document.body.querySelectorAll('*')) {
    const box = node.getBoundingClientRect()
    if (box.width > 1 && box.height > 1 && box.right > width + 1 && box.left < width && !held(node)
        && node.checkVisibility({visibilityProperty: true, opacityProperty: true}))
      found.push(`overflow: ${selector(node)} ends ${Math.round(box.right - width)} px too far`)
  }
  return [...found.slice(0, 3), ...page.slice(-1)]
}""".replace("SELECTOR", SELECTOR)

RUNNING = """() => document.getAnimations().filter(a => a.playState === 'running').map(a =>
  `moves: ${a.animationName ?? a.transitionProperty} of ${a.effect.target?.className}`)"""
