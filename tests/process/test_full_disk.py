"""A disk that others have filled: uploads are refused, and deletions make room, after a restart too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.jobs.space_reserve import NAME, SIZE
from tests.support.server_process import InlineServer, ServerProcess, bearer
from tests.support.small_disk import fill, make_room, mounted

pytestmark = pytest.mark.process


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", 24) as folder:
        yield folder


def delete(server: ServerProcess, image: str) -> int:
    return server.http.delete(f"{server.url}/api/v1/images/{image}", headers=bearer()).status_code


def test_deletions_work_on_a_full_disk(tmp_path: Path, disk: Path) -> None:
    places = {"DATABASE_PATH": str(disk / "data" / "imgsvc.db"), "STORAGE_PATH": str(disk / "storage")}
    reserve = disk / "data" / NAME
    with InlineServer(tmp_path, **places, IMGSVC_STORAGE_RESERVE_MB="8") as server:
        accepted = [server.upload(make.jpeg(640, 480, n)).json() for n in range(4)]
        images = [one["image_id"] for one in accepted]
        assert [server.job_ended(one["job_id"])["status"] for one in accepted] == ["completed"] * 4
        assert reserve.stat().st_size == SIZE

        fill(disk)
        assert server.upload(make.jpeg(640, 480)).status_code == 507
        assert delete(server, images[0]) == 200
        assert server.http.get(f"{server.url}/api/v1/images/{images[0]}").status_code == 404
        assert not list(disk.glob(f"storage/**/{images[0]}*"))
        assert delete(server, images[1]) == 200

        make_room(disk)
        assert server.stop() == 0
        server.start()
        assert reserve.stat().st_size == SIZE
        assert server.stop() == 0
        fill(disk)
        server.start()  # with nothing left for the log of the database
        assert server.upload(make.jpeg(640, 480)).status_code == 507
        assert delete(server, images[2]) == 200
        assert server.http.get(f"{server.url}/api/v1/images/{images[2]}").status_code == 404
        assert server.http.get(f"{server.url}/api/v1/images/{images[3]}/direct?size=large").status_code == 200
