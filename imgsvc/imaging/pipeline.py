"""The pipeline: a tuple of steps, each a function of one Picture. It reads one file and writes variants.

Files are passed open, so that a process without any right to a path can do the work.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from math import inf
from typing import BinaryIO

from PIL import Image

from ..lazy_dataclass import dataclass
from . import colour
from .animated_webp import AnimatedWebp, copied
from .attention import centre_of_attention
from .canvas import shown
from .dominant import dominant_colour
from .encode import Ceiling, Encoded, encode
from .errors import ImageError, NotCheap, OutOfTime, Unforeseen
from .essentials import read_essentials
from .frames import read_animation
from .geometry import Point, crop_box, fit, output_size, whole_side
from .header import Header
from .limits import SAMPLES_AGAIN, has_cheap_preview, may_play, most_animation_bytes, preview_side, probe
from .open import open_image
from .orient import swaps_sides, upright
from .pixel_memory import PixelMemory
from .placeholder import thumbhash
from .recipe import Recipe, Variant
from .resize import resized

MIDDLE = (0.5, 0.5)
FOR_PAGES = ("JPEG", "PNG", "WEBP")  # formats of sources that browsers show
Outputs = Mapping[str, BinaryIO]  # by the name of the variant that is written to it


@dataclass(frozen=True, slots=True)
class Rendering:
    """The result: sizes in pixels as displayed (after EXIF orientation), and the variants written, in order."""

    width: int
    height: int
    dominant_colour: str
    frames: int
    variants: tuple[Encoded, ...]
    thumbhash: str = ""  # in base64
    source: "CleanSource | None" = None  # written beside the variants


@dataclass(frozen=True, slots=True)
class CleanSource:
    """A source without metadata: its size in bytes and its SHA-256 in hex."""

    size_bytes: int
    sha256: str


@dataclass(slots=True)
class Picture:
    """One source on its way through the steps."""

    source: BinaryIO  # seekable
    header: Header
    side: int  # pixels: the decode may be reduced, but its longer side must keep at least this many
    variants: Sequence[Variant]
    outputs: Outputs
    wants_colour: bool  # and the placeholder
    deadline: float = inf  # time.monotonic
    focal: Point | None = None  # what crops are made around; None: the centre of attention
    again: float = inf  # samples of a JPEG that may be decoded more than once
    image: Image.Image = field(init=False)
    memory: PixelMemory | None = None  # of the decoded image, until it is shrunk
    extent: tuple[float, float] = field(init=False)  # of the picture in the decoded image, in its pixels
    profile: bytes | None = field(init=False)
    turn: int = field(init=False)
    size: tuple[int, int] = field(init=False)  # of the whole picture as displayed
    dominant: str = ""
    thumbhash: str = ""
    made: list[Encoded] = field(default_factory=list)


def decode(picture: Picture) -> None:
    opened = open_image(picture.source, picture.header, picture.side, picture.deadline, again=picture.again)
    picture.image, picture.extent = opened.image, opened.extent
    picture.profile, picture.turn, picture.memory = opened.profile, opened.orientation, opened.memory


def as_samples(picture: Picture) -> None:
    picture.image = colour.as_samples(picture.image, picture.header.bits)


def fit_largest(picture: Picture) -> None:
    """Shrink early: the cost of the following steps then depends on the output's pixels, not on the input's.

    A large photo is shrunk in its own memory. Others: first the width and then the height, as the filter itself does,
    so that the decoded picture is dropped before the memory of the second is taken. With alpha, which is premultiplied
    for it, the result would be another.
    """
    size = fit((picture.header.width, picture.header.height), picture.side)
    memory, picture.memory = picture.memory, None
    if memory and memory.holds(picture.image):
        picture.image = memory.shrunk(picture.image, size, picture.extent)
        return
    width, height = picture.extent
    if not picture.image.has_transparency_data:
        rows = picture.image.height
        picture.image = resized(picture.image, (size[0], rows), (width, rows))
        width = size[0]
    picture.image = resized(picture.image, size, (width, height))


def to_srgb(picture: Picture) -> None:
    picture.image = colour.to_srgb(picture.image, picture.profile, in_place=True)


def turn_upright(picture: Picture) -> None:
    stored = (picture.header.width, picture.header.height)
    picture.size = stored[::-1] if swaps_sides(picture.turn) else stored
    picture.image = upright(picture.image, picture.turn)


def name_colour(picture: Picture) -> None:
    if picture.wants_colour:
        picture.dominant = dominant_colour(picture.image)


def draw_placeholder(picture: Picture) -> None:
    if picture.wants_colour:
        picture.thumbhash = thumbhash(picture.image)


def find_centre(picture: Picture) -> None:
    if picture.focal is None and any(variant.cover for variant in picture.variants):
        picture.focal = centre_of_attention(picture.image)


def write_variants(picture: Picture) -> None:
    """Shrink each variant from the full picture, so that no variant is resampled twice."""
    for variant in picture.variants:
        began = time.monotonic()
        image = _shaped(picture, variant)
        made = encode(image, variant, picture.outputs[variant.name], ceiling(picture, image.size))
        picture.made.append(replace(made, seconds=time.monotonic() - began))


def _shaped(picture: Picture, variant: Variant) -> Image.Image:
    size = output_size(variant, picture.size)
    if not variant.cover:
        return resized(picture.image, size)
    scale = (picture.image.width / picture.size[0], picture.image.height / picture.size[1]) * 2
    box = crop_box(variant, picture.size, picture.focal or MIDDLE)
    left, top, right, bottom = (length * by for length, by in zip(box, scale, strict=True))
    within = (left, top, min(right, picture.image.width), min(bottom, picture.image.height))
    return picture.image.resize(size, Image.Resampling.LANCZOS, box=within)


def ceiling(picture: Picture, size: tuple[int, int]) -> Ceiling:
    """A variant as large as its source in pixels should not be larger in bytes, if that was of a format for pages."""
    header = picture.header
    if header.format not in FOR_PAGES or size != picture.size:
        return Ceiling()
    return Ceiling(header.length, noisy=header.format == "JPEG")


STEPS: tuple[Callable[[Picture], None], ...] = (
    decode,
    as_samples,
    fit_largest,
    to_srgb,
    turn_upright,
    name_colour,
    draw_placeholder,
    find_centre,
    write_variants,
)


def run(picture: Picture) -> Picture:
    """Run all steps on the picture. Raises OutOfTime if its deadline has passed, and what `run_step` raises."""
    for step in STEPS:
        run_step(step, picture)
        if time.monotonic() > picture.deadline:
            raise OutOfTime(f"Processing took too long (stopped after {step.__name__}).")
    return picture


def run_step(step: Callable[[Picture], None], picture: Picture) -> None:
    """Run one step. Any exception of a library counts as a fault of the picture and becomes Unforeseen.

    MemoryError and errors of the disk (OSError with an errno) are passed on unchanged.
    """
    try:
        step(picture)
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Unforeseen from error


def preview(
    source: BinaryIO, mime: str, recipe: Recipe, outputs: Outputs, *, deadline: float = inf
) -> Rendering | None:
    """Make the smallest variant, colour, placeholder and size if that is cheap for this file; else return None.

    Raises ImageError, MemoryError, or OSError from writing the output.
    """
    header = probe(source, mime, max_pixels=recipe.max_pixels)
    if not has_cheap_preview(header):
        return None
    picture = _preview_picture(source, header, recipe, outputs, deadline)
    picture.again = SAMPLES_AGAIN
    try:
        return _rendering(run(picture))
    except NotCheap:
        return None


def render(source: BinaryIO, mime: str, recipe: Recipe, outputs: Outputs, *, deadline: float = inf) -> Rendering:
    """Make the variants that have an output.

    The smallest variant is made from its own reduced decode wherever `preview` would do so, so that its bytes don't
    depend on which function made it. Colour and placeholder are "" if their variant is not written.
    Raises ImageError, MemoryError, or OSError from writing the outputs.
    """
    header = probe(source, mime, max_pixels=recipe.max_pixels)
    wanted = [variant for variant in recipe.variants if variant.name in outputs]
    pictures = []
    if recipe.preview in wanted and recipe.preview not in recipe.moving and has_cheap_preview(header):
        pictures.append(run(_preview_picture(source, header, recipe, outputs, deadline)))
        wanted.remove(recipe.preview)
    moving = [variant for variant in wanted if variant in recipe.moving]
    if moving and may_play(header, recipe) and (played := _play(source, header, recipe, moving, outputs, deadline)):
        pictures.append(played)
        wanted = [variant for variant in wanted if variant not in moving]
    if wanted:
        wants_colour = recipe.preview in wanted
        side = whole_side(recipe, (header.width, header.height))
        picture = Picture(source, header, side, wanted, outputs, wants_colour, deadline, recipe.focal)
        pictures.append(run(picture))
    return _rendering(*pictures) if pictures else Rendering(0, 0, "", header.frames, ())


FRAME_STEPS: tuple[Callable[[Picture], None], ...] = (fit_largest, to_srgb, turn_upright, find_centre)


def _play(
    source: BinaryIO, header: Header, recipe: Recipe, moving: Sequence[Variant], outputs: Outputs, deadline: float
) -> Picture | None:
    """Write an animation's frames to the variants in which it moves; None if not even one frame can be shown.

    Variants that come out alike are coded once. Raises as `run`.
    """
    animation = read_animation(source, header)
    if animation is None:
        return None
    needed = read_essentials(source, header.format)
    size = (header.width, header.height)
    side = whole_side(replace(recipe, variants=tuple(moving)), size)
    picture = Picture(source, header, side, moving, outputs, False, deadline, recipe.focal)
    picture.profile, picture.turn, picture.extent = needed.profile, needed.orientation, size
    files: dict[object, tuple[AnimatedWebp, list[Variant]]] = {}
    began = time.monotonic()
    for frame in shown(source, animation, deadline):
        picture.image = frame.image
        for step in FRAME_STEPS:
            run_step(step, picture)
        if not files:
            files = _files(picture, animation.plays)
        for file, (first, *_) in files.values():
            if file.full:
                continue
            image = _shaped(picture, first)
            file.add(image, frame.milliseconds, frame.length if image.size == picture.size else inf)
        if time.monotonic() > deadline:
            raise OutOfTime("Processing took too long (stopped after write_variants).")
    if not files:
        return None
    for file, (first, *others) in files.values():
        made = replace(file.finish(), seconds=(time.monotonic() - began) / len(files))
        picture.made.append(made)
        picture.made += [copied(made, outputs[first.name], one, outputs[one.name]) for one in others]
    return picture


def _files(picture: Picture, plays: int) -> dict[object, tuple[AnimatedWebp, list[Variant]]]:
    """A file for each kind of animated variants that differ in size, part or coding, and those variants."""
    found: dict[object, tuple[AnimatedWebp, list[Variant]]] = {}
    room = most_animation_bytes(picture.header.length)
    for variant in picture.variants:
        part = variant.box if variant.cover else None
        kind = output_size(variant, picture.size), part, variant.quality, variant.effort
        if kind in found:
            found[kind][1].append(variant)
        else:
            found[kind] = AnimatedWebp(variant, picture.outputs[variant.name], plays, room), [variant]
    return found


def _preview_picture(source: BinaryIO, header: Header, recipe: Recipe, outputs: Outputs, deadline: float) -> Picture:
    side = preview_side(header, recipe)
    return Picture(source, header, side, (recipe.preview,), outputs, True, deadline, recipe.focal)


def _rendering(*pictures: Picture) -> Rendering:
    (width, height), frames = pictures[-1].size, pictures[-1].header.frames
    colour_name = next((picture.dominant for picture in pictures if picture.dominant), "")
    placeholder = next((picture.thumbhash for picture in pictures if picture.thumbhash), "")
    made = tuple(one for picture in pictures for one in picture.made)
    return Rendering(width, height, colour_name, frames, made, placeholder)
