"""Query parameters and headers as pydantic models. The API document is built from the same models."""

import re
from functools import lru_cache
from typing import Any, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.datastructures import Headers as SentHeaders
from starlette.datastructures import QueryParams
from starlette.requests import Request

from .problems import Problem, validation

SHORT_BYTES, SHORT_ONES = 64, 1024  # of a query, or of an operation's headers, whose model is remembered; how many
LONG_BYTES, LONG_ONES = 2048, 128  # the same of a list of image IDs, which a page asks for again for each visitor
SHORT_TEXT = 20  # characters
NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
ONCE = ("Idempotency-Key", "X-Metadata")  # several lines of any other header form one list (RFC 9110 section 5.3)
Model = TypeVar("Model", bound="Query | Headers")


class Query(BaseModel):
    """A query string. Each field is a parameter, sent at most once; unknown ones are ignored."""

    model_config = ConfigDict(frozen=True, defer_build=True)


class StrictQuery(Query):
    """A query that refuses unknown parameters: a misspelt filter would return more than was requested."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Headers(BaseModel):
    """Request headers, under their aliases; others are ignored."""

    model_config = ConfigDict(frozen=True, defer_build=True)


def _whole_number(value: object) -> object:
    """Accept plain decimals only: Python would also accept ` 5 `, `+5`, `1_0` and `5.0`."""
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        raise ValueError("must be a whole number")
    return value


WHOLE_NUMBER = BeforeValidator(_whole_number)  # must be the last item of the Annotated type


def parsed(request: Request, model: type[Model]) -> Model:
    """The request's query or headers, validated with a model that its operation declares. Raises Problem (422)."""
    declared = request.scope["imgsvc.operation"]
    assert model in (declared.query, declared.headers), f"{declared.name} does not declare {model.__name__}"
    if issubclass(model, Query):
        query = request.scope["query_string"]
        if len(query) <= SHORT_BYTES:
            return cast(Model, _of_short_query(model, query))
        if len(query) <= LONG_BYTES:
            return cast(Model, _of_long_query(model, query))
        return _validated("query", request.query_params, model)
    names = _sent_names(model)
    headers = tuple([one for one in request.scope["headers"] if one[0] in names])
    if sum([len(value) for _, value in headers]) <= SHORT_BYTES and len(headers) <= len(names):
        return cast(Model, _of_short_headers(model, headers))
    return _validated("header", request.headers, model)


def _of_query(model: "type[Query]", sent: bytes) -> "Query":
    return _validated("query", QueryParams(sent), model)


# Most queries are one of a few, as the name of a variant is. A refused one is not remembered.
_of_short_query = lru_cache(SHORT_ONES)(_of_query)
_of_long_query = lru_cache(LONG_ONES)(_of_query)


@lru_cache(SHORT_ONES)
def _of_short_headers(model: "type[Headers]", sent: tuple[tuple[bytes, bytes], ...]) -> "Headers":
    """Most requests have none of them, or the same as another: an entity tag."""
    return _validated("header", SentHeaders(raw=list(sent)), model)


@lru_cache
def _sent_names(model: "type[Headers]") -> frozenset[bytes]:
    return frozenset((info.alias or field).lower().encode() for field, info in model.model_fields.items())


def _validated(place: str, given: QueryParams | SentHeaders, model: type[Model]) -> Model:
    values: dict[str, Any] = {}
    for field, info in model.model_fields.items():
        name = info.alias or field
        found = given.getlist(name)
        if len(found) > 1 and (place == "query" or name in ONCE):
            raise validation((_where((place,), (name,)), "must be given once", "duplicate"))
        if found:
            values[name] = ",".join(found)
    if issubclass(model, StrictQuery):
        values |= {name: text for name, text in given.items() if name not in values}
    try:
        return cast(Model, model.model_validate(values))
    except ValidationError as error:
        raise invalid(error, place) from None


def invalid(error: ValidationError, *place: str) -> Problem:
    """The 422 for pydantic's findings about the values in `place`."""
    return validation(*((_where(place, one["loc"]), _message(one), one["type"]) for one in error.errors()))


def _where(place: tuple[str, ...], inner: tuple[int | str, ...]) -> tuple[str, ...]:
    names = tuple(str(part) for part in inner)
    return (*place, *(name.lower() for name in names)) if place == ("header",) else (*place, *names)


def _message(found: ErrorDetails) -> str:
    """Pydantic's words, and the value where they name its limit alone."""
    text, value = found["msg"].removeprefix("Value error, "), found["input"]
    match found["type"]:
        case "extra_forbidden":
            return "is not known here"
        case "string_too_short" | "string_too_long":
            return f"{text}, not {len(value)}"
        case "greater_than_equal" | "less_than_equal" | "greater_than" | "less_than" if _is_short(value):
            return f"{text}, not {value}"
    return text


def _is_short(value: object) -> bool:
    """A number of thousands of digits is no help, and Python refuses to write it."""
    return len(value) <= SHORT_TEXT if isinstance(value, str) else isinstance(value, int | float) and abs(value) < 1e15
