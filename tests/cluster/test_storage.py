"""A service whose variants are in S3: render machines put them there by themselves."""

from pathlib import Path

import pytest

from fixtures import make
from tests.cluster.test_service import outcome
from tests.support.cluster import WHY, Cluster, ClusterService
from tests.support.s3 import S3Server
from tests.support.server_process import ServerProcess, until

pytestmark = pytest.mark.process


def put_and_asked(far: ClusterService) -> tuple[int, int]:
    """How many variants machines have put here, and how many addresses in the storage they have asked for."""
    methods = [line["method"] for line in far.events("request") if line["path"].startswith("/render/")]
    return methods.count("PUT"), methods.count("POST")


def test_machines_put_into_the_storage_what_is_checked_and_copied_to_its_place(
    cluster: Cluster, s3: S3Server, tmp_path: Path
) -> None:
    buckets = {"local": s3.bucket(), "far": s3.bucket()}
    (tmp_path / "local").mkdir()
    with (
        ServerProcess(tmp_path / "local", real=WHY, **s3.environment(buckets["local"])) as local,
        cluster.service(tmp_path / "far", 1, **s3.environment(buckets["far"])) as far,
    ):
        photo = make.jpeg(1600, 1200)
        for server in (local, far):
            server.http.follow_redirects = True
        assert outcome(far, photo) == outcome(local, photo)
        assert put_and_asked(far) == (0, 4)
        until(lambda: not [key for key in s3.keys(buckets["far"]) if key.startswith("incoming/")])
        digests = [
            sorted(s3.client.head_object(Bucket=bucket, Key=key)["ETag"] for key in s3.keys(bucket))
            for bucket in buckets.values()
        ]
        assert digests[0] == digests[1] and len(digests[0]) == 4
        head = s3.client.head_object(Bucket=buckets["far"], Key=s3.keys(buckets["far"])[0])
        assert (head["ContentType"], head["CacheControl"]) == ("image/webp", "public, max-age=31536000, immutable")
        until(lambda: far.data()["cluster"]["received_bytes"] > 0)
