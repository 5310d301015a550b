"""The response headers for /openapi.json."""

from typing import Any

from ...jobs.answer_model import JOB_ID
from ...lazy_dataclass import dataclass
from ...storage.base import IMMUTABLE

TEXT: dict[str, Any] = {"type": "string"}
SECONDS: dict[str, Any] = {"type": "integer", "minimum": 0}
ON_EVERY_ANSWER = ("X-Trace-ID", "X-Correlation-ID")
TRACE: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
TRACE_EXAMPLE = "3b1f0c9a-6a55-4a0e-9d6b-0d9c1f3c7a10"


@dataclass(frozen=True, slots=True)
class Header:
    meaning: str
    schema: dict[str, Any]
    example: Any


HEADERS = {
    "X-Trace-ID": Header("The ID in every log line of this request and of the job it starts.", TRACE, TRACE_EXAMPLE),
    "X-Correlation-ID": Header("The same as X-Trace-ID.", TRACE, TRACE_EXAMPLE),
    "Location": Header(
        "The URL of the job's status, or of the bytes.",
        {"type": "string", "format": "uri-reference"},
        f"/api/v1/images/jobs/{JOB_ID}",
    ),
    "Retry-After": Header("Seconds to wait before trying again.", SECONDS, 5),
    "Accept-Encoding": Header("The encodings of a body that are accepted.", {"const": "identity"}, "identity"),
    "Allow": Header("The methods of this address.", TEXT, "DELETE, GET, HEAD, PATCH"),
    "WWW-Authenticate": Header("How to authenticate (RFC 6750).", TEXT, 'Bearer realm="imgsvc"'),
    "X-RateLimit-Limit": Header("Uploads in one window.", SECONDS, 50),
    "X-RateLimit-Remaining": Header("Uploads left in this window.", SECONDS, 49),
    "X-RateLimit-Reset": Header(
        "The real end of the window.",
        {"type": "string", "format": "date-time"},
        "2026-03-01T13:00:00.000000+00:00",
    ),
    "Idempotency-Replayed": Header("This is the earlier response to the same key.", {"const": "true"}, "true"),
    "Preference-Applied": Header("The preference that was applied (RFC 7240).", TEXT, "wait=30"),
    "ETag": Header("Identifies these bytes; for If-None-Match, If-Match and If-Range.", TEXT, '"9f86d081884c7d65"'),
    "Last-Modified": Header("When the variant was made.", TEXT, "Sun, 01 Mar 2026 12:00:00 GMT"),
    "Cache-Control": Header("How long caches may keep the response.", TEXT, IMMUTABLE),
    "Accept-Ranges": Header("Single ranges of bytes are served.", {"const": "bytes"}, "bytes"),
    "Content-Disposition": Header("The file is to be saved, not shown.", TEXT, 'attachment; filename="…"'),
    "Content-Range": Header("The range that is sent, and the full length.", TEXT, "bytes 0-1023/45120"),
    "Vary": Header("The request headers that the response depends on.", TEXT, "Accept"),
    "Set-Cookie": Header(
        "The session, HttpOnly and SameSite=Strict.", TEXT, "imgsvc_session=…; HttpOnly; SameSite=strict"
    ),
    "Access-Control-Allow-Origin": Header("Which pages may read the response.", TEXT, "*"),
    "Cross-Origin-Resource-Policy": Header("Which pages may embed the response.", TEXT, "cross-origin"),
    "Content-Security-Policy": Header("What the page may load and run.", TEXT, "default-src 'none'"),
}
