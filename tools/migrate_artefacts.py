"""Once: bring artefacts of the first layout into the present one. `migrate_artefacts.py OLD`, a folder.

Weights and metrics stay. New are the densities that `sample` draws from (they were fitted anew at
each use), the IWAE curve, live units and the codes' rank; distances of the fitted densities were
measured again, with the draws that the artefact now gives. Repetitions lose their weights. Writes
into `store.runs_dir()`; run it with GENCORE_DATA set.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from gencore import catalogue, data, evaluate, latents, metrics, runs, store, vae

REASON = "the draws now come from the density that the artefact carries; scikit-learn made them before"


def old_weights(file):
    """(weights, snapshots) of an old file; matrices in 8 bits had a scale for each row."""
    tensors = load_file(file)
    snapshots = {k[5:]: tensors.pop(k) for k in list(tensors) if k.startswith("film.")}
    scales = {k[6:]: tensors.pop(k).float() for k in list(tensors) if k.startswith("scale.")}
    weights = {k: v * scales[k] if k in scales else v.float() for k, v in tensors.items()}
    dropped = ("code_mean", "code_chol")
    integers = {k: v for k, v in tensors.items() if not v.is_floating_point() and k not in scales}
    return {k: v for k, v in (weights | integers).items() if k not in dropped}, snapshots, bool(scales)


def fitted(model, dataset, n):
    """Distances of samples from the fitted densities."""
    target = evaluate._features(dataset.test.images[:n], dataset)
    values = {}
    for name in list(model.priors)[1:]:
        images = evaluate.sample(model, n, prior=name)
        features = evaluate._features(images, dataset)
        values[f"frechet_{name}"] = metrics.frechet(features, target)
        values[f"kid_{name}"] = metrics.kid(features, target)[0]
        values |= evaluate._sharpness(name, images)
    return values


def fit(model, dataset):
    """As Step.finish does, on rounded weights, and rounded itself."""
    codes = evaluate.codes(model, dataset.train.images)
    kinds = {"gaussian": latents.Gaussian, "gmm": latents.Mixture}
    for name, density in list(model.priors.items())[1:]:
        density.load_state_dict(kinds[name].fit(codes).state_dict())
        for buffer in density.buffers():
            buffer.copy_(buffer.half())


@torch.no_grad()
def migrate(name, old):
    conf = catalogue.config(name)
    meta = json.loads((old / f"{name}.json").read_text())
    weights, snapshots, eight_bits = old_weights(old / f"{name}.safetensors")
    model = runs._model(conf).eval()
    model.load_state_dict(weights, strict=False)
    missing = set(model.state_dict()) - set(weights)
    assert not set(weights) - set(model.state_dict()) and all(k.startswith("priors.") for k in missing)
    dataset, values = data.load(conf.data), {}
    if not conf.uses and len(getattr(model, "priors", ())) > 1:
        fit(model, dataset)
        values |= fitted(model, dataset, 10_000)
    if hasattr(model, "log_likelihood") and hasattr(model, "sigma"):
        curve = latents.generator(1)
        some = dataset.test.images[:1000]
        values["iwae_curve"] = [vae._mean_iwae(model, some, k, curve) for k in (1, 4, 16, 64)]
    if hasattr(model, "infer") and conf.half:
        values |= evaluate.health(model, dataset)
    values = evaluate.rounded(values)
    again = sorted(set(values) & set(meta["metrics"]))
    for key in ("digest", "of", "sha256", "description_sha256", "film"):
        meta.pop(key, None)
    meta |= {"config": conf.record(), "ruler": dataset.ruler, "device": "cpu", "precision": "float32"}
    history = meta.pop("history")
    before = {key: meta["metrics"][key] for key in again}
    meta |= {"recomputed": {"why": REASON, "before": before}} if again else {}
    numbers = meta.pop("metrics") | values
    if "images" in snapshots:
        each = snapshots["images"][0, 0].numel() * len(snapshots["images"])
        snapshots["images"] = snapshots["images"][:, : evaluate.SNAPSHOT_BYTES // each].clone()
    used = {other: runs.describe(other)["sha256"] for other in conf.uses.values()}
    if eight_bits:  # the weights that were measured have no exact half precision
        conf = catalogue.replace(conf, half=False)
    runs.save(runs.Run(name, conf, model, numbers, history, meta, snapshots), used)
    for key in again:
        print(f"  {key}: {before[key]} -> {numbers[key]}")


def main(old, *names):
    for name in names or catalogue.runs():
        if (store.runs_dir() / f"{name}.json").exists():
            continue
        print(name, flush=True)
        migrate(name, Path(old))


if __name__ == "__main__":
    main(*sys.argv[1:])
