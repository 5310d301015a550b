"""The centre of attention: where a crop is made if no focal point is set. A measure of pixels, without a model.

Each pixel of a small copy gets a score from three things that draw the eye:

- detail: how much its brightness differs from that of its four neighbours (the Laplacian);
- skin: how near its colour is to the direction of human skin in RGB, which is that of light and dark skin;
- vividness: its saturation beyond that of ordinary things, unless it is nearly black or white.

The scores are summed over a window of a third of the shorter side, so that a face or a flower counts more than a
strong line. A window near the edge counts less, down to 40 percent in the corners: photographers keep what matters away
from them. The centre is that of the window with the highest sum; of a picture without any difference, the middle.
"""

from itertools import accumulate

from PIL import Image

from .geometry import Point, fit

SAMPLE = 96  # pixels on the longer side
SKIN = (0.78, 0.57, 0.44)  # the direction in RGB
SKIN_NEAR, VIVID_FROM = 0.975, 0.6  # of 1: below, a colour counts for nothing
DETAIL, SKIN_WEIGHT, VIVID = 1.0, 0.3, 0.2
DARK, BRIGHT = 40, 235  # 0..255: outside, a colour says nothing
WINDOW = 3  # of the shorter side: one in so many
CORNER = 0.4  # of a window's sum that is left in a corner


def centre_of_attention(image: Image.Image) -> Point:
    """The centre of an RGB or RGBA image, as parts (0..1) of its width and height. Transparent pixels count nothing."""
    sample = image.resize(fit(image.size, SAMPLE), Image.Resampling.BOX).convert("RGBA")
    width, height = sample.size
    scores = _scores(sample)
    if not any(scores):
        return 0.5, 0.5
    sums = _sums(scores, width)
    side = max(1, min(width, height) // WINDOW)
    best = max(
        (_windowed(sums, x, y, side) * _weight((x + side / 2) / width, (y + side / 2) / height), -x, -y)
        for y in range(height - side + 1)
        for x in range(width - side + 1)
    )
    return (side / 2 - best[1]) / width, (side / 2 - best[2]) / height


def _weight(x: float, y: float) -> float:
    distance = min(1.0, ((2 * x - 1) ** 2 + (2 * y - 1) ** 2) / 2)
    return 1 - (1 - CORNER) * distance


def _scores(sample: Image.Image) -> list[float]:
    width, height = sample.size
    grey = sample.convert("L").tobytes()
    pixels = sample.tobytes()
    scores = []
    for at in range(width * height):
        alpha = pixels[4 * at + 3]
        if not alpha:
            scores.append(0.0)
            continue
        x, y = at % width, at // width
        around = (
            grey[at - (x > 0)] + grey[at + (x < width - 1)]
            + grey[at - width * (y > 0)] + grey[at + width * (y < height - 1)]
        )  # fmt: skip
        detail = min(255, abs(4 * grey[at] - around)) / 255
        scores.append((DETAIL * detail + _of_colour(*pixels[4 * at : 4 * at + 3])) * alpha / 255)
    return scores


def _of_colour(red: int, green: int, blue: int) -> float:
    most, least = max(red, green, blue), min(red, green, blue)
    if not DARK <= (red + green + blue) / 3 <= BRIGHT:
        return 0.0
    length = (red * red + green * green + blue * blue) ** 0.5
    near = (red * SKIN[0] + green * SKIN[1] + blue * SKIN[2]) / length / _SKIN_LENGTH
    # Greys are near in direction too: skin has a little colour of its own.
    saturation = (most - least) / most
    skin = max(0.0, near - SKIN_NEAR) / (1 - SKIN_NEAR) if 0.15 < saturation < 0.75 and red == most else 0.0
    vivid = max(0.0, saturation - VIVID_FROM) / (1 - VIVID_FROM)
    return (SKIN_WEIGHT * skin * skin + VIVID * vivid) / 2


_SKIN_LENGTH = sum(part * part for part in SKIN) ** 0.5


def _sums(scores: list[float], width: int) -> list[list[float]]:
    """The summed-area table, with a row and a column of zeros."""
    table = [[0.0] * (width + 1)]
    for start in range(0, len(scores), width):
        row = accumulate(scores[start : start + width], initial=0.0)
        table.append([here + above for here, above in zip(row, table[-1], strict=True)])
    return table


def _windowed(sums: list[list[float]], x: int, y: int, side: int) -> float:
    return sums[y + side][x + side] - sums[y][x + side] - sums[y + side][x] + sums[y][x]
