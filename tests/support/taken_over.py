"""Pictures that take over their decoder, and warm processes whose decoder they take over."""

import ctypes
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from PIL.Image import Transpose

from fixtures import make
from imgsvc.imaging.recipe import scratch_file
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.jobs.retry import Failure
from tests.conftest import Service, service, with_workers
from tests.support.attacks import FILE, MEMORY, victims
from tests.support.inside import MARK, REPORT, STAYING, THROUGH
from tests.support.lanes import SMALL
from tests.support.leaving import LYING, LYING_IN_MOTION, SPOILING, SPOILING_IN_MOTION
from tests.support.patched_workers import patched_workers
from tests.support.render_task import render_task
from tests.support.taken_process import SIZE, Surroundings

PICTURE = make.jpeg(*SIZE)
STILL = make.quadrants(*SIZE, mode="P")
MOVING = make.encoded(STILL, "GIF", save_all=True, append_images=[STILL.transpose(Transpose.ROTATE_180)], duration=100)
# Each format that variants are made in, an animation, and the source without metadata; each upload is rendered.
SIZES = {
    "thumbnail": 150,
    "mail": {"width": 120, "format": "jpeg"},
    "sharp": {"width": 200, "format": "avif"},
    "original": 4096,
}
AT_ONCE = {"retry_delay_seconds": 0}
IMAGES: dict[str, Any] = {"sizes": SIZES, "keep_source": "stripped", "reuse": False}
LEAVING = {
    **dict.fromkeys([*SPOILING, *LYING], PICTURE),
    **dict.fromkeys([*SPOILING_IN_MOTION, *LYING_IN_MOTION], MOVING),
}
HARMLESS = "others are sound"
SECRET = bytearray(b"hunter-2")  # in this process's memory
SECONDS = 1.0  # of a task
ATTACKER = "mallory"


@dataclass(frozen=True)
class Setting:
    """The cage of a warm process: as configured, held down to an ABI of Landlock, or to the walls named."""

    cage: Mode = "best"
    landlock_abi_at_most: int | None = None
    walls: tuple[str, ...] | None = None


@contextmanager
def decoders_that_obey(folder: Path, setting: Setting) -> Iterator[None]:
    """Within this context each warm process that starts has the decoder of `inside`."""
    held = (setting.landlock_abi_at_most, setting.walls and list(setting.walls))
    with patched_workers(folder, f"from tests.support import inside; inside.install(*{held!r})"):
        yield


def picture(attack: str, there: Surroundings, of: bytes = PICTURE) -> bytes:
    """A picture that makes its decoder attack."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(there).items()}
    return of + MARK + json.dumps({"attack": attack, "given": given}).encode()


@asynccontextmanager
async def occupied(folder: Path) -> AsyncIterator[Path]:
    """A running service with secrets and a database. Yields the path of an upload that waits in its data folder."""
    async with service(folder) as running:
        running.state.jobs.queue.hold()
        yield folder / "staging" / (await running.upload(PICTURE)).json()["job_id"]


@contextmanager
def surroundings(folder: Path, waiting: Path) -> Iterator[Surroundings]:
    """What a process may attack: servers that listen, files in `folder`, this process, the upload that waits."""
    folder.mkdir()
    with victims(folder) as near:
        address = ctypes.addressof((ctypes.c_char * len(SECRET)).from_buffer(SECRET))
        yield Surroundings(**asdict(near), data=waiting.parents[1], waiting=waiting, address=address)


async def attempt(lane: ProcessLane, attack: str, folder: Path, waiting: Path) -> str:
    """How an attack in the child of a lane ended: what the attacker reports, or what the lane makes of its end."""
    with surroundings(folder, waiting) as there:
        task = render_task(folder, picture(attack, there), SMALL)
        outcome = await lane.run(replace(task, time_limit=SECONDS, memory_ceiling=MEMORY, file_ceiling=FILE))
    report = scratch_file(folder / "made", "small").read_bytes()
    if report.startswith(REPORT):
        return report.removeprefix(REPORT).decode()
    return outcome.code if isinstance(outcome, Failure) else "decoded"


async def table(folder: Path, settings: Mapping[str, Setting], attacks: Iterable[str]) -> dict[str, dict[str, str]]:
    """{attack: {setting: how it ended}}, each attack in a child of a lane's warm process."""
    found: dict[str, dict[str, str]] = {attack: {} for attack in attacks}
    async with occupied(folder / "data") as waiting:
        for name, setting in settings.items():
            with decoders_that_obey(folder / f"path-{name}", setting):
                lane = ProcessLane("render", nice=0, jobs_per_process=1_000, cage=setting.cage)
                try:
                    for number, attack in enumerate(found):
                        found[attack][name] = await attempt(lane, attack, folder / f"{number}-{name}", waiting)
                finally:
                    await lane.close()
    return found


async def uploaded(s: Service, attack: str, folder: Path, of: bytes = PICTURE) -> str:
    """How the job of a picture ends that makes its decoder attack: its error's code, or its status."""
    with surroundings(folder, s.settings.data / "staging" / "nothing") as there:
        job = await s.ended(await s.upload(picture(attack, there, of), user=ATTACKER))
    return str(job["error_code"] or job["status"])


async def next_variants(s: Service, uploads: int) -> list[bytes]:
    """The variants of so many further uploads, half of them the attacker's."""
    receipts = [
        await s.upload(make.jpeg(48, 32, seed=number), user=(ATTACKER, f"user-{number}")[number % 2])
        for number in range(uploads)
    ]
    jobs = [await s.ended(receipt) for receipt in receipts]
    return [await s.variant(job["image_id"], size) for job in jobs for size in s.settings.images.sizes]


async def expected_variants(folder: Path, uploads: int, **sections: Any) -> list[bytes]:
    """The same of a service that no picture has attacked."""
    async with service(folder, **sections) as s:
        return await next_variants(s, uploads)


async def aftermath(folder: Path, settings: Mapping[str, Setting], uploads: int) -> dict[str, dict[str, str]]:
    """{attack: {setting: what became of it}} of what decoders leave behind, in whole services.

    Of what is left as variants it is how the job ended; of a patched decoder, whether so many further uploads have the
    variants of a service without it.
    """
    found: dict[str, dict[str, str]] = {}
    places = (folder / str(number) for number in count())  # short: the path of a socket has at most 107 bytes
    expected = await expected_variants(folder / "expected", uploads, images=IMAGES)
    for name, setting in settings.items():
        with decoders_that_obey(folder / f"path-{name}", setting):
            workers = {"cage": setting.cage}
            async with with_workers(folder / f"data-{name}", images=IMAGES, workers=workers, jobs=AT_ONCE) as s:
                for attack, of in LEAVING.items():
                    ended = await uploaded(s, attack, next(places), of)
                    found.setdefault(attack, {})[name] = ended
                for attack in STAYING:
                    await uploaded(s, attack, next(places))
                    same = await next_variants(s, uploads) == expected
                    found.setdefault(attack, {})[name] = HARMLESS if same else THROUGH
    return found
