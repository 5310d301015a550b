"""Rotate and mirror a picture by its EXIF orientation."""

from PIL import Image

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def swaps_sides(value: int) -> bool:
    return value >= 5


def upright(image: Image.Image, value: int) -> Image.Image:
    return image.transpose(TURNS[value]) if value in TURNS else image
