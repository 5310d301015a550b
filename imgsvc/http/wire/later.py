"""Handlers that are imported when they are first needed: by a request, or by the API document.

The dashboard and the operator's API are a tenth of the service's modules and two fifths of its models. The first
request for one of them takes 10 to 15 ms more, once, in which the event loop waits.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import import_module
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]
PACKAGE = __package__.rpartition(".")[0]


def later(name: str) -> Handler:
    """The handler of this name in `imgsvc.http`, such as "dashboard.page.data"."""
    module, _, function = name.rpartition(".")

    @cache
    def found() -> Handler:
        handler: Handler = getattr(import_module(f"{PACKAGE}.{module}"), function)
        return handler

    async def handle(request: Request) -> Response:
        return await found()(request)

    setattr(handle, "found", found)  # noqa: B010, a function has no such attribute to a type checker
    return handle


def imported(handler: Any) -> Any:
    """The handler itself, whichever way a route has it."""
    return handler.found() if hasattr(handler, "found") else handler
