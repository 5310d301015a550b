"""The service on a FUSE file system that is really mounted, without what many network shares lack.

By `./run torture` only; it needs root, /dev/fuse and, for the system's Python, fusepy (`apt-get install
python3-fusepy`). `tests/jobs/test_shares.py` tries more kinds of shares, with the one call refused in the process.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.server_process import ROOT, ServerProcess, until

PYTHON = "/usr/bin/python3"
SHARE = str(ROOT / "tests" / "support" / "share.py")


def is_mountable() -> bool:
    if not (Path("/dev/fuse").exists() and Path(PYTHON).exists() and os.geteuid() == 0):
        return False
    return subprocess.run([PYTHON, "-c", "import fusepy"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.torture,
    pytest.mark.process,
    pytest.mark.skipif(not is_mountable(), reason="mounting takes root, /dev/fuse and python3-fusepy"),
]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A share over a folder of this disk, which is below `folder`."""
    beneath, point = folder / "beneath", folder / "share"
    beneath.mkdir()
    point.mkdir()
    process = subprocess.Popen([PYTHON, SHARE, str(beneath), str(point), *options])
    try:
        until(point.is_mount)
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)
        process.wait(30)


def places(data: Path, storage: Path) -> dict[str, str]:
    return {"DATABASE_PATH": str(data / "data" / "imgsvc.db"), "STORAGE_PATH": str(storage / "storage")}


def warnings_of(server: ServerProcess, event: str) -> int:
    return server.log.read_text().count(f'"event": "{event}"')


def killed_and_read(server: ServerProcess) -> None:
    """Upload, end the service at once, start it again, and read."""
    accepted = [server.upload(make.jpeg(640, 480, number)) for number in range(4)]
    assert [answer.status_code for answer in accepted] == [202] * 4
    server.signal(signal.SIGKILL)
    server.ended()
    server.start()
    for answer in accepted:
        assert server.job_ended(answer.json()["job_id"])["status"] == "completed"
        shown = httpx.get(f"{server.url}/api/v1/images/{answer.json()['image_id']}/direct", params={"size": "original"})
        assert (shown.status_code, shown.content[8:12]) == (200, b"WEBP")


def test_everything_on_a_share_that_syncs_no_folders(tmp_path: Path) -> None:
    with mounted(tmp_path) as point, ServerProcess(tmp_path, **places(point, point)) as server:
        killed_and_read(server)
        assert warnings_of(server, "folder_not_synced") == 2  # one for each start
        assert server.stop() == 0


def test_variants_on_a_share_that_maps_no_files(tmp_path: Path) -> None:
    with mounted(tmp_path, "direct_io") as point, ServerProcess(tmp_path, **places(tmp_path, point)) as server:
        killed_and_read(server)
        assert server.stop() == 0


def test_database_on_a_share_that_maps_no_files_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with mounted(tmp_path, "direct_io") as point:
        done = ServerProcess(tmp_path, **places(point, tmp_path)).run("serve", "--port", "0")
        assert done.returncode == 2 and "DATABASE_PATH" in done.stderr, done
        assert "is on fuse mounted at" in done.stderr
        assert "Traceback" not in done.stderr
