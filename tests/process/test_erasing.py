"""`imgsvc users erase` on a data folder that no service uses, with a Redis that instances share."""

import json
from pathlib import Path

import pytest

from fixtures import make
from tests.support.redis_server import RedisServer
from tests.support.server_process import InlineServer

pytestmark = pytest.mark.process


def test_window_in_redis_goes_too(tmp_path: Path) -> None:
    """Without a Redis the command ends as well: what is left there ends with its window."""
    erase = ("users", "erase", "alice", "--yes", "--json")
    with (
        RedisServer() as redis,
        InlineServer(tmp_path, REDIS_URL=redis.url, IMGSVC_REDIS_TIMEOUT_MS="5000") as server,
    ):
        assert server.upload(make.tiny()).status_code == 202
        server.stop()
        assert redis.ask("KEYS", "*") == ["imgsvc:uploads:11:default-org:alice"]
        erased = server.run(*erase)
        assert erased.returncode == 0 and json.loads(erased.stdout)["counts"]["images"] == 1, erased.stderr
        assert redis.ask("KEYS", "*") == []
        redis.kill()
        without = server.run(*erase)
        assert without.returncode == 0 and "redis_unavailable" in without.stderr
