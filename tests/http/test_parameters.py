"""Query parameters and headers: what a model says of them is what is refused, with where and why."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fixtures import make
from imgsvc.http.openapi.document import build, described
from imgsvc.http.openapi.operations import Content, operation
from imgsvc.http.wire.json_body import json_body
from imgsvc.http.wire.validation import Query, parsed
from imgsvc.service.routes import ROUTES
from tests.conftest import Service, Starter

TINY = make.tiny()
UPLOAD, BATCH, FAILED = "/api/v1/images/upload", "/api/v1/images/batch", "/api/v1/health/failed"


async def details(s: Service, method: str, url: str, headers: list[tuple[str, str]], **more: Any) -> list[Any]:
    """(loc, type) of each detail of a 422, none for another status."""
    sent = [*s.bearer().items(), *headers]
    response = await s.http.request(
        method, url, headers=[(name.encode(), value.encode()) for name, value in sent], **more
    )
    if response.status_code != 422:
        return []
    body = response.json()
    assert body["code"] == "validation_error"
    assert all(detail["msg"] for detail in body["details"])
    return [(detail["loc"], detail["type"]) for detail in body["details"]]


QUERIES: list[tuple[str, list[Any]]] = [
    (f"{FAILED}?limit=1&limit=1", [(["query", "limit"], "duplicate")]),
    (f"{FAILED}?limit=0", [(["query", "limit"], "greater_than_equal")]),
    (f"{FAILED}?limit=201", [(["query", "limit"], "less_than_equal")]),
    *((f"{FAILED}?limit={text}", [(["query", "limit"], "value_error")]) for text in ("", "x", "1.0", "%201", "1_0")),
    *((f"{FAILED}?limit={text}", [(["query", "limit"], "value_error")]) for text in ("+1", "%2B1", "%D9%A1", "9" * 99)),
    (f"{FAILED}?limit=200&other=1&other=2", []),
    (BATCH, [(["query", "image_ids"], "missing")]),
    (f"{BATCH}?image_ids=,", [(["query", "image_ids"], "too_short")]),
    (f"{BATCH}?image_ids=x&image_ids=x", [(["query", "image_ids"], "duplicate")]),
    (f"{BATCH}?image_ids=x&size=medium%0A", [(["query", "size"], "string_pattern_mismatch")]),
    (f"{BATCH}?size=..", [(["query", "size"], "string_pattern_mismatch"), (["query", "image_ids"], "missing")]),
    (f"{BATCH}?image_ids=x,%20,y&size=large", []),
]


async def test_a_refusal_says_in_words_what_a_text_must_be(start: Starter) -> None:
    async with start() as s:
        answer = (await s.http.get(f"{BATCH}?image_ids=x&size=Me%20dium{'m' * 99}")).json()
        words = "size: must be 1 to 32 letters a-z, digits, '_' and '-', the first a letter or digit, not 'Me dium"
        assert answer["reason"].startswith(words) and answer["reason"].endswith("m…'")
        assert answer["details"][0]["msg"] == answer["reason"].removeprefix("size: ")


async def test_a_refusal_names_the_value_beside_the_limit(start: Starter) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"uploads": 1001}, "uploads: Input should be less than or equal to 1000, not 1001"),
        ({"uploads": 0}, "uploads: Input should be greater than or equal to 1, not 0"),
        ({"uploads": 10**400}, "uploads: Input should be less than or equal to 1000"),
        ({"allowed_types": ["x" * 101]}, "allowed_types.0: String should have at most 100 characters, not 101"),
        ({"lifes": 1}, "lifes: is not known here"),
    ]
    async with start() as s:
        for given, words in cases:
            wanted = {"bucket": "b", **given}
            answer = await s.http.post("/api/v1/images/tickets", json=wanted, headers=s.bearer())
            assert (answer.status_code, answer.json()["reason"]) == (422, words)
        answer = await s.http.get(f"{FAILED}?limit=201")
        assert answer.json()["reason"] == "limit: Input should be less than or equal to 200, not 201"


def test_no_refusal_shows_a_pattern() -> None:
    """Pydantic would: a text that must match one is declared with Matching, or checked in words."""
    for path, method, found in described(ROUTES):
        models = (found.query, found.headers, *(body.model for body in found.bodies))
        for model in models:
            if isinstance(model, type) and issubclass(model, BaseModel):
                model.model_rebuild(force=True)
                assert not list(patterns(model.__pydantic_core_schema__)), f"{method} {path}: {model.__name__}"


def patterns(schema: Any) -> Iterator[str]:
    """Those that pydantic itself compares a text with."""
    if isinstance(schema, dict):
        if schema.get("type") == "str" and "pattern" in schema:
            yield schema["pattern"]
        for name, inner in schema.items():
            yield from () if name == "metadata" else patterns(inner)
    elif isinstance(schema, (list, tuple)):
        for inner in schema:
            yield from patterns(inner)


async def test_query(start: Starter) -> None:
    async with start() as s:
        for url, expected in QUERIES:
            assert await details(s, "GET", url, []) == expected, url


async def test_upload(start: Starter) -> None:
    form: dict[str, Any] = {"files": {"file": ("a.jpg", TINY)}, "data": {"bucket": "b"}}
    twice = [("X-Metadata", "{}")] * 2
    async with start() as s:
        for headers, found in (
            ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], (["header", "idempotency-key"], "duplicate")),
            ([("Idempotency-Key", "a" * 256)], (["header", "idempotency-key"], "string_too_long")),
            ([("Idempotency-Key", "")], (["header", "idempotency-key"], "string_too_short")),
            (twice, (["header", "x-metadata"], "duplicate")),
            ([("X-Metadata", "[]")], (["header", "x-metadata"], "dict_type")),
        ):
            assert await details(s, "POST", UPLOAD, headers, **form) == [found]
        assert await details(s, "POST", f"{UPLOAD}?bucket=a&bucket=a", [], **form) == [
            (["query", "bucket"], "duplicate")
        ]
        assert await details(s, "POST", f"{UPLOAD}?bucket=..", [], **form) == [(["query", "bucket"], "bucket_invalid")]
        prefer = [("Prefer", "respond-async"), ("Prefer", "wait=1")]  # a list, which may come in lines
        assert await details(s, "POST", UPLOAD, prefer, **form) == []
        assert s.state.jobs.counters.by_status()["failed"] == 0


class Note(BaseModel):
    text: Annotated[str, Field(max_length=5)]


@operation("note", "about", "Takes a note", body=Note, answers={200: Content("text/plain")})
async def noted(request: Request) -> Response:
    return Response((await json_body(request, Note)).text)


async def test_json_body(start: Starter) -> None:
    kind = [("Content-Type", "application/json; charset=utf-8")]
    async with start() as s:
        s.app.router.routes.append(Route("/noted", noted, methods=["POST"]))
        assert (await s.http.post("/noted", json={"text": "a"})).text == "a"
        for body, headers, found in (
            (b"{}", kind, (["body", "text"], "missing")),
            (b"{", kind, (["body"], "json_invalid")),
            (b'{"text": "longer"}', kind, (["body", "text"], "string_too_long")),
            (b'{"text": "a"}' + b" " * 65536, kind, (["body"], "too_long")),
            (b'{"text": "a"}', [], (["header", "content-type"], "content_type")),
        ):
            assert await details(s, "POST", "/noted", headers, content=body) == [found]
        described = build(s.settings, s.app.routes)
        taken = described["paths"]["/noted"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert taken == {"$ref": "#/components/schemas/Note"}
        assert described["components"]["schemas"]["Note"]["required"] == ["text"]


class Declared(Query):
    one: Annotated[int, Field(ge=0)] = 0


class Other(Query):
    two: int = 0


@operation("drifted", "about", "Parses what it does not declare", query=Declared, answers={200: Content("text/plain")})
async def drifted(request: Request) -> Response:
    return Response(str(parsed(request, Other).two))


async def test_handler_can_only_parse_what_it_declares(start: Starter) -> None:
    async with start() as s:
        s.app.router.routes.append(Route("/drifted", drifted))
        assert (await s.http.get("/drifted?two=1")).status_code == 500
