"""Host names and addresses: which ones are this machine's, and which ones the service accepts."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from . import Settings

BRACKETED = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{0,5})?")
V4_WITH_PORT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3}):[0-9]{0,5}")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def allowed_hosts(settings: "Settings") -> list[str]:
    """The accepted host names; an empty list accepts all."""
    configured = list(settings.server.allowed_hosts)
    if "*" in configured:
        return []
    if configured:
        return configured
    host = settings.server.host
    if not is_loopback(host):
        return []
    named = (settings.service.public_url, settings.workers.service_url)
    public = [without_port(urlsplit(url).netloc) for url in named if url]
    return [*LOOPBACK_NAMES, host, *public]


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to this machine only; IPv6 with or without brackets."""
    if host in LOOPBACK_NAMES:
        return True
    return is_address(host) and ip_address(host).is_loopback


def parsed_address(text: str) -> IPv4Address | IPv6Address:
    """Parse an IP address. An IPv4 address in IPv6, as a dual-stack socket reports it, becomes IPv4.

    Raises ValueError.
    """
    address = ip_address(text)
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def forwarded_address(hop: str) -> str:
    """The address in an element of X-Forwarded-For, which some proxies send with a port, brackets or quotes.

    Anything else is returned unchanged.
    """
    hop = hop.strip().strip('"')
    if match := BRACKETED.fullmatch(hop):
        return match[1]
    if match := V4_WITH_PORT.fullmatch(hop):
        return match[1]
    return hop


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text  # an IPv6 scope id may be any text


def without_credentials(url: str) -> str:
    """The URL without user name and password, for display."""
    return re.sub(r"^([a-z][a-z0-9+.-]*://)[^/?#]*@", r"\1", url, flags=re.IGNORECASE)
