"""Measure three pages of the built book with Lighthouse: `make lighthouse`.

Lighthouse comes from npm into `.lighthouse` (Node is needed, and Chromium; CHROME_PATH names it).
The book is served as GitHub Pages serves it: under a sub-path, compressed, cached for ten minutes.
Every page is measured RUNS times on the simulated phone and on the desktop; the medians are printed
and kept in book/quality.json. The exit status is 1 if a median score is below BAR.
"""

import argparse
import gzip
import http.server
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
VERSION = "13.5.0"
PAGES = ["book/intro.html", "notebooks/04-latent-dimension.html", "book/results.html"]
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
TIMES = {  # audit -> (column, unit)
    "first-contentful-paint": ("FCP", "ms"),
    "largest-contentful-paint": ("LCP", "ms"),
    "total-blocking-time": ("TBT", "ms"),
    "cumulative-layout-shift": ("CLS", ""),
    "total-byte-weight": ("bytes", ""),
}
BAR = 95
RUNS = 3
COMPRESSED = {".html", ".css", ".js", ".json", ".svg", ".txt", ".xml", ".ipynb", ".md"}
CHROME = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
          "--disable-background-networking", "--disable-component-update",
          "--host-resolver-rules='MAP * ~NOTFOUND, "
          "EXCLUDE 127.0.0.1, EXCLUDE localhost'"]  # fmt: skip


class Pages(http.server.SimpleHTTPRequestHandler):
    """A folder under a sub-path, with the headers and the 404 page of GitHub Pages."""

    protocol_version = "HTTP/1.1"
    folder, prefix = Path("."), "/"

    def do_GET(self):
        self.answer()

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body=True):
        """Send the file that the address names, or 404.html with status 404."""
        path = unquote(urlsplit(self.path).path)
        inside = path.startswith(self.prefix)
        file = (self.folder / path.removeprefix(self.prefix)).resolve()
        file = file / "index.html" if file.is_dir() else file
        found = inside and file.is_file() and file.is_relative_to(self.folder.resolve())
        missing = self.folder / "404.html"
        data = file.read_bytes() if found else missing.read_bytes() if missing.exists() else b""
        name = file.name if found else "404.html"
        self.send_response(200 if found else 404)
        kind = self.guess_type(name)
        text = kind.startswith("text/") or kind.endswith(("javascript", "json"))
        self.send_header("Content-Type", f"{kind}; charset=utf-8" if text else kind)
        self.send_header("Cache-Control", "max-age=600")
        zipped = "gzip" in self.headers.get("Accept-Encoding", "")
        if zipped and Path(name).suffix in COMPRESSED:
            data = gzip.compress(data, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    """A browser may hang up in the middle of an answer; that is no error of ours."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def serve(folder, prefix="/from-latents-to-images/"):
    """Serve a folder on this machine: (server, address of the folder)."""
    handler = type("Handler", (Pages,), {"folder": Path(folder), "prefix": prefix})
    server = Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}{prefix}"


def install(folder):
    """The path of Lighthouse's program, installed into `folder` where it is missing."""
    program = folder / "node_modules/lighthouse/cli/index.js"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", f"lighthouse@{VERSION}"]
        subprocess.run([*command, "--prefix", "."], cwd=folder, check=True)
    return program


def chromium():
    """The path of Chromium or Chrome."""
    names = ["chromium", "chromium-browser", "google-chrome"]
    found = os.environ.get("CHROME_PATH") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise SystemExit("Chromium is not here; install it or name it with CHROME_PATH=...")
    return found


def measure(program, address, device):
    """Scores (0 to 100) and timings of one page, measured once."""
    with tempfile.TemporaryDirectory() as home:
        out = Path(home) / "report.json"
        command = ["node", program, address, "--quiet", "--output=json", f"--output-path={out}",
                   f"--only-categories={','.join(CATEGORIES)}",
                   "--chrome-flags=" + " ".join(CHROME)]  # fmt: skip
        command += ["--preset=desktop"] if device == "desktop" else []
        # npm's own cache and Lighthouse's settings stay out of the user's home
        environment = os.environ | {"CHROME_PATH": chromium(), "CI": "1"}
        subprocess.run(command, check=True, env=environment, timeout=300)
        report = json.loads(out.read_text(encoding="utf-8"))
    if report.get("runtimeError"):
        raise SystemExit(f"{address}: {report['runtimeError']['message']}")
    result = {name: 100 * report["categories"][name]["score"] for name in CATEGORIES}
    for audit, (column, _) in TIMES.items():
        result[column] = report["audits"][audit]["numericValue"]
    result["machine"] = report["environment"]["benchmarkIndex"]  # it falls when others use the CPU
    result["failed"] = sorted(failures(report))
    return result


def failures(report):
    """The audits that cost points, of every category but the timings."""
    for name in CATEGORIES[1:]:
        for entry in report["categories"][name]["auditRefs"]:
            score = report["audits"][entry["id"]]["score"]
            if entry["weight"] and score is not None and score < 1:
                yield entry["id"]


def median(results):
    """The median of every number of several measurements, and all failed audits."""
    numbers = [key for key in results[0] if key != "failed"]
    row = {key: round(statistics.median(r[key] for r in results), 3) for key in numbers}
    return row | {"failed": sorted({audit for r in results for audit in r["failed"]})}


def line(page, device, row):
    """One line of the printed table."""
    scores = "  ".join(f"{row[name]:5.0f}" for name in CATEGORIES)
    times = "  ".join(f"{row[c]:8.{0 if u == 'ms' or c == 'bytes' else 3}f}"
                      for c, u in TIMES.values())  # fmt: skip
    return f"{page:36} {device:8} {scores}  {times}  {' '.join(row['failed'])}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("book", type=Path, help="folder of the built HTML")
    parser.add_argument("--cache", type=Path, default=ROOT / ".lighthouse")
    parser.add_argument("--record", type=Path, default=ROOT / "book/quality.json")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--pages", nargs="+", default=PAGES)
    parser.add_argument("--devices", nargs="+", default=["mobile", "desktop"])
    options = parser.parse_args(arguments)
    program = install(options.cache)
    server, address = serve(options.book)
    rows = {}
    heads = [*(name[:5] for name in CATEGORIES), *(column for column, _ in TIMES.values())]
    print(f"{'page':36} {'device':8} " + "  ".join(
        f"{h:>{5 if i < 4 else 8}}" for i, h in enumerate(heads)))  # fmt: skip
    for page in options.pages:
        for device in options.devices:
            runs = [measure(program, address + page, device) for _ in range(options.runs)]
            rows[f"{page} {device}"] = row = median(runs)
            print(line(page, device, row), flush=True)
    server.shutdown()
    record = {"lighthouse": VERSION, "runs": options.runs, "medians": rows}
    options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    low = [key for key, row in rows.items() if min(row[name] for name in CATEGORIES) < BAR]
    return f"Below {BAR}: {', '.join(low)}" if low else 0


if __name__ == "__main__":
    sys.exit(main())
