"""The stop button in a real kernel: the cell ends, the model is usable, the cell goes on again."""

import asyncio
import signal
import subprocess
import sys
import threading
import time

import nbclient
import nbformat
import pytest
import torch
from small_networks import SMALL

from gencore import checkpoint, data, store, train, vae

SETUP = """
import sys; sys.path.insert(0, {root!r})
import torch; torch.set_num_threads(1)
from gencore import data, train, vae
torch.manual_seed(0)
images = data.load("fashion-mini").train.images
step = vae.Step(vae.Model(2, **{small!r}))
batches = data.batches(images, 16)
train.FIRST_CHECKPOINT = train.CHECKPOINT_SECONDS = -1  # each step: a cell that is run again goes on
print("ready")
"""
TRAIN = """
history = train.fit(step, batches, 100_000, checkpoint={folder!r}, log_every=5)
print("after", len(history.get("step", [])))
"""
LOOK = """
updates = [int(s["step"]) for s in step.optimiser.state.values()]
assert step.optimiser.param_groups[0]["lr"] == 1e-3
assert len(set(updates)) == 1, "no half-applied step"
assert updates[0] == batches.step or updates[0] == batches.step - 1
assert all(torch.isfinite(p).all() for p in step.model.parameters())
sample = step.model.decode(torch.zeros(1, 2))
assert sample.shape == (1, 1, 28, 28) and torch.isfinite(sample).all()
assert history["step"] == list(range(5, 5 * len(history["step"]) + 1, 5))
assert updates[0] - (history["step"] or [0])[-1] in range(6)
print("usable", updates[0])
"""


def cell_text(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.fixture
def kernel(tmp_path):
    """A running kernel: `kernel(source, stop_after=None)` runs a cell and gives back its text."""
    notebook = nbformat.v4.new_notebook()
    client = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3")
    with client.setup_kernel():

        def run(source, stop_after=None):
            cell = nbformat.v4.new_code_cell(source)
            notebook.cells.append(cell)
            if stop_after is not None:
                timer = threading.Timer(
                    stop_after, lambda: asyncio.run(client.km.interrupt_kernel())
                )
                timer.start()
            client.execute_cell(cell, len(notebook.cells) - 1)
            return cell_text(cell)

        yield run


def test_the_stop_button(kernel, tmp_path):
    assert "ready" in kernel(SETUP.format(root=str(store.CHECKOUT), small=SMALL))
    train = TRAIN.format(folder=str(tmp_path / "checkpoints"))
    done = 0
    for delay in (4, 2.3, 1.1):
        began = time.monotonic()
        text = kernel(train, stop_after=delay)
        assert time.monotonic() - began < delay + 20
        assert "Stopped early, of 100000 steps: step" in text and "after" in text
        text = kernel(LOOK)
        assert "usable" in text
        reached = int(text.split()[-1])
        assert reached >= done - 1, "the cell that is run again goes on from its checkpoint"
        done = reached
    assert done > 20


WORK = """
import signal, sys; sys.path.insert(0, {root!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
import torch; torch.set_num_threads(1)
from gencore import data, train, vae
step = vae.Step(vae.Model(2, **{small!r}))
train.FIRST_CHECKPOINT = train.CHECKPOINT_SECONDS = -1
print("started", flush=True)
batches = data.batches(data.load("fashion-mini").train.images, 16)
history = train.fit(step, batches, 100_000, {folder!r}, log_every=1)
print("usable", len(history["step"]))
"""


def test_ctrl_c_in_a_script(tmp_path, until):
    """SIGINT at any time, also within a checkpoint: no traceback, and a checkpoint that loads."""
    folder = tmp_path / "checkpoints"
    script = WORK.format(root=str(store.CHECKOUT), small=SMALL, folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(lambda: list(folder.glob("*.json")) or process.poll() is not None, 300)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err and "usable" in out
    newest = max(folder.glob("*.json"))
    assert store.load(newest.with_suffix(""))[1]["step"] > 0
    assert not [p for p in folder.iterdir() if p.name[0] == "."]


def test_ctrl_c_at_the_last_checkpoint_reaches_whoever_trains(tmp_path, monkeypatch, mini, capsys):
    """It is not finished: nothing is published of it, and the same command does what is missing."""
    save = checkpoint.save

    def interrupted(folder, step, parts, history):
        if step == 6:
            signal.raise_signal(signal.SIGINT)
        save(folder, step, parts, history)

    def records():
        torch.manual_seed(0)
        step = vae.Step(vae.Model(2, **SMALL))
        return train.watch(train.loop(step, data.batches(mini, 16), 6, tmp_path / "run"), 6)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "save", interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(records())
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "run").exists()
    assert [record.step for record in records()] == [1, 2, 3, 4, 5, 6]
    assert [path.stem for path in (tmp_path / "run").glob("*.json")] == ["step-00000006"]
