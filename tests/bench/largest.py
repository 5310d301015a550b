"""`./run bench largest`: thirty of the largest pictures at once, and the memory that the workers take together.

Five of each kind whose decoder or encoder takes memory in its own way, each as large as `max_pixels` allows, uploaded
by five users. The workers' memory is summed as PSS and as RSS (proc(5); RSS counts what a picture's process shares with
its warm one twice), sampled all along, and compared with `[workers] memory_mb`.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from fixtures import make
from tests.bench.memory import REAL, rss_mb, sampled, sampling
from tests.support.memory import memory
from tests.support.server_process import ServerProcess, until

MEGAPIXELS, MEMORY_MB, EACH = 49.5, 2048, 5  # coded in blocks, a HEIC has some more than it shows
SECONDS = 1500  # for all of them, on a quiet machine


@dataclass(frozen=True, slots=True)
class Peak:
    """What thirty pictures took, in MB, and how their jobs ended."""

    pictures: int
    kinds: list[str]
    ended: dict[str, int]
    peak_pss_mb: float
    peak_rss_mb: float
    memory_mb: int

    @property
    def within(self) -> bool:
        return self.peak_pss_mb <= self.memory_mb and set(self.ended) == {"completed"}


def kinds(megapixels: float) -> Iterator[tuple[str, bytes]]:
    """One file of each kind, of so many megapixels. HEIC and AVIF where their encoders are installed."""
    width = int((megapixels * 1.5e6) ** 0.5)
    flat = make.quadrants(width, int(megapixels * 1e6) // width)
    clear = flat.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(flat.size))
    turned = flat.transpose(Image.Transpose.ROTATE_180)
    yield "JPEG", make.encoded(flat, "JPEG", progressive=True, subsampling=0)
    yield "PNG", make.encoded(clear, "PNG", compress_level=1)
    yield "WebP", make.encoded(clear, "WEBP", method=0)
    yield "GIF", make.encoded(flat, "GIF", save_all=True, append_images=[turned, flat], duration=100)
    try:
        from fixtures import coded

        yield "AVIF", coded.avif(clear, quality=50, speed=10)
        yield "HEIC", coded.heic(flat, quality=50, enc_params={"preset": "ultrafast"})
    except ImportError:
        return


def measured(folder: Path, megapixels: float, memory_mb: int, each: int) -> Peak:
    settings = {
        "LOG_LEVEL": "ERROR",
        "IMGSVC_WORKERS_COUNT": "2",
        "IMGSVC_WORKERS_MEMORY_MB": str(memory_mb),
        "MAX_UPLOAD_SIZE_MB": "200",
    }
    files = dict(kinds(megapixels))
    with (
        ServerProcess(folder, real=REAL, **settings) as server,
        sampling(server.service_pid, lambda pid: (sampled(pid), rss_mb(pid))) as samples,
    ):
        receipts = [(name, server.upload(data, f"user {n}")) for n in range(each) for name, data in files.items()]
        refused = {name: receipt.text for name, receipt in receipts if receipt.status_code != 202}
        assert not refused, refused
        taken = [(name, receipt.json()["job_id"]) for name, receipt in receipts]
        ended: dict[str, int] = {}
        for _, job_id in taken:
            until(lambda job_id=job_id: server.job(job_id)["status"] in ("completed", "failed"), SECONDS)  # type: ignore[misc]
            status = server.job(job_id)["status"]
            ended[status] = ended.get(status, 0) + 1
    pss = max(one.workers + one.pictures for one, _ in samples)
    rss = max(size for _, size in samples)
    return Peak(len(taken), sorted({name for name, _ in taken}), ended, round(pss, 1), round(rss, 1), memory_mb)


def main() -> None:
    parser = argparse.ArgumentParser("./run bench largest", description=__doc__)
    parser.add_argument("--megapixels", type=float, default=MEGAPIXELS)
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="[workers] memory_mb")
    parser.add_argument("--each", type=int, default=EACH, help="files of each kind")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        found = measured(Path(name), given.megapixels, given.memory_mb, given.each)
    if given.json:
        print(json.dumps(asdict(found)))
    else:
        print(
            f"{found.pictures} pictures of {given.megapixels:g} megapixels ({', '.join(found.kinds)}): {found.ended}\n"
            f"workers together at most {found.peak_pss_mb} MB (PSS), {found.peak_rss_mb} MB (RSS), of {found.memory_mb}"
        )
    raise SystemExit(0 if found.within else 1)


if __name__ == "__main__":
    main()
