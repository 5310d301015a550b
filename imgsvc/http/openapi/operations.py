"""Declares what a handler accepts and returns, next to the handler. /openapi.json is built from the same models.

@operation("images", "One variant of an image", query=SizeQuery, answers={200: ImageInfo}, errors=("image_not_found",))
async def info(request: Request) -> Response: ...
"""

from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ...lazy_dataclass import dataclass
from ..wire.later import Handler, imported
from ..wire.validation import Headers, Query

Access = Literal["public", "optional", "bearer", "signature", "ticket", "operator", "operator_acting"]

# The errors of every operation, and those that come with its access, a query, a header or a path parameter.
EVERYWHERE = ("host_not_allowed", "internal_error")
OF_ACCESS: Mapping[Access, tuple[str, ...]] = {
    "public": (),
    "optional": (),  # an invalid token counts as no token
    "bearer": ("token_missing", "token_invalid", "token_expired", "authorization_unavailable"),
    "signature": ("signature_required", "signature_invalid", "signature_expired"),
    "ticket": ("token_invalid", "ticket_spent", "ticket_expired"),
    "operator": ("operator_required", "operator_refused", "operator_attempts"),
    "operator_acting": ("operator_required", "operator_refused", "operator_attempts", "cross_site"),
}


@dataclass(frozen=True, slots=True)
class Content:
    """A body that is not a JSON model: its media type, its JSON schema, and an example if text can express one."""

    media_type: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    example: Any = None
    also: tuple[str, ...] = ()  # further media types of such a body


BYTES = "application/octet-stream"
BINARY = {"type": "string", "format": "binary"}
# Generators of clients know no images: BYTES makes them return the content.
IMAGE = Content("image/webp", BINARY, also=("image/jpeg", BYTES))
ASSET = Content("text/css", also=("text/javascript", "image/svg+xml", "image/png"))
PHOTO = Content(BYTES, BINARY)  # a body of its own, without a form
PAGE = Content("text/html", example="<!doctype html>…")


@dataclass(frozen=True, slots=True)
class Answer:
    """One status: its body (None: no body), and the names of its headers, which `headers.py` explains."""

    description: str
    body: type[BaseModel] | Content | None = None
    headers: tuple[str, ...] = ()  # on every such response
    sometimes: tuple[str, ...] = ()  # headers that depend on the request
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # {operation: {parameter: runtime expression}}
    page: Content | None = None  # instead of `body`, for clients that prefer a page


ASSET_ANSWERS = {
    200: Answer("A script, style or icon.", ASSET, ("ETag", "Cache-Control")),
    304: Answer("Not modified.", headers=("ETag", "Cache-Control")),
}


@dataclass(frozen=True, slots=True)
class Body:
    """A request body of one media type; `model` documents it, and a JSON body is validated with it."""

    media_type: str
    model: type[BaseModel] | Content


@dataclass(frozen=True, slots=True)
class Private:
    """The differences of an operation if reading is private (`[storage] signed_urls`)."""

    access: Access
    errors: tuple[str, ...] = ()
    query: type[Query] | None = None  # instead of the public one


@dataclass(frozen=True, slots=True)
class Operation:
    name: str
    tag: str
    summary: str
    description: str
    access: Access
    query: type[Query] | None
    headers: type[Headers] | None
    bodies: tuple[Body, ...]
    answers: Mapping[int, Answer]
    codes: tuple[str, ...]
    head: bool
    private: Private | None

    def kept_private(self) -> "Operation":
        """This operation as it is if reading is private."""
        if self.private is None:
            return self
        codes = (*EVERYWHERE, *OF_ACCESS[self.private.access], *self.private.errors, *self.codes)
        query = self.private.query or self.query
        return replace(self, access=self.private.access, query=query, codes=tuple(dict.fromkeys(codes)))


def operation(
    id: str,
    tag: str,
    summary: str,
    *,
    answers: Mapping[int, type[BaseModel] | Content | Answer],
    errors: tuple[str, ...] = (),
    access: Access = "public",
    query: type[Query] | None = None,
    headers: type[Headers] | None = None,
    body: type[BaseModel] | tuple[Body, ...] = (),
    head: bool = False,
    private: Private | None = None,
) -> Callable[[Handler], Handler]:
    """Declare a handler; its docstring becomes the description.

    `errors` are codes of `error_codes.py`, in addition to those of every operation. `head`: document HEAD separately.
    `private`: the differences if reading is private.
    """
    bodies = body if isinstance(body, tuple) else (Body("application/json", body),)
    implied: tuple[str, ...] = ("validation_error",) if query or headers or bodies else ()
    implied += ("encoding_not_supported",) if bodies else ()
    undescribed = Operation(
        name=id,
        tag=tag,
        summary=summary,
        description="",
        access=access,
        query=query,
        headers=headers,
        bodies=bodies,
        answers={status: _answer(status, given) for status, given in answers.items()},
        codes=tuple(dict.fromkeys((*EVERYWHERE, *OF_ACCESS[access], *implied, *errors))),
        head=head,
        private=private,
    )
    return partial(_declared, undescribed)


def _declared(undescribed: Operation, handler: Handler) -> Handler:
    """A handler that puts its operation into the request's scope."""
    declared = replace(undescribed, description=" ".join((handler.__doc__ or "").split()))

    async def handle(request: Request) -> Response:
        request.scope["imgsvc.operation"] = declared
        return await handler(request)

    handle.__name__, handle.__module__, handle.__doc__ = handler.__name__, handler.__module__, handler.__doc__
    return _with_operations(handle, {"": declared})


def by_method(**handlers: Handler) -> Handler:
    """One handler for a path with several methods: `by_method(GET=info, DELETE=delete)`. HEAD is handled like GET."""

    async def handle(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](request)

    declared = {method: found for method, handler in handlers.items() for found in operations_of(handler).values()}
    return _with_operations(handle, declared)


def operations_of(handler: Any) -> dict[str, Operation]:
    """{method: operation} of a handler. The method is empty if one handler serves all methods of its route."""
    found: dict[str, Operation] = getattr(imported(handler), "operations", {})
    return found


def _with_operations(handler: Handler, declared: dict[str, Operation]) -> Handler:
    setattr(handler, "operations", declared)  # noqa: B010, a function has no such attribute to a type checker
    return handler


def _answer(status: int, given: type[BaseModel] | Content | Answer) -> Answer:
    if isinstance(given, Answer):
        return given
    if isinstance(given, Content):
        return Answer("The bytes." if given is IMAGE else "The page.", given)
    words = " ".join((given.__doc__ or "").split("\n\n")[0].split())
    return Answer(words if words and status < 300 else "Done.", given)
