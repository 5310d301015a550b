"""Ids in paths: a malformed one is simply not found."""

import re
from collections.abc import Callable

from starlette.requests import Request

from .problems import Problem

UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def path_id(request: Request, name: str, not_found: Callable[[], Problem]) -> str:
    """The id in the path, in the lower case it was made in. Raises what `not_found` makes."""
    text = str(request.path_params[name])
    if not UUID.fullmatch(text):
        raise not_found()
    return text.lower()
