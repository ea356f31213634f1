"""Numbers of the published runs: the results page, and a role that prints one number in prose.

`<!-- gencore:results -->` becomes the tables; {run}`vae-mnist-d10:frechet_prior` becomes "mean ±
sd" over the seeds of that run. Both read the artefacts when a page is built: no number is typed.
No run is asked which paper it is of: what it recorded decides which columns it fills.
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
MARKER = "<!-- gencore:results -->"
NO_BREAK_HYPHEN = "\N{NON-BREAKING HYPHEN}"
logger = logging.getLogger(__name__)

LABELS = {  # in the order of the tables; a metric that is not here keeps its own name
    "accuracy": "test accuracy",
    "elbo": "ELBO (nats)",
    "rec": "reconstruction term (nats)",
    "kl": "KL term (nats)",
    "iwae": "IWAE, K = 128 (nats)",
    "iwae_elbo": "ELBO of the same images (nats)",
    "iwae_gain": "IWAE less ELBO (nats)",
    "iwae_gain_se": "its standard error (nats)",
    "mismatch_gaussian": "KL(q(z)‖p(z)), at least, by a Gaussian (nats)",
    "mismatch_gmm": "KL(q(z)‖p(z)), at least, by a mixture (nats)",
    "mse": "MSE",
    "psnr": "PSNR (dB)",
    "active_units": "active units",
    "modes": "modes found",
    "good": "share of points at a mode",
    "modes_kl": "KL of the modes' shares (nats)",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "live_units": "live hidden units, share",
    "live_units_least": "live hidden units, worst layer",
    "code_rank": "effective rank of the codes",
    "n": "images in each set",
}
KINDS = {"frechet": "Fréchet", "kid": "KID", "sharpness": "sharpness"}  # measures of a set ...
SETS = {  # ... and the sets, as in "frechet_prior"
    "real": "real images", "floor": "floor (real against real)", "rec": "reconstructions",
    "prior": "prior", "gaussian": "fitted Gaussian", "gmm": "fitted mixture",
}  # fmt: skip
COMPARED = """Each dataset has a ruler of its own: compare distances within a table only. A distance
to unseen images is named after what was measured: reconstructions, draws from the model's prior, or
draws from a density that was fitted to its codes. MSE and PSNR are of reconstructions.
"""
VARIANTS = {  # of a run's name, what stands behind the latent dimension
    "sigma": "σ learned", "binary": "thrown coins", "mean": "mean over pixels",
    "wide": "twice the channels", "long": "60 epochs",
}  # fmt: skip
OVERVIEW = """accuracy elbo mse active_units modes frechet_rec frechet_prior frechet_gmm kid_prior
              precision recall""".split()
STATES = {
    "stale": "made from another configuration than the present one",
    "missing": "not trained yet",
    "damaged": "its files do not match their sha256, or cannot be read",
}


def gencore(module):
    """A module of the package, imported when a page needs it: it brings torch."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return __import__(f"gencore.{module}", fromlist=[module])


def shown(value):
    """A number, or (mean, sd), as the whole book prints it."""
    return gencore("style").text(value)


def label(metric):
    """What a table calls a metric."""
    kind, _, what = metric.partition("_")
    if kind in KINDS and what:
        without = what.startswith("ssl_")  # on the network that was trained without labels
        name = f"{KINDS[kind]} (without labels)" if without else KINDS[kind]
        return f"{name}, {SETS.get(what.removeprefix('ssl_'), what)}"
    return LABELS.get(metric, metric.replace("_", " "))


def numbers(metas):
    """{metric: [value per seed]} of the scalar metrics that every one of these runs has."""
    common = set.intersection(*(set(meta["metrics"]) for meta in metas))
    known = [key for key in LABELS if key in common]
    values = {key: [meta["metrics"][key] for meta in metas]
              for key in known + sorted(common - set(known))}  # fmt: skip
    return {k: v for k, v in values.items() if all(isinstance(x, int | float) for x in v)}


def over_seeds(values):
    """Mean ± standard deviation of some values; what has no spread stands alone."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return shown((statistics.mean(values), sd) if sd else values[0])


def table(head, rows, align="--:"):
    """A Markdown table whose columns, but the first, are right-aligned."""
    lines = [head, ["---"] + [align] * (len(head) - 1), *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
    return text.replace("± ", "±\N{NO-BREAK SPACE}")


# ---------------------------------------------------------------- what there is


def described(name):
    """The description of a run, complete enough for this page; ValueError if it is not."""
    meta = gencore("runs").describe(name)
    texts = [meta["hardware"], meta["profile"], meta["config"]["data"]]
    sizes = [meta[key] for key in ("parameters", "steps", "wall_s", "cpu_s")]
    tables = [meta["config"], meta["metrics"], meta["versions"]]
    for kind, values in ((str, texts), ((int, float), sizes), (dict, tables)):
        if not all(isinstance(value, kind) for value in values):
            raise ValueError(f"{name} is not described as a run is")
    return meta


def found():
    """{name: its description, or None if it cannot be used} and {name: state} of all runs."""
    runs, states, metas = gencore("runs"), {}, {}
    for name in runs.names():
        try:
            states[name] = runs.state(name)
            metas[name] = described(name) if states[name] in ("ready", "stale") else None
        except Exception:  # whatever is wrong with one artefact, the page shows the others
            states[name], metas[name] = "damaged", None
    return metas, states


def grouped(metas):
    """{base name: [description of each seed that is here]}."""
    runs, base = gencore("runs"), {}
    for name in metas:
        try:
            seeds = runs.seeds(name)
        except LookupError:  # a run on one's own images is not in the catalogue
            seeds = [name]
        for seed in seeds:
            base.setdefault(seed, name)
    groups = defaultdict(list)
    for name, meta in metas.items():
        if meta:
            groups[base[name]].append(meta)
    return dict(groups)


# ---------------------------------------------------------------- the page


def human(base, config):
    """What a reader calls a run: "VAE, d = 10" for vae-mnist-d10, else its own name."""
    paper, d = config["paper"], config["model"].get("latent_dim")
    stem, _, rest = base.partition(f"-{Path(config['data']).name}-d{d}")
    if stem != paper or (rest and not rest.startswith("-")):
        return base.replace("-", NO_BREAK_HYPHEN)
    words = [VARIANTS.get(word, word) for word in rest.split("-") if word]
    words += ["σ = 1"] if config["model"].get("sigma") == 1 else []
    return ", ".join([gencore("style").human(paper), f"*d* = {d}", *words])


def link(base, config):
    """A link to the run's own table."""
    return f"[{human(base, config)}](#run-{base})"


def in_order(runs):
    """{base: descriptions} with a paper's rows together, by latent dimension and not by letters."""
    papers = list(dict.fromkeys(metas[0]["config"]["paper"] for metas in runs.values()))

    def key(item):
        base, config = item[0], item[1][0]["config"]
        return papers.index(config["paper"]), config["model"].get("latent_dim", 0), len(base)

    return dict(sorted(runs.items(), key=key))


def conditions(metas):
    """One paragraph: what is equal for all runs of a group, and what they can be compared with."""
    first = metas[0]
    values = {key: sorted({m["metrics"][key] for m in metas if key in m["metrics"]})
              for key in ("n", "frechet_floor")}  # fmt: skip
    parts = [f"Profile `{first['profile']}`"]
    if first.get("stand_in"):
        parts.append("the embedded images stood in for the real ones")
    if values["n"]:
        parts.append(f"{' or '.join(map(shown, values['n']))} images in each set")
    text = "; ".join(parts) + "."
    if any(key.startswith(tuple(KINDS)) for meta in metas for key in meta["metrics"]):
        of = first.get("ruler", first["config"]["data"])
        what = "coordinates" if of == "points" else f"features of `classifier-{of}`"
        text += f" Distances are measured in the {what}"
        if values["frechet_floor"]:
            text += f"; the floor of the Fréchet distance is {shown(values['frechet_floor'][0])}"
        text += "."
    return text + "\n"


def overview(groups):
    """The tables of each dataset and profile: a row per run, mean ± sd over its seeds."""
    together = defaultdict(dict)
    for base, metas in groups.items():
        data = Path(metas[0]["config"]["data"]).name
        together[data, metas[0]["profile"], bool(metas[0].get("stand_in"))][base] = metas
    for (data, *_), runs in together.items():
        runs = in_order(runs)
        yield f"### On {data}\n"
        yield conditions([meta for metas in runs.values() for meta in metas])
        tables = defaultdict(dict)  # runs with distances share one, the others where they agree
        for base, metas in runs.items():
            values = numbers(metas)
            columns = tuple(key for key in OVERVIEW if key in values) or tuple(values)[:6]
            measured = any(key.startswith("frechet") for key in values)
            tables["distances" if measured else columns][base] = values
        for rows in tables.values():
            keys = dict.fromkeys(key for values in rows.values() for key in values)
            keys = [key for key in OVERVIEW if key in keys] or list(keys)[:6]
            lines = []
            for base, v in rows.items():
                cells = [over_seeds(v[key]) if key in v else "–" for key in keys]
                name = link(base, runs[base][0]["config"])
                lines.append([name, *cells, str(len(runs[base]))])
            yield table(["run", *map(label, keys), "seeds"], lines)


def record(base, metas):
    """Everything about one run: its configuration, numbers per seed, time and hardware."""
    meta, config = metas[0], metas[0]["config"]
    options = {k: v for part in ("model", "objective") for k, v in (config.get(part) or {}).items()}
    text = f"{shown(meta['parameters'])} parameters, {shown(meta['steps'])} steps"
    text += f" of {config['batch']} examples" if "batch" in config else ""
    text += f", learning rate {config['lr']:g}" if "lr" in config else ""
    text += f", {', '.join(f'`{k}={v}`' for k, v in options.items())}" if options else ""
    text += f". Profile `{meta['profile']}`. Hardware: {meta['hardware']}; "
    text += "".join(f"{meta[key]}; " for key in ("device", "precision") if key in meta)
    text += ", ".join(f"{name} {version}" for name, version in meta["versions"].items())
    seeds = [f"seed {meta['config'].get('seed', 0)}" for meta in metas]
    several = len(metas) > 1
    rows = [[label(key), *map(shown, values), *([over_seeds(values)] if several else [])]
            for key, values in numbers(metas).items()]  # fmt: skip
    for key, name in (("wall_s", "wall-clock"), ("cpu_s", "CPU")):
        times = [shown(round(meta[key])) for meta in metas]
        rows.append([f"training, seconds of {name} time", *times, *([""] if several else [])])
    head = ["quantity", *seeds, *(["mean ± sd"] if several else [])]
    return f"(run-{base})=\n### {base}\n\n{text}.\n\n{table(head, rows)}"


def page():
    """The Markdown of all results."""
    metas, states = found()
    groups = grouped(metas)
    ready = sum(state == "ready" for state in states.values())
    parts = [f"{len(states)} runs are listed here; {ready} of them are trained and up to date.\n"]
    rows = [[name, f"**{state}**: {STATES[state]}"]
            for name, state in states.items() if state != "ready"]  # fmt: skip
    parts += [table(["run", "state"], rows, align="---")] if rows else []
    parts += ["## Overview\n", COMPARED, *overview(groups)]
    return "\n".join([*parts, "## Every run\n", *(record(*item) for item in groups.items())])


def insert(app, docname, source):
    """Replace the marker when Sphinx reads the page."""
    if MARKER in source[0] and docname.startswith("book/"):
        source[0] = source[0].replace(MARKER, page())


def number(text):
    """What {run}`name:metric` stands for: mean ± sd over the seeds of the run."""
    name, _, metric = text.partition(":")
    mean, sd, _ = gencore("runs").summary(name.strip(), metric.strip())
    return shown((mean, sd) if sd else mean)


def run_role(role, rawtext, text, lineno, inliner, options=None, content=None):
    """{run}`name:metric` in the text. A number that is not there is a warning."""
    try:
        value = number(text)
    except (LookupError, OSError, ValueError) as error:
        where = (inliner.document.settings.env.docname, lineno)
        logger.warning("no number for {run}`%s`: %s", text, error, location=where)
        value = f"(no number yet: {text})"
    return [nodes.Text(value)], []


def setup(app):
    """Register with Sphinx."""
    app.connect("source-read", insert)
    app.add_role("run", run_role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
