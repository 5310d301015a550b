"""The dominant colour of a picture."""

import struct
from collections import defaultdict

from PIL import Image

from .geometry import fit

SAMPLE = 64  # pixels on the longer side: about 4,000 votes
MOST_POPULATED = 48  # bins that are compared; the rest of a noisy picture's 512 hardly change the result
TOP = 0b1110_0000  # the bits of each channel that select a bin: 8 x 8 x 8 bins
FIELD = (1 << 24) - 1  # bits of a channel in the number that stands for a pixel
COLOURS = TOP | TOP << 24 | TOP << 48
ALIKE = COLOURS | 0xFF << 56  # and its alpha
REACH = 40  # 0..255; bins closer than this in every channel count as one colour

Bin = tuple[int, float, float, float]  # weight, and the mean of red, green and blue


def dominant_colour(image: Image.Image) -> str:
    """`#rrggbb` of the most common colour of an RGB or RGBA image, alpha counting as weight.

    Each pixel votes for a coarse bin. The votes of bins with nearly the same colour are added up, so that a colour on
    the border between two bins is not outvoted by a colour inside one. The result is never an average: a picture that
    is half red and half green gives one of them, not brown.
    """
    sample = image.resize(fit(image.size, SAMPLE), Image.Resampling.BOX).convert("RGBA")
    colours = sorted(bins_of(sample), reverse=True)[:MOST_POPULATED]
    if not colours:
        return "#000000"
    groups = [_near(colour, colours) for colour in colours]
    best = max(groups, key=lambda group: sum(colour[0] for colour in group))
    total = sum(colour[0] for colour in best)
    mean = (round(sum(colour[0] * colour[channel] for colour in best) / total) for channel in (1, 2, 3))
    return "#" + "".join(f"{value:02x}" for value in mean)


def bins_of(sample: Image.Image) -> list[Bin]:
    """The bins that have votes.

    A pixel is one number, in which each colour has 24 bits: adding up numbers then adds up all three colours. Pixels of
    one bin and one alpha are added up first.
    """
    red, green, blue, alpha = (channel.tobytes() for channel in sample.split())
    cells = bytearray(8 * len(red))
    cells[::8], cells[3::8], cells[6::8], cells[7::8] = red, green, blue, alpha
    alike: defaultdict[int, list[int]] = defaultdict(list)
    for pixel in struct.unpack(f"<{len(red)}Q", cells):
        alike[pixel & ALIKE].append(pixel)
    bins: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for kind, pixels in alike.items():
        if opacity := kind >> 56:
            colours = sum(pixels) - (len(pixels) * opacity << 56)
            found = (len(pixels), colours & FIELD, colours >> 24 & FIELD, colours >> 48)
            votes = bins[kind & COLOURS]
            votes[:] = [vote + opacity * more for vote, more in zip(votes, found, strict=True)]
    return [(weight, red / weight, green / weight, blue / weight) for weight, red, green, blue in bins.values()]


def _near(colour: Bin, others: list[Bin]) -> list[Bin]:
    _, red, green, blue = colour
    return [
        other
        for other in others
        if -REACH <= other[1] - red <= REACH
        and -REACH <= other[2] - green <= REACH
        and -REACH <= other[3] - blue <= REACH
    ]
