"""The dominant colour of a picture."""

from PIL import Image

from .geometry import fit

SAMPLE = 64  # pixels on the longer side: about 4,000 votes
MOST_POPULATED = 48  # bins that are compared; the rest of a noisy picture's 512 hardly change the result
BITS = 3  # of each channel that select a bin: 8 x 8 x 8 bins
REACH = 40  # 0..255; bins closer than this in every channel count as one colour


def dominant_colour(image: Image.Image) -> str:
    """`#rrggbb` of the most common colour of an RGB or RGBA image, alpha counting as weight.

    Each pixel votes for a coarse bin. The votes of bins with nearly the same colour are added up, so that a colour on
    the border between two bins is not outvoted by a colour inside one. The result is never an average: a picture that
    is half red and half green gives one of them, not brown.
    """
    sample = image.resize(fit(image.size, SAMPLE), Image.Resampling.BOX).convert("RGBA")
    bins: dict[tuple[int, int, int], list[int]] = {}
    samples = iter(sample.tobytes())
    for red, green, blue, alpha in zip(samples, samples, samples, samples, strict=True):
        if alpha:
            votes = bins.setdefault((red >> 8 - BITS, green >> 8 - BITS, blue >> 8 - BITS), [0, 0, 0, 0])
            votes[0] += alpha
            votes[1] += red * alpha
            votes[2] += green * alpha
            votes[3] += blue * alpha
    colours = [(weight, red / weight, green / weight, blue / weight) for weight, red, green, blue in bins.values()]
    colours = sorted(colours, reverse=True)[:MOST_POPULATED]
    if not colours:
        return "#000000"
    groups = [[other for other in colours if _near(colour, other)] for colour in colours]
    best = max(groups, key=lambda group: sum(colour[0] for colour in group))
    total = sum(colour[0] for colour in best)
    mean = (round(sum(colour[0] * colour[channel] for colour in best) / total) for channel in (1, 2, 3))
    return "#" + "".join(f"{value:02x}" for value in mean)


def _near(one: tuple[int, float, float, float], other: tuple[int, float, float, float]) -> bool:
    return all(abs(one[channel] - other[channel]) <= REACH for channel in (1, 2, 3))
