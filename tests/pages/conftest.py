"""Services that the tests of the pages look at."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import unpack_into
from tests.support.dashboard_page import TOKEN
from tests.support.gallery import COUNT, HOSTILE, SIZES, uploaded
from tests.support.once import once
from tests.support.server_process import InlineServer, ServerProcess


def serving(folder: Path) -> ServerProcess:
    return InlineServer(folder, OPERATOR_TOKEN=TOKEN, IMAGE_SIZES=json.dumps(SIZES))


def packed_gallery(folder: Path) -> bytes:
    with serving(folder) as server:
        jobs = [uploaded(server, f"IMG_{number:04}.jpg", number) for number in range(COUNT - 1)]
        jobs.append(uploaded(server, HOSTILE, COUNT, metadata=json.dumps({"title": HOSTILE, "tags": [1, "<b>"]})))
        for job in jobs:
            assert server.job_ended(job)["status"] == "completed"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("data", "storage"):
            archive.add(folder / name, name)
    return packed.getvalue()


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """COUNT completed pictures. A test that uploads more deletes them again.

    They are uploaded once in a run: each of its processes serves a copy.
    """
    folder = tmp_path_factory.mktemp("gallery")
    packed = once("gallery", lambda: packed_gallery(tmp_path_factory.mktemp("packed")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        unpack_into(folder, archive)
    with serving(folder) as server:
        yield server
