"""Moments in requests (RFC 3339), and when an image expires: at a moment, or so many seconds from now."""

import re
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter

from ...jobs.table.model import as_text, now
from .problems import validation
from .validation import WHOLE_NUMBER

TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
SHORTEST_SECONDS, LONGEST_SECONDS = 60, 10 * 365 * 86_400


def _with_plus(text: object) -> object:
    """In a query a `+` that is not encoded arrives as a space."""
    return text.replace(" ", "+") if isinstance(text, str) else text


def _moment(text: str) -> str:
    """As the table writes it, so that it compares as text."""
    try:
        if re.fullmatch(TIME, text, re.ASCII):
            return as_text(datetime.fromisoformat(text.upper()))
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be an RFC 3339 time with an offset, such as 2026-03-01T00:00:00Z")


Moment = Annotated[
    str,
    # Without an example: a page that is made of the document would send it, and it is over one day.
    Field(json_schema_extra={"pattern": TIME}),
    AfterValidator(_moment),
    BeforeValidator(_with_plus),
]
Lifetime = Annotated[
    int,
    Field(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS, description="Seconds until the image expires, from its acceptance."),
    WHOLE_NUMBER,
]
AT_FIRST_USE = ConfigDict(defer_build=True)
MOMENT: TypeAdapter[str] = TypeAdapter(Moment, config=AT_FIRST_USE)
LIFETIME: TypeAdapter[int] = TypeAdapter(Lifetime, config=AT_FIRST_USE)


def expiry(place: str, seconds: int | None, moment: str | None) -> str | None:
    """When an image that is accepted now expires (RFC 3339); None: never. Raises Problem (422)."""
    if seconds is not None and moment is not None:
        message = "must not be sent together with expires_at"
        raise validation(((place, "expires_in"), message, "expiry_ambiguous"))
    if seconds is not None:
        return whole(as_text(now() + timedelta(seconds=seconds)))
    if moment is None:
        return None
    check_future(place, moment)
    return whole(moment)


def whole(moment: str) -> str:
    """The moment at a whole second, rounded up: signatures and presigned URLs end at whole seconds too."""
    found = datetime.fromisoformat(moment)
    return as_text(found.replace(microsecond=0) + timedelta(seconds=bool(found.microsecond)))


def check_future(place: str, moment: str) -> None:
    """Raises Problem (422) if an image can't expire at this moment."""
    present = now()
    if as_text(present) < moment <= as_text(present + timedelta(seconds=LONGEST_SECONDS)):
        return
    message = f"must be in the future, and at most ten years from now; it is {as_text(present)} here"
    raise validation(((place, "expires_at"), message, "expiry_out_of_range"))
