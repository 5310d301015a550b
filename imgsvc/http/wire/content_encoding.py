"""Content-Encoding of a request's body (RFC 9110 sections 8.4 and 15.5.16): none is supported.

A compressed body would be a second way to a decompression bomb, and saves nothing on a picture.
"""

from starlette.requests import Request

from .problems import encoding_not_supported


def check_encoding(request: Request) -> None:
    """Raises Problem (415) unless the body is sent as it is."""
    listed = ",".join(request.headers.getlist("Content-Encoding")).split(",")
    for name in listed:
        if name.strip().lower() not in ("", "identity"):
            raise encoding_not_supported(name.strip()[:40])
