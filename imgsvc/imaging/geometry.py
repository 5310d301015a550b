"""The size of a variant, and the part of the picture that it shows."""

from math import ceil

from .recipe import MAX_SIDE, Recipe, Variant

Size = tuple[int, int]
Point = tuple[float, float]  # 0..1 of the width and the height


def fit(size: Size, side: int) -> Size:
    """`size` scaled so that its longer side is `side` pixels: rounded, at least 1, never enlarged."""
    return _inside(size, (side, side))


def output_size(variant: Variant, size: Size) -> Size:
    """The size of a variant of a picture of this size, in pixels. Nothing is enlarged.

    Of a picture that is too small for its box, a variant that covers the box is smaller and keeps the box's shape.
    """
    if not variant.cover:
        return _inside(size, variant.box)
    width, height = variant.box
    shown = _shown(variant, size)
    if shown[0] >= width and shown[1] >= height:
        return width, height
    return max(1, round(shown[0])), max(1, round(shown[1]))


def crop_box(variant: Variant, size: Size, centre: Point) -> tuple[float, float, float, float]:
    """The part (left, top, right, bottom) of a picture that a covering variant shows: around `centre`, as near to it as
    the picture's edges allow."""
    width, height = _shown(variant, size)
    left = min(max(0.0, centre[0] * size[0] - width / 2), size[0] - width)
    top = min(max(0.0, centre[1] * size[1] - height / 2), size[1] - height)
    return left, top, left + width, top + height


def whole_side(recipe: Recipe, size: Size) -> int:
    """The longer side that the whole picture must keep for all variants, however it is turned."""
    turned = (size, size[::-1])
    return max(_whole_side(variant, one) for variant in recipe.variants for one in turned)


def _whole_side(variant: Variant, size: Size) -> int:
    longer = max(size)
    if variant.cover:
        scale = max(length / whole for length, whole in zip(variant.box, size, strict=True))
        return max(1, min(longer, ceil(longer * scale)))
    # A square box is its side, even of a smaller picture: a decoder is asked for the side, not for the picture's size.
    return variant.side if variant.box == (variant.side, variant.side) else max(_inside(size, variant.box))


def _inside(size: Size, box: Size) -> Size:
    width, height = size
    if width <= box[0] and height <= box[1]:
        return size
    if width * box[1] >= height * box[0]:
        return box[0], _rounded(height, box[0], width)
    return _rounded(width, box[1], height), box[1]


def _rounded(length: int, to: int, of: int) -> int:
    return max(1, (length * to * 2 + of) // (of * 2))


def _shown(variant: Variant, size: Size) -> Point:
    """The size of the largest part of a picture that has the shape of the variant's box."""
    (width, height), box = size, variant.box
    if width * box[1] >= height * box[0]:
        return height * box[0] / box[1], height
    return width, width * box[1] / box[0]


def most_pixels(recipe: Recipe) -> int:
    """The most pixels that any variant may have, whatever the picture is."""
    return max(min(MAX_SIDE, width) * min(MAX_SIDE, height) for width, height in (one.box for one in recipe.variants))
