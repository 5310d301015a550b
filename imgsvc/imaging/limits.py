"""What is refused, and how much memory the rest will take: from the header alone, before any pixel is decoded.

Admission reserves the estimate before a job starts, so it must not be too low: the factors are peaks of a bare worker
over sources of every kind at 2, 16 and 50 MP, rounded up. `./run torture` measures them again.
"""

from pathlib import Path

from .errors import TooLarge, Unreadable
from .geometry import fit
from .header import Header, count_scans, read_header
from .recipe import Recipe

CHEAP_PIXELS = 2_000_000  # up to here a full decode is as quick as a reduced one of a photo
OVERSAMPLE = 2  # a reduced decode keeps this many times the preview's side, so that a real Lanczos resize is left

MAX_LENGTH = 500_000  # pixels of one side; no picture, but a resize would need tables of that length
MAX_SCANS = 200  # of a JPEG; encoders write about ten, and each costs a walk over all coefficients

MEGABYTE = 1 << 20
BASE_BYTES = 16 * MEGABYTE  # codec tables, I/O buffers, one small picture
MARGIN = 1.1
DECODED = {"JPEG": 4, "PNG": 4, "WEBP": 16}  # bytes per decoded pixel, the codec's own buffers included
RESIZE_TABLE = 48  # bytes per pixel of an input side: Lanczos weights
ENCODER = {False: 13, True: 36}  # bytes per output pixel, without and with alpha


def probe(path: Path, mime: str, *, max_pixels: int, max_frames: int) -> Header:
    """The header of a file that is within the limits. Raises ImageError."""
    with path.open("rb") as stream:
        header = read_header(stream, mime)
        if header.whole and (scans := count_scans(stream)) > MAX_SCANS:
            raise Unreadable(f"The JPEG has {scans} scans; at most {MAX_SCANS} are read.")
    check_limits(header, max_pixels=max_pixels, max_frames=max_frames)
    return header


def check_limits(header: Header, *, max_pixels: int, max_frames: int) -> None:
    """Raises TooLarge, naming the limit and the measured value."""
    if header.pixels > max_pixels:
        exact = f"{header.pixels / 1e6:.1f}" if max_pixels >= 1e6 else f"{header.pixels / 1e6:g}"
        measured = f"{header.width} x {header.height} = {exact} megapixels"
        raise TooLarge(f"The image has {measured}; at most {max_pixels / 1e6:g} megapixels are allowed.")
    if max(header.width, header.height) > MAX_LENGTH:
        longest = max(header.width, header.height)
        raise TooLarge(f"The image is {longest} pixels long; at most {MAX_LENGTH} are allowed.")
    if header.frames > max_frames:
        raise TooLarge(f"The image has {header.frames} frames; at most {max_frames} are allowed.")


def has_cheap_preview(header: Header) -> bool:
    """Whether a thumbnail can be had for much less than a full decode."""
    return header.format == "JPEG" or header.pixels <= CHEAP_PIXELS


def render_bytes(header: Header, recipe: Recipe) -> int:
    """Estimated peak of a full render, in bytes above an idle worker."""
    return _peak(header, recipe.largest.side)


def preview_bytes(header: Header, recipe: Recipe) -> int | None:
    """Estimated peak of a preview, in bytes above an idle worker; None where a preview isn't cheap."""
    if not has_cheap_preview(header):
        return None
    return _peak(header, recipe.preview.side * OVERSAMPLE)


def _peak(header: Header, side: int) -> int:
    scale = _reduction(header, side)
    width, height = -(-header.width // scale), -(-header.height // scale)
    out_width, out_height = fit((width, height), side)
    decoded, output = width * height, out_width * out_height
    per_pixel = DECODED[header.format] + (4 if header.indirect else 0) + (4 if header.alpha else 0)
    shrinking = decoded * per_pixel + (out_width * height + output) * 4 * (output < decoded)
    shrinking += RESIZE_TABLE * (header.width + header.height)
    encoding = output * ENCODER[header.alpha]
    return BASE_BYTES + int(MARGIN * (_coefficients(header) + max(shrinking, encoding)))


def _reduction(header: Header, side: int) -> int:
    """The scale at which libjpeg will decode, as Pillow's `draft` chooses it."""
    if header.format != "JPEG":
        return 1
    out_width, out_height = fit((header.width, header.height), side)
    ratio = min(header.width // out_width, header.height // out_height)
    return next(scale for scale in (8, 4, 2, 1) if ratio >= scale)


def _coefficients(header: Header) -> int:
    """A JPEG of several scans is held whole, as 16-bit coefficients, until its last scan."""
    return int(header.pixels * header.coefficients * 2) if header.whole else 0
