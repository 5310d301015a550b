"""What is really answered is what the API document says of it."""

from dataclasses import dataclass

import anyio

from fixtures import make
from imgsvc.http.openapi.document import build
from imgsvc.service.routes import ROUTES
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.http.test_openapi import Json, operations, validators
from tests.support.sign_on_provider import Provider, provider, settings_of
from tests.support.speed import within

TINY = make.tiny()
MERGE = {"Content-Type": "application/merge-patch+json"}
Asked = tuple[str, str, Json]  # documented operation, address, further arguments for httpx
IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator"
ONE, STATUS = f"GET {IMAGES}/{{image_id}}", f"GET {IMAGES}/jobs/{{job_id}}"
UPKEEP: list[tuple[str, Json]] = [
    ("verify", {"digests": True}),
    ("gc", {}),
    ("migrate", {"to": "local"}),
    ("backup", {"destination": "/nowhere", "dry_run": True}),
]


@dataclass(frozen=True)
class Stored:
    """What a service holds that is asked for its users: a completed, a failed and a waiting job."""

    job: str
    image: str
    failed: str
    waiting: Json
    stored: str
    ticket: str
    bearer: dict[str, str]


async def requests(s: Service) -> list[Asked]:
    """A request for each status that is easy to get."""
    done = await s.completed(TINY, metadata='{"title": "x"}')
    failed = (await s.ended(await s.upload(TINY[: len(TINY) // 2])))["job_id"]
    s.state.jobs.queue.hold()
    waiting = (await s.upload(TINY)).json()
    stored = (await s.http.get(f"{IMAGES}/{done['image_id']}")).json()["url"]
    issued = await s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=s.bearer())
    ticket = issued.json()["upload_url"]
    known = Stored(done["job_id"], done["image_id"], failed, waiting, stored, ticket, s.bearer())
    asked = [*service_requests(), *job_requests(known), *image_requests(known), *list_requests(known)]
    asked += [*ticket_requests(known), *byte_requests(known), *upload_requests(known)]
    delete = f"DELETE {IMAGES}/{{image_id}}"
    by = (s.bearer("bob"), s.bearer(), s.bearer())
    return asked + [(delete, f"{IMAGES}/{known.image}", {"headers": bearer}) for bearer in by]


def service_requests() -> list[Asked]:
    pages = ("/", "/info", "/openapi.json", "/docs", "/static/imgsvc.js")
    health = [f"/api/v1/health{path}" for path in ("", "/live", "/stats", "/failed")]
    return [
        *((f"GET {path}", path, {}) for path in (*pages, *health)),
        ("GET /errors/{code}", "/errors/not_found", {}),
        ("GET /errors/{code}", "/errors/nothing", {}),
        ("GET /docs/{asset}", "/docs/docs.js", {}),
        ("GET /api/v1/health/failed", "/api/v1/health/failed?limit=0", {}),
    ]


def job_requests(k: Stored) -> list[Asked]:
    jobs = f"{IMAGES}/jobs"
    return [
        (STATUS, f"{jobs}/{k.job}", {"headers": {"Prefer": "wait=1"}}),
        (STATUS, f"{jobs}/{k.failed}", {}),
        (STATUS, f"{jobs}/x", {}),
        (f"{STATUS}/events", f"{jobs}/{k.job}/events", {}),
        (f"GET {IMAGES}/events", f"{IMAGES}/events?jobs={k.job},{k.failed}", {}),
        (f"GET {IMAGES}/events", f"{IMAGES}/events?jobs=x", {}),
        (f"POST {IMAGES}/fetch", f"{IMAGES}/fetch", {"json": {"url": "x", "bucket": "b"}, "headers": k.bearer}),
        (f"{STATUS}/result", f"{jobs}/{k.job}/result", {"headers": k.bearer}),
        (f"{STATUS}/result", f"{jobs}/{k.waiting['job_id']}/result", {}),
    ]


def image_requests(k: Stored) -> list[Asked]:
    change, waiting = f"PATCH {IMAGES}/{{image_id}}", f"{IMAGES}/{k.waiting['image_id']}"
    image, merge = f"{IMAGES}/{k.image}", k.bearer | MERGE
    return [
        (ONE, image, {}),
        (ONE, f"{image}?size=huge", {}),
        (ONE, f"{image}?size=..", {}),
        (ONE, waiting, {}),
        (ONE, f"{IMAGES}/upload", {}),
        (f"{ONE}/all", f"{image}/all", {}),
        (change, image, {"headers": merge, "json": {"expires_at": None, "focal": {"x": 0.5, "y": 0.5}}}),
        (change, image, {"headers": merge, "json": {"expires_at": 1}}),
        (change, image, {"headers": merge, "json": {"focal": 1}}),
        (change, image, {"headers": k.bearer, "json": {}}),
        (change, waiting, {"headers": merge, "json": {}}),
    ]


def list_requests(k: Stored) -> list[Asked]:
    bearer = {"headers": k.bearer}
    return [
        (f"GET {IMAGES}", f"{IMAGES}?limit=1", bearer),
        (f"GET {IMAGES}", f"{IMAGES}?scope=org", bearer),
        (f"GET {IMAGES}", IMAGES, {}),
        (f"POST {IMAGES}/delete", f"{IMAGES}/delete", bearer | {"json": {"image_ids": ["x"]}}),
        (f"POST {IMAGES}/delete", f"{IMAGES}/delete", bearer | {"json": {}}),
        ("GET /api/v1/usage", "/api/v1/usage", bearer),
        (f"GET {IMAGES}/batch", f"{IMAGES}/batch?image_ids={k.image},x", {}),
        (f"GET {IMAGES}/batch", f"{IMAGES}/batch?image_ids={'x,' * 51}", {}),
    ]


def ticket_requests(k: Stored) -> list[Asked]:
    issue, use = f"POST {IMAGES}/tickets", f"POST {IMAGES}/tickets/{{ticket}}"
    return [
        (issue, f"{IMAGES}/tickets", {"headers": k.bearer, "json": {"bucket": "b"}}),
        (issue, f"{IMAGES}/tickets", {"headers": k.bearer, "json": {}}),
        *[(use, k.ticket, {"files": {"file": ("a.jpg", TINY)}})] * 2,
    ]


def byte_requests(k: Stored) -> list[Asked]:
    direct, page = f"{IMAGES}/{{image_id}}/direct", f"{IMAGES}/{k.image}/direct"
    source, address = f"{IMAGES}/{{image_id}}/source", f"{IMAGES}/{k.image}/source"
    return [
        (f"GET {direct}", page, {}),
        (f"GET {direct}", page, {"headers": {"Range": "bytes=0-9"}}),
        (f"GET {direct}", page, {"headers": {"Range": "bytes=999999-"}}),
        (f"GET {direct}", page, {"headers": {"If-None-Match": "*"}}),
        (f"GET {direct}", page, {"headers": {"If-Match": '"x"'}}),
        (f"HEAD {direct}", page, {}),
        (f"GET {source}", address, {"headers": k.bearer}),
        (f"GET {source}", address, {}),
        (f"HEAD {source}", address, {"headers": k.bearer}),
        ("GET /storage/{path}", k.stored, {}),
        ("HEAD /storage/{path}", "/storage/x", {}),
    ]


def upload_requests(k: Stored) -> list[Asked]:
    upload = (f"POST {IMAGES}/upload", f"{IMAGES}/upload")
    raw = {"params": {"bucket": "b"}, "headers": k.bearer | {"Content-Type": "image/jpeg"}}
    return [
        (*upload, {"files": {"file": ("a.jpg", TINY)}, "data": {"bucket": "b"}, "headers": k.bearer}),
        (*upload, {"content": TINY, **raw}),
        (*upload, {"content": b"words", **raw}),
        (*upload, {"content": make.bomb(), **raw}),
        (*upload, {"content": TINY, "headers": k.bearer}),
        (*upload, {"content": TINY}),
        (*upload, {"content": b"", "headers": k.bearer | {"Content-Length": str(1 << 30)}}),
    ]


async def operator_requests(s: Service) -> list[Asked]:
    """The same for what only the operator may."""
    o, api = {"headers": s.operator}, OPERATOR
    key = (await s.http.post(f"{api}/keys", json={"name": "n", "sub": "s"}, headers=s.operator)).json()["key_id"]
    erasure = (await s.http.delete(f"{api}/users/o/v", headers=s.operator)).json()["erasure_id"]
    (s.settings.storage.path / "photos").write_bytes(b"")
    failed = (await s.ended(await s.upload(TINY)))["job_id"]
    (s.settings.storage.path / "photos").unlink()
    image = (await s.completed(TINY))["image_id"]
    return [
        *dashboard_requests(o, failed),
        *session_requests(o, s.login_code()),
        *requests_for_images(o, image),
        *requests_for_keys_and_users(o, key, erasure),
        *requests_for_jobs(o, failed),
        *requests_for_upkeep(o),
        *requests_for_webhooks(o),
        (f"GET {api}/sessions", f"{api}/sessions", o),
        (f"POST {api}/logout", f"{api}/logout", {}),
        (f"DELETE {api}/sessions", f"{api}/sessions", o),
    ]


def dashboard_requests(o: Json, failed: str) -> list[Asked]:
    api = OPERATOR
    return [
        ("GET /dashboard", "/dashboard", o),
        ("GET /dashboard", "/dashboard", {}),
        ("GET /dashboard/images", "/dashboard/images", o),
        ("GET /dashboard/care", "/dashboard/care", o),
        ("GET /dashboard/care/webhooks", "/dashboard/care/webhooks", o),
        ("GET /dashboard/care/keys", "/dashboard/care/keys", o),
        ("GET /dashboard/care/users", "/dashboard/care/users", o),
        ("GET /dashboard/login", "/dashboard/login", {}),
        ("GET /dashboard/jobs", "/dashboard/jobs", o),
        ("GET /dashboard/jobs", "/dashboard/jobs", {"headers": {"Accept": "text/html"}}),
        ("GET /dashboard/jobs/{job_id}", f"/dashboard/jobs/{failed}", o),
        ("GET /dashboard/jobs/{job_id}", "/dashboard/jobs/x", o),
        (f"GET {api}/errors", f"{api}/errors", o),
        ("GET /dashboard/data", "/dashboard/data", o),
        ("GET /dashboard/data", "/dashboard/data", {"headers": {"Authorization": "Bearer wrong"}}),
        ("GET /dashboard/static/{name}", "/dashboard/static/base.css", {}),
        ("GET /dashboard/static/{name}", "/dashboard/static/nothing.html", {}),
        ("GET /errors", "/errors", {}),
        ("GET /metrics", "/metrics", o),
        ("GET /api/v1/health/auth", "/api/v1/health/auth", o),
        ("GET /api/v1/health/auth", "/api/v1/health/auth", {}),
        (f"DELETE {api}/permissions/{{org}}/{{user}}", f"{api}/permissions/default-org/alice", o),
    ]


def session_requests(o: Json, code: str) -> list[Asked]:
    api, login = OPERATOR, f"POST {OPERATOR}/login"
    return [
        (login, f"{api}/login", {"json": {"code": code}}),
        (login, f"{api}/login", {"json": {"token": "wrong"}}),
        (login, f"{api}/login", {"json": {}}),
        (f"POST {api}/token", f"{api}/token", {}),  # by the session that the login began
        (f"POST {api}/token", f"{api}/token", o),
        (f"GET {api}/sessions", f"{api}/sessions", o),
        (f"DELETE {api}/sessions", f"{api}/sessions", {}),
        (f"DELETE {api}/sessions", f"{api}/sessions", o),
    ]


def requests_for_images(o: Json, image: str) -> list[Asked]:
    api = OPERATOR
    return [
        (f"GET {api}/images", f"{api}/images?user=alice", o),
        (f"GET {api}/images", f"{api}/images?limit=0", o),
        (f"GET {api}/images/{{image_id}}", f"{api}/images/x", o),
        (f"GET {api}/images/{{image_id}}", f"{api}/images/{image}", o),
        (f"PATCH {api}/images/{{image_id}}", f"{api}/images/{image}", {"json": {}, "headers": o["headers"] | MERGE}),
        (f"DELETE {api}/images/{{image_id}}", f"{api}/images/x", o),
        (f"DELETE {api}/images/{{image_id}}", f"{api}/images/{image}", o),
        (f"POST {api}/images/delete", f"{api}/images/delete", o | {"json": {"image_ids": ["x"]}}),
        (f"GET {api}/images/task", f"{api}/images/task", o),
        (f"POST {api}/images/render", f"{api}/images/render", o | {"json": {"variants": ["x"]}}),
        (f"POST {api}/images/render", f"{api}/images/render", o | {"json": {}}),
        (f"DELETE {api}/images/task", f"{api}/images/task", o),
        (f"POST {api}/images/drop-sources", f"{api}/images/drop-sources", o | {"json": {}}),
    ]


def requests_for_keys_and_users(o: Json, key: str, erasure: str) -> list[Asked]:
    api = OPERATOR
    return [
        (f"GET {api}/keys", f"{api}/keys", o),
        (f"POST {api}/keys", f"{api}/keys", o | {"json": {"name": "n", "sub": "s"}}),
        (f"POST {api}/keys", f"{api}/keys", o | {"json": {}}),
        (f"DELETE {api}/keys/{{key_id}}", f"{api}/keys/x", o),
        (f"DELETE {api}/keys/{{key_id}}", f"{api}/keys/{key}", o),
        (f"DELETE {api}/users/{{org}}/{{user}}", f"{api}/users/o/u", o),
        (f"GET {api}/erasures", f"{api}/erasures", o),
        (f"GET {api}/erasures/{{erasure_id}}", f"{api}/erasures/{erasure}", o),
        (f"GET {api}/erasures/{{erasure_id}}", f"{api}/erasures/x", o),
    ]


def requests_for_jobs(o: Json, failed: str) -> list[Asked]:
    api, retry = OPERATOR, f"POST {OPERATOR}/jobs/{{job_id}}/retry"
    return [
        (f"GET {api}/jobs", f"{api}/jobs?status=failed", o),
        (f"GET {api}/jobs", f"{api}/jobs?status=lost", o),
        (f"GET {api}/jobs/{{job_id}}", f"{api}/jobs/{failed}", o),
        (f"GET {api}/jobs/{{job_id}}", f"{api}/jobs/x", o),
        (retry, f"{api}/jobs/{failed}/retry", o),
        (retry, f"{api}/jobs/{failed}/retry", o),
    ]


def requests_for_upkeep(o: Json) -> list[Asked]:
    api = OPERATOR
    return [
        (f"GET {api}/storage/task", f"{api}/storage/task", o),
        *((f"POST {api}/storage/{verb}", f"{api}/storage/{verb}", o | {"json": order}) for verb, order in UPKEEP),
        (f"POST {api}/storage/verify", f"{api}/storage/verify", o | {"json": {"grace_seconds": "x"}}),
        (f"GET {api}/storage/task", f"{api}/storage/task", o),
        (f"DELETE {api}/storage/task", f"{api}/storage/task", o),
    ]


def requests_for_webhooks(o: Json) -> list[Asked]:
    api = OPERATOR
    return [
        (f"GET {api}/webhooks", f"{api}/webhooks", o),
        (f"GET {api}/webhooks/{{webhook}}/attempts", f"{api}/webhooks/app/attempts", o),
        (f"GET {api}/webhooks/{{webhook}}/attempts", f"{api}/webhooks/x/attempts", o),
        (f"POST {api}/webhooks/{{webhook}}/replay", f"{api}/webhooks/app/replay", o | {"json": {}}),
        (f"POST {api}/webhooks/{{webhook}}/enable", f"{api}/webhooks/app/enable", o),
        (f"POST {api}/webhooks/{{webhook}}/test", f"{api}/webhooks/app/test", o),
    ]


async def sign_on_requests(s: Service, at: Provider) -> list[Asked]:
    start, back = "/dashboard/oidc/start", "/dashboard/oidc/callback"
    query = at.sign_in((await s.http.get(start)).headers["Location"])
    return [
        (f"GET {back}", f"{back}?{query}", {}),
        (f"GET {back}", back, {}),
        (f"GET {start}", start, {}),
    ]


async def private_requests(s: Service) -> list[Asked]:
    """The same for what is different where reading is private."""
    done, api, bearer = await s.completed(TINY), "/api/v1/images", Json(headers=s.bearer())
    image, stored = done["image_id"], "GET /storage/{path}"
    url = (await s.http.get(f"{api}/{image}", **bearer)).json()["url"]
    direct = s.state.stores.urls.of_page(image, "large")
    of_org = {
        f"GET {api}/{{image_id}}": f"{api}/{image}",
        f"GET {api}/{{image_id}}/all": f"{api}/{image}/all",
        f"GET {api}/batch": f"{api}/batch?image_ids={image},x",
        f"GET {api}/jobs/{{job_id}}/result": f"{api}/jobs/{done['job_id']}/result",
    }
    bad = {"headers": s.bearer(ttl_seconds=-60)}
    return [
        *((name, address, more) for name, address in of_org.items() for more in (bearer, bad, {})),
        (f"GET {api}/{{image_id}}/direct", direct, {}),
        (f"GET {api}/{{image_id}}/direct", f"{direct}x", {}),
        (f"HEAD {api}/{{image_id}}/direct", direct, {}),
        (stored, url, {}),
        (stored, url, {"headers": {"Range": "bytes=0-9"}}),
        (stored, url, {"headers": {"If-None-Match": "*"}}),
        (stored, f"{url}x", {}),
        (stored, url.partition("?")[0], {}),
        ("HEAD /storage/{path}", url, {}),
    ]


async def seen_as_documented(s: Service, asked: list[Asked]) -> set[tuple[str, int]]:
    """(operation, status) of what was really answered."""
    document = build(s.settings, ROUTES)
    described, validator, seen = dict(operations(document)), validators(document), set()
    for name, address, more in asked:
        method = name.split()[0]
        await no_upkeep(s)
        response = await s.http.request(method, address, **more)
        seen.add((name, response.status_code))
        known = described[name]["responses"].get(str(response.status_code))
        assert known, (name, address, response.status_code, response.text)
        for header, about in known["headers"].items():
            about = document["components"]["headers"][header] if "$ref" in about else about
            assert header in response.headers or not about["required"], (name, header)
        if not response.content:
            assert "content" not in known or method == "HEAD", name
            continue
        media_type = response.headers["Content-Type"].split(";")[0]
        content = known["content"].get(media_type) or known["content"]["*/*"]
        if media_type.endswith("json"):
            errors = validator(content["schema"]).iter_errors(response.json())
            assert not [error.message for error in errors], (name, response.text)
    return seen


# What succeeds elsewhere only: nothing is stored at the address, and no host is allowed (see test_fetch).
NOT_HERE = {"HEAD /storage/{path}", "POST /api/v1/images/fetch"}
NOT_HERE |= {f"{method} /api/v1/images/{{image_id}}/source" for method in ("GET", "HEAD")}  # nothing is kept


async def no_upkeep(s: Service) -> None:
    """One piece of it at a time."""
    with within(WAIT_SECONDS):
        while s.state.maintenance.task and s.state.maintenance.task.state == "running":
            await anyio.sleep(0.01)


async def test_real_answers_are_as_documented(start: Starter) -> None:
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    told = {"name": "app", "url": "http://127.0.0.1:9/", "secret": secret, "allow_private": True}
    sections: dict[str, Json] = {"jobs": {"max_attempts": 1}, "webhooks": {"endpoints": [told]}}
    async with provider() as at, start(**sections, **settings_of(at)) as s:
        described = dict(operations(build(s.settings, ROUTES)))
        asked = [*await sign_on_requests(s, at), *await operator_requests(s), *await requests(s)]
        seen = await seen_as_documented(s, asked)
        assert len({status for _, status in seen}) >= 15
        assert {name for name, status in seen if status < 400} | NOT_HERE == described.keys()


async def test_real_answers_are_as_documented_where_reading_is_private(start: Starter) -> None:
    async with start(storage={"signed_urls": True}) as s:
        asked = await private_requests(s)
        seen = await seen_as_documented(s, asked)
        assert {status for _, status in seen} == {200, 206, 304, 401, 403}
        assert {name for name, status in seen if status == 200} == {name for name, _, _ in asked}
