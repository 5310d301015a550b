"""Lets the proxy send the bytes of a local variant (`[server] accel_redirect`): nginx' X-Accel-Redirect.

https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_ignore_headers

The service has decided by then that the client may have them. nginx takes Content-Type and Cache-Control over from this
response and keeps both even if it can't open the file, so that an error could be cached for a year: the lifetime of
public bytes is in X-Cache-Control, which the internal location adds to what it has really sent.
"""

from collections.abc import Mapping
from urllib.parse import quote

import structlog
from starlette.requests import Request
from starlette.responses import Response

from ...jobs.table.model import StoredVariant
from ...storage.base import LOCAL, Storage
from ..state import state_of
from .byte_headers import ByteHeaders
from .proxy_headers import FROM_PROXY

log = structlog.get_logger()

FAILED = "X-Accel-Failed"  # set by the proxy in a repeated request, because it could not send the file
DROPPED = ("Accept-Ranges", "Content-Range")  # the proxy has its own
PUBLIC_CACHING = "X-Cache-Control"


def is_sent_by_proxy(request: Request, storage: Storage, wanted: ByteHeaders, *, partial: bool) -> bool:
    """Whether the proxy sends this response. `partial`: it is a single range, shorter than the variant.

    Requests with conditions are not for the proxy, which would compare them with its own ETag and the file's time, nor
    are ranges that are ignored here.
    """
    if request.method != "GET" or not request.scope.get(FROM_PROXY) or storage.name != LOCAL:
        return False
    if not state_of(request).settings.server.accel_redirect:
        return False
    if FAILED in request.headers:
        log.warning("accel_redirect_failed", path=quote(request.scope["path"]))
        return False
    conditional = (wanted.match, wanted.none_match, wanted.modified_since, wanted.unmodified_since, wanted.if_range)
    return all(value is None for value in conditional) and (wanted.range is None or partial)


def sent_by_proxy(request: Request, served: StoredVariant, headers: Mapping[str, str]) -> Response:
    """The response that names the file to the proxy. `headers` are those of the response to the client."""
    sent = {name: value for name, value in headers.items() if name not in DROPPED}
    if sent["Cache-Control"].startswith("public"):
        sent[PUBLIC_CACHING] = sent.pop("Cache-Control")
    location = state_of(request).settings.server.accel_redirect
    sent["X-Accel-Redirect"] = f"{location}{quote(f'{served.bucket}/{served.key}')}"
    return Response(status_code=200, headers=sent)
