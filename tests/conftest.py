"""For every test: folders of its own, no network but this machine, a server that can fail."""

import errno
import gzip
import http.server
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gencore import data, store

torch.set_num_threads(1)  # small tensors; and equal bits do not depend on the machine's cores
DATA = os.environ.get("GENCORE_DATA")  # where the real datasets are, if they are here
CI = os.environ.get("CI", "").lower() in ("true", "1")
PROMISED = ("mnist", "cifar10")  # the published runs are made of them: GENCORE_DATA has both
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "", None, b"127.0.0.1", b"localhost"}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """A cache of the test's own, and none of the caller's settings but the data and the device."""
    for name in ("GENCORE_PROFILE", "GENCORE_RUNS", "GENCORE_RELEASE", "GENCORE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GENCORE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("GENCORE_THREADS", "1")  # the command line and `setup` set torch's threads
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def attempts(monkeypatch, request):
    """Hosts that were asked for and refused. Only a test that names `offline` may have some."""
    refused = []

    def guard(original, host_of):
        def call(*arguments, **options):
            host = host_of(arguments)
            if host not in LOCAL:
                refused.append(host)
                raise OSError(errno.ENETUNREACH, "Network is unreachable")
            return original(*arguments, **options)

        return call

    def target(arguments):
        address = arguments[1]
        return address[0] if isinstance(address, tuple) else None  # a path is a local socket

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guard(getattr(socket.socket, name), target))
    monkeypatch.setattr(socket, "getaddrinfo", guard(socket.getaddrinfo, lambda a: a[0]))
    yield refused
    if "offline" not in request.fixturenames:
        assert not refused, f"the test asked the network for {refused}"


@pytest.fixture
def offline(attempts):
    """The hosts that were asked for while there was no network."""
    return attempts


@pytest.fixture
def bare(monkeypatch):
    """No data but what the package brings."""
    monkeypatch.delenv("GENCORE_DATA", raising=False)


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    """An empty folder of artefacts."""
    folder = tmp_path / "runs"
    folder.mkdir()
    monkeypatch.setenv("GENCORE_RUNS", str(folder))
    return folder


@pytest.fixture
def smoke(monkeypatch, bare, own_runs):
    """Profile smoke with an empty folder of artefacts."""
    monkeypatch.setenv("GENCORE_PROFILE", "smoke")
    return own_runs


@pytest.fixture
def published():
    """The folder of the committed artefacts."""
    return store.CHECKOUT / "book" / "runs"


@pytest.fixture
def real(monkeypatch, debian):
    """`real(name)` loads a real dataset; a test that needs it says so where it is not.

    Where GENCORE_DATA was not set, such a test is skipped, under CI too: a fork's runners need no
    data. Where it was set, and CI is true, a folder without what it is for is a failure.
    """

    def load(name):
        if DATA:
            monkeypatch.setenv("GENCORE_DATA", DATA)
        found, place = data.where(name)
        if not found and name in debian:
            return debian[name]
        if not found:
            end = pytest.fail if CI and DATA and name in PROMISED else pytest.skip
            end(f"the real {name} is {place}; set GENCORE_DATA to the folder of {name}.npz")
        return data.load(name)

    return load


@pytest.fixture(scope="session")
def debian(tmp_path_factory):
    """{name: dataset} of what Debian packages have put on this machine: Fashion-MNIST, or nothing."""
    files = {"train": "train", "test": "t10k"}
    if not all((DEBIAN / f"{part}-images-idx3-ubyte.gz").exists() for part in files.values()):
        return {}
    arrays = {}
    for part, file in files.items():
        for what, start, shape in (("images-idx3", 16, (-1, 28, 28, 1)), ("labels-idx1", 8, (-1,))):
            content = gzip.decompress((DEBIAN / f"{file}-{what}-ubyte.gz").read_bytes())
            array = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
            arrays[f"{part}_{what[:6]}"] = array
    file = tmp_path_factory.mktemp("debian") / "fashion-mnist.npz"
    np.savez(file, **arrays)
    return {"fashion-mnist": data.load(file)}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The book, built once by the Makefile's own recipe with this interpreter: (folder, output)."""
    out = tmp_path_factory.mktemp("book")
    command = ["make", "--no-print-directory", "book", f"PY={sys.executable}", "STAMP="]
    result = subprocess.run(
        [*command, f"OUT={out}"], cwd=store.CHECKOUT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
    return out / "_build/html", result.stdout


class Server:
    """http://127.0.0.1 with `files`: {name: bytes}; `fault` is None or what goes wrong."""

    def __init__(self):
        self.files, self.fault, self.asked = {}, None, []
        handler = type("Handler", (Handler,), {"server_state": self})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        self.over = threading.Event()
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.over.set()
        self.http.shutdown()
        self.http.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what the test put into its Server, or the fault that it set: an HTTP status,
    "hang" (no answer), "wrong" (other bytes), "truncated" (half of the bytes that it promised)."""

    def do_GET(self):
        state = self.server_state
        name = self.path.lstrip("/")
        state.asked.append(name)
        body, fault = state.files.get(name), state.fault
        if fault == "hang":
            state.over.wait(30)
            return
        if isinstance(fault, int) or body is None:
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "wrong":
            body = bytes(len(body))
        self.wfile.write(body[: len(body) // 2] if fault == "truncated" else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    """A web server on this machine that serves what it is given, or fails as it is told."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def mini():
    """A few embedded images and labels: uint8 (256, 1, 28, 28), int64 (256,)."""
    split = data.load("fashion-mini").train
    return data.Split(split.images[:256], split.labels[:256])


@pytest.fixture(scope="session")
def forks():
    """Processes that have imported everything when they start: to kill one costs milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "gencore.runs"])  # Adam needs the first
    return context


def wait_for(condition, seconds=60):
    """Wait until a condition holds; a test that waits for ever has failed."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def until():
    """`until(condition)` waits for it."""
    return wait_for
