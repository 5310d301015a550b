"""Why a token was refused: in the log with the amount, never with the token, and nothing new in the answer."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from imgsvc import Settings
from imgsvc.access.tokens import Expected, TokenInvalid, Tokens
from imgsvc.settings import SettingsError
from tests.conftest import Starter
from tests.support import issuer
from tests.support.issuer import by_hmac, key, key_server

SECRET = b"0123456789abcdef0123456789abcdef"
OURS = Expected("https://issuer.example/", "images", 5)
PLACE = "/api/v1/images/3b1f0c9a-6a55-4a0e-9d6b-0d9c1f3c7a10"


def token(secret: bytes = SECRET, head: dict[str, Any] | None = None, **claims: Any) -> str:
    given = {"sub": "alice", "iss": OURS.issuer, "aud": "images", **claims}
    content = {name: value for name, value in given.items() if value is not ...}
    return by_hmac(secret, "HS256", content, **(head or {}))


REASONS: dict[str, tuple[Callable[[], str], str]] = {
    "exp": (lambda: token(exp=time.time() - 90), "exp is 90.0 seconds past; [auth] leeway_seconds is 5"),
    "nbf": (lambda: token(nbf=time.time() + 30), "nbf is 30.0 seconds ahead; [auth] leeway_seconds is 5"),
    "iss": (
        lambda: token(iss="https://issuer.example"),
        "iss is 'https://issuer.example'; 'https://issuer.example/' is expected",
    ),
    "aud": (lambda: token(aud=["mails", "web"]), "aud is ['mails', 'web']; 'images' is expected"),
    "no aud": (lambda: token(aud=...), "aud is missing; 'images' is expected"),
    "no sub": (lambda: token(sub=...), "sub is missing"),
    "exp a text": (lambda: token(exp="soon"), "exp is 'soon'"),
    "alg": (lambda: issuer.token(key("ES256"), "ES256"), "alg is 'ES256'; 'HS256' is expected"),
    "signature": (lambda: token(b"x" * 32), "the signature is by none of 1 key"),
    "long claim": (lambda: token(iss="x" * 500), f"iss is '{'x' * 99}…; 'https://issuer.example/' is expected"),
    "not one": (lambda: "not.a.token", "it is no JWT: its header can't be read"),
    "length": (lambda: token(x="y" * 16_000), "it has 21"),
}


@pytest.mark.parametrize("kind", REASONS)
async def test_reason(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    make, reason = REASONS[kind]
    with pytest.raises(TokenInvalid) as refused:
        await Tokens(SECRET.decode(), "HS256", OURS).verify(make())
    assert str(refused.value).startswith(reason)


async def test_an_unknown_kid_is_named() -> None:
    from imgsvc.access.jwks import JwksClient

    async with key_server(key("ES256")) as server:
        tokens = Tokens(JwksClient(server.url, "ES256"), "ES256")
        with pytest.raises(TokenInvalid, match="no key has the kid 'second'"):
            await tokens.verify(issuer.token(key("ES256", "second"), "ES256"))
        await tokens.close()


@pytest.mark.parametrize(
    ("text", "code"),
    [(token(exp=1), "token_expired"), (token(nbf=9e9), "token_invalid"), ("x" * 200, "token_invalid")],
)
async def test_the_log_has_one_line_without_the_token(start: Starter, text: str, code: str) -> None:
    async with start(auth={"jwt_secret_key": SECRET.decode()}) as s:
        with capture_logs() as logged:
            answer = await s.http.delete(PLACE, headers={"Authorization": f"Bearer {text}"})
        assert (answer.status_code, answer.json()["code"]) == (401, code)
        assert "reason" not in answer.json()
        lines = [line for line in logged if line["event"] == "token_refused"]
        assert [line["code"] for line in lines] == [code] and lines[0]["reason"]
        assert not any(part in str(logged) for part in text.split(".") if len(part) > 20)


async def test_a_token_that_is_too_long_is_told_so(start: Starter) -> None:
    limits = {"jwt_secret_key": SECRET.decode(), "max_token_kb": 2}
    async with start(auth=limits) as s:
        fits, exceeds = (by_hmac(SECRET, "HS256", {"sub": "alice", "x": "y" * size}) for size in (1_300, 1_600))
        headed = by_hmac(SECRET, "HS256", {"sub": "alice"}, x5c=["y" * 1_200])  # a certificate, which is not looked at
        assert max(len(fits), len(headed)) < 2048 < len(exceeds)
        for token in (fits, headed):
            assert (await s.http.delete(PLACE, headers={"Authorization": f"Bearer {token}"})).status_code == 404
        answer = await s.http.delete(PLACE, headers={"Authorization": f"Bearer {exceeds}"})
        body = answer.json()
        assert (answer.status_code, body["code"], body["detail"]) == (401, "token_invalid", "Invalid token")
        assert (body["limit_bytes"], body["measured_bytes"]) == (2048, len(exceeds))
        assert body["reason"] == f"The token has {len(exceeds)} bytes; at most 2048 are accepted."
        assert body["reason"] in answer.headers["WWW-Authenticate"]


def test_the_limit_fits_into_that_of_the_headers(tmp_path: Path) -> None:
    def load(**environ: str) -> Settings:
        return Settings.load(environ={f"IMGSVC_{name}": value for name, value in environ.items()})

    assert Settings().max_token_bytes == 16 * 1024
    assert load(SERVER_MAX_HEADER_KB="8").max_token_bytes == 8 * 1024
    assert load(SERVER_MAX_HEADER_KB="64", AUTH_MAX_TOKEN_KB="64").max_token_bytes == 64 * 1024
    with pytest.raises(SettingsError, match=r"max_token_kb .* = 65: .*max_header_kb .* is 64"):
        load(SERVER_MAX_HEADER_KB="64", AUTH_MAX_TOKEN_KB="65")


def test_a_key_set_without_tls_needs_a_word(tmp_path: Path) -> None:
    environ = {"JWT_ALGORITHM": "RS256", "AUTH_API_JWKS_URL": "http://keycloak:8080/realms/x/certs"}
    with pytest.raises(SettingsError, match="jwks_insecure = true"):
        Settings.load(environ=environ)
    allowed = Settings.load(environ={**environ, "IMGSVC_AUTH_JWKS_INSECURE": "true"})
    assert allowed.auth.jwks_url == environ["AUTH_API_JWKS_URL"]
