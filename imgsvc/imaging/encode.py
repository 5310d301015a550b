"""Encode a variant as WebP (RFC 9649): pixels and alpha only, never EXIF, XMP or a profile."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from .recipe import FORMAT, Variant, scratch_file


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded variant in the scratch folder: sizes in pixels and bytes, and the SHA-256 of the bytes in hex.

    `seconds` is the time taken to shrink and encode it. It is not part of equality: a repeated run may take longer.
    """

    name: str
    width: int
    height: int
    size_bytes: int
    sha256: str
    format: str = FORMAT
    seconds: float = field(default=0.0, compare=False)


def encode(image: Image.Image, variant: Variant, folder: Path) -> Encoded:
    """Encode `image` (RGB or RGBA) into `folder` under the variant's name. Raises OSError on a full disk."""
    image.info.clear()  # some versions of Pillow write a profile or EXIF found here into the file
    path = scratch_file(folder, variant.name)
    with path.open("w+b") as stream:
        try:
            image.save(
                stream, "WEBP", quality=variant.quality, method=variant.effort, exif=b"", xmp=b"", icc_profile=b""
            )
        except ValueError as error:
            if "memory" in str(error).lower():  # libwebp's VP8_ENC_ERROR_OUT_OF_MEMORY, as Pillow words it
                raise MemoryError from error
            raise
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size_bytes = stream.tell()
    return Encoded(variant.name, image.width, image.height, size_bytes, digest)
