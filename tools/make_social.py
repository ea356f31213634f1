"""Draw the preview that is shown where a link to the book is shared, and the front page's pictures.

    python tools/make_social.py

writes `social.png` (1200 x 630) and `path-1.png` to `path-5.png` into book/assets. All images in
them are drawn by the published networks; no dataset is needed.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from make_marks import picture  # noqa: E402

from gencore import evaluate, runs, style  # noqa: E402

ASSETS = ROOT / "book/assets"
FONT = ASSETS / "fonts/source-serif-4-latin-wght-normal.woff2"
TILE = 112  # pixels of the file; the page shows a picture at half its size


def rgb(colour):
    """(r, g, b) of "#rrggbb"."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def manifold(columns, rows, spread=0.97):
    """What the 2-D decoder makes of a grid over its prior's middle: (rows, columns, 28, 28)."""

    def axis(n):
        return torch.special.ndtri(torch.linspace(1 - spread, spread, n))

    z = torch.cartesian_prod(-axis(rows), axis(columns)).flip(1)
    images = evaluate.decode(runs.get("vae-mnist-d2").model, z)
    return images.view(rows, columns, 28, 28).numpy()


def text(draw, place, line, size, weight, colour):
    """One line in the book's serif, its top left corner at `place`."""
    font = ImageFont.truetype(str(FONT), size)
    font.set_variation_by_axes([weight])
    draw.text(place, line, font=font, fill=rgb(colour))


def social():
    """The preview: title and mark beside the plane of latents, its digits in ink on paper."""
    paper, ink = np.array(rgb(style.PAPER)), np.array(rgb(style.INK))
    image = Image.new("RGB", (1200, 630), rgb(style.PAPER))
    rows = manifold(9, 11)
    sheet = rows.transpose(0, 2, 1, 3).reshape(11 * 28, 9 * 28).repeat(2, 0).repeat(2, 1)
    inked = (paper + (ink - paper) * sheet[..., None]).round().astype(np.uint8)
    image.paste(Image.fromarray(inked), (1200 - 512, 7))
    image.paste(picture(128), (64, 64))
    draw = ImageDraw.Draw(image)
    for i, line in enumerate(("From Latents", "to Images")):
        text(draw, (72, 218 + 88 * i), line, 84, 600, style.INK)
    for i, line in enumerate(("A hands-on book on generating images,", "measured by its own code")):
        text(draw, (74, 436 + 42 * i), line, 29, 400, style.MUTED)
    draw.rectangle((74, 555, 184, 560), fill=rgb(style.COLOURS["prior"]))
    image.save(ASSETS / "social.png", optimize=True)


def strip(number, images):
    """Eight images, four in a row, as the front page's picture of a chapter."""
    x = (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    board = Image.new("RGB", (4 * TILE, 2 * TILE))
    for i, pixels in enumerate(x):
        tile = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy())
        fine = tile.resize([side * 7 for side in tile.size], Image.Resampling.NEAREST)
        board.paste(fine.resize((TILE, TILE), Image.Resampling.BOX), (i % 4 * TILE, i // 4 * TILE))
    colours = 32 if x.shape[-1] == 1 else 128
    small = board.quantize(colours, dither=Image.Dither.NONE)
    small.save(ASSETS / f"path-{number}.png", optimize=True)


def path():
    """One picture for each chapter of the front page's path: the first samples of seed 0."""

    def samples(name, n=8):
        return runs.get(name).sample(n)

    strip(1, samples("ae-mnist-d10"))
    strip(2, torch.cat([samples("vae-mnist-d2", 4), samples("vae-mnist-d64", 4)]))
    strip(3, samples("vae-mnist-d10"))
    pairs = [samples(f"vae-mnist-d{d}", 2) for d in (2, 4, 10, 64)]
    strip(4, torch.stack(pairs, 1).flatten(0, 1))
    strip(5, samples("vae-cifar10-d200"))


if __name__ == "__main__":
    social()
    path()
