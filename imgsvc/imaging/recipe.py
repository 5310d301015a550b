"""The variants to make. Stored with each job when it is accepted, so that a repeated run gives the same bytes."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

FORMAT = "webp"
MAX_SIDE = 16_383  # pixels; a limit of the format (RFC 9649)


@dataclass(frozen=True, slots=True)
class Variant:
    """One output: the longer side in pixels (never enlarged), WebP quality (0..100) and effort (0..6)."""

    name: str
    side: int
    quality: int
    effort: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """The variants, largest first, and the limits that applied when the file was accepted."""

    variants: tuple[Variant, ...]
    max_pixels: int
    max_frames: int

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.variants, key=lambda variant: (-variant.side, variant.name)))
        object.__setattr__(self, "variants", ordered)

    @property
    def largest(self) -> Variant:
        return self.variants[0]

    @property
    def preview(self) -> Variant:
        """The variant that is made first: the smallest, since it appears soonest."""
        return self.variants[-1]

    def replaced_by(self, newer: "Recipe") -> "Recipe":
        """This recipe with the variants of a newer one: in the place of those of the same names, or beside them."""
        named = {variant.name: variant for variant in (*self.variants, *newer.variants)}
        return replace(self, variants=tuple(named.values()))

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Recipe":
        fields: dict[str, Any] = json.loads(text)
        return cls(tuple(Variant(**one) for one in fields.pop("variants")), **fields)


def scratch_file(folder: Path, variant: str) -> Path:
    """The path at which a rendering leaves a variant for the publisher."""
    return folder / f"{variant}.{FORMAT}"
