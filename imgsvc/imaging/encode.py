"""Encode a variant as WebP (RFC 9649), JPEG or AVIF: pixels and alpha only, never EXIF, XMP or a profile."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from math import inf
from typing import BinaryIO

from PIL import Image, ImageFile

from ..lazy_dataclass import dataclass
from . import optional_codecs, webp_encoder
from .limits import SHARP_PIXELS
from .recipe import FORMAT, MOST_EFFORT, Format, Variant

FEW_COLOURS = 256  # text, line art, a smooth gradient: lossy coding adds fringes or bands that are visible
SOME_COLOURS = 4096  # a shrunk screenshot: lossless coding may be shorter than lossy
LOWER_QUALITY = (5, 10)  # what is taken off the quality, in turn, if a variant would be larger than its source
WEBP_OUT_OF_MEMORY = tuple(f"encoding error {code}" for code in webp_encoder.OUT_OF_MEMORY)  # in Pillow's words
TILES, TILE = 3, 64  # across and down, and pixels of a side: a sample of a picture


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded variant: sizes in pixels and bytes, and the SHA-256 of the bytes in hex.

    `seconds` is the time taken to shrink and encode it. It is not part of equality: a repeated run may take longer.
    """

    name: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    format: Format = FORMAT
    frames: int = 1
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The bytes of a source of the same pixels, which its variant should not exceed. `noisy`: it was a JPEG."""

    size_bytes: float = inf
    noisy: bool = False


ANY_LENGTH = Ceiling()


def encode(image: Image.Image, variant: Variant, output: BinaryIO, most: Ceiling = ANY_LENGTH) -> Encoded:
    """Encode `image` (RGB or RGBA) and write it to `output`. Raises OSError on a full disk.

    In WebP, pictures of few colours are coded losslessly; of some colours, if that is shorter. A result that has more
    bytes than its source is encoded again: losslessly in WebP, if that has not, else with a lower quality.
    """
    image.info.clear()  # some versions of Pillow write a profile or EXIF found here into the file
    encoder = {"webp": webp_bytes, "jpeg": _jpeg_file, "avif": _avif_file}[variant.format]
    data = encoder(image, variant, most)
    output.write(data)
    output.flush()
    digest = hashlib.sha256(data).hexdigest()
    return Encoded(variant.name, image.width, image.height, len(data), digest, variant.format)


def webp_bytes(image: Image.Image, variant: Variant, most: Ceiling = ANY_LENGTH) -> bytes:
    """A WebP as `encode` writes it."""
    exact = b""
    colours = len(image.getcolors(SOME_COLOURS) or ()) or inf
    if colours <= SOME_COLOURS:
        exact = _without_loss(image, variant)
        if exact and colours <= FEW_COLOURS and len(exact) <= most.size_bytes:
            return exact
    found = [_lossy(image, variant, variant.quality), *([exact] if exact else [])]
    if len(min(found, key=len)) <= most.size_bytes:
        return min(found, key=len)
    if not exact and _may_be_shorter(image, variant, most) and (exact := _without_loss(image, variant)):
        found.append(exact)
        if len(exact) <= most.size_bytes:
            return exact
    return _lowered(variant, most, lambda quality: _lossy(image, variant, quality), min(found, key=len))


def _lowered(variant: Variant, most: Ceiling, encoder: Callable[[int], bytes], shortest: bytes) -> bytes:
    """The first result with a lower quality that is no longer than the source, else the shortest of all."""
    for less in LOWER_QUALITY:
        if len(shortest) <= most.size_bytes:
            break
        shortest = min(shortest, encoder(max(1, variant.quality - less)), key=len)
    return shortest


def _may_be_shorter(image: Image.Image, variant: Variant, most: Ceiling) -> bool:
    """Whether lossless coding is worth its time. The noise that a JPEG leaves takes several times the JPEG's bytes; a
    sample tells a drawing from a photo."""
    if not most.noisy:
        return True
    sample = Image.new(image.mode, (TILES * TILE, TILES * TILE))
    for across in range(TILES):
        for down in range(TILES):
            left = (image.width - TILE) * across // (TILES - 1)
            top = (image.height - TILE) * down // (TILES - 1)
            sample.paste(image.crop((left, top, left + TILE, top + TILE)), (across * TILE, down * TILE))
    share = (image.width * image.height) / (sample.width * sample.height)
    return len(_without_loss(sample, variant)) * share <= 2 * most.size_bytes


def _lossy(image: Image.Image, variant: Variant, quality: int) -> bytes:
    if image.mode == "RGB" and webp_encoder.is_available():
        return webp_encoder.lossy(image, quality, variant.effort)
    return _saved(image, quality=quality, method=variant.effort)


def _without_loss(image: Image.Image, variant: Variant) -> bytes:
    """Encode losslessly; return b"" if the encoder runs out of memory. (Admission reserves what lossy coding needs.)"""
    try:
        return _saved(image, lossless=True, quality=75, method=variant.effort)
    except MemoryError:
        return b""


def _saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, "WEBP", exif=b"", xmp=b"", icc_profile=b"", **options)
    except ValueError as error:
        if str(error) in WEBP_OUT_OF_MEMORY:
            raise MemoryError from error
        raise
    return buffer.getvalue()


def _jpeg_file(image: Image.Image, variant: Variant, most: Ceiling) -> bytes:
    opaque = _on_white(image)
    return _lowered(variant, most, lambda quality: _jpeg(opaque, quality), _jpeg(opaque, variant.quality))


def _avif_file(image: Image.Image, variant: Variant, most: Ceiling) -> bytes:
    few = image.width * image.height <= SHARP_PIXELS and image.getcolors(FEW_COLOURS) is not None

    def coded(quality: int) -> bytes:
        return _avif(image, variant, quality, few=few)

    return _lowered(variant, most, coded, coded(variant.quality))


def _avif(image: Image.Image, variant: Variant, quality: int, *, few: bool) -> bytes:
    """8 bits, full range, sRGB by its code points; 4:2:0, and 4:4:4 where colours are few and edges sharp.

    One thread and one tile: the bytes are then the same on every machine.
    """
    optional_codecs.load_encoder()
    buffer = io.BytesIO()
    try:
        image.save(
            buffer,
            "AVIF",
            codec="aom",
            quality=quality,
            speed=MOST_EFFORT["avif"] - variant.effort,
            subsampling="4:4:4" if few else "4:2:0",
            max_threads=1,
            autotiling=False,
            exif=b"",
            xmp=b"",
            icc_profile=b"",
        )
    except (ValueError, RuntimeError, OSError) as error:
        if "memory" in str(error).lower():  # libavif's AVIF_RESULT_OUT_OF_MEMORY, as the plugin words it
            raise MemoryError from error
        raise
    return buffer.getvalue()


def _on_white(image: Image.Image) -> Image.Image:
    """JPEG has no alpha: what is transparent is put on white, as on paper."""
    if image.mode == "RGB":
        return image
    opaque = Image.new("RGB", image.size, "white")
    opaque.paste(image, mask=image.getchannel("A"))
    return opaque


def _jpeg(image: Image.Image, quality: int) -> bytes:
    """4:4:4, progressive, without a profile (which means sRGB) and without metadata."""
    buffer = io.BytesIO()
    with _buffer_for(image):
        image.save(
            buffer, "JPEG", quality=quality, subsampling=0, progressive=True, optimize=True, exif=b"", comment=b""
        )
    return buffer.getvalue()


_buffer_set_up = threading.Lock()


@contextmanager
def _buffer_for(image: Image.Image) -> Iterator[None]:
    """libjpeg must get the buffer for a whole progressive file at once; Pillow's is a byte for each pixel."""
    with _buffer_set_up:
        usual, ImageFile.MAXBLOCK = (
            ImageFile.MAXBLOCK,
            max(ImageFile.MAXBLOCK, 4 * image.width * image.height + (1 << 16)),
        )
        try:
            yield
        finally:
            ImageFile.MAXBLOCK = usual
