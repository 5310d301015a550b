"""The size that a decoder of HEVC or AV1 allocates by: that of the coded sequence, whatever the container says.

Sources: ITU-T H.265, 7.3 (NAL units, sequence parameter sets); ISO/IEC 14496-15, 8.3.3 (hvcC); AV1 Bitstream & Decoding
Process Specification, 5.3 to 5.5 (open bitstream units, sequence headers); AV1 in ISO-BMFF, 2.3 (av1C).
"""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..lazy_dataclass import dataclass
from .bits import Bits
from .errors import TooLarge, Unreadable
from .isobmff import Reader
from .pieces import Piece, Pieces

SPS = 33  # type of an HEVC NAL unit
MAX_UNITS = 2_000  # of one coded picture
MOST_HEADER_BYTES = 4_096  # of one sequence header or parameter set
SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6  # types of an AV1 open bitstream unit
MAX_LAYERS = 8  # frames of one AV1 picture: four spatial layers, and some that are not shown


@dataclass(frozen=True, slots=True)
class Coded:
    """Width and height in pixels as coded, bits per sample, and samples per pixel (1, 1.5, 2 or 3)."""

    width: int
    height: int
    bits: int
    samples: float

    @property
    def pixels(self) -> int:
        return self.width * self.height


SAMPLES = {0: 1.0, 1: 1.5, 2: 2.0, 3: 3.0}  # by HEVC's chroma_format_idc


def hevc(stream: BinaryIO, configuration: bytes, data: Sequence[Piece]) -> Coded:
    """The largest of the sizes in an hvcC record and among a picture's NAL units. Raises Unreadable."""
    reader = Reader(configuration)
    reader.take(21)
    length_size = (reader.number(1) & 3) + 1
    found = []
    for _ in range(reader.number(1)):
        kind = reader.number(1) & 63
        for _ in range(reader.number(2)):
            unit = reader.take(reader.number(2))
            if kind == SPS:
                found.append(_parameter_set(unit[:MOST_HEADER_BYTES]))
    found += _sets_among(Pieces(stream, data), length_size)
    return _largest(found)


def _sets_among(units: Pieces, length_size: int) -> list[Coded]:
    found: list[Coded] = []
    at = 0
    for _ in range(MAX_UNITS):
        units.seek(at)
        head = units.read(length_size + 1)
        if len(head) <= length_size:
            return found
        size = int.from_bytes(head[:length_size], "big")
        if head[length_size] >> 1 & 63 == SPS:
            found.append(_parameter_set(head[length_size:] + units.read(min(size, MOST_HEADER_BYTES))))
        at += length_size + size
    raise Unreadable(f"The picture has more than {MAX_UNITS} coded units.")


def _parameter_set(unit: bytes) -> Coded:
    bits = Bits(unit[2:].replace(b"\0\0\3", b"\0\0"))  # without the bytes that prevent a false start code
    bits.read(4)
    layers = bits.read(3)
    bits.read(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(layers)]
    if layers:
        bits.read(2 * (8 - layers))
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
    bits.exponential()
    chroma = bits.exponential()
    if chroma not in SAMPLES:
        raise Unreadable("The picture's coded header has an impossible number.")
    if chroma == 3:
        bits.read(1)
    width, height = bits.exponential(), bits.exponential()
    if bits.read(1):
        for _ in range(4):
            bits.exponential()
    return Coded(width, height, 8 + bits.exponential(), SAMPLES[chroma])


def av1(stream: BinaryIO, configuration: bytes, data: Sequence[Piece]) -> Coded:
    """The largest of the sizes in an av1C record and in a picture's units. Raises Unreadable or TooLarge."""
    if len(configuration) < 4:
        raise Unreadable("A box of the file is too short.")
    found = []
    known = Pieces(stream, (configuration[4:],))
    for units in (known, Pieces(stream, data)):
        sizes, frames = _sequence_headers(units)
        found += sizes
        if frames > MAX_LAYERS:
            raise TooLarge(f"The picture has {frames} layers; at most {MAX_LAYERS} are allowed.")
    flags = configuration[2]
    bits = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    samples = 1.0 if flags & 0x10 else (1.5 if flags & 4 else 2.0) if flags & 8 else 3.0
    return _largest([Coded(*one, bits, samples) for one in found])


def _sequence_headers(units: Pieces) -> tuple[list[tuple[int, int]], int]:
    """The sizes in all sequence headers, and the number of frames."""
    found: list[tuple[int, int]] = []
    frames = 0
    for kind, _, body, size in units_of(units):
        frames += kind in (FRAME_HEADER, FRAME)
        if kind == SEQUENCE_HEADER:
            units.seek(body)
            found.append(_sequence_header(units.read(min(size, MOST_HEADER_BYTES))))
    return found, frames


def units_of(units: Pieces) -> Iterator[tuple[int, int, int, int]]:
    """The AV1 units: type, place, place of the body, and its bytes (without a size: more than there are).

    Raises Unreadable.
    """
    at = 0
    for _ in range(MAX_UNITS):
        units.seek(at)
        head = units.read(10)
        if not head:
            return
        start = 2 if head[0] & 4 else 1
        size, used = leb128(head[start:]) if head[0] & 2 else (1 << 60, 0)
        body = at + start + used
        yield head[0] >> 3 & 15, at, body, size
        at = body + size
    raise Unreadable(f"The picture has more than {MAX_UNITS} coded units.")


def leb128(data: bytes) -> tuple[int, int]:
    """The number at the beginning of `data` (AV1 specification, 4.10.5), and its length in bytes. Raises Unreadable."""
    value = 0
    for used, byte in enumerate(data[:8]):
        value |= (byte & 127) << 7 * used
        if not byte & 128:
            return value, used + 1
    raise Unreadable("The picture's coded header has an impossible number.")


def _sequence_header(data: bytes) -> tuple[int, int]:
    bits = Bits(data)
    bits.read(3 + 1)
    if bits.read(1):  # reduced_still_picture_header
        bits.read(5)
    else:
        _operating_points(bits)
    wide, high = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(wide) + 1, bits.read(high) + 1


def _operating_points(bits: Bits) -> None:
    delays = 0  # bits of a decoder delay; 0 without a decoder model
    if bits.read(1):
        bits.read(64)
        if bits.read(1):
            bits.exponential()
        if bits.read(1):
            delays = bits.read(5) + 1
            bits.read(32 + 5 + 5)
    delay_shown = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delays and bits.read(1):
            bits.read(2 * delays + 1)
        if delay_shown and bits.read(1):
            bits.read(4)


def _largest(found: Sequence[Coded]) -> Coded:
    if not found:
        raise Unreadable("The picture has no coded header.")
    return max(found, key=lambda one: one.pixels)
