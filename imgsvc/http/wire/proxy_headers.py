"""The client's real address and the host name: trusted proxies' headers, and the allowed hosts."""

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.types import Scope

from ...settings.hosts import forwarded_address, is_address, parsed_address, without_port
from .head import Head
from .problems import Problem

ABSOLUTE = re.compile(r"https?://([^/?#\s]+)", re.IGNORECASE)
HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/?#@\s]*)(:[0-9]{0,5})?")  # RFC 3986 section 3.2, without a user
FROM_PROXY = "imgsvc.from_proxy"  # in the scope of a request that a trusted proxy has sent
ADDRESSES = 256  # of connections that are remembered
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def take_absolute_target(scope: Scope) -> None:
    """`GET http://host/path`: the authority in the target replaces Host (RFC 9112 section 3.2.2)."""
    if scope["path"].startswith("/"):
        return
    if target := ABSOLUTE.match(scope["path"]):
        scope["path"] = scope["path"][target.end() :] or "/"
        scope["raw_path"] = quote(scope["path"]).encode()
        MutableHeaders(scope=scope)["Host"] = target[1]


class ForwardedHeaders:
    """X-Forwarded-For, -Proto and -Host count only when the connection comes from a configured network.

    With `unix_socket` connections have no address, and come from a proxy that the socket's mode admits.
    """

    def __init__(self, networks: Sequence[str], *, unix_socket: bool = False) -> None:
        self._unix_socket = unix_socket
        self._networks: list[Network] = [ipaddress.ip_network(network) for network in networks]
        self._trusts = lru_cache(ADDRESSES)(self._is_in_networks)

    def apply(self, scope: Scope) -> None:
        """Put the client, the scheme and the host into the scope, if its connection is a proxy's."""
        if not self._is_proxy(scope.get("client")):
            return
        scope[FROM_PROXY] = True
        headers = MutableHeaders(scope=scope)
        listed = ",".join(headers.getlist("X-Forwarded-For")).split(",")
        hops = [forwarded_address(hop) for hop in listed if hop.strip()]
        # From the right, the first address that is no trusted proxy is the client. Addresses left of it may be
        # forged.
        client = next((hop for hop in reversed(hops) if not self._is_in_networks(hop)), None)
        if client and is_address(client):
            scope["client"] = (client, 0)
        if (scheme := headers.get("X-Forwarded-Proto", "").lower()) in ("http", "https"):
            scope["scheme"] = scheme
        if host := headers.get("X-Forwarded-Host"):
            headers["Host"] = host

    def _is_proxy(self, client: tuple[str, int] | None) -> bool:
        if client is None:
            return self._unix_socket
        return bool(self._networks) and self._trusts(client[0])

    def _is_in_networks(self, address: str) -> bool:
        try:
            parsed = parsed_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


class AllowedHosts:
    """Refuses other host names, which another site's page could point at this address (DNS rebinding)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name.lower() for name in names}
        self._accepted = b""  # the last Host that was: one client after the other names the same

    def refused(self, scope: Scope, head: Head) -> Problem | None:
        """The error for this request; None if it is for this service."""
        sent = head.get(b"host", b"")
        host = sent.decode("latin-1")
        if not sent or sent != self._accepted:
            if not HOST.fullmatch(host):
                return Problem(400, "bad_request", "The header Host is malformed.")
            if self._names and without_port(host).lower() not in self._names:
                return Problem(400, "host_not_allowed", "The host named in the request is not one of this service's.")
            self._accepted = sent
        if scope["path"].endswith("\n"):  # a route's `$` also matches before it: a second address of each path
            return Problem(404, "not_found", "Not Found")
        return None
