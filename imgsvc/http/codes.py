"""Every error code: what happened and what to do, as `/errors/{code}` shows it. A test finds the codes that lack."""

from dataclasses import dataclass

from ..imaging.limits import SAMPLES_PER_PIXEL
from ..settings import Settings


@dataclass(frozen=True, slots=True)
class Code:
    status: int
    meaning: str
    advice: str


def limit_of(code: str, settings: Settings) -> str | None:
    """The limit behind a code, as this service is set, in words; None where there is none."""
    uploads, images, jobs = settings.uploads, settings.images, settings.jobs
    limits = {
        "too_many_images": "50 images in one request",
        "upload_stalled": f"{uploads.idle_timeout_seconds:g} seconds without data, "
        f"or {uploads.min_bytes_per_second} bytes per second",
        "upload_too_large": f"{uploads.max_size_mb:g} MB for the file",
        "unsupported_type": ", ".join(uploads.allowed_mime_types),
        "image_too_large": f"{images.max_pixels / 1e6:g} megapixels, {images.max_frames} frames; "
        f"{images.max_pixels * SAMPLES_PER_PIXEL / 1e6:g} million samples in all scans of a JPEG",
        "rate_limited": f"{settings.rate_limit.max_uploads} uploads in {settings.rate_limit.window_minutes:g} minutes",
        "too_many_open_uploads": f"{uploads.max_open_per_user} uploads at the same time",
        "timeout": f"{settings.workers.time_limit_seconds:g} seconds, and "
        f"{settings.workers.time_limit_seconds_per_megapixel:g} for each megapixel",
        "overloaded": f"{jobs.max_waiting} waiting jobs, {uploads.max_open} uploads on their way",
        "signature_expired": f"{settings.storage.signed_url_seconds} seconds, and up to a minute more",
        "storage_full": f"{settings.storage.reserve_mb} MB are kept free",
    }
    return limits.get(code)


# What only a job says, as its `error_code`.
JOB_CODES = (
    "memory_limit",
    "timeout",
    "worker_crashed",
    "interrupted",
    "source_missing",
    "source_damaged",
    "row_damaged",
    "io_error",
    "storage_error",
)

CODES = {
    "bad_request": Code(400, "The request could not be understood.", "Compare it with the API documentation."),
    "host_not_allowed": Code(
        400,
        "The request names a host that this service does not answer for.",
        "Add the name to [server] allowed_hosts, or set PUBLIC_URL to the address that clients use.",
    ),
    "too_many_images": Code(
        400, "More images were asked for at once than the limit of 50.", "Ask in several requests of at most 50 ids."
    ),
    "token_missing": Code(401, "The request carries no token.", "Send the header Authorization: Bearer TOKEN."),
    "token_invalid": Code(
        401,
        "The token is malformed, signed with another key or algorithm, not yet valid, from another issuer or for "
        "another audience, or lacks a usable sub; or its claim imgsvc is not to be understood.",
        "Make a new token with the key, algorithm, iss and aud of this service.",
    ),
    "token_expired": Code(401, "The token was good once; its exp has passed.", "Make a new one and send it again."),
    "operator_required": Code(
        401,
        "Only the operator may see or do this, and the request does not show that it is theirs.",
        "Open the link that imgsvc dashboard prints, or send the operator's token as a bearer.",
    ),
    "operator_refused": Code(
        401,
        "The operator's token or one-use code is wrong, was used before, or is older than ten minutes.",
        "Get a new link with imgsvc dashboard, or look the token up: OPERATOR_TOKEN, or operator_token among the data.",
    ),
    "operator_attempts": Code(
        429,
        "Too many wrong operator's tokens came from this address.",
        "Wait for Retry-After seconds. Who is signed in with a session is not affected.",
    ),
    "cross_site": Code(
        403,
        "The request could have been sent by a page of somebody else's, using the operator's browser.",
        "Use the dashboard itself, or send the operator's token as a bearer. Behind a proxy set PUBLIC_URL.",
    ),
    "not_retryable": Code(
        409,
        "Only a failed job whose uploaded bytes are still kept can be tried again.",
        "Upload the image again. A source is kept for [jobs] failed_source_hours where trying again could help.",
    ),
    "task_running": Code(
        409,
        "Another piece of upkeep (verify, gc, migrate or backup) is running, and there is one at a time.",
        "Wait for its end, or end it: GET or DELETE /api/v1/operator/storage/task.",
    ),
    "permission_denied": Code(
        403,
        "The token is good, but its user may not do this.",
        "An image is deleted by its uploader or an image:admin. Ask whoever gives out tokens if you should be allowed.",
    ),
    "bucket_not_allowed": Code(
        403,
        "The token is good, but for other buckets; the answer lists them.",
        "Use one of them, or a token whose claim imgsvc names this bucket. A name does not stand for those below it.",
    ),
    "tokens_not_ours": Code(
        409,
        "Tokens are signed by an issuer elsewhere, so this service can check them and not make any.",
        "Get one from that issuer.",
    ),
    "signature_required": Code(
        403,
        "Photos are private here: this address needs the expires and signature that come with a URL.",
        "Ask for the image's URLs with a token of its org: GET /api/v1/images/{image_id}.",
    ),
    "signature_invalid": Code(
        403,
        "The signature does not belong to this path, size and expiry, or its key is not in use any more.",
        "Use a URL exactly as it was handed out, or ask for a new one.",
    ),
    "signature_expired": Code(403, "The signed URL was good once; its time is over.", "Ask for a new URL."),
    "not_found": Code(404, "There is nothing at this address.", "Check the path; /docs lists all of them."),
    "job_not_found": Code(404, "There is no such job, or its image was deleted.", "Check the id of the receipt."),
    "image_not_found": Code(
        404,
        "There is no such image: it was deleted, its processing failed, or it never existed.",
        "Look at the job: its error says why an image could not be made.",
    ),
    "image_not_ready": Code(
        404,
        "The image was accepted and is still being processed.",
        "Ask again after Retry-After seconds, or wait for the job with Prefer: wait=30.",
    ),
    "size_not_available": Code(
        404, "The image has no variant of this name.", "/info lists the names; older images have those of their time."
    ),
    "method_not_allowed": Code(405, "The address exists, but not for this method.", "The header Allow lists those."),
    "upload_stalled": Code(
        408,
        "The body stopped coming, or came more slowly than the limit; nothing of it was kept.",
        "Send it again. The limits are [uploads] idle_timeout_seconds and min_bytes_per_second.",
    ),
    "not_completed": Code(409, "The job has not been completed.", "Look at its status; Prefer: wait=30 waits for it."),
    "idempotency_in_progress": Code(
        409,
        "Another upload with the same Idempotency-Key is being received right now.",
        "Wait for its answer, or send the same request again after a second.",
    ),
    "precondition_failed": Code(
        412,
        "The request's If-Match or If-Unmodified-Since names another version of this variant.",
        "Ask again without the condition: a variant never changes while its image exists.",
    ),
    "upload_too_large": Code(
        413,
        "The file is larger than the limit, which the answer names in bytes.",
        "Send a smaller file, or ask the operator to raise MAX_UPLOAD_SIZE_MB.",
    ),
    "unsupported_type": Code(
        415,
        "By its content the file is of a type that is not taken; its name and Content-Type do not matter.",
        "Convert it to one of the types that the answer lists.",
    ),
    "range_not_satisfiable": Code(
        416, "The range lies outside the file.", "The header Content-Range says how long the file is."
    ),
    "validation_error": Code(
        422, "A field, header or query parameter is missing or malformed.", "The list details says which, and why."
    ),
    "idempotency_conflict": Code(
        422,
        "The Idempotency-Key was used within 24 hours with other bytes, another bucket or other metadata.",
        "Use a new key for a new upload.",
    ),
    "image_too_large": Code(
        422,
        "The image has more pixels, frames or scans, or needs more memory, than the limit; the answer says both.",
        "Send a smaller image, or ask the operator to raise [images] max_pixels or [workers] memory_mb.",
    ),
    "image_unreadable": Code(
        422, "The file is damaged, truncated, or not what its first bytes claim.", "Check that it opens elsewhere."
    ),
    "image_unsupported": Code(
        422, "The file is valid, but of a kind that is not read (12-bit or lossless JPEG).", "Save it as a usual JPEG."
    ),
    "rate_limited": Code(
        429,
        "The user has made all uploads that one window allows.",
        "Wait for Retry-After seconds; X-RateLimit-Reset is the end of the window.",
    ),
    "too_many_open_uploads": Code(
        429,
        "The user has as many uploads on their way at the same time as one may.",
        "Let one end first; send a few at a time.",
    ),
    "memory_limit": Code(422, "Decoding needed more memory than this image may use.", "Send a smaller image."),
    "timeout": Code(
        500,
        "Processing took longer than the time limit.",
        "One further attempt follows, behind all that waits by then. If that fails too, send a smaller image.",
    ),
    "worker_crashed": Code(
        500, "The worker process died of this image, twice.", "The file is probably damaged on purpose. Save it anew."
    ),
    "interrupted": Code(
        500, "The whole service ended ten times while it worked on this image.", "The operator can try it again."
    ),
    "source_missing": Code(500, "The uploaded bytes are no longer there.", "Upload the image again."),
    "source_damaged": Code(
        500, "The uploaded bytes were changed or lost on the service's disk.", "Upload the image again."
    ),
    "row_damaged": Code(
        500,
        "What the service had noted about this image was changed or lost on its disk.",
        "Upload the image again. The operator should look at the disk and the database.",
    ),
    "io_error": Code(
        500,
        "A file could not be read or written.",
        "Further attempts follow by themselves; the log says why. The operator can let a failed job begin anew.",
    ),
    "storage_error": Code(
        500,
        "The variants could not be stored.",
        "Further attempts follow by themselves. Once the storage works, the operator can let a failed job begin anew.",
    ),
    "internal_error": Code(500, "Something went wrong inside.", "The trace id leads the operator to the log entry."),
    "overloaded": Code(
        503,
        "The service can't take or answer this now: it is stopping, too many jobs wait or uploads are on their way, "
        "answers fill the memory that is kept for them, or a write failed.",
        "Send it again after Retry-After seconds.",
    ),
    "authorization_unavailable": Code(
        503,
        "Whoever knows what the user may do, or the keys that tokens are signed with, could not be asked.",
        "Send it again after Retry-After seconds. The operator sees at /api/v1/health/auth how that server is doing.",
    ),
    "storage_not_configured": Code(
        503,
        "The image is kept in a storage that the settings do not name any more; it is not lost.",
        "The operator must put that storage back into the settings (for S3: [s3] bucket and its keys).",
    ),
    "storage_full": Code(
        507,
        "Free space is below the reserve, so nothing new is accepted; what was accepted is still processed.",
        "The operator must make room, or lower [storage] reserve_mb.",
    ),
}
