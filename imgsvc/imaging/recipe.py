"""The variants to make. Stored with each job when it is accepted, so that a repeated run gives the same bytes."""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

Format = Literal["webp", "jpeg"]
FORMATS: tuple[Format, ...] = get_args(Format)
FORMAT: Format = "webp"
MAX_SIDE = 16_383  # pixels; a limit of the format (RFC 9649)


@dataclass(frozen=True, slots=True)
class Variant:
    """One output: the longer side in pixels (never enlarged), quality (0..100) and effort (0..6, of WebP).

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

    @property
    def box(self) -> tuple[int, int]:
        """Width and height in pixels that it does not exceed."""
        if self.width is None and self.height is None:
            return self.side, self.side
        return self.width or MAX_SIDE, self.height or MAX_SIDE


@dataclass(frozen=True, slots=True)
class Recipe:
    """The variants, largest first, and the limits that applied when the file was accepted.

    `focal` is the point that crops are made around (0..1 of the width and the height); None: the centre of attention.
    """

    variants: tuple[Variant, ...]
    max_pixels: int
    max_frames: int
    focal: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.variants, key=lambda variant: (-variant.side, variant.name)))
        object.__setattr__(self, "variants", ordered)

    @property
    def preview(self) -> Variant:
        """The variant that is made first: the smallest, since it appears soonest."""
        return self.variants[-1]

    @property
    def crops(self) -> tuple[Variant, ...]:
        """The variants that show a part of the picture."""
        return tuple(variant for variant in self.variants if variant.cover)

    def replaced_by(self, newer: "Recipe") -> "Recipe":
        """This recipe with the variants of a newer one: in the place of those of the same names, or beside them.

        The newer one's focal point counts for all crops, since they are made together.
        """
        named = {variant.name: variant for variant in (*self.variants, *newer.variants)}
        return replace(self, variants=tuple(named.values()), focal=newer.focal)

    def to_json(self) -> str:
        """Without what is as by default: the text of a recipe says what it said before there were these members."""
        found = asdict(self) | {"variants": [_given(variant) for variant in self.variants]}
        if self.focal is None:
            del found["focal"]
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        given: dict[str, Any] = json.loads(text)
        focal = given.pop("focal", None)
        variants = tuple(Variant(**one) for one in given.pop("variants"))
        return cls(variants, **given, focal=None if focal is None else (float(focal[0]), float(focal[1])))


def _given(variant: Variant) -> dict[str, Any]:
    defaults = {field.name: field.default for field in fields(Variant)}
    return {name: value for name, value in asdict(variant).items() if value != defaults[name]}


def scratch_file(folder: Path, variant: str) -> Path:
    """The path at which a rendering leaves a variant, of whatever format, for the publisher."""
    return folder / f"{variant}.{FORMAT}"
