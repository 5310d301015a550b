"""Texts of the API document that belong to no single operation."""

from typing import Any

from ...settings import Settings
from .operations import Access

TAGS = {
    "uploads": "Upload a photo and get a receipt.",
    "jobs": "Status and result of an upload.",
    "images": "Finished images: the addresses of their variants, and their bytes.",
    "health": "Whether the service works, and what it is doing.",
    "operator": "For the person who runs the service.",
    "about": "The service itself: version, limits, documentation, and the meaning of its errors.",
}

PATH = {
    "job_id": "The `job_id` of a receipt.",
    "image_id": "The `image_id` of a receipt.",
    "ticket": "The `ticket` that your application has got for you.",
    "key_id": "The `key_id` of an API key.",
    "code": "The `code` of an error.",
    "path": "Bucket and key, as in the URLs that the service returns.",
    "asset": "A script, style or icon of the page.",
    "name": "A script, style or icon of the page.",
    "org": "The `org_id` of the user's tokens, percent-encoded (`/` as `%2F`).",
    "webhook": "The name in `[[webhooks]]`.",
    "user": "The `sub` of the user's tokens, percent-encoded.",
}

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JWT with `sub`: `./run token --sub NAME` prints one. Or an API key: "
        "`imgsvc keys create --name NAME --sub NAME`.",
    },
    "signature": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "Part of the URLs that the service returns; valid for its own URL only.",
    },
    "operator_bearer": {"type": "http", "scheme": "bearer", "description": "The operator's token."},
    "operator_basic": {"type": "http", "scheme": "basic", "description": "The operator's token as the password."},
    "operator_session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "imgsvc_session",
        "description": "The session that the dashboard's login sets.",
    },
}

OF_OPERATOR: list[dict[str, list[str]]] = [{"operator_bearer": []}, {"operator_basic": []}, {"operator_session": []}]
SECURITY: dict[Access, list[dict[str, list[str]]]] = {
    "public": [],
    "optional": [{}, {"bearer": []}],
    "bearer": [{"bearer": []}],
    "signature": [{"signature": []}],
    "ticket": [],  # the address holds it
    "operator": OF_OPERATOR,
    "operator_acting": OF_OPERATOR,
}


def description(settings: Settings) -> str:
    uploads, limit = settings.uploads, settings.rate_limit
    variants = ", ".join(f"`{name}`" for name in settings.images.sizes)
    limits = (
        f"{uploads.max_size_mb:g} MB a file, {', '.join(uploads.allowed_mime_types)}, "
        f"{settings.images.max_pixels / 1e6:g} megapixels, "
        f"{limit.max_uploads} uploads per user in {limit.window_minutes:g} minutes"
    )
    reading = "Anyone who has an image's ID can view the image."
    if settings.storage.signed_urls:
        reading = (
            "Images are private. Only tokens of the uploader's organisation get URLs; they expire, are signed, "
            "and must be used exactly as returned."
        )
    return f"""\
Accepts photos and serves clean WebP variants ({variants}).

- **Receipts.** A 202 means that the bytes and the job are on disk: the job will end as `completed`, or as `failed` with
  a code and a reason, even if the service is killed. Follow it at `status_url`; `Prefer: wait=30` waits for its end.
- **Sending again.** With an `Idempotency-Key` a repeated upload gets the first receipt again.
- **Reading.** {reading}
- **Errors** are `application/problem+json` (RFC 9457): `code` is stable, `detail` is for people, `type` links to a page
  that explains the code, and `trace_id` is in every log line of the request and its job.
- **Limits.** {limits}. An error about a limit states the limit and the measured value.
- **HEAD** works wherever GET does; an unsupported method is answered with 405 and `Allow`.
"""
