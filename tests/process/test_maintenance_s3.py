"""`imgsvc storage …` between the local folder and a real S3 server."""

import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.process.test_maintenance import UNKNOWN, Readers, begin_and_kill, completed, storage, variants, whole
from tests.support.maintenance import SIZES, files
from tests.support.s3 import S3Server
from tests.support.server_process import InlineServer, until

pytestmark = pytest.mark.process
LOCAL = {"STORAGE_BACKEND": "local"}


def key(image_id: str, size: str) -> str:
    return f"b/processed/{size}/{image_id}_{size}.webp"


def test_migration_to_s3_and_back_is_killed_and_goes_on(s3: S3Server, tmp_path: Path) -> None:
    there_and_back(s3, tmp_path, many=4)  # 16 objects: a kill comes amid them


@pytest.mark.torture
def test_migration_of_many_to_s3_and_back_is_killed_and_goes_on(s3: S3Server, tmp_path: Path) -> None:
    there_and_back(s3, tmp_path, many=40)


def there_and_back(s3: S3Server, tmp_path: Path, *, many: int) -> None:
    chance, bucket = random.Random(6), s3.bucket()
    server = InlineServer(tmp_path, **s3.environment(bucket) | LOCAL)
    with server:
        images = completed(server, many)
        handed_out = {image_id: f"/storage/{key(image_id, 'large')}" for image_id in images}
        with Readers(server, images) as readers:
            begin_and_kill(server, "s3", chance.uniform(0, 0.1))
            server.start()
            done = storage(server, "migrate", "--to", "s3")
            assert done.returncode == 0, done.stderr
        assert (readers.wrong, readers.read > 20) == ([], True)
        assert storage(server, "gc", "--yes", "--older-than", "0").returncode == 0
        assert files(tmp_path / "storage") == set()
        assert s3.keys(bucket) == sorted(key(image_id, size) for image_id in images for size in SIZES)
        whole(server)
        for image_id, before in images.items():
            assert variants(server, image_id) == before
            old = server.http.get(f"{server.url}{handed_out[image_id]}", follow_redirects=True)
            assert (len(old.history), old.content) == (1, before["large"])
        begin_and_kill(server, "local", 0.05)
        assert storage(server, "migrate", "--to", "local").returncode == 0  # without a service, by itself
        server.start()
        assert storage(server, "gc", "--yes", "--older-than", "0").returncode == 0
        assert s3.keys(bucket) == []
        for image_id, before in images.items():
            assert variants(server, image_id) == before
        assert "Traceback" not in server.log.read_text()


def test_faults_planted_in_the_bucket(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket()

    def plant(image: str, size: str, body: bytes) -> str:
        s3.client.put_object(Bucket=bucket, Key=key(image, size), Body=body)
        return f"orphaned:{key(image, size)}"

    def found(*arguments: str) -> tuple[int, set[str], dict[str, Any]]:
        done = storage(server, *arguments, "--json")
        report = json.loads(done.stdout)
        return done.returncode, {f"{one['kind']}:{one['path']}" for one in report["findings"]}, report["counts"]

    with InlineServer(tmp_path, **s3.environment(bucket)) as server:
        images = completed(server, 3)
        lost, cut, changed = images
        whole(server)
        s3.client.delete_object(Bucket=bucket, Key=key(lost, "medium"))
        plant(cut, "large", images[cut]["large"][:-1])
        plant(changed, "large", images[changed]["large"][:-1] + b"?")
        orphaned = plant(UNKNOWN, "large", b"12345")
        s3.client.put_object(Bucket=bucket, Key="holiday/notes.txt", Body=b"mine")

        until(lambda: found("verify", "--grace", "0")[2].get("settling", 0) == 0)  # this store's times are rounded up
        quick = {f"missing:{key(lost, 'medium')}", f"wrong_size:{key(cut, 'large')}", orphaned}
        foreign = {"foreign:holiday/notes.txt"}
        assert found("verify", "--grace", "0")[:2] == (1, quick | foreign)
        by_digest = f"wrong_digest:{key(changed, 'large')}"
        assert found("verify", "--grace", "0", "--digests")[:2] == (1, quick | foreign | {by_digest})
        assert found("gc", "--older-than", "0")[1] >= {orphaned}
        assert f"{key(UNKNOWN, 'large')}" in s3.keys(bucket)
        assert found("gc", "--older-than", "0", "--yes")[2]["removed"] == 1
        there = {key(one, size) for one in images for size in SIZES} - {key(lost, "medium")}
        assert s3.keys(bucket) == sorted({"holiday/notes.txt", *there})
        moved = storage(server, "migrate", "--to", "local")
        assert moved.returncode == 1
        assert variants(server, changed)["medium"] == images[changed]["medium"]
        assert set(s3.keys(bucket)) >= {key(cut, "large"), key(changed, "large"), key(lost, "thumbnail")}


def test_backup_takes_along_what_is_in_s3_and_a_bucket_that_is_empty_gets_it(s3: S3Server, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    bucket, other = s3.bucket(), s3.bucket()
    with InlineServer(one, **s3.environment(bucket)) as server:
        images = completed(server, 4)
        assert "16 files stay" in storage(server, "backup", str(tmp_path / "without")).stdout
        kept = storage(server, "backup", str(tmp_path / "kept"), "--with-s3")
        assert kept.returncode == 0, kept.stderr
    fresh = InlineServer(two, **s3.environment(other))
    restored = storage(fresh, "restore", str(tmp_path / "kept"))
    assert restored.returncode == 0, restored.stderr
    assert s3.keys(other) == s3.keys(bucket)
    with fresh:
        for image_id, before in images.items():
            assert variants(fresh, image_id) == before
        whole(fresh)


def test_bucket_of_two_services_is_not_tidied_by_either(s3: S3Server, tmp_path: Path) -> None:
    """A backup that was restored elsewhere, for one: it knows nothing of what came to the first service since."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    bucket = s3.bucket()
    with InlineServer(one, **s3.environment(bucket)) as first, InlineServer(two, **s3.environment(bucket)) as second:
        images = completed(first, 1)
        everything = s3.keys(bucket)
        assert storage(second, "gc", "--older-than", "0").stdout.endswith("Add --yes to remove them.\n")
        for _ in range(2):
            refused = storage(second, "gc", "--yes", "--older-than", "0")
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "Another service" in refused.stderr and s3.keys(bucket) == everything
            first.signal(signal.SIGKILL)  # and it is not there at the moment
        probes = [one["Key"] for one in s3.client.list_objects_v2(Bucket=bucket, Prefix=".health/")["Contents"]]
        (others,) = (key for key in probes if key in refused.stderr)
        s3.client.delete_object(Bucket=bucket, Key=others)
        assert len(images) == 1

        def tidied() -> bool:  # this store's times are rounded up
            assert storage(second, "gc", "--yes", "--older-than", "0").returncode == 0
            return s3.keys(bucket) == []

        until(tidied)
