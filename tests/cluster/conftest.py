"""A cluster of real processes. `./run test tests/cluster` brings Dask; without it these tests are skipped."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Worker

HERE = Path(__file__).parent
WITHOUT = "Dask is not installed: ./run test tests/cluster brings it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if find_spec("distributed") is None:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=WITHOUT))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler that no test may end, and one worker of two processes."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as found:
        found.start_worker(count=2).joined()
        yield found


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler for a test that ends it, or that has workers of its own."""
    with Cluster(tmp_path) as found:
        yield found


@pytest.fixture
def worker(own_cluster: Cluster) -> Worker:
    return own_cluster.start_worker(count=2).joined()
