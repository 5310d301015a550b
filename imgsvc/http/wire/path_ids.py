"""Ids in paths: a malformed one is simply not found."""

from collections.abc import Callable

from starlette.requests import Request

from ...storage.keys import IS_UUID
from .problems import Problem


def path_id(request: Request, name: str, not_found: Callable[[], Problem]) -> str:
    """The id in the path, in the lower case it was made in. Raises what `not_found` makes."""
    text = str(request.path_params[name])
    if not IS_UUID.fullmatch(text):
        raise not_found()
    return text.lower()
