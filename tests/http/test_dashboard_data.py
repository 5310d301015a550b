"""GET /dashboard/data: the contract's key tree, true numbers, and the same cost with ten jobs or a million."""

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from fixtures import make
from imgsvc.http.dashboard import snapshot
from imgsvc.jobs.table.model import as_text, now
from imgsvc.jobs.table.sql import QUERIES
from imgsvc.settings import environment_names
from imgsvc.telemetry.host import uptime_words
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.many_jobs import fill
from tests.support.speed import within

TINY = make.tiny()
TREE: dict[str, Any] = {
    "system": {
        "service_name": str,
        "version": str,
        "uptime_seconds": float,
        "uptime_human": str,
        "timestamp": str,
        "resources": {
            "cpu": {"percent": float, "count": int},
            "memory": {"total_gb": float, "available_gb": float, "used_gb": float, "percent": float},
            "disk_root": {"total_gb": float, "used_gb": float, "free_gb": float, "percent": float},
            "process": {"memory_rss_mb": float, "memory_vms_mb": float, "threads": int},
        },
    },
    "database": {
        "status": str,
        "path": str,
        "size_mb": float,
        "connection_ok": bool,
        "tables": {"processing_jobs": int, "image_upload_events": int, "upload_rate_limits": int},
        "recent_activity": {"last_job_created": str, "last_event_logged": str},
    },
    "redis": {"status": str, "connected": bool, "info": {}, "queue_lengths": {"celery": int}},
    "celery": {"status": str, "workers": {"active": int}, "tasks": {"active": int}},
    "queue": {"previews": int, "renders": int, "retrying": int, "oldest_waiting_seconds": object},
    "workers": {"status": str, "active": int, "tasks": {"active": int}, "processes": list},
    "processing": {
        "jobs_by_status": dict.fromkeys(("pending", "processing", "retrying", "completed", "failed"), int),
        "performance": {
            span: {"total": int, "completed": int, "failed": int, "avg_processing_time_seconds": float}
            for span in ("last_hour", "last_24h")
        },
        "recent_jobs": list,
    },
    "storage": {"backend": str, "local": {"path": str}, "total_images": int},
    "rate_limits": {"users_near_limit": list, "total_active_windows": int, "max_uploads_per_hour": float},
    "errors": {"recent_failures": list, "error_summary": {"last_hour": int, "last_24h": int, "total": int}},
    "configuration": {"service": {"name": str}},
}


async def data(s: Service) -> dict[str, Any]:
    """Fresh data: not an answer that is shared for a second."""
    s.app.state.snapshot = None
    answer = await s.http.get("/dashboard/data", headers=s.operator)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def has(tree: Any, body: Any, where: str = "") -> None:
    if not isinstance(tree, dict):
        assert isinstance(body, tree), f"{where} = {body!r}"
        return
    for name, inner in tree.items():
        assert name in body, f"{where}.{name}"
        has(inner, body[name], f"{where}.{name}")


async def test_key_tree_of_the_contract(start: Starter) -> None:
    async with start() as s:
        await s.completed(TINY)
        body = await data(s)
        has(TREE, body)
        (recent,) = body["processing"]["recent_jobs"]
        assert (recent["status"], recent["bucket"], recent["user_id"]) == ("completed", "photos", "alice")
        assert recent["ready"] == ["original", "large", "medium", "thumbnail"]
        assert [
            process.keys() >= {"pid", "state", "job_id", "busy_seconds", "rss_mb", "jobs_done", "restarts"}
            for process in body["workers"]["processes"]
        ] == [True, True]
        assert body["redis"]["status"] == "disabled"


async def test_fresh_service(start: Starter) -> None:
    async with start() as s:
        body = await data(s)
        assert body["health"]["status"] == "healthy"
        assert body["processing"]["recent_jobs"] == body["errors"]["recent_failures"] == []
        assert body["database"]["recent_activity"] == {"last_job_created": None, "last_event_logged": None}
        assert body["database"]["tables"]["image_upload_events"] == 0
        assert body["queue"] == {
            "previews": 0,
            "renders": 0,
            "retrying": 0,
            "oldest_waiting_seconds": None,
            "waiting": 0,
            "waiting_ten_minutes_ago": None,
            "grows": False,
        }
        assert len(body["processing"]["minutes"]) == 60


@pytest.mark.workers
async def test_numbers_are_true(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 5}) as s:
        done = [await s.completed(make.tiny(seed)) for seed in range(4)]  # the same one would be rendered once
        broken = await s.ended(await s.upload(make.jpeg(640, 480)[:9000], user="bob"))
        assert broken["status"] == "failed"
        await s.http.delete(f"/api/v1/images/{done[0]['image_id']}", headers=s.bearer())
        body = await data(s)
        assert body["processing"]["jobs_by_status"] == {
            "pending": 0,
            "processing": 0,
            "retrying": 0,
            "completed": 3,
            "failed": 1,
        }
        assert body["database"]["tables"]["processing_jobs"] == 4
        events = await s.sql("SELECT count(*) FROM image_upload_events")
        assert [(body["database"]["tables"]["image_upload_events"],)] == events
        assert body["storage"]["total_images"] == 3
        assert [job["job_id"] for job in body["processing"]["recent_jobs"]] == [
            broken["job_id"],
            *(job["job_id"] for job in reversed(done[1:])),
        ]
        (near,) = body["rate_limits"]["users_near_limit"]
        assert (near["user_id"], near["count"], near["limit"], near["percent_used"]) == ("alice", 4, 5, 80.0)
        assert body["rate_limits"]["total_active_windows"] == 2
        assert_times_and_failures_are_true(body, broken["job_id"])


def assert_times_and_failures_are_true(body: dict[str, Any], broken: str) -> None:
    """Of four photos and a broken file."""
    hour = body["processing"]["performance"]["last_hour"]
    assert (hour["total"], hour["completed"], hour["failed"]) == (5, 4, 1)
    assert 0 < hour["avg_processing_time_seconds"] <= hour["avg_ready_seconds"] < 30
    assert sum(minute["completed"] for minute in body["processing"]["minutes"]) == 4
    assert sum(minute["failed"] for minute in body["processing"]["minutes"]) == 1
    (failure,) = body["errors"]["recent_failures"]
    assert (failure["job_id"], failure["error_code"], failure["can_retry"]) == (
        broken,
        "image_unreadable",
        False,
    )
    assert failure["why"].startswith("The file is damaged") and failure["advice"]
    assert body["errors"]["error_summary"] == {"last_hour": 1, "last_24h": 1, "total": 1}
    preview, render = body["workers"]["processes"]
    assert (preview["name"], render["name"]) == ("preview", "render-0")
    assert preview["pid"] != render["pid"] and preview["rss_mb"] > 5
    assert preview["jobs_done"] == 5 and render["jobs_done"] == 5


@pytest.mark.workers
async def test_what_waits_and_what_a_lane_does(start: Starter) -> None:
    async with start() as s:
        accepted = [(await s.upload(make.large_jpeg(2400, 1800))).json() for _ in range(3)]
        with within(WAIT_SECONDS):
            while not (busy := [one for one in (await data(s))["workers"]["processes"] if one["state"] == "busy"]):
                await anyio.lowlevel.checkpoint()
        assert busy[0]["job_id"] in {one["job_id"] for one in accepted}
        assert 0 <= busy[0]["busy_seconds"] < 30
        s.state.jobs.queue.hold()
        with within(WAIT_SECONDS):
            while (await data(s))["workers"]["tasks"]["active"]:
                await anyio.sleep(0.02)
        more = [await s.upload(TINY) for _ in range(2)]
        assert {answer.status_code for answer in more} == {202}
        body = await data(s)
        queue = body["queue"]
        waiting = queue["previews"] + queue["renders"]
        assert waiting >= 2 and queue["oldest_waiting_seconds"] >= 0
        assert body["redis"]["queue_lengths"] == {"celery": waiting}


async def test_job_that_will_be_tried_again_says_when(start: Starter) -> None:
    async with start() as s:
        (s.settings.storage.path / "photos").write_bytes(b"")
        accepted = (await s.upload(TINY)).json()
        with within(WAIT_SECONDS):
            while not (retrying := (await data(s))["errors"]["retrying"]):
                await anyio.sleep(0.02)
        (one,) = retrying
        assert (one["job_id"], one["status"], one["error_code"]) == (accepted["job_id"], "retrying", "storage_error")
        assert one["next_attempt_at"] > as_text(now()) and one["can_retry"] is False
        assert (await data(s))["queue"]["retrying"] == 1


async def test_old_windows_are_not_near_the_limit(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 50}) as s:
        for user, minutes in (("over", 61), ("current", 5), ("future", -5)):
            began = as_text(now() - timedelta(minutes=minutes))
            await s.sql("INSERT INTO upload_rate_limits VALUES ('o', ?, ?, 50)", user, began)
        limits = (await data(s))["rate_limits"]
        assert [one["user_id"] for one in limits["users_near_limit"]] == ["current"]
        assert limits["total_active_windows"] == 1


async def test_everybody_who_asks_within_a_second_gets_one_answer(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    real = snapshot._made

    async def counted(state: Any) -> Any:
        nonlocal made
        made += 1
        return await real(state)

    monkeypatch.setattr(snapshot, "_made", counted)
    async with start() as s:
        answers = await asyncio.gather(*(s.http.get("/dashboard/data", headers=s.operator) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert made == 1


async def test_sizes_that_are_tables_are_shown_as_they_were_written(start: Starter) -> None:
    box = {"width": 40, "height": 30, "fit": "cover"}
    async with start(images={"sizes": {"small": 64, "box": box}}) as s:
        body = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert json.loads(body["configuration"]["images"]["sizes"]) == {"small": 64, "box": box}


async def test_no_secret_in_the_configuration(start: Starter) -> None:
    secret = "jwt-secret-0123456789-0123456789-0123"
    async with start(auth={"jwt_secret_key": secret}) as s:
        body = await data(s)
        assert secret not in str(body)
        assert body["configuration"]["auth"]["jwt_secret_key"] == "configured"
        assert body["configuration"]["operator"]["token"] == "generated by the service"
        assert body["configuration"]["images"]["webp_quality"] == "85"
        shown = {(section, field) for section, fields in body["configuration"].items() for field in fields}
        assert shown == {(section, field) for section, field, _ in environment_names()}


@pytest.mark.parametrize(
    "query",
    [
        "recent_jobs",
        "recent_jobs_of_status",
        "latest_failed",
        "next_retries",
        "event_ids",
        "events_of_job",
        "near_limit",
        "waiting_by_lane",
        "next_waiting",
        "next_due",
    ],
)
def test_reads_walk_an_index_and_sort_nothing(filled: Path, query: str) -> None:
    values = {
        "limit": 10,
        "status": "failed",
        "since": "",
        "now": "",
        "threshold": 1,
        "job_id": "x",
        "queue": "renders",
        "most": 10,
    }
    with closing(sqlite3.connect(filled)) as db:
        plan = [step for *_, step in db.execute(f"EXPLAIN QUERY PLAN {QUERIES[query]}", values)]
    for step in plan:
        assert "TEMP B-TREE" not in step, plan
        whole = re.fullmatch(r"SCAN (processing_jobs|image_upload_events|upload_rate_limits)", step)
        assert not whole or query == "event_ids", plan  # the last event: one step along the table's own order


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("many") / "imgsvc.db"
    fill(path, 3000)
    return path


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_725, "1 h 2 min"),
        (3600, "1 h 0 min"),
        (90_061, "1 d 1 h"),
        (864_000, "10 d 0 h"),
    ],
)
def test_uptime_in_words(seconds: float, words: str) -> None:
    assert uptime_words(seconds) == words


async def test_names_of_files_are_for_the_operator_only(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        await s.completed(make.tiny())
        (shown,) = (await data(s))["processing"]["recent_jobs"]
        assert shown["original_filename"]
        (anyone,) = (await s.http.get("/dashboard/data")).json()["processing"]["recent_jobs"]
        assert anyone["original_filename"] is None
