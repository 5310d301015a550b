"""One run of one job, from its claim until what its lane has rendered is checked."""

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
import structlog

from ..imaging.geometry import most_pixels
from ..imaging.limits import avif_seconds
from ..imaging.recipe import SOURCE
from ..lazy_dataclass import dataclass
from ..storage.base import Storage
from .deletion_hold import DeletionHold
from .failures import CANCELLED, CRASHED, IO_ERROR, ROW_DAMAGED, SOURCE_DAMAGED, SOURCE_MISSING
from .incoming import Incoming
from .lanes.base import Lane
from .lanes.files import output_names, with_free_files
from .lanes.messages import Lost, Outcome, Rendered, SourceMade, Task, VariantMade
from .lanes.split import Loan, SplitLane, can_be_split
from .rendered_files import (
    Untrue,
    check_answer,
    check_received,
    check_received_source,
    checked_file,
    most_bytes,
    received_at,
    source_header,
    take_checked,
    take_source,
)
from .retry import Failure, exclusive
from .reuse import ReuseStatus
from .table.job_table import JobTable
from .table.model import Job

log = structlog.get_logger()

# At least ten times what the most expensive file on the preview lane takes (`imaging.limits.has_cheap_preview`): 0.1 s.
PREVIEW_SECONDS = 2.0
PREVIEW_SECONDS_PER_MEGAPIXEL = 0.04
ADDED_BYTES = 64  # that a source without metadata may be larger: an orientation and a profile of other words
SPLIT_PIXELS = 1_000_000  # below, a second process and a second decode take as long as what they save


OnReuse = Callable[[ReuseStatus], None]  # called once for each job that had a twin
FurtherStatus = Literal["made", "retried", "failed", "overtaken", "requeued"]
OnFurther = Callable[[str, FurtherStatus], None]  # called with (kind, how it ended) for each run of a further render
FOR_PAGES = ("image/jpeg", "image/png", "image/webp")
OnLarger = Callable[[str], None]  # called with the name of a variant that is larger than its source
OnVariant = Callable[[str, float], None]  # called with (variant name, seconds spent) for each variant written


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a run, and the delay before a retry, all in seconds."""

    time_limit_seconds: float
    time_limit_seconds_per_megapixel: float
    retry_delay_seconds: float


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a run renders from: MIME type, SHA-256 of its bytes in hex, pixels, and length in bytes."""

    path: Path
    mime: str
    sha256: str
    pixels: int
    length: int


@dataclass(frozen=True, slots=True)
class RunContext:
    """The parts that all runs share."""

    table: JobTable
    storages: Mapping[str, Storage]
    staging: Path
    scratch: Path
    limits: Limits
    on_variant: OnVariant
    on_larger: OnLarger
    hold: DeletionHold
    on_reuse: OnReuse
    on_further: OnFurther
    presigned: timedelta  # how long a presigned URL may live
    incoming: Incoming


class Run:
    """One claim of one job. Discarded once the row has reached its next status."""

    def __init__(self, job: Job, context: RunContext) -> None:
        self.job = job
        self.context = context
        self.is_preview = job.preview == "wanted"
        self.requeued = False  # the service is stopping, or the task was lost: this does not count as an attempt
        self.cancelled = False  # the image was deleted
        self.over = anyio.Event()  # set once nothing of this run is active
        self.reserved_bytes = 0  # the memory ceiling of its worker
        self.lane_name = ""
        self.loan: Loan | None = None  # a second lane for it
        self.began = 0.0  # when it started on its lane, in monotonic seconds
        self.storage = context.storages[job.storage_backend]  # has its preview, even if new uploads go elsewhere
        self.staged = context.staging / (job.staging_path or job.job_id)
        self.source = Source(self.staged, job.mime_type, job.sha256, job.pixels, job.content_length)
        self.recipe, self.recipe_text = job.recipe, job.recipe_text
        self.done = tuple(job.paths) if job.preview == "done" else ()  # the variants that are stored already
        self.scratch = context.scratch / f"{job.job_id}.{job.run}"
        self.checked = context.scratch / f"checked-{self.scratch.name}"  # see `checked_file`
        self._is_received = False  # its files are put by a machine, and written by this process
        self._checked_names: list[str] = []  # the checked files that there may be
        self.log = log.bind(job_id=job.job_id, image_id=job.image_id, trace_id=job.trace_id, run=job.run)

    @property
    def can_be_split(self) -> bool:
        """Whether a second lane would make it sooner: not if the run is an exception, or the picture small."""
        job = self.job
        usual = not (self.is_preview or job.recipe_damaged or exclusive(deaths=job.deaths, starts=job.starts - 1))
        return usual and job.pixels >= SPLIT_PIXELS and can_be_split(self.recipe, self.done)

    @property
    def is_preemptible(self) -> bool:
        """Whether it is ended, and done later, as soon as an upload wants its lane or its memory."""
        return False

    async def render(self, lane: Lane | SplitLane) -> Outcome:
        """Render on the lane. The outcome is the worker's, and so is not to be believed before `check`."""
        self.lane_name = lane.name
        try:
            if self.cancelled:
                return CANCELLED
            if (failure := await self.prepare()) is not None:
                return failure
            self.context.incoming.begin(self.scratch.name, self.job.storage_backend)
            task = self._task()
            if not isinstance(lane, SplitLane) and not lane.local:
                self._is_received, self.checked, self._checked_names = True, received_at(task), output_names(task)
            outcome = await lane.run(task)
            self.requeued |= isinstance(outcome, Lost)
            return outcome
        except OSError as error:
            self.log.error("io_error", reason=error.strerror)
            return IO_ERROR

    async def check(self, outcome: Outcome) -> Outcome:
        """Compare a worker's outcome with the task and with the files on disk, which are taken. Needs no lane."""
        try:
            if isinstance(outcome, Lost):
                return outcome
            if isinstance(outcome, Failure):
                return await self._explained(outcome)
            await self._check(outcome)
        except Untrue as lie:
            self.log.error("worker_answer_mismatch", lane=self.lane_name, reason=str(lie))
            return CRASHED
        except OSError as error:
            self.log.error("io_error", reason=error.strerror)
            return IO_ERROR
        if isinstance(outcome, Rendered):
            self._tell_made(outcome)
        return outcome

    @property
    def scratch_paths(self) -> tuple[Path, ...]:
        """What the run may leave in the scratch folder: that of its worker here, and the checked files."""
        folder = () if self._is_received else (self.scratch,)
        return *folder, *(checked_file(self.checked, name) for name in self._checked_names)

    async def prepare(self) -> Failure | None:
        """Whatever must be done before the task is made; returns why there can be none."""
        return ROW_DAMAGED if self.job.recipe_damaged else None

    async def _explained(self, failure: Failure) -> Failure:
        """A worker's verdict on the source is final, so it is checked against the staged bytes first."""
        if failure.code not in ("source_missing", "source_damaged"):
            return failure
        found = await anyio.to_thread.run_sync(_look_at, self.source.path, self.source.sha256)
        if found.code != failure.code:
            self.log.warning("source_checked", reported=failure.code, found=found.code)
        return found

    async def _check(self, outcome: Rendered | None) -> None:
        """Check the result, and take a worker's. Raises Untrue, or OSError if a file is gone or can't be taken."""
        if outcome is None:
            if not self.is_preview:
                raise Untrue("only a preview may be left out")
            return
        await with_free_files(self._check_files, outcome)

    def _check_files(self, rendered: Rendered) -> None:
        source = source_header(self.source.path, self.source.mime, self.source.pixels)
        check_answer(rendered, self.recipe, self._expected(), source)
        if self._is_received:
            check_received(rendered.variants, self.checked, self.source.length)
        else:
            self._checked_names = [made.name for made in rendered.variants] + [SOURCE] * (rendered.source is not None)
            take_checked(self.scratch, rendered.variants, self.checked, self.source.length)
        if rendered.source is not None:
            if not self.cleans_source:
                raise Untrue("a source that was not requested")
            self._check_source(rendered.source)

    def _check_source(self, made: SourceMade) -> None:
        mime, pixels, most = self.source.mime, self.source.pixels, self.job.content_length + ADDED_BYTES
        if self._is_received:
            check_received_source(made, self.checked, mime, pixels, most)
        else:
            take_source(self.scratch, made, self.checked, mime, pixels, most)

    @property
    def cleans_source(self) -> bool:
        """Whether its source is to be kept without metadata."""
        return not self.is_preview and self.recipe.keep_source == "stripped" and SOURCE not in self.done

    def _expected(self) -> set[str]:
        """The names of the variants that this run must make."""
        if self.is_preview:
            return {self.recipe.preview.name}
        return {variant.name for variant in self.recipe.variants} - set(self.done)

    def _tell_made(self, rendered: Rendered) -> None:
        for made in rendered.variants:
            self.context.on_variant(made.name, made.seconds)
            if self._is_larger(rendered, made):
                self.log.info("variant_larger_than_source", variant=made.name, bytes=made.size_bytes)
                self.context.on_larger(made.name)

    def _is_larger(self, rendered: Rendered, made: VariantMade) -> bool:
        """Whether a variant has more bytes than its source, of the same pixels and in a format for pages."""
        same = (made.width, made.height) == (rendered.width, rendered.height) and self.source.path == self.staged
        return same and self.source.mime in FOR_PAGES and made.size_bytes > self.job.content_length

    def _task(self) -> Task:
        job = self.job
        return Task(
            kind="preview" if self.is_preview else "render",
            id=secrets.token_hex(16),
            job_id=job.job_id,
            run=job.run,
            trace_id=job.trace_id,
            source=str(self.source.path.absolute()),
            mime=self.source.mime,
            recipe=self.recipe_text,
            folder=str(self.scratch.absolute()),
            done=self.done,
            time_limit=self._time_limit(),
            sha256=self.source.sha256,
            memory_ceiling=self.reserved_bytes,
            file_ceiling=max(
                most_bytes(
                    min(self.source.pixels, most_pixels(self.recipe)),
                    self.source.length if self.recipe.moving else None,
                ),
                self.job.content_length + ADDED_BYTES if self.cleans_source else 0,
            ),
        )

    def _time_limit(self) -> float:
        """The time limit in seconds. It is short for previews: a slow one would delay all others."""
        megapixels, limits = self.job.pixels / 1e6, self.context.limits
        frames = self.recipe.frames if self.recipe.moving and not self.is_preview else 1
        limit = limits.time_limit_seconds + limits.time_limit_seconds_per_megapixel * megapixels * frames
        limit += avif_seconds(self.recipe, self.source.pixels)
        return min(limit, PREVIEW_SECONDS + PREVIEW_SECONDS_PER_MEGAPIXEL * megapixels) if self.is_preview else limit


def _look_at(source: Path, sha256: str) -> Failure:
    """Check a staged file's bytes. Returns IO_ERROR if they are intact, or can't be read now."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123
            sound = stat.S_ISREG(os.fstat(descriptor).st_mode)
            sound = sound and hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return SOURCE_MISSING
    except OSError:
        return IO_ERROR
    return IO_ERROR if sound else SOURCE_DAMAGED
