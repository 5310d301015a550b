"""The test photo: rotated, geotagged, and with a profile that swaps the colours."""

import io
import struct

from PIL import Image

SIZE = (1600, 1200)  # upright, in pixels; stored sideways
ORIENTATION, GPS, MAKER = 0x0112, 0x8825, 0x010F
TURNED_LEFT = 6  # EXIF orientation: viewers rotate it 90 degrees clockwise
SIGNS = (b"IMGSVC-SMOKE-CAMERA", b"IMGSVC-SMOKE-XMP", b"IMGSVC-SMOKE-COMMENT", b"IMGSVC-SMOKE-PROFILE")

# Areas of the upright picture (left, top, right, bottom, in parts of its sides) and their colours in sRGB: every turn
# and flip looks different. The first covers most of it.
LEFT, TOP, BOTTOM = (200, 60, 40), (40, 170, 80), (60, 60, 190)
AREAS = {(0.0, 0.0, 0.6, 1.0): LEFT, (0.6, 0.0, 1.0, 0.5): TOP, (0.6, 0.5, 1.0, 1.0): BOTTOM}

# sRGB's colorants adapted to D50 (IEC 61966-2-1, ICC.1) as X, Y, Z.
RED, GREEN, BLUE = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)
D50 = (0.9642, 1.0, 0.8249)


def photo() -> bytes:
    """A JPEG whose samples are in the order green, blue, red, as its profile declares: ignoring the profile shows."""
    picture = Image.new("RGB", SIZE)
    for (left, top, right, bottom), (red, green, blue) in AREAS.items():
        box = (int(left * SIZE[0]), int(top * SIZE[1]), int(right * SIZE[0]), int(bottom * SIZE[1]))
        picture.paste((green, blue, red), box)
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_LEFT
    exif[MAKER] = SIGNS[0].decode()
    exif.get_ifd(GPS).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    buffer = io.BytesIO()
    picture.transpose(Image.Transpose.ROTATE_90).save(
        buffer, "JPEG", quality=92, exif=exif, xmp=SIGNS[1], comment=SIGNS[2], icc_profile=profile()
    )
    return buffer.getvalue()


def profile() -> bytes:
    """An ICC profile (ICC.1:2001-04): sRGB with its first sample green, its second blue, its third red."""
    text = SIGNS[3] + b"\0"
    tags = {
        b"desc": struct.pack(">4sII", b"desc", 0, len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0" + b"none\0",
        b"wtpt": _xyz(D50),
        **{name + b"XYZ": _xyz(colorant) for name, colorant in ((b"r", GREEN), (b"g", BLUE), (b"b", RED))},
        **{name + b"TRC": _curve() for name in (b"r", b"g", b"b")},
    }
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _xyz(colour: tuple[float, float, float]) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(value * 65_536) for value in colour))


def _curve() -> bytes:
    """The transfer curve of sRGB, at 256 points."""
    points = [value / 255 for value in range(256)]
    linear = (point / 12.92 if point <= 0.04045 else ((point + 0.055) / 1.055) ** 2.4 for point in points)
    return struct.pack(">4sII", b"curv", 0, 256) + struct.pack(">256H", *(round(value * 65_535) for value in linear))
