"""Diagrams of methods, drawn in code: one visual language for the whole book.

A rounded box is a network, in its family's colour, or grey when it is frozen. A circle is a random
variable or a code, shaded when it is observed; bare symbols are numbers computed without chance. A
square of pixels is an image, three of them are a set of images. A box with sharp corners is a term
of the objective, in its colour. Arrows are data; dashed arrows are gradients, in the colour of the
term they come from. Dots on a line belong to the inference, beside the model.

Each function returns a Figure with `.alt`, as those of `show` do. `draw` makes any diagram from
plain data; what is not `lit` turns grey, so that one diagram can come back.
"""

from itertools import pairwise

import numpy as np

from gencore import style
from gencore.style import COLOURS, INK, MUTED, PAPER, WIDTH, styled

SIZE, FORMULA, SYMBOL = 13.5, 16, 19  # points; a formula's letters are small for their size
RADIUS, IMAGE, LINE = 0.25, 0.54, 1.7  # inches, inches, points
LEFT, RIGHT = 0.4, 6.0  # of the bars of `bound`, inches
GREY, DIM = "#cfcabd", "#8b877c"  # lines and letters of what is not lit
SHADE = "#d5d0c3"  # what is observed
DIGIT = """......... ..*###:.. .*#::##.. .....##.. ...:##:.. ....:##.. ......#*. .#*::##:.
           ..:###:.."""  # the sign for an image, row by row


def digit(blurred=False):
    """The sign for an image: (9, 9) in [0, 1]; that of a mean image is blurred."""
    pixels = np.array([[".:*#".index(c) / 3 for c in row] for row in DIGIT.split()])
    if not blurred:
        return pixels
    for axis in (0, 1):
        pixels = (np.roll(pixels, 1, axis) + 2 * pixels + np.roll(pixels, -1, axis)) / 4
    return pixels


def mixed(colour, share, ground=PAPER):
    """`share` of a colour on the ground: its tint, without transparency."""
    from matplotlib.colors import to_hex, to_rgb

    return to_hex(share * np.array(to_rgb(colour)) + (1 - share) * np.array(to_rgb(ground)))


def size_of(kind, label):
    """Half the width and half the height in inches of a node."""
    if kind in ("code", "seen"):
        return RADIUS, RADIUS
    if kind in ("image", "mean", "set"):
        return IMAGE / 2 + (kind == "set") * 0.12, IMAGE / 2 + (kind == "set") * 0.12
    if kind == "cloud":
        return 0.42, 0.36
    bare = kind in ("value", "label")
    wide = style.text_width([label], points(kind, label)) / 2 + (0.05 if bare else 0.14)
    return wide, (0.16 if bare else 0.15 + 0.125 * len(label.split("\n")))


def points(kind, label):
    """The size of a node's words."""
    if kind in ("network", "frozen") or label.count("$") != 2 or not label.startswith("$"):
        return size_with(label)
    return FORMULA if kind in ("term", "label") else SYMBOL


def size_with(words):
    """The size of words, a little larger where they have a formula in them."""
    return SIZE + 1.5 * ("$" in words)


def draw(nodes, arrows, alt, height, gradients=(), lit=None, colours=None):
    """A diagram, 6.4 inches wide, in inches from its lower left corner.

    nodes: {name: (kind, x, y, label)}; kinds are network, frozen, code, seen, value, term, image,
    mean, set, cloud and label. arrows: (name, name), with corners (x, y) between them if the arrow
    has any. gradients: (term, name, name, ...), dashed from each name to the next, in the colour of
    the term. lit: the names that stand out, all others in grey; the gradients of a term that is lit
    stand out, too. colours: {name: family or colour} of nodes whose name has none in the book.
    """
    with styled():
        fig = style.figure(height, alt, layout="none")
        ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, height))
        ax.axis("off")
        shown = set(nodes) if lit is None else set(lit)
        if unknown := shown - set(nodes):
            raise ValueError(f"lit names {', '.join(sorted(unknown))}; nodes: {', '.join(nodes)}.")
        for first, *corners, last in sorted(arrows, key=lambda a: {a[0], a[-1]} <= shown):
            colour = INK if {first, last} <= shown else GREY
            arrow(ax, nodes[first], corners, nodes[last], colour)
        links = [(term, link) for term, *path in gradients for link in pairwise(path)]
        for i, (term, (first, last)) in enumerate(links):
            beside = 1 + sum(link == (first, last) for _, link in links[:i])  # of this many
            colour = named(term, colours) if term in shown else GREY
            arrow(ax, nodes[first], (), nodes[last], colour, beside)
        for name, node in nodes.items():
            sign(ax, *node, named(name, colours), name in shown)
    return fig


def named(name, colours=None):
    """The colour of a node: that of its name, or what `colours` says; else ink."""
    family = (colours or {}).get(name, name)
    return COLOURS.get(family, family if family.startswith("#") else INK)


def arrow(ax, first, corners, last, colour, beside=0):
    """From one node's edge to another's; a gradient runs beside the line, as the 1st, 2nd, ..."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points = [np.array(p, float) for p in (first[1:3], *corners, last[1:3])]
    ways = [b - a for a, b in pairwise(points)]
    ways = [way / np.hypot(*way) for way in ways]
    aside = 0.1 * beside
    points[0] = points[0] + ways[0] * edge(first, ways[0], aside)
    points[-1] = points[-1] - ways[-1] * edge(last, ways[-1], aside)
    points = [p + aside * np.array([-ways[0][1], ways[0][0]]) for p in points]
    look = {"arrowstyle": "-|>,head_length=4.5,head_width=2.6", "mutation_scale": 1}
    ax.add_patch(FancyArrowPatch(
        path=Path(points), color=colour, lw=LINE if beside else 1.4, shrinkA=0, shrinkB=0,
        ls=(0, (2.6, 1.6)) if beside else "-", capstyle="butt", joinstyle="round", **look,
    ))  # fmt: skip


def edge(node, way, aside):
    """How far from a node's centre its edge lies, with a little air, in a direction."""
    kind, _, _, label = node
    wide, tall = size_of(kind, label)
    if kind in ("code", "seen"):
        return np.sqrt(wide**2 - aside**2) + 0.03
    x, y = np.abs(way)
    return min(wide / x if x > 1e-9 else 9, tall / y if y > 1e-9 else 9) + 0.03


def sign(ax, kind, x, y, label, colour, lit):
    """One node: its shape and its words."""
    wide, tall = size_of(kind, label)
    colour, words = (colour, INK) if lit else (GREY, DIM)
    if kind in ("image", "mean", "set"):
        images(ax, kind, x, y, lit, colour)
    elif kind == "cloud":
        cloud(ax, x, y, colour)
    else:
        outline(ax, kind, (x, y), (wide, tall), colour)
        ax.text(x, y, label, size=points(kind, label), color=words, ha="center", va="center",
                linespacing=1.35)  # fmt: skip
        return
    ax.text(x, y + tall + 0.07, label, size=points(kind, label), color=words, ha="center")


def outline(ax, kind, place, half, colour):
    """The shape around a node's words."""
    from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

    (x, y), (wide, tall) = place, half
    corner, fill = (x - wide, y - tall), mixed(colour, 0.13)
    if kind in ("code", "seen"):
        shade = PAPER if kind == "code" else SHADE if colour != GREY else mixed(GREY, 0.4)
        ax.add_patch(Circle(place, RADIUS, fc=shade, ec=colour, lw=LINE))
    elif kind in ("network", "frozen"):
        colour, fill = (DIM, mixed(DIM, 0.2)) if kind == "frozen" else (colour, fill)
        ax.add_patch(FancyBboxPatch(corner, 2 * wide, 2 * tall, fc=fill, ec=colour, lw=LINE,
                                    boxstyle="round,pad=0,rounding_size=0.13"))  # fmt: skip
    elif kind == "term":
        ax.add_patch(Rectangle(corner, 2 * wide, 2 * tall, fc=fill, ec=colour, lw=LINE))


def images(ax, kind, x, y, lit, colour):
    """An image as a square of pixels; a set of images as three of them."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    pixels, half = digit(kind == "mean"), IMAGE / 2
    for above, shift in enumerate((0.12, 0, -0.12) if kind == "set" else (0,)):
        left, low = x + shift - half, y + shift - half
        tone = np.array([[mixed("#ffffff", 0.94 * p, "#000000") for p in row] for row in pixels])
        if not lit:
            tone = np.array([[mixed(c, 0.28) for c in row] for row in tone])
        tone, box = [[to_rgb(c) for c in row] for row in tone], (left, left + IMAGE)
        ax.imshow(tone, aspect="auto", zorder=2 + above, interpolation="nearest",
                  extent=(*box, low, low + IMAGE))  # fmt: skip
        ax.add_patch(Rectangle((left, low), IMAGE, IMAGE, fill=False, ec=colour, lw=LINE,
                               zorder=2 + above))  # fmt: skip


def cloud(ax, x, y, colour):
    """Points in a plane, the features of a set: those of real images are spread more evenly."""
    points = np.random.default_rng(4).normal(size=(46, 2)).clip(-2, 2) * (0.19, 0.15)
    if colour != COLOURS["real"]:
        points = points @ np.array([[0.75, 0.4], [-0.35, 0.5]])
    ax.scatter(*(points + (x, y)).T, s=11, color=colour, lw=0)


def autoencoder(error="reconstruction\nerror"):
    """Encoder, code, decoder, and the error that trains both networks, named by `error`."""
    nodes = {
        "x": ("image", 0.5, 1.75, "$x$"), "encoder": ("network", 1.75, 1.75, "encoder"),
        "z": ("code", 2.95, 1.75, "$z$"), "decoder": ("network", 4.15, 1.75, "decoder"),
        "y": ("mean", 5.45, 1.75, r"$\hat x$"),
        "rec": ("term", 5.45, 0.6, error),
    }  # fmt: skip
    arrows = [("x", "encoder"), ("encoder", "z"), ("z", "decoder"), ("decoder", "y"),
              ("y", "rec"), ("x", (0.5, 0.6), "rec")]  # fmt: skip
    alt = "Autoencoder: image, encoder, code z, decoder, reconstruction; gradients run back."
    return draw(nodes, arrows, alt, 2.5, [("rec", "rec", "y", "decoder", "z", "encoder")],
                colours={"encoder": "ae", "decoder": "ae"})  # fmt: skip


PARTS = {  # of the VAE, as `lit` names them
    "encoder": ("x", "encoder", "q"),
    "sample": ("q", "eps", "noise", "z", "drawn"),
    "decoder": ("z", "decoder", "pi"),
    "rec": ("x", "pi", "rec"),
    "kl": ("q", "kl"),
}


def vae(lit=None, output=r"\pi"):
    """The variational autoencoder with its two terms and their gradients.

    lit: "encoder", "sample", "decoder", "rec" or "kl", the part that the text is at. output: the
    symbol of what the decoder computes.
    """
    if lit is not None and lit not in PARTS:
        raise ValueError(f"lit is {lit!r}; it can be {', '.join(PARTS)}.")
    nodes = {
        "x": ("image", 0.5, 1.85, "$x$"), "encoder": ("network", 1.6, 1.85, "encoder"),
        "q": ("value", 2.65, 1.85, r"$\mu,\,s$"), "z": ("code", 3.5, 1.85, "$z$"),
        "noise": ("label", 2.65, 2.85, r"$\mathcal{N}(0,I)$"),
        "eps": ("code", 3.5, 2.85, r"$\epsilon$"),
        "drawn": ("label", 4.6, 2.4, r"$z=\mu+s\odot\epsilon$"),
        "decoder": ("network", 4.6, 1.85, "decoder"), "pi": ("mean", 5.7, 1.85, f"${output}$"),
        "kl": ("term", 2.65, 0.75, r"$\mathrm{KL}(q(z|x)\,\Vert\,p(z))$"),
        "rec": ("term", 5.7, 0.75, r"$\log p(x|z)$"),
    }  # fmt: skip
    line = ("x", "encoder", "q", "z", "decoder", "pi", "rec")
    arrows = [*pairwise(line), ("noise", "eps"), ("eps", "z"), ("q", "kl"),
              ("x", (0.5, 0.2), (5.7, 0.2), "rec")]  # fmt: skip
    gradients = [("rec", "rec", "pi", "decoder", "z", "q", "encoder"), ("kl", "kl", "q", "encoder")]
    alt = "VAE: encoder, mean and deviation, a draw z, decoder; two terms with their gradients."
    if lit:
        alt = f"The VAE's diagram; lit is {lit}: {', '.join(PARTS[lit])}."
    return draw(nodes, arrows, alt, 3.2, gradients, PARTS[lit] if lit else None,
                {"encoder": "vae", "decoder": "vae"})  # fmt: skip


def generation(family="vae", source="p(z)"):
    """How a decoder draws: a code from a density, one pass, an image."""
    nodes = {
        "source": ("label", 1.1, 0.6, rf"$z\sim {source}$"), "z": ("code", 2.5, 0.6, "$z$"),
        "decoder": ("network", 3.9, 0.6, "decoder"), "x": ("mean", 5.4, 0.6, "image"),
    }  # fmt: skip
    arrows = [("source", "z"), ("z", "decoder"), ("decoder", "x")]
    alt = "A code is drawn from a density; the decoder turns it into an image in one pass."
    return draw(nodes, arrows, alt, 1.25, colours={"decoder": family})


def graphical_model():
    """The latent-variable model: N images, each with a code of its own; dotted is the inference."""
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    nodes = {
        "phi": ("value", 1.0, 1.85, r"$\phi$"), "theta": ("value", 5.4, 0.7, r"$\theta$"),
        "z": ("code", 3.2, 1.85, "$z$"), "x": ("seen", 3.2, 0.7, "$x$"),
        "N": ("label", 4.45, 0.35, "$N$"),
        "p": ("label", 3.82, 1.28, r"$p_\theta(x|z)$"),
        "q": ("label", 2.25, 1.28, r"$q_\phi(z|x)$"),
    }  # fmt: skip
    alt = "Graphical model: a code z gives an image x, N times; theta and phi stand outside."
    fig = draw(nodes, [("z", "x"), ("theta", "x")], alt, 2.4)
    ax, look = fig.axes[0], {"arrowstyle": "-|>,head_length=4.5,head_width=2.6", "lw": 1.4}
    ax.add_patch(FancyBboxPatch((1.6, 0.15), 3.1, 2.1, fill=False, ec=MUTED, lw=1.2,
                                boxstyle="round,pad=0,rounding_size=0.1"))  # fmt: skip
    for start, end, bend in (((1.16, 1.85), (2.93, 1.85), 0), ((3.02, 0.9), (3.02, 1.65), -0.35)):
        ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", color=INK,
                                     ls=(0, (0.6, 1.8)), capstyle="round", shrinkA=0, shrinkB=0,
                                     mutation_scale=1, **look))  # fmt: skip
    return fig


def bound(rec=None, kl=None, log_p=None, exact=False):
    """log p(x) = ELBO + gap and rec = ELBO + kl, as levels on one axis that ends at 0 nats.

    With numbers, in nats per image, it is drawn to scale and quotes them; without, it is a sketch.
    exact: log_p is log p(x) itself, and not a lower bound of it.
    """
    known = None not in (rec, kl, log_p)
    rec, kl, log_p = (rec, kl, log_p) if known else (-0.64, 0.36, -0.84)
    elbo = rec - kl
    if not (elbo <= log_p <= 0 <= kl and rec <= 0):
        raise ValueError("rec - kl must not exceed log_p; neither it nor rec is positive, kl is.")
    alt = "Two bars from the ELBO to 0 nats: the gap and log p(x); kl and rec."
    with styled():
        fig = style.figure(3.0, alt, layout="none")
        ax = fig.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(0, 3.0))
        ax.axis("off")

        def said(name, value, sign=""):
            return f"{name}  {sign}{style.text(float(value))}" if known else name

        ax.text(LEFT, 2.7, said("ELBO", elbo), size=SIZE, weight="bold")
        ax.text(RIGHT, 2.7, "0 nats", size=SIZE, ha="right", color=MUTED)
        ax.plot((LEFT, LEFT), (0.3, 2.6), color=INK, lw=1.4)
        ax.plot((RIGHT, RIGHT), (0.3, 2.6), color=MUTED, lw=1.4)
        wide, sure = RIGHT - LEFT, "" if exact else "≥ "
        parts = said("gap", log_p - elbo, sure), said(r"$\log p(x)$", log_p, sure)
        text = r"$\log p(x)=\mathrm{ELBO}+\mathrm{KL}(q(z|x)\,\Vert\,p(z|x))$"
        level(ax, 1.72, wide * (1 - log_p / elbo), text, parts, (MUTED, INK))
        text = r"$\mathrm{rec}=\mathrm{ELBO}+\mathrm{KL}(q(z|x)\,\Vert\,p(z))$"
        colours = COLOURS["kl"], COLOURS["rec"]
        level(ax, 0.56, wide * (1 - rec / elbo), text, (said("kl", kl), said("rec", rec)), colours)
    return fig


def level(ax, y, length, equation, names, colours):
    """A bar of `bound`: a part of this length, the rest, and above them what they say."""
    from matplotlib.patches import Rectangle

    ends = (LEFT, LEFT + length, RIGHT)
    for left, right, colour in zip(ends, ends[1:], colours, strict=False):
        fill = mixed(colour, 0.13) if colour != MUTED else PAPER
        ax.add_patch(Rectangle((left, y), right - left, 0.42, lw=LINE, ec=colour, fc=fill))
    for i, name in enumerate(names):
        at, side = (ends[i] + ends[i + 1]) / 2, "center"
        size = size_with(name)
        fits = style.text_width([name], size) + 0.16 < ends[i + 1] - ends[i]
        if not fits:  # below its end of the bar
            at, side = ((LEFT + 0.08, "left"), (RIGHT - 0.08, "right"))[i]
        ax.text(at, y + (0.2 if fits else -0.15), name, size=size, ha=side, va="center")
    ax.text(LEFT + 0.08, y + 0.52, equation, size=FORMULA)


def measuring():
    """Two sets of images, one frozen network, two clouds of features, a distance between them."""
    nodes = {
        "real": ("set", 0.75, 1.98, "real"), "vae": ("set", 0.75, 0.58, "generated"),
        "network": ("frozen", 2.45, 1.28, "frozen\nnetwork"),
        "cloud": ("cloud", 4.15, 1.98, "features"), "other": ("cloud", 4.15, 0.58, "features"),
        "distance": ("term", 5.6, 1.28, "distance"),
    }  # fmt: skip
    arrows = [("real", "network"), ("vae", "network"), ("network", "cloud"),
              ("network", "other"), ("cloud", "distance"), ("other", "distance")]  # fmt: skip
    alt = "Two sets of images pass one frozen network; a distance compares their features."
    return draw(nodes, arrows, alt, 2.75, colours={"cloud": "real", "other": "vae"})
