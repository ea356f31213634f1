"""Measure three pages of the built book with Lighthouse CI: `make lighthouse`.

Lighthouse CI comes from npm (Node is needed, and Chromium; CHROME_PATH names another one). It
serves the folder, compressed, and measures every page RUNS times as a phone and as a desktop. The
medians are printed and kept in book/quality.json; the exit status is 1 if a score is below BAR.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LHCI = "@lhci/cli@0.15.1"  # it brings its own Lighthouse, whose version goes into the record
PAGES = ["book/intro.html", "notebooks/04-latent-dimension.html", "book/results.html"]
CATEGORIES = ["performance", "accessibility", "best-practices", "seo"]
TIMES = {
    "first-contentful-paint": "FCP", "largest-contentful-paint": "LCP",
    "total-blocking-time": "TBT", "cumulative-layout-shift": "CLS", "total-byte-weight": "bytes",
}  # fmt: skip
DEVICES = {"mobile": {}, "desktop": {"preset": "desktop"}}
FLAGS = ("--headless=new --no-sandbox --disable-gpu "
         "--host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE localhost'")  # fmt: skip
BAR, RUNS = 95, 3


def collect(book, device):
    """The reports of every page, each measured RUNS times on one device."""
    settings = {"onlyCategories": CATEGORIES, "chromeFlags": FLAGS} | DEVICES[device]
    collecting = {"staticDistDir": str(book.resolve()), "numberOfRuns": RUNS, "settings": settings,
                  "url": [f"http://localhost/{page}" for page in PAGES]}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "lighthouserc.json"
        config.write_text(json.dumps({"ci": {"collect": collecting}}))
        command = ["npx", "--yes", "--package", LHCI, "lhci", "collect", f"--config={config}"]
        subprocess.run(command, cwd=folder, check=True, stdout=sys.stderr)
        return [json.loads(p.read_text("utf-8")) for p in config.parent.rglob("lhr-*.json")]


def row(report):
    """Scores (0 to 100), timings (ms), and the audits that cost points, of one report."""
    audits, found = report["audits"], report["categories"]
    spoilt = {entry["id"] for name in CATEGORIES[1:] for entry in found[name]["auditRefs"]
              if entry["weight"] and audits[entry["id"]]["score"] not in (None, 1)}  # fmt: skip
    return {
        **{name: 100 * found[name]["score"] for name in CATEGORIES},
        **{column: audits[audit]["numericValue"] for audit, column in TIMES.items()},
        "machine": report["environment"]["benchmarkIndex"],  # it falls when others use the CPU
        "failed": sorted(spoilt),
    }


def median(rows):
    """The median of every number of several measurements, and all failed audits."""
    numbers = [key for key in rows[0] if key != "failed"]
    middle = {key: round(statistics.median(r[key] for r in rows), 3) for key in numbers}
    return middle | {"failed": sorted({audit for r in rows for audit in r["failed"]})}


def main(book):
    """Measure, print, record; returns what to exit with."""
    medians, version = {}, ""
    for device in DEVICES:
        reports = collect(Path(book), device)
        version = reports[0]["lighthouseVersion"]
        for page in PAGES:
            rows = [row(r) for r in reports if r["requestedUrl"].endswith(f"/{page}")]
            medians[f"{page} {device}"] = middle = median(rows)
            print(f"{page} {device}:", *(f"{key} {value}" for key, value in middle.items()))
    record = {"lighthouse": version, "runs": RUNS, "medians": medians}
    (ROOT / "book/quality.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    low = [key for key, middle in medians.items() if min(middle[c] for c in CATEGORIES) < BAR]
    return f"Below {BAR}: {', '.join(low)}" if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
