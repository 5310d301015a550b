"""The one colour that a person would name for a picture."""

from PIL import Image

from .geometry import fit

SAMPLE = 64  # pixels on the longer side: about 4,000 votes
LOUDEST = 48  # bins that are heard; the rest of a noisy picture's 512 can't change the answer much
BITS = 3  # of each channel that make a bin: 8 x 8 x 8
REACH = 40  # 0..255; two bins this close in every channel are seen as one colour


def dominant_colour(image: Image.Image) -> str:
    """`#rrggbb` of the most common colour of an RGB or RGBA image, alpha counting as weight.

    Pixels vote for a coarse bin; bins of nearly the same colour are heard together, so that a colour that lies on
    the border between two bins is not outvoted by one that doesn't. No mean over the picture: red and green side
    by side give one of them, not brown.
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
    colours = sorted(colours, reverse=True)[:LOUDEST]
    if not colours:
        return "#000000"
    groups = [[other for other in colours if _near(colour, other)] for colour in colours]
    best = max(groups, key=lambda group: sum(colour[0] for colour in group))
    total = sum(colour[0] for colour in best)
    mean = (round(sum(colour[0] * colour[channel] for colour in best) / total) for channel in (1, 2, 3))
    return "#" + "".join(f"{value:02x}" for value in mean)


def _near(one: tuple[int, float, float, float], other: tuple[int, float, float, float]) -> bool:
    return all(abs(one[channel] - other[channel]) <= REACH for channel in (1, 2, 3))
