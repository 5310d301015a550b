"""Who may do what, in each mode, over the wire; and that a refusal says nothing of another org."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import product
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc.access.permissions import AuthorizationUnavailable, Mode, PermissionDenied, Permissions
from imgsvc.access.tokens import Identity
from tests.conftest import Service, Starter
from tests.support.refused import RAW, UPLOAD

TINY = make.tiny()
MODES: tuple[Mode, ...] = ("none", "claims", "remote")
IMAGES = "/api/v1/images"
PERSONAL = {"uploader_id", "org_id", "original_filename"}
SCOPE = 'Bearer realm="imgsvc", error="insufficient_scope", scope="{}"'


class Register:
    """An authorization service that is just a list of who may do what; empty: it is away."""

    def __init__(self, *granted: tuple[str, str, str], away: bool = False) -> None:
        self.granted, self.away = set(granted), away
        self.asked: list[tuple[str, str, str]] = []

    async def allowed(self, org_id: str, user_id: str, permission: str) -> bool:
        self.asked.append((org_id, user_id, permission))
        if self.away:
            raise AuthorizationUnavailable(17.2)
        return (org_id, user_id, permission) in self.granted


def decide(s: Service, permissions: Permissions) -> None:
    """Let this service decide by these permissions from now on."""
    s.state.access = replace(s.state.access, permissions=permissions)


async def upload(s: Service, user: str = "alice", **claims: Any) -> httpx.Response:
    headers = {**RAW, **s.bearer(user, **claims)}
    return await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=headers)


async def image(s: Service) -> dict[str, Any]:
    """One of alice's, whatever the mode."""
    access = s.state.access
    decide(s, Permissions())
    job = await s.ended(await upload(s))
    s.state.access = access
    return job


async def delete(s: Service, image_id: str, user: str, **claims: Any) -> httpx.Response:
    return await s.http.delete(f"{IMAGES}/{image_id}", headers=s.bearer(user, **claims))


def denied(answer: httpx.Response, permission: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (403, "permission_denied"), answer.text
    assert body["detail"] == body["error"] == f"Permission denied: {permission}"
    assert answer.headers["WWW-Authenticate"] == SCOPE.format(permission)


async def test_nobody_is_an_admin_where_nothing_is_given_out() -> None:
    claimed = Identity("alice", "acme", ("image:admin",))
    for permission in ("image:upload", "image:delete", "image:read"):
        await Permissions().require(Identity("alice", "acme"), permission)
    with pytest.raises(PermissionDenied):
        await Permissions().require(claimed, "image:admin")
    await Permissions("claims").require(claimed, "image:admin")


async def test_who_may_upload(start: Starter) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        s.state.jobs.queue.hold()
        for granted in ([], ["image:read"], ["image:admin"], ["image:uploads"], ["IMAGE:UPLOAD"], ["image"], ["*"]):
            denied(await upload(s, permissions=granted), "image:upload")
        assert (await upload(s, permissions=["x", "image:upload"])).status_code == 202
        rows = await s.sql("SELECT metadata FROM image_upload_events WHERE event_type = 'upload_denied'")
        assert rows == [('{"org_id": "default-org", "user_id": "alice", "permission": "image:upload"}',)]
        token = (await s.http.post("/api/v1/operator/token", headers=s.operator)).json()["token"]
        headers = {**RAW, "Authorization": f"Bearer {token}"}
        answer = await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=headers)
        assert answer.status_code == 202  # from the dashboard


async def test_refusal_stays_one_where_it_can_not_be_noted(start: Starter) -> None:
    async with start(auth={"permissions": "claims"}) as s:
        await s.sql("ALTER TABLE image_upload_events RENAME TO gone")
        with capture_logs() as logs:
            denied(await upload(s, permissions=[]), "image:upload")
        (said,) = [entry for entry in logs if entry["event"] == "denial_not_recorded"]
        assert (said["kind"], said["user_id"]) == ("upload_denied", "alice")
        await s.sql("ALTER TABLE gone RENAME TO image_upload_events")
        denied(await upload(s, permissions=[]), "image:upload")
        assert await s.sql("SELECT event_type FROM image_upload_events") == [("upload_denied",)]


async def test_permission_comes_before_everything_but_the_token(start: Starter) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    async with start(auth={"permissions": "claims"}, rate_limit={"max_uploads": 1}) as s:
        s.state.jobs.queue.hold()
        assert (await upload(s, permissions=["image:upload"])).status_code == 202
        for headers in ({"Content-Length": "99999999999"}, {"Content-Type": "text/plain"}, {}):
            answer = await s.http.post(UPLOAD, content=b"", headers={**RAW, **s.bearer(), **headers})
            denied(answer, "image:upload")
        denied(await s.http.post(UPLOAD, content=endless(), headers={**RAW, **s.bearer()}), "image:upload")
        assert sent < 1 << 22
        assert (await upload(s, permissions=["image:upload"])).status_code == 429


# mode, who asks, with which permissions, what becomes of alice's image
DELETIONS: list[tuple[Mode, str, list[str], int]] = [
    ("none", "alice", [], 200),
    ("none", "bob", ["image:admin", "image:delete"], 403),
    ("claims", "alice", ["image:delete"], 200),
    ("claims", "alice", ["image:admin"], 200),
    ("claims", "alice", ["image:upload"], 403),
    ("claims", "alice", [], 403),
    ("claims", "bob", ["image:admin"], 200),
    ("claims", "bob", ["image:delete"], 403),
    ("claims", "bob", [], 403),
    ("remote", "alice", ["image:delete"], 200),
    ("remote", "alice", [], 403),
    ("remote", "bob", ["image:admin"], 200),
    ("remote", "bob", ["image:delete"], 403),
]


async def test_who_may_delete(start: Starter) -> None:
    async with start() as s:
        refused = 0
        for mode, user, granted, status in DELETIONS:
            image_id = (await image(s))["image_id"]
            register = Register(*(("default-org", user, one) for one in granted))
            decide(s, Permissions(mode, register if mode == "remote" else None))
            claims: dict[str, Any] = {} if mode == "remote" else {"permissions": granted}
            answer = await delete(s, image_id, user, **claims)
            assert answer.status_code == status, (mode, user, granted)
            if status == 403:
                denied(answer, "image:delete")
                refused += 1
            else:
                assert (await delete(s, image_id, user, **claims)).status_code == 404
            assert bool(register.asked) == (mode == "remote")
        noted = await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type = 'delete_denied'")
        assert noted == [(refused,)]


async def test_a_refusal_does_not_reveal_what_another_org_has(start: Starter) -> None:
    """Not by status, body, headers, or by whether the authorization service was asked."""
    everything = ["image:admin", "image:delete", "image:read"]
    async with start() as s:
        job = await image(s)
        register = Register(*(("other", user, one) for one in everything for user in ("alice", "eve")))
        for mode, user in product(MODES, ("alice", "eve")):
            decide(s, Permissions(mode, register))
            theirs, nobodys, malformed = [
                await delete(s, image_id, user, org_id="other", permissions=everything)
                for image_id in (job["image_id"], str(uuid.uuid4()), "x")
            ]
            for answer in (theirs, nobodys, malformed):
                assert answer.status_code == 404
                assert {**answer.json(), "trace_id": ""} == {**nobodys.json(), "trace_id": ""}
                assert _steady(answer) == _steady(nobodys)
        assert register.asked == []
        assert await s.sql("SELECT count(*) FROM image_upload_events WHERE event_type LIKE '%denied'") == [(0,)]


def _steady(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("x-trace-id", "x-correlation-id")}


async def test_who_sees_whose_it_is(start: Starter) -> None:
    register = Register(("default-org", "bob", "image:admin"), ("other", "bob", "image:admin"))
    claim = {"permissions": ["image:admin"]}
    async with start() as s:
        job = await image(s)
        seen: list[tuple[str, dict[str, str], tuple[Mode, ...]]] = [
            ("the uploader", s.bearer("alice"), MODES),
            ("an admin by claim", s.bearer("eve", **claim), ("none", "claims")),
            ("an admin by the register", s.bearer("bob"), ("remote",)),
            ("a colleague", s.bearer("eve"), ()),
            ("an admin of another org", s.bearer("bob", org_id="other", **claim), ()),
            ("nobody", {}, ()),
        ]
        for mode, (who, headers, modes) in product(MODES, seen):
            shown = mode in modes
            decide(s, Permissions(mode, register))
            path = f"{IMAGES}/jobs/{job['job_id']}/result"
            found = (await s.http.get(path, headers=headers)).json()["metadata"]
            assert (found.keys() >= PERSONAL) == bool(found.keys() & PERSONAL) == shown, (mode, who)


async def test_authorization_away(start: Starter) -> None:
    """Uploads and deletions wait; what is public stays so, and what is not stays hidden."""
    async with start(auth={"permissions": "remote", "api_url": "http://127.0.0.1:9"}) as s:
        job = await image(s)
        for register, retry_after in ((Register(away=True), "18"), (None, "5")):
            decide(s, Permissions("remote", register))
            for answer in (await upload(s), await delete(s, job["image_id"], "alice")):
                body = answer.json()
                assert (answer.status_code, body["code"]) == (503, "authorization_unavailable")
                assert body["detail"] == "Authorization service temporarily unavailable"
                assert answer.headers["Retry-After"] == retry_after
            for user, shown in (("alice", True), ("bob", False)):
                answer = await s.http.get(f"{IMAGES}/jobs/{job['job_id']}/result", headers=s.bearer(user))
                assert answer.status_code == 200
                assert (answer.json()["metadata"].keys() >= PERSONAL) == shown
            assert (await delete(s, str(uuid.uuid4()), "alice")).status_code == 404
        assert len(s.stored()) == 4
