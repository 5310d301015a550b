"""GET /openapi.json: OpenAPI 3.1, built from the routes, their handlers' declarations, and their models."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import anyio
import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from ... import __version__
from ...settings import Settings
from ..wire.cached_response import CachedBody
from .description import PATH, SECURITY, SECURITY_SCHEMES, TAGS, description
from .headers import HEADERS, ON_EVERY_ANSWER
from .operations import BYTES, Answer, Content, Operation, operation, operations_of
from .responses import header, responses
from .schemas import Json, Schemas, parameters

HELD_HEADERS = ("ETag", "Cache-Control")
PHOTO_ALONE = "A form, or the photo alone, whose type may also be its own: {}."


@operation(
    "openapi_document",
    "about",
    "This document",
    answers={
        200: Answer(
            "OpenAPI 3.1.", Content("application/json", {"type": "object"}, {"openapi": "3.1.0"}), HELD_HEADERS
        ),
        304: Answer("Not modified.", headers=HELD_HEADERS),
    },
)
async def document(request: Request) -> Response:
    """The document that `/docs` shows; client generators read it too."""
    kept: Document = request.app.state.document
    return (await kept.held()).answer(request)


class Document:
    """Built in a thread at the first request, then kept as bytes: it depends only on settings, which never change."""

    def __init__(self, settings: Settings, routes: Sequence[BaseRoute]) -> None:
        self._settings, self._routes = settings, routes
        self._building = anyio.Lock()
        self._held: CachedBody | None = None

    async def held(self) -> CachedBody:
        async with self._building:
            if self._held is None:
                self._held = await anyio.to_thread.run_sync(self._build)
        return self._held

    def _build(self) -> CachedBody:
        text = json.dumps(build(self._settings, self._routes), ensure_ascii=False, separators=(",", ":"))
        return CachedBody(text.encode(), "application/json")


def build(settings: Settings, routes: Iterable[BaseRoute]) -> Json:
    """Build the OpenAPI document for these settings."""
    private = settings.storage.signed_urls
    listed = [(path, method, one.kept_private() if private else one) for path, method, one in described(routes)]
    operations = [one for _, _, one in listed]
    schemas = Schemas(operations)
    paths: dict[str, Json] = {}
    for path, method, one in listed:
        paths.setdefault(path, {})[method.lower()] = _operation(settings, schemas, path, method, one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": settings.service.name,
            "version": __version__,
            "description": description(settings),
        },
        "servers": [{"url": ".", "description": "the service that this document comes from"}, *_public(settings)],
        "tags": [{"name": tag, "description": TAGS[tag]} for tag in TAGS if any(one.tag == tag for one in operations)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "headers": {name: header(name, required=name in ON_EVERY_ANSWER) for name in HEADERS},
            "securitySchemes": {
                name: scheme
                for name, scheme in SECURITY_SCHEMES.items()
                if any(_needs(one, name) for one in operations)
            },
        },
    }


def described(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str, Operation]]:
    """Yield (path, method, operation) of each route. A path with a trailing slash is skipped: it repeats another."""
    for route in routes:
        assert isinstance(route, Route) and route.methods
        path = re.sub(r":\w+}", "}", route.path)
        if len(path) > 1 and path.endswith("/"):
            continue
        found = operations_of(route.endpoint)
        for method in sorted(route.methods - {"HEAD"}):
            one = found.get(method) or found.get("")
            if one is None:
                continue
            yield path, method, one
            if one.head:
                yield path, "HEAD", one


def _public(settings: Settings) -> list[Json]:
    url = settings.service.public_url
    return [{"url": url, "description": "the public address"}] if url else []


def _needs(one: Operation, scheme: str) -> bool:
    return any(scheme in way for way in SECURITY[one.access])


def _operation(settings: Settings, schemas: Schemas, path: str, method: str, one: Operation) -> Json:
    head = method == "HEAD"
    names = re.findall(r"{(\w+)}", path)
    codes = (*one.codes, *(["not_found"] if names and "not_found" not in one.codes else []))
    body = _request_body(settings, schemas, one)
    return {
        "operationId": f"{one.name}_head" if head else one.name,
        "tags": [one.tag],
        "summary": f"{one.summary} (headers only)" if head else one.summary,
        **({"description": one.description} if one.description else {}),
        "parameters": [
            *(_path_parameter(name) for name in names),
            *parameters("query", one.query),
            *parameters("header", one.headers),
        ],
        **({"requestBody": body} if body else {}),
        "responses": responses(settings, schemas, one, codes, head),
        "security": SECURITY[one.access],
    }


def _path_parameter(name: str) -> Json:
    value: Json = {"type": "string", "minLength": 1}
    if name.endswith("_id"):
        value = {"type": "string", "format": "uuid"}
    about = {"description": PATH[name]} if name in PATH else {}
    return {"name": name, "in": "path", "required": True, **about, "schema": value}


def _request_body(settings: Settings, schemas: Schemas, one: Operation) -> Json | None:
    content: Json = {}
    allowed = settings.uploads.allowed_mime_types
    for body in one.bodies:
        medium: Json = {"schema": schemas.of_body(body)}
        if body.media_type == "multipart/form-data":
            medium["encoding"] = {"file": {"contentType": ", ".join(allowed)}}
        content[body.media_type] = medium
    about = {"description": PHOTO_ALONE.format(", ".join(allowed))} if BYTES in content else {}
    return {"required": True, **about, "content": content} if content else None
