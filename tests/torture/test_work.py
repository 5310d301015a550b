"""The dearest files beside a stranger's photo, and thirty of the largest in memory: by `./run torture` only."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from fixtures import hostile, make, profiles
from tests.support.server_process import ServerProcess, until
from tests.support.speed import seconds

pytestmark = [pytest.mark.torture, pytest.mark.process]

MEGABYTE = 1 << 20
MEMORY_MB = 512


def worst_files() -> Iterator[bytes]:
    """Twenty: what was refused or cheap once it was priced, and the dearest that is still let in."""
    yield hostile.empty_scans(6700, 6700, 200)
    yield hostile.empty_scans(7000, 7000, 30)
    yield hostile.empty_scans(1700, 1700, 33)  # the most that the preview lane takes
    yield from (data for _, data in hostile.exif_bombs())
    yield hostile.empty_chunks(850_000)
    yield hostile.texts(5268, 5268)
    yield hostile.damaged_length()
    yield hostile.empty_deflate_blocks(4_000_000)
    yield hostile.fill_bytes(9_000_000)
    yield make.encoded(make.quadrants(), "JPEG", icc_profile=profiles.srgb_in_steps(10_000))
    yield make.encoded(Image.new("RGB", (8600, 5800)), "WEBP", lossless=True, method=0)
    yield make.png(7000, 7000, 16, 6, (b"\4" + bytes(8 * 7000)) * 7000)
    yield make.png(7000, 7000, 16, 0, (b"\4" + bytes(2 * 7000)) * 7000, make.png_chunk(b"tRNS", b"\0\1"))
    yield from [hostile.empty_scans(1700, 1700, 33)] * 5


def thumbnail_seconds(server: ServerProcess, photo: bytes, user: str) -> float:
    """From the upload's first byte to the thumbnail."""
    began, limit = time.monotonic(), seconds(60)
    job_id = server.upload(photo, user).json()["job_id"]
    while "thumbnail" not in server.job(job_id)["ready"]:
        assert time.monotonic() - began < limit
        time.sleep(0.002)
    return time.monotonic() - began


def test_a_strangers_thumbnail_beside_twenty_of_the_worst_files(tmp_path: Path) -> None:
    photo, worst = make.jpeg(1600, 1200), list(worst_files())
    assert len(worst) == 20
    idle, beside, codes = [], [], []
    with ServerProcess(tmp_path, IMGSVC_JOBS_RETRY_DELAY_SECONDS="0") as server:
        for number in range(7):
            idle.append(thumbnail_seconds(server, photo, f"idle {number}"))
        for number in range(3):  # on top of what is left of the round before
            codes += [
                server.upload(data, f"attacker {number} {user % 5}").status_code for user, data in enumerate(worst)
            ]
            beside.append(thumbnail_seconds(server, photo, f"stranger {number}"))
    print(f"idle {sorted(idle)}, beside twenty of the worst {beside} seconds")
    assert codes.count(422) == 2 * 3 and codes.count(202) == 18 * 3
    assert statistics.median(beside) < seconds(3 * statistics.median(idle))


def test_thirty_files_of_texts_stay_within_the_memory(tmp_path: Path) -> None:
    data = hostile.texts(5268, 5268)
    settings = {"IMGSVC_WORKERS_MEMORY_MB": str(MEMORY_MB), "IMGSVC_WORKERS_COUNT": "2"}
    with ServerProcess(tmp_path, **settings) as server:
        jobs = [server.upload(data, f"user {number % 5}").json()["job_id"] for number in range(30)]
        most = 0

        def ended() -> bool:
            nonlocal most
            most = max(most, sum(private_bytes(pid) for pid in server.worker_processes()))
            return all(server.job(job)["status"] in ("completed", "failed") for job in jobs[-3:])

        until(ended, 300)
        assert [server.job_ended(job)["status"] for job in jobs] == ["completed"] * len(jobs)
        print(f"workers together took {most / MEGABYTE:.0f} of {MEMORY_MB} MB")
        assert most < MEMORY_MB * MEGABYTE


def private_bytes(pid: int) -> int:
    """Resident, without what is shared with other workers."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
