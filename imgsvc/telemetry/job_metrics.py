"""The metrics of jobs: their ends, what they make and keep, and the queue."""

from collections.abc import Iterable, Mapping
from math import nan
from typing import Literal, get_args

from ..jobs.reuse import ReuseStatus
from ..jobs.run import FurtherStatus
from ..jobs.table.further_render import Kind
from ..jobs.table.reports import Waiting
from .metric_registry import MetricRegistry

JobStatus = Literal["completed", "failed", "retrying"]


class QueueMetrics:
    """Jobs that wait, and jobs that are being worked on."""

    def __init__(self, registry: MetricRegistry) -> None:
        self._active = registry.gauge("image_processing_jobs_active", "Jobs that worker processes are working on.")
        self._waiting = registry.gauge(
            "job_queue_length",
            "Jobs waiting for a preview, for a render, or for their next attempt; counted up to 100,000.",
            "lane",
        )
        self._oldest = registry.gauge("job_queue_oldest_seconds", "Age of the oldest job that is waiting for a lane.")

    def measured(self, waiting: Waiting | None, active: int) -> None:
        """`waiting` is None if it could not be read."""
        self._active.set(active)
        self._waiting.labels("previews").set(waiting.previews if waiting else nan)
        self._waiting.labels("renders").set(waiting.renders if waiting else nan)
        self._waiting.labels("retrying").set(waiting.retrying if waiting else nan)
        self._oldest.set(waiting.oldest_seconds or 0 if waiting else nan)


class JobMetrics:
    """Jobs and what they make. `sizes` are the names of the variants."""

    def __init__(self, registry: MetricRegistry, sizes: Iterable[str]) -> None:
        self._sizes = tuple(sizes)
        self._jobs = registry.counter("image_processing_jobs_total", "Times that a job reached this status.", "status")
        self._queue = QueueMetrics(registry)
        self._made = registry.histogram(
            "image_processing_duration_seconds", "Time to resize, encode and write one variant.", "size"
        )
        self._stored = registry.gauge(
            "image_storage_bytes",
            "Bytes of the variants of completed images; absent while a database of 0.1.0 is counted, once.",
            "size",
        )
        self._sources = registry.gauge("image_sources_kept", "Sources that [images] keep_source has kept.")
        self._source_bytes = registry.gauge("image_sources_kept_bytes", "Bytes of the kept sources.")
        self._reused = registry.counter(
            "image_reuse_total",
            "Uploads of a photo that its user has already: reused, or rendered because the first was gone, differs from"
            " its row, or could not be copied (error).",
            "status",
        )
        self._further = registry.counter(
            "image_further_renders_total",
            "Runs that rendered variants of a completed image again, by why and how they ended; requeued: the service "
            "stopped, overtaken: the image was deleted, moved or changed once more.",
            "kind",
            "status",
        )
        self._larger = registry.counter(
            "image_variants_larger_than_source_total",
            "Variants that have more bytes than their source, of the same pixels, with a lower quality too.",
            "size",
        )
        self._expired = registry.counter("images_expired_total", "Images deleted because their time was over.")
        self._held = registry.gauge(
            "time_based_removals_held",
            "1 while nothing is removed because of its age: the wall clock jumped within the last hour.",
        )
        self._begin_at_zero(registry)

    def _begin_at_zero(self, registry: MetricRegistry) -> None:
        for status in get_args(JobStatus):
            registry.begin_at_zero(self._jobs, status)
        for outcome in get_args(ReuseStatus):
            registry.begin_at_zero(self._reused, outcome)
        for kind in get_args(Kind):
            for status in get_args(FurtherStatus):
                registry.begin_at_zero(self._further, kind, status)
        for size in self._sizes:
            registry.begin_at_zero(self._made, size)
            registry.begin_at_zero(self._larger, size)

    def expired(self, images: int) -> None:
        self._expired.inc(images)

    def clocks_agree(self, agree: bool) -> None:
        self._held.set(not agree)

    def job_reused(self, status: ReuseStatus) -> None:
        self._reused.labels(status).inc()

    def rendered_again(self, kind: str, status: FurtherStatus) -> None:
        self._further.labels(kind, status).inc()

    def job_reached(self, status: str, jobs: int) -> None:
        if status in get_args(JobStatus):
            self._jobs.labels(status).inc(jobs)

    def variant_made(self, size: str, seconds: float) -> None:
        self._made.labels(size).observe(seconds)

    def variant_larger(self, size: str) -> None:
        self._larger.labels(size).inc()

    def sources(self, kept: tuple[int, int] | None) -> None:
        """How many are kept, and their bytes; None: that could not be read."""
        for gauge, value in zip((self._sources, self._source_bytes), kept or (nan, nan), strict=True):
            gauge.set(value)

    def measured(self, waiting: Waiting | None, active: int, stored: Mapping[str, int] | None) -> None:
        """Set what is read on scrape. None means unknown, which differs from 0."""
        self._queue.measured(waiting, active)
        if stored is not None:
            for size in {*self._sizes, *stored}:
                self._stored.labels(size).set(stored.get(size, 0))
