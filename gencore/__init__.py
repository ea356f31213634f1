"""gencore: the package behind the book *From Latents to Images*."""

__version__ = "0.1.0"


def setup(seed=0):
    """Seed torch and print one line that says where this notebook runs: the first call of each."""
    import torch

    from gencore import data

    torch.manual_seed(seed)
    device = f"{torch.get_num_threads()} CPU threads"  # networks this small need nothing more
    found = [name for name in data.SHAPES if data.where(name)[0]]
    if data.profile() == "smoke":
        here = "embedded images only"
    else:
        here = "fashion-mini" + "".join(f", {name}" for name in found)
    print(
        f"gencore {__version__}, torch {torch.__version__.split('+')[0]} on {device}, "
        f"profile {data.profile()}, data at hand: {here}"
    )
