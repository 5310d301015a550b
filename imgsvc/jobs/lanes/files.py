"""The files of a task, opened by the service: a worker gets descriptors and no path."""

import errno
import json
import os
import stat
from collections.abc import Callable
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import anyio
import structlog

from ...imaging.recipe import SOURCE, Recipe, scratch_file
from ...lazy_dataclass import dataclass
from ...storage.thread_visit import in_thread
from .caged_types import CAGED
from .messages import Task

log = structlog.get_logger()
P = ParamSpec("P")
T = TypeVar("T")
FILES_AGAIN_SECONDS = 1.0  # pause while this process has no open files left
SOURCE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # of a FIFO nothing is read
OUTPUT_FLAGS = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class SourceGone(FileNotFoundError):
    """The staged file is missing."""


@dataclass(slots=True)
class TaskFiles:
    """Descriptors of a task: of its source, for reading, and of each variant by its name, for writing.

    For a worker also one of the task's text, which comes first.
    """

    source: int
    outputs: dict[str, int] = field(default_factory=dict)
    text: int | None = None

    @property
    def descriptors(self) -> list[int]:
        text = () if self.text is None else (self.text,)
        return [*text, self.source, *self.outputs.values()]

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


def open_files(task: Task) -> TaskFiles:
    """Make the folder of a task, open the source, and an empty file for each variant that the task may make.

    A file that stays empty is not a variant. Raises SourceGone, or OSError for anything else that can't be opened.
    """
    try:
        files = TaskFiles(os.open(task.source, SOURCE_FLAGS))
    except FileNotFoundError as error:
        raise SourceGone(*error.args) from None
    try:
        if not stat.S_ISREG(os.fstat(files.source).st_mode):
            raise OSError(errno.EINVAL, "the staged source is not a regular file")
        make_folder(task)
        for name in output_names(task):
            # With the mode of any file: it may become the stored one. The folder is closed.
            files.outputs[name] = os.open(scratch_file(Path(task.folder), name), OUTPUT_FLAGS, 0o666)
    except BaseException:
        files.close()
        raise
    return files


def make_folder(task: Task) -> None:
    """Make the folder that the files of a task are written to. Raises OSError."""
    Path(task.folder).mkdir(mode=0o700, parents=True, exist_ok=True)


def open_for_worker(task: Task) -> TaskFiles:
    """Open the files of a task, and write its text into one in memory. Raises as `open_files`."""
    files = open_files(task)
    try:
        files.text = os.memfd_create("task")
        os.write(files.text, json.dumps(_fields(task, files)).encode())
        os.lseek(files.text, 0, os.SEEK_SET)
    except BaseException:
        files.close()
        raise
    return files


def _fields(task: Task, files: TaskFiles) -> dict[str, Any]:
    """The fields for the worker, without what it does not need: a picture that takes it over could read them."""
    fields = asdict(task) | {"outputs": list(files.outputs)}
    for name in ("source", "folder", "job_id", "run", "trace_id"):
        del fields[name]
    return fields


async def with_free_files(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread, again and again while this process or system has no open files left."""
    while True:
        try:
            return await in_thread(function, *args, **kwargs)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            log.error("run_waits_for_files", reason=error.strerror, again_in_seconds=FILES_AGAIN_SECONDS)
        await anyio.sleep(FILES_AGAIN_SECONDS)


def needs_optional_codecs(task: Task) -> bool:
    """Whether HEIC or AVIF is decoded or encoded for the task."""
    names = output_names(task)
    made = (one for one in Recipe.from_json(task.recipe).variants if one.name in names)
    return task.mime in CAGED or any(variant.format == "avif" for variant in made)


def output_names(task: Task) -> list[str]:
    """The names of the variants that the task may make, and SOURCE if it is to clean its source."""
    recipe = Recipe.from_json(task.recipe)
    if task.kind == "preview":
        return [recipe.preview.name]
    kept = [SOURCE] if recipe.keep_source == "stripped" else []
    return [name for name in (*(variant.name for variant in recipe.variants), *kept) if name not in task.done]
