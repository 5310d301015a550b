"""An issuer other than the service: its keys, the tokens that it signs, and an HTTP server with its key set."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.support.once import once

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
CURVES = {"ES256": "P-256", "ES384": "P-384"}


@cache
def key(algorithm: str, name: str = "first") -> Key:
    """A key pair for this algorithm, the same one each time it is asked for by this name."""
    if algorithm[:2] in ("RS", "PS"):
        return _rsa(name)
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519", {"kid": name})
    return ECKey.generate_key(CURVES[algorithm], {"kid": name})


@cache
def _rsa(name: str) -> RSAKey:
    """Made once in a run of the tests, and not checked again: its primes take as long as thirty small tests."""
    text = once(f"rsa-{name}", lambda: RSAKey.generate_key(2048).as_pem(private=True))
    private = load_pem_private_key(text, None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(private, RSAPrivateKey)
    return RSAKey.import_key(private, {"kid": name})


def jwk(one: Key, **more: Any) -> dict[str, Any]:
    """Its public half as it stands in a key set; a member that is None is left out."""
    members = {**one.as_dict(private=False), **more}
    return {name: value for name, value in members.items() if value is not None}


def pem(one: Key) -> bytes:
    assert isinstance(one, RSAKey | ECKey | OKPKey)
    return one.as_pem(private=False)


def token(one: Key, algorithm: str, claims: Mapping[str, Any] | None = None, **header: Any) -> str:
    """Signed by this key; its kid stands in the header unless another one, or None, is given."""
    claims = {"sub": "alice", "exp": int(time.time()) + 600} if claims is None else claims
    content = _content({"alg": algorithm, "typ": "JWT", "kid": one.kid, **header}, json.dumps(claims).encode())
    return f"{content}.{part(JWSRegistry.algorithms[algorithm].sign(content.encode(), one))}"


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hmac(secret: bytes, algorithm: str, claims: object, **header: Any) -> str:
    """Signed with HMAC by these bytes, whatever the header says."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    content = _content({"alg": algorithm, "typ": "JWT", **header}, payload)
    return f"{content}.{part(hmac.digest(secret, content.encode(), 'sha' + algorithm[2:]))}"


def _content(header: Mapping[str, Any], payload: bytes) -> str:
    """A member that is None is left out."""
    given = {name: value for name, value in header.items() if value is not None}
    return f"{part(json.dumps(given).encode())}.{part(payload)}"


def http(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class KeyServer:
    """What it sends is `answer`, to the byte; `holding` makes all requests wait until it is set."""

    def __init__(self) -> None:
        self.answer = b""
        self.asked = 0
        self.came = asyncio.Event()
        self.holding: asyncio.Event | None = None
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json?p=users"

    def publish(self, *keys: Key | dict[str, Any]) -> None:
        listed = [one if isinstance(one, dict) else jwk(one) for one in keys]
        self.answer = http(json.dumps({"keys": listed}).encode(), Content_Type="application/json")

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            self.came.set()
            if self.holding is not None:
                await self.holding.wait()
            writer.write(self.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has disconnected
        finally:
            writer.close()


@asynccontextmanager
async def key_server(*keys: Key | dict[str, Any]) -> AsyncIterator[KeyServer]:
    server = KeyServer()
    server.publish(*keys)
    await server.open()
    try:
        yield server
    finally:
        await server.close()
