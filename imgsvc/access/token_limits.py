"""The claim `imgsvc` of a token: limits for its holder that are narrower than the service's."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError, model_validator

from ..settings.fields import INTEGRAL

CLAIM = "imgsvc"
MAX_NAMES = 1000  # of types or buckets; a token has no room for more anyway

Count = Annotated[StrictInt, Field(ge=0), INTEGRAL]
Names = Annotated[tuple[StrictStr, ...], Field(max_length=MAX_NAMES)]


class TokenLimits(BaseModel):
    """The limits of a token; None: not limited. An empty list allows nothing.

    `buckets` are complete names: `a` does not include `a/b`. An unknown member is refused, since a misspelt limit would
    otherwise have no effect. Sizes are in bytes and pixels.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    max_bytes: Count | None = None
    max_pixels: Count | None = None
    allowed_types: Names | None = None
    buckets: Names | None = None
    uploads_per_hour: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        """Refuse null: None means "no limit" here, but an issuer must omit the member for that."""
        if isinstance(value, dict) and None in value.values():
            raise ValueError("null is not a limit")
        return value

    @classmethod
    def of(cls, claims: dict[str, Any]) -> Self:
        """Parse the claim. Raises ValueError (pydantic's) if it is invalid."""
        return cls() if CLAIM not in claims else cls.model_validate(claims[CLAIM])

    def narrowed(self, by: "TokenLimits") -> "TokenLimits":
        """Both limits at once: the lower numbers, and what both lists have."""
        both = {
            "max_bytes": _lower(self.max_bytes, by.max_bytes),
            "max_pixels": _lower(self.max_pixels, by.max_pixels),
            "allowed_types": _in_both(self.allowed_types, by.allowed_types),
            "buckets": _in_both(self.buckets, by.buckets),
            "uploads_per_hour": _lower(self.uploads_per_hour, by.uploads_per_hour),
        }
        return TokenLimits.model_validate({name: limit for name, limit in both.items() if limit is not None})


def reason_of(error: ValidationError) -> str:
    """The first thing that is wrong with limits, in one line."""
    first = error.errors()[0]
    where, words = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if where else words


def _lower(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _in_both(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return tuple(name for name in one if name in other)


UNTIGHTENED = TokenLimits.model_construct()
