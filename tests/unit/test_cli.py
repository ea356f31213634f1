"""The command line: each command does what it says, and bad input gets one sentence and a status."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from gencore import runs, store
from gencore.__main__ import main

SMALL = "vae-mnist-linear"  # the run that trains in seconds and needs no other


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """Artefacts and checkpoints in a folder of the test, tiny budgets."""
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    monkeypatch.setenv("GENCORE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GENCORE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GENCORE_DATA", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """One artefact, trained once for this file by the command itself."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCORE_PROFILE", "smoke")
        patch.setenv("GENCORE_RUNS", str(folder))
        patch.setenv("GENCORE_HOME", str(folder / "home"))
        assert main(["train", SMALL]) == 0
    assert not list((folder / "home" / "checkpoints").glob("*"))  # gone when it is finished
    return folder


@pytest.fixture
def trained(smoke, artefact):
    """A folder of artefacts that holds a copy of that one."""
    (smoke / "runs").mkdir()
    for file in artefact.glob(f"{SMALL}.*"):
        shutil.copy(file, smoke / "runs")
    return smoke


def test_runs_lists_every_run_with_its_state(smoke, capsys):
    assert main(["runs"]) == 0
    listed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(listed) == runs.names()
    assert set(listed.values()) == {"missing"}


def test_train_leaves_a_ready_artefact_alone(trained, capsys):
    file = trained / "runs" / f"{SMALL}.safetensors"
    before = file.stat().st_mtime_ns
    assert main(["train", SMALL]) == 0
    assert "1 ready, 0 to train" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before


def test_train_all_skips_what_is_ready(trained, monkeypatch, capsys):
    monkeypatch.setattr(runs, "names", lambda: [SMALL])
    assert main(["train", "--all"]) == 0
    assert "1 ready, 0 to train" in capsys.readouterr().out


def test_train_needs_names_or_all(smoke, capsys):
    assert main(["train"]) == 1
    assert main(["train", "--all", SMALL]) == 1
    assert "--all" in capsys.readouterr().err


def test_unknown_run_names_the_nearest(smoke, capsys):
    assert main(["train", "vae-mnist-d100"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gencore: There is no run 'vae-mnist-d100'") and "vae-mnist-d10'" in error
    assert len(error.strip().splitlines()) == 1


def test_sample_writes_the_images_of_run_sample(trained, capsys):
    out = trained / "grid.png"
    assert main(["sample", SMALL, "-n", "6", "-o", str(out), "--seed", "3"]) == 0
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (3 * 28, 2 * 28)
    images = runs.get(SMALL).sample(6, seed=3)
    expected = (images * 255).round().byte().numpy()
    assert (sheet[:28, :28] == expected[0, 0]).all()
    assert (sheet[28:56, 28:] == expected[3, 0]).all()


@pytest.mark.parametrize("words", [["-n", "0"], ["--prior", "uniform"]])
def test_sample_refuses_nonsense(trained, capsys, words):
    assert main(["sample", SMALL, "-o", str(trained / "x.png"), *words]) == 1
    assert not (trained / "x.png").exists()


def test_sample_of_a_missing_artefact_says_how_to_make_it(smoke, capsys):
    assert main(["sample", "vae-mnist-d10", "-o", str(smoke / "x.png")]) == 1
    assert "python -m gencore train vae-mnist-d10" in capsys.readouterr().err


def test_sample_of_a_damaged_artefact(trained, capsys):
    file = trained / "runs" / f"{SMALL}.safetensors"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    assert runs.state(SMALL) == "damaged"
    assert main(["sample", SMALL, "-o", str(trained / "x.png")]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_data_tells_where_each_dataset_is(smoke, monkeypatch, capsys):
    images = np.zeros((10, 28, 28, 1), np.uint8)
    np.savez(smoke / "mnist.npz", train_images=images, test_images=images)
    monkeypatch.setenv("GENCORE_DATA", str(smoke))
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"here     {smoke / 'mnist.npz'}" in next(line for line in lines if line[:6] == "mnist ")
    assert "missing" in next(line for line in lines if line.startswith("cifar10"))


def test_doctor_is_content_with_this_checkout(monkeypatch, capsys):
    monkeypatch.delenv("GENCORE_RUNS", raising=False)
    status = main(["doctor"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert f"{len(runs.names())} of {len(runs.names())} ready" in out


def test_doctor_names_what_is_missing(smoke, capsys):
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"! {len(runs.names())} artefacts missing" in out



def test_killed_training_goes_on_from_its_checkpoint(smoke, monkeypatch):
    """SIGKILL in the middle; the second start must not begin at step 1 again."""
    name, steps = "classifier-fashion-mnist", 150
    code = (
        "import sys; from gencore import runs, train, __main__ as command;"
        f"train.CHECKPOINT_SECONDS = 0; runs.STEPS['smoke'] = {steps};"
        f"sys.exit(command.main(['train', {name!r}]))"
    )
    folder = smoke / "home" / "checkpoints"
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/step-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reached = max(store.read_json(f)["step"] for f in folder.glob("*/step-*.json"))
    assert 0 < reached < steps, "the run was over before it could be killed: make it longer"
    monkeypatch.setitem(runs.STEPS, "smoke", steps)
    seen, loop = [], runs.train.loop

    def spy(*args, **kwargs):
        for record in loop(*args, **kwargs):
            seen.append(record.step)
            yield record

    monkeypatch.setattr(runs.train, "loop", spy)
    assert main(["train", name]) == 0
    assert seen == list(range(reached + 1, steps + 1))
    meta = json.loads((smoke / "runs" / f"{name}.json").read_text())
    assert meta["history"]["step"] == [50, 100, 150]
