"""Reads the EXIF orientation (EXIF 2.32, tag 0x0112 of IFD0; TIFF 6.0, section 2) and nothing else of EXIF.

A complete EXIF parser can be made to read the same bytes a million times. This one reads one table, once.
"""

import struct

ORIENTATION = 0x0112
MOST_BYTES = 65_536  # the most a JPEG segment can hold; cameras put the first table at the start
MOST_ENTRIES = 512  # of the table; cameras write about a dozen
FORMATS = {3: "H", 4: "I"}  # SHORT, and the LONG that some writers use


def orientation(exif: bytes) -> int:
    """Return 1 to 8. A missing, damaged or out-of-range value gives 1 (upright): it must never fail a picture."""
    tiff = exif[:MOST_BYTES].removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        value = _first_table(tiff, order) if order else 1
    except struct.error:  # the table ends early
        return 1
    return value if 1 <= value <= 8 else 1


def _first_table(tiff: bytes, order: str) -> int:
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * min(entries, MOST_ENTRIES), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, entry)
        if tag == ORIENTATION:
            known = kind in FORMATS and count == 1
            return int(struct.unpack_from(order + FORMATS[kind], tiff, entry + 8)[0]) if known else 1
    return 1
