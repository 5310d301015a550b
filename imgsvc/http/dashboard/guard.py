"""Pages behind the operator's session: `[operator] public` opens none of them."""

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.requests import Request
from starlette.responses import Response

from ..openapi.operations import PAGE, Answer
from ..operator import auth
from ..wire.problems import Problem
from .sign_in import sign_in_page

SIGN_IN = Answer("To a person: the page to sign in.", PAGE)
SHOWN = Answer("The page.", PAGE, ("Content-Security-Policy",))
PAGES = {200: SHOWN, 401: SIGN_IN, 429: SIGN_IN}


def operators_page(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Answer with the sign-in page, status 401, to a person who is not signed in, and refuse a program."""

    @wraps(handler)
    async def handle(request: Request) -> Response:
        try:
            await auth.require_signed_in(request)
        except Problem as refusal:
            if not auth.wants_page(request):
                raise
            return await sign_in_page(request, refusal.status, refusal.headers)
        return await handler(request)

    return handle
