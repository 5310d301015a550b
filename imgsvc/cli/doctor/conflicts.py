"""Settings that are fine alone and fight each other."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from ...settings import Settings, ignored_service_links
from ...settings.hosts import allowed_hosts, is_loopback
from .finding import Finding, warning, well, wrong

EVERYBODY = 8  # bits of a network that leave room for more than anybody's proxies


def settings(settings: Settings) -> Iterator[Finding]:
    found = [finding for look in LOOKS for finding in look(settings)]
    yield from found
    if not found:
        yield well("none fights another")


def _public_url(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.service.public_url)
    if not url.netloc:
        if not is_loopback(settings.server.host):
            yield warning(
                f"it listens on {settings.server.host}, and public_url is empty",
                "set PUBLIC_URL to the address that people use, so that URLs handed out work behind a prefix too",
            )
        return
    names = [name.lower() for name in allowed_hosts(settings)]
    host = url.netloc.rpartition("@")[2]
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    if names and host.lower() not in names:
        yield wrong(f"the name of public_url, {host}, is not in allowed_hosts", "add it, or requests to it get 400")


def _proxies(settings: Settings) -> Iterator[Finding]:
    server, url = settings.server, settings.service.public_url
    wide = [one for one in server.trusted_proxies if ipaddress.ip_network(one).prefixlen < EVERYBODY]
    if wide:
        advice = "name your proxies' own addresses"
        yield wrong(f"trusted_proxies holds {wide[0]}: anybody may then claim to be any client", advice)
    if url and not server.trusted_proxies and not server.certfile and url.startswith("https:"):
        yield warning(
            "public_url is https, there is no certfile, and trusted_proxies is empty",
            "set it to the proxy's address, or the log and the limit on wrong tokens take the proxy for every client",
        )


def _in_the_clear(settings: Settings) -> Iterator[Finding]:
    server, url = settings.server, settings.service.public_url
    if not server.certfile and not url.startswith("https:") and not is_loopback(server.host):
        advice = "put a proxy with TLS before it, or set certfile and keyfile: tokens can be read on their way"
        yield warning(f"it listens on {server.host} without TLS", advice)


def _open_doors(settings: Settings) -> Iterator[Finding]:
    if settings.operator.public and (settings.service.public_url or not is_loopback(settings.server.host)):
        yield warning("operator.public is true: everybody may read the dashboard", "it names users; set it to false")
    if "*" in settings.server.allowed_hosts and is_loopback(settings.server.host):
        advice = "name the hosts: a web page elsewhere can point its own name at this address"
        yield warning("allowed_hosts is '*' on a loopback address", advice)


def _tokens(settings: Settings) -> Iterator[Finding]:
    auth = settings.auth
    if auth.api_url and auth.permissions != "remote":
        advice = "set AUTH_PERMISSIONS=remote, or remove AUTH_API_URL"
        yield warning(f"AUTH_API_URL is set, and with permissions = {auth.permissions} nobody asks there", advice)
    if auth.permissions == "remote" and auth.fail_open:
        advice = "set AUTH_FAIL_OPEN=false, unless uploads matter more than who sends them"
        yield warning("AUTH_FAIL_OPEN is true: any valid token may do everything while the server is away", advice)
    if auth.jwks_insecure and auth.jwks_url.startswith("http:"):
        advice = "use https, unless nobody else can change what travels in that network"
        yield warning("jwks_insecure is true: whoever is on the way to the key set can make tokens", advice)
    if not auth.own_keys and not auth.audience:
        advice = "set AUTH_API_AUDIENCE, unless the issuer serves nothing else"
        yield warning("tokens that the issuer made for other applications are good here too", advice)


def _presigned(settings: Settings) -> Iterator[Finding]:
    """Who fetches a variant goes to the store's own address."""
    s3 = urlsplit(settings.s3.public_endpoint_url or settings.s3.endpoint_url)
    public = urlsplit(settings.service.public_url)
    if not settings.s3.bucket or not s3.hostname or not public.hostname:
        return
    if (is_loopback(s3.hostname) or not re.search(r"[.:]", s3.hostname)) and not is_loopback(public.hostname):
        advice = "set IMGSVC_S3_PUBLIC_ENDPOINT_URL to the address by which browsers reach the store"
        yield warning(f"presigned URLs lead to {s3.hostname}, which is known on this side only", advice)
    elif s3.scheme == "http" and public.scheme == "https":
        advice = "put TLS before the object storage too"
        yield warning("presigned URLs are http, and public_url is https: pages may not show them", advice)


def _disk(settings: Settings) -> Iterator[Finding]:
    if settings.storage.reserve_mb == 0:
        yield warning("storage.reserve_mb is 0", "leave some: a full disk stops the database in mid-work")
    if settings.uploads.max_size_mb > settings.storage.reserve_mb > 0:
        advice = "make the reserve larger than one upload, or a single one can fill the disk"
        yield warning("uploads.max_size_mb is more than storage.reserve_mb", advice)


def _service_links(_settings: Settings) -> Iterator[Finding]:
    if links := ignored_service_links():
        advice = "set enableServiceLinks: false in the pod's spec, or give the service another name"
        yield warning(
            f"{', '.join(links)}: ignored, since Kubernetes made {'it' if len(links) == 1 else 'them'}", advice
        )


LOOKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _public_url,
    _proxies,
    _in_the_clear,
    _open_doors,
    _tokens,
    _presigned,
    _disk,
    _service_links,
)
