"""The names that the service answers for."""

import ipaddress
from urllib.parse import urlsplit

from . import Settings

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(settings: Settings) -> list[str]:
    """The names that are answered for; none stands for all of them."""
    configured = list(settings.server.allowed_hosts)
    if "*" in configured:
        return []
    if configured:
        return configured
    host = settings.server.host
    if host != "localhost" and not (is_address(host) and ipaddress.ip_address(host).is_loopback):
        return []
    public = without_port(urlsplit(settings.service.public_url).netloc)
    return [*LOOPBACK_NAMES, host, *([public] if public else [])]


def without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # an IPv6 scope id may be any text
