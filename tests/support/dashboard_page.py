"""The dashboard of a real server in a real browser, and what else it may have to show."""

import base64
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Locator, Page, Route

from imgsvc.http.dashboard.models import ClusterMachine, DashboardData, Failure, NearLimit
from imgsvc.http.dashboard.overview import level_of, overview
from imgsvc.http.operator.jobs import ErrorGroup
from imgsvc.telemetry.health import Check
from tests.support.browser import LIMIT_SECONDS, Visit, browsing
from tests.support.server_process import ServerProcess
from tests.support.speed import within

TOKEN = "0123456789abcdef0123456789abcdef-operator"
JSON = {"Content-Type": "application/json"}
REFRESHED = re.compile(r"/dashboard/?(\?range=\w+)?$")
MAIN, BODY = re.compile(r"(<main[^>]*>).*</main>", re.DOTALL), re.compile(r'<body class="\w+"')
SHOWN = "#live:visible"  # by its script; a link with a code may lead over the sign-in page
Change = Callable[[DashboardData], DashboardData]


@asynccontextmanager
async def signed_in(server: ServerProcess, **context: Any) -> AsyncIterator[Visit]:
    """The page of an operator, with its first numbers. Its clock can be moved on."""
    async with browsing(server.url, clock=True, **context) as visit:
        answer = await visit.page.context.request.post(
            f"{server.url}/api/v1/operator/login", data=json.dumps({"token": TOKEN}), headers=JSON
        )
        assert answer.status == 204
        await opened(visit.page, server.url)
        yield visit


async def opened(page: Page, root: str) -> None:
    await page.goto(f"{root}/dashboard")
    await page.wait_for_selector(SHOWN)


async def refreshed(page: Page) -> None:
    """Five seconds later."""
    async with page.expect_response(REFRESHED):
        await page.clock.fast_forward(5_500)


async def refreshed_until(page: Page, shown: Locator, count: int = 1) -> None:
    """As often as it takes: the service makes a new answer once a second of real time at the most."""
    with within(LIMIT_SECONDS):
        while await shown.count() != count:
            await refreshed(page)


async def changed(page: Page, change: Change) -> None:
    """From now on the overview is rendered of the service's data with this change."""

    async def answer(route: Route) -> None:
        response = await route.fetch()
        root = route.request.url.split("/dashboard")[0]
        found = await page.context.request.get(f"{root}/dashboard/data")
        data = change(DashboardData.model_validate(await found.json()))
        content = overview(data, groups_of(data), ".", root, "hour")
        whole = MAIN.sub(lambda found: f"{found[1]}{content}</main>", await response.text(), count=1)
        body = BODY.sub(f'<body class="{level_of(data)}"', whole, count=1)
        await route.fulfill(response=response, body=body)

    await page.unroute(REFRESHED)
    await page.route(REFRESHED, answer)


def groups_of(data: DashboardData) -> list[ErrorGroup]:
    """The recent failures by their code."""
    codes = {one.error_code: one for one in data.errors.recent_failures}
    alike = {code: [one for one in data.errors.recent_failures if one.error_code == code] for code in codes}
    return [
        ErrorGroup(
            code=code or "internal_error",
            jobs=len(alike[code]),
            last_failed_at=one.failed_at or data.system.timestamp,
            names=[each.original_filename or each.job_id for each in alike[code]][:3],
            meaning=one.why,
            advice=one.advice,
        )
        for code, one in codes.items()
    ]


async def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """Let go of files over the page, as a person does."""
    encoded = [[name, base64.b64encode(data).decode()] for name, data in files]
    transfer = await page.evaluate_handle(
        """async files => {
            const transfer = new DataTransfer();
            for (const [name, text] of files) {
                transfer.items.add(new File([Uint8Array.from(atob(text), one => one.charCodeAt(0))], name));
            }
            return transfer;
        }""",
        encoded,
    )
    for event in ("dragenter", "dragover", "drop"):
        await page.dispatch_event("main", event, {"dataTransfer": transfer})


def failure(text: str = "the storage refused the file", **more: Any) -> Failure:
    given = {
        "job_id": "11111111-1111-4111-8111-111111111111",
        "image_id": "22222222-2222-4222-8222-222222222222",
        "original_filename": None,
        "status": "failed",
        "error": text,
        "error_code": "storage_error",
        "why": "The variants could not be stored.",
        "advice": "See that the storage works.",
        "attempts": 3,
        "created_at": "2026-01-01T10:00:00.000000+00:00",
        "failed_at": "2026-01-01T10:03:00.000000+00:00",
        "next_attempt_at": None,
        "can_retry": True,
    }
    return Failure.model_validate(given | more)


def troubled(data: DashboardData) -> DashboardData:
    """Everything at once that can be wrong."""
    data.health.status = data.health.checks["storage"].status = "unhealthy"
    data.health.checks["queue"].status = "degraded"
    data.health.checks["authorization"] = Check(status="degraded", detail="5 failed in a row; calls are held back")
    data.system.resources.disk_root.percent = 97
    data.errors.recent_failures = [failure(failed_at=data.system.timestamp)]
    again = "2999-01-01T00:00:00+00:00"
    data.errors.retrying = [failure(status="retrying", next_attempt_at=again, failed_at=None, can_retry=False)]
    data.rate_limits.users_near_limit = [
        NearLimit(user_id="u", org_id="o", count=50, limit=50, window_start=data.system.timestamp, percent_used=100)
    ]
    data.redis.status, data.redis.info = "down", {"url": "redis://cache"}
    for minute in data.processing.minutes[::3]:
        minute.completed, minute.failed, minute.avg_ready_seconds = 5, 1, 1.5
    if data.storage.local:
        data.storage.local.disk = None
    data.cluster.status, data.cluster.insecure, data.cluster.sent_bytes = "connected", True, 5 << 30
    ours = ClusterMachine(
        name="tls://10.0.0.3:35467",
        version=data.system.version,
        cage="Landlock (ABI 6), seccomp, memory",
        threads=2,
        memory_mb=3072,
        used=True,
    )
    other = ours.model_copy(update={"name": "tls://10.0.0.4:35467", "version": "0.0.1", "used": False})
    data.cluster.machines = [ours, other]
    data.health.checks["cluster"] = Check(status="degraded", detail="not used: 1, tls://10.0.0.4:35467 (0.0.1)")
    return data


def emptied(data: DashboardData) -> DashboardData:
    """As after the first start."""
    data.processing.recent_jobs, data.processing.jobs_by_status = [], {}
    data.database.tables.processing_jobs = 0
    data.database.recent_activity.last_job_created = None
    data.errors.recent_failures, data.errors.retrying = [], []
    return data


async def behind_prefix(page: Page, prefix: str) -> None:
    """From now on the page reaches the service under this path only, as behind a proxy that tells it nothing."""

    async def forward(route: Route) -> None:
        path = urlsplit(route.request.url).path
        if path.startswith(f"{prefix}/"):
            await route.continue_(url=route.request.url.replace(prefix, "", 1))
        else:
            await route.fulfill(status=404)

    await page.route("**/*", forward)
