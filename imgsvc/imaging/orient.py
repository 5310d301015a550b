"""Turning a picture the way its camera was held (EXIF 2.32, tag 0x0112)."""

from PIL import Image

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8. EXIF that can't be parsed counts as upright: it must never fail a picture."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's parser raises whatever struct, zlib or an index gives it
        return 1
    return value if value in TURNS else 1


def swaps_sides(value: int) -> bool:
    return value >= 5


def upright(image: Image.Image, value: int) -> Image.Image:
    return image.transpose(TURNS[value]) if value in TURNS else image
