"""In a kernel, a live figure and Python share one state: what either sets, the other sees."""

import os

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_files import ROOT

FIGURES = {
    "latent": ('explore.latent(runs.get("vae-mnist-d2"), 100)', {"model": 0, "z": [0.5, -1.25], "example": 3}),
    "interpolate": ('explore.interpolate(runs.get("vae-mnist-d4"))', {"a": 2, "b": 7, "t": 0.25}),
    "training": ('explore.training(runs.get("vae-mnist-d2"))', {"frame": 5}),
    "draw": ('explore.draw(runs.get("encoder-mnist-d2"))', {"example": -1, "pixels": [7] * 784}),
}
START = """import sys; sys.path.insert(0, {root!r})
from gencore import controls, explore, runs
figure = {made}
print(figure.model_id)"""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """`kernel(made)` is a client whose kernel has `figure`, and the figure's id."""
    settings = {"GENCORE_PROFILE": "smoke", "GENCORE_HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    for name, value in settings.items():
        monkeypatch.setitem(os.environ, name, value)
    open_ones = []

    def start(made):
        client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3", timeout=120)
        context = client.setup_kernel()
        context.__enter__()
        open_ones.append(context)
        return client, run(client, START.format(root=str(ROOT), made=made))

    yield start
    for context in open_ones:
        context.__exit__(None, None, None)


def run(client, source):
    """What a cell prints."""
    client.nb.cells.append(nbformat.v4.new_code_cell(source))
    done = client.execute_cell(client.nb.cells[-1], len(client.nb.cells) - 1)
    return "".join(o.get("text", "") for o in done.outputs if o.output_type == "stream").strip().splitlines()[-1]


def as_a_reader(client, comm, state):
    """What the figure's script sends when a reader has moved something."""
    content = {"comm_id": comm, "data": {"method": "update", "state": state, "buffer_paths": []}}
    client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))


@pytest.mark.parametrize("figure", FIGURES)
def test_the_state_goes_both_ways(kernel, figure):
    made, state = FIGURES[figure]
    client, comm = kernel(made)
    as_a_reader(client, comm, {"state": state})
    assert run(client, "print(figure.state)") == str(state)
    run(client, "figure.state = figure.state | {'mark': 17}; print()\nprint(1)")
    assert client.widget_state[comm]["state"] == state | {"mark": 17}
    told = client.widget_state[comm]
    assert told["spec"]["figure"] == figure and told["html"] and f"/* figure: {figure} */" in told["_esm"]


def test_controls_follow_the_reader(kernel):
    client, _ = kernel('controls.Training("vae-mnist-d2", steps=20)')
    slider = run(client, "print(figure.latent_dim.model_id)")
    as_a_reader(client, slider, {"value": 5})
    button = run(client, "print(figure.go.model_id)")
    content = {"comm_id": button, "data": {"method": "custom", "content": {"event": "click"}}}
    client.kc.shell_channel.send(client.kc.session.msg("comm_msg", content))
    assert run(client, "figure.thread.join()\nprint(figure.model.latent_dim)") == "5"
    picture = run(client, "print(figure.picture.model_id)")
    assert client.widget_state[picture]["layout"]
    assert "Step 20 of 20" in run(client, "print(figure.status.value)")
