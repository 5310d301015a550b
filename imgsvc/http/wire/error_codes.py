"""The error codes: what happened and what to do, as shown by `/errors/{code}`. A test finds missing codes."""

from ...imaging.limits import SAMPLES_PER_PIXEL
from ...lazy_dataclass import dataclass
from ...settings import Settings


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
        "image_too_large": f"{images.max_pixels / 1e6:g} megapixels; "
        f"{images.max_pixels * SAMPLES_PER_PIXEL / 1e6:g} million samples in all scans of a JPEG",
        "rate_limited": f"{settings.rate_limit.max_uploads} uploads in {settings.rate_limit.window_minutes:g} minutes",
        "too_many_open_uploads": f"{uploads.max_open_per_user} uploads at the same time",
        "timeout": f"{settings.workers.time_limit_seconds:g} seconds, and "
        f"{settings.workers.time_limit_seconds_per_megapixel:g} for each megapixel",
        "overloaded": f"{jobs.max_waiting} waiting jobs, {uploads.max_open} uploads in progress",
        "signature_expired": f"{settings.storage.signed_url_seconds} seconds, and up to a minute more",
        "storage_full": f"{settings.storage.reserve_mb} MB are kept free",
    }
    return limits.get(code)


CODES = {
    "bad_request": Code(400, "The request could not be understood.", "Compare it with the API documentation."),
    "host_not_allowed": Code(
        400,
        "The request names a host that this service does not answer for.",
        "Add the name to [server] allowed_hosts, or set PUBLIC_URL to the address that clients use.",
    ),
    "too_many_images": Code(
        400, "More than 50 images were requested at once.", "Use several requests of at most 50 IDs."
    ),
    "token_missing": Code(401, "The request carries no token.", "Send the header Authorization: Bearer TOKEN."),
    "token_invalid": Code(
        401,
        "The token is malformed, signed with another key or algorithm, not yet valid, from another issuer, for another "
        "audience or without a usable sub, or its imgsvc claim is malformed.",
        "Make a new token with the key, algorithm, iss and aud of this service.",
    ),
    "token_expired": Code(401, "The token has expired.", "Make a new one and send the request again."),
    "ticket_spent": Code(
        401,
        "The upload ticket has been used for as many uploads as it was issued for.",
        "Ask your application for a new ticket.",
    ),
    "ticket_expired": Code(401, "The upload ticket has expired.", "Ask your application for a new ticket."),
    "operator_required": Code(
        401,
        "Only the operator may see or do this, and the request has no operator credentials.",
        "Open the link that imgsvc dashboard prints, or send the operator token as a bearer token.",
    ),
    "operator_refused": Code(
        401,
        "The operator token or one-use code is wrong, was used before, or is older than ten minutes.",
        "Get a new link with imgsvc dashboard. The token is OPERATOR_TOKEN, or in operator_token in the data folder.",
    ),
    "operator_attempts": Code(
        429,
        "Too many wrong operator tokens came from this address.",
        "Wait for Retry-After seconds. Browsers that are signed in are not affected.",
    ),
    "cross_site": Code(
        403,
        "The request may have been sent by a page of another site, through the operator's browser.",
        "Use the dashboard itself, or send the operator token as a bearer token. Behind a proxy, set PUBLIC_URL.",
    ),
    "not_retryable": Code(
        409,
        "Only a failed job whose uploaded bytes are still kept can be retried.",
        "Upload the image again. An upload is kept for [jobs] failed_source_hours if another attempt could help.",
    ),
    "task_running": Code(
        409,
        "Another maintenance task (verify, gc, migrate or backup) is running; only one runs at a time.",
        "Wait until it ends, or cancel it: GET or DELETE /api/v1/operator/storage/task.",
    ),
    "permission_denied": Code(
        403,
        "The token is valid, but its user may not do this.",
        "An image can be deleted by its uploader or an image:admin. Ask the issuer of your tokens for the permission.",
    ),
    "bucket_not_allowed": Code(
        403,
        "The token is valid, but for other buckets; the response lists them.",
        "Use one of them, or a token whose imgsvc claim names this bucket. A name does not include buckets below it.",
    ),
    "being_erased": Code(
        403,
        "This user is being erased, or was being erased when the upload began. Uploads, keys and tickets are refused.",
        "Nothing was stored. Once the erasure has ended, a user of the same name starts over.",
    ),
    "tokens_not_ours": Code(
        409,
        "Tokens are signed by an external issuer, so this service can check them but not make any.",
        "Get one from that issuer.",
    ),
    "signature_required": Code(
        403,
        "Images are private here: this address needs the expires and signature of a signed URL.",
        "Get the image's URLs with a token of its organisation: GET /api/v1/images/{image_id}.",
    ),
    "signature_invalid": Code(
        403,
        "The signature does not match this path, size and expiry, or its key is no longer in use.",
        "Use a URL exactly as the service returned it, or get a new one.",
    ),
    "signature_expired": Code(403, "The signed URL has expired.", "Get a new one from the service."),
    "render_refused": Code(
        403,
        "The address belongs to a render ticket whose run has ended or was given to another machine, or to no ticket.",
        "Nothing to do: the service has taken the job back. The address is for render machines only.",
    ),
    "not_found": Code(404, "There is nothing at this address.", "Check the path; /docs lists all of them."),
    "job_not_found": Code(404, "There is no such job, or its image was deleted.", "Check the ID in the receipt."),
    "webhook_not_found": Code(
        404, "No webhook of this name is configured.", "imgsvc webhooks list shows the names of [[webhooks]]."
    ),
    "key_not_found": Code(
        404, "There is no such API key, or it was revoked before.", "imgsvc keys list shows the keys and their IDs."
    ),
    "erasure_not_found": Code(
        404, "There is no erasure with this ID.", "imgsvc users erasures lists the latest with their IDs."
    ),
    "image_not_found": Code(
        404,
        "There is no such image: it was deleted, its processing failed, or it never existed.",
        "Look at the job: its error says why the image could not be made.",
    ),
    "image_not_ready": Code(
        404,
        "The image was accepted and is still being processed.",
        "Try again after Retry-After seconds, or wait for the job with Prefer: wait=30.",
    ),
    "size_not_available": Code(
        404,
        "The image has no variant of this name.",
        "/info lists the names; older images may have other variants.",
    ),
    "format_not_available": Code(
        404,
        "The variant was not made in this format.",
        "`formats` in the answer lists what there is; `format=auto` never fails for this reason.",
    ),
    "source_not_kept": Code(
        404,
        "The uploaded file was not kept; only its variants exist.",
        '[images] keep_source decides this at the time of the upload. Under "stripped" a damaged file is not kept.',
    ),
    "method_not_allowed": Code(
        405, "The address does not support this method.", "The Allow header lists the methods that it supports."
    ),
    "upload_stalled": Code(
        408,
        "The body stopped arriving, or arrived more slowly than the limit; nothing of it was kept.",
        "Send it again. The limits are [uploads] idle_timeout_seconds and min_bytes_per_second.",
    ),
    "not_completed": Code(409, "The job has not been completed.", "Look at its status; Prefer: wait=30 waits for it."),
    "idempotency_in_progress": Code(
        409,
        "Another upload with the same Idempotency-Key is being received right now.",
        "Wait for its response, or repeat the request after a second.",
    ),
    "variant_there": Code(
        409, "A render machine sent a variant that its run already has.", "Nothing to do: the first one counts."
    ),
    "length_required": Code(
        411,
        "A render machine sent a variant without its length.",
        "Send a Content-Length header; chunked bodies are not accepted.",
    ),
    "precondition_failed": Code(
        412,
        "The request's If-Match or If-Unmodified-Since names another version of this variant.",
        "Try again without the condition: a variant never changes while its image exists.",
    ),
    "upload_too_large": Code(
        413,
        "The file is larger than the limit, which the response states in bytes.",
        "Send a smaller file, or ask the operator to raise MAX_UPLOAD_SIZE_MB.",
    ),
    "variant_too_large": Code(
        413,
        "A render machine sent a variant with more bytes than any variant of its size can have.",
        "Check that machine: it runs another program, or has been taken over.",
    ),
    "unsupported_type": Code(
        415,
        "The content of the file is of a type that is not accepted; its name and Content-Type do not matter.",
        "Convert it to one of the types that the response lists.",
    ),
    "encoding_not_supported": Code(
        415,
        "The body is compressed (Content-Encoding); the response's Accept-Encoding says what is accepted.",
        "Send the bytes as they are: a picture is compressed already.",
    ),
    "range_not_satisfiable": Code(
        416, "The range is outside the file.", "The Content-Range header states the length of the file."
    ),
    "validation_error": Code(
        422, "A field, header or query parameter is missing or malformed.", "details lists which, and why."
    ),
    "idempotency_conflict": Code(
        422,
        "The Idempotency-Key was used within 24 hours with other bytes, another bucket or other metadata.",
        "Use a new key for a new upload.",
    ),
    "image_too_large": Code(
        422,
        "The image has more pixels, frames or scans, or needs more memory, than the limit; the response states both.",
        "Send a smaller image, or ask the operator to raise [images] max_pixels or [workers] memory_mb.",
    ),
    "image_unreadable": Code(
        422, "The file is damaged, truncated, or not what its first bytes claim.", "Check that it opens elsewhere."
    ),
    "image_unsupported": Code(
        422, "The file is valid, but of an unsupported kind (12-bit or lossless JPEG).", "Save it as a regular JPEG."
    ),
    "fetch_disabled": Code(
        403,
        "This service fetches no images by address.",
        "Upload the bytes, or ask the operator to name the host in [fetch] allowed_hosts.",
    ),
    "fetch_failed": Code(
        422,
        "The bytes could not be fetched: the host is not allowed or unknown, the address is not public, the connection "
        "failed, or the answer was not a 200 with the image itself. The answer does not say which; the log does.",
        "Check that the address answers 200 over https without a redirect, or upload the bytes.",
    ),
    "rate_limited": Code(
        429,
        "The user has used up the uploads of this window.",
        "Wait for Retry-After seconds; X-RateLimit-Reset is the end of the window.",
    ),
    "too_many_open_uploads": Code(
        429,
        "The user has the largest allowed number of uploads in progress.",
        "Wait until one has ended, and send a few at a time.",
    ),
    "memory_limit": Code(422, "Decoding needed more memory than this image may use.", "Send a smaller image."),
    "timeout": Code(
        500,
        "Processing took longer than the time limit.",
        "The service tries once more, after all other waiting jobs. If that fails too, send a smaller image.",
    ),
    "worker_crashed": Code(
        500,
        "This image crashed its worker process twice.",
        "The file is probably damaged. Save it again with another program.",
    ),
    "interrupted": Code(
        500, "The whole service ended ten times while it was processing this image.", "The operator can retry the job."
    ),
    "source_missing": Code(500, "The uploaded bytes are no longer there.", "Upload the image again."),
    "source_damaged": Code(
        500, "The uploaded bytes were changed or lost on the service's disk.", "Upload the image again."
    ),
    "row_damaged": Code(
        500,
        "The service's record of this image was changed or lost on its disk.",
        "Upload the image again. The operator should check the disk and the database.",
    ),
    "io_error": Code(
        500,
        "A file could not be read or written.",
        "The service tries again by itself; the log has the reason. The operator can retry a failed job.",
    ),
    "storage_error": Code(
        500,
        "The variants could not be stored.",
        "The service tries again by itself. Once the storage works, the operator can retry a failed job.",
    ),
    "place_taken": Code(
        500,
        "The bucket leads through the file of another image, so the variants can't be stored.",
        "Upload the image to another bucket. Since version 0.2.0 such a bucket is refused at the upload.",
    ),
    "internal_error": Code(
        500, "Something unexpected went wrong in the service.", "The trace ID leads the operator to the log entry."
    ),
    "overloaded": Code(
        503,
        "The service can't accept or answer this now: it is stopping, too many jobs are waiting or uploads are in "
        "progress, responses fill the memory reserved for them, or a write failed.",
        "Send it again after Retry-After seconds.",
    ),
    "authorization_unavailable": Code(
        503,
        "The authorization server, or the server that publishes the keys for tokens, could not be reached.",
        "Send it again after Retry-After seconds. The operator sees the server's state at /api/v1/health/auth.",
    ),
    "storage_not_configured": Code(
        503,
        "The image is in a storage that the settings no longer name; it is not lost.",
        "The operator must add that storage to the settings again (for S3: [s3] bucket and its keys).",
    ),
    "quota_exceeded": Code(
        507,
        "With this upload the images of the user or the organisation would exceed the quota; the response states the "
        "bytes that are used, the limit, and the least that the upload needs.",
        "Delete images that are not needed, or ask the operator to raise [quota] bytes_per_user or bytes_per_org.",
    ),
    "storage_full": Code(
        507,
        "Free space is below the reserve, so nothing new is accepted; what was accepted is still processed.",
        "The operator must make room, or lower [storage] reserve_mb.",
    ),
}
