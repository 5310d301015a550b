"""One S3 server for all cases that need one, with a bucket for each site."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.support.memory import memory
from tests.support.s3 import S3Server
from tests.torture.kill_at.site import Site


@cache
def server() -> S3Server:
    """Started with the first site that needs it, ended with this process."""
    folder = Path(tempfile.mkdtemp(prefix="kill-at-s3-", dir=memory()))
    started = S3Server(folder).start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(started.__exit__)
    return started


def own_bucket(site: Site) -> None:
    """Give this site a bucket with the objects of the one that it was copied with, which stays as it is."""
    former, bucket = bucket_of(site), server().bucket()
    for key in keys(former) if former else ():
        server().client.copy_object(Bucket=bucket, Key=key, CopySource={"Bucket": former, "Key": key})
    backend = site.more.get("STORAGE_BACKEND", "local")
    site.more = {**site.more, **server().environment(bucket), "STORAGE_BACKEND": backend}


def bucket_of(site: Site) -> str:
    return site.more.get("AWS_S3_BUCKET_NAME", "")


def keys(bucket: str) -> set[str]:
    return set(server().keys(bucket))
