"""The parts of a training step, to files and back.

A part is anything with state: a module, an optimiser, a torch.Generator, or an object of your own
with `state_dict` and `load_state_dict`. Its state may nest dicts and lists of tensors, numbers and
texts; tensors go into one file of numbers, everything else into its description.
"""

import math
import shutil
from pathlib import Path

import torch

from gencore import store


def capture(parts):
    """The state of all parts: `(tensors, outline)`, copies that later steps leave alone.

    `outline` is JSON-able; each tensor in it is a reference into `tensors`.
    """
    tensors = {}
    outline = {name: _outline(_state(name, part), name, tensors) for name, part in parts.items()}
    return tensors, outline


def restore(parts, tensors, outline):
    """Put a captured state back into the parts, which were built as those that gave it."""
    for name, part in parts.items():
        state = _rebuilt(outline[name], tensors)
        if isinstance(part, torch.Generator):
            _wind(part, state)
        else:
            part.load_state_dict(state)
        if isinstance(part, torch.optim.Optimizer):
            _lay_out(part)


def _wind(generator, state):
    """Set a generator; each kind of device has states of its own, which others cannot take."""
    try:
        generator.set_state(state)
    except RuntimeError:
        print(f"A checkpoint of another kind of device than {generator.device}: noise begins anew.")


def _state(name, part):
    if isinstance(part, torch.Generator):
        return part.get_state()
    if not hasattr(part, "state_dict"):
        raise TypeError(
            f"The part {name!r} is a {type(part).__name__}, which has no state_dict: parts are "
            f"modules, optimisers, generators, or objects with state_dict and load_state_dict."
        )
    return part.state_dict()


def _outline(value, path, tensors):
    """A state without its tensors, which are copied into `tensors` under their paths."""
    if isinstance(value, torch.Tensor):
        while path in tensors:  # {"a/b": ..., "a": {"b": ...}}
            path += "'"
        tensors[path] = value.detach().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        pairs = [[key, _outline(part, f"{path}/{key}", tensors)] for key, part in value.items()]
        return {"dict": pairs}  # pairs, for JSON would turn whole numbers as keys into texts
    if isinstance(value, (list, tuple)):
        return [_outline(part, f"{path}/{i}", tensors) for i, part in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}  # JSON has none of these
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind = type(value).__name__
    raise TypeError(f"The state of {path} is a {kind}, which no checkpoint can keep.")


def _rebuilt(outline, tensors):
    if isinstance(outline, list):
        return [_rebuilt(part, tensors) for part in outline]
    if isinstance(outline, dict):
        if "tensor" in outline:
            return tensors[outline["tensor"]].clone()
        if "number" in outline:
            return float(outline["number"])
        return {key: _rebuilt(part, tensors) for key, part in outline["dict"]}
    return outline


def _lay_out(optimiser):
    """Averages lie in memory as their weights do: the fused optimisers rely on it."""
    for parameter, slots in optimiser.state.items():
        for slot, value in slots.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                slots[slot] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def save(folder, step, parts, history):
    """Save all parts after `step` steps into `folder`, then delete older checkpoints."""
    folder = Path(folder)
    tensors, outline = capture(parts)
    old = [file for file in folder.glob("step-*")] if folder.is_dir() else []
    name = f"step-{step:08d}"
    store.save(folder / name, tensors, {"step": step, "outline": outline, "history": history})
    for file in old:
        if not file.name.startswith(name):
            file.unlink(missing_ok=True)  # another trainer of this run may have been quicker


def resume(folder, parts, history):
    """Put the newest whole checkpoint of `folder` back into `parts` and `history`.

    Returns the number of steps it had done, 0 if there is none. Damaged ones, and those of other
    parts, are passed over.
    """
    for file in sorted(Path(folder).glob("step-*.json"), reverse=True):
        try:
            tensors, meta = store.load(file.with_suffix(""))
        except (store.Corrupt, OSError) as error:
            print(f"Passing over a checkpoint: {error}")
            continue
        if meta.get("outline", {}).keys() != parts.keys():
            print(f"Passing over a checkpoint: {file} holds other parts than this training has.")
            continue
        restore(parts, tensors, meta["outline"])
        history.update(meta["history"])
        return meta["step"]
    return 0


def remove(folder):
    """Delete the checkpoints of a finished run."""
    shutil.rmtree(folder, ignore_errors=True)  # with what a killed write may have left
