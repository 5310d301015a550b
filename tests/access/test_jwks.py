"""The issuer's key set from a real server: rotation, outages, nonsense, and how seldom it is asked."""

import asyncio
import base64
import gzip
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from joserfc.jwk import ECKey, OctKey
from structlog.testing import capture_logs

from imgsvc.access import jwks
from imgsvc.access.jwk import KeysUnavailable
from imgsvc.access.jwks import AGAIN_SECONDS, AWAY_SECONDS, FRESH_SECONDS, MAX_BYTES, MAX_TRIED, JwksClient
from imgsvc.access.tokens import TokenInvalid, Tokens
from tests.support import issuer
from tests.support.issuer import ALGORITHMS, KeyServer, http, jwk, key, key_server
from tests.support.speed import within

FIRST, SECOND, THIRD = (key("ES256", name) for name in ("first", "second", "third"))
PATIENCE = 5


class Clock:
    """Time that passes when the test says so, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def checked_by(server: KeyServer, clock: Clock, algorithm: str = "ES256") -> AsyncIterator[Tokens]:
    tokens = Tokens(JwksClient(server.url, algorithm, clock), algorithm)
    try:
        yield tokens
    finally:
        await tokens.close()


def by(one: Any, **more: Any) -> str:
    return issuer.token(one, "ES256", **more)


async def good(tokens: Tokens, *texts: str) -> None:
    for text in texts:
        assert (await tokens.verify(text)).user_id == "alice"


async def bad(tokens: Tokens, *texts: str) -> None:
    for text in texts:
        with pytest.raises(TokenInvalid):
            await tokens.verify(text)


async def unavailable(tokens: Tokens, text: str) -> int:
    with pytest.raises(KeysUnavailable) as told:
        await tokens.verify(text)
    return told.value.retry_after


async def asked(server: KeyServer, times: int) -> None:
    with within(PATIENCE):
        while server.asked < times:
            await anyio.sleep(0.005)
    assert server.asked == times


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_every_algorithm(algorithm: str) -> None:
    async with key_server(key(algorithm)) as server, checked_by(server, Clock(), algorithm) as tokens:
        await good(tokens, issuer.token(key(algorithm), algorithm))
        await bad(tokens, issuer.token(key(algorithm, "another"), algorithm, kid="first"))


async def test_asked_at_first_need_and_then_kept() -> None:
    async with key_server(FIRST) as server, checked_by(server, Clock()) as tokens:
        assert server.asked == 0
        await good(tokens, *[by(FIRST)] * 20)
        assert server.asked == 1


async def test_200_at_once_ask_once() -> None:
    async with key_server(FIRST) as server, checked_by(server, Clock()) as tokens:
        await asyncio.gather(*(good(tokens, by(FIRST)) for _ in range(200)))
        assert server.asked == 1
        server.publish(SECOND)
        await asyncio.gather(*(good(tokens, by(SECOND)) for _ in range(200)))
        assert server.asked == 2


async def test_rotation() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await good(tokens, by(FIRST))
        server.publish(FIRST, SECOND)
        await good(tokens, by(SECOND), by(FIRST))  # at once, though the set was fetched a moment ago
        server.publish(SECOND, THIRD)
        clock.now += AGAIN_SECONDS - 1
        await bad(tokens, *[by(THIRD)] * 50)
        await good(tokens, by(FIRST))
        assert server.asked == 2
        clock.now += 1
        await good(tokens, by(THIRD))
        assert server.asked == 3
        await bad(tokens, by(FIRST))  # withdrawn


async def test_tokens_of_a_stranger_do_not_wear_the_issuer_out() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await bad(tokens, by(SECOND))
        assert server.asked == 1  # its set came after the token
        for minute in range(5):
            await asyncio.gather(*(bad(tokens, by(SECOND, kid=f"stranger-{minute}-{n}")) for n in range(40)))
            assert server.asked == 2 + minute
            clock.now += AGAIN_SECONDS
        await bad(
            tokens, by(SECOND, kid=None), "x", by(FIRST, kid="new", typ="logout+jwt"), by(FIRST, kid="new", alg="none")
        )
        assert server.asked == 6  # only a name that is not known makes it worth asking


async def test_a_stranger_cannot_hide_behind_a_known_name() -> None:
    async with key_server(FIRST) as server, checked_by(server, Clock()) as tokens:
        await good(tokens, by(FIRST))
        await bad(tokens, *[by(SECOND, kid="first")] * 5)
        assert server.asked == 1


async def test_issuer_away_from_the_start_and_back() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await server.close()
        assert await unavailable(tokens, by(FIRST)) == AWAY_SECONDS
        await server.open()
        clock.now += 2
        assert await unavailable(tokens, by(FIRST)) == AWAY_SECONDS - 2
        assert server.asked == 0
        clock.now += AWAY_SECONDS
        await good(tokens, by(FIRST))


async def test_issuer_away_later() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await good(tokens, by(FIRST))
        await server.close()
        for _ in range(5):
            clock.now += 10 * FRESH_SECONDS
            with capture_logs() as logs:
                await good(tokens, *[by(FIRST)] * 3)
                await bad(tokens, *[by(SECOND)] * 3)
            assert [entry["kept"] for entry in logs if entry["event"] == "key_set_unavailable"] == [1]
        await server.open()
        server.publish(FIRST, SECOND)
        clock.now += AGAIN_SECONDS
        await good(tokens, by(SECOND))


async def test_an_old_set_is_renewed_behind_the_answers() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await good(tokens, by(FIRST))
        server.publish(SECOND)
        clock.now += FRESH_SECONDS - 1
        await good(tokens, by(FIRST))
        assert server.asked == 1
        clock.now += 1
        server.holding = asyncio.Event()
        await good(tokens, *[by(FIRST)] * 20)  # no request waits for it
        await asked(server, 2)
        server.holding.set()
        await good(tokens, by(SECOND))
        await bad(tokens, by(FIRST))  # revoked within the hour


async def test_a_cancelled_request_does_not_take_the_fetch_with_it() -> None:
    async with key_server(FIRST) as server, checked_by(server, Clock()) as tokens:
        server.holding = asyncio.Event()
        leader, follower = (asyncio.create_task(tokens.verify(by(FIRST))) for _ in range(2))
        await asyncio.wait_for(server.came.wait(), PATIENCE)
        leader.cancel()
        await asyncio.wait([leader])
        server.holding.set()
        assert (await follower).user_id == "alice"
        assert leader.cancelled() and server.asked == 1


async def test_closing_amid_a_fetch() -> None:
    async with key_server(FIRST) as server:
        async with checked_by(server, Clock()) as tokens:
            server.holding = asyncio.Event()
            waiting = asyncio.create_task(tokens.verify(by(FIRST)))
            await asyncio.wait_for(server.came.wait(), PATIENCE)
        await asyncio.wait([waiting], timeout=PATIENCE)
        assert waiting.cancelled()
        server.holding.set()


SET = json.dumps({"keys": [jwk(FIRST)]}).encode()
ELSEWHERE = "302 Found"
NONSENSE = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "an error": http(SET, "500 Internal Server Error"),
    "nothing new": http(b"", "204 No Content"),
    "a redirect": http(SET, ELSEWHERE, Location="http://127.0.0.1:1/keys"),
    "a page": http(b"<!doctype html><title>Sign in</title>", Content_Type="text/html"),
    "half of it": http(SET)[:-20],
    "a list": http(b"[" + SET + b"]"),
    "a text": http(b'"keys"'),
    "another object": http(b'{"issuer": "https://issuer.example"}'),
    "keys that are none": http(b'{"keys": {"first": {}}}'),
    "no UTF-8": http(b'{"keys": "\xff"}'),
    "a nest": http(b"[" * 100_000),
    "too much": http(SET[:-1] + b" " * MAX_BYTES + b"}"),
    "without an end": b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (2 * MAX_BYTES),
    "compressed": http(gzip.compress(SET), Content_Encoding="gzip"),
    "a bomb": http(gzip.compress(bytes(50_000_000), 1), Content_Encoding="gzip"),
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_nonsense_is_as_an_issuer_away(what: str) -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        server.answer = NONSENSE[what]
        await unavailable(tokens, by(FIRST))
        server.publish(FIRST)
        clock.now += AWAY_SECONDS
        await good(tokens, by(FIRST))
        server.answer = NONSENSE[what]
        await bad(tokens, by(SECOND))
        clock.now += FRESH_SECONDS
        await good(tokens, by(FIRST))
        await asked(server, 4)
        await good(tokens, by(FIRST))


async def test_a_redirect_is_not_followed() -> None:
    async with key_server(FIRST) as server, key_server(FIRST) as elsewhere, checked_by(server, Clock()) as tokens:
        server.answer = http(b"", ELSEWHERE, Location=elsewhere.url)
        await unavailable(tokens, by(FIRST))
        assert elsewhere.asked == 0


async def test_a_slow_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_SECONDS", 1)
    async with key_server(FIRST) as server, checked_by(server, Clock()) as tokens:
        server.holding = asyncio.Event()
        with within(PATIENCE):
            await asyncio.gather(*(unavailable(tokens, by(FIRST)) for _ in range(50)))
        assert server.asked == 1
        server.holding.set()


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "odd"},
        OctKey.import_key("s" * 40).as_dict(private=True) | {"kid": "odd", "alg": "ES256"},
        jwk(SECOND, use="enc"),
        jwk(SECOND, use=["sig"]),
        jwk(SECOND, alg="ES384"),
        jwk(SECOND, alg=None, key_ops=["sign"]),
        jwk(SECOND, key_ops="verify"),
        jwk(SECOND, kid=7),
        jwk(SECOND, kty="RSA"),
        jwk(SECOND, crv="P-384"),
        jwk(SECOND, x="!"),
        jwk(SECOND, x=None),
        jwk(SECOND, x=7),
        jwk(SECOND, y=jwk(FIRST)["y"]),
        SECOND.as_dict(private=True),
        jwk(ECKey.generate_key("secp256k1", {"kid": "second"})),
        jwk(key("ES384", "second")),
        jwk(key("EdDSA", "second")),
        jwk(key("RS256", "second")),
        {},
        "second",
        None,
    ],
    ids=itertools.count(),
)
async def test_keys_that_are_not_for_us_are_passed_over(odd: Any) -> None:
    async with key_server() as server, checked_by(server, Clock()) as tokens:
        server.answer = http(json.dumps({"keys": [odd, jwk(FIRST)]}).encode())
        await bad(tokens, by(SECOND))
        await good(tokens, by(FIRST), by(FIRST, kid=None))


@pytest.mark.parametrize("bits", [1024, 2040, 8200, 16384])
async def test_rsa_keys_of_odd_sizes_are_passed_over(bits: int) -> None:
    modulus = base64.urlsafe_b64encode((1 << bits - 1 | 1).to_bytes(bits // 8)).rstrip(b"=").decode()
    odd = {"kty": "RSA", "kid": "odd", "e": "AQAB", "n": modulus}
    with capture_logs() as logs:
        async with key_server(odd, key("RS256")) as server, checked_by(server, Clock(), "RS256") as tokens:
            await good(tokens, issuer.token(key("RS256"), "RS256"))
    assert [entry["kid"] for entry in logs if entry["event"] == "key_skipped"] == ["odd"]


async def test_a_key_may_say_what_it_is_for() -> None:
    one = jwk(FIRST, use="sig", alg="ES256", key_ops=["verify"], x5t="odd", other={"a": 1})
    async with key_server(one) as server, checked_by(server, Clock()) as tokens:
        await good(tokens, by(FIRST))


async def test_without_a_kid_each_suitable_key_is_tried() -> None:
    clock = Clock()
    async with key_server(FIRST, key("RS256")) as server, checked_by(server, clock) as tokens:
        await good(tokens, by(FIRST, kid=None))
        await bad(tokens, by(SECOND, kid=None))
        server.publish(FIRST, SECOND)
        await good(tokens, by(SECOND))
        await good(tokens, by(FIRST, kid=None), by(SECOND, kid=None))
        await bad(tokens, by(THIRD, kid=None))
        server.publish({**jwk(THIRD), "kid": "x"}, {**jwk(SECOND), "kid": "x"})
        clock.now += AGAIN_SECONDS
        await good(tokens, by(SECOND, kid="x"), by(THIRD, kid="x"))


async def test_without_a_kid_at_most_eight_keys_are_tried() -> None:
    keys = [key("ES256", f"number {n}") for n in range(MAX_TRIED + 1)]
    async with key_server(key("RS256"), *keys) as server, checked_by(server, Clock()) as tokens:
        await good(tokens, *(by(one, kid=None) for one in keys[:MAX_TRIED]), by(keys[MAX_TRIED]))
        await bad(tokens, by(keys[MAX_TRIED], kid=None))


async def test_an_issuer_that_withdraws_all_keys() -> None:
    clock = Clock()
    async with key_server(FIRST) as server, checked_by(server, clock) as tokens:
        await good(tokens, by(FIRST))
        server.publish()
        await bad(tokens, by(SECOND), by(FIRST), by(FIRST, kid=None))
