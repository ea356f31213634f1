"""Numbers of the published runs: the results page, and a role that prints one number in prose.

`<!-- gencore:results -->` becomes the tables; {run}`vae-mnist-d10:frechet_prior` becomes "mean ±
sd" over the seeds of that run. Both read the artefacts when a page is built: no number is typed.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
MARKER = "<!-- gencore:results -->"
NO_BREAK_HYPHEN = "\N{NON-BREAKING HYPHEN}"
logger = logging.getLogger(__name__)

LABELS = {
    "accuracy": "test accuracy",
    "elbo": "ELBO (nats per image)",
    "rec": "reconstruction term (nats)",
    "kl": "KL term (nats)",
    "iwae": "IWAE, K = 100 (nats)",
    "mse": "mean squared error of reconstructions",
    "psnr": "PSNR of reconstructions (dB)",
    "active_units": "active units",
    "frechet_floor": "Fréchet floor, real against real",
    "frechet_rec": "Fréchet, reconstructions",
    "frechet_prior": "Fréchet, samples of N(0, I)",
    "frechet_gaussian": "Fréchet, samples of a fitted Gaussian",
    "frechet_gmm": "Fréchet, samples of a fitted mixture",
    "kid_prior": "KID, samples of N(0, I)",
    "kid_rec": "KID, reconstructions",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "sharpness_real": "sharpness, real images",
    "sharpness_rec": "sharpness, reconstructions",
    "sharpness_prior": "sharpness, samples of N(0, I)",
}
OF_THE_DATA = {"frechet_floor", "sharpness_real"}  # not of the model: no spread over its seeds
SHORT = {  # the columns of the overview
    "accuracy": "test accuracy",
    "elbo": "ELBO",
    "mse": "MSE",
    "active_units": "active units",
    "frechet_floor": "Fréchet: real (floor)",
    "frechet_rec": "reconstr.",
    "frechet_prior": "N(0, I)",
    "frechet_gmm": "mixture",
    "recall": "recall",
}
GROUPS = {
    "classifier": "Frozen classifiers",
    "linear": "Linear VAE",
    "vae": "Variational autoencoders",
    "ae": "Plain autoencoders",
    "encoder": "Small encoders for the live figures",
}


def runs():
    """gencore.runs, imported when a page needs it: it brings torch."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from gencore import runs

    return runs


def digits(value, decimals):
    """A number with a true minus sign and thin spaces in long integers."""
    return f"{value:,.{decimals}f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace(
        "-", "\N{MINUS SIGN}"
    )


def show(mean, sd=None):
    """`mean ± sd` with as many decimals as sd has to say; four significant digits without sd."""
    exact = sd is None or sd <= 1e-9 * abs(mean)  # the same number up to rounding
    sd = 0.0 if exact and sd is not None else sd
    size = abs(mean) if exact else sd
    if exact and float(mean).is_integer() and size >= 1:
        decimals = 0
    else:
        wanted = 4 if exact else 2
        decimals = min(5, max(0, wanted - 1 - math.floor(math.log10(size)))) if size > 0 else 0
    text = digits(mean, decimals)
    return text if sd is None else f"{text} ± {digits(sd, decimals)}"


def numbers(metas):
    """{metric: [value per run]} of the scalar metrics that every one of these runs has."""
    common = set.intersection(*(set(meta["metrics"]) for meta in metas))
    known = [key for key in LABELS if key in common] + sorted(common - set(LABELS))
    values = {key: [meta["metrics"][key] for meta in metas] for key in known}
    return {k: v for k, v in values.items() if all(isinstance(x, (int, float)) for x in v)}


def over_seeds(values, key=None):
    """Mean ± standard deviation of some values; one value, or one of the data, stands alone."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1 or (key in OF_THE_DATA and len(set(values)) == 1):
        return show(mean)
    return show(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)))


def table(head, rows):
    """A Markdown table whose columns, but the first, are right-aligned."""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return text.replace("± ", "±\N{NO-BREAK SPACE}").replace("N(0, I)", "N(0,\N{NO-BREAK SPACE}I)")


def load():
    """{base name: [meta of each seed that is here]} and {name: state} of the whole catalogue."""
    catalogue, found, states = runs(), defaultdict(list), {}
    for name in catalogue.names():
        states[name] = catalogue.state(name)
        if states[name] in ("ready", "stale"):
            base = next(n for n in catalogue.names() if name in catalogue.seeds(n))
            path = catalogue.store.runs_dir() / f"{name}.json"
            found[base].append(catalogue.store.read_json(path))
    return found, states


def overview(found):
    """One table per kind of model and data: a row per run, mean ± sd over its seeds."""
    groups = defaultdict(list)
    for base, metas in found.items():
        paper, data = metas[0]["config"]["paper"], metas[0]["config"]["data"]
        title = GROUPS.get(paper, paper) + (f" on {data}" if paper != "classifier" else "")
        groups[title].append((base, numbers(metas)))
    for title, rows in groups.items():
        keys = [key for key in SHORT if any(key in values for _, values in rows)]
        keys = keys or list(rows[0][1])[:6]
        yield f"### {title}\n"
        yield table(
            ["run", *(SHORT.get(key, key) for key in keys)],
            [
                [link(base), *(over_seeds(v[k], k) if k in v else "" for k in keys)]
                for base, v in rows
            ],
        )


def link(base):
    """A link to the run's own table; its name does not break at a hyphen."""
    return f"[{base.replace('-', NO_BREAK_HYPHEN)}](#run-{base})"


def record(base, metas):
    """Everything about one run: its configuration, numbers per seed, time and hardware."""
    config = metas[0]["config"]
    seeds = [f"seed {meta['config']['seed']}" for meta in metas]
    text = (
        f"{digits(metas[0]['parameters'], 0)} parameters, {digits(metas[0]['steps'], 0)} steps of "
        f"{config['batch']} images, learning rate {config['lr']:g}. Hardware: "
        f"{metas[0]['hardware']}; "
        + ", ".join(f"{name} {version}" for name, version in metas[0]["versions"].items())
    )
    values = numbers(metas)
    rows = [
        [LABELS.get(k, k), *map(show, v), over_seeds(v, k) if len(v) > 1 else ""]
        for k, v in values.items()
    ]
    for key, label in (
        ("wall_s", "training, minutes of wall-clock time"),
        ("cpu_s", "training, minutes of CPU time"),
    ):
        rows.append([label, *(digits(meta[key] / 60, 1) for meta in metas), ""])
    columns = [*seeds, "mean ± sd"] if len(metas) > 1 else seeds
    rows = [row[: len(columns) + 1] for row in rows]
    return f"(run-{base})=\n### {base}\n\n{text}.\n\n{table(['quantity', *columns], rows)}"


def page():
    """The Markdown of all results."""
    found, states = load()
    count = {
        s: [n for n in states if states[n] == s] for s in ("ready", "stale", "missing", "damaged")
    }
    parts = [
        f"{len(states)} runs are in the catalogue; {len(count['ready'])} of them are trained and "
        "up to date.\n"
    ]
    for state, meaning in (
        ("stale", "were made from another configuration than the present one"),
        ("missing", "have not been trained yet"),
        ("damaged", "have files that do not match their sha256"),
    ):
        if count[state]:
            parts.append(f"**{state.capitalize()}**: these {meaning}: {', '.join(count[state])}.\n")
    parts += ["## Overview\n", *overview(found)]
    return "\n".join([*parts, "## Every run\n", *(record(*item) for item in found.items())])


def insert(app, docname, source):
    """Replace the marker when Sphinx reads the page."""
    if MARKER in source[0] and docname.startswith("book/"):
        source[0] = source[0].replace(MARKER, page())


def run_role(role, rawtext, text, lineno, inliner, options=None, content=None):
    """{run}`name:metric`: mean ± sd over the seeds. A number that is not there is a warning."""
    name, _, metric = text.partition(":")
    try:
        mean, sd, _ = runs().summary(name.strip(), metric.strip())
        shown = show(mean, sd)
    except (KeyError, OSError, ValueError) as error:
        where = (inliner.document.settings.env.docname, lineno)
        logger.warning("no number for {run}`%s`: %s", text, error, location=where)
        shown = f"(no number yet: {text})"
    return [nodes.Text(shown)], []


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", insert)
    app.add_role("run", run_role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
