"""A cluster's lane does what every lane must do: the tests of the others, with a service's real addresses."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from imgsvc import testing
from imgsvc.jobs.cluster.lane import ClusterLane
from imgsvc.jobs.lanes.base import Lane
from tests.conftest import service
from tests.jobs.test_lane_conformance import *  # noqa: F403
from tests.support.cluster import Cluster
from tests.support.listening import listening


@asynccontextmanager
async def a_lane(cluster: Cluster, folder: Path) -> AsyncIterator[Lane]:
    names = {"ca_file": "CAFILE", "certfile": "CERTFILE", "keyfile": "KEYFILE"}
    given = cluster.certificates("lane")
    files = {name: given[f"IMGSVC_WORKERS_{end}"] for name, end in names.items()}
    workers = {"engine": "dask", "scheduler": cluster.address, **files}
    async with service(folder, workers=workers) as one, listening(one.app) as url:
        office = one.state.jobs.office
        assert office is not None
        office.serve_at(url)
        yield ClusterLane("render", 0, office)


@pytest.fixture  # type: ignore[no-redef]  # in the place of the imported one
async def lane(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Lane]:
    async with testing._in_one_task(a_lane(cluster, tmp_path / "service")) as found:
        yield found
        await found.close()
