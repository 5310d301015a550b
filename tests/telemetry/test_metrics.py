"""GET /metrics: every name of the contract, with its labels, fed by real traffic, and no id anywhere."""

import os
import re
import signal
from math import isnan
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.routing import Route

from fixtures import make
from imgsvc import testing
from imgsvc.http.wire.request_metrics import METHODS
from imgsvc.jobs.lanes.messages import Outcome, Rendered, Task, VariantMade
from imgsvc.jobs.retry import MAX_STARTS
from imgsvc.jobs.table.sql import QUERIES
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.service.routes import ROUTES
from tests.conftest import Service, Starter
from tests.support.speed import within
from tests.support.traffic import IDS, TINY, Told, broken_off, moments, moved, told, value

CONTRACT = {
    "service_info": {"name", "version", "environment"},
    "http_requests_total": {"method", "endpoint", "status"},
    "http_request_duration_seconds": {"method", "endpoint"},
    "http_requests_in_progress": set(),
    "http_event_streams_open": set(),  # beside the contract's
    "image_uploads_set_aside": set(),  # beside the contract's
    "errors_total": {"error_type", "endpoint"},
    "image_uploads_total": {"status"},
    "image_processing_jobs_total": {"status"},
    "image_processing_duration_seconds": {"size"},
    "image_processing_jobs_active": set(),
    "image_storage_bytes": {"size"},
    "image_sources_kept": set(),
    "image_sources_kept_bytes": set(),
    "rate_limit_rejections_total": set(),
    "quota_rejections_total": {"whose"},
    "images_expired_total": set(),
    "time_based_removals_held": set(),
    "database_query_duration_seconds": {"operation"},
    "storage_operations_total": {"backend", "operation", "status"},
    "storage_operation_duration_seconds": {"backend", "operation"},
    "job_queue_length": {"lane"},
    "job_queue_oldest_seconds": set(),
    "worker_restarts_total": {"reason"},
    "jobs_stuck_total": {"fault"},  # beside the contract's
    "read_memory_bytes": set(),  # also beside the contract's
    "read_memory_lookups_total": {"kind", "result"},
    "worker_cage_in_force": {"wall"},
    "worker_cage_faults": set(),
    "image_reuse_total": {"status"},
    "cluster_connected": set(),
    "cluster_machines": {"state"},
    "cluster_tickets_out": set(),
    "cluster_tickets_total": {"end"},
    "cluster_bytes_total": {"direction"},
    "image_further_renders_total": {"kind", "status"},
    "image_variants_larger_than_source_total": {"size"},
    "image_fetch_failures_total": {"reason"},
    "api_keys": set(),
    "api_key_requests_total": {"outcome"},
    "upload_tickets_total": {"outcome"},
    "image_list_pages_total": {"end"},
    "people_being_erased": set(),
    "people_erased_total": set(),
    "webhook_attempts_total": {"webhook", "outcome"},
    "webhook_attempt_duration_seconds": {"webhook"},
    "webhook_deliveries_waiting": {"webhook"},
    "webhook_oldest_waiting_seconds": {"webhook"},
    "webhook_switched_off": {"webhook"},
}
SIZES = ("thumbnail", "medium", "large", "original")
UPLOAD = "/api/v1/images/upload"
SUFFIXES = ("_bucket", "_count", "_sum")
BEGINNING = {
    **{("image_uploads_total", "status", one): 0 for one in ("accepted", "replayed", "rejected", "aborted")},
    **{("image_processing_jobs_total", "status", one): 0 for one in ("completed", "failed", "retrying")},
    **{("job_queue_length", "lane", one): 0 for one in ("previews", "renders", "retrying")},
    **{("image_storage_bytes", "size", one): 0 for one in SIZES},
    **{("image_processing_duration_seconds_count", "size", one): 0 for one in SIZES},
    **{("image_reuse_total", "status", one): 0 for one in ("reused", "gone", "differs", "error")},
    **{("jobs_stuck_total", "fault", one): 0 for one in ("no_run", "not_claimed", "publishing")},
    **{
        ("worker_restarts_total", "reason", one): 0
        for one in ("died", "died_idle", "killed", "retired", "time_limit", "unusable_answer")
    },
}


def family(name: str) -> str:
    return next((name.removesuffix(end) for end in SUFFIXES if name.removesuffix(end) in CONTRACT), name)


def test_exactly_the_names_and_labels_of_the_contract() -> None:
    found: dict[str, set[str]] = {}
    for name, labels in moments()[-1]:
        if not name.startswith("process_"):
            found.setdefault(family(name), set()).update(label for label, _ in labels if label != "le")
    assert found == CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT.keys() - {"service_info"}))
def test_every_metric_moves(name: str) -> None:
    assert name in {family(sample) for sample, _ in moved()}


def test_closed_sets_begin_at_zero() -> None:
    before = moments()[0]
    assert {key: value(before, key[0], **{key[1]: key[2]}) for key in BEGINNING} == BEGINNING
    for operation in ("put", "read", "remove"):
        for status in ("ok", "missing", "error"):
            labels = {"backend": "local", "operation": operation, "status": status}
            assert value(before, "storage_operations_total", **labels) >= 0
    assert value(before, "errors_total", error_type="internal_error", endpoint="/storage/{path:path}") == 0


@pytest.mark.parametrize(
    ("metric", "first"),
    [
        ("http_request_duration_seconds", 0.01),
        ("image_processing_duration_seconds", 0.01),
        ("database_query_duration_seconds", 0.0005),
    ],
)
def test_buckets(metric: str, first: float) -> None:
    bounds = sorted({float(dict(labels)["le"]) for name, labels in moments()[-1] if name == f"{metric}_bucket"})
    assert (bounds[0], bounds[-2]) == (first, 30)
    assert len(bounds) < 20


def test_no_label_holds_what_a_client_wrote() -> None:
    found: dict[str, set[str]] = {}
    for _, labels in moments()[-1]:
        for label, text in labels:
            found.setdefault(label, set()).add(text)
    every = " ".join(text for texts in found.values() for text in texts)
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}|[0-9a-f]{16}", every)
    for word in (*IDS.values(), "alice", "greedy", "photos", "nowhere", "BREW"):
        assert word not in every
    assert "OTHER" in found["method"] <= METHODS | {"OTHER"}
    templates = {route.path.rstrip("/") or "/" for route in ROUTES if isinstance(route, Route)}
    assert "unmatched" in found["endpoint"] <= templates | {"unmatched"}
    assert {"/api/v1/images/{image_id}/direct", "/storage/{path:path}"} <= found["endpoint"]
    lists = {"list_page", "list_end", "list_names", "list_named", "list_shown"}
    assert found["operation"] <= QUERIES.keys() | {"commit", "put", "copy", "read", "remove"} | lists


def requests(now: Told, endpoint: str, status: int, method: str = "GET") -> float:
    return value(now, "http_requests_total", method=method, endpoint=endpoint, status=str(status))


@pytest.mark.workers
async def test_exact_counts(start: Starter) -> None:
    async with start() as s:
        keyed = {**s.bearer(), "Idempotency-Key": "k", "Content-Type": "image/jpeg"}
        for _ in range(3):
            answer = await s.http.post(f"{UPLOAD}?bucket=b", content=TINY, headers=keyed)
        await s.ended(answer)
        image_id = (await s.completed(make.tiny(2)))["image_id"]
        assert (await s.upload(b"")).status_code == 415
        await broken_off(s)
        for path in ("", "/"):
            await s.http.get(f"/api/v1/health{path}")
        for _ in range(5):
            await s.http.get(f"/api/v1/images/{image_id}?size=huge")
        assert (await s.http.put(f"/api/v1/images/{image_id}")).status_code == 405
        now = await told(s)
        uploads = {status: value(now, "image_uploads_total", status=status) for status in ("accepted", "replayed")}
        assert uploads == {"accepted": 2, "replayed": 2}
        assert value(now, "image_uploads_total", status="rejected") == 1
        assert value(now, "image_uploads_total", status="aborted") == 1
        assert [requests(now, UPLOAD, status, "POST") for status in (202, 415, 499)] == [4, 1, 1]
        assert requests(now, "/api/v1/health", 200) == 2
        assert requests(now, "/api/v1/images/{image_id}", 404) == 5
        assert requests(now, "/api/v1/images/{image_id}", 405, "PUT") == 1
        assert value(now, "http_request_duration_seconds_count", method="POST", endpoint=UPLOAD) == 6
        assert value(now, "errors_total", error_type="unsupported_type", endpoint=UPLOAD) == 1
        missing = {"error_type": "size_not_available", "endpoint": "/api/v1/images/{image_id}"}
        assert value(now, "errors_total", **missing) == 5
        assert value(now, "image_processing_jobs_total", status="completed") == 2
        for operation in ("commit", "job", "job_of_image", "waiting_by_lane"):
            assert value(now, "database_query_duration_seconds_count", operation=operation) >= 1
        for size in SIZES:
            assert value(now, "image_processing_duration_seconds_count", size=size) == 2
            assert 0 < value(now, "image_processing_duration_seconds_sum", size=size) < 30
        ((row,),) = await s.sql("SELECT processing_metadata FROM processing_jobs WHERE image_id = ?", image_id)
        assert "size_bytes" in row and "seconds" not in row


@pytest.mark.workers
async def test_workers_that_end_are_counted_by_reason(start: Starter) -> None:
    async with start() as s:
        lane = s.state.jobs.queue._sides[1].lanes[0]
        assert lane.pid
        os.kill(lane.pid, signal.SIGKILL)
        with within(10):
            while lane.alive:
                await anyio.sleep(0.01)
        await s.completed(TINY)
        assert value(await told(s), "worker_restarts_total", reason="died_idle") == 1
        large = make.encoded(make.photo(1000, 750).resize((4000, 3000)), "JPEG", quality=60)
        image_id = (await s.upload(large)).json()["image_id"]
        with within(10):
            while not any(lane is one for one in s.state.jobs.queue._running.values()):
                await anyio.sleep(0.005)
        assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        now = await told(s)
        assert value(now, "worker_restarts_total", reason="killed") == 1
        assert value(now, "worker_restarts_total", reason="died") == 0
        assert lane.restarts == 2


@pytest.mark.workers
async def test_worker_that_has_done_its_share_is_retired(start: Starter) -> None:
    async with start(workers={"jobs_per_process": 1}) as s:
        for seed in range(2):
            await s.completed(make.tiny(seed))
        with within(10):
            while value(await told(s), "worker_restarts_total", reason="retired") < 2:
                await anyio.sleep(0.01)
        assert value(await told(s), "worker_restarts_total", reason="died_idle") == 0


async def test_job_given_up_at_the_start_counts_as_failed(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        await s.upload(TINY)
        await s.sql("UPDATE processing_jobs SET status = 'processing', queue = NULL, starts = ?", MAX_STARTS)
    async with start() as s:
        assert value(await told(s), "image_processing_jobs_total", status="failed") == 1


async def test_deleted_job_that_would_be_tried_again_waits_no_more(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        image_id = (await s.upload(TINY)).json()["image_id"]
        later = "2126-01-01T00:00:00.000000+00:00"
        await s.sql("UPDATE processing_jobs SET status = 'retrying', queue = NULL, next_attempt_at = ?", later)
        assert value(await told(s), "job_queue_length", lane="retrying") == 1
        await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert value(await told(s), "job_queue_length", lane="retrying") == 0


async def test_oldest_is_the_oldest_of_both_lanes(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        for _ in range(2):
            await s.upload(TINY)
        await s.sql(
            "UPDATE processing_jobs SET queue = 'renders', created_at = '2020-01-01T00:00:00.000000+00:00' "
            "WHERE turn = (SELECT max(turn) FROM processing_jobs)"
        )
        now = await told(s)
        lanes = [value(now, "job_queue_length", lane=lane) for lane in ("previews", "renders")]
        assert lanes == [1, 1]
        assert value(now, "job_queue_oldest_seconds") > 86_400


async def test_queue_is_looked_up_by_indexes_only(start: Starter) -> None:
    async with start() as s:
        plan = [row[3] for row in await s.sql(f"EXPLAIN QUERY PLAN {QUERIES['waiting_by_lane']}".replace(":most", "9"))]
        touching = [step for step in plan if "processing_jobs" in step]
        assert len(touching) == 3
        assert all("USING COVERING INDEX jobs_" in step or "USING INDEX jobs_" in step for step in touching), plan
        assert not any("B-TREE" in step for step in plan)


async def test_answer(start: Starter) -> None:
    async with start() as s:
        plain = await s.http.get("/metrics", headers={**s.operator, "Accept": "text/plain;version=x.y, */*"})
        assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert plain.headers["Cache-Control"] == "private, no-store"
        accept = {"Accept": "application/openmetrics-text;version=9.x;escaping=y,*/*;q=0.1"}
        other = await s.http.get("/metrics", headers={**s.operator, **accept})
        assert other.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert "# TYPE http_requests counter" in other.text and other.text.endswith("# EOF\n")
        assert "_created" not in plain.text + other.text


async def test_database_that_fails_hides_nothing_else(start: Starter) -> None:
    async with start() as s:
        await s.sql("ALTER TABLE processing_jobs RENAME TO away")
        now = await told(s)
        await s.sql("ALTER TABLE away RENAME TO processing_jobs")
        assert isnan(value(now, "job_queue_oldest_seconds"))
        assert isnan(value(now, "job_queue_length", lane="renders"))
        assert value(now, "http_requests_in_progress") == 1


async def test_services_in_one_process_count_apart(tmp_path: Path) -> None:
    names = ("one", "two")
    apps = [create_app(testing.settings_in(tmp_path / name, service={"name": name})) for name in names]
    apps[0].state.metrics.uploads.upload("accepted")
    texts = [app.state.metrics.text("")[0].decode() for app in apps]
    assert ['image_uploads_total{status="accepted"} 1.0' in text for text in texts] == [True, False]
    assert [f'name="{name}"' in text for name, text in zip(names, texts, strict=True)] == [True, True]


class LyingLane(testing.InlineLane):
    """Answers with a variant that was not requested."""

    async def run(self, task: Task) -> Outcome:
        outcome = await super().run(task)
        assert isinstance(outcome, Rendered)
        return outcome.model_copy(
            update={"variants": tuple(made.model_copy(update={"name": IDS["path"]}) for made in outcome.variants)}
        )


async def test_worker_can_not_make_up_labels(tmp_path: Path) -> None:
    settings = testing.settings_in(tmp_path, jobs={"retry_delay_seconds": 0.05})
    app = create_app(settings, Doubles(lanes=[LyingLane("preview"), LyingLane("render")]))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            s = Service(app, settings, http)
            assert (await s.ended(await s.upload(TINY)))["error_code"] == "worker_crashed"
            assert IDS["path"] not in str(await told(s))


@pytest.mark.parametrize("seconds", [-0.001, float("nan"), float("inf"), 1e9, "1", None])
def test_time_that_a_worker_makes_up_is_refused(seconds: object) -> None:
    made = {"name": "large", "width": 1, "height": 1, "size_bytes": 1, "sha256": "0" * 64, "format": "webp"} | {
        "frames": 1
    }
    assert VariantMade.model_validate({**made, "seconds": 0.5}).seconds == 0.5
    with pytest.raises(ValueError, match="seconds"):
        VariantMade.model_validate({**made, "seconds": seconds})
