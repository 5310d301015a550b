"""A real S3 server for the tests that need one: `s3` is shared by all of them, each with a bucket of its own.

Starting one takes a second and a half of processor time: all processes of a run of the tests share it.
"""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.botocore_models import share_models
from tests.support.memory import memory
from tests.support.once import last_process, once
from tests.support.server_process import ROOT

ACCESS_KEY = "test:tester"
SECRET = "a-secret-of-the-object-storage"
REGION = "us-east-1"


class S3Server:
    """`tests/support/s3_server.py` as a process, over a folder that a later start finds as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.close_client()

    def close_client(self) -> None:
        if "client" in vars(self):
            self.client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *options: str) -> Self:
        """At the same port as before, if there was a start before."""
        command = [sys.executable, "-m", "tests.support.s3_server", str(self.folder), str(self.port), SECRET, *options]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        said = self._process.stdout.readline().split()
        assert said[:1] == ["ready"], said
        self.port = int(said[1])
        return self

    def signal(self, number: int) -> None:
        """SIGSTOP lets it take connections and answer nothing, until SIGCONT."""
        assert self._process
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is None:
            return
        self.signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout
        self._process.stdout.close()
        self._process = None

    def leave(self) -> None:
        """It goes on without this process."""
        assert self._process and self._process.stdout
        self._process.stdout.close()
        self._process.returncode = 0  # or subprocess warns of a process that was never waited for
        self._process = None

    @cached_property
    def client(self) -> Any:
        """botocore's own, which knows nothing of our code."""
        return self.client_with(SECRET)

    def client_with(self, secret: str) -> Any:
        import botocore.session  # here, since every test imports this file
        from botocore.config import Config

        return botocore.session.get_session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=secret,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                retries={"max_attempts": 0},
            ),
        )

    def bucket(self) -> str:
        """The name of a new and empty one."""
        name = f"pictures-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str) -> list[str]:
        """All that is in it, but for what the health check puts there."""
        listed = self.client.list_objects_v2(Bucket=bucket).get("Contents", [])
        return sorted(one["Key"] for one in listed if not one["Key"].startswith(".health/"))

    def settings(self, bucket: str, **more: Any) -> dict[str, Any]:
        """The section [s3] for a service that uses this bucket."""
        return {
            "bucket": bucket,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET,
            "endpoint_url": self.url,
            **more,
        }

    def environment(self, bucket: str) -> dict[str, str]:
        """The same for a process of its own, with `s3` as the backend."""
        return {
            "STORAGE_BACKEND": "s3",
            "AWS_S3_BUCKET_NAME": bucket,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
        }


@cache
def shared() -> S3Server:
    """The server of this run of the tests, which ends with it. It can't be signalled or killed by one of them."""
    server = S3Server(Path())
    server.port = int(once("s3", _start_for_all))
    atexit.register(server.close_client)
    return server


def _start_for_all() -> bytes:
    folder = Path(tempfile.mkdtemp(prefix="imgsvc-tests-s3-", dir=memory()))
    server = S3Server(folder).start(str(last_process()))
    server.leave()
    return b"%d" % server.port


@pytest.fixture(scope="session")
def s3() -> S3Server:
    share_models()
    return shared()
