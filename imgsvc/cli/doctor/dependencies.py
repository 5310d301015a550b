"""Checks the servers in the settings: object storage, Redis, authorization server, and the tokens' issuer.

Each is called with the service's own code, which shows that it works and not only that it responds. Libraries that only
one of them needs are imported if that one is configured.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ...access.authorization_client import CHECK, authorization_client
from ...access.jwk import key_of_file
from ...settings import Settings, SettingsError
from ...settings.hosts import without_credentials
from ...settings.storage import S3
from ...storage.base import HEALTH, NotStored, StorageError
from .finding import Finding, warning, well, wrong

if TYPE_CHECKING:
    from ...intake.redis_connection import RedisConnection

TIMEOUT_SECONDS = 5.0
PROBE = b"doctor"
KEEPS_ALL = "noeviction"


def object_storage(settings: Settings) -> Iterator[Finding]:
    """Write, read and remove a probe under its own name in `.health`, next to the running service's probe."""
    s3 = settings.s3
    if not s3.bucket:
        yield well("no bucket is set: variants are stored in the storage folder")
        return
    name = f"the bucket {s3.bucket} at {s3.endpoint_url or f'S3 in {s3.region}'}"
    try:
        asyncio.run(_write_read_remove(s3))
    except StorageError as error:
        text = error.plain or str(error)
        yield wrong(f"{name}: {text}", _storage_advice().get(text, "see the section [s3] of the settings"))
    else:
        yield well(f"{name}: written, read and removed")


async def _probed(connection: "RedisConnection") -> dict[str, Any]:
    """Raises RedisAway."""
    try:
        return await connection.probe()
    finally:
        await connection.close()


def redis(settings: Settings) -> Iterator[Finding]:
    if not settings.redis.url:
        yield well("none is set: this instance has its own rate limit")
        return
    from ...intake.redis_connection import RedisAway
    from ...intake.redis_limit import RedisRateLimit

    name = without_credentials(settings.redis.url.get_secret_value())
    try:
        info = asyncio.run(_probed(RedisRateLimit.of(settings).connection))
    except SettingsError as error:
        yield wrong(str(error), "correct REDIS_URL")
        return
    except RedisAway as error:
        advice = "check that it is running, that REDIS_URL is right and reachable, and the password"
        yield wrong(f"{name} can't be used: {error}", f"{advice}; until then each instance counts its own uploads")
        return
    yield well(f"{name} works; version {info.get('redis_version', 'unknown')}")
    policy = info.get("maxmemory_policy", KEEPS_ALL)
    if policy != KEEPS_ALL and info.get("maxmemory"):
        yield warning(f"its maxmemory-policy is {policy}: once full, it loses upload counts", f"set {KEEPS_ALL}")


def authorization(settings: Settings) -> Iterator[Finding]:
    """A GET, whereas the service sends a POST: it checks no user, and a working server refuses it with an error."""
    auth = settings.auth
    if auth.permissions != "remote":
        yield well(f"no server is used: permissions = {auth.permissions}")
        return
    name = without_credentials(auth.api_url)
    seconds = min(auth.api_timeout, TIMEOUT_SECONDS)
    try:
        status = asyncio.run(_status(f"{auth.api_url}{CHECK}", seconds))
    except TimeoutError:
        yield wrong(f"{name} does not respond within {seconds:g} seconds", _away(settings))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        text = without_credentials(str(error)) or type(error).__name__
        yield wrong(f"{name} does not respond: {text}", _away(settings))
    else:
        yield _answered(name, status)


def token_keys(settings: Settings) -> Iterator[Finding]:
    """The keys that tokens are checked with."""
    auth = settings.auth
    if auth.own_keys:
        yield well(f"tokens are signed with the service's own secret, by {auth.jwt_algorithm}")
    elif auth.jwks_url:
        yield from asyncio.run(_key_set(auth.jwks_url, auth.jwt_algorithm))
    else:
        try:
            key_of_file(auth.jwt_public_key, auth.jwt_algorithm)
        except SettingsError as error:
            yield wrong(str(error), "the service does not start like this")
        else:
            yield well(f"{auth.jwt_public_key} contains a public key for {auth.jwt_algorithm}")


async def _write_read_remove(settings: S3) -> None:
    """Raises StorageError, also if a removed object is not reported as missing: that requires the right to list."""
    from ...storage.s3 import DOCTOR, s3_storage

    soon = {
        "connect_timeout_seconds": min(settings.connect_timeout_seconds, TIMEOUT_SECONDS),
        "read_timeout_seconds": min(settings.read_timeout_seconds, TIMEOUT_SECONDS),
    }
    bucket = f"{HEALTH}/{DOCTOR}{secrets.token_hex(8)}"
    with tempfile.NamedTemporaryFile(prefix="imgsvc-doctor-") as file:
        file.write(PROBE)
        file.flush()
        async with s3_storage(settings.model_copy(update=soon)) as storage:
            await storage.put(bucket, "probe", Path(file.name))
            try:
                blob = await storage.read(bucket, "probe", 0, len(PROBE))
            finally:
                await storage.remove(bucket, "probe")
            if blob.first != PROBE:
                raise StorageError("another content", "The bytes read differ from those written.")
            try:
                await storage.read(bucket, "probe", 0, len(PROBE))
            except NotStored:
                return
            raise StorageError("still there", "A removed object can still be read.")


def _storage_advice() -> Mapping[str, str]:
    from ...storage.s3_errors import CAN_NOT_ENCRYPT, PLAIN

    rights = "grant s3:PutObject, s3:GetObject and s3:DeleteObject on its objects, and s3:ListBucket on the bucket"
    advice = {
        "NoSuchBucket": "create it, or correct AWS_S3_BUCKET_NAME",
        "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
        "AccessDenied": rights,
        "ExpiredToken": "renew AWS_SESSION_TOKEN and its keys, or use a role that renews them",
        "RequestTimeTooSkewed": "set the clock by NTP",
        "PermanentRedirect": "correct AWS_REGION",
    }
    unreachable = "check AWS_ENDPOINT_URL, and that no firewall blocks it"
    return {
        **{PLAIN[code]: text for code, text in advice.items()},
        "The object storage does not answer in time.": unreachable,
        "The object storage can't be reached, or broke the connection.": unreachable,
        "The certificate of the object storage is not trusted.": "set AWS_CA_BUNDLE to your authority's certificate",
        "No access key was found, neither in the settings nor where AWS tools look for one.": (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ),
        CAN_NOT_ENCRYPT: "set IMGSVC_S3_ENCRYPTION=none, or give the store keys to encrypt with",
    }


async def _status(url: str, seconds: float) -> int:
    async with asyncio.timeout(seconds), authorization_client() as client, client.stream("GET", url) as answer:
        return answer.status_code


def _answered(name: str, status: int) -> Finding:
    text = f"{name} answers {status} to a GET of {CHECK}"
    if status >= 500:
        return warning(text, "see its log; such a response counts as unavailable")
    if 300 <= status < 400:
        return wrong(text, "set AUTH_API_URL to the redirect's target: redirects are not followed")
    if status in (401, 407):
        return warning(text, "if it requires a user name and password, put them into AUTH_API_URL")
    return well(text)


def _away(settings: Settings) -> str:
    meanwhile = "any valid token may do everything" if settings.auth.fail_open else "uploads are refused (503)"
    return f"check that it is running, and AUTH_API_URL; until then {meanwhile}"


async def _key_set(url: str, algorithm: str) -> list[Finding]:
    from ...access.jwks import JwksClient, NoKeySet

    key_set = JwksClient(url, algorithm)
    try:
        keys = await key_set.download()
    except NoKeySet as error:
        advice = "check that AUTH_API_JWKS_URL is the issuer's jwks_uri, and reachable from here"
        return [wrong(f"{url}: {error}", advice)]
    finally:
        await key_set.close()
    if not keys:
        return [wrong(f"{url} has no key for {algorithm}", "set JWT_ALGORITHM to the issuer's algorithm")]
    return [well(f"{url} has {len(keys)} key{'s' if len(keys) > 1 else ''} for {algorithm}")]
