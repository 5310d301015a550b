"""The headers of a request for what looks at a few of every request: a dictionary of the first of each name."""

from starlette.types import Scope

Head = dict[bytes, bytes]  # {name in lower case: value}


def head_of(scope: Scope) -> Head:
    """Of several headers of one name the first, as Starlette's `Headers.get`."""
    return dict(reversed(scope["headers"]))
