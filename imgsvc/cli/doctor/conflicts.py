"""Settings that are valid alone but conflict with each other."""

import ipaddress
import re
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from ...settings import Settings, ignored_service_links
from ...settings.hosts import allowed_hosts, is_loopback
from .finding import Finding, warning, well, wrong

TOO_WIDE = 8  # prefix length of a network that is too large to contain only proxies


def settings(settings: Settings) -> Iterator[Finding]:
    found = [finding for look in LOOKS for finding in look(settings)]
    yield from found
    if not found:
        yield well("no settings conflict")


def _public_url(settings: Settings) -> Iterator[Finding]:
    url = urlsplit(settings.service.public_url)
    if not url.netloc:
        if not _is_local(settings):
            yield warning(
                f"it listens on {settings.server.host}, and public_url is empty",
                "set PUBLIC_URL to the address that clients use, so that returned URLs work behind a path prefix too",
            )
        return
    names = [name.lower() for name in allowed_hosts(settings)]
    host = url.netloc.rpartition("@")[2]
    host = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
    if names and host.lower() not in names:
        yield wrong(f"the name of public_url, {host}, is not in allowed_hosts", "add it, or requests to it get 400")


def _proxies(settings: Settings) -> Iterator[Finding]:
    server, url = settings.server, settings.service.public_url
    wide = [one for one in server.trusted_proxies if ipaddress.ip_network(one).prefixlen < TOO_WIDE]
    if wide:
        advice = "list the addresses of your proxies only"
        yield wrong(f"trusted_proxies contains {wide[0]}: anyone there can claim to be any client", advice)
    if url and not server.trusted_proxies and not server.certfile and url.startswith("https:"):
        yield warning(
            "public_url is https, there is no certfile, and trusted_proxies is empty",
            "set it to the proxy's address; otherwise the log and the limit on wrong tokens see only the proxy",
        )


def _in_the_clear(settings: Settings) -> Iterator[Finding]:
    server, url = settings.server, settings.service.public_url
    if not server.certfile and not url.startswith("https:") and not _is_local(settings):
        advice = "put a proxy with TLS in front, or set certfile and keyfile: tokens can be intercepted"
        yield warning(f"it listens on {server.host} without TLS", advice)


def _open_doors(settings: Settings) -> Iterator[Finding]:
    if settings.operator.public and (settings.service.public_url or not _is_local(settings)):
        yield warning("operator.public is true: anyone may read the dashboard", "it names users; set it to false")
    if "*" in settings.server.allowed_hosts and is_loopback(settings.server.host):
        advice = "list the host names: another site can point its own name at this address"
        yield warning("allowed_hosts is '*' on a loopback address", advice)


def _tokens(settings: Settings) -> Iterator[Finding]:
    auth = settings.auth
    if auth.api_url and auth.permissions != "remote":
        advice = "set AUTH_PERMISSIONS=remote, or remove AUTH_API_URL"
        yield warning(f"AUTH_API_URL is set, but permissions = {auth.permissions} does not use it", advice)
    if auth.permissions == "remote" and auth.fail_open:
        advice = "set AUTH_FAIL_OPEN=false, unless accepting uploads matters more than permissions"
        yield warning("AUTH_FAIL_OPEN is true: any valid token may do everything while the server is down", advice)
    if auth.jwks_insecure and auth.jwks_url.startswith("http:"):
        advice = "use https, unless you control everything in that network"
        yield warning("jwks_insecure is true: anyone who can change its traffic can make tokens", advice)
    if not auth.own_keys and not auth.audience:
        advice = "set AUTH_API_AUDIENCE, unless the issuer serves no other application"
        yield warning("tokens that the issuer made for other applications are accepted here too", advice)


def _presigned(settings: Settings) -> Iterator[Finding]:
    """Clients fetch variants from the store's own address."""
    s3 = urlsplit(settings.s3.public_endpoint_url or settings.s3.endpoint_url)
    public = urlsplit(settings.service.public_url)
    if not settings.s3.bucket or not s3.hostname or not public.hostname:
        return
    if (is_loopback(s3.hostname) or not re.search(r"[.:]", s3.hostname)) and not is_loopback(public.hostname):
        advice = "set IMGSVC_S3_PUBLIC_ENDPOINT_URL to the store's address for browsers"
        yield warning(f"presigned URLs lead to {s3.hostname}, which only this machine's network can resolve", advice)
    elif s3.scheme == "http" and public.scheme == "https":
        advice = "put TLS in front of the object storage too"
        yield warning("presigned URLs are http, but public_url is https: browsers may block them", advice)


def _disk(settings: Settings) -> Iterator[Finding]:
    if settings.storage.reserve_mb == 0:
        yield warning("storage.reserve_mb is 0", "keep some space free: a full disk stops the database")
    if settings.uploads.max_size_mb > settings.storage.reserve_mb > 0:
        advice = "make the reserve larger than one upload; otherwise a single one can fill the disk"
        yield warning("uploads.max_size_mb is more than storage.reserve_mb", advice)


def _sources(settings: Settings) -> Iterator[Finding]:
    if settings.images.keep_source == "as_is":
        advice = "set it to stripped, unless you need the uploads as they came"
        yield warning("images.keep_source is as_is: uploads are kept with their metadata, GPS included", advice)


def _service_links(_settings: Settings) -> Iterator[Finding]:
    if links := ignored_service_links():
        advice = "set enableServiceLinks: false in the pod's spec, or give the service another name"
        yield warning(
            f"{', '.join(links)}: ignored, since Kubernetes made {'it' if len(links) == 1 else 'them'}", advice
        )


def _is_local(settings: Settings) -> bool:
    """Whether only this machine reaches the service directly."""
    return bool(settings.server.unix_path) or is_loopback(settings.server.host)


LOOKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _public_url,
    _proxies,
    _in_the_clear,
    _open_doors,
    _tokens,
    _presigned,
    _disk,
    _sources,
    _service_links,
)
