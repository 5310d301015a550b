"""Signing in at an OpenID Connect provider: who may sign in, and every answer that is refused."""

import re
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from imgsvc.access.people import is_allowed, name_of
from imgsvc.http.operator import single_sign_on
from imgsvc.settings import Settings, SettingsError
from tests.conftest import Service, Starter
from tests.support.issuer import key
from tests.support.sign_on_provider import CLIENT, Provider, provider, settings_of

START, BACK, DATA = "/dashboard/oidc/start", "/dashboard/oidc/callback", "/dashboard/data"


@pytest.fixture
async def at() -> AsyncIterator[Provider]:
    async with provider() as one:
        yield one


async def there_and_back(s: Service, at: Provider, query: str = "") -> httpx.Response:
    away = await s.http.get(START)
    assert away.status_code == 302, away.text
    return await s.http.get(f"{BACK}?{query or at.sign_in(away.headers['Location'])}")


async def opens(s: Service) -> bool:
    return (await s.http.get(DATA)).status_code == 200


async def test_person_signs_in_with_pkce_state_and_nonce(start: Starter, at: Provider) -> None:
    async with start(**settings_of(at)) as s:
        away = await s.http.get(START)
        asked = {name: value[0] for name, value in parse_qs(urlsplit(away.headers["Location"]).query).items()}
        assert asked["redirect_uri"] == "http://localhost/dashboard/oidc/callback"
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        assert asked["scope"] == "openid email profile" and len(asked["nonce"]) >= 20 and len(asked["state"]) >= 20
        cookie = away.headers["Set-Cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie and "max-age=600" in cookie
        back = await s.http.get(f"{BACK}?{at.sign_in(away.headers['Location'])}")
        assert back.status_code == 200 and back.headers["Refresh"] == "0; url=../../dashboard"
        assert "samesite=strict" in back.headers.get_list("Set-Cookie")[0].lower()
        assert await opens(s)
        found = (await s.http.get("/api/v1/operator/sessions")).json()["sessions"]
        assert [one["subject"] for one in found] == ["1234"]
        page = await s.http.get("/dashboard/login")
        assert "Sign in with 127.0.0.1" in page.text and 'href="../dashboard/oidc/start"' in page.text


async def test_signing_in_twice_asks_for_the_metadata_and_the_keys_once(start: Starter, at: Provider) -> None:
    async with start(**settings_of(at)) as s:
        for _ in range(2):
            assert (await there_and_back(s, at)).status_code == 200
        assert at.asked.count("/.well-known/openid-configuration") == at.asked.count("/keys") == 1
        assert at.asked.count("/token") == 2 and "/me" not in at.asked


WRONG_TOKENS: dict[str, dict[str, Any]] = {
    "nonce": {"nonce": "x" * 20},
    "no nonce": {"nonce": None},
    "issuer": {"iss": "http://127.0.0.1/other"},
    "audience": {"aud": "another"},
    "audience of another, for which we were used": {"aud": "another", "azp": CLIENT},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "expired long ago": {"exp": int(time.time()) - 600, "iat": int(time.time()) - 900},
    # Later than the longest run of all tests: this is read when they are collected.
    "from the future": {"iat": int(time.time()) + 86_400, "exp": int(time.time()) + 90_000},
    "no end": {"exp": None},
}


@pytest.mark.parametrize("claims", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
async def test_wrong_token_signs_nobody_in(start: Starter, at: Provider, claims: dict[str, Any]) -> None:
    at.claims = claims
    async with start(**settings_of(at)) as s:
        back = await there_and_back(s, at)
        assert back.status_code == 400 and "did not succeed" in back.text and "<form" in back.text
        assert not await opens(s)


async def test_signature_counts(start: Starter, at: Provider) -> None:
    async with start(**settings_of(at)) as s:
        at.signer = key("RS256", "another")
        assert (await there_and_back(s, at)).status_code == 400
        at.header = {"kid": "first"}
        assert (await there_and_back(s, at)).status_code == 400
        assert not await opens(s)


async def test_unsigned_token_signs_nobody_in_even_where_the_provider_offers_it(start: Starter, at: Provider) -> None:
    at.metadata = {"id_token_signing_alg_values_supported": ["none", "HS256", "RS256"]}
    at.header, at.unsigned = {"alg": "none"}, True
    async with start(**settings_of(at)) as s:
        assert (await there_and_back(s, at)).status_code == 400
        assert not await opens(s)


async def test_clock_that_is_a_minute_off_signs_in(start: Starter, at: Provider) -> None:
    async with start(**settings_of(at)) as s:
        now = int(time.time())
        for claims in ({"iat": now + 60, "exp": now + 360}, {"iat": now - 360, "exp": now - 60}):
            at.claims = claims
            assert (await there_and_back(s, at)).status_code == 200


async def test_answer_is_good_once_and_only_where_it_was_asked_for(start: Starter, at: Provider) -> None:
    async with start(**settings_of(at)) as s:
        query = at.sign_in((await s.http.get(START)).headers["Location"])
        cookie = dict(s.http.cookies)
        s.http.cookies.clear()
        assert (await s.http.get(f"{BACK}?{query}")).status_code == 400  # in another browser
        s.http.cookies.update(cookie)
        assert (await s.http.get(f"{BACK}?{query}")).status_code == 200
        s.http.cookies.clear()
        s.http.cookies.update(cookie)
        assert (await s.http.get(f"{BACK}?{query}")).status_code == 400
        assert not await opens(s)
        for wrong in ("code=x&state=y", "", "error=access_denied&state=y", "error=%3Cscript%3E&error_description=%00"):
            back = await there_and_back(s, at, wrong or "x=1")
            assert back.status_code == 400 and "<script>" not in back.text.replace("<script type", "")


async def test_sign_in_takes_ten_minutes_at_most(start: Starter, at: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start(**settings_of(at)) as s:
        query = at.sign_in((await s.http.get(START)).headers["Location"])
        sign_on = s.state.access.sign_on
        assert sign_on
        monkeypatch.setattr(sign_on, "_clock", lambda: time.monotonic() + single_sign_on.PENDING_SECONDS)
        assert (await s.http.get(f"{BACK}?{query}")).status_code == 400


async def test_person_who_is_not_allowed_is_named_and_nothing_else(start: Starter, at: Provider) -> None:
    at.claims = {"sub": "5678"}
    async with start(**settings_of(at)) as s:
        back = await there_and_back(s, at)
        assert back.status_code == 403 and "Ann &lt;b&gt;" in back.text and "5678" not in back.text
        assert "Set-Cookie" not in back.headers and not await opens(s)


async def test_userinfo_tells_what_the_token_does_not_and_must_be_about_the_same_person(
    start: Starter, at: Provider
) -> None:
    at.userinfo = {"sub": "1234", "email": "Ann@Example.org", "email_verified": True, "groups": ["staff"]}
    async with start(**settings_of(at, oidc_allowed=("email:ann@example.org",))) as s:
        assert (await there_and_back(s, at)).status_code == 200
        s.http.cookies.clear()
        at.userinfo["sub"] = "5678"
        assert (await there_and_back(s, at)).status_code == 400
        at.userinfo |= {"sub": "1234", "email_verified": "true"}
        assert (await there_and_back(s, at)).status_code == 403


@pytest.mark.parametrize("step", ["start", "callback"])
async def test_provider_that_hangs_or_is_away_is_named_and_the_token_signs_in(
    start: Starter, at: Provider, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(single_sign_on, "SECONDS", 0.2)
    async with start(**settings_of(at)) as s:
        query = at.sign_in((await s.http.get(START)).headers["Location"]) if step == "callback" else ""
        at.hangs = True
        answer = await s.http.get(f"{BACK}?{query}" if query else START)
        assert answer.status_code == 503 and "did not answer" in answer.text and "<form" in answer.text
        if not query:
            asked = len(at.asked)
            assert (await s.http.get(START)).status_code == 503
            assert len(at.asked) == asked  # not asked again within five seconds
        token = (s.settings.data / "operator_token").read_text().strip()
        assert (await s.http.post("/api/v1/operator/login", json={"token": token})).status_code == 204


WRONG_METADATA: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "http://127.0.0.1/other"},
    "no issuer": {"issuer": None},
    "an endpoint without TLS elsewhere": {"token_endpoint": "ftp://example.org/token"},
    "no keys": {"jwks_uri": None},
}


@pytest.mark.parametrize("metadata", WRONG_METADATA.values(), ids=WRONG_METADATA)
async def test_wrong_metadata_is_not_used(start: Starter, at: Provider, metadata: dict[str, Any]) -> None:
    at.metadata = metadata
    async with start(**settings_of(at)) as s:
        assert (await s.http.get(START)).status_code == 503


async def test_secret_is_posted_where_the_provider_takes_no_basic(start: Starter, at: Provider) -> None:
    at.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    async with start(**settings_of(at)) as s:
        assert (await there_and_back(s, at)).status_code == 200


async def test_sign_ins_under_way_are_bounded(start: Starter, at: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_sign_on, "MAX_PENDING", 3)
    async with start(**settings_of(at)) as s:
        for _ in range(5):
            await s.http.get(START)
        assert s.state.access.sign_on and len(s.state.access.sign_on._pending) == 3


async def test_without_a_provider_there_is_none(start: Starter) -> None:
    async with start() as s:
        for path in (START, BACK):
            assert (await s.http.get(path)).status_code == 404
        page = (await s.http.get("/dashboard/login")).text
        assert "oidc" not in page and not re.search(r"\{[\w-]+\}", page)


RULES = ("email:ann@example.org", "sub:1234", "group:admins")


@pytest.mark.parametrize(
    ("claims", "allowed"),
    [
        ({"sub": "1234"}, True),
        ({"sub": "12345"}, False),
        ({"sub": 1234}, True),
        ({"email": "ANN@example.org", "email_verified": True}, True),
        ({"email": "ann@example.org"}, False),
        ({"email": "ann@example.org", "email_verified": "true"}, False),
        ({"email": "ann@example.org", "email_verified": False}, False),
        ({"email": ["ann@example.org"], "email_verified": True}, False),
        ({"groups": ["users", "admins"]}, True),
        ({"groups": "admins"}, False),
        ({"roles": ["admins"]}, False),
        ({"groups": [["admins"], None]}, False),
        ({}, False),
    ],
)
def test_rules(claims: dict[str, Any], allowed: bool) -> None:
    assert is_allowed(claims, RULES, "groups") is allowed
    assert not is_allowed(claims, (), "groups")


def test_letters_that_only_look_alike_are_different() -> None:
    kelvin = {"email": "\u212aim@example.org", "email_verified": True}
    assert not is_allowed(kelvin, ("email:kim@example.org",), "groups")


def test_name_is_what_the_provider_sent() -> None:
    assert name_of({"sub": "1", "email": "a@b", "preferred_username": "ann"}) == "ann"
    assert name_of({"sub": "1", "name": ["x"]}) == "1"


@pytest.mark.parametrize(
    ("operator", "service", "words"),
    [
        ({"oidc_issuer": "http://auth.example.org"}, {}, "must be https"),
        ({"oidc_issuer": "https://u:p@auth.example.org"}, {}, "no user name"),
        ({"oidc_issuer": "https://auth.example.org"}, {}, "oidc_client_id"),
        ({"oidc_issuer": "https://auth.example.org", "oidc_client_id": "x"}, {}, "PUBLIC_URL"),
        ({"oidc_scopes": "email"}, {}, "openid"),
        ({"oidc_allowed": "ann@example.org"}, {}, "email:…, sub:… or group:…"),
        ({"oidc_allowed": "sub:"}, {}, "email:…, sub:… or group:…"),
    ],
)
def test_wrong_settings_are_named(operator: dict[str, str], service: dict[str, str], words: str) -> None:
    environ = {f"IMGSVC_OPERATOR_{name.upper()}": value for name, value in operator.items()}
    with pytest.raises(SettingsError, match=words):
        Settings.load(None, environ | service)
