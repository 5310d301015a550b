"""A worker that a picture has taken over says and leaves what it likes, and only its own job suffers."""

import hashlib
import os
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.access.tokens import Tokens
from imgsvc.jobs import rendered_files, run, trees
from imgsvc.jobs.lanes.messages import Outcome, Rendered, Task, VariantMade
from imgsvc.jobs.retry import Failure
from imgsvc.jobs.trees import empty_tree, remove_tree
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from tests.conftest import service
from tests.support.speed import seconds, within

Tamper = Callable[[Path, Rendered], Rendered | None]
FAILED = ("completed", "failed")
SMALL = {"thumbnail": 15, "medium": 60, "large": 120, "original": 410}  # the default ones take ten times as long


class Hostile(testing.InlineLane):
    """Renders honestly and then tampers with what it made."""

    def __init__(self, tamper: Tamper) -> None:
        super().__init__("render")
        self.tamper = tamper
        self.tasks = 0
        self.kills = 0  # none: the process that lied was its picture's alone, and has ended

    async def run(self, task: Task) -> Outcome:
        self.tasks += 1
        outcome = await super().run(task)
        if isinstance(outcome, Rendered) and task.kind == "render":
            outcome = self.tamper(Path(task.folder), outcome)
        return outcome

    def kill(self) -> None:
        self.kills += 1


@asynccontextmanager
async def tampering(folder: Path, lane: testing.InlineLane, **sections: Any) -> AsyncIterator[testing.Client]:
    settings = testing.settings_in(folder, jobs={"retry_delay_seconds": 0.05}, **sections)
    app = create_app(settings, Doubles(lanes=(testing.InlineLane("preview"), lane)))
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), testing.Client(transport, Tokens.of(settings)) as client:
        yield client


async def ended(client: testing.Client, job_id: str) -> dict[str, Any]:
    with within(20):
        while (job := (await client.get(f"/api/v1/images/jobs/{job_id}")).json())["status"] not in FAILED:
            await anyio.sleep(0.01)
    return dict(job)


def told(rendered: Rendered, **change: Any) -> Rendered:
    """With these members of the variant `large` changed."""
    variants = tuple(made.model_copy(update=change) if made.name == "large" else made for made in rendered.variants)
    return rendered.model_copy(update={"variants": variants})


def replaced(make: Callable[[Path], object]) -> Tamper:
    def tamper(folder: Path, rendered: Rendered) -> Rendered:
        (folder / "large.webp").unlink()
        make(folder / "large.webp")
        return rendered

    return tamper


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_RDONLY)
        try:
            one.bind(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)


def hard_link(path: Path) -> None:
    os.link(path.with_name("medium.webp"), path)


def sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def longer(folder: Path, rendered: Rendered) -> Rendered:
    with (folder / "large.webp").open("ab") as stream:
        stream.write(b"x")
    return rendered


def other_bytes(folder: Path, rendered: Rendered) -> Rendered:
    path = folder / "large.webp"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return rendered


def swapped(folder: Path, rendered: Rendered) -> Rendered:
    """A sound picture, truly described, of another size than was asked for."""
    shutil.copy(folder / "medium.webp", folder / "large.webp")
    medium = next(made for made in rendered.variants if made.name == "medium")
    return told(rendered, **medium.model_dump(exclude={"name"}))


def written(change: Callable[[bytes], bytes]) -> Tamper:
    """The variant `large` with other bytes, truly described."""

    def tamper(folder: Path, rendered: Rendered) -> Rendered:
        path = folder / "large.webp"
        data = change(path.read_bytes())
        path.write_bytes(data)
        return told(rendered, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    return tamper


LIES: dict[str, Tamper] = {
    "a link to a secret": replaced(lambda path: path.symlink_to(path.parents[2] / "jwt_secret")),
    "a FIFO": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "a socket": replaced(a_socket),
    "a second name": replaced(hard_link),
    "a terabyte of nothing": replaced(sparse),
    "a byte more": longer,
    "other bytes": other_bytes,
    "no picture": written(lambda _: b"<script>"),
    "metadata": written(lambda _: make.encoded(make.quadrants(120, 83), "WEBP", exif=make.exif())),
    "another picture": swapped,
    "another size": lambda _, rendered: told(rendered, width=1),
    "too few": lambda _, rendered: rendered.model_copy(update={"variants": rendered.variants[1:]}),
    "twice": lambda _, rendered: rendered.model_copy(update={"variants": rendered.variants * 2}),
    "the preview again": lambda _, rendered: told(rendered, name="thumbnail"),
    "another source": lambda _, rendered: rendered.model_copy(update={"width": rendered.width + 1}),
    "nothing": lambda _, _rendered: None,
}


@pytest.mark.parametrize("lie", LIES)
async def test_lie_of_a_worker_is_a_crash_and_publishes_nothing(tmp_path: Path, lie: str) -> None:
    lane = Hostile(LIES[lie])
    async with tampering(tmp_path, lane, images={"sizes": SMALL}) as client:
        accepted = (await client.upload(testing.picture(130, 90))).json()
        job = await ended(client, accepted["job_id"])
        assert (job["error_code"], job["attempts"], lane.tasks, lane.kills) == ("worker_crashed", 2, 2, 0)
        for size in ("large", "medium", "original"):
            answer = await client.get(f"/api/v1/images/{accepted['image_id']}/direct", params={"size": size})
            assert answer.status_code == 404
        lane.tamper = lambda _, rendered: rendered
        await client.ready((await client.upload(testing.picture())).json()["job_id"])
    left = [path.name for path in (tmp_path / "scratch").iterdir() if path.name != "health"]
    assert left == []


async def test_published_is_a_copy_that_the_worker_can_not_change(tmp_path: Path) -> None:
    """The worker keeps its descriptor and writes once more after its answer was checked."""
    kept: list[int] = []

    def keep(folder: Path, rendered: Rendered) -> Rendered:
        kept.append(os.open(folder / "large.webp", os.O_RDWR))
        return rendered

    async with tampering(tmp_path, Hostile(keep)) as client:
        accepted = (await client.upload(testing.picture())).json()
        await client.ready(accepted["job_id"])
        os.pwrite(kept[0], b"hostile", 0)
        os.close(kept[0])
        answer = await client.get(f"/api/v1/images/{accepted['image_id']}/direct", params={"size": "large"})
        assert answer.content.startswith(b"RIFF")
        stored = next((tmp_path / "storage").rglob("*_large.webp"))
        assert (stored.stat().st_nlink, stored.is_symlink()) == (1, False)


class Says(testing.InlineLane):
    """Answers a render with this failure, once for each."""

    def __init__(self, *failures: Failure) -> None:
        super().__init__("render")
        self.failures = list(failures)

    async def run(self, task: Task) -> Outcome:
        return self.failures.pop(0) if self.failures else await super().run(task)


class Counting(testing.InlineLane):
    """Says when the second render begins."""

    def __init__(self) -> None:
        super().__init__("render")
        self.tasks, self.second = 0, threading.Event()

    async def run(self, task: Task) -> Outcome:
        self.tasks += 1
        if self.tasks == 2:
            self.second.set()
        return await super().run(task)


async def test_lane_takes_the_next_job_while_what_it_made_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane, usual = Counting(), rendered_files.take_checked

    def taken(folder: Path, made: Collection[VariantMade], target: Path, source_bytes: int) -> None:
        assert len(made) == 1 or lane.second.wait(seconds(20)), "the lane waits for the check"  # 1: a preview
        usual(folder, made, target, source_bytes)

    monkeypatch.setattr(run, "take_checked", taken)
    async with tampering(tmp_path, lane) as client:
        accepted = [await client.upload(testing.picture(1300, 900, colour)) for colour in ("red", "blue")]
        for one in accepted:
            await client.ready(one.json()["job_id"])


@pytest.mark.parametrize("code", ["source_missing", "source_damaged"])
async def test_source_that_is_there_is_kept_whatever_a_worker_says(tmp_path: Path, code: str) -> None:
    async with tampering(tmp_path, Says(Failure(code, "gone"))) as client:
        job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
        assert job["attempts"] == 1


async def test_source_that_is_gone_can_be_retried_once_it_is_back(tmp_path: Path) -> None:
    async with service(tmp_path) as s:
        s.state.jobs.queue.hold()
        accepted = await s.upload(testing.picture())
        job_id = accepted.json()["job_id"]
        staged = tmp_path / "staging" / job_id
        staged.rename(tmp_path / "away")
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        job = await s.ended(accepted)
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "source_missing", True)
        await s.state.jobs.housekeeping.sweep()
        (tmp_path / "away").rename(staged)
        retried = await s.http.post(f"/api/v1/operator/jobs/{job_id}/retry", headers=s.operator)
        assert retried.status_code == 202, retried.text
        assert (await s.ended(accepted))["status"] == "completed"


class Cleaned(testing.InlineLane):
    """Something removes the scratch folder under the first tasks, before or after the worker has written."""

    def __init__(self, *, before: bool) -> None:
        super().__init__("render")
        self.before, self.left = before, 2

    async def run(self, task: Task) -> Outcome:
        self.left -= 1
        if self.left >= 0 and self.before:
            shutil.rmtree(Path(task.folder).parent)
        outcome = await super().run(task)
        if self.left >= 0 and not self.before:
            shutil.rmtree(Path(task.folder).parent)
        return outcome


@pytest.mark.parametrize("before", [True, False])
async def test_scratch_folder_that_is_removed_under_a_run_loses_nothing(tmp_path: Path, before: bool) -> None:
    async with tampering(tmp_path, Cleaned(before=before)) as client:
        job = await client.ready((await client.upload(testing.picture())).json()["job_id"])
        assert job["attempts"] == (0 if before else 2)  # the folder is made together with the task's files


def nested(folder: Path, depth: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def nest(folder: Path, rendered: Rendered) -> Rendered:
    nested(folder, 3_000)
    return rendered


async def test_nested_folders_keep_no_service_from_going_on_or_starting(tmp_path: Path) -> None:
    async with tampering(tmp_path, Hostile(nest)) as client:
        await client.ready((await client.upload(testing.picture())).json()["job_id"])
    assert list((tmp_path / "scratch").glob("*.*")) == []
    nested(tmp_path / "scratch" / "left", 3_000)
    async with service(tmp_path) as s:
        await s.completed(testing.picture())
        assert not (tmp_path / "scratch" / "left").exists()


def test_tree_is_removed_without_following_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "PAGE", 3)
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    for number in range(10):
        (tree / f"{number}" / ".removed-0" / "deep").mkdir(parents=True)
        (tree / f"{number}" / "file").touch()
    (tree / "1" / "link").symlink_to(outside)
    (tree / "link").symlink_to(outside)
    os.mkfifo(tree / "2" / "fifo")
    (tree / "3").chmod(0)
    assert remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    tree.symlink_to(outside)
    assert remove_tree(tree)
    assert not tree.is_symlink()
    assert (outside / "kept").exists()
    assert remove_tree(tree)


def test_folder_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    nested(tmp_path / "tree", 10)
    assert not empty_tree(tmp_path / "tree", seconds=-1)
    assert empty_tree(tmp_path / "tree")
    assert list((tmp_path / "tree").iterdir()) == []
