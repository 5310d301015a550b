"""Shrink a picture."""

from PIL import Image

from .geometry import fit


def shrink(image: Image.Image, side: int) -> Image.Image:
    return resized(image, fit(image.size, side))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize with a Lanczos filter. Pillow premultiplies alpha for it."""
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
