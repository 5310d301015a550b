"""Limits on pictures, and the estimate of the memory that decoding needs: both from the header, without decoding.

The estimated memory is reserved before a job starts, so the estimate must not be too low. The factors are the peaks
of a single worker over sources of every kind at 2, 16 and 50 MP, rounded up. `./run torture` renders such
sources with no more than the estimate.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import BinaryIO

from .any_header import read_header
from .errors import TooLarge, Unreadable
from .frames import read_animation
from .geometry import fit, output_size, whole_side
from .header import Header
from .heif import check_coded
from .jpeg_segments import read_scans
from .pieces import length_of
from .png_chunks import check_chunks
from .recipe import Recipe, Variant

CHEAP_PIXELS = 2_000_000  # up to this size a full decode is as quick as the reduced decode of a photo
OVERSAMPLE = 2  # a reduced decode keeps this many times the preview's side, which leaves room for a real Lanczos resize

# Decoding a JPEG traverses all its coefficients once per scan, however few bytes the scan has. Encoders write about ten
# scans, at most 24 samples per pixel in all (CMYK). More than that, at the size of the largest picture, is an attack.
SAMPLES_PER_PIXEL = 30
# Measured: a million samples of an empty scan take about a millisecond, and so do those of a photo with several scans.
# A photo with a single scan takes half of that; arithmetic coding doubles the time.
CHEAP_SAMPLES = 100_000_000
SAMPLES_AGAIN = 30_000_000  # a preview of more is not decoded again to look for missing rows
CHEAP_BYTES = 4 << 20  # for files other than JPEG: empty deflate blocks take 60 ms per megabyte
SPARE_BYTES = 1 << 18  # allowance for data other than pixels: a profile, EXIF with a thumbnail

MAX_LENGTH = 500_000  # pixels on one side; beyond it a resize would need tables of that length
MAX_SCANS = 200  # of a JPEG, however small

MEGABYTE = 1 << 20
BASE_BYTES = 16 * MEGABYTE  # codec tables, I/O buffers, one small picture
MARGIN = 1.1
# Bytes per decoded pixel, the codec's own buffers included.
DECODED = {"JPEG": 4, "PNG": 4, "WEBP": 16, "GIF": 4, "HEIF": 14, "AVIF": 12}
DEEP = 4  # bytes per coded pixel of HEIF and AVIF with more than 8 bits, in addition
WHOLE_FILES = 3  # copies of a HEIF or AVIF file that its decoder holds
CODED = ("HEIF", "AVIF")  # formats whose pictures are coded in a size of their own
RESIZE_TABLE = 48  # bytes per pixel of an input side: Lanczos weights
MOST_GROWTH, SMALLEST_ROOM = 4, 1 << 20  # of an animation against its source, and bytes that each may have
CANVAS = 8  # bytes per pixel of an animation's canvas: itself, and what a frame covers
ON_CANVAS = CANVAS + 12  # and while a frame is drawn on it: its samples, as RGBA, and without alpha
SHRUNK = 8  # bytes per output pixel: shrunk, and in sRGB
HELD = 8  # bytes per output pixel and variant: the frame before, and the difference
ENCODER = {False: 13, True: 36}  # bytes per output pixel, without and with alpha
AVIF_ENCODER, SHARP_ENCODER = 40, 18  # the same of AVIF, and what 4:4:4 adds
# Seconds that a megapixel of AVIF may take by effort: ten times what it took here.
AVIF_SECONDS = (1, 1, 3, 5, 10, 15, 50, 60, 250, 300, 500)
LARGE_PHOTO = (40_000, 30_000)  # pixels: fills every variant
SHARP_PIXELS = 2_000_000  # pixels of an AVIF that may be 4:4:4


def probe(stream: BinaryIO, mime: str, *, max_pixels: int) -> Header:
    """Read the whole file's header and check it against the limits. Raises ImageError."""
    header = replace(read_header(stream, mime), length=length_of(stream))
    check_limits(header, max_pixels=max_pixels)
    if header.format == "JPEG":
        scans = read_scans(stream)
        header = replace(header, scans=scans.count, coded=scans.samples, walked=scans)
    elif header.format == "PNG":
        check_chunks(stream)
    elif header.format in CODED:
        check_coded(stream, header.format, max_pixels)
    animation = read_animation(stream, header)
    if animation is not None:
        header = replace(header, playable=len(animation.frames), milliseconds=animation.milliseconds)
    _check_scans(header, max_pixels)
    return header


def settled(header: Header, recipe: Recipe) -> Recipe:
    """The recipe for a picture with this probed header: with frames where it moves and may, else of stills."""
    return recipe.playing(header.playable) if may_play(header, recipe) else recipe.stills()


def may_play(header: Header, recipe: Recipe) -> bool:
    """Whether it is an animation within the limits."""
    frames = header.playable
    return (
        1 < frames <= recipe.max_frames
        and header.pixels * frames <= recipe.max_pixels * recipe.animation_factor
        and header.milliseconds <= 1000 * recipe.animation_seconds
    )


def _check_scans(header: Header, max_pixels: int) -> None:
    if header.scans > MAX_SCANS:
        raise Unreadable(f"The JPEG has {header.scans} scans; at most {MAX_SCANS} are read.")
    most = max_pixels * SAMPLES_PER_PIXEL
    if header.coded > most:
        raise TooLarge(
            f"The JPEG has {header.scans} scans of {header.width} x {header.height} pixels, which is "
            f"{header.coded / 1e6:.1f} million samples to decode; at most {most / 1e6:g} million are allowed."
        )


def check_limits(header: Header, *, max_pixels: int) -> None:
    """Raises TooLarge, naming the limit and the measured value."""
    if header.pixels > max_pixels:
        exact = f"{header.pixels / 1e6:.1f}" if max_pixels >= 1e6 else f"{header.pixels / 1e6:g}"
        measured = f"{header.width} x {header.height} = {exact} megapixels"
        raise TooLarge(f"The image has {measured}; at most {max_pixels / 1e6:g} megapixels are allowed.")
    if max(header.width, header.height) > MAX_LENGTH:
        longest = max(header.width, header.height)
        raise TooLarge(f"The image is {longest} pixels long; at most {MAX_LENGTH} are allowed.")


def has_cheap_preview(header: Header) -> bool:
    """Whether a thumbnail takes much less than a full decode: about a tenth of a second at worst.

    All previews share one lane and wait for each other, so none may be expensive, not even for a file made for that.
    """
    if header.format != "JPEG":
        whole = header.pixels * header.channels * header.bits // 8  # a normal file is not much longer than its pixels
        return header.pixels <= CHEAP_PIXELS and header.length <= min(CHEAP_BYTES, whole + SPARE_BYTES)
    weight = (1 if header.whole else 0.5) * (2 if header.arithmetic else 1)
    return header.coded * weight <= CHEAP_SAMPLES


def render_bytes(header: Header, recipe: Recipe) -> int:
    """Estimated peak of a full render, in bytes above an idle worker."""
    side = whole_side(recipe, (header.width, header.height))
    return max(_peak(header, side, recipe.variants), _playing_peak(header, recipe))


def _playing_peak(header: Header, recipe: Recipe) -> int:
    """Estimated peak while an animation is shown frame by frame and encoded; 0 if it is not."""
    moving = recipe.moving
    if not moving:
        return 0
    size = (header.width, header.height)
    width, height = fit(size, whole_side(replace(recipe, variants=moving), size))
    decoded, output = header.pixels, width * height
    shrinking = decoded * (DECODED[header.format] + ON_CANVAS) + (width * header.height + output) * 4
    shrinking += RESIZE_TABLE * (header.width + header.height)
    encoding = decoded * CANVAS + output * (ENCODER[True] + SHRUNK)
    return BASE_BYTES + int(MARGIN * (max(shrinking, encoding) + len(moving) * output * HELD))


def most_animation_bytes(source_bytes: int) -> int:
    """The most bytes of an animated variant of a source of so many. One that would have more is a still."""
    return MOST_GROWTH * source_bytes + SMALLEST_ROOM


def avif_bytes(pixels: int) -> int:
    """Estimated peak of encoding an AVIF of so many pixels, in bytes."""
    return AVIF_ENCODER * pixels + SHARP_ENCODER * min(pixels, SHARP_PIXELS)


def affordable(header: Header, recipe: Recipe, rendering: int, most: int) -> Recipe:
    """The recipe without those of its further variants that would need more than `most` bytes of memory.

    `rendering`: what the first render needs, by `render_bytes`.
    """
    size = header.width, header.height
    left = tuple(one for one in recipe.further if rendering + avif_bytes(_avif_pixels((one,), size)) <= most)
    return recipe if left == recipe.further else replace(recipe, further=left)


def left_out(recipe: Recipe, most: int) -> tuple[str, ...]:
    """The names of further variants for which `most` bytes of memory do not suffice even with a plain photo (a JPEG of
    4:3) that fills their boxes. A smaller picture may have them.
    """
    found = []
    for one in recipe.further:
        width, height = output_size(one, LARGE_PHOTO)
        photo = Header("JPEG", width, height, channels=3, coefficients=1.5)
        alone = replace(recipe, further=(one,))
        if affordable(photo, alone, render_bytes(photo, recipe), most) != alone:
            found.append(one.name)
    return tuple(found)


def avif_seconds(recipe: Recipe, pixels: int) -> float:
    """What encoding the AVIFs of a picture of so many pixels may take, on a slow machine."""
    found = 0.0
    for variant in recipe.variants:
        if variant.format == "avif":
            width, height = variant.box
            found += min(pixels, width * height) / 1e6 * AVIF_SECONDS[variant.effort]
    return found


def preview_side(header: Header, recipe: Recipe) -> int:
    """The longer side in pixels that the decode of a preview keeps."""
    alone = replace(recipe, variants=(recipe.preview,))
    return whole_side(alone, (header.width, header.height)) * OVERSAMPLE


def preview_bytes(header: Header, recipe: Recipe) -> int | None:
    """Estimated peak of a preview, in bytes above an idle worker; None where a preview isn't cheap."""
    if not has_cheap_preview(header):
        return None
    return _peak(header, preview_side(header, recipe), (recipe.preview,))


def _peak(header: Header, side: int, variants: Iterable[Variant]) -> int:
    scale = _reduction(header, side)
    width, height = -(-header.width // scale), -(-header.height // scale)
    out_width, out_height = fit((width, height), side)
    decoded, output = max(width * height, header.coded_pixels), out_width * out_height
    per_pixel = DECODED[header.format] + (4 if header.indirect else 0) + (4 if header.alpha else 0)
    if header.format in CODED:
        per_pixel += DEEP * (header.bits > 8)
    shrinking = (
        decoded * per_pixel
        + WHOLE_FILES * header.length * (header.format in CODED)
        + (out_width * height + output) * 4 * (output < decoded)
    )
    shrinking += RESIZE_TABLE * (header.width + header.height)
    avif = _avif_pixels(variants, (header.width, header.height))
    encoding = max(output * ENCODER[header.alpha], 4 * output + avif_bytes(avif) if avif else 0)
    return BASE_BYTES + int(MARGIN * (_coefficients(header) + max(shrinking, encoding)))


def _avif_pixels(variants: Iterable[Variant], size: tuple[int, int]) -> int:
    """The pixels of the largest variant in AVIF, however the picture is turned."""
    sizes = [output_size(one, turned) for one in variants if one.format == "avif" for turned in (size, size[::-1])]
    return max((width * height for width, height in sizes), default=0)


def _reduction(header: Header, side: int) -> int:
    """The scale at which libjpeg will decode, as Pillow's `draft` chooses it."""
    if header.format != "JPEG":
        return 1
    out_width, out_height = fit((header.width, header.height), side)
    ratio = min(header.width // out_width, header.height // out_height)
    return next(scale for scale in (8, 4, 2, 1) if ratio >= scale)


def _coefficients(header: Header) -> int:
    """Bytes of coefficients: a JPEG with several scans is held whole, 16 bits each, until its last scan."""
    return int(header.pixels * header.coefficients * 2) if header.whole else 0
