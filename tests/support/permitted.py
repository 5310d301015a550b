"""Who may do what, as a table: each route, what to send, and the status that each actor gets."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fixtures import make
from tests.conftest import Service

IMAGES, OPERATOR = "/api/v1/images", "/api/v1/operator"
TINY = make.tiny()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
MODES = ("none", "claims", "remote")
USUAL = ["image:upload", "image:read", "image:update", "image:delete"]
BOTH = [*USUAL, "image:admin"]
GRANTED = {
    ("default-org", "alice"): USUAL,
    ("default-org", "bob"): USUAL,
    ("default-org", "carol"): BOTH,
    ("elsewhere", "alice"): BOTH,
}
ACTORS = (
    "nobody",
    "owner",
    "colleague",
    "admin",
    "elsewhere",
    "key without the permission",
    "ticket",
    "spent ticket",
    "operator",
)
OPENED = ("nobody", "owner")  # who also asks where `[operator] public` is set
REFUSED_OPERATOR = (401,)
seeds: Iterator[int] = count(1000)


@dataclass
class Place:
    """A service with an image of alice's, and what each actor sends."""

    s: Service
    mode: str
    private: bool
    public: bool = False
    job: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    spent: str = ""
    spare: str = UNKNOWN

    def set_public(self, public: bool) -> None:
        """`[operator] public`, of the running service."""
        self.public = public
        settings = self.s.state.settings
        operator = settings.operator.model_copy(update={"public": public})
        self.s.state.settings = settings.model_copy(update={"operator": operator})

    async def another_image(self) -> str:
        """An image that was not deleted: the last one, unless an actor was allowed to delete it."""
        if (await self.s.http.get(f"{IMAGES}/{self.spare}/all", headers=self.headers["owner"])).status_code != 200:
            self.spare = await self._uploaded()
        return self.spare

    async def _uploaded(self) -> str:
        headers = self.headers["owner"] | {"Content-Type": "image/jpeg"}
        data = make.jpeg(16, 12, next(seeds))
        accepted = await self.s.http.post(f"{IMAGES}/upload?bucket=b", content=data, headers=headers)
        return str((await self.s.ended(accepted))["image_id"])

    async def ticket(self) -> str:
        response = await self.s.http.post(f"{IMAGES}/tickets", json={"bucket": "b"}, headers=self.headers["owner"])
        return str(response.json()["ticket"])


Expect = Callable[[str, Place], tuple[int, ...]]


@dataclass(frozen=True)
class Row:
    """What is sent, as keywords of httpx with the path as `url`, and the statuses that an actor may get."""

    ask: Callable[[Place], Any]
    expect: Expect
    hides: bool = False  # a refusal across organisations is the same as for an ID that does not exist


def anybody(_: str, __: Place) -> tuple[int, ...]:
    return (200, 202, 204, 301, 307, 404, 409, 422)


def users(success: int, **others: int) -> Expect:
    """Callers with any valid credential; the rest is refused."""

    def expect(actor: str, _: Place) -> tuple[int, ...]:
        if actor in ("owner", "colleague", "admin", "elsewhere"):
            return (others.get(actor, success),)
        return (others.get("key", 403),) if actor.startswith("key") else (401,)

    return expect


def readers(elsewhere: int = 404, ticket: int = 401) -> Expect:
    """All callers where reading is public, else the organisation."""

    def expect(actor: str, place: Place) -> tuple[int, ...]:
        if not place.private or actor in ("owner", "colleague", "admin"):
            return (200,)
        if actor in ("ticket", "spent ticket"):
            return (ticket,)
        return ({"elsewhere": elsewhere, "key without the permission": 403}.get(actor, 401),)

    return expect


def signed(_: str, place: Place) -> tuple[int, ...]:
    return (403,) if place.private else (200,)


def owner_or_admin(actor: str, place: Place) -> tuple[int, ...]:
    admin = 403 if place.mode == "none" else 200
    found = {"owner": 200, "colleague": 403, "admin": admin, "elsewhere": 404, "key without the permission": 403}
    return (found.get(actor, 401),)


def source_readers(actor: str, place: Place) -> tuple[int, ...]:
    """As `owner_or_admin`; here no source is kept: a 404 for those who may know it."""
    return tuple(404 if status == 200 else status for status in owner_or_admin(actor, place))


def admins(actor: str, place: Place) -> tuple[int, ...]:
    allowed = 403 if place.mode == "none" else 200
    found = {"owner": 403, "colleague": 403, "admin": allowed, "elsewhere": allowed, "key without the permission": 403}
    return (found.get(actor, 401),)


def operator(actor: str, place: Place) -> tuple[int, ...]:
    """The operator, and all callers without a credential where `[operator] public` is set."""
    if actor == "operator" or (actor == "nobody" and place.public):
        return (200, 404)
    return REFUSED_OPERATOR


def signed_in(actor: str, _: Place) -> tuple[int, ...]:
    return (200, 201, 202, 204, 404, 409, 422) if actor == "operator" else REFUSED_OPERATOR


def get(path: str) -> Callable[[Place], Any]:
    async def ask(place: Place) -> dict[str, Any]:
        ids = {"{job_id}": place.job["job_id"], "{image_id}": place.job["image_id"]}
        url = path
        for name, value in ids.items():
            url = url.replace(name, value)
        return {"url": url}

    return ask


def post(path: str, body: Any = None) -> Callable[[Place], Any]:
    async def ask(place: Place) -> dict[str, Any]:
        return {**await get(path)(place), "json": {} if body is None else body}

    return ask


def patch(path: str) -> Callable[[Place], Any]:
    async def ask(place: Place) -> dict[str, Any]:
        return {**await get(path)(place), "json": {}, "headers": {"Content-Type": "application/merge-patch+json"}}

    return ask


async def stored(place: Place) -> dict[str, Any]:
    return {"url": f"/storage/b/processed/medium/{place.job['image_id']}_medium.webp"}


async def upload(_: Place) -> dict[str, Any]:
    return {"url": f"{IMAGES}/upload?bucket=b", "content": make.jpeg(16, 12, next(seeds))}


async def fresh_ticket(place: Place) -> dict[str, Any]:
    return {"url": f"{IMAGES}/tickets/{await place.ticket()}", "content": make.jpeg(16, 12, next(seeds))}


async def spent_ticket(place: Place) -> dict[str, Any]:
    return {"url": f"{IMAGES}/tickets/{place.spent}", "content": make.jpeg(16, 12, next(seeds))}


async def delete_one(place: Place) -> dict[str, Any]:
    return {"url": f"{IMAGES}/{await place.another_image()}"}


async def delete_many(place: Place) -> dict[str, Any]:
    return {"url": f"{IMAGES}/delete", "json": {"image_ids": [await place.another_image()]}}


async def delete_of_anybody(place: Place) -> dict[str, Any]:
    return {"url": f"{OPERATOR}/images/{await place.another_image()}"}


def let_in(expected: int) -> Expect:
    return lambda _, __: (expected,)


TABLE: dict[str, list[Row]] = {
    **{
        path: [Row(get(path.removeprefix("GET ").replace("{code}", "x").replace("{asset}", "docs.js")), anybody)]
        for path in (
            "GET /",
            "GET /info",
            "GET /errors",
            "GET /errors/{code}",
            "GET /openapi.json",
            "GET /docs",
            "GET /docs/",
            "GET /docs/{asset}",
            "GET /static/imgsvc.js",
            "GET /api/v1/health",
            "GET /api/v1/health/",
            "GET /api/v1/health/live",
            "GET /api/v1/health/stats",
            "GET /api/v1/health/failed",
            "GET /dashboard/login",
            "GET /dashboard/oidc/callback",  # not set up here: 404
            "GET /dashboard/oidc/start",
            "GET /api/v1/images/jobs/{job_id}",
            "GET /api/v1/images/jobs/{job_id}/events",  # without URLs for those who may not read the image
        )
    },
    "GET /dashboard/static/{name}": [Row(get("/dashboard/static/base.css"), anybody)],
    "GET /api/v1/images": [
        Row(get(IMAGES), users(200)),
        Row(get(f"{IMAGES}?scope=org"), admins),
    ],
    "GET /api/v1/usage": [Row(get("/api/v1/usage"), users(200))],
    "GET /api/v1/images/events": [Row(get(f"{IMAGES}/events?jobs={{job_id}}"), anybody)],
    "POST /api/v1/images/fetch": [
        Row(post(f"{IMAGES}/fetch", {"bucket": "b", "url": "https://x.example/a.jpg"}), users(403))  # it is off here
    ],
    "POST /api/v1/images/upload": [Row(upload, users(202))],
    "POST /api/v1/images/tickets": [Row(post(f"{IMAGES}/tickets", {"bucket": "b"}), users(201))],
    "POST /api/v1/images/tickets/{ticket}": [
        Row(fresh_ticket, let_in(202)),
        Row(spent_ticket, let_in(401)),
    ],
    "POST /api/v1/images/delete": [Row(delete_many, users(200, key=200))],
    "GET /api/v1/images/jobs/{job_id}/result": [
        Row(get(f"{IMAGES}/jobs/{{job_id}}/result"), readers(ticket=404), hides=True)
    ],
    "GET /api/v1/images/batch": [Row(get(f"{IMAGES}/batch?image_ids={{image_id}}"), readers(elsewhere=200))],
    "GET /api/v1/images/{image_id}": [Row(get(f"{IMAGES}/{{image_id}}"), readers(), hides=True)],
    "PATCH /api/v1/images/{image_id}": [Row(patch(f"{IMAGES}/{{image_id}}"), owner_or_admin, hides=True)],
    "DELETE /api/v1/images/{image_id}": [Row(delete_one, owner_or_admin, hides=True)],
    "GET /api/v1/images/{image_id}/all": [Row(get(f"{IMAGES}/{{image_id}}/all"), readers(), hides=True)],
    "GET /api/v1/images/{image_id}/direct": [Row(get(f"{IMAGES}/{{image_id}}/direct"), signed)],
    "GET /api/v1/images/{image_id}/source": [Row(get(f"{IMAGES}/{{image_id}}/source"), source_readers, hides=True)],
    "GET /storage/{path:path}": [Row(stored, signed)],
    **{
        path: [Row(get(path.removeprefix("GET ")), operator)]
        for path in (
            "GET /api/v1/health/auth",
            "GET /api/v1/operator/sessions",
            "GET /api/v1/operator/storage/task",
            "GET /api/v1/operator/images/task",
            "GET /api/v1/operator/webhooks",
            "GET /api/v1/operator/webhooks/{webhook}/attempts",
            "GET /dashboard",
            "GET /dashboard/",
            "GET /dashboard/data",
            "GET /metrics",
        )
    },
    **{
        path: [Row(get(path.removeprefix("GET ")), signed_in)]
        for path in (
            "GET /api/v1/operator/images",
            "GET /api/v1/operator/images/{image_id}",
            "GET /api/v1/operator/jobs",
            "GET /api/v1/operator/jobs/{job_id}",
            "GET /api/v1/operator/keys",
            "GET /dashboard/images",
            "GET /dashboard/care",
            "GET /dashboard/care/webhooks",
            "GET /dashboard/care/keys",
            "GET /dashboard/care/users",
            "GET /api/v1/operator/errors",
            "GET /dashboard/jobs",
            "GET /dashboard/jobs/{job_id}",
            "GET /api/v1/operator/erasures",
        )
    },
    "PATCH /api/v1/operator/images/{image_id}": [Row(patch(f"{OPERATOR}/images/{{image_id}}"), signed_in)],
    "DELETE /api/v1/operator/images/{image_id}": [Row(delete_of_anybody, signed_in)],
    "DELETE /api/v1/operator/keys/{key_id}": [Row(get(f"{OPERATOR}/keys/{UNKNOWN}"), signed_in)],
    "GET /api/v1/operator/erasures/{erasure_id}": [Row(get(f"{OPERATOR}/erasures/{UNKNOWN}"), signed_in)],
    "DELETE /api/v1/operator/users/{org}/{user}": [Row(get(f"{OPERATOR}/users/o/u"), signed_in)],
    "DELETE /api/v1/operator/permissions/{org}/{user}": [Row(get(f"{OPERATOR}/permissions/o/u"), signed_in)],
    "DELETE /api/v1/operator/images/task": [Row(get(f"{OPERATOR}/images/task"), signed_in)],
    "DELETE /api/v1/operator/storage/task": [Row(get(f"{OPERATOR}/storage/task"), signed_in)],
    **{
        path: [Row(post(path.removeprefix("POST ")), signed_in)]
        for path in (
            "POST /api/v1/operator/images/delete",
            "POST /api/v1/operator/images/drop-sources",
            "POST /api/v1/operator/images/render",
            "POST /api/v1/operator/keys",
            "POST /api/v1/operator/token",
            "POST /api/v1/operator/jobs/{job_id}/retry",
            "POST /api/v1/operator/storage/verify",
            "POST /api/v1/operator/storage/gc",
            "POST /api/v1/operator/storage/migrate",
            "POST /api/v1/operator/storage/backup",
            "POST /api/v1/operator/webhooks/{webhook}/replay",
            "POST /api/v1/operator/webhooks/{webhook}/enable",
            "POST /api/v1/operator/webhooks/{webhook}/test",
        )
    },
    "POST /api/v1/operator/login": [Row(post(f"{OPERATOR}/login"), anybody)],
    "DELETE /api/v1/operator/sessions": [Row(get(f"{OPERATOR}/sessions"), signed_in)],
    "POST /api/v1/operator/logout": [Row(post(f"{OPERATOR}/logout"), lambda _, __: (204, 401, 403))],
}
