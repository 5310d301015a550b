"""One scenario with one fault: what was done meanwhile, the start after it, and all that must hold then."""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.invariants import faults
from tests.support.preload import Call, Fault
from tests.torture.kill_at.page_cache import Disk, Sync
from tests.torture.kill_at.site import Answer, Gone, Service, Site, bearer, until

REST_SECONDS = 20
TIDY_SECONDS = 3  # for what housekeeping and a run have left to do once all jobs have ended
ENDED = (
    "SELECT (SELECT count(*) FROM processing_jobs WHERE deleted_at IS NULL AND status NOT IN ('completed', 'failed'))"
    " + (SELECT count(*) FROM renders WHERE state <> 'failed')"
)
DEFINITE = {200, 202, 204, 404, 409, 503, 507}  # what may be answered while the disk fails


@dataclass(slots=True)
class Attempt:
    """What a scenario does in its site, and what it was promised: the receipts, and the images that were deleted."""

    site: Site
    fault: Fault | None = None
    receipts: dict[str, str] = field(default_factory=dict)  # {job: image}
    deleted: set[str] = field(default_factory=set)  # images
    memory: dict[str, Any] = field(default_factory=dict)  # what the preparation leaves for later
    wrong: list[str] = field(default_factory=list)

    def serve(self) -> Service:
        """The service, with the fault. Raises Gone."""
        return self.site.serve(self.fault)

    def command(self, *arguments: str) -> int:
        """A command, with the fault."""
        return self.site.command(*arguments, fault=self.fault)

    def upload(
        self,
        service: Service,
        picture: bytes,
        *,
        key: str | None = None,
        chunks: int = 0,
        also: Iterable[int] = (),
        url: str = "/api/v1/images/upload?bucket=b",
    ) -> str | None:
        """Upload, and keep the receipt; the job, or None without one.

        `chunks`: sent without a length, in so many; `also`: further statuses that may be answered.
        """
        headers = {**bearer(), "Content-Type": "image/jpeg", **({"Idempotency-Key": key} if key else {})}
        size = -(-len(picture) // chunks) if chunks else 0
        body = (picture[at : at + size] for at in range(0, len(picture), size)) if chunks else picture
        answer = service.ask("POST", url, body, headers)
        if answer.status not in also:
            self.noted(answer, "an upload")
        if answer.status != 202:
            return None
        self.receipts[answer.body["job_id"]] = answer.body["image_id"]
        return str(answer.body["job_id"])

    def delete(self, service: Service, *image_ids: str) -> None:
        for image_id in image_ids:
            answer = self.noted(service.ask("DELETE", f"/api/v1/images/{image_id}", headers=bearer()), "a deletion")
            if answer.status == 200:
                self.deleted.add(image_id)

    def noted(self, answer: Answer, what: str) -> Answer:
        if answer.status not in DEFINITE:
            self.wrong.append(f"{what.capitalize()} was answered with {answer.status} {answer.body.get('code', '')}.")
        return answer

    def ended(
        self, service: Service, job_id: str | None, *, status: Iterable[str | None] = ("completed", "failed")
    ) -> None:
        """Wait until the job has come to this. Raises Gone."""

        def there() -> bool:
            return service.gone or self._status(job_id) in status

        if job_id is not None:
            until(there, REST_SECONDS, why=f"job {job_id} has not ended while the service went on")
            if service.gone:
                raise Gone

    def rest(self, service: Service) -> None:
        """Wait until all jobs have ended. Raises Gone."""
        until(lambda: service.gone or not self._count(ENDED), REST_SECONDS, why="jobs have not ended")
        if service.gone:
            raise Gone

    def _status(self, job_id: str | None) -> str | None:
        rows = self.rows("SELECT status FROM processing_jobs WHERE job_id = ? AND deleted_at IS NULL", job_id)
        return rows[0][0] if rows else None

    def _count(self, statement: str) -> int:
        return int(self.rows(statement)[0][0])

    def has_logged(self, *events: str) -> bool:
        text = self.site.log.read_text() if self.site.log.exists() else ""
        return any(event in text for event in events)

    def rows(self, statement: str, *values: object) -> list[Any]:
        uri = f"{self.site.places.database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=10)) as db:
            return db.execute(statement, values).fetchall()


@dataclass(frozen=True)
class Scenario:
    """`act` begins the one process that the fault comes in, and may raise Gone at any moment.

    Before it, `prepare` makes what it begins with, once for all cases, and `equip` gives each site what it needs beyond
    its files. After it, `again` does once more what was cut short, before the service is started without a fault;
    `check` looks at what only this scenario promises.
    """

    name: str
    act: Callable[[Attempt], None]
    prepare: Callable[[Attempt], None] | None = None
    equip: Callable[[Site], None] | None = None
    again: Callable[[Attempt], None] | None = None
    check: Callable[[Attempt, Service], None] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    scenario: str
    fault: Fault
    reached: bool  # whether there were so many calls
    calls: list[Call]
    wrong: list[str]
    folder: Path
    syncs: list[Sync] = field(default_factory=list)  # if what was not synced is lost

    def __str__(self) -> str:
        at = [call for call in self.calls if call.outcome != "done"] or self.calls[-1:]
        where = f"{at[0].name} {at[0].path.removeprefix(str(self.folder) + '/')}" if at else "no call"
        return "\n".join(
            [f"{self.scenario} {self.fault} ({where}), in {self.folder}:", *(f"  {one}" for one in self.wrong)]
        )


def prepared(scenario: Scenario, site: Site) -> Attempt:
    """What every case of the scenario begins with."""
    site.folder.mkdir(parents=True)
    attempt = Attempt(site)
    if scenario.equip:
        scenario.equip(site)
    if scenario.prepare:
        scenario.prepare(attempt)
    site.trace.unlink(missing_ok=True)
    return attempt


def run(scenario: Scenario, ready: Attempt, fault: Fault, folder: Path) -> Result:
    """The scenario from what was prepared, in `folder`, which is removed unless something does not hold."""
    site = ready.site.copy(folder)
    if scenario.equip:
        scenario.equip(site)
    attempt = Attempt(site, fault, dict(ready.receipts), set(ready.deleted), dict(ready.memory))
    disk = Disk(site) if fault.action == "lose" else None
    try:
        with suppress(Gone):
            scenario.act(attempt)
        calls = site.calls()
        if disk:
            disk.put_back()
        if scenario.again:
            scenario.again(attempt)
        with site.serve() as service:
            _settle(attempt, service)
            _keep_promises(attempt)
            if disk:
                _keep_sources(attempt)
            if scenario.check:
                scenario.check(attempt, service)
            status = service.stop()
            if status != 0:
                attempt.wrong.append(f"The start after it ended with the status {status}.")
        attempt.wrong += [fault for fault in faults(site.places, "settled") if fault not in attempt.wrong]
    except Gone:
        attempt.wrong.append(f"The service does not start any more: {_last_line(site.log)}")
        calls = site.calls()
    except (AssertionError, TimeoutError, OSError) as error:
        attempt.wrong.append(f"{type(error).__name__}: {error}")
        calls = site.calls()
    syncs = disk.syncs() if disk else []
    if not attempt.wrong:
        shutil.rmtree(folder)
    return Result(scenario.name, fault, len(calls) >= fault.number, calls, attempt.wrong, folder, syncs)


def stopped(attempt: Attempt, service: Service) -> None:
    """The end of an act in which the service goes on: its jobs end in this process, and so does it. Raises Gone."""
    attempt.rest(service)
    stop(attempt, service)


def stop(attempt: Attempt, service: Service) -> None:
    """At once, whatever its jobs have come to. Raises Gone."""
    status = service.stop()
    if status == -9:
        raise Gone  # the fault came while it was stopping
    if status != 0:
        attempt.wrong.append(f"SIGTERM ended it with the status {status}: {_last_line(attempt.site.log)}")


def _settle(attempt: Attempt, service: Service) -> None:
    """Wait until nothing is left to do; what then does not hold is a fault. Raises Gone."""
    attempt.rest(service)
    found: list[str] = []

    def sound() -> bool:
        found[:] = faults(attempt.site.places, "settled")
        return service.gone or not found

    with suppress(AssertionError):
        until(sound, TIDY_SECONDS)
    attempt.wrong += found


def _keep_promises(attempt: Attempt) -> None:
    rows = {row[0]: row[1:] for row in attempt.rows("SELECT job_id, image_id, status, deleted_at FROM processing_jobs")}
    for job_id, image_id in attempt.receipts.items():
        if job_id not in rows:
            attempt.wrong.append(f"The receipt {job_id} is not known any more.")
        elif rows[job_id][0] != image_id:
            attempt.wrong.append(f"The receipt {job_id} is for the image {rows[job_id][0]} now, not {image_id}.")
    gone = {image_id for image_id, _, deleted_at in rows.values() if deleted_at}
    attempt.wrong += [f"The image {image_id} was deleted and is there." for image_id in attempt.deleted - gone]


def _keep_sources(attempt: Attempt) -> None:
    """No source is removed meanwhile: a job that misses its own has lost what was accepted."""
    missing = "SELECT job_id FROM processing_jobs WHERE error_code IN ('source_missing', 'source_damaged')"
    attempt.wrong += [f"The source of the upload {job_id} is gone or damaged." for (job_id,) in attempt.rows(missing)]


def _last_line(log: Path) -> str:
    lines = log.read_text().strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "(no log)"
