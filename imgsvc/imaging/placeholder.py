"""The placeholder of a picture: what a page shows before the first variant has arrived."""

from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from math import cos, floor, pi
from operator import mul

from PIL import Image

from ..lazy_dataclass import dataclass
from .geometry import fit

SAMPLE = 32  # pixels on the longer side: the fastest of the hash's waves, three periods a side, is then seen as it is
ROUNDING = 1e-9  # amplitudes below are what sums of floats leave of nothing
WAVES, ALPHA_WAVES = 7, 5  # of brightness along the longer side, without alpha and with it
COLOUR_WAVES = 3


@dataclass(frozen=True, slots=True)
class _Waves:
    """A channel as cosines: its mean, the largest amplitude, and all amplitudes as 0..1 of it (0.5: none)."""

    mean: float
    scale: float
    amplitudes: Sequence[float]


def thumbhash(image: Image.Image) -> str:
    """The ThumbHash (evanw.github.io/thumbhash) of an RGB or RGBA image, in base64: 17 to 25 bytes.

    It holds the colours in a blur, the aspect ratio, and alpha if any pixel of the sample is transparent.
    """
    sample = image.resize(fit(image.size, SAMPLE), Image.Resampling.BOX).convert("RGBA")
    width, height = sample.size
    *colours, alpha = (channel.tobytes() for channel in sample.split())
    has_alpha = min(alpha) < 255
    red, green, blue = (_on_their_mean(colour, alpha) if has_alpha else colour for colour in colours)
    brightness = [(r + g + b) / 765 for r, g, b in zip(red, green, blue, strict=True)]
    yellow = [(r + g) / 510 - b / 255 for r, g, b in zip(red, green, blue, strict=True)]
    rosy = [(r - g) / 255 for r, g in zip(red, green, strict=True)]
    most = ALPHA_WAVES if has_alpha else WAVES
    across, down = (max(1, _whole(most * side / max(sample.size))) for side in sample.size)
    light = _waves(brightness, sample.size, max(3, across), max(3, down))
    p, q = (_waves(channel, sample.size, COLOUR_WAVES, COLOUR_WAVES) for channel in (yellow, rosy))
    landscape = width > height
    head = _whole(63 * light.mean) | _whole(31.5 + 31.5 * p.mean) << 6 | _whole(31.5 + 31.5 * q.mean) << 12
    head |= _whole(31 * light.scale) << 18 | has_alpha << 23
    head |= (down if landscape else across) << 24 | _whole(63 * p.scale) << 27 | _whole(63 * q.scale) << 33
    found = [*(head | landscape << 39).to_bytes(5, "little")]
    channels = [light, p, q]
    if has_alpha:
        opacity = _waves([value / 255 for value in alpha], sample.size, ALPHA_WAVES, ALPHA_WAVES)
        found.append(_whole(15 * opacity.mean) | _whole(15 * opacity.scale) << 4)
        channels.append(opacity)
    halves = [_whole(15 * amplitude) for channel in channels for amplitude in channel.amplitudes]
    found += [low | high << 4 for low, high in zip(halves[::2], [*halves[1::2], 0], strict=False)]
    return b64encode(bytes(found)).decode()


def _whole(value: float) -> int:
    return floor(value + 0.5)


def _on_their_mean(colour: bytes, alpha: bytes) -> list[float]:
    """The colour on a ground of its mean, so that the edge of what is transparent gives no wave."""
    mean = sum(map(mul, colour, alpha)) / (sum(alpha) or 1)
    return [(value * opacity + mean * (255 - opacity)) / 255 for value, opacity in zip(colour, alpha, strict=True)]


def _waves(channel: Sequence[float], size: tuple[int, int], across: int, down: int) -> _Waves:
    """The lower triangle of a discrete cosine transform, first along the rows and then along the columns."""
    width, height = size
    rows = [channel[start : start + width] for start in range(0, width * height, width)]
    columns = [[sum(map(mul, row, wave)) for row in rows] for wave in _cosines(width, across)]
    mean, *waves = (
        sum(map(mul, columns[x], wave)) / (width * height)
        for y, wave in enumerate(_cosines(height, down))
        for x in range(across)
        if x * down < across * (down - y)
    )
    scale = max(map(abs, waves))
    return _Waves(mean, scale, [0.5 + 0.5 * wave / scale if scale > ROUNDING else 0.0 for wave in waves])


@lru_cache(maxsize=256)
def _cosines(length: int, count: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(cos(pi / length * wave * (at + 0.5)) for at in range(length)) for wave in range(count))
