"""One training loop for every paper of the book.

A paper's step does its own updates; the loop counts, schedules, checkpoints and stops when a
number is no longer finite. It is a generator: whoever consumes it decides what to print.
"""

import math
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from gencore import store
from gencore.nets import Diverged

CHECKPOINT_SECONDS = 30


@dataclass(frozen=True)
class Record:
    """What `loop` yields after each optimiser step: its number (from 1) and the step's losses."""

    step: int
    losses: dict
    seconds: float


def cosine(step, steps, warmup=0.05):
    """Learning-rate factor: a linear rise over the first 5 % of the steps, then half a cosine."""
    if step < warmup * steps:
        return (step + 1) / (warmup * steps + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup * steps) / ((1 - warmup) * steps)))


def constant(step, steps):
    """Learning-rate factor 1."""
    return 1.0


def loop(step, batches, steps, checkpoint=None, history=None, schedule=constant, log_every=50):
    """Train for `steps` steps; yields a Record after each optimiser step.

    step: callable batch -> dict of floats, with `.parts`, a dict of everything that has state.
    batches: an iterator with a settable `.step`, as `data.batches` returns.
    checkpoint: a folder; the run saves itself there and goes on from there.
    history: a dict that collects the mean of each loss over every `log_every` steps.
    schedule: (step, steps) -> factor on each optimiser's learning rate.
    Raises Diverged with the last finite weights in place.
    """
    history = {} if history is None else history
    start = resume(checkpoint, step.parts, history) if checkpoint else 0
    batches.step = start
    buffers = _buffers(step)
    rates = [(group, group.setdefault("initial_lr", group["lr"])) for group in _groups(step)]
    window, began, saved = [], time.perf_counter(), time.monotonic()
    clock = _clock()
    for index in range(start, steps):
        for group, rate in rates:
            group["lr"] = rate * schedule(index, steps)
        before = [buffer.clone() for buffer in buffers]
        try:
            losses = step(next(batches))
        except Diverged as error:
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)  # running means have seen the batch that broke the step
            raise Diverged(
                f"Training diverged at step {index + 1}: {error}. The weights are those of step "
                f"{index}; lower the learning rate or look at this step's batch."
            ) from None
        window.append(losses)
        if (index + 1) % log_every == 0 or index + 1 == steps:
            _record(history, index + 1, window, clock)
            window, clock = [], _clock()
        yield Record(index + 1, losses, time.perf_counter() - began)
        due = time.monotonic() - saved > CHECKPOINT_SECONDS and not window
        if checkpoint and (due or index + 1 == steps):
            save_checkpoint(checkpoint, index + 1, step.parts, history)
            saved = time.monotonic()


def fit(step, batches, steps, checkpoint=None, schedule=constant, log_every=50):
    """Run `loop` to the end behind a progress bar; returns the history, a dict of lists.

    An interrupt (the stop button, Ctrl-C) ends it early: the model keeps the weights it has and
    the history what was logged so far.
    """
    history = {}
    for _ in watch(loop(step, batches, steps, checkpoint, history, schedule, log_every), steps):
        pass
    return history


def watch(records, steps):
    """Pass records on behind a progress bar with the time left and the losses; interrupt-safe."""
    from tqdm import tqdm  # plain text: a widget would be dead in the published page

    record, stopped = None, False
    with tqdm(total=steps, file=sys.stdout, unit="step", mininterval=0.5, leave=False) as bar:
        try:
            for record in records:
                bar.update(record.step - bar.n)
                if record.step % 10 == 0:
                    bar.set_postfix({k: f"{v:.4g}" for k, v in record.losses.items()})
                yield record
        except KeyboardInterrupt:
            stopped = True
    if record is None:
        before = f"Nothing left to do: {steps} steps were done before."
        print("Stopped before the first step." if stopped else before)
        return
    end = "Done" if record.step == steps else f"Stopped early, of {steps} steps"
    last = ", ".join(f"{name} {value:.4g}" for name, value in record.losses.items())
    print(f"{end}: step {record.step}, {last}.")


def _groups(step):
    optimisers = [p for p in step.parts.values() if isinstance(p, torch.optim.Optimizer)]
    return [group for optimiser in optimisers for group in optimiser.param_groups]


def _buffers(step):
    modules = [p for p in step.parts.values() if isinstance(p, torch.nn.Module)]
    return [buffer for module in modules for buffer in module.buffers()]


def _clock():
    return time.perf_counter(), time.process_time()


def _record(history, index, window, before):
    history.setdefault("step", []).append(index)
    for name, then, now in zip(("seconds", "cpu_seconds"), before, _clock(), strict=True):
        history.setdefault(name, []).append(round(now - then, 3))
    for name in window[0]:
        mean = sum(losses[name] for losses in window) / len(window)
        history.setdefault(name, []).append(float(f"{mean:.6g}"))


# Checkpoints: every part of a step as tensors, and the history, in one pair of files per step.


def save_checkpoint(folder, index, parts, history):
    """Save all parts after `index` steps into `folder`, then delete older checkpoints."""
    tensors, groups = {}, {}
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            tensors[name] = part.get_state()
            continue
        state = part.state_dict()
        if isinstance(part, torch.optim.Optimizer):
            groups[name] = state["param_groups"]
            state = {f"{i}.{k}": v for i, s in state["state"].items() for k, v in s.items()}
        tensors |= {f"{name}/{key}": value for key, value in state.items()}
    old = list(Path(folder).glob("step-*")) if Path(folder).is_dir() else []
    meta = {"step": index, "groups": groups, "history": history}
    store.save(Path(folder) / f"step-{index:08d}", tensors, meta)
    for file in old:
        if f"step-{index:08d}" not in file.name:
            file.unlink()


def resume(folder, parts, history):
    """Put the newest whole checkpoint of `folder` back into `parts` and `history`.

    Returns the number of steps it had done, 0 if there is none. Damaged ones are passed over.
    """
    for file in sorted(Path(folder).glob("step-*.json"), reverse=True):
        try:
            tensors, meta = store.load(file.with_suffix(""))
        except (store.Corrupt, FileNotFoundError) as error:
            print(f"Passing over a checkpoint: {error}")
            continue
        for name, part in parts.items():
            _restore(part, name, tensors, meta)
        history.update(meta["history"])
        return meta["step"]
    return 0


def _restore(part, name, tensors, meta):
    if isinstance(part, torch.Generator):
        part.set_state(tensors[name])
        return
    prefix = name + "/"
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    if isinstance(part, torch.optim.Optimizer):
        slots = {}
        for key, value in state.items():
            index, slot = key.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        state = {"state": slots, "param_groups": meta["groups"][name]}
    part.load_state_dict(state)
    if isinstance(part, torch.optim.Optimizer):
        for parameter, slots in part.state.items():  # averages lie in memory as their weights do
            for slot, value in slots.items():
                if value.shape == parameter.shape:
                    slots[slot] = torch.empty_like(parameter).copy_(value)


def remove_checkpoints(folder):
    """Delete the checkpoints of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)  # with what a killed write may have left
