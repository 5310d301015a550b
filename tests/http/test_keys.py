"""API keys: what they may do, in every mode, and that a revoked one is refused."""

from typing import Any

import httpx
import pytest

from fixtures import make
from imgsvc.access.issued_secrets import redacted
from tests.conftest import Service, Starter

IMAGES, KEYS = "/api/v1/images", "/api/v1/operator/keys"
TINY = make.tiny()
MERGE = {"Content-Type": "application/merge-patch+json"}


async def created(s: Service, **more: Any) -> dict[str, Any]:
    response = await s.http.post(KEYS, json={"name": "shop", "sub": "alice", **more}, headers=s.operator)
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


async def upload(s: Service, headers: dict[str, str], data: bytes = TINY, bucket: str = "photos") -> httpx.Response:
    sent = headers | {"Content-Type": "image/jpeg"}
    return await s.http.post(f"{IMAGES}/upload", params={"bucket": bucket}, content=data, headers=sent)


@pytest.mark.parametrize("mode", ["none", "claims"])
async def test_key_may_do_what_its_list_says(start: Starter, mode: str) -> None:
    async with start(auth={"permissions": mode}) as s:
        plain, reader = await created(s), await created(s, permissions=["image:read", "image:delete"])
        admin = await created(s, sub="carol", permissions=["image:read", "image:update", "image:admin"])
        job = await s.ended(await upload(s, bearer(plain)))
        assert (await s.sql("SELECT user_id, org_id FROM processing_jobs")) == [("alice", "default-org")]
        image = f"{IMAGES}/{job['image_id']}"
        assert (await s.http.get(IMAGES, headers=bearer(plain))).status_code == 403
        assert (await s.http.delete(image, headers=bearer(plain))).status_code == 403
        assert (await s.http.patch(image, json={}, headers=bearer(plain) | MERGE)).status_code == 403
        assert (await upload(s, bearer(reader))).status_code == 403
        listed = await s.http.get(IMAGES, headers=bearer(reader))
        assert [one["image_id"] for one in listed.json()["images"]] == [job["image_id"]]
        whole = await s.http.get(f"{IMAGES}?scope=org", headers=bearer(admin))
        assert [one["image_id"] for one in whole.json()["images"]] == [job["image_id"]]
        assert (await s.http.patch(image, json={}, headers=bearer(admin) | MERGE)).status_code == 200
        assert (await s.http.delete(image, headers=bearer(reader))).status_code == 200


async def test_limits_of_a_key(start: Starter) -> None:
    async with start() as s:
        key = await created(s, narrower={"buckets": ["photos"], "max_bytes": len(TINY), "uploads_per_hour": 2})
        assert (await upload(s, bearer(key), bucket="other")).json()["code"] == "bucket_not_allowed"
        assert (await upload(s, bearer(key), make.jpeg(640, 480))).json()["code"] == "upload_too_large"
        answers = [(await upload(s, bearer(key))).status_code for _ in range(3)]
        assert answers == [202, 202, 429]
        refused: tuple[dict[str, Any], ...] = (
            {"narrower": {"max_bytes": -1}},
            {"narrower": {"bytes": 1}},
            {"narrower": {"max_bytes": None}},
            {"sub": ""},
            {"sub": "a\n"},
            {"permissions": [""]},
            {"permissions": []},
            {"secret": "x"},
        )
        for wrong in refused:
            response = await s.http.post(KEYS, json={"name": "n", "sub": "s", **wrong}, headers=s.operator)
            assert response.status_code == 422, wrong


async def test_revoked_key_lets_nobody_in(start: Starter) -> None:
    async with start() as s:
        key, other = await created(s), await created(s)
        assert (await upload(s, bearer(key))).status_code == 202
        assert (await s.http.delete(f"{KEYS}/{key['key_id']}", headers=s.bearer())).status_code == 401
        revoked = await s.http.delete(f"{KEYS}/{key['key_id']}", headers=s.operator)
        assert revoked.json() == {"key_id": key["key_id"], "revoked": True}
        response = await upload(s, bearer(key))
        assert (response.status_code, response.json()["code"]) == (401, "token_invalid")
        assert (await upload(s, bearer(other))).status_code == 202
        for key_id in (key["key_id"], "x", "00000000-0000-4000-8000-000000000000"):
            again = await s.http.delete(f"{KEYS}/{key_id}", headers=s.operator)
            assert (again.status_code, again.json()["code"]) == (404, "key_not_found")
        listed = (await s.http.get(KEYS, headers=s.operator)).json()["keys"]
        assert [(one["key_id"], one["revoked_at"] is None) for one in listed] == [
            (other["key_id"], True),
            (key["key_id"], False),
        ]
        assert all(one["last_used_at"] is not None and "key" not in one for one in listed)
        for wrong in ("imgk_", f"{other['key']}x", other["key"][:-1], "imgk_x"):
            answer = await upload(s, {"Authorization": f"Bearer {wrong}"})
            assert answer.status_code == 401


async def test_upload_that_a_revocation_overtakes_is_refused(start: Starter) -> None:
    """Its key held when it began; the transaction that would accept it looks again."""
    async with start() as s:
        key = await created(s)

        async def body() -> Any:
            yield TINY[:100]
            await s.http.delete(f"{KEYS}/{key['key_id']}", headers=s.operator)
            yield TINY[100:]

        headers = bearer(key) | {"Content-Type": "image/jpeg"}
        response = await s.http.post(f"{IMAGES}/upload?bucket=b", content=body(), headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "token_invalid")
        assert s.staged() == [] and await s.sql("SELECT count(*) FROM processing_jobs") == [(0,)]


async def test_last_use_is_written_once_an_hour(start: Starter) -> None:
    async with start() as s:
        key = await created(s, permissions=["image:read"])
        await s.http.get(IMAGES, headers=bearer(key))
        first = await s.sql("SELECT last_used_at FROM api_keys")
        await s.http.get(IMAGES, headers=bearer(key))
        assert await s.sql("SELECT last_used_at FROM api_keys") == first
        await s.sql("UPDATE api_keys SET last_used_at = '2020-01-01T00:00:00.000000+00:00'")
        await s.http.get(IMAGES, headers=bearer(key))
        assert (await s.sql("SELECT last_used_at FROM api_keys"))[0][0] > first[0][0]


async def test_keys_name_people_and_are_never_public(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        assert (await s.http.get(KEYS)).json()["code"] == "operator_required"
        assert (await s.http.post(KEYS, json={"name": "n", "sub": "s"})).status_code == 401


def test_redaction() -> None:
    key, ticket = "imgk_abcdefghijklm-_0", "imgt_abcdefghijklm-_0"
    assert redacted(f"/x/{key}/y {key}") == "/x/imgk_…/y imgk_…"
    assert redacted(f"/api/v1/images/tickets/{ticket}") == "/api/v1/images/tickets/…"
    assert redacted("an image: imgk_short") == "an image: imgk_short"
