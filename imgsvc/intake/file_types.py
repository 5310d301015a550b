"""What a file really is, by its first bytes, and what to do with one that is not accepted.

One table of the types that people send by mistake; `filetype` knows the rest. Sources: ISO/IEC 23008-12 annex B and
AV1-AVIF section 6 (brands of HEIF and AVIF), ISO/IEC 18181-2 (JPEG XL), TIFF 6.0 and DNG 1.7 (tags of camera raw).
"""

import re
import struct
from collections.abc import Callable, Iterator

from ..lazy_dataclass import dataclass

LOOK_BYTES = 8192  # at most; a comment may stand before the root of an SVG
RAW_ADVICE = "Develop it in the camera's program or a photo editor, and export it as JPEG."


@dataclass(frozen=True, slots=True)
class FileType:
    """`words` name the type with its article; `advice` is one sentence."""

    mime: str
    words: str
    advice: str


JPEG = FileType("image/jpeg", "a JPEG", "Convert it to one of the accepted types.")
PNG = FileType("image/png", "a PNG", "Convert it to one of the accepted types.")
WEBP = FileType("image/webp", "a WebP", "Convert it to one of the accepted types.")
EMPTY = FileType(
    "application/x-empty",
    "an empty file",
    "Send it again once it has bytes: a file that is still being copied or synchronized may have none yet.",
)
HEIC = FileType(
    "image/heic",
    "a HEIC (HEIF) photo",
    'Export it as JPEG, or let the iPhone take JPEG: Settings, Camera, Formats, "Most Compatible".',
)
AVIF = FileType("image/avif", "an AVIF", "Save it as JPEG, PNG or WebP.")
JXL = FileType(
    "image/jxl", "a JPEG XL", "Save it as JPEG; one that was made from a JPEG turns back without loss (djxl)."
)
JP2 = FileType("image/jp2", "a JPEG 2000", "Save it as JPEG or PNG.")
GIF = FileType("image/gif", "a GIF", "Save it as PNG, or as WebP if it moves.")
SVG = FileType("image/svg+xml", "an SVG drawing", "Export it as PNG at the size you need.")
TIFF = FileType("image/tiff", "a TIFF", "Save it as JPEG, or as PNG to keep every pixel.")
PDF = FileType("application/pdf", "a PDF document", "Export the page as JPEG or PNG.")
HTML = FileType("text/html", "an HTML page", "Save the picture itself, not the page that shows it.")
UNKNOWN = FileType(
    "application/octet-stream", "no picture of a known type", "Check that it is the right file and opens elsewhere."
)
BY_KIND = {
    "image": "Save it as JPEG, PNG or WebP.",
    "video": "Send a still picture: save one frame as JPEG.",
    "audio": "Send a picture.",
}
OF_FILES = "Send the picture itself, not a file that contains it."

JPEG_XL_BOX = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
GIFS = (b"GIF87a", b"GIF89a")
AVIF_BRANDS = {b"avif", b"avis", b"avio", b"MA1A", b"MA1B"}
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
HEIF_BRANDS |= {b"mif1", b"mif2", b"msf1", b"miaf", b"heif", b"jpeg", b"avci", b"avcs", b"vvic", b"j2ki"}
STARTS: tuple[tuple[tuple[bytes, ...], FileType], ...] = (
    ((b"\xff\xd8",), JPEG),
    ((b"\x89PNG\r\n\x1a\n",), PNG),
    (GIFS, GIF),
    ((b"\xff\x0a", JPEG_XL_BOX), JXL),
    (JPEG_2000, JP2),
)


def _raw(mime: str, maker: str) -> FileType:
    return FileType(mime, f"a camera raw file ({maker})", RAW_ADVICE)


CR3 = _raw("image/x-canon-cr3", "Canon CR3")
DNG = _raw("image/x-adobe-dng", "DNG")
RAW_STARTS = (
    (b"FUJIFILMCCD-RAW", _raw("image/x-fuji-raf", "Fujifilm RAF")),
    (b"IIU\x00", _raw("image/x-panasonic-rw2", "Panasonic RW2")),
    (b"IIRO", _raw("image/x-olympus-orf", "Olympus ORF")),
    (b"IIRS", _raw("image/x-olympus-orf", "Olympus ORF")),
    (b"MMOR", _raw("image/x-olympus-orf", "Olympus ORF")),
    (b"FOVb", _raw("image/x-sigma-x3f", "Sigma X3F")),
    (b"\x00MRM", _raw("image/x-minolta-mrw", "Minolta MRW")),
    (b"II\x1a\x00\x00\x00HEAPCCDR", _raw("image/x-canon-crw", "Canon CRW")),
)
CR2 = _raw("image/x-canon-cr2", "Canon CR2")
RAW_MAKERS = (
    (b"NIKON", _raw("image/x-nikon-nef", "Nikon NEF")),
    (b"SONY", _raw("image/x-sony-arw", "Sony ARW")),
    (b"PENTAX", _raw("image/x-pentax-pef", "Pentax PEF")),
    (b"RICOH", _raw("image/x-pentax-pef", "Pentax PEF")),
    (b"SAMSUNG", _raw("image/x-samsung-srw", "Samsung SRW")),
    (b"HASSELBLAD", _raw("image/x-hasselblad-3fr", "Hasselblad 3FR")),
    (b"KODAK", _raw("image/x-kodak-dcr", "Kodak DCR")),
    (b"CANON", CR2),
)
RAW_OF_ANOTHER = _raw("image/x-dcraw", "of a type without a name here")


def file_type(start: bytes) -> FileType:
    """The type of a file that begins with these bytes: the first LOOK_BYTES, or all of them."""
    if not start:
        return EMPTY
    start = start[:LOOK_BYTES]
    found = next((kind for begins, kind in STARTS if start.startswith(begins)), None)
    if found is None and start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        found = WEBP
    return found or next((kind for look in LOOKS if (kind := look(start))), None) or _of_library(start)


def is_undecided(start: bytes) -> bool:
    """Whether more bytes than these could still say what it is: markup whose root element has not come."""
    return len(start) < LOOK_BYTES and (text := _markup(start)) is not None and not _root(text)


def _of_library(start: bytes) -> FileType:
    import filetype  # here: a start does not wait for it

    kind = filetype.guess(start)
    if kind is None:
        return UNKNOWN
    advice = BY_KIND.get(kind.mime.partition("/")[0], OF_FILES)
    return FileType(kind.mime, f"a file of the type {kind.mime}", advice)


def _of_brands(start: bytes) -> FileType | None:
    """By the brands of an ISO base media file: the major one first."""
    if start[4:8] != b"ftyp":
        return None
    end = max(12, min(int.from_bytes(start[:4], "big"), 1024))
    for brand in (start[8:12], *(start[at : at + 4] for at in range(16, end, 4))):
        if brand in (b"mif1", b"mif2", b"msf1", b"miaf"):
            continue  # of both families: a further brand says which
        if brand in AVIF_BRANDS:
            return AVIF
        if brand in HEIF_BRANDS:
            return HEIC
        if brand in (b"crx ", b"jxl ", b"jp2 "):
            return {b"crx ": CR3, b"jxl ": JXL, b"jp2 ": JP2}[brand]
    return HEIC if start[8:12] in HEIF_BRANDS else None


def _of_tiff(start: bytes) -> FileType | None:
    """TIFF, or camera raw inside of one."""
    for signature, kind in RAW_STARTS:
        if start.startswith(signature):
            return kind
    if start[:4] in (b"II+\x00", b"MM\x00+"):
        return TIFF  # BigTIFF
    if start[:4] not in (b"II*\x00", b"MM\x00*"):
        return None
    if start[8:10] == b"CR":
        return CR2
    tags = dict(_tags(start))
    if DNG_VERSION in tags:
        return DNG
    reduced = tags.get(NEW_SUBFILE_TYPE, 0) & 1 and SUB_IFDS in tags  # a preview, with the raw pixels behind it
    if not reduced and tags.get(PHOTOMETRIC) not in (COLOUR_FILTER_ARRAY, LINEAR_RAW):
        return TIFF
    maker = start[tags.get(MAKE, len(start)) :][:32].upper()
    return next((kind for name, kind in RAW_MAKERS if maker.startswith(name)), RAW_OF_ANOTHER)


NEW_SUBFILE_TYPE, PHOTOMETRIC, MAKE, SUB_IFDS, DNG_VERSION = 254, 262, 271, 330, 50706
COLOUR_FILTER_ARRAY, LINEAR_RAW = 32803, 34892
MAX_TAGS = 200


def _tags(start: bytes) -> Iterator[tuple[int, int]]:
    """(tag, value or offset) of the first directory, as far as it is among these bytes."""
    order = "<" if start[:2] == b"II" else ">"
    if len(start) < 8:
        return
    at = struct.unpack_from(order + "I", start, 4)[0]
    if at + 2 > len(start):
        return
    count = struct.unpack_from(order + "H", start, at)[0]
    for number in range(min(count, MAX_TAGS)):
        entry = at + 2 + 12 * number
        if entry + 12 > len(start):
            return
        tag, kind = struct.unpack_from(order + "HH", start, entry)
        yield tag, struct.unpack_from(order + ("H" if kind == 3 else "I"), start, entry + 8)[0]


SKIPPED = (("<?", "?>"), ("<!--", "-->"))
ROOT = re.compile(r"<(?:!DOCTYPE\s+)?([\w:.-]+)(?=[\s>/\[])", re.IGNORECASE)
BY_ROOT = {"svg": SVG, "html": HTML}


def _of_markup(start: bytes) -> FileType | None:
    text = _markup(start)
    return BY_ROOT.get(_root(text)) if text is not None else None


def _markup(start: bytes) -> str | None:
    """The text of what begins like XML or HTML, in UTF-8 or UTF-16."""
    wide = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\x00": "utf-16-le", b"\x00<": "utf-16-be"}
    text = start.decode(wide.get(start[:2], "utf-8"), "replace").lstrip("\ufeff \t\r\n")
    return text if text.startswith("<") else None


def _root(text: str) -> str:
    """The name of the root element, without a prefix; empty if it is not here."""
    while closing := next((end for begin, end in SKIPPED if text.startswith(begin)), ""):
        text = text.partition(closing)[2].lstrip()
    match = ROOT.match(text)
    return match[1].rpartition(":")[2].lower() if match else ""


def _of_pdf(start: bytes) -> FileType | None:
    return PDF if b"%PDF-" in start[:1024] else None  # readers look for it there


LOOKS: tuple[Callable[[bytes], FileType | None], ...] = (_of_brands, _of_tiff, _of_markup, _of_pdf)
