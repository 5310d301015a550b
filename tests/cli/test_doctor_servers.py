"""`imgsvc doctor` and the servers that settings name: each real, and wrong in the ways that people get it wrong."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from imgsvc import Settings
from imgsvc.cli.doctor import Check, conflicts, dependencies, secrets
from imgsvc.testing import settings_in
from tests.support.doctor import found, worst
from tests.support.issuer import KeyServer, http, jwk, key, key_server, pem
from tests.support.processes import run
from tests.support.redis_server import RedisServer
from tests.support.s3 import SECRET, S3Server

PASSWORD = "a-password-of-redis"
NOBODY = "http://127.0.0.1:1"
FIRST = key("ES256")


async def asked(check: Check, settings: Settings) -> str:
    """In a thread: the server that is asked may be on this loop."""
    return await asyncio.to_thread(worst, check, settings)


class TestObjectStorage:
    def said(self, s3: S3Server, folder: Path, bucket: str, **more: Any) -> str:
        said = worst(dependencies.object_storage, settings_in(folder, s3=s3.settings(bucket, **more)))
        assert SECRET not in said
        return said

    def test_works_and_nothing_is_left_behind(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = s3.bucket()
        assert self.said(s3, tmp_path, bucket) == "well"
        assert "Contents" not in s3.client.list_objects_v2(Bucket=bucket)
        assert list(tmp_path.iterdir()) == []

    def test_wrong_in_many_ways(self, s3: S3Server, tmp_path: Path) -> None:
        bucket = s3.bucket()
        missing = self.said(s3, tmp_path, "no-such-bucket")
        assert missing.startswith(
            f"wrong: the bucket no-such-bucket at {s3.url}: The bucket does not exist. → create it"
        )
        other_secret = self.said(s3, tmp_path, bucket, secret_access_key="another")
        assert other_secret.endswith("the secret access key is wrong. → correct AWS_SECRET_ACCESS_KEY")
        other_key = self.said(s3, tmp_path, bucket, access_key_id="test:nobody")
        assert other_key.startswith("wrong: ") and "→ correct AWS_" in other_key
        away = self.said(s3, tmp_path, bucket, endpoint_url=NOBODY)
        assert "can't be reached" in away and "→ check AWS_ENDPOINT_URL" in away

    def test_none(self, tmp_path: Path) -> None:
        assert worst(dependencies.object_storage, settings_in(tmp_path)) == "well"


class TestRedis:
    def said(self, folder: Path, url: str) -> str:
        said = worst(dependencies.redis, settings_in(folder, redis={"url": url}))
        assert PASSWORD not in said
        return said

    def test_works_and_nothing_is_left_behind(self, tmp_path: Path) -> None:
        with RedisServer("--requirepass", PASSWORD) as server:
            url = server.url.replace("unix://", f"unix://:{PASSWORD}@")
            (finding,) = found(dependencies.redis, settings_in(tmp_path, redis={"url": url}))
            assert finding.status == "well" and finding.said.startswith(f"{server.url} works; version ")
            with server.client(password=PASSWORD) as client:
                assert client.dbsize() == 0
            refused = self.said(tmp_path, server.url)
        assert refused.startswith(f"wrong: {server.url} can't be used: ") and "uthentication" in refused

    def test_away(self, tmp_path: Path) -> None:
        said = self.said(tmp_path, f"redis://:{PASSWORD}@127.0.0.1:1/0")
        assert said.startswith("wrong: redis://127.0.0.1:1/0 can't be used: ") and "REDIS_URL" in said
        assert self.said(tmp_path, "") == "well"

    def test_forgets_when_it_is_full(self, tmp_path: Path) -> None:
        with RedisServer("--maxmemory", "20mb", "--maxmemory-policy", "allkeys-lru") as server:
            assert self.said(tmp_path, server.url).startswith("warning: its maxmemory-policy is allkeys-lru")


class TestAuthorization:
    def settings(self, folder: Path, url: str, **more: Any) -> Settings:
        return settings_in(folder, auth={"permissions": "remote", "api_url": url, **more})

    @pytest.mark.parametrize(
        ("status", "said"),
        [
            ("405 Method Not Allowed", "well"),
            ("404 Not Found", "well"),
            ("302 Found", "wrong: http://127.0.0.1:PORT answers 302 to a GET of /api/v1/authorization/check → set"),
            ("401 Unauthorized", "warning: http://127.0.0.1:PORT answers 401"),
            ("502 Bad Gateway", "warning: http://127.0.0.1:PORT answers 502"),
        ],
    )
    async def test_answers(self, tmp_path: Path, status: str, said: str) -> None:
        async with key_server() as server:
            server.answer = http(b"", status)
            port = address(server).rpartition(":")[2]
            url = f"http://someone:{PASSWORD}@127.0.0.1:{port}"
            told = await asked(dependencies.authorization, self.settings(tmp_path, url))
        assert told.startswith(said.replace("PORT", port)) and PASSWORD not in told

    async def test_away_or_silent(self, tmp_path: Path) -> None:
        away = await asked(dependencies.authorization, self.settings(tmp_path, NOBODY))
        assert away.startswith(f"wrong: {NOBODY} does not respond: ") and away.endswith("uploads are refused (503)")
        async with key_server() as server:
            server.holding = asyncio.Event()
            settings = self.settings(tmp_path, address(server), api_timeout=0.2, fail_open=True)
            silent = await asked(dependencies.authorization, settings)
            server.holding.set()
        assert "does not respond within 0.2 seconds" in silent and silent.endswith("any valid token may do everything")

    async def test_nobody_is_asked(self, tmp_path: Path) -> None:
        assert await asked(dependencies.authorization, settings_in(tmp_path, auth={"api_url": NOBODY})) == "well"


def address(server: KeyServer) -> str:
    return server.url.rpartition("/")[0]


class TestTokenKeys:
    def settings(self, folder: Path, **auth: Any) -> Settings:
        return settings_in(folder, auth={"jwt_algorithm": "ES256", **auth})

    async def test_key_set(self, tmp_path: Path) -> None:
        async with key_server(FIRST, jwk(key("RS256"))) as server:
            settings = self.settings(tmp_path, jwks_url=server.url)
            (finding,) = await asyncio.to_thread(found, dependencies.token_keys, settings)
            assert finding.said == f"{server.url} has 1 key for ES256"
            server.publish(key("RS256"))
            told = await asked(dependencies.token_keys, settings)
            assert told.endswith("has no key for ES256 → set JWT_ALGORITHM to the issuer's algorithm")
            server.answer = http(b"<h1>Sign in</h1>")
            assert "the response is not a key set → check that" in await asked(dependencies.token_keys, settings)
            server.answer = http(b"", "404 Not Found")
            assert "the issuer answered 404 → check that" in await asked(dependencies.token_keys, settings)

    def test_file(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        settings = self.settings(tmp_path, jwt_public_key=str(file))
        assert "can't be read: No such file" in worst(dependencies.token_keys, settings)
        file.write_bytes(pem(FIRST))
        assert worst(dependencies.token_keys, settings) == "well"

    async def test_what_is_logged_stays_out_of_the_report(self, tmp_path: Path) -> None:
        """A key that is passed over is worth a line, but not one that breaks the JSON."""
        private = {**FIRST.as_dict(private=True), "kid": "private"}
        async with key_server(private) as server:
            environ = {
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "JWT_ALGORITHM": "ES256",
                "AUTH_API_JWKS_URL": server.url,
            }
            done = await asyncio.to_thread(run, ["doctor"], folder=tmp_path, environ=environ)
        assert done.returncode == 1 and "key_skipped" in done.stderr
        assert all(line[0] in "✓!✗" for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"auth": {"api_url": NOBODY}}, "warning: AUTH_API_URL is set, but permissions = none does not use it"),
        (
            {"auth": {"api_url": NOBODY, "permissions": "remote", "fail_open": True}},
            "warning: AUTH_FAIL_OPEN is true",
        ),
        ({"auth": {"api_url": NOBODY, "permissions": "remote"}}, "well"),
        (
            {"auth": {"jwt_algorithm": "RS256", "jwks_url": "https://login.example/keys"}},
            "warning: tokens that the issuer made for other applications are accepted here too",
        ),
        ({"auth": {"jwt_algorithm": "RS256", "jwks_url": "https://login.example/keys", "audience": "img"}}, "well"),
        ({"s3": {"bucket": "pictures", "endpoint_url": "http://s3:8333"}}, "warning: presigned URLs lead to s3, which"),
        ({"s3": {"bucket": "pictures", "endpoint_url": "http://127.0.0.1:8333"}}, "warning: presigned URLs lead to 1"),
        ({"s3": {"bucket": "pictures", "endpoint_url": "http://s3.example"}}, "warning: presigned URLs are http"),
        ({"s3": {"bucket": "pictures", "endpoint_url": "https://s3.example"}}, "well"),
        (
            {
                "s3": {
                    "bucket": "pictures",
                    "endpoint_url": "http://s3:8333",
                    "public_endpoint_url": "https://s3.example",
                }
            },
            "well",
        ),
        ({"s3": {"endpoint_url": "http://s3:8333"}}, "well"),
    ],
)
def test_settings_that_fight(tmp_path: Path, sections: dict[str, Any], said: str) -> None:
    public: dict[str, Any] = {
        "service": {"public_url": "https://img.example"},
        "server": {"trusted_proxies": ["127.0.0.1/32"]},
    }
    settings = settings_in(tmp_path, **public, **sections, storage={"reserve_mb": 256})
    assert worst(conflicts.settings, settings).startswith(said)


def test_key_of_signed_urls_that_others_can_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "url_key").write_text("x" * 64)
    (tmp_path / "url_key").chmod(0o644)
    assert "url_key can be read by others" in worst(secrets.secrets, settings_in(tmp_path))
