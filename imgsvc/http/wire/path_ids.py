"""IDs in paths. A malformed one is answered as not found."""

from collections.abc import Callable

from starlette.requests import Request

from ...storage.keys import IS_UUID
from .problems import Problem


def path_id(request: Request, name: str, not_found: Callable[[], Problem]) -> str:
    """The ID in the path, in lower case as generated. Raises what `not_found` makes."""
    text = str(request.path_params[name])
    if not IS_UUID.fullmatch(text):
        raise not_found()
    return text.lower()
