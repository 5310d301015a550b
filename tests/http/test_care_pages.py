"""The pages of care as the server sends them."""

from typing import Any

import pytest

from fixtures import make
from tests.conftest import Service, Starter

AS_PERSON = {"Accept": "text/html"}
HOSTILE = "<b onclick=x>'\""
PAGES = ("", "/webhooks", "/keys", "/users")
HOOKS = ({"name": "app", "url": "https://hooks.example.org/x", "secret": "whsec_" + "A" * 40},)


async def shown(s: Service, page: str, **query: str) -> str:
    response = await s.http.get(f"/dashboard/care{page}", params=query, headers={**s.operator, **AS_PERSON})
    assert response.status_code == 200, response.text
    assert HOSTILE not in response.text
    return response.text


@pytest.mark.parametrize("page", PAGES)
async def test_pages_of_care_are_never_public(start: Starter, page: str) -> None:
    async with start(operator={"public": True}) as s:
        refused = await s.http.get(f"/dashboard/care{page}", headers=AS_PERSON)
        assert refused.status_code == 401 and "Operator token" in refused.text


async def test_what_there_is_is_shown_and_words_stay_words(start: Starter) -> None:
    async with start(webhooks={"endpoints": HOOKS}) as s:
        key: dict[str, Any] = {"name": HOSTILE, "sub": HOSTILE, "org": HOSTILE, "permissions": ["image:upload"]}
        created = (await s.http.post("/api/v1/operator/keys", json=key, headers=s.operator)).json()
        bearer = {"Authorization": f"Bearer {created['key']}"}
        ticket = {"bucket": "holiday", "uploads": 7}
        assert (await s.http.post("/api/v1/images/tickets", json=ticket, headers=bearer)).status_code == 201
        keys = await shown(s, "/keys")
        assert (
            "1 in use" in keys
            and "1 open" in keys
            and "Revoke: key" in keys
            and "7 uploads" in keys
            and created["key"] not in keys
        )
        await s.http.delete(f"/api/v1/operator/keys/{created['key_id']}", headers=s.operator)
        assert "Revoke: key" not in await shown(s, "/keys")
        assert "0 deliveries waiting" in await shown(s, "/webhooks")
        assert "No task has run" in await shown(s, "")


async def test_users_are_listed_from_one_on_and_lead_to_their_pictures(start: Starter) -> None:
    async with start() as s:
        for number, user in enumerate(("alice", HOSTILE, "zoe")):
            await s.completed(make.tiny(seed=number), user=user)
        users = await shown(s, "/users")
        assert users.count("dashboard/images?org=default-org&amp;user=") == 3
        later = await shown(s, "/users", user="b")
        assert later.count("dashboard/images?org=default-org&amp;user=") == 1 and "user=zoe" in later
        erased = await s.http.delete("/api/v1/operator/users/default-org/zoe", headers=s.operator)
        assert erased.status_code == 202
        assert erased.json()["erasure_id"] in await shown(s, "/users")
