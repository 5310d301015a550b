"""Libraries that only some services use: loaded by none that does not."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.redis_server import RedisServer
from tests.support.server_process import ROOT

PROGRAM = """
import asyncio, sys
import imgsvc.testing

async def upload(**sections):
    async with imgsvc.testing.client(**sections) as client:
        await client.ready((await client.upload(imgsvc.testing.picture())).json()["job_id"])
    print("loaded:", *sorted({"aiobotocore", "botocore", "aiohttp", "redis"} & sys.modules.keys()))

asyncio.run(upload())
asyncio.run(upload(redis={"url": sys.argv[1]}))
"""


def test_clients_of_s3_and_redis_are_loaded_only_where_they_are_needed(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with RedisServer() as redis:
        command = [sys.executable, "-c", PROGRAM, redis.url]
        said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    loaded = [line for line in said.stdout.splitlines() if line.startswith("loaded:")]
    assert loaded == ["loaded:", "loaded: redis"], said.stderr
    assert redis.url not in said.stdout + said.stderr
