"""The filters of a list's page: a form that works without a script, with days, or minutes where a link names them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from ..look.components import text_field
from ..look.html import Html
from ..wire.problems import Problem
from ..wire.validation import StrictQuery, invalid

Query = TypeVar("Query", bound=StrictQuery)
FROM, UNTIL = "from", "until"  # days or minutes in UTC, the last one included
MINUTE = "%Y-%m-%dT%H:%M"


def given(request: Request) -> dict[str, str]:
    """What the form sent: fields without text are none."""
    return {name: text.strip() for name, text in request.query_params.items() if text.strip()}


def query_of(sent: Mapping[str, str], model: type[Query], times: str = "created") -> tuple[Query | None, str]:
    """The query of a form's fields; None, and in words why, if it is malformed. Fields that are unknown are ignored.

    `times`: what the form's two times are about, as the query's fields begin.
    """
    values = {name: text for name, text in sent.items() if name in model.model_fields}
    try:
        if FROM in sent:
            values[f"{times}_after"] = _span(sent[FROM])[0].isoformat()
        if UNTIL in sent:
            values[f"{times}_before"] = _span(sent[UNTIL])[1].isoformat()
    except (ValueError, OverflowError):
        return None, "A day is written like 2026-03-01, and a minute like 2026-03-01T14:30, both in UTC."
    try:
        return model.model_validate(values), ""
    except ValidationError as error:
        return None, reason_of(invalid(error, "query"))


def time_field(name: str, label: str, sent: Mapping[str, str]) -> Html:
    """The field of a day, or of a minute if one was sent; empty if it is neither."""
    text = sent.get(name, "")
    try:
        begin, end = _span(text)
    except (ValueError, OverflowError):
        begin, end, text = datetime.min, datetime.min, ""
    if text and end - begin < timedelta(days=1):
        return text_field(name, f"{label} (UTC)", begin.strftime(MINUTE), type="datetime-local")
    return text_field(name, f"{label} day (UTC)", text and begin.date().isoformat(), type="date")


def minute_of(moment: datetime) -> str:
    """A moment as the fields take it."""
    return moment.astimezone(UTC).strftime(MINUTE)


def reason_of(problem: Problem) -> str:
    """A 422 in words."""
    details = problem.more.get("details") or ()
    return " ".join(f"{one['loc'][-1]}: {one['msg']}." for one in details) or problem.detail


def _span(text: str) -> tuple[datetime, datetime]:
    """The begin of a day or a minute, and that of the next one. Raises ValueError or OverflowError."""
    if len(text) <= len("2026-03-01"):
        begin, length = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC), timedelta(days=1)
    else:
        begin, length = datetime.strptime(text, MINUTE).replace(tzinfo=UTC), timedelta(minutes=1)
    return begin, begin + length
