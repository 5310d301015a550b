"""Services that the tests of the pages look at."""

import json
from collections.abc import Iterator

import pytest

from tests.support.dashboard_page import TOKEN
from tests.support.gallery import COUNT, HOSTILE, SIZES, uploaded
from tests.support.server_process import InlineServer, ServerProcess


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """COUNT completed pictures. A test that uploads more deletes them again."""
    folder = tmp_path_factory.mktemp("gallery")
    with InlineServer(folder, OPERATOR_TOKEN=TOKEN, IMAGE_SIZES=json.dumps(SIZES)) as server:
        jobs = [uploaded(server, f"IMG_{number:04}.jpg", number) for number in range(COUNT - 1)]
        jobs.append(uploaded(server, HOSTILE, COUNT, metadata=json.dumps({"title": HOSTILE, "tags": [1, "<b>"]})))
        for job in jobs:
            assert server.job_ended(job)["status"] == "completed"
        yield server
