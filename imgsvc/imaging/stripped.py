"""The strict reader of sources without metadata: an allow-list of segments and chunks, from the first byte to the last.

`strip` writes such a file in a process that the picture may have taken over, so what it wrote is walked here before it
is stored. Coded pixels are read for the markers that end them, and not decoded.
"""

import re
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from . import gif_blocks, heif_bare
from .errors import Unreadable
from .header import MAX_SEGMENTS, take
from .jpeg_segments import ADOBE_SEGMENT, APP0, EOI, EXIF_SEGMENT, FRAMES, ICC_SEGMENT, SOS, next_in_scan
from .pieces import Piece, Span, content, length_of
from .png_chunks import BYTES_PER_CHUNK

# Types whose file without metadata is made of its parts in one way only, which therefore says what may be in it.
BARE: dict[str, Callable[[BinaryIO], list[Piece]]] = {
    "image/gif": gif_blocks.bare,
    "image/heic": partial(heif_bare.bare, form="HEIF"),
    "image/avif": partial(heif_bare.bare, form="AVIF"),
}
DHT, DAC, DQT, DNL, DRI = 0xC4, 0xCC, 0xDB, 0xDC, 0xDD
JPEG_SEGMENTS = FRAMES | {DHT, DAC, DQT, DNL, DRI, SOS}
ICC_HEAD = b"ICC_PROFILE\0"
JFIF = re.compile(rb"JFIF\0.{7}\0\0", re.DOTALL)  # without a thumbnail
ADOBE = re.compile(rb"Adobe.{7}", re.DOTALL)
PROFILE_NAME = b"icc\0\0"  # of a PNG's profile, and its compression method
# The lengths in bytes of PNG chunks that are allowed; None: any. IHDR, IDAT, IEND, iCCP and eXIf are looked at singly.
COLOUR_CHUNKS: dict[bytes, tuple[int, ...] | range] = {
    b"PLTE": range(3, 769),
    b"tRNS": range(1, 257),
    b"cICP": (4,),
    b"sRGB": (1,),
    b"gAMA": (4,),
    b"cHRM": (32,),
}
FRAME_CHUNKS: dict[bytes, tuple[int, ...] | None] = {b"acTL": (8,), b"fcTL": (26,), b"fdAT": None}
WEBP_FLAGS = 0x3A  # of VP8X: profile, alpha, EXIF, animation; not XMP
WEBP_FRAME = 16  # bytes of an ANMF chunk before its chunks
WEBP_PIXELS = (b"ALPH", b"VP8 ", b"VP8L")


def exif_with(turn: int) -> bytes:
    """A TIFF block that holds the orientation and nothing else (TIFF 6.0 section 2, EXIF 2.32)."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, turn, 0, 0)


EXIF_OF = {turn: exif_with(turn) for turn in range(2, 9)}
EXIF_ALLOWED = frozenset(EXIF_OF.values())


def check_stripped(stream: BinaryIO, mime: str) -> None:
    """Raises Unreadable if the file, whole and seekable, has anything beside its picture."""
    try:
        CHECKS[mime](stream, length_of(stream))
    except (struct.error, IndexError):
        raise Unreadable("The file ends early.") from None


def _require(condition: bool, words: str) -> None:
    if not condition:
        raise Unreadable(words)


def _jpeg(stream: BinaryIO, end: int) -> None:
    stream.seek(0)
    _require(take(stream, 2) == b"\xff\xd8", "The file does not begin like a JPEG.")
    scans = 0
    for _ in range(MAX_SEGMENTS):
        sign, marker = take(stream, 2)
        _require(sign == 0xFF, "The JPEG has bytes between its segments.")
        if marker == EOI:
            _require(stream.tell() == end, "The JPEG is followed by other bytes.")
            _require(scans > 0, "The JPEG has no scan.")
            return
        (length,) = struct.unpack(">H", take(stream, 2))
        _require(length >= 2, "A segment of the JPEG has no length.")
        body = take(stream, length - 2)
        _require(_is_jpeg_segment(marker, body), "The JPEG has other segments than those of its picture.")
        if marker == SOS:
            scans += 1
            _require(next_in_scan(stream) is not None, "The JPEG ends within a scan.")
            stream.seek(-2, 1)
    raise Unreadable("The JPEG has too many segments.")


def _is_jpeg_segment(marker: int, body: bytes) -> bool:
    if marker == APP0:
        return JFIF.fullmatch(body) is not None
    if marker == ADOBE_SEGMENT:
        return ADOBE.fullmatch(body) is not None
    if marker == EXIF_SEGMENT:
        return body[:6] == b"Exif\0\0" and body[6:] in EXIF_ALLOWED
    if marker == ICC_SEGMENT:
        return body.startswith(ICC_HEAD) and len(body) > len(ICC_HEAD) + 2
    if marker in FRAMES:
        return len(body) == 6 + 3 * body[5]
    if marker == SOS:
        return len(body) == 4 + 2 * body[0]
    if marker == DQT:
        return _are_tables(body, lambda at: 1 + (128 if body[at] >> 4 else 64))
    if marker == DHT:
        return _are_tables(body, lambda at: 17 + sum(body[at + 1 : at + 17]))
    return marker in JPEG_SEGMENTS and len(body) <= {DRI: 2, DNL: 2, DAC: 64}[marker]


def _are_tables(body: bytes, length: Callable[[int], int]) -> bool:
    """Whether the body is tables and nothing else. `length` is that of the table at an offset."""
    at = 0
    while at < len(body):
        at += length(at)
    return at == len(body)


def _png(stream: BinaryIO, end: int) -> None:
    _require(content(stream, Span(0, 8), 8) == b"\x89PNG\r\n\x1a\n", "The file does not begin like a PNG.")
    stream.seek(8)
    first = True
    for _ in range(MAX_SEGMENTS + end // BYTES_PER_CHUNK):
        length, kind = struct.unpack(">I4s", take(stream, 8))
        _require(length <= end, "A chunk of the PNG is longer than the file.")
        body = take(stream, length)
        (checksum,) = struct.unpack(">I", take(stream, 4))
        _require(checksum == zlib.crc32(kind + body), "A chunk of the PNG has another checksum.")
        _require(
            first == (kind == b"IHDR") and _is_png_chunk(kind, body), "The PNG has other chunks than its picture's."
        )
        first = False
        if kind == b"IEND":
            _require(stream.tell() == end, "The PNG is followed by other bytes.")
            return
    raise Unreadable("The PNG has too many chunks.")


def _is_png_chunk(kind: bytes, body: bytes) -> bool:
    if kind in (b"IHDR", b"IEND"):
        return len(body) == (13 if kind == b"IHDR" else 0)
    if kind == b"iCCP":
        inflate = zlib.decompressobj()
        try:
            inflate.decompress(body[len(PROFILE_NAME) :], 1 << 22)
        except zlib.error:
            return False
        return body.startswith(PROFILE_NAME) and inflate.eof and not inflate.unused_data
    if kind == b"eXIf":
        return body in EXIF_ALLOWED
    if kind in COLOUR_CHUNKS:
        return len(body) in COLOUR_CHUNKS[kind]
    if kind in FRAME_CHUNKS:
        lengths = FRAME_CHUNKS[kind]
        return lengths is None or len(body) in lengths
    return kind == b"IDAT"


def _webp(stream: BinaryIO, end: int) -> None:
    riff, size, webp = struct.unpack("<4sI4s", content(stream, Span(0, 12), 12))
    _require(riff == b"RIFF" and webp == b"WEBP" and size + 8 == end, "The WebP has another length than it says.")
    chunks = webp_chunks(stream, 12, end)
    kinds = [kind for kind, _ in chunks]
    if kinds and kinds[0] != b"VP8X":
        _require(len(kinds) == 1 and kinds[0] in WEBP_PIXELS[1:], "The WebP has other chunks than its picture.")
        return
    for kind, body in chunks:
        _require(_is_webp_chunk(stream, kind, body), "The WebP has other chunks than its picture's.")
    for kind in (b"VP8X", b"ICCP", b"ANIM", b"EXIF"):
        _require(kinds.count(kind) <= 1, "The WebP has a chunk twice.")


def _is_webp_chunk(stream: BinaryIO, kind: bytes, body: Span) -> bool:
    if kind == b"VP8X":
        data = content(stream, body, 16)
        return len(data) == body.length == 10 and not data[0] & ~WEBP_FLAGS and not any(data[1:4])
    if kind == b"EXIF":
        return content(stream, body, 64) in EXIF_ALLOWED and body.length < 64
    if kind == b"ANIM":
        return body.length == 6
    if kind == b"ANMF":
        parts = webp_chunks(stream, body.at + WEBP_FRAME, body.at + body.length)
        return bool(parts) and all(part in WEBP_PIXELS for part, _ in parts)
    return kind == b"ICCP" or kind in WEBP_PIXELS


def webp_chunks(stream: BinaryIO, at: int, end: int) -> list[tuple[bytes, Span]]:
    """The type and the body of each chunk, which together fill the range. Raises Unreadable (RFC 9649)."""
    found: list[tuple[bytes, Span]] = []
    while at < end:
        _require(len(found) < MAX_SEGMENTS, "The WebP has too many chunks.")
        stream.seek(at)
        kind, length = struct.unpack("<4sI", take(stream, 8))
        found.append((kind, Span(at + 8, length)))
        at += 8 + length
        _require(at + (length & 1) <= end, "A chunk of the WebP is longer than the file.")
        if length & 1:
            _require(content(stream, Span(at, 1), 1) == b"\0", "A chunk of the WebP has something behind it.")
            at += 1
    return found


def _bare(write: Callable[[BinaryIO], list[Piece]], stream: BinaryIO, end: int) -> None:
    """Whether the file is what would be written of it: all parts in their places, and nothing else."""
    at = 0
    for piece in write(stream):
        in_place = piece.at == at if isinstance(piece, Span) else content(stream, Span(at, len(piece)), end) == piece
        _require(in_place, "The file has other parts than those of its picture.")
        at += piece.length if isinstance(piece, Span) else len(piece)
    _require(at == end, "The file's picture is followed by other bytes.")


CHECKS: dict[str, Callable[[BinaryIO, int], None]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    **{mime: partial(_bare, write) for mime, write in BARE.items()},
}
