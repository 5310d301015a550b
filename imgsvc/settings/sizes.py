"""A variant as `[images] sizes` declares it: a number, or a table."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from ..imaging.recipe import FORMAT, MAX_SIDE, MOST_EFFORT, Format, Variant

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Quality = Annotated[int, Field(ge=0, le=100)]
Effort = Annotated[int, Field(ge=0, le=MOST_EFFORT["webp"])]
AvifEffort = Annotated[int, Field(ge=0, le=MOST_EFFORT["avif"])]


class Size(BaseModel):
    """A box in pixels: the whole picture inside it, or a part that covers it. Nothing is enlarged.

    Without quality and effort those of the settings of all variants of the format apply. A JPEG has no effort, and the
    quality of WebP. Without `animated` the settings of all variants decide.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    width: Side | None = None
    height: Side | None = None
    fit: Literal["inside", "cover"] = "inside"
    format: Format = FORMAT
    quality: Quality | None = None
    effort: AvifEffort | None = None
    animated: bool | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.width is None and self.height is None:
            raise ValueError("needs a width or a height")
        if self.fit == "cover" and None in (self.width, self.height):
            raise ValueError("fit = cover needs a width and a height")
        if self.format == "jpeg" and self.effort is not None:
            raise ValueError("effort belongs to WebP and AVIF: a JPEG has none")
        if self.animated and self.format != "webp":
            raise ValueError("animated belongs to WebP: an animation as JPEG or AVIF is its first frame")
        if (self.effort or 0) > MOST_EFFORT[self.format]:
            raise ValueError(f"effort = {self.effort}: that of WebP is at most {MOST_EFFORT[self.format]}")
        return self

    @property
    def longer(self) -> int:
        """The longer side that is given, in pixels."""
        return max(self.width or 0, self.height or 0)


_SIDE = TypeAdapter(Side, config=ConfigDict(defer_build=True))


def _number_or_table(value: Any) -> int | Size:
    """Raises PydanticCustomError with one sentence, which names the member of a table."""
    if isinstance(value, Size):
        return value
    try:
        return Size.model_validate(value) if isinstance(value, Mapping) else _SIDE.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        words = first["msg"].removeprefix("Value error, ")
        at = ".".join(str(part) for part in first["loc"])
        # The text is put in as a value: a brace in it would be taken for a name.
        message = f"{at} = {first['input']!r}: {words[0].lower()}{words[1:]}" if at else words
        raise PydanticCustomError("size", "{message}", {"message": message}) from None


SizeSetting = Annotated[int | Size, PlainValidator(_number_or_table, json_schema_input_type=Side)]


def longer_side(size: int | Size) -> int:
    return size if isinstance(size, int) else size.longer


def variant_of(name: str, size: int | Size, quality: int, effort: int) -> Variant:
    """The variant of a size, with this quality and effort unless a table has its own."""
    if isinstance(size, int):
        return Variant(name, size, quality, effort)
    return Variant(
        name,
        size.longer,
        quality if size.quality is None else size.quality,
        0 if size.format == "jpeg" else effort if size.effort is None else size.effort,
        size.width,
        size.height,
        size.fit == "cover",
        size.format,
    )


def animated_of(size: int | Size) -> bool | None:
    """Whether an animation stays one, where a table says so."""
    return None if isinstance(size, int) else size.animated


def format_of(size: int | Size) -> Format:
    return FORMAT if isinstance(size, int) else size.format
