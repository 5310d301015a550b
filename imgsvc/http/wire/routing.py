"""Two kinds of routes that Starlette lacks, and a router that tries only the routes that can match."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from starlette.requests import Request
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

SHAPES = 256  # of paths that are remembered
Places = list[tuple[str, int]]  # (name of a value, number of its segment)
MAX_SEGMENTS = 16  # of a path that are looked at one by one


class Literal(Route):
    """A fixed path that a route with an ID would also match: a wrong method is refused and not passed on."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child


class Encoded(Route):
    """A path whose values may contain any character, `/` included: it is matched as sent, and decoded afterwards."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        sent = scope.get("raw_path") or quote(scope["path"]).encode()
        match, child = super().matches({**scope, "path": sent.decode("latin-1")})
        for name in self.param_convertors if match is not Match.NONE else ():
            child["path_params"][name] = unquote(child["path_params"][name])
        return match, child


class IndexedRouter:
    """Finds the same route as Starlette's router, the first of the table that matches, in a few candidates.

    They are looked up by the shape of the path: its segments, without those that occur in no route. `router`, which
    tries the whole table, gets everything else: a wrong path or method, a path below another application's, no HTTP.
    """

    def __init__(self, routes: Sequence[Route], router: ASGIApp) -> None:
        self._routes = routes
        self._router = router
        self._known = frozenset(part for route in routes for part in route.path.split("/") if not _is_variable(part))
        self._candidates = lru_cache(SHAPES)(self._of_shape)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._found(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        if route is None:
            await self._router(scope, receive, send)
            return
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> Route | None:
        """The route of a request, which is put into its scope."""
        known, parts = self._known, scope["path"].split("/", MAX_SEGMENTS)
        shape = tuple([part if part in known else None for part in parts])
        for route, places in self._candidates(shape):
            values = _values(route, places, parts, scope)
            if values is None:
                continue
            if route.methods and scope["method"] not in route.methods:
                return None  # Starlette's answer names the methods
            scope["route"] = route
            scope["endpoint"], scope["path_params"] = route.endpoint, values
            return route
        return None

    def _of_shape(self, shape: tuple[str | None, ...]) -> list[tuple[Route, Places | None]]:
        return [(route, _places(route)) for route in self._routes if _may_match(route, shape)]


def _may_match(route: Route, shape: tuple[str | None, ...]) -> bool:
    """Whether a path of this shape may match. A value that may contain `/` stands for any number of segments."""
    pattern = route.path.split("/")
    if isinstance(route, Encoded) or ":" in route.path:
        fixed = next(place for place, part in enumerate(pattern) if _is_variable(part))
        return list(shape[:fixed]) == pattern[:fixed]
    return len(pattern) == len(shape) and all(
        _is_variable(part) or part == given for part, given in zip(pattern, shape, strict=True)
    )


def _values(route: Route, places: Places | None, parts: list[str], scope: Scope) -> dict[str, Any] | None:
    """The values in a path that matches but for its method, perhaps; None if it does not match."""
    if places is None:
        match, found = route.matches(scope)
        return found["path_params"] if match is Match.FULL else None
    values = {name: parts[place] for name, place in places}
    return values if all(values.values()) else None


def _places(route: Route) -> Places | None:
    """Where the values of a plain pattern are among the path's segments; None if only the route itself knows."""
    if isinstance(route, Encoded) or ":" in route.path:
        return None
    return [(part[1:-1], place) for place, part in enumerate(route.path.split("/")) if _is_variable(part)]


def _is_variable(part: str) -> bool:
    return part.startswith("{")
