"""Two ways to match a path that Starlette's own routes lack."""

from urllib.parse import quote, unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class Literal(Route):
    """A path that an id would match too: a wrong method is refused here, and not taken for an id's."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child


class Encoded(Route):
    """A path whose values may hold any character, `/` too: it is matched as it was sent, and they are decoded then."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http":
            return Match.NONE, {}
        sent = scope.get("raw_path") or quote(scope["path"]).encode()
        match, child = super().matches({**scope, "path": sent.decode("latin-1")})
        for name in self.param_convertors if match is not Match.NONE else ():
            child["path_params"][name] = unquote(child["path_params"][name])
        return match, child
