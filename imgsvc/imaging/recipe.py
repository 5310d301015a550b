"""The variants to make. Stored with each job when it is accepted, so that a repeated run gives the same bytes."""

import json
from dataclasses import asdict, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ..lazy_dataclass import dataclass

Format = Literal["webp", "jpeg", "avif"]
FORMATS: tuple[Format, ...] = get_args(Format)
FORMAT: Format = "webp"
KeepSource = Literal["none", "stripped", "as_is"]
SOURCE = "_source"  # the output that a stripped source is written to: no variant may have this name
MAX_SIDE = 16_383  # pixels; a limit of the format (RFC 9649)
MOST_EFFORT: dict[Format, int] = {"webp": 6, "jpeg": 0, "avif": 10}
POSTER = "poster"  # the name of the still beside the animations of an image
REMEMBERED = 128  # recipes and their texts
FURTHER = "."  # in the name of a variant that is another one in a further format: no name of the settings has it


@dataclass(frozen=True, slots=True)
class Variant:
    """One output: the longer side in pixels (never enlarged), quality (0..100), effort (0..6, of AVIF 0..10).

    With a `width` or a `height` it lies inside that box, or with `cover` fills it and shows a part of the picture.
    """

    name: str
    side: int
    quality: int
    effort: int
    width: int | None = None
    height: int | None = None
    cover: bool = False
    format: Format = FORMAT
    animated: bool = False  # an animation stays one

    @property
    def size(self) -> str:
        """The name of the settings: of `medium.avif`, which is `medium` in a further format, `medium`."""
        return self.name.partition(FURTHER)[0]

    def also_in(self, format: Format, quality: int, effort: int) -> "Variant":
        """The same variant in a further format."""
        return replace(
            self, name=f"{self.name}{FURTHER}{format}", format=format, quality=quality, effort=effort, animated=False
        )

    @property
    def box(self) -> tuple[int, int]:
        """Width and height in pixels that it does not exceed."""
        if self.width is None and self.height is None:
            return self.side, self.side
        return self.width or MAX_SIDE, self.height or MAX_SIDE


@dataclass(frozen=True, slots=True)
class Recipe:
    """The variants, largest first, and the limits that applied when the file was accepted.

    `further` are variants in further formats, which are made once the job is completed.
    `focal` is the point that crops are made around (0..1 of the width and the height); None: the centre of attention.
    An animation has at most `max_frames`, `animation_factor` times `max_pixels` in all frames, and `animation_seconds`.
    `frames` is their number once it is known that they are kept.
    """

    variants: tuple[Variant, ...]
    max_pixels: int
    max_frames: int
    focal: tuple[float, float] | None = None
    further: tuple[Variant, ...] = ()
    animation_factor: float = 8
    animation_seconds: float = 60
    frames: int = 1
    keep_source: KeepSource = "none"  # what is kept beside the variants

    def __post_init__(self) -> None:
        for name in ("variants", "further"):
            ordered = tuple(sorted(getattr(self, name), key=lambda variant: (-variant.side, variant.name)))
            object.__setattr__(self, name, ordered)

    @property
    def preview(self) -> Variant:
        """The variant that is made first: the smallest still, since it appears soonest."""
        return next((one for one in reversed(self.variants) if not one.animated or self.frames < 2), self.variants[-1])

    @property
    def moving(self) -> tuple[Variant, ...]:
        """The variants in which the picture moves."""
        return tuple(one for one in self.variants if one.animated) if self.frames > 1 else ()

    def stills(self) -> "Recipe":
        """The recipe for a picture that does not move: its text is then that of a recipe without animations."""
        return _stills(self)

    def _stills(self) -> "Recipe":
        variants = tuple(replace(one, animated=False) for one in self.variants)
        return replace(self, variants=variants, animation_factor=8, animation_seconds=60, frames=1)

    def playing(self, frames: int) -> "Recipe":
        """The recipe for an animation of so many frames: with a still of the size of the largest, and no further format
        of what moves."""
        moving = [one for one in self.variants if one.animated]
        if not moving:
            return self.stills()
        known = {one.name for one in self.variants}
        largest = next(one for one in self.variants if one.animated)
        poster = () if POSTER in known else (replace(largest, name=POSTER, animated=False),)
        names = {one.name for one in moving}
        further = tuple(one for one in self.further if one.size not in names)
        return replace(self, variants=(*self.variants, *poster), further=further, frames=frames)

    @property
    def crops(self) -> tuple[Variant, ...]:
        """The variants that show a part of the picture, in every format."""
        return tuple(variant for variant in (*self.variants, *self.further) if variant.cover)

    def replaced_by(self, newer: "Recipe") -> "Recipe":
        """This recipe with the variants of a newer one: in the place of those of the same names, or beside them.

        The newer one's focal point counts for all crops, if it has any, since they are made together.
        """
        named = {variant.name: variant for variant in (*self.variants, *self.further, *newer.variants)}
        variants = tuple(variant for name, variant in named.items() if not is_further(name))
        further = tuple(variant for name, variant in named.items() if is_further(name))
        focal = newer.focal if newer.crops else self.focal
        merged = replace(self, variants=variants, further=further, focal=focal)
        if not newer.moving:
            return merged
        return replace(  # with the limits that let it move
            merged,
            frames=max(self.frames, newer.frames),
            max_frames=newer.max_frames,
            animation_factor=newer.animation_factor,
            animation_seconds=newer.animation_seconds,
        )

    def to_json(self) -> str:
        """As JSON. Members with default values are left out, so that the text equals that of versions before them."""
        return _text(self)

    def _to_json(self) -> str:
        lists = {name: [_given(variant) for variant in getattr(self, name)] for name in ("variants", "further")}
        found = asdict(self) | lists
        for name, usual in DEFAULTS.items():
            if found[name] in usual:
                del found[name]
        if self.keep_source == "none":
            del found["keep_source"]
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        return _parsed(text)

    @classmethod
    def _from_json(cls, text: str) -> "Recipe":
        given: dict[str, Any] = json.loads(text)
        focal = given.pop("focal", None)
        variants = tuple(Variant(**one) for one in given.pop("variants"))
        further = tuple(Variant(**one) for one in given.pop("further", ()))
        point = None if focal is None else (float(focal[0]), float(focal[1]))
        return cls(variants, **given, focal=point, further=further)


# Nearly all jobs have one of few recipes, whose text each job is asked for several times.
_text = lru_cache(REMEMBERED)(Recipe._to_json)
_parsed = lru_cache(REMEMBERED)(Recipe._from_json)
_stills = lru_cache(REMEMBERED)(Recipe._stills)


# Members that came later, and what they are where they are left out.
DEFAULTS: dict[str, tuple[object, ...]] = {
    "focal": (None,),
    "further": ([], ()),
    "animation_factor": (8,),
    "animation_seconds": (60,),
    "frames": (1,),
}


def is_further(name: str) -> bool:
    """Whether this is the name of a variant in a further format."""
    return FURTHER in name


def _given(variant: Variant) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(Variant)}
    return {name: value for name, value in asdict(variant).items() if value != defaults[name]}


def scratch_file(folder: Path, variant: str) -> Path:
    """The path at which a rendering leaves a variant, of whatever format, for the publisher."""
    return folder / f"{variant}.{FORMAT}"
