"""An issuer's key set (JWKS, RFC 7517 section 5): fetched at its first use, and kept while the issuer is unavailable.

Concurrent requests share one fetch, which continues if one of them is cancelled.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.to_thread
import httpx
import structlog
from joserfc.jwk import Key

from .jwk import KINDS, KeysUnavailable, WrongKey, public_key

log = structlog.get_logger()

FETCH_SECONDS = 5.0  # for the whole fetch
MAX_BYTES = 256 * 1024
FRESH_SECONDS = 3600.0  # after that it is fetched again in the background
AGAIN_SECONDS = 60.0  # the least time between two fetches caused by an unknown kid or an old set
MAX_TRIED = 8  # keys for a token without kid: each one costs a check of a signature
AWAY_SECONDS = 5.0  # after a failure without cached keys, requests within this time fail at once


class NoKeySet(Exception):
    """No usable key set was received. The message gives the reason, for the log."""


class JwksClient:
    def __init__(self, url: str, algorithm: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._algorithm, self._clock = url, algorithm, clock
        self._keys: list[tuple[str | None, Key]] | None = None
        self._fetched = self._failed = self._asked_again = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    async def of(self, kid: str | None) -> Sequence[Key]:
        """The keys with this `kid`; without one, the first MAX_TRIED keys. Raises KeysUnavailable."""
        now, waited = self._clock(), self._keys is None
        if self._keys is None:
            await self._first(now)
        elif now - self._fetched >= FRESH_SECONDS and now - self._failed >= AGAIN_SECONDS:
            self._fetch()
        found = self._known(kid)
        if not found and kid is not None and not waited and await self._again(now):
            found = self._known(kid)
        return found

    async def download(self) -> list[tuple[str | None, Key]]:
        """Fetch the set without the cache; returns (kid, key) of all usable keys. Raises NoKeySet."""
        try:
            with anyio.fail_after(FETCH_SECONDS):
                data = await self._download()
            return await anyio.to_thread.run_sync(self._read, data)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise NoKeySet(str(error) or type(error).__name__) from None

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        if self._client is not None:
            await self._client.aclose()

    async def _first(self, now: float) -> None:
        if self._fetching is not None or now - self._failed >= AWAY_SECONDS:
            await asyncio.shield(self._fetch())
        if self._keys is None:
            raise KeysUnavailable(max(1, round(self._failed + AWAY_SECONDS - self._clock())))

    async def _again(self, now: float) -> bool:
        """Fetch the set again if it may have changed: the issuer may have a new key. Returns whether it may have."""
        if self._fetching is None:
            if now - max(self._asked_again, self._failed) < AGAIN_SECONDS:
                return False
            self._asked_again = now
        await asyncio.shield(self._fetch())
        return True

    def _known(self, kid: str | None) -> list[Key]:
        assert self._keys is not None
        if kid is None:
            return [key for _, key in self._keys[:MAX_TRIED]]
        return [key for name, key in self._keys if name == kid]

    def _fetch(self) -> "asyncio.Task[None]":
        """The running fetch, or a new one. It never raises."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._replace())
        return self._fetching

    async def _replace(self) -> None:
        try:
            self._keys = await self.download()
        except NoKeySet as error:
            self._failed = self._clock()
            kept = "none" if self._keys is None else len(self._keys)
            log.warning("key_set_unavailable", reason=str(error), kept=kept)
        else:
            self._fetched, self._failed = self._clock(), float("-inf")
            log.info("key_set_fetched", keys=[name for name, _ in self._keys])
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        if self._client is None:
            self._client = await anyio.to_thread.run_sync(_new_client, self._url)
        data = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise NoKeySet(f"the issuer answered {response.status_code}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise NoKeySet("the response is compressed although that was not requested")
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise NoKeySet(f"the response is larger than {MAX_BYTES} bytes")
        return bytes(data)

    def _read(self, data: bytes) -> list[tuple[str | None, Key]]:
        """The keys that the configured algorithm can use. Keys for other purposes are skipped."""
        try:
            listed = json.loads(data)["keys"]
        except (ValueError, KeyError, TypeError, RecursionError):
            listed = None
        if not isinstance(listed, list):
            raise NoKeySet("the response is not a key set")
        suitable = []
        for jwk in listed:
            if isinstance(jwk, dict) and self._is_meant_for_us(jwk):
                try:
                    suitable.append((jwk.get("kid"), public_key(jwk, self._algorithm)))
                except WrongKey as error:
                    log.warning("key_skipped", kid=str(jwk.get("kid"))[:255], reason=str(error))
        return suitable

    def _is_meant_for_us(self, jwk: dict[str, Any]) -> bool:
        operations, kid = jwk.get("key_ops", ["verify"]), jwk.get("kid")
        return (
            jwk.get("kty") == KINDS[self._algorithm[:2]].key_type
            and jwk.get("use", "sig") == "sig"
            and jwk.get("alg", self._algorithm) == self._algorithm
            and isinstance(operations, list)
            and "verify" in operations
            and isinstance(kid, str | None)
        )


def _new_client(url: str) -> httpx.AsyncClient:
    """Create the HTTP client, in a thread, since it reads certificate files: the system's as well as certifi's.

    The environment's proxies and SSL_CERT_FILE are honoured, for an external issuer. Redirects are not followed.
    """
    context = httpx.create_ssl_context()
    context.load_default_certs()
    return httpx.AsyncClient(
        verify=context,
        trust_env=url.startswith("https:"),
        follow_redirects=False,
        timeout=FETCH_SECONDS,
        limits=httpx.Limits(max_connections=1, max_keepalive_connections=0),
        headers={"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"},
    )
