"""Builds one ICC profile from the chunks that describe the colours of a PNG (PNG third edition, W3C, 4.3).

Formulae: white points are adapted with the Bradford transform (ICC.1:2022, annex E). Primaries and transfer functions
by code point are those of ITU-T H.273. PQ and HLG (ITU-R BT.2100) are tone-mapped with the curve of ITU-R BT.2446-1,
method C, applied to each channel: HDR reference white (203 cd/m², BT.2408) becomes nearly white.
"""

import math
import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

Pair = tuple[float, float]
Curve = Callable[[float], float]  # an encoded sample, 0 to 1, into linear light, 0 to 1
Matrix = list[list[float]]


class Primaries(NamedTuple):
    """Chromaticities (CIE 1931 x, y)."""

    white: Pair
    red: Pair
    green: Pair
    blue: Pair


D65 = (0.3127, 0.3290)
SRGB = Primaries(D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
PRIMARIES: Mapping[int, Primaries] = {  # H.273, table 2
    1: SRGB,
    4: Primaries((0.310, 0.316), (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Primaries(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: Primaries(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: Primaries(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Primaries((0.314, 0.351), (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: Primaries(D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
D50 = (0.9642, 1.0, 0.8249)  # XYZ of the white that all profiles refer to
BRADFORD = [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
POINTS = 4096  # of a curve
SRGB_GAMMAS = range(45_000, 46_000)  # around 45455, which writers put there for the curve of sRGB
GAMMAS = range(1_000, 1_000_001)  # that are believed; others are nonsense
REMEMBERED = 16  # curves and profiles


def profile_of(chunks: Mapping[bytes, bytes], embedded: bytes | None, *, grey: bool) -> bytes | None:
    """Return the ICC profile of the samples; None if they are sRGB or have no usable description.

    `chunks` are the bodies of cICP, sRGB, gAMA and cHRM, `embedded` is the profile of iCCP.
    """
    if (described := _by_code_points(chunks.get(b"cICP", b""))) is not None:
        return _profile(*described, grey=grey)
    if embedded is not None:
        return embedded
    if b"sRGB" in chunks:
        return None
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big")
    primaries = _by_chromaticities(chunks.get(b"cHRM", b""))
    if gamma not in GAMMAS or gamma in SRGB_GAMMAS:
        return _profile(primaries, srgb, grey=False) if primaries and not grey else None
    return _profile(primaries or SRGB, power(100_000 / gamma), grey=grey)


def _by_code_points(body: bytes) -> tuple[Primaries, Curve] | None:
    """Return None for unknown code points, for YCbCr and for the narrow range (PNG third edition, 11.3.2.6)."""
    if len(body) != 4 or body[2:] != b"\0\1" or body[0] not in PRIMARIES or body[1] not in CURVES:
        return None
    return PRIMARIES[body[0]], CURVES[body[1]]


def _by_chromaticities(body: bytes) -> Primaries | None:
    if len(body) != 32:
        return None
    values = [value / 100_000 for value in struct.unpack(">8I", body)]
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if not all(0 <= x <= 1 and 0 < y <= 1 and x + y <= 1 for x, y in pairs):
        return None
    primaries = Primaries(*pairs)
    return primaries if all(share > 0 for share in _shares(primaries) or (0.0,)) else None


def srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@lru_cache(REMEMBERED)
def power(exponent: float) -> Curve:
    return lambda value: value**exponent


def bt709(value: float) -> float:
    return value / 4.5 if value < 0.081 else ((value + 0.099) / 1.099) ** (1 / 0.45)


def pq(value: float) -> float:
    """BT.2100, table 4."""
    powered = value ** (1 / 78.84375)
    light = max(powered - 0.8359375, 0) / (18.8515625 - 18.6875 * powered)
    return _on_a_screen(10_000 * light ** (1 / 0.1593017578125))


def hlg(value: float) -> float:
    """BT.2100, table 5, for a nominal peak of 1,000 cd/m², whose system gamma is 1.2."""
    scene = value**2 / 3 if value <= 0.5 else (math.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return _on_a_screen(1_000 * scene**1.2)


def _on_a_screen(nits: float) -> float:
    """BT.2446-1, 6.1.5 (method C): linear below an inflection point, logarithmic above, clipped at 1 (white)."""
    inflection = 58.5 / 0.83802
    shown = 0.83802 * nits if nits < inflection else 15.09968 * math.log(nits / inflection - 0.74204) + 78.99439
    return min(shown / 100, 1.0)


CURVES: Mapping[int, Curve] = {  # H.273, table 3
    1: bt709,
    4: power(2.2),
    5: power(2.8),
    6: bt709,
    8: power(1.0),
    13: srgb,
    14: bt709,
    15: bt709,
    16: pq,
    18: hlg,
}


@lru_cache(REMEMBERED)
def _profile(primaries: Primaries, curve: Curve, *, grey: bool) -> bytes | None:
    """Build a version 2 display profile (ICC.1:2001): three primaries and a curve, or only a curve for grey."""
    if curve is srgb and (grey or primaries == SRGB):
        return None
    points = [round(65535 * curve(index / (POINTS - 1))) for index in range(POINTS)]
    shape = b"curv" + bytes(4) + struct.pack(f">I{POINTS}H", POINTS, *points)
    tags = {b"wtpt": _xyz(D50)}
    if grey:
        return _file(b"GRAY", tags | {b"kTRC": shape})
    colours = _colours(primaries)
    assert colours  # `_by_chromaticities` lets nothing else pass
    tags |= {name + b"XYZ": _xyz(colour) for name, colour in zip((b"r", b"g", b"b"), colours, strict=True)}
    return _file(b"RGB ", tags | {name + b"TRC": shape for name in (b"r", b"g", b"b")})


def _file(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    bodies, table, at = b"", b"", 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    for name, body in tags.items():
        if body not in places:
            places[body] = at + len(bodies)
            bodies += body + bytes(-len(body) % 4)
        table += struct.pack(">4sII", name, places[body], len(body))
    size = at + len(bodies)
    head = struct.pack(">I4xI4s4s4s12x4s28x3I", size, 0x02400000, b"mntr", space, b"XYZ ", b"acsp", *map(_fixed, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def _xyz(colour: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *map(_fixed, colour))


def _fixed(value: float) -> int:
    return round(value * 65536)


def _colours(primaries: Primaries) -> list[tuple[float, ...]] | None:
    """Return the XYZ values of the three primaries, adapted to D50; None if the primaries lie on a line."""
    shares = _shares(primaries)
    if shares is None:
        return None
    seen = _times(BRADFORD, _point(primaries.white))
    wanted = _times(BRADFORD, D50)
    back = _inverse(BRADFORD)
    assert back
    colours = []
    for chromaticity, share in zip(primaries[1:], shares, strict=True):
        cones = _times(BRADFORD, tuple(share * part for part in _point(chromaticity)))
        colours.append(_times(back, tuple(c * w / s for c, w, s in zip(cones, wanted, seen, strict=True))))
    return colours


def _shares(primaries: Primaries) -> tuple[float, ...] | None:
    """Return how much of each primary makes white; None if the primaries lie on a line."""
    columns = [_point(pair) for pair in primaries[1:]]
    inverse = _inverse([list(row) for row in zip(*columns, strict=True)])
    return _times(inverse, _point(primaries.white)) if inverse else None


def _point(pair: Pair) -> tuple[float, float, float]:
    x, y = pair
    return x / y, 1.0, (1 - x - y) / y


def _times(matrix: Matrix, vector: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _inverse(matrix: Matrix) -> Matrix | None:
    (a, b, c), (d, e, f), (g, h, i) = matrix
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) < 1e-9:
        return None
    cofactors = [
        [e * i - f * h, c * h - b * i, b * f - c * e],
        [f * g - d * i, a * i - c * g, c * d - a * f],
        [d * h - e * g, b * g - a * h, a * e - b * d],
    ]
    return [[value / determinant for value in row] for row in cofactors]
