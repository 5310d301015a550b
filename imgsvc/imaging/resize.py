"""Shrink a picture."""

from PIL import Image


def resized(image: Image.Image, size: tuple[int, int], extent: tuple[float, float] | None = None) -> Image.Image:
    """Resize with a Lanczos filter. Pillow premultiplies alpha for it.

    `extent` (width, height, in pixels of `image`) is the part that is resized, from the top left corner; None: all.
    """
    if size == image.size and extent in (None, size):
        return image
    return image.resize(size, Image.Resampling.LANCZOS, box=(0, 0, *(extent or image.size)))
