"""The filters of a list's page: a form that works without a script, and days in place of moments."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from ..wire.problems import Problem
from ..wire.validation import StrictQuery, invalid

Query = TypeVar("Query", bound=StrictQuery)
FROM, UNTIL = "from", "until"  # days in UTC, the last one included


def given(request: Request) -> dict[str, str]:
    """What the form sent: fields without text are none."""
    return {name: text.strip() for name, text in request.query_params.items() if text.strip()}


def query_of(sent: Mapping[str, str], model: type[Query]) -> tuple[Query | None, str]:
    """The query of a form's fields; None, and in words why, if it is malformed. Fields that are unknown are ignored."""
    values = {name: text for name, text in sent.items() if name in model.model_fields}
    try:
        if FROM in sent:
            values["created_after"] = _midnight(date.fromisoformat(sent[FROM]))
        if UNTIL in sent:
            values["created_before"] = _midnight(date.fromisoformat(sent[UNTIL]) + timedelta(days=1))
    except (ValueError, OverflowError):
        return None, "A day is written like 2026-03-01."
    try:
        return model.model_validate(values), ""
    except ValidationError as error:
        return None, reason_of(invalid(error, "query"))


def day_of(sent: Mapping[str, str], name: str) -> str:
    """The day of a field as a form shows it again; empty if it is none."""
    try:
        return date.fromisoformat(sent.get(name, "")).isoformat()
    except ValueError:
        return ""


def reason_of(problem: Problem) -> str:
    """A 422 in words."""
    details = problem.more.get("details") or ()
    return " ".join(f"{one['loc'][-1]}: {one['msg']}." for one in details) or problem.detail


def _midnight(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"
