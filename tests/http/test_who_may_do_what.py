"""Who may do what: every route, every kind of caller, every mode of permissions, reading public and private, and the
dashboard open to all or not.

The table is made from the table of routes: a new route fails until it has a row. The images are in the memory of reads.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from starlette.routing import Route

from imgsvc.access.login_throttle import LoginThrottle
from imgsvc.service.routes import ROUTES
from tests.conftest import WAIT_SECONDS, Starter
from tests.support.asking import Answer, ask
from tests.support.authorization_server import Act, Asked, answering, authorization_server
from tests.support.permitted import (
    ACTORS,
    BOTH,
    GRANTED,
    IMAGES,
    MODES,
    OPENED,
    OPERATOR,
    TABLE,
    TINY,
    UNKNOWN,
    USUAL,
    Place,
)
from tests.support.speed import within


def addresses() -> set[str]:
    """METHOD and path of every route."""
    found = set()
    for route in ROUTES:
        assert isinstance(route, Route) and route.methods
        found |= {f"{method} {route.path}" for method in route.methods - {"HEAD"}}
    return found


def test_every_route_has_a_row() -> None:
    assert addresses() == TABLE.keys()


async def decide(asked: Asked, writer: Any) -> None:
    """The authorization server of the mode `remote`."""
    granted = GRANTED.get((asked.body["org_id"], asked.body["user_id"]), [])
    allowed = asked.body["permission"] in granted
    await answering(200, json.dumps({"allowed": allowed}).encode())(asked, writer)


@asynccontextmanager
async def place(start: Starter, mode: str, *, private: bool) -> AsyncIterator[Place]:
    act: Act = decide
    async with authorization_server(act) as server:
        auth = {"permissions": mode, **({"api_url": server.url} if mode == "remote" else {})}
        sections: dict[str, Any] = {"auth": auth, "storage": {"signed_urls": private}}
        async with start(**sections) as s:
            one = Place(s, mode, private)
            await prepare(one)
            yield one


async def prepare(one: Place) -> None:
    s = one.s
    key = {"name": "n", "sub": "alice", "permissions": ["image:other"]}
    created = (await s.http.post(f"{OPERATOR}/keys", json=key, headers=s.operator)).json()["key"]
    login = await s.http.post(f"{OPERATOR}/login", json={"code": s.login_code()})
    cookie = login.headers["Set-Cookie"].partition(";")[0]
    s.http.cookies.clear()
    host = str(s.http.base_url).rstrip("/")
    one.headers = {
        "nobody": {},
        "owner": s.bearer("alice", permissions=USUAL),
        "colleague": s.bearer("bob", permissions=USUAL),
        "admin": s.bearer("carol", permissions=BOTH),
        "elsewhere": s.bearer("alice", permissions=BOTH, org_id="elsewhere"),
        "key without the permission": {"Authorization": f"Bearer {created}"},
        "operator": {"Cookie": cookie, "Origin": host, "X-Requested-With": "tests"},
    }
    for actor in ("ticket", "spent ticket"):
        one.headers[actor] = {"Authorization": f"Bearer {await one.ticket()}"}
    one.spent = one.headers["spent ticket"]["Authorization"].removeprefix("Bearer ")
    spending = await s.http.post(f"{IMAGES}/tickets/{one.spent}", content=TINY, headers={"Content-Type": "image/jpeg"})
    assert spending.status_code == 202, spending.text
    headers = one.headers["owner"] | {"Content-Type": "image/jpeg"}
    accepted = await s.http.post(f"{IMAGES}/upload?bucket=b", content=TINY, headers=headers)
    one.job = await s.ended(accepted)
    with within(WAIT_SECONDS):  # the removal of the source makes the memory forget the row once more
        while s.state.jobs.table.memory.get("image", one.job["image_id"]) is None:
            read = await s.http.get(f"{IMAGES}/{one.job['image_id']}/all", headers=one.headers["owner"])
            assert read.status_code == 200, read.text


async def answer_to(one: Place, actor: str, method: str, sent: dict[str, Any]) -> Answer:
    body, kind = b"", {}
    if "content" in sent:
        body, kind = sent["content"], {"Content-Type": "image/jpeg"}
    elif "json" in sent:
        body, kind = json.dumps(sent["json"]).encode(), {"Content-Type": "application/json"}
    return await ask(one.s.app, method, sent["url"], {**one.headers[actor], **kind, **sent.get("headers", {})}, body)


def told(response: Answer) -> dict[str, Any]:
    """What a refusal says, without what differs for each request."""
    body: dict[str, Any] = response.json()
    return {name: value for name, value in body.items() if name != "trace_id"}


async def wrong(one: Place) -> list[str]:
    """All that is not as the table says."""
    found = []
    for address, rows in TABLE.items():
        method = address.partition(" ")[0]
        for row in rows:
            for actor, public in (*((actor, False) for actor in ACTORS), *((actor, True) for actor in OPENED)):
                one.set_public(public)
                one.s.state.access = replace(one.s.state.access, throttle=LoginThrottle())  # else they would wait
                sent = await row.ask(one)
                response = await answer_to(one, actor, method, sent)
                expected = row.expect(actor, one)
                if response.status_code not in expected:
                    where = f"{method} {sent['url']}" + " where [operator] is public" * public
                    found.append(f"{actor}: {where}: {response.status_code}, not {expected}")
                if row.hides and actor == "elsewhere" and response.status_code == 404:
                    ids = (one.job["image_id"], one.job["job_id"], sent["url"].rpartition("/")[2])
                    url = sent["url"]
                    for name in ids:
                        url = url.replace(name, UNKNOWN) if len(name) == len(UNKNOWN) else url
                    other = await answer_to(one, actor, method, {**sent, "url": url})
                    if told(other) != told(response):
                        found.append(f"{actor}: {method} {url} tells that there is an image")
    return found


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
@pytest.mark.parametrize("mode", MODES)
async def test_who_may_do_what(start: Starter, mode: str, private: bool) -> None:
    async with place(start, mode, private=private) as one:
        assert await wrong(one) == []
