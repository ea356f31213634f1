"""The built book in a real browser: from files, and from a web server under a sub-path."""

import http.server
import os
import threading
from urllib.parse import unquote, urlsplit

import browser
import page_checks
import pytest
from playwright.sync_api import sync_playwright

SUB_PATH = "/some/sub/path/"
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json", ".map": "application/json", ".xml": "application/xml",
    ".webmanifest": "application/manifest+json", ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
    ".ico": "image/vnd.microsoft.icon", ".webp": "image/webp", ".zip": "application/zip",
    ".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf",
    ".ipynb": "application/x-ipynb+json", "": "application/octet-stream",
}  # fmt: skip


@pytest.fixture(scope="session")
def folder(built):
    """The folder of the built HTML."""
    return built[0]


@pytest.fixture(scope="session")
def trees(folder):
    """{"book/intro.html": root Node} of every built page."""
    return page_checks.read(folder)


@pytest.fixture(scope="session")
def whole(trees):
    """Those pages that are more than a redirection."""
    return {name: root for name, root in trees.items() if not page_checks.redirects(root)}


@pytest.fixture(scope="session")
def maths(whole):
    """`maths("book/intro.html")`: how many formulas the source of a page has."""

    def count(name):
        assert name in whole, f"{name} was not built"
        return page_checks.maths(whole[name])

    return count


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder below SUB_PATH as a static host does: 404.html for what is not there."""

    protocol_version = "HTTP/1.1"
    extensions_map = TYPES

    def translate_path(self, path):
        path = unquote(urlsplit(path).path)
        inside = path.startswith(SUB_PATH) and ".." not in path.split("/")
        return os.path.join(self.directory, path[len(SUB_PATH) :] if inside else "outside")

    def send_error(self, code, message=None, explain=None):
        page = os.path.join(self.directory, "404.html")
        wants_page = "text/html" in self.headers.get("Accept", "")
        if code != 404 or not wants_page or not os.path.exists(page):
            super().send_error(code, message, explain)
            return
        with open(page, "rb") as file:
            body = file.read()
        self.send_response(404)
        self.send_header("Content-Type", TYPES[".html"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self):
        self.send_header("X-Content-Type-Options", "nosniff")  # a wrong type is an error
        super().end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def serve():
    """`serve(folder)` is the address, below a sub-path, of a web server with these files."""
    servers = []

    def start(folder):
        def handler(*arguments):
            return Files(*arguments, directory=str(folder))

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}{SUB_PATH}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def addresses(folder, serve):
    """The book's two addresses: {"file": ..., "http": ...}."""
    return {"file": folder.as_uri() + "/", "http": serve(folder)}


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for the tests of a file. Playwright's event loop runs as long as it does, and
    must be gone before tests that have one of their own."""
    path = browser.need()
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=path, args=browser.FLAGS)
        yield program
        program.close()


@pytest.fixture
def tab(chromium, folder, addresses):
    """`tab(width, mode, scheme="http", ...)`: a Tab of a reader who was never here before."""
    contexts = []

    def new(width=1280, mode="light", scheme="http", folder=folder, address=None, **options):
        size = {"width": width, "height": 800}
        contexts.append(chromium.new_context(viewport=size, color_scheme=mode, **options))
        contexts[-1].set_default_timeout(60_000)
        return browser.Tab(contexts[-1], folder, address or addresses[scheme])

    yield new
    for context in contexts:
        context.close()


@pytest.fixture
def fail_with():
    """`fail_with(complaints)` fails with one line for each complaint, if there are some."""

    def check(complaints):
        found = list(complaints)
        if found:
            pytest.fail("\n".join(found), pytrace=False)

    return check
