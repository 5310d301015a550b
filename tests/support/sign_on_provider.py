"""An OpenID Connect provider on loopback, in the test's own process, that can answer wrongly."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc.jwk import Key

from tests.support.issuer import http, jwk, key, token

CLIENT, SECRET = "imgsvc", "s" * 40


class Provider:
    """`claims` and `header` change the ID token that it signs next; `metadata` its discovery document."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.header: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {"sub": "1234"}
        self.signer: Key = key("RS256")
        self.unsigned = False
        self.hangs = False
        self.asked: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._port = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self._port}/realm"

    def sign_in(self, location: str) -> str:
        """What a person's browser brings back from the authorization endpoint: the query of the callback."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        return f"code={code}&state={asked['state']}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            path = lines[0].split()[1].removeprefix("/realm")
            self.asked.append(path)
            while self.hangs:
                await asyncio.sleep(0.01)
            found = self._answer(path, headers, body.decode())
            status = "200 OK" if found is not None else "400 Bad Request"
            content = json.dumps({"error": "invalid_grant"} if found is None else found).encode()
            writer.write(http(content, status, Content_Type="application/json"))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the service has given up
        finally:
            writer.close()

    def _answer(self, path: str, headers: dict[str, str], body: str) -> dict[str, Any] | None:
        if path == "/.well-known/openid-configuration":
            addresses = {
                "authorization_endpoint": "authorize",
                "token_endpoint": "token",
                "jwks_uri": "keys",
                "userinfo_endpoint": "me",
            }
            found = {name: f"{self.issuer}/{place}" for name, place in addresses.items()}
            return {"issuer": self.issuer, "id_token_signing_alg_values_supported": ["RS256"], **found, **self.metadata}
        if path == "/keys":
            return {"keys": [jwk(key("RS256"))]}
        if path == "/me":
            return self.userinfo if headers.get("authorization") == "Bearer access" else None
        return self._token(headers, {name: values[0] for name, values in parse_qs(body).items()})

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> dict[str, Any] | None:
        asked = self._codes.pop(form.get("code", ""), None)  # a code is good once
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        knows = headers.get("authorization") == f"Basic {basic}" or form.get("client_secret") == SECRET
        if asked is None or not knows or challenge.rstrip(b"=").decode() != asked["code_challenge"]:
            return None
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "1234", "iat": now, "exp": now + 300}
        claims |= {"nonce": asked["nonce"], "name": "Ann <b>", **self.claims}
        signed = token(self.signer, "RS256", {k: v for k, v in claims.items() if v is not None}, **self.header)
        if self.unsigned:
            signed = signed.rpartition(".")[0] + "."
        return {"access_token": "access", "token_type": "Bearer", "id_token": signed}


def settings_of(at: Provider, **more: Any) -> dict[str, Any]:
    """The sections of a service whose operators sign in there; `more` are settings of `[operator]`."""
    operator = {"oidc_issuer": at.issuer, "oidc_client_id": CLIENT, "oidc_client_secret": SECRET}
    return {
        "operator": operator | {"oidc_allowed": ("sub:1234",)} | more,
        "service": {"public_url": "http://localhost"},
    }


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one._port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        one.hangs = False
        server.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(server.wait_closed(), 1)
