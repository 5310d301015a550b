"""The closed list of error messages for a picture: fixed sentences with blanks for numbers only.

Pictures are decoded in worker processes that a hostile file may take over. A message from a worker reaches clients
and the log only if it matches one of these sentences exactly. Any other message is replaced by the general sentence of
its error code.
"""

import re
from collections.abc import Mapping
from functools import cache

NUMBER = r"\d{1,15}(?:\.\d{1,9})?(?:e[+-]\d{2})?"
DIGITS_AT_MOST = 40  # in all numbers of a sentence together

GENERAL: Mapping[str, str] = {
    "image_unreadable": "The image can't be decoded: its data is damaged.",
    "image_too_large": "The image exceeds a limit of this service.",
    "image_unsupported": "This kind of image is not supported.",
    "memory_limit": "Decoding needed more memory than this image may use.",
    "timeout": "Processing took too long.",
    "source_missing": "The uploaded bytes are no longer there.",
    "source_damaged": "The uploaded bytes were changed or lost on this disk.",
    "io_error": "A file could not be read or written.",
    "internal_error": "Processing failed unexpectedly.",
}

# `#` stands for a number, {a|b} for one of the listed alternatives.
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "image_unreadable": (
        "A JPEG segment has an impossible length.",
        "A PNG chunk has an impossible length.",
        "The GIF has more than # blocks before a picture.",
        "The GIF has no picture.",
        "The GIF's pixels are in more blocks than are read.",
        "The JPEG ends before its first scan.",
        "The JPEG ends before its last scan.",
        "The JPEG frame header is too short.",
        "The JPEG has # colour components.",
        "The JPEG has # scans; at most # are read.",
        "The JPEG has impossible sampling factors.",
        "The JPEG has more than # segments among its scans.",
        "The JPEG has more than # segments before its pixels.",
        "The JPEG has no frame header before its first scan.",
        "The JPEG has no scan.",
        "The JPEG has stray bytes between its segments.",
        "The JPEG has thousands of fill bytes among its pixels.",
        "The PNG does not begin with its IHDR chunk.",
        "The PNG has more than # chunks before its pixels.",
        "The PNG has no palette before its pixels.",
        "The PNG has no pixels.",
        "The PNG has the unknown colour type #.",
        "The PNG's palette has # colours; at most 256 are possible.",
        "The PNG's pixels are in more chunks than are read.",
        "The picture ends after # of # rows.",
        "The WebP begins with an unknown chunk.",
        "The WebP has a damaged lossless header.",
        "The WebP has more than # chunks.",
        "The WebP has no key frame.",
        "The WebP has no picture.",
        "The WebP's extended header is too short.",
        "A box of the file has an impossible length.",
        "A box of the file holds more than # boxes.",
        "A box of the file is too short.",
        "The file describes its picture in # bytes; at most # are read.",
        "The file describes one item twice.",
        "The file does not begin like a {GIF|HEIC or AVIF|JPEG|PNG|WebP}.",
        "The file ends before its picture does.",
        "The file gives one item its properties twice, or too many of them.",
        "The file has # items; at most # are read.",
        "The file has more than # boxes before its description.",
        "The file has more than # items.",
        "The file has more than # references among its items.",
        "The file names no primary picture.",
        "The file refers to a picture that it does not have.",
        "The file refers to a property that it does not have.",
        "The file says in an impossible way where its items are.",
        "The file says twice where one item is.",
        "The items of the file are in more than # parts.",
        "The picture has another number of tiles than its grid.",
        "The picture has more than # coded units.",
        "A coded unit of the picture has no end.",
        "The picture has no coded header.",
        "The picture's coded header has an impossible number.",
        "The picture's coded header is too short.",
        "The picture's crop is damaged.",
        "The picture's grid is damaged.",
        "The pictures of the file share their bytes.",
        "The tiles of the picture do not cover it.",
        "The file ends before its image header does.",
        "The image can't be decoded: {it is truncated|its data is broken|it is damaged|its data is damaged}.",
        "The image can't be processed: its data is damaged.",
        "The image header says # x # pixels.",
        "The image's header and its pixels disagree about its size.",
    ),
    "image_too_large": (
        "The JPEG has # scans of # x # pixels, which is # million samples to decode; at most # million are allowed.",
        "The image has # x # = # megapixels; at most # megapixels are allowed.",
        "The image is # pixels long; at most # are allowed.",
        "The picture has # layers; at most # are allowed.",
        "The picture has # tiles; at most # are allowed.",
        "The picture is coded as # x # = # megapixels; at most # megapixels are allowed.",
        "The tiles of the picture have # megapixels together; at most # megapixels are allowed.",
    ),
    "image_unsupported": (
        "The items of this file are made of other items, which is not supported.",
        "The picture has an essential property that is not supported.",
        "The picture is not coded in {AV1|HEVC}, nor as a grid of such pictures.",
        "This kind of JPEG is not supported (frame type #, # bits).",
        "This kind of image is not decoded here.",
    ),
    "memory_limit": ("Decoding needed more than the # MB that this image may use.",),
    "timeout": (
        "Processing took longer than the limit of # seconds.",
        "Processing took too long (stopped after "
        "{decode began|decode|as_samples|fit_largest|to_srgb|turn_upright|name_colour|draw_placeholder|find_centre|"
        "write_variants}).",
    ),
}


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """Made when a message begins as this one does: each takes a tenth of a millisecond, which no start waits for."""
    parts = re.split(r"(#|\{[^}]*\})", template)
    return re.compile("".join(_part(part) for part in parts), re.ASCII)


def _part(part: str) -> str:
    if part == "#":
        return NUMBER
    if part.startswith("{"):
        return f"(?:{'|'.join(map(re.escape, part[1:-1].split('|')))})"
    return re.escape(part)


def _beginning(template: str) -> str:
    """What stands before the first blank."""
    return re.split("[#{]", template, maxsplit=1)[0]


def is_ours(code: str, message: str) -> bool:
    """Whether `message` is one of the sentences of this code, with numbers of a plausible length."""
    if message == GENERAL.get(code):
        return True
    if sum(map(str.isdigit, message)) > DIGITS_AT_MOST:
        return False
    likely = (one for one in SENTENCES.get(code, ()) if message.startswith(_beginning(one)))
    return any(_pattern(one).fullmatch(message) for one in likely)


def sentence(code: str, message: str) -> str:
    """Return `message` if it is one of this code's sentences, else the general one. Raises KeyError: unknown code."""
    general = GENERAL[code]
    return message if is_ours(code, message) else general
