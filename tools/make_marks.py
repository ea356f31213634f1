"""Draw the book's mark: two latents, and the little image of a digit that they become.

    python tools/make_marks.py

writes `logo.svg` (its colours follow the reader's light or dark setting; the pages use it as their
icon, too) and `favicon.png` into book/assets, `favicon.ico` into book/root, and `mark.html`, the
same drawing in the page's own colours, into book/templates.
"""

from pathlib import Path

from PIL import Image, ImageDraw

BOOK = Path(__file__).parents[1] / "book"
INK, PAPER, LATENT, LATENT_DARK = "#33322e", "#e6e2d9", "#bf6012", "#f0a35e"  # of gencore.style
DIGIT = ("0.9.9.0", "9.1.2.9", "0.1.7.6", "1.8.5.1", "9.9.9.9")  # tenths of ink, four by five
PIXEL, PITCH, LEFT, TOP = 4.4, 5.0, 12.0, 3.8
DOTS = ((5.0, 11.0), (5.0, 21.0))
RADIUS = 2.9


def pixels():
    """(x, y, ink) of each pixel of the digit; none is quite white, so that the grid shows."""
    for row, line in enumerate(DIGIT):
        for column, tenths in enumerate(line.split(".")):
            yield LEFT + column * PITCH, TOP + row * PITCH, max(0.14, int(tenths) / 9)


def shapes():
    """The drawing as SVG elements: `latent` is the class of the dots, the rest takes the ink."""
    dots = [f'<circle class="latent" cx="{x:g}" cy="{y:g}" r="{RADIUS}"/>' for x, y in DOTS]
    squares = [
        f'<rect x="{x:g}" y="{y:g}" width="{PIXEL}" height="{PIXEL}" rx=".7" opacity="{ink:.2g}"/>'
        for x, y, ink in pixels()
    ]
    return "".join(dots + squares)


def svg(title):
    """The mark as a file of its own, in light or dark colours by the reader's setting."""
    style = (
        f"svg{{fill:{INK}}}.latent{{fill:{LATENT}}}"
        f"@media(prefers-color-scheme:dark){{svg{{fill:{PAPER}}}.latent{{fill:{LATENT_DARK}}}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" role="img">'
        f"<title>{title}</title><style>{style}</style>{shapes()}</svg>\n"
    )


def picture(size, scale=8):
    """The mark as an image of size x size pixels, on paper, drawn larger and scaled down."""
    unit = size * scale / 32
    paper, ink, latent = ((251, 250, 247), (51, 50, 46), (191, 96, 18))
    image = Image.new("RGB", (size * scale, size * scale), paper)
    draw = ImageDraw.Draw(image)
    for x, y in DOTS:
        box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
        draw.ellipse([edge * unit for edge in box], fill=latent)
    for x, y, share in pixels():
        colour = tuple(round(p + (i - p) * share) for p, i in zip(paper, ink, strict=True))
        box = [edge * unit for edge in (x, y, x + PIXEL, y + PIXEL)]
        draw.rounded_rectangle(box, radius=0.7 * unit, fill=colour)
    return image.resize((size, size), Image.Resampling.LANCZOS)


def main():
    """Write all of them."""
    (BOOK / "assets/logo.svg").write_text(svg("From Latents to Images"))
    picture(96).save(BOOK / "assets/favicon.png", optimize=True)
    (BOOK / "root").mkdir(exist_ok=True)
    picture(48).save(BOOK / "root/favicon.ico", sizes=[(16, 16), (32, 32), (48, 48)])
    (BOOK / "templates/mark.html").write_text(
        "{# Made by tools/make_marks.py. #}\n"
        '<svg viewBox="0 0 32 32" width="32" height="32" fill="currentColor" '
        f'aria-hidden="true" focusable="false">{shapes()}</svg>\n'
    )


if __name__ == "__main__":
    main()
