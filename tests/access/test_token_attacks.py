"""Each attack on a token over the wire, and its answer: the status, the code and the challenge (RFC 6750, RFC 8725)."""

import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jwe
from joserfc.jwk import OctKey

from tests.conftest import Service, held_service
from tests.support import issuer
from tests.support.issuer import KeyServer, by_hmac, http, jwk, key, key_server, part, pem
from tests.support.refused import TINY, UPLOAD

SECRET = "the secret of these attacks, forty bytes"
ISSUER, AUDIENCE, ALGORITHM = "https://issuer.example/", "images", "RS256"
GOOD, STRANGER = key(ALGORITHM), key(ALGORITHM, "stranger")
NOW = int(time.time())  # when the tests were collected: the suite may take a while to come here
DAY = 86_400
INVALID = 'Bearer realm="imgsvc", error="invalid_token", error_description="Invalid token"'
CHALLENGES = {
    "token_missing": 'Bearer realm="imgsvc"',
    "token_invalid": INVALID,
    "token_expired": 'Bearer realm="imgsvc", error="invalid_token", error_description="Token expired"',
}
DETAILS = {"token_missing": "Not authenticated", "token_invalid": "Invalid token", "token_expired": "Token expired"}


@dataclass(frozen=True)
class Signer:
    """One way to configure the service, and how a token is signed for it."""

    sign: Callable[..., str]

    def __call__(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        asked = {"sub": "alice", "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + DAY, **claims}
        return self.sign({name: value for name, value in asked.items() if value is not ...}, **(header or {}))


SIGNERS = {
    "secret": Signer(lambda claims, **header: by_hmac(SECRET.encode(), "HS256", claims, **header)),
    "keys": Signer(lambda claims, **header: issuer.token(GOOD, ALGORITHM, claims, **header)),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def keys() -> AsyncIterator[KeyServer]:
    async with key_server(GOOD) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory, keys: KeyServer) -> AsyncIterator[dict[str, Service]]:
    folder, more = tmp_path_factory.mktemp("attacks"), {"issuer": ISSUER, "audience": AUDIENCE}
    async for by_secret in held_service(folder / "secret", auth={"jwt_secret_key": SECRET, **more}):
        by_keys = {"jwt_algorithm": ALGORITHM, "jwks_url": keys.url, **more}
        async for other in held_service(folder / "keys", auth=by_keys):
            yield {"secret": by_secret, "keys": other}


def without_signature(text: str, **header: Any) -> str:
    _, payload, _ = text.split(".")
    return f"{part(json.dumps(header).encode())}.{payload}."


def flipped(text: str, place: int) -> str:
    parts = text.split(".")
    middle = len(parts[place]) // 2
    parts[place] = parts[place][:middle] + ("A" if parts[place][middle] != "A" else "B") + parts[place][middle + 1 :]
    return ".".join(parts)


# Changes to a good token, by an attacker who can sign with the right key (where `sign` is called) or who can't.
ATTACKS: dict[str, Callable[[Signer], str]] = {
    "alg none": lambda sign: without_signature(sign(), alg="none", typ="JWT"),
    "alg None": lambda sign: without_signature(sign(), alg="None"),
    "alg missing": lambda sign: without_signature(sign(), typ="JWT"),
    "alg none, signature kept": lambda sign: without_signature(sign(), alg="none") + sign().split(".")[2],
    "no signature": lambda sign: sign().rpartition(".")[0] + ".",
    "HMAC by the public key": lambda _: by_hmac(pem(GOOD), "HS256", {"sub": "alice"}),
    "HMAC by the public key, called RS256": lambda _: by_hmac(pem(GOOD), "HS256", {"sub": "alice"}, alg="RS256"),
    "HMAC by the public JWK": lambda _: by_hmac(json.dumps(jwk(GOOD)).encode(), "HS256", {"sub": "alice"}, kid="first"),
    "HMAC by nothing": lambda _: by_hmac(b"", "HS256", {"sub": "alice"}),
    "a stranger's key": lambda _: issuer.token(STRANGER, ALGORITHM),
    "a stranger's key by a known name": lambda _: issuer.token(STRANGER, ALGORITHM, kid="first"),
    "a key in the header": lambda _: issuer.token(STRANGER, ALGORITHM, jwk=jwk(STRANGER), kid=None),
    "a key set in the header": lambda _: issuer.token(STRANGER, ALGORITHM, jku="https://evil.example/keys"),
    "a certificate in the header": lambda _: issuer.token(STRANGER, ALGORITHM, x5u="https://evil.example/x"),
    "a kid that is a path": lambda _: by_hmac(b"", "HS256", {"sub": "alice"}, kid="../../../dev/null"),
    "a kid that is SQL": lambda _: by_hmac(b"x", "HS256", {"sub": "alice"}, kid="x' UNION SELECT 'x"),
    "a kid that is an object": lambda sign: by_hmac(SECRET.encode(), "HS256", {"sub": "alice"}, kid={"a": 1}),
    "crit": lambda sign: sign({"crit": ["exp"]}),
    "crit, unknown": lambda sign: sign({"crit": ["moon"], "moon": 1}),
    "b64 false": lambda sign: sign({"b64": False}),
    "compressed": lambda sign: sign({"zip": "DEF"}),
    "another type": lambda sign: sign({"typ": "logout+jwt"}),
    "a type that is a list": lambda sign: by_hmac(SECRET.encode(), "HS256", {"sub": "alice"}, typ=["JWT"]),
    "nested": lambda sign: by_hmac(SECRET.encode(), "HS256", sign().encode(), cty="JWT"),
    "encrypted": lambda _: jwe.encrypt_compact(
        {"alg": "dir", "enc": "A128CBC-HS256"}, b'{"sub": "alice"}', OctKey.import_key(SECRET[:32])
    ),
    "header changed": lambda sign: flipped(sign(), 0),
    "claims changed": lambda sign: flipped(sign(), 1),
    "signature changed": lambda sign: flipped(sign(), 2),
    "four parts": lambda sign: sign() + ".x",
    "deep": lambda _: by_hmac(SECRET.encode(), "HS256", b'{"sub": "alice", "imgsvc": ' + b"[" * 3000),
    "sub missing": lambda sign: sign(sub=...),
    "sub null": lambda sign: sign(sub=None),
    "sub a number": lambda sign: sign(sub=7),
    "sub a list": lambda sign: sign(sub=["alice"]),
    "sub empty": lambda sign: sign(sub=""),
    "sub with a line break": lambda sign: sign(sub="alice\nadmin"),
    "org a number": lambda sign: sign(org_id=7),
    "permissions a text": lambda sign: sign(permissions="image:admin"),
    "not yet valid": lambda sign: sign(nbf=NOW + DAY),
    "exp a text": lambda sign: sign(exp=str(NOW + DAY)),
    "exp true": lambda sign: sign(exp=True),
    "exp NaN": lambda sign: sign(exp=float("nan")),
    "another issuer": lambda sign: sign(iss="https://evil.example/"),
    "an issuer without its slash": lambda sign: sign(iss=ISSUER.rstrip("/")),
    "no issuer": lambda sign: sign(iss=...),
    "a list of issuers": lambda sign: sign(iss=[ISSUER]),
    "another audience": lambda sign: sign(aud="mails"),
    "other audiences": lambda sign: sign(aud=["mails", "images2"]),
    "no audience": lambda sign: sign(aud=...),
    "an audience that is part of ours": lambda sign: sign(aud="image"),
    "imgsvc a text": lambda sign: sign(imgsvc="{}"),
    "imgsvc loosening by a typo": lambda sign: sign(imgsvc={"maxbytes": 1}),
}
OTHERS: dict[str, tuple[str, Callable[[Signer], str]]] = {
    "expired": ("token_expired", lambda sign: sign(exp=NOW - 1)),
    "expired long ago": ("token_expired", lambda sign: sign(exp=0)),
    "no token": ("token_missing", lambda _: ""),
}
TABLE = {name: ("token_invalid", attack) for name, attack in ATTACKS.items()} | OTHERS


@pytest.mark.parametrize("configured", SIGNERS)
@pytest.mark.parametrize("attack", TABLE)
@pytest.mark.asyncio(loop_scope="module")
async def test_attack(services: dict[str, Service], attack: str, configured: str) -> None:
    (code, make), s = TABLE[attack], services[configured]
    headers = {"Authorization": f"Bearer {make(SIGNERS[configured])}"}
    for answer in (
        await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers={**headers, "Content-Type": "image/x"}),
        await s.http.delete("/api/v1/images/3b1f0c9a-6a55-4a0e-9d6b-0d9c1f3c7a10", headers=headers),
    ):
        body = answer.json()
        assert (answer.status_code, body["code"], body["detail"]) == (401, code, DETAILS[code])
        assert answer.headers["WWW-Authenticate"] == CHALLENGES[code]


KIND_ONES: dict[str, Callable[[Signer], str]] = {
    "plain": lambda sign: sign(),
    "without exp": lambda sign: sign(exp=...),
    "several audiences": lambda sign: sign(aud=["mails", AUDIENCE]),
    "an access token (RFC 9068)": lambda sign: sign({"typ": "at+JWT"}),
    "without typ": lambda sign: sign({"typ": None}),
    "headers that mean nothing here": lambda sign: sign({"nonce": "x", "x5t": "abc", "jku": "https://evil.example/"}),
    "an unknown claim": lambda sign: sign(jti="1", azp="app", imgsvc_other=1, scope="a b"),
    "a clock ahead": lambda sign: sign(iat=NOW + DAY),
    "a fraction": lambda sign: sign(exp=NOW + DAY + 0.5, nbf=NOW - 0.5),
    "not tightened": lambda sign: sign(imgsvc={}),
}


@pytest.mark.parametrize("configured", SIGNERS)
@pytest.mark.parametrize("kind", KIND_ONES)
@pytest.mark.asyncio(loop_scope="module")
async def test_good_tokens_are_good(services: dict[str, Service], kind: str, configured: str) -> None:
    s, headers = services[configured], {"Content-Type": "image/jpeg"}
    headers["Authorization"] = f"Bearer {KIND_ONES[kind](SIGNERS[configured])}"
    answer = await s.http.post(UPLOAD, params={"bucket": "b"}, content=TINY, headers=headers)
    assert answer.status_code == 202, answer.text


@pytest.mark.asyncio(loop_scope="module")
async def test_an_attacker_makes_the_service_ask_nobody(services: dict[str, Service], keys: KeyServer) -> None:
    s = services["keys"]
    await s.http.delete("/api/v1/images/x", headers={"Authorization": f"Bearer {SIGNERS['keys']()}"})
    before = keys.asked
    for n in range(50):
        text = issuer.token(STRANGER, ALGORITHM, kid=f"n{n}")
        await s.http.delete("/api/v1/images/x", headers={"Authorization": f"Bearer {text}"})
    assert keys.asked <= before + 1


async def test_leeway(tmp_path: Path) -> None:
    now = int(time.time())
    async for s in held_service(tmp_path, auth={"jwt_secret_key": SECRET, "leeway_seconds": 60}):
        for claims, status in (
            ({"exp": now - 30}, 404),
            ({"exp": now - 600}, 401),
            ({"nbf": now + 30}, 404),
            ({"nbf": now + 600}, 401),
        ):
            text = by_hmac(SECRET.encode(), "HS256", {"sub": "alice", **claims})
            answer = await s.http.delete("/api/v1/images/x", headers={"Authorization": f"Bearer {text}"})
            assert answer.status_code == status, claims


async def test_issuer_away(tmp_path: Path) -> None:
    """No key is known yet, so the token can't be judged: 503, and the public pages stay public."""
    async with key_server(GOOD) as server:
        await server.close()
        async for s in held_service(tmp_path, auth={"jwt_algorithm": ALGORITHM, "jwks_url": server.url}):
            headers = {"Authorization": f"Bearer {issuer.token(GOOD, ALGORITHM)}"}
            answer = await s.http.delete("/api/v1/images/x", headers=headers)
            body = answer.json()
            assert (answer.status_code, body["code"]) == (503, "authorization_unavailable")
            assert body["detail"] == "Authorization service temporarily unavailable"
            assert 1 <= int(answer.headers["Retry-After"]) <= 5
            assert "127.0.0.1" not in answer.text and "WWW-Authenticate" not in answer.headers
            bad = await s.http.delete("/api/v1/images/x", headers={"Authorization": "Bearer x.y.z"})
            assert bad.status_code == 401  # this much is certain
            assert (await s.http.get("/api/v1/images/x", headers=headers)).status_code == 404
            await server.open()
            server.answer = http(b"{}")


@pytest.mark.asyncio(loop_scope="module")
async def test_tokens_are_not_made_where_the_keys_are_not_ours(services: dict[str, Service]) -> None:
    for configured, status in (("secret", 200), ("keys", 409)):
        s = services[configured]
        answer = await s.http.post("/api/v1/operator/token", headers=s.operator)
        assert answer.status_code == status
        data = (await s.http.get("/dashboard/data", headers=s.operator)).json()
        assert data["operator"]["can_make_tokens"] is (status == 200)
        if status == 409:
            assert answer.json()["code"] == "tokens_not_ours"
