"""The responses of an operation in the API document: each status with its headers, schema and examples."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from ...settings import Settings
from ..wire.problems import PROBLEM
from .error_examples import example
from .headers import HEADERS, ON_EVERY_ANSWER, TRACE_EXAMPLE
from .operations import Answer, Content, Operation
from .schemas import Json, Schemas


def responses(settings: Settings, schemas: Schemas, one: Operation, codes: Sequence[str], head: bool) -> Json:
    """{status: its description}. HEAD has no bodies."""
    listed = {str(status): _answered(schemas, answer, head) for status, answer in one.answers.items()}
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(example(code, settings).status, []).append(code)
    for status, same in by_status.items():
        refused = _refused(settings, schemas, same, head)
        known = listed.setdefault(str(status), refused)
        if known is not refused:  # for example the unhealthy report, a regular response with an error status
            known["content"] = {**known.get("content", {}), **refused.get("content", {})}
            known["description"] += f" Or: {refused['description']}"
    return dict(sorted(listed.items()))


def _answered(schemas: Schemas, answer: Answer, head: bool) -> Json:
    answered: Json = {"description": answer.description, "headers": _headers(answer.headers, answer.sometimes)}
    if answer.links:
        answered["links"] = {name: {"operationId": name, "parameters": found} for name, found in answer.links.items()}
    if answer.body is None or head:
        return answered
    schema = schemas.of_answer(answer.body)
    shown = answer.body.example if isinstance(answer.body, Content) else _first_example(schemas, schema)
    media_type = answer.body.media_type if isinstance(answer.body, Content) else "application/json"
    medium = {"schema": schema, **({} if shown is None else {"example": shown})}
    page = answer.page
    other = {page.media_type: {"schema": dict(page.schema), "example": page.example}} if page else {}
    also = dict.fromkeys(answer.body.also, medium) if isinstance(answer.body, Content) else {}
    return {**answered, "content": {media_type: medium, **also, **other}}


def _first_example(schemas: Schemas, reference: Json) -> Any:
    schema = schemas.components[reference["$ref"].rpartition("/")[2]]
    return schema.get("examples", [None])[0]


def _refused(settings: Settings, schemas: Schemas, codes: Sequence[str], head: bool) -> Json:
    """The errors of one status, with the headers that these errors carry."""
    problems = [example(code, settings) for code in codes]
    every = set.intersection(*(set(problem.headers) for problem in problems))
    some = set.union(*(set(problem.headers) for problem in problems)) - every
    phrase = HTTPStatus(problems[0].status).phrase
    refused: Json = {
        "description": f"{phrase}: {', '.join(f'`{code}`' for code in codes)}.",
        "headers": _headers(sorted(every), sorted(some)),
    }
    if not head:
        # The reference comes first: a tool that ignores its siblings still recognizes a problem.
        schema = {**schemas.problem, "properties": {"code": {"enum": list(codes)}}}
        shown = {
            problem.code: {"summary": problem.detail, "value": problem.body(settings.service.public_url, TRACE_EXAMPLE)}
            for problem in problems
        }
        refused["content"] = {PROBLEM: {"schema": schema, "examples": shown}}
    return refused


def _headers(always: Iterable[str], sometimes: Iterable[str]) -> Json:
    listed = {name: {"$ref": f"#/components/headers/{name}"} for name in (*ON_EVERY_ANSWER, *sometimes)}
    return listed | {name: header(name, required=True) for name in always}


def header(name: str, *, required: bool) -> Json:
    """The documentation of a header, from `headers.py`."""
    found = HEADERS[name]
    return {"description": found.meaning, "required": required, "schema": found.schema, "example": found.example}
