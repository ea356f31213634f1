"""Self-checks: what a reader runs under an exercise is what the tests run.

Each prints one line, "✓ ..." or "✗ ..." with what was expected and the likely cause, and returns
whether it passed. With `GENCORE_STRICT=1`, as in the tests, a failure is an AssertionError.
"""

import difflib
import math
import os

import torch

from gencore import runs, store
from gencore.style import precise as text


def _verdict(passed, line, hint=""):
    line = f"{'✓' if passed else '✗'} {line}" + ("" if passed or not hint else f" Hint: {hint}")
    if not passed and os.environ.get("GENCORE_STRICT") == "1":
        raise AssertionError(line)
    try:
        print(line)
    except UnicodeEncodeError:  # a terminal of few letters: cp1252 has no ✓
        plain = line.replace("✓", "OK:").replace("✗", "WRONG:").replace("−", "-")
        print(plain.encode("ascii", "replace").decode())
    return passed


def same(answer, reference, *inputs, hint=""):
    """Check a function of the reader's against gencore's on the given inputs.

    Both get the same inputs and the same random numbers. Compared are number, shape, kind and
    value (to 1e-4 of the largest) of what they return; a difference is put in words.
    """
    name = getattr(answer, "__name__", "answer")
    expected = _parts(_call(reference, inputs))
    given = [_copy(value) for value in inputs]
    try:
        got = _parts(_call(answer, given))
    except Exception as error:  # whatever the reader's code raises is the verdict
        return _verdict(False, f"{name}: it raised {type(error).__name__}: {error}.", hint)
    for i, (before, after) in enumerate(zip(inputs, given, strict=True), 1):
        if isinstance(before, torch.Tensor) and not torch.equal(before, after):
            return _verdict(False, f"{name}: it changes its input number {i} in place.", hint)
    if got.keys() != expected.keys():
        wrong = f"{name}: {len(expected)} values are expected, not {len(got)}."
        return _verdict(False, wrong, hint)
    for which, value in expected.items():
        if problem := _difference(got[which], value, inputs):
            return _verdict(False, f"{name}{which}: {problem}", hint)
    return _verdict(True, f"{name} agrees with gencore.")


def number(answer, expected, tolerance=0.0, unit="", hint=""):
    """Check one number against an expected one, within a tolerance in the same unit."""
    unit = f" {unit}" if unit else ""
    about = f"{text(expected)}{unit}" + (f" ± {tolerance:g}" if tolerance else "")
    try:
        value = torch.tensor(float(answer), dtype=torch.float64)
    except (TypeError, ValueError):
        return _verdict(False, f"{answer!r} is not a number; expected {about}.", hint)
    passed = abs(value - expected) <= tolerance + 1e-6 * abs(expected)
    right = torch.tensor(float(expected))
    cause = "" if passed else _cause(value, right, set(), 1e-3 * abs(expected))
    return _verdict(bool(passed), f"{text(value)}{unit}: expected {about}.{cause}", hint)


def band(run_name, metric, value):
    """Check a metric of your own training against the published run and its seeds.

    The band is the mean over the seeds ± 4 standard deviations, at least ± 2 %. It is that of the
    profile full; under smoke, where other images stand in, nothing is compared.
    """
    if store.profile() == "smoke":
        line = f"{metric} of {run_name}: not compared, profile smoke uses stand-in data."
        return _verdict(True, line)
    known = runs.metrics(run_name)
    if metric not in known:
        near = difflib.get_close_matches(metric, known, 3, 0) or ["none"]
        raise KeyError(f"{run_name} has no metric {metric!r}; the nearest: {', '.join(near)}.")
    mean, sd, n = runs.summary(run_name, metric)
    half = max(4 * (sd or 0.0), 0.02 * abs(mean))
    passed = abs(value - mean) <= half
    where = "inside" if passed else "above" if value > mean else "below"
    hint = f"this is profile {store.profile()}; compare steps, objective, images with that run's."
    limits = f"{text(mean - half)} to {text(mean + half)} (seeds: {n})"
    return _verdict(passed, f"{metric} of {run_name}: {text(value)} is {where} {limits}.", hint)


def _copy(value):
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    return value.clone() if isinstance(value, torch.Tensor) else value


def _call(function, inputs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return function(*[_copy(v) if isinstance(v, torch.Generator) else v for v in inputs])


def _near(a, b, close):
    return a.shape == b.shape and bool(((a - b).abs() <= close).all())


def _parts(value):
    """What a function returned as {name: value}, with the name "" for a single value."""
    if isinstance(value, dict):
        return {f", {name!r}": part for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return {f", value {i}": part for i, part in enumerate(value, 1)}
    return {"": value}


def _numbers(value):
    """A tensor of what was returned, or None if it is no number, array or list of numbers."""
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        return None


def _difference(got, expected, inputs):
    """What is wrong with `got`, in words; "" if nothing is."""
    if got is None:
        return "it returns nothing: is there a `return`?"
    b = _numbers(expected)
    if b is None:
        return "" if got == expected else f"{got!r} where {expected!r} is expected."
    if (a := _numbers(got)) is None:
        return f"it is of type {type(got).__name__}, where numbers are expected."
    if isinstance(got, torch.Tensor) and a.is_floating_point() != b.is_floating_point():
        return f"dtype {a.dtype} where {b.dtype} is expected."
    sizes = {n for x in inputs if isinstance(x, torch.Tensor) for n in (*x.shape, x[:1].numel())}
    a, b = a.double(), b.double()
    close = 1e-4 * b.abs().max().item() + 1e-6 if b.numel() else 0.0
    if a.shape != b.shape:
        line = f"shape {tuple(a.shape)} where {tuple(b.shape)} is expected."
        for word, over in (("sum", torch.sum), ("mean", torch.mean)):
            if a.ndim == 0 and _near(a, over(b), close * b.numel()):
                return f"{line} It is the {word} over all images: keep one value for each."
            rest = tuple(range(b.ndim, a.ndim))
            if rest and a.shape[: b.ndim] == b.shape and _near(over(a, rest), b, close):
                return f"{line} The {word} over the last dimensions is missing."
        return line
    if _near(a, b, close):
        return ""
    wrong = (~((a - b).abs() <= close)).nonzero()
    at = tuple(wrong[0].tolist())
    share = f" at {list(at)} ({len(wrong)} of {a.numel()} values differ)" if at else ""
    return f"{text(a[at])} where {text(b[at])} is expected{share}.{_cause(a, b, sizes, close)}"


def _cause(a, b, sizes, close):
    """The likely cause of a difference between arrays of one shape, as a sentence, or ""."""
    if not torch.isfinite(a).all():
        return " It is not finite: a logarithm of zero, or an exponential too large?"
    words = {1 / n: f"it is a mean over {n} where a sum is expected" for n in sizes - {0, 1}}
    words |= {float(n): f"it is a sum over {n} where a mean is expected" for n in sizes - {0, 1}}
    words |= {2.0: "it is twice as much", 0.5: "it is half as much"}
    words |= {1 / math.log(2): "it is in bits"}
    words |= {-f: f"the sign is wrong, and {w}" for f, w in words.items()}
    words |= {-1.0: "the sign is wrong"}
    for factor, cause in words.items():
        if b.abs().max() > 2 * close and _near(a, factor * b, close * abs(factor)):
            return f" Likely cause: {cause}."
    for function in (torch.exp, torch.log, torch.square, torch.sqrt):
        if function(b).isfinite().all() and _near(a, function(b), 1e-4 * function(b).abs().max()):
            return f" Likely cause: it is the {function.__name__} of what is expected."
    added = a.numel() > 1 and _near(a, b + (a - b).mean(), close)
    return f" Likely cause: the constant {text((a - b).mean())} is added." if added else ""
