"""The claim `imgsvc` of a token: limits of one holder that are narrower than those of the service."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, model_validator

CLAIM = "imgsvc"
MAX_NAMES = 1000  # of types or buckets; a token has no room for more anyway


def _whole(value: object) -> object:
    """JSON has one kind of number: 1e6 is the integer 1000000 (RFC 8259 section 6). NaN and infinity stay wrong."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[StrictInt, BeforeValidator(_whole), Field(ge=0)]
Names = Annotated[tuple[StrictStr, ...], Field(max_length=MAX_NAMES)]


class TokenLimits(BaseModel):
    """What a token leaves of the limits; None: all of it. An empty list leaves nothing.

    `buckets` are whole names: `a` does not stand for `a/b`. An unknown member is refused, since a limit that is
    misspelt would otherwise be no limit. Sizes are in bytes and pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: Count | None = None
    max_pixels: Count | None = None
    allowed_types: Names | None = None
    buckets: Names | None = None
    uploads_per_hour: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, value: Any) -> Any:
        """None is how we say that there is no limit: an issuer says so by leaving the member out."""
        if isinstance(value, dict) and None in value.values():
            raise ValueError("null is no limit")
        return value

    @classmethod
    def of(cls, claims: dict[str, Any]) -> Self:
        """Raises ValueError (pydantic's) for a claim that is not to be understood."""
        return cls() if CLAIM not in claims else cls.model_validate(claims[CLAIM])


UNTIGHTENED = TokenLimits()
