"""The command line: `python -m gencore runs | train | sample | data | bench | doctor`."""

import argparse
import io
import json
import os
import platform
import sys
from importlib import metadata

import gencore
from gencore import catalogue, data, nets, runs, store, train

# What is wrong with the data, the disk, the settings or a paper's step is one sentence.
EXPECTED = (ValueError, LookupError, OSError, MemoryError, TypeError, train.Diverged)


def main(arguments=None):
    """Parse the arguments, run one command, return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        train.threads()
        status = args.command(args) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    command = add("train", train_runs, "train runs, save their artefacts; resumes what was stopped")
    command.add_argument("names", nargs="*", metavar="NAME")
    command.add_argument("--all", action="store_true", help="everything missing, stale or damaged")
    command.add_argument("--again", action="store_true", help="train also what is ready")
    command.add_argument("--data", metavar="PATH", help="your own images: a folder or an .npz")
    command.add_argument("--name", metavar="NEW", help="what to call the run on them")
    command = add("sample", sample, "write a grid of generated images as PNG")
    command.add_argument("name", metavar="NAME")
    command.add_argument("-n", type=int, default=64, help="number of images (64)")
    command.add_argument("-o", default="grid.png", metavar="FILE", help="file to write (grid.png)")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--prior",
        metavar="DENSITY",
        help="where codes come from: the model's own prior, gaussian or gmm",
    )
    add("data", list_data, "say which datasets are here and where they come from")
    command = add("bench", bench, "measure the loop and the import against their bars")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add("doctor", doctor, "versions, device, data and artefacts on one screen, and what is wrong")
    return parser


def list_runs(args):
    """Every run of the catalogue, and your own: its state and the profile it was trained under."""
    for name in runs.names():
        state = runs.state(name)
        profile = "" if state in ("missing", "damaged") else runs.describe(name)["profile"]
        print(f"{name:28} {state:8} {profile}".rstrip())


def train_runs(args):
    """Train what is named, or with --all whatever is not ready; a ready run costs nothing."""
    if bool(args.names) == args.all:
        raise ValueError("Name the runs to train, or say --all.")
    if args.data or args.name:
        return _train_on(args)
    chosen = list(catalogue.runs()) if args.all else [runs.known(name).name for name in args.names]
    todo = [name for name in chosen if args.again or runs.state(name) != "ready"]
    print(f"{len(chosen) - len(todo)} ready, {len(todo)} to train (profile {store.profile()}).")
    for name in todo:
        if args.again or runs.state(name) != "ready":  # else made on the way, for another run
            _publish(name)


def _train_on(args):
    """Train one run of the catalogue on the reader's own images."""
    if len(args.names) != 1 or not args.data or not args.name:
        raise ValueError("Say run, images and a new name: train RUN --data PATH --name NEW.")
    images = args.data if args.data in data.NAMES else os.path.abspath(args.data)
    conf = catalogue.on_other_images(runs.config(args.names[0]), images, args.name)
    if runs.state(conf.name) == "ready" and not args.again:
        before = runs.known(conf.name)
        if catalogue.differences(before.record(), conf):
            raise ValueError(
                f"There is a run {conf.name} already, trained on {before.data}: choose another "
                f"name, or say --again to put this one in its place."
            )
        print(f"{conf.name} is ready.")
        return
    _publish(conf)


def _publish(what):
    name = runs.checked(what).name
    print(f"{name}: training", flush=True)
    run = runs.publish(what, progress=True)
    kept = " (its numbers, not its weights)" if runs.numbers_only(name) else ""
    print(f"{name}: saved in {store.own_dir()}{kept}, {run.meta['cpu_s']:.0f} s of processor time")


def sample(args):
    """Generate images and write them as one PNG, eight or so to a row."""
    if not args.o:
        raise ValueError("-o is empty; it should be the name of a file.")
    run = runs.get(args.name)
    run.model.to(train.device())
    images = run.sample(args.n, seed=args.seed, prior=args.prior)
    if images.ndim != 4:
        raise ValueError(f"{args.name} draws points, not images: use runs.get(...).sample.")
    store.write_bytes(args.o, _sheet(images))
    prior = args.prior or next(iter(run.model.priors))
    print(f"{len(images)} samples of {args.name} (seed {args.seed}, density {prior}) in {args.o}")


def _sheet(images):
    """The bytes of a PNG with all images (n, C, H, W) in a square of rows and columns."""
    from PIL import Image

    n, channels, height, width = images.shape
    columns = max(1, round(n**0.5))
    rows = -(-n // columns)
    sheet = images.new_ones(rows * columns, channels, height, width)
    sheet[:n] = images
    sheet = sheet.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    pixels = (sheet * 255).round().byte().numpy()  # (rows * H, columns * W, C)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()


def list_data(args):
    """Each dataset, whether it can be loaded without the network, and from where."""
    for name in data.NAMES:
        found, place = data.where(name)
        print(f"{name:16} {'here' if found else 'missing':8} {place}")


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
    print(f"gencore {gencore.__version__}, Python {platform.python_version()}, {platform.system()}")
    trouble = [*_packages(), *_hardware(), *_folders(), *_datasets(), *_artefacts()]
    for problem in trouble:
        print(f"! {problem}")
    print("Nothing is wrong." if not trouble else f"{len(trouble)} problems.")
    return 1 if trouble else 0


def _packages():
    for package in ("torch", "torchvision", "numpy", "safetensors", "matplotlib", "scikit-learn"):
        try:
            print(f"  {package:14} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            yield f"{package} is not installed: pip install {package}"


def _hardware():
    device = train.device()
    number = str(nets.precision(device)).removeprefix("torch.")
    print(f"device  {device}, {train.threads()} CPU threads, networks train in {number}")
    return []


def _folders():
    print(f"profile {store.profile()}   cache {store.cache_dir()}   artefacts {store.own_dir()}")
    for folder, name in ((store.cache_dir(), "GENCORE_HOME"), (store.own_dir(), "GENCORE_RUNS")):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not os.access(there, os.W_OK):
            yield f"{there} cannot be written: set {name} to a folder that can"


def _datasets():
    for name, row in data.TABLE.items():
        if len(row.shape) == 3:
            found, place = data.where(name)
            print(f"  {name:16} {'here' if found else 'missing':8} {place}")
    try:
        data.load("fashion-mini")
    except ValueError as error:
        yield str(error)


def _artefacts():
    states = {name: runs.state(name) for name in runs.names()}
    ready = sum(value == "ready" for value in states.values())
    print(f"artefacts {ready} of {len(states)} ready")
    for bad in sorted(set(states.values()) - {"ready"}):
        some = [name for name, value in states.items() if value == bad]
        listed = ", ".join(some[:4]) + " ..." * (len(some) > 4)
        again = "`python -m gencore train NAME` makes one again"
        yield f"{len(some)} artefacts {bad}: {listed}; {again}"


if __name__ == "__main__":
    sys.exit(main())
