"""One cluster for all cases that render on other machines: a scheduler, and a worker with two processes."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.memory import memory
from tests.torture.kill_at.site import Site
from tests.torture.kill_at.store import own_bucket


@cache
def cluster() -> Cluster:
    """Started with the first site that needs it, ended with this process."""
    folder = Path(tempfile.mkdtemp(prefix="kill-at-cluster-", dir=memory()))
    started = Cluster(folder)
    started.__enter__()
    started.start_worker(count=2).joined()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(started.__exit__)
    return started


def far(site: Site) -> None:
    """All that this site renders is made by a machine of the cluster, but for the preview."""
    site.more = {
        **site.more,
        **cluster().certificates("service"),
        "IMGSVC_WORKERS_ENGINE": "dask",
        "IMGSVC_WORKERS_SCHEDULER": cluster().address,
        "IMGSVC_WORKERS_LOCAL_RENDERS": "0",
    }


def far_with_own_bucket(site: Site) -> None:
    far(site)
    own_bucket(site)
