"""The words of the API document that belong to no single operation."""

from typing import Any

from ..settings import Settings
from .operations import Access

TAGS = {
    "uploads": "Hand in a photo and get a receipt.",
    "jobs": "What became of an upload.",
    "images": "Finished images: where their variants are, and their bytes.",
    "health": "Whether the service is well, and what it is doing.",
    "operator": "For whoever runs the service.",
    "about": "What this service is, what it is set to, and what its errors mean.",
}

PATH = {
    "job_id": "The `job_id` of a receipt.",
    "image_id": "The `image_id` of a receipt.",
    "code": "The `code` of an error.",
    "path": "Bucket and key, as the URLs that are handed out name them.",
    "asset": "A script, style or icon of the page.",
    "name": "A script, style or icon of the page.",
    "org": "The `org_id` of the user's tokens, percent-encoded (`/` as `%2F`).",
    "user": "The `sub` of the user's tokens, percent-encoded.",
}

SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A JWT with `sub`: `./run token --sub NAME` prints one.",
    },
    "signature": {
        "type": "apiKey",
        "in": "query",
        "name": "signature",
        "description": "Comes with the URLs that are handed out, and fits its own URL only.",
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
    reading = "Who knows an image's id can see the image."
    if settings.storage.signed_urls:
        reading = (
            "Photos are private. URLs are handed out to tokens of the uploader's org; each carries an expiry and a "
            "signature, and is to be used exactly as it is."
        )
    return f"""\
Takes photos, keeps its receipts, serves clean WebP variants ({variants}).

- **Receipts.** A 202 means that the bytes and the job are on disk: whatever happens then, the job ends as `completed`,
  or as `failed` with a code and a reason. Follow it at `status_url`; with `Prefer: wait=30` it answers at the end.
- **Sending again.** With an `Idempotency-Key` a repeated upload gets the first receipt again.
- **Reading.** {reading}
- **Errors** are `application/problem+json` (RFC 9457): `code` is stable, `detail` is for people, `type` leads to a page
  that explains the code, and `trace_id` stands in every log line of the request and its job.
- **Limits.** {limits}. An error of a limit says the limit and what was measured.
- **HEAD** is answered wherever GET is; an address answers methods that it lacks with 405 and `Allow`.
"""
