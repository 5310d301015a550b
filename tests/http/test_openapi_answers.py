"""What is really answered is what the API document says of it."""

import anyio

from fixtures import make
from imgsvc.http.openapi.document import build
from imgsvc.service.routes import ROUTES
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.http.test_openapi import Json, operations, validators
from tests.support.sign_on_provider import Provider, provider, settings_of
from tests.support.speed import within

TINY = make.jpeg(64, 48)
MERGE = {"Content-Type": "application/merge-patch+json"}
UPKEEP: list[tuple[str, Json]] = [
    ("verify", {"digests": True}),
    ("gc", {}),
    ("migrate", {"to": "local"}),
    ("backup", {"destination": "/nowhere", "dry_run": True}),
]


async def requests(s: Service) -> list[tuple[str, str, Json]]:
    """(documented operation, address, further arguments for httpx) of a request for each status that is easy to get."""
    done = await s.completed(TINY, metadata='{"title": "x"}')
    job, image, bearer = done["job_id"], done["image_id"], s.bearer()
    failed = (await s.ended(await s.upload(TINY[: len(TINY) // 2])))["job_id"]
    s.state.jobs.queue.hold()
    waiting = (await s.upload(TINY)).json()
    direct = ("GET /api/v1/images/{image_id}/direct", f"/api/v1/images/{image}/direct")
    one, status = ("GET /api/v1/images/{image_id}", "/api/v1/images"), "GET /api/v1/images/jobs/{job_id}"
    stored = (await s.http.get(f"/api/v1/images/{image}")).json()["url"]
    upload = ("POST /api/v1/images/upload", "/api/v1/images/upload")
    by_ticket = "POST /api/v1/images/tickets/{ticket}"
    issued = await s.http.post(f"{one[1]}/tickets", json={"bucket": "b"}, headers=bearer)
    ticket = issued.json()["upload_url"]
    raw = {"params": {"bucket": "b"}, "headers": bearer | {"Content-Type": "image/jpeg"}}
    change = ("PATCH /api/v1/images/{image_id}", f"{one[1]}/{image}")
    plain: list[tuple[str, str, Json]] = [
        (f"GET {path}", path, {}) for path in ("/", "/info", "/openapi.json", "/docs", "/static/imgsvc.js")
    ]
    plain += [(f"GET /api/v1/health{path}", f"/api/v1/health{path}", {}) for path in ("", "/live", "/stats", "/failed")]
    return [
        *plain,
        ("GET /errors/{code}", "/errors/not_found", {}),
        ("GET /errors/{code}", "/errors/nothing", {}),
        ("GET /docs/{asset}", "/docs/docs.js", {}),
        ("GET /api/v1/health/failed", "/api/v1/health/failed?limit=0", {}),
        (status, f"/api/v1/images/jobs/{job}", {"headers": {"Prefer": "wait=1"}}),
        (status, f"/api/v1/images/jobs/{failed}", {}),
        (status, "/api/v1/images/jobs/x", {}),
        (f"{status}/events", f"/api/v1/images/jobs/{job}/events", {}),
        ("GET /api/v1/images/events", f"/api/v1/images/events?jobs={job},{failed}", {}),
        ("GET /api/v1/images/events", "/api/v1/images/events?jobs=x", {}),
        ("POST /api/v1/images/fetch", "/api/v1/images/fetch", {"json": {"url": "x", "bucket": "b"}, "headers": bearer}),
        (f"{status}/result", f"/api/v1/images/jobs/{job}/result", {"headers": bearer}),
        (f"{status}/result", f"/api/v1/images/jobs/{waiting['job_id']}/result", {}),
        (one[0], f"{one[1]}/{image}", {}),
        (one[0], f"{one[1]}/{image}?size=huge", {}),
        (one[0], f"{one[1]}/{image}?size=..", {}),
        (one[0], f"{one[1]}/{waiting['image_id']}", {}),
        (one[0], f"{one[1]}/upload", {}),
        (f"{one[0]}/all", f"{one[1]}/{image}/all", {}),
        ("GET /api/v1/images", f"{one[1]}?limit=1", {"headers": bearer}),
        ("GET /api/v1/images", f"{one[1]}?scope=org", {"headers": bearer}),
        ("GET /api/v1/images", one[1], {}),
        ("POST /api/v1/images/delete", f"{one[1]}/delete", {"headers": bearer, "json": {"image_ids": ["x"]}}),
        ("POST /api/v1/images/delete", f"{one[1]}/delete", {"headers": bearer, "json": {}}),
        (*change, {"headers": bearer | MERGE, "json": {"expires_at": None, "focal": {"x": 0.5, "y": 0.5}}}),
        (*change, {"headers": bearer | MERGE, "json": {"expires_at": 1}}),
        (*change, {"headers": bearer | MERGE, "json": {"focal": 1}}),
        (*change, {"headers": bearer, "json": {}}),
        (change[0], f"{one[1]}/{waiting['image_id']}", {"headers": bearer | MERGE, "json": {}}),
        ("POST /api/v1/images/tickets", f"{one[1]}/tickets", {"headers": bearer, "json": {"bucket": "b"}}),
        ("POST /api/v1/images/tickets", f"{one[1]}/tickets", {"headers": bearer, "json": {}}),
        (by_ticket, ticket, {"files": {"file": ("a.jpg", TINY)}}),
        (by_ticket, ticket, {"files": {"file": ("a.jpg", TINY)}}),
        ("GET /api/v1/usage", "/api/v1/usage", {"headers": bearer}),
        ("GET /api/v1/images/batch", f"{one[1]}/batch?image_ids={image},x", {}),
        ("GET /api/v1/images/batch", f"{one[1]}/batch?image_ids={'x,' * 51}", {}),
        (*direct, {}),
        (*direct, {"headers": {"Range": "bytes=0-9"}}),
        (*direct, {"headers": {"Range": "bytes=999999-"}}),
        (*direct, {"headers": {"If-None-Match": "*"}}),
        (*direct, {"headers": {"If-Match": '"x"'}}),
        ("HEAD /api/v1/images/{image_id}/direct", direct[1], {}),
        ("GET /api/v1/images/{image_id}/source", f"{one[1]}/{image}/source", {"headers": bearer}),
        ("GET /api/v1/images/{image_id}/source", f"{one[1]}/{image}/source", {}),
        ("HEAD /api/v1/images/{image_id}/source", f"{one[1]}/{image}/source", {"headers": bearer}),
        ("GET /storage/{path}", stored, {}),
        ("HEAD /storage/{path}", "/storage/x", {}),
        (*upload, {"files": {"file": ("a.jpg", TINY)}, "data": {"bucket": "b"}, "headers": bearer}),
        (*upload, {"content": TINY, **raw}),
        (*upload, {"content": b"words", **raw}),
        (*upload, {"content": make.bomb(), **raw}),
        (*upload, {"content": TINY, "headers": bearer}),
        (*upload, {"content": TINY}),
        (*upload, {"content": b"", "headers": bearer | {"Content-Length": str(1 << 30)}}),
        ("DELETE /api/v1/images/{image_id}", f"{one[1]}/{image}", {"headers": s.bearer("bob")}),
        ("DELETE /api/v1/images/{image_id}", f"{one[1]}/{image}", {"headers": bearer}),
        ("DELETE /api/v1/images/{image_id}", f"{one[1]}/{image}", {"headers": bearer}),
    ]


async def operator_requests(s: Service) -> list[tuple[str, str, Json]]:
    """The same for what only the operator may."""
    o, api = {"headers": s.operator}, "/api/v1/operator"
    key = (await s.http.post(f"{api}/keys", json={"name": "n", "sub": "s"}, headers=s.operator)).json()["key_id"]
    erasure = (await s.http.delete(f"{api}/users/o/v", headers=s.operator)).json()["erasure_id"]
    (s.settings.storage.path / "photos").write_bytes(b"")
    failed = (await s.ended(await s.upload(TINY)))["job_id"]
    (s.settings.storage.path / "photos").unlink()
    image = (await s.completed(TINY))["image_id"]
    login, retry = f"POST {api}/login", f"POST {api}/jobs/{{job_id}}/retry"
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
        (login, f"{api}/login", {"json": {"code": s.login_code()}}),
        (login, f"{api}/login", {"json": {"token": "wrong"}}),
        (login, f"{api}/login", {"json": {}}),
        (f"POST {api}/token", f"{api}/token", {}),  # by the session that the login began
        (f"POST {api}/token", f"{api}/token", o),
        (f"GET {api}/sessions", f"{api}/sessions", o),
        (f"DELETE {api}/sessions", f"{api}/sessions", {}),
        (f"DELETE {api}/sessions", f"{api}/sessions", o),
        (f"GET {api}/images", f"{api}/images?user=alice", o),
        (f"GET {api}/images", f"{api}/images?limit=0", o),
        (f"GET {api}/images/{{image_id}}", f"{api}/images/x", o),
        (f"GET {api}/images/{{image_id}}", f"{api}/images/{image}", o),
        (f"PATCH {api}/images/{{image_id}}", f"{api}/images/{image}", {"json": {}, "headers": s.operator | MERGE}),
        (f"DELETE {api}/images/{{image_id}}", f"{api}/images/x", o),
        (f"DELETE {api}/images/{{image_id}}", f"{api}/images/{image}", o),
        (f"POST {api}/images/delete", f"{api}/images/delete", o | {"json": {"image_ids": ["x"]}}),
        (f"GET {api}/images/task", f"{api}/images/task", o),
        (f"POST {api}/images/render", f"{api}/images/render", o | {"json": {"variants": ["x"]}}),
        (f"POST {api}/images/render", f"{api}/images/render", o | {"json": {}}),
        (f"DELETE {api}/images/task", f"{api}/images/task", o),
        (f"POST {api}/images/drop-sources", f"{api}/images/drop-sources", o | {"json": {}}),
        (f"GET {api}/keys", f"{api}/keys", o),
        (f"POST {api}/keys", f"{api}/keys", o | {"json": {"name": "n", "sub": "s"}}),
        (f"POST {api}/keys", f"{api}/keys", o | {"json": {}}),
        (f"DELETE {api}/keys/{{key_id}}", f"{api}/keys/x", o),
        (f"DELETE {api}/keys/{{key_id}}", f"{api}/keys/{key}", o),
        (f"DELETE {api}/users/{{org}}/{{user}}", f"{api}/users/o/u", o),
        (f"GET {api}/erasures", f"{api}/erasures", o),
        (f"GET {api}/erasures/{{erasure_id}}", f"{api}/erasures/{erasure}", o),
        (f"GET {api}/erasures/{{erasure_id}}", f"{api}/erasures/x", o),
        (f"GET {api}/jobs", f"{api}/jobs?status=failed", o),
        (f"GET {api}/jobs", f"{api}/jobs?status=lost", o),
        (f"GET {api}/jobs/{{job_id}}", f"{api}/jobs/{failed}", o),
        (f"GET {api}/jobs/{{job_id}}", f"{api}/jobs/x", o),
        (retry, f"{api}/jobs/{failed}/retry", o),
        (retry, f"{api}/jobs/{failed}/retry", o),
        (f"GET {api}/storage/task", f"{api}/storage/task", o),
        *((f"POST {api}/storage/{verb}", f"{api}/storage/{verb}", o | {"json": order}) for verb, order in UPKEEP),
        (f"POST {api}/storage/verify", f"{api}/storage/verify", o | {"json": {"grace_seconds": "x"}}),
        (f"GET {api}/storage/task", f"{api}/storage/task", o),
        (f"DELETE {api}/storage/task", f"{api}/storage/task", o),
        (f"GET {api}/webhooks", f"{api}/webhooks", o),
        (f"GET {api}/webhooks/{{webhook}}/attempts", f"{api}/webhooks/app/attempts", o),
        (f"GET {api}/webhooks/{{webhook}}/attempts", f"{api}/webhooks/x/attempts", o),
        (f"POST {api}/webhooks/{{webhook}}/replay", f"{api}/webhooks/app/replay", o | {"json": {}}),
        (f"POST {api}/webhooks/{{webhook}}/enable", f"{api}/webhooks/app/enable", o),
        (f"POST {api}/webhooks/{{webhook}}/test", f"{api}/webhooks/app/test", o),
        (f"GET {api}/sessions", f"{api}/sessions", o),
        (f"POST {api}/logout", f"{api}/logout", {}),
        (f"DELETE {api}/sessions", f"{api}/sessions", o),
    ]


async def sign_on_requests(s: Service, at: Provider) -> list[tuple[str, str, Json]]:
    start, back = "/dashboard/oidc/start", "/dashboard/oidc/callback"
    query = at.sign_in((await s.http.get(start)).headers["Location"])
    return [
        (f"GET {back}", f"{back}?{query}", {}),
        (f"GET {back}", back, {}),
        (f"GET {start}", start, {}),
    ]


async def private_requests(s: Service) -> list[tuple[str, str, Json]]:
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


async def seen_as_documented(s: Service, asked: list[tuple[str, str, Json]]) -> set[tuple[str, int]]:
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
