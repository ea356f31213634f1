"""One training loop for every paper of the book.

A paper's step does its own updates; the loop counts, schedules, checkpoints and stops when a
number is no longer finite. It is a generator: whoever consumes it decides what to print.
"""

import contextlib
import copy
import math
import os
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn

from gencore import checkpoint as checkpoints

FIRST_CHECKPOINT, CHECKPOINT_SECONDS = 5, 30  # seconds to the first checkpoint, and between others


class Diverged(ArithmeticError):
    """A loss or a gradient stopped being a finite number; the weights were left as they were."""


@dataclass(frozen=True)
class Record:
    """What `loop` yields after each optimiser step: its number (from 1) and the step's terms."""

    step: int
    losses: dict
    seconds: float


def device():
    """Where this process trains and samples: `$GENCORE_DEVICE`, or CUDA, MPS, the CPU, in order.

    Raises ValueError for a device that torch does not know or that is not here.
    """
    choice = os.environ.get("GENCORE_DEVICE", "")
    if not choice:
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        chosen = torch.device(choice)
        torch.empty(1, device=chosen).item()  # `meta` has no numbers to train with
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"GENCORE_DEVICE is {choice!r}, which cannot be used here ({reason}); it can be cpu, "
            f"cuda, cuda:1, mps, or unset."
        ) from None
    return chosen


def threads():
    """Let torch use `$GENCORE_THREADS` threads, or one for each processor this process may use.

    Networks this small gain nothing from more than eight. Returns the number.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    choice = os.environ.get("GENCORE_THREADS") or str(min(here or 1, 8))
    if not choice.isdecimal() or not 1 <= int(choice) <= 1024:
        raise ValueError(
            f"GENCORE_THREADS is {choice!r}; it should be a whole number from 1 to 1024."
        )
    torch.set_num_threads(int(choice))
    return int(choice)


def update(optimiser, loss):
    """One optimiser step on `loss` that refuses to spoil the weights.

    Raises Diverged, before anything is changed, when a gradient is not finite: one NaN would
    otherwise reach every weight through Adam's averages.
    """
    optimiser.zero_grad()
    loss.backward()
    grads = [p.grad for group in optimiser.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([grad for grad in grads if grad is not None]).item()
    if not math.isfinite(norm):
        raise Diverged(f"the gradient became {norm} (loss {loss.item():.4g})")
    optimiser.step()


class EMA(nn.Module):
    """The exponential moving average of a model's weights, often better than the last ones.

    `average.model` is published; call `average.update(model)` after each optimiser step. Buffers
    (running means) are copied. Karras et al. (2018), arXiv:1710.10196, section 5, for generators.
    """

    def __init__(self, model, decay=0.999):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model):
        """average <- decay * average + (1 - decay) * model."""
        for ours, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            ours.lerp_(theirs.to(ours.dtype), 1 - self.decay)
        for ours, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            ours.copy_(theirs)


def cosine(step, steps, warmup=0.05):
    """Learning-rate factor: a linear rise over the first 5 % of the steps, then half a cosine."""
    if step < warmup * steps:
        return (step + 1) / (warmup * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup * steps) / ((1 - warmup) * steps)))


def constant(step, steps):
    """Learning-rate factor 1."""
    return 1.0


SCHEDULES = {"cosine": cosine, "constant": constant}  # as the catalogue names them


class Counter:
    """A number that a step counts with; a part that a checkpoint keeps. `counter.value += 1`."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Window:
    """Means of the terms since the last entry of the history; a part of a run's checkpoint."""

    def __init__(self):
        self.sums, self.counts, self.wall, self.cpu = {}, {}, 0.0, 0.0

    def add(self, terms, wall, cpu):
        """Count one step: its terms and the seconds that it took."""
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1
        self.wall, self.cpu = self.wall + wall, self.cpu + cpu

    def close(self, history, step):
        """Write the means into the history, and begin again.

        A term is averaged over the steps that reported it; an entry without any of them is None.
        """
        entries = len(history.setdefault("step", []))
        history["step"].append(step)
        values = {name: float(f"{s / self.counts[name]:.6g}") for name, s in self.sums.items()}
        values |= {"seconds": round(self.wall, 3), "cpu_seconds": round(self.cpu, 3)}
        for name in {**dict.fromkeys(history), **values}:
            if name != "step":
                history.setdefault(name, [None] * entries).append(values.get(name))
        self.__init__()

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


def loop(step, batches, steps, checkpoint=None, history=None, schedule=constant, log_every=50,
         extra=None):  # fmt: skip
    """Train for `steps` steps; yields a Record after each optimiser step.

    step: callable Batch -> {term: number}, with `.parts`, a dict of everything that has state.
    batches: an iterator with a settable `.step`, as `data.batches` returns.
    checkpoint: a folder; the run saves itself there and goes on from there.
    history: a dict that collects the mean of each term over every `log_every` steps.
    schedule: (step, steps) -> factor on each optimiser's learning rate.
    extra: {name: part} that a checkpoint keeps beside those of the step, snapshots for example.
    What a step draws from torch's own generators depends on its number and the batches' seed alone.
    Raises Diverged with all parts of the step as they were after the last whole step.
    """
    history, window = {} if history is None else history, Window()
    parts = {**step.parts, **(extra or {}), "window": window}
    start = checkpoints.resume(checkpoint, parts, history) if checkpoint else 0
    for group in _groups(step):
        group.setdefault("initial_lr", group["lr"])
    began, due = time.perf_counter(), time.monotonic() + FIRST_CHECKPOINT
    kept = None
    for index in range(start, steps):
        if kept is None or index % log_every == 0:
            kept = index, checkpoints.capture(step.parts)
        clock = time.perf_counter(), time.process_time()
        try:
            terms = _advance(step, batches, index, schedule, steps)
        except Diverged as error:
            whole = _rewind(step, batches, index, schedule, steps, kept)
            raise Diverged(
                f"Training diverged at step {index + 1}: {error}. All weights are those of step "
                f"{whole}; lower the learning rate or look at this step's batch."
            ) from None
        window.add(terms, time.perf_counter() - clock[0], time.process_time() - clock[1])
        if (index + 1) % log_every == 0 or index + 1 == steps:
            window.close(history, index + 1)
        yield Record(index + 1, terms, time.perf_counter() - began)
        if checkpoint and (time.monotonic() > due or index + 1 == steps):
            checkpoints.save(checkpoint, index + 1, parts, history)
            due = time.monotonic() + CHECKPOINT_SECONDS


def _advance(step, batches, index, schedule, steps):
    """Do step number `index`, counted from 0, and return its terms."""
    for group in _groups(step):  # looked up each time: to restore an optimiser makes new ones
        group["lr"] = group["initial_lr"] * schedule(index, steps)
    batches.step = index
    batch = next(batches)
    with _own_noise(getattr(batches, "seed", 0), index):
        terms = step(batch)
    if not isinstance(terms, dict) or not all(isinstance(v, (int, float)) for v in terms.values()):
        kinds = {k: type(v).__name__ for k, v in terms.items()} if isinstance(terms, dict) else ""
        raise TypeError(
            f"A step should return {{term: number}}, each with .item(); {type(step).__module__}."
            f"{type(step).__name__} returned a {type(terms).__name__} {kinds}."
        )
    for name, value in terms.items():
        if not math.isfinite(value):
            raise Diverged(f"the term {name} became {value}")
    return terms


@contextlib.contextmanager
def _own_noise(seed, index):
    """Dropout and its like draw the same numbers whenever a step is done again, or gone on to."""
    here = torch.cuda.is_available() and torch.cuda.is_initialized()
    with torch.random.fork_rng([torch.cuda.current_device()] if here else []):
        torch.manual_seed(seed * 1_000_003 + index)
        yield


def _rewind(step, batches, index, schedule, steps, kept):
    """Bring all parts to where they were before the step `index` that broke; returns its number.

    A step may have changed some of its networks before another diverged. So everything goes back to
    the copy that the loop keeps, and the steps since then, which depend on nothing else, are done
    again. A step that does not repeat itself goes back to the copy alone.
    """
    first, state = kept
    checkpoints.restore(step.parts, *state)
    try:
        for again in range(first, index):
            _advance(step, batches, again, schedule, steps)
    except Diverged:  # a step that does not repeat itself: the copy is the last that is known whole
        checkpoints.restore(step.parts, *state)
        return first
    return index


def _groups(step):
    optimisers = [p for p in step.parts.values() if isinstance(p, torch.optim.Optimizer)]
    return [group for optimiser in optimisers for group in optimiser.param_groups]


def fit(step, batches, steps, checkpoint=None, schedule=constant, log_every=50):
    """Run `loop` to the end behind a progress bar; returns the history, a dict of lists.

    An interrupt (the stop button, Ctrl-C) ends it early: the model keeps the weights it has and
    the history what was logged so far.
    """
    history = {}
    try:
        for _ in watch(loop(step, batches, steps, checkpoint, history, schedule, log_every), steps):
            pass
    except KeyboardInterrupt:
        pass  # `watch` has said so
    return history


def watch(records, steps):
    """Pass records on behind a progress bar with the time left and the terms.

    At the end, or when it is interrupted, one line says how far it came.
    """
    from tqdm import tqdm  # plain text: a widget would be dead in the published page

    record, stopped = None, True
    with tqdm(total=steps, file=sys.stdout, unit="step", mininterval=0.5, leave=False) as bar:
        try:
            for record in records:
                bar.update(record.step - bar.n)
                if record.step % 10 == 0:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in record.losses.items()})
                yield record
            stopped = False
        finally:
            bar.close()
            print(_last_line(record, steps, stopped))


def _last_line(record, steps, stopped):
    if record is None:
        before = f"Nothing left to do: {steps} steps were done before."
        return "Stopped before the first step." if stopped else before
    terms = ", ".join(f"{name} {value:.4g}" for name, value in record.losses.items())
    end = "Done" if record.step == steps else f"Stopped early, of {steps} steps"
    return f"{end}: step {record.step}, {terms}."
