"""gencore: the package behind the book *From Latents to Images*."""

import os

__version__ = "0.1.0"

# Threads that wait for work sleep: spinning, two of them on a busy machine make a step take a
# hundred times as long. It counts only if it is set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def setup(seed=0):
    """Seed torch and print two lines that say where this notebook runs: the first call of each."""
    import torch

    from gencore import data, nets, store, train

    torch.manual_seed(seed)
    device, profile = train.device(), store.profile()
    where = f"{train.threads()} CPU threads" if device.type == "cpu" else str(device)
    found = [name for name, row in data.TABLE.items() if row.shape[1:] and data.where(name)[0]]
    here = "embedded images only" if profile == "smoke" else ", ".join(found)
    number = str(nets.precision(device)).removeprefix("torch.")
    print(
        f"gencore {__version__}, torch {torch.__version__.split('+')[0]} on {where} ({number}), "
        f"profile {profile}\ndata at hand: {here}"
    )
