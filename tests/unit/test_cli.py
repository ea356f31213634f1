"""The command line: each command does what it says, and bad input gets one sentence and a status."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import papers
import pytest
from PIL import Image

import gencore.__main__ as command_line
from gencore import catalogue, runs, store, train
from gencore.__main__ import main

SMALL = "vae-mnist-linear"  # the run that trains in seconds


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The command sets torch's threads; and training takes two steps."""
    monkeypatch.setenv("GENCORE_THREADS", "1")
    monkeypatch.setitem(runs.STEPS, "smoke", 2)


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """One artefact, trained once for this file by the command itself."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCORE_PROFILE", "smoke")
        patch.setenv("GENCORE_RUNS", str(folder))
        patch.setenv("GENCORE_HOME", str(folder / "home"))
        patch.setenv("GENCORE_THREADS", "1")
        patch.setitem(runs.STEPS, "smoke", 2)
        patch.setattr(catalogue, "needed", lambda conf: [])
        assert main(["train", SMALL]) == 0
    assert not list((folder / "home" / "checkpoints").glob("*"))  # gone when it is finished
    return folder / "smoke"


@pytest.fixture
def trained(smoke, artefact, monkeypatch):
    """The folder of smoke's own artefacts; it holds a copy of that one."""
    monkeypatch.setattr(catalogue, "needed", lambda conf: [])
    shutil.copytree(artefact, smoke / "smoke")
    return smoke / "smoke"


def one_sentence(capsys):
    """What stands on stderr: one line without a traceback."""
    error = capsys.readouterr().err
    assert error.startswith("gencore: ") and error.count("\n") == 1 and "Traceback" not in error
    return error


# runs and train


def test_runs_lists_every_run_with_its_state(smoke, capsys):
    assert main(["runs"]) == 0
    listed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert list(listed) == runs.names() == list(catalogue.runs())
    assert set(listed.values()) == {"missing"}


def test_runs_says_the_profile_of_each(trained, capsys):
    assert main(["runs"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [SMALL, "ready", "smoke"] in lines and sum(len(line) == 2 for line in lines) == len(lines) - 1


def test_train_leaves_a_ready_artefact_alone(trained, capsys):
    file = trained / f"{SMALL}.safetensors"
    before = file.stat().st_mtime_ns
    assert main(["train", SMALL]) == 0
    assert "1 ready, 0 to train" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before


def test_train_again_trains_what_is_ready(trained, capsys):
    file = trained / f"{SMALL}.json"
    before = file.stat().st_mtime_ns
    assert main(["train", SMALL, "--again"]) == 0
    assert file.stat().st_mtime_ns > before


def test_train_all_trains_what_is_not_ready_and_in_order(trained, monkeypatch, capsys):
    rows = {name: catalogue.config(name) for name in ("vae-mnist-d2", SMALL, "ae-mnist-d2")}
    monkeypatch.setattr(catalogue, "runs", lambda: rows)
    published = []
    monkeypatch.setattr(command_line, "_publish", published.append)
    assert main(["train", "--all"]) == 0
    assert "1 ready, 2 to train" in capsys.readouterr().out
    assert published == ["vae-mnist-d2", "ae-mnist-d2"]
    assert main(["train", "--all", "--again"]) == 0 and published[2:] == list(rows)


def test_what_was_made_on_the_way_is_not_made_twice(smoke, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(runs, "state", lambda name: "ready" if name in made else "missing")
    monkeypatch.setattr(command_line, "_publish", lambda name: made.extend([name, "classifier-mnist"]))
    assert main(["train", "vae-mnist-d2", "classifier-mnist"]) == 0
    assert made == ["vae-mnist-d2", "classifier-mnist"]


def test_train_needs_names_or_all(smoke, capsys):
    for words in ([], ["--all", SMALL]):
        assert main(["train", *words]) == 1
        assert "--all" in one_sentence(capsys)


def test_unknown_run_names_the_nearest(smoke, capsys):
    for command in ("train", "sample"):
        assert main([command, "vae-mnist-d100"]) == 1
        error = one_sentence(capsys)
        assert "There is no run 'vae-mnist-d100'" in error and "vae-mnist-d10'" in error


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [("DEVICE", "nonsense", "GENCORE_DEVICE is 'nonsense', which cannot be used here"),
     ("DEVICE", "cuda:77", "GENCORE_DEVICE is 'cuda:77', which cannot be used here"),
     ("THREADS", "many", "GENCORE_THREADS is 'many'"), ("PROFILE", "fast", "GENCORE_PROFILE is 'fast'"),
     ("PRECISION", "float8", "GENCORE_PRECISION is 'float8'")],
)  # fmt: skip
def test_a_setting_that_makes_no_sense_is_one_sentence(setting, value, sentence, trained, monkeypatch, capsys):
    monkeypatch.setenv(f"GENCORE_{setting}", value)
    monkeypatch.setattr(train, "loop", None)  # it is told before the training
    assert main(["train", SMALL, "--again"]) == 1
    assert sentence in one_sentence(capsys)


def test_an_error_of_ours_shows_where_it_is_when_asked(smoke, monkeypatch, capsys):
    monkeypatch.setenv("GENCORE_DEBUG", "1")
    with pytest.raises(LookupError):
        main(["train", "nope"])


def test_killed_training_goes_on_from_its_checkpoint(smoke, monkeypatch):
    """SIGKILL in the middle; the second start must not begin at step 1 again."""
    name, steps = "classifier-fashion-mnist", 150
    code = (
        "import sys; from gencore import runs, train, __main__ as command;"
        "train.FIRST_CHECKPOINT = train.CHECKPOINT_SECONDS = 0;"
        f"runs.STEPS['smoke'] = {steps}; sys.exit(command.main(['train', {name!r}]))"
    )
    folder = store.cache_dir() / "checkpoints"
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/step-*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reached = max(store.read_json(f)["step"] for f in folder.glob("*/step-*.json"))
    assert 0 < reached < steps, "the run was over before it could be killed: make it longer"
    monkeypatch.setitem(runs.STEPS, "smoke", steps)
    seen, loop = [], train.loop

    def spy(*args, **kwargs):
        for record in loop(*args, **kwargs):
            seen.append(record.step)
            yield record

    monkeypatch.setattr(train, "loop", spy)
    assert main(["train", name]) == 0
    assert seen == list(range(reached + 1, steps + 1))
    meta = json.loads((smoke / "smoke" / f"{name}.json").read_text())
    assert meta["history"]["step"] == [50, 100, 150]


# sample


def test_sample_writes_the_images_of_run_sample(trained, tmp_path, capsys):
    out = tmp_path / "grid.png"
    assert main(["sample", SMALL, "-n", "6", "-o", str(out), "--seed", "3"]) == 0
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (3 * 28, 2 * 28)
    expected = (runs.get(SMALL).sample(6, seed=3) * 255).round().byte().numpy()
    assert (sheet[:28, :28] == expected[0, 0]).all()
    assert (sheet[28:56, 28:] == expected[3, 0]).all()
    assert f"6 samples of {SMALL} (seed 3, density prior) in {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["-n", "0"], "n is 0"), (["-n", "-3"], "n is -3"),
     (["-n", str(10**12)], "1,000,000,000,000 images take 3,136,000 GB; ask for at most 318,877 at a time"),
     (["-n", str(10**9)], "1,000,000,000 images take 3,136 GB"),
     (["--seed", str(2**64)], f"The seed is {2**64}; it should be a whole number from 0 to 2^63 - 1"),
     (["--seed", "-1"], "The seed is -1"), (["--prior", "uniform"], "prior is 'uniform'; this model has 'prior'"),
     (["-o", ""], "-o is empty")],
)  # fmt: skip
def test_sample_refuses_nonsense_at_once(words, sentence, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    began = time.process_time()
    assert main(["sample", SMALL, *words]) == 1
    assert time.process_time() - began < 5, "not after it has tried"
    assert sentence in one_sentence(capsys)
    assert set(tmp_path.rglob("*")) == before


def test_a_mixture_takes_a_seed_as_the_prior_does(smoke, monkeypatch, capsys):
    """--prior gmm --seed -1 was a traceback of scikit-learn."""
    conf = catalogue.config("vae-mnist-d2")
    model = runs._model(papers.narrow(conf))
    monkeypatch.setattr(runs, "get", lambda name: runs.Run(name, conf, model, {}, {}, {}))
    for seed in ("-1", str(2**63)):
        assert main(["sample", conf.name, "--prior", "gmm", "--seed", seed]) == 1
        assert f"The seed is {seed}; it should be a whole number" in one_sentence(capsys)


def test_sample_of_points_is_one_sentence(smoke, monkeypatch, capsys):
    from papers import NEW

    conf = NEW["game-ring"]
    monkeypatch.setattr(runs, "get", lambda name: runs.Run(name, conf, conf.paper.Model(), {}, {}, {}))
    assert main(["sample", "game-ring"]) == 1
    assert "game-ring draws points, not images" in one_sentence(capsys)


def test_sample_where_nothing_can_be_written(trained, tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert main(["sample", SMALL, "-n", "1", "-o", str(tmp_path / "file" / "x.png")]) == 1
    assert "Could not write" in one_sentence(capsys)
    assert main(["sample", SMALL, "-n", "1", "-o", str(tmp_path)]) == 1
    assert "it is a folder" in one_sentence(capsys)


def test_sample_of_a_missing_artefact_says_how_to_make_it(smoke, tmp_path, capsys):
    assert main(["sample", "vae-mnist-d10", "-o", str(tmp_path / "x.png")]) == 1
    assert "python -m gencore train vae-mnist-d10" in one_sentence(capsys)


def test_sample_of_a_damaged_artefact(trained, tmp_path, capsys):
    file = trained / f"{SMALL}.safetensors"
    octets = bytearray(file.read_bytes())
    octets[-5] ^= 1
    file.write_bytes(octets)
    assert runs.state(SMALL) == "damaged"
    assert main(["sample", SMALL, "-o", str(tmp_path / "x.png")]) == 1
    assert "is damaged" in one_sentence(capsys)


LONG = "runs.names = lambda: ['x' * 100] * 1000; runs.state = lambda name: 'missing';"


@pytest.mark.parametrize("words", [["runs"], ["data"], [LONG, "runs"]], ids=["runs", "data", "long"])
def test_a_reader_of_the_output_may_leave(words, smoke):
    """`python -m gencore runs | head -1`: no word of a broken pipe, however much there was to say."""
    read, write = os.pipe()
    os.close(read)
    code = f"import sys; from gencore import runs, __main__ as command; {words[0] if words[1:] else ''}"
    code += f"sys.exit(command.main([{words[-1]!r}]))"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, cwd=store.CHECKOUT)
    os.close(write)
    error = child.communicate(timeout=60)[1]
    assert child.returncode == 0 and not error


# data and doctor


def test_data_tells_where_each_dataset_is(smoke, tmp_path, monkeypatch, capsys):
    images = np.zeros((10, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "mnist.npz", train_images=images, test_images=images)
    monkeypatch.setenv("GENCORE_DATA", str(tmp_path))
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"here     {tmp_path / 'mnist.npz'}" in next(line for line in lines if line[:6] == "mnist ")
    assert "missing" in next(line for line in lines if line.startswith("cifar10"))


def test_doctor_is_content_with_this_checkout(capsys):
    status = main(["doctor"])
    out = capsys.readouterr().out
    assert status == 0, out
    assert f"{len(catalogue.runs())} of {len(catalogue.runs())} ready" in out


def test_doctor_names_what_is_missing(smoke, capsys):
    assert main(["doctor"]) == 1
    assert f"! {len(runs.names())} artefacts missing" in capsys.readouterr().out


@pytest.mark.parametrize("closed", ["home", "runs"])
def test_doctor_names_a_folder_that_cannot_be_written(closed, own_runs, monkeypatch, capsys):
    """A read-only checkout: "Nothing is wrong" would be untrue. (The tests may run as root, whom nothing stops.)"""
    store.cache_dir().mkdir()
    folder = {"home": store.cache_dir(), "runs": own_runs}[closed]
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder and access(path, mode))
    name = {"home": "GENCORE_HOME", "runs": "GENCORE_RUNS"}[closed]
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert f"! {folder} cannot be written: set {name} to a folder that can" in out


def test_doctor_looks_where_a_folder_would_be_made(own_runs, tmp_path, monkeypatch, capsys):
    place = tmp_path / "closed" / "a" / "b"
    (tmp_path / "closed").mkdir()
    monkeypatch.setenv("GENCORE_HOME", str(place))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "closed" and access(path, mode))
    main(["doctor"])
    assert f"! {tmp_path / 'closed'} cannot be written" in capsys.readouterr().out


def test_doctor_names_a_package_that_is_not_there(smoke, monkeypatch, capsys):
    from importlib import metadata

    def version(package):
        if package == "scikit-learn":
            raise metadata.PackageNotFoundError
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert main(["doctor"]) == 1
    assert "! scikit-learn is not installed: pip install scikit-learn" in capsys.readouterr().out


def test_a_command_never_warns_for_nothing(trained, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["runs"]) == 0 and main(["data"]) == 0
