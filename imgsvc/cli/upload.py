"""Uploads files with the client: some at a time, each known by its digest to the next call."""

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from ..client import Client, ImgsvcError, JobFailed, Refused, Retries
from ..lazy_dataclass import dataclass

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")  # that are taken from folders
ATTEMPTS = 1000  # a rate limit is waited out, however long its window is
LONGEST_PAUSE = 24 * 3600.0
JOB_SECONDS = 600.0


class NoFiles(Exception):
    """A path is not there, is a folder, or holds no picture."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of a file: its addresses, or an error."""

    file: str
    sha256: str
    image_id: str | None
    urls: dict[str, str]
    error: str | None
    again: bool  # it had been uploaded before

    def line(self) -> str:
        """JSON for a program."""
        found = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(found)


def files_of(paths: Sequence[Path], *, recursive: bool) -> list[Path]:
    """The files to upload, in order. Raises NoFiles."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            if not recursive:
                raise NoFiles(f"{path} is a folder: --recursive uploads the pictures below it")
            below = sorted(one for one in path.rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file())
            if not below:
                raise NoFiles(f"{path} holds no file that ends in {', '.join(SUFFIXES)}")
            found += below
        elif path.is_file():
            found.append(path)
        else:
            raise NoFiles(f"{path}: there is no such file")
    return list(dict.fromkeys(found))


def run(files: Sequence[Path], *, server: str, token: str, bucket: str, parallel: int, as_json: bool) -> int:
    """Upload the files and print what became of each; returns how many failed."""
    journal = Journal(server, bucket)
    failed = 0
    retries = Retries(attempts=ATTEMPTS, first_pause=1.0, longest_pause=LONGEST_PAUSE, unanswered=6)
    with Client(server, token, retries=retries) as client, _shown(files, quiet=as_json) as bars:
        for one in _in_parallel(files, client, journal, bucket, parallel, bars):
            failed += one.error is not None
            bars.print(one, as_json=as_json)
    return failed


def _in_parallel(
    files: Sequence[Path], client: Client, journal: "Journal", bucket: str, parallel: int, bars: "Bars"
) -> Iterator[Uploaded]:
    """What became of each file, as they end. At Ctrl-C those on their way are given up; the journal knows the rest."""
    pool = ThreadPoolExecutor(parallel)
    try:
        waiting, left = set[Future[Uploaded]](), iter(files)
        while True:
            for file in left:
                waiting.add(pool.submit(_one, file, client, journal, bucket, bars))
                if len(waiting) >= 2 * parallel:
                    break
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (one.result() for one in done)
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        os._exit(130)  # threads may still be in requests whose results are not needed any more
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _one(file: Path, client: Client, journal: "Journal", bucket: str, bars: "Bars") -> Uploaded:
    digest = ""
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        known = journal.job_of(digest)
        if known is not None:
            try:
                return _ended(file, digest, client, known, again=True)
            except Refused as gone:
                if gone.status != 404:
                    raise
        with bars.file(file) as progress:
            receipt = client.upload(file, bucket=bucket, key=journal.key(digest, renew=known), progress=progress)
        journal.add(digest, receipt.job_id)
        return _ended(file, digest, client, receipt.job_id, again=receipt.replayed)
    except (ImgsvcError, OSError) as error:
        return Uploaded(str(file), digest, None, {}, str(error), again=False)


def _ended(file: Path, digest: str, client: Client, job_id: str, *, again: bool) -> Uploaded:
    try:
        job = client.wait(job_id, JOB_SECONDS)
    except JobFailed as error:
        return Uploaded(str(file), digest, None, {}, str(error), again)
    urls = {name: client.absolute(url) for name, url in job.urls.items()}
    return Uploaded(str(file), digest, job.image_id, urls, None, again)


class Journal:
    """The jobs of files that were uploaded to this bucket of this server, by digest: a line of JSON each.

    A line is synced before the next file is begun; one that a kill has cut off is ignored.
    """

    def __init__(self, server: str, bucket: str) -> None:
        self._where = f"{server.rstrip('/')} {bucket}"
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        self._file = Path(base) / "imgsvc" / "uploads.jsonl"
        self._lock = threading.Lock()
        self._jobs = dict(self._read())

    def _read(self) -> Iterator[tuple[str, str]]:
        if not self._file.is_file():
            return
        for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found = json.loads(line)
                if found["where"] == self._where:
                    yield found["sha256"], found["job_id"]
            except (ValueError, KeyError, TypeError):
                continue

    def job_of(self, digest: str) -> str | None:
        return self._jobs.get(digest)

    def key(self, digest: str, renew: str | None) -> str:
        """The Idempotency-Key: a receipt that was lost by a kill is given again. `renew`: a job that is gone."""
        content = f"{self._where} {digest} {renew or ''}"
        return f"imgsvc-upload-{hashlib.sha256(content.encode()).hexdigest()}"

    def add(self, digest: str, job_id: str) -> None:
        line = json.dumps({"where": self._where, "sha256": digest, "job_id": job_id})
        with self._lock:
            self._jobs[digest] = job_id
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
                stream.flush()
                os.fsync(stream.fileno())


class Bars:
    """A bar for the whole and one for each file on its way; `progress` None: no bars."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._whole: TaskID | None = progress.add_task("all files", total=total) if progress else None

    @contextmanager
    def file(self, file: Path) -> Iterator[Any]:
        """A callback for the client."""
        if self._progress is None:
            yield None
            return
        progress, before = self._progress, 0
        bar = progress.add_task(file.name, total=file.stat().st_size)

        def sent(count: int, _total: int | None) -> None:
            nonlocal before
            progress.update(bar, completed=count)
            if self._whole is not None and count > before:  # an attempt that is repeated counts once
                progress.advance(self._whole, count - before)
                before = count

        try:
            yield sent
        finally:
            progress.remove_task(bar)

    def print(self, one: Uploaded, *, as_json: bool) -> None:
        if as_json:
            words = one.line()
        elif one.error:
            words = f"{one.file}: {one.error}"
        else:
            words = f"{one.file}: {one.urls.get('original') or next(iter(one.urls.values()), one.image_id)}"
        if self._progress is not None:
            self._progress.console.print(words, markup=False, highlight=False, soft_wrap=True)
        else:
            print(words, file=sys.stderr if one.error and not as_json else sys.stdout, flush=True)


@contextmanager
def _shown(files: Sequence[Path], *, quiet: bool) -> Iterator[Bars]:
    if quiet or not sys.stderr.isatty():
        yield Bars(None, 0)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress, sum(file.stat().st_size for file in files))
