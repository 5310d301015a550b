"""The metrics that Prometheus scrapes. The values of every label come from a closed set."""

from typing import Literal, get_args

from prometheus_client import Info, ProcessCollector
from prometheus_client.exposition import choose_encoder

from .. import __version__
from ..access.guarded_client import Reason
from ..jobs.table.byte_quota import Whose
from ..settings import Settings
from ..storage.instrumented import Operation, OperationStatus
from .access_metrics import AccessMetrics
from .job_metrics import JobMetrics
from .metric_registry import FINE_SECONDS, ByLabels, MetricRegistry
from .webhook_metrics import WebhookMetrics
from .worker_metrics import ClusterMetrics, WorkerMetrics

UploadStatus = Literal["accepted", "replayed", "rejected", "aborted"]
Remembered = Literal["row", "variant"]

OPENMETRICS = "application/openmetrics-text"


class HttpMetrics:
    """Requests, and the errors that answer them."""

    def __init__(self, registry: MetricRegistry) -> None:
        self.in_progress = 0
        self._begin_at_zero = registry.begin_at_zero
        self._in_progress = registry.gauge("http_requests_in_progress", "Requests in progress, including this one.")
        self._streams = registry.gauge("http_event_streams_open", "Streams of server-sent events that are open.")
        self._requests = ByLabels(
            registry.counter(
                "http_requests_total",
                "Requests; endpoint is the route's template, unmatched without one; 499: the client disconnected.",
                "method",
                "endpoint",
                "status",
            )
        )
        self._request_seconds = ByLabels(
            registry.histogram(
                "http_request_duration_seconds",
                "Time until the last byte was written; uploads include the time that the client takes to send.",
                "method",
                "endpoint",
            )
        )
        self._errors = registry.counter(
            "errors_total", "Error responses; error_type is the error code.", "error_type", "endpoint"
        )

    def request(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        self._requests[method, endpoint, status].inc()
        self._request_seconds[method, endpoint].observe(seconds)

    def error(self, error_type: str, endpoint: str) -> None:
        self._errors.labels(error_type, endpoint).inc()

    def expects_error(self, error_type: str, endpoint: str) -> None:
        self._begin_at_zero(self._errors, error_type, endpoint)

    def measured(self, streams: int) -> None:
        self._in_progress.set(self.in_progress)
        self._streams.set(streams)


class UploadMetrics:
    """Uploads up to their receipt."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._uploads = registry.counter(
            "image_uploads_total",
            "Uploads by outcome; replayed: a repeated Idempotency-Key, aborted: the client disconnected.",
            "status",
        )
        self._limited = registry.counter("rate_limit_rejections_total", "Uploads refused with 429.")
        self._fetch_failures = registry.counter(
            "image_fetch_failures_total", "Uploads by address whose bytes could not be fetched, by reason.", "reason"
        )
        self._exceeded = registry.counter(
            "quota_rejections_total", "Uploads refused with 507, by whose quota of bytes they exceed.", "whose"
        )
        for whose in get_args(Whose):
            registry.begin_at_zero(self._exceeded, whose)
        self._set_aside = registry.gauge("image_uploads_set_aside", "Uploads without a row, which are kept for 7 days.")
        for status in get_args(UploadStatus):
            registry.begin_at_zero(self._uploads, status)
        for reason in (*get_args(Reason), "slow"):
            registry.begin_at_zero(self._fetch_failures, reason)

    def upload(self, status: UploadStatus) -> None:
        self._uploads.labels(status).inc()

    def rate_limited(self) -> None:
        self._limited.inc()

    def fetch_failed(self, reason: str) -> None:
        self._fetch_failures.labels(reason).inc()

    def quota_exceeded(self, whose: Whose) -> None:
        self._exceeded.labels(whose).inc()

    def measured(self, set_aside: int) -> None:
        """`set_aside`: files without a row."""
        self._set_aside.set(set_aside)


class StorageMetrics:
    """The database and the storage backends."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._begin_at_zero = registry.begin_at_zero
        self._queries = ByLabels(
            registry.histogram(
                "database_query_duration_seconds",
                "Time of a statement of queries.sql, or of commit: everything that the writer commits together.",
                "operation",
                buckets=FINE_SECONDS,
            )
        )
        self._storage = ByLabels(
            registry.counter(
                "storage_operations_total",
                "Storage requests, including those of the health check.",
                "backend",
                "operation",
                "status",
            )
        )
        self._storage_seconds = ByLabels(
            registry.histogram(
                "storage_operation_duration_seconds",
                "Time of a storage request; a read ends with its first 256 KiB.",
                "backend",
                "operation",
                buckets=FINE_SECONDS,
            )
        )
        registry.begin_at_zero(self._queries.metric, "commit")

    def uses(self, backend: str) -> None:
        for operation in get_args(Operation):
            self._begin_at_zero(self._storage_seconds.metric, backend, operation)
            for status in get_args(OperationStatus):
                self._begin_at_zero(self._storage.metric, backend, operation, status)

    def query(self, operation: str, seconds: float) -> None:
        self._queries[operation,].observe(seconds)

    def operation(self, backend: str, operation: Operation, status: OperationStatus, seconds: float) -> None:
        self._storage[backend, operation, status].inc()
        self._storage_seconds[backend, operation].observe(seconds)


class ReadMemoryMetrics:
    """The memory of reads (`[server] cache_mb`): rows of completed images, and small variants."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._bytes = registry.gauge("read_memory_bytes", "Bytes of rows and small variants in the memory of reads.")
        self._lookups = registry.counter(
            "read_memory_lookups_total",
            "Reads of a row or a small variant; hit: it was in memory, miss: the database or the storage was asked.",
            "kind",
            "result",
        )
        self._counted = {(kind, result): 0 for kind in get_args(Remembered) for result in ("hit", "miss")}
        for labels in self._counted:
            registry.begin_at_zero(self._lookups, *labels)

    def measured(self, held_bytes: int, kind: Remembered, hits: int, misses: int) -> None:
        """`hits` and `misses` since the start."""
        self._bytes.set(held_bytes)
        for result, count in (("hit", hits), ("miss", misses)):
            self._lookups.labels(kind, result).inc(count - self._counted[kind, result])
            self._counted[kind, result] = count


class Metrics:
    """All metrics, in one registry per application, since a process may run several. All times are in seconds."""

    def __init__(self, settings: Settings) -> None:
        self._collectors = MetricRegistry()
        ProcessCollector(registry=self._collectors)
        service = Info("service", "Always 1; the labels describe the service.", registry=self._collectors)
        service.info(
            {"name": settings.service.name, "version": __version__, "environment": settings.service.environment}
        )
        self.http = HttpMetrics(self._collectors)
        self.uploads = UploadMetrics(self._collectors)
        self.jobs = JobMetrics(self._collectors, settings.images.sizes)
        self.workers = WorkerMetrics(self._collectors)
        self.cluster = ClusterMetrics(self._collectors)
        self.storage = StorageMetrics(self._collectors)
        self.memory = ReadMemoryMetrics(self._collectors)
        self.access = AccessMetrics(self._collectors)
        self.webhooks = WebhookMetrics(self._collectors, [one.name for one in settings.webhooks.endpoints])

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its media type: OpenMetrics if `accept` contains it, else Prometheus' text format.

        Call it in a thread: it takes milliseconds, and ProcessCollector reads files.
        """
        # Only the media type's name: the client library fails on versions that are not numbers, and repeats the others.
        encode, media_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
        return encode(self._collectors), media_type
