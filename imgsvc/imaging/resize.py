"""Making a picture smaller."""

from PIL import Image

from .geometry import fit


def shrink(image: Image.Image, side: int) -> Image.Image:
    return resized(image, fit(image.size, side))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at `size` by Lanczos; alpha is premultiplied meanwhile (Pillow does)."""
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
