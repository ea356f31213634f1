"""The command line: `python -m gencore runs | train | sample | data | bench | doctor`."""

import argparse
import io
import json
import os
import platform
import sys
from importlib import metadata

import gencore
from gencore import data, nets, runs, store

EXPECTED = (ValueError, LookupError, OSError, nets.Diverged)  # one sentence, no traceback


def main(arguments=None):
    """Parse the arguments, run one command, return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        return args.command(args) or 0
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if os.environ.get("GENCORE_DEBUG"):
            raise
        print(f"gencore: {error}", file=sys.stderr)
        return 1


def _parser():
    parser = argparse.ArgumentParser("python -m gencore", description=gencore.__doc__)
    parser.add_argument("--version", action="version", version=gencore.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, text):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        return command

    add("runs", list_runs, "list the published runs and the state of their artefacts")
    command = add("train", train_runs, "train runs and save their artefacts; resumes what was stopped")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--all", action="store_true", help="everything missing, stale or damaged")
    command.add_argument("--again", action="store_true", help="train also what is ready")
    command = add("sample", sample, "write a grid of generated images as PNG")
    command.add_argument("name", metavar="NAME")
    command.add_argument("-n", type=int, default=64, help="number of images (64)")
    command.add_argument("-o", default="grid.png", metavar="FILE", help="file to write (grid.png)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--prior", default="normal", help="normal, gaussian or gmm")
    add("data", list_data, "say which datasets are here and where they come from")
    command = add("bench", bench, "measure the loop and the import against their bars")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add("doctor", doctor, "versions, device, data and artefacts on one screen, and what is wrong")
    return parser


def list_runs(args):
    """Every run of the catalogue with its state."""
    for name in runs.names():
        print(f"{name:28} {runs.state(name)}")


def train_runs(args):
    """Train what is named, or with --all whatever is not ready; a ready run costs nothing."""
    if bool(args.names) == args.all:
        raise ValueError("Name the runs to train, or say --all.")
    chosen = runs.names() if args.all else [runs.config(name).name for name in args.names]
    todo = [name for name in chosen if args.again or runs.state(name) != "ready"]
    print(f"{len(chosen) - len(todo)} ready, {len(todo)} to train (profile {data.profile()}).")
    for name in todo:
        if not args.again and runs.state(name) == "ready":  # made on the way, for another run
            continue
        print(f"{name}: training", flush=True)
        run = runs.publish(name, progress=True)
        print(f"{name}: saved in {store.runs_dir()}, {run.meta['cpu_s']:.0f} s of processor time")


def sample(args):
    """Generate images and write them as one PNG, eight or so to a row."""
    from PIL import Image

    if args.n < 1:
        raise ValueError(f"-n is {args.n}; it should be at least 1.")
    images = runs.get(args.name).sample(args.n, seed=args.seed, prior=args.prior)
    n, channels, height, width = images.shape
    columns = max(1, round(n**0.5))
    rows = -(-n // columns)
    sheet = images.new_ones(rows * columns, channels, height, width)
    sheet[:n] = images
    sheet = sheet.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    pixels = (sheet * 255).round().byte().numpy()  # (rows * H, columns * W, C)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "png")
    store.write_bytes(args.o, buffer.getvalue())
    print(f"{n} samples of {args.name} (seed {args.seed}, prior {args.prior}) in {args.o}")


def list_data(args):
    """Each dataset, whether it can be loaded without the network, and from where."""
    for name in data.NAMES:
        found, place = data.where(name)
        print(f"{name:14} {'here' if found else 'missing':8} {place}")


def bench(args):
    """The measurements of gencore.bench as a table or JSON; status 1 if a bar is missed."""
    from gencore import bench

    rows = bench.measure()
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in rows:
            verdict = "ok" if row["ok"] else "MISSED"
            print(f"{row['what']:58} {row['value']:8.2f} {row['unit']:6} {row['bar']:12} {verdict}")
    return 0 if all(row["ok"] for row in rows) else 1


def doctor(args):
    """One screen that shows what this machine has, and names what is wrong and how to mend it."""
    import torch

    trouble = []
    print(f"gencore {gencore.__version__}, Python {platform.python_version()}, {platform.system()}")
    for package in ("torch", "torchvision", "numpy", "safetensors", "matplotlib", "scikit-learn"):
        try:
            print(f"  {package:14} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            trouble.append(f"{package} is not installed: pip install {package}")
    unused = " (a GPU is there; gencore does not use it yet)" if torch.cuda.is_available() else ""
    print(f"device  {torch.get_num_threads()} CPU threads{unused}")
    print(f"profile {data.profile()}   cache {store.cache_dir()}   artefacts {store.runs_dir()}")
    for name in (*data.SHAPES, "fashion-mini"):
        found, place = data.where(name)
        print(f"  {name:14} {'here' if found else 'missing':8} {place}")
    try:
        data.load("fashion-mini")
    except ValueError as error:
        trouble.append(str(error))
    states = {name: runs.state(name) for name in runs.names()}
    ready = sum(value == "ready" for value in states.values())
    print(f"artefacts {ready} of {len(states)} ready")
    for bad in sorted(set(states.values()) - {"ready"}):
        some = [name for name, value in states.items() if value == bad]
        trouble.append(f"{len(some)} artefacts {bad}: {', '.join(some[:4])}{' ...' * (len(some) > 4)}")
        trouble[-1] += "; `python -m gencore train NAME` makes one again"
    for problem in trouble:
        print(f"! {problem}")
    print("Nothing is wrong." if not trouble else f"{len(trouble)} problems.")
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
