"""Two kinds of routes that Starlette lacks."""

from urllib.parse import quote, unquote

from starlette.routing import Match, Route
from starlette.types import Scope


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
