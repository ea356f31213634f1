"""Images changed in one respect, to find out which respect matters.

A ladder from digits to photographs needs datasets that differ in one thing at a time; these are
computed from those that are there. All take float images (N, C, H, W) in [0, 1] and return such.
"""

from torch.nn.functional import interpolate


def enlarged(x):
    """28 x 28 pixels become 32 x 32."""
    return interpolate(x, (32, 32), mode="bilinear")


def grey(x):
    """Brightness of colours, by the weights of ITU-R BT.601."""
    return (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def smooth(x):
    """Without details finer than two pixels: to half the size and back."""
    small = interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)
    return interpolate(small, x.shape[2:], mode="bilinear")
