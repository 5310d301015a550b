"""An example of each error for the API document, built by the same constructors as real errors."""

from collections.abc import Callable
from datetime import UTC, datetime

from starlette.exceptions import HTTPException

from ...access.permissions import UPLOAD, AuthorizationUnavailable, PermissionDenied
from ...access.tokens import NotOurs
from ...imaging.errors import TooLarge, Unsupported
from ...intake.file_types import TIFF
from ...intake.intake import IdempotencyInProgress, Overloaded
from ...intake.limits import BucketNotAllowed
from ...intake.open_uploads import TooManyOpenUploads
from ...intake.staging import NoSpace, UnsupportedType
from ...jobs.table.byte_quota import QuotaExceeded
from ...jobs.table.erasure import PersonBeingErased
from ...jobs.table.quota import Quota, RateLimited, RateLimitStatus
from ...jobs.table.transactions import IdempotencyConflict
from ...maintenance.runner import TaskRunning
from ...settings import Settings
from ...settings.fields import MEGABYTE
from ...storage.base import StorageNotConfigured
from ..wire import problems
from ..wire.body_rate import SlowClient
from ..wire.error_codes import CODES
from ..wire.error_mapping import MAPPING
from ..wire.problems import Problem

MOMENT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
FIXED: dict[str, Callable[[], Exception]] = {
    "encoding_not_supported": lambda: problems.encoding_not_supported("gzip"),
    "too_many_images": lambda: problems.too_many_images(50, 51),
    "token_missing": lambda: problems.not_authenticated("token_missing"),
    "token_invalid": lambda: problems.not_authenticated("token_invalid"),
    "token_expired": lambda: problems.not_authenticated("token_expired"),
    "ticket_spent": lambda: problems.not_authenticated("ticket_spent"),
    "ticket_expired": lambda: problems.not_authenticated("ticket_expired"),
    "permission_denied": lambda: PermissionDenied(UPLOAD),
    "being_erased": PersonBeingErased,
    "bucket_not_allowed": lambda: BucketNotAllowed("holiday", ("work", "work/2026")),
    "authorization_unavailable": lambda: AuthorizationUnavailable(5),
    "tokens_not_ours": NotOurs,
    "signature_required": problems.signature_required,
    "signature_invalid": problems.signature_invalid,
    "signature_expired": problems.signature_expired,
    "job_not_found": problems.job_not_found,
    "image_not_found": problems.image_not_found,
    "image_not_ready": lambda: problems.image_not_ready(2),
    "size_not_available": lambda: problems.size_not_available("huge", ("thumbnail", "medium")),
    "format_not_available": lambda: problems.format_not_available("medium", "avif", ("webp",)),
    "not_found": lambda: HTTPException(404),
    "method_not_allowed": lambda: HTTPException(405, headers={"Allow": "GET, HEAD"}),
    "not_completed": lambda: problems.not_completed("processing"),
    "idempotency_in_progress": IdempotencyInProgress,
    "idempotency_conflict": IdempotencyConflict,
    "precondition_failed": problems.precondition_failed,
    "range_not_satisfiable": lambda: problems.range_not_satisfiable(45_120),
    "validation_error": lambda: problems.validation((("query", "size"), "Field required", "missing")),
    "image_unsupported": lambda: Unsupported("A JPEG with 12 bits per sample is not supported."),
    "internal_error": problems.internal_error,
    "task_running": lambda: TaskRunning("verify"),
    "storage_not_configured": lambda: StorageNotConfigured("s3"),
}


def example(code: str, settings: Settings) -> Problem:
    """The example of `code` with these settings."""
    known, make = CODES[code], (FIXED | _limits(settings)).get(code)
    if make is None:
        return Problem(known.status, code, known.meaning)
    error = make()
    return next(problem_of(error) for kind, problem_of in MAPPING.items() if isinstance(error, kind))


def _limits(settings: Settings) -> dict[str, Callable[[], Exception]]:
    """Problems that name a limit of the settings."""
    uploads, images, waiting = settings.uploads, settings.images, settings.jobs.max_waiting
    return {
        "upload_stalled": lambda: SlowClient(f"No data arrived for {uploads.idle_timeout_seconds:g} seconds."),
        "upload_too_large": lambda: problems.upload_too_large(uploads.max_bytes, uploads.max_bytes + 1),
        "unsupported_type": lambda: UnsupportedType(TIFF, uploads.allowed_mime_types),
        "image_too_large": lambda: TooLarge(
            f"The image has {2 * images.max_pixels / 1e6:g} megapixels; "
            f"at most {images.max_pixels / 1e6:g} megapixels are allowed."
        ),
        "rate_limited": lambda: _rate_limited(settings),
        "too_many_open_uploads": lambda: TooManyOpenUploads(uploads.max_open_per_user, uploads.max_open_per_user),
        "overloaded": lambda: Overloaded(waiting, waiting),
        "quota_exceeded": lambda: QuotaExceeded("user", 10 * MEGABYTE, 9 * MEGABYTE, 2 * MEGABYTE),
        "storage_full": lambda: NoSpace(settings.storage.reserve_mb * MEGABYTE, MEGABYTE),
    }


def _rate_limited(settings: Settings) -> RateLimited:
    quota = Quota.of(settings.rate_limit)
    limit = quota.max_uploads
    return RateLimited(RateLimitStatus(limit, limit, MOMENT + quota.window), quota)
