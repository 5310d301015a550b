"""Performs one task, in any process. Every fault of a picture becomes an answer."""

import hashlib
import time
import traceback
from dataclasses import asdict, replace
from typing import Any, BinaryIO

from ...imaging import pipeline
from ...imaging.error_messages import GENERAL
from ...imaging.errors import ImageError, OutOfMemory, Unforeseen
from ...imaging.limits import MEGABYTE
from ...imaging.pipeline import CleanSource, Outputs
from ...imaging.recipe import SOURCE, Recipe
from ...imaging.strip import NotStripped, stripped

MAX_LOG = 4_000  # characters of what is logged for a person
PART = 1 << 16  # bytes read at once
EMPTY: dict[str, Any] = {"rendering": None, "error": None, "log": None}  # of an answer


class SourceDamaged(ImageError):
    """The staged bytes no longer match the accepted digest (disk corruption or a swapped file)."""

    code = "source_damaged"


def perform(task: dict[str, Any], source: BinaryIO, outputs: Outputs) -> dict[str, Any]:
    """`task` has the fields of messages.Task, the result those of messages.Answer. Raises only MemoryError."""
    began = time.monotonic()
    answer: dict[str, Any]
    try:
        rendering = _render(task, source, outputs, began)
        answer = {"outcome": "rendered" if rendering else "no_preview", "rendering": rendering}
    except MemoryError:
        raise
    except ImageError as error:
        answer = failed(error.code, str(error))
        if isinstance(error, Unforeseen):  # final for the picture, and logged: it may be a bug of ours
            answer["log"] = "".join(traceback.format_exception(error, limit=-6))[-MAX_LOG:]
    except OSError as error:
        answer = failed("io_error", log=str(error.strerror or type(error).__name__))
    except Exception:
        answer = failed("internal_error", log=traceback.format_exc(limit=-6)[-MAX_LOG:])
    return EMPTY | {"task": task["id"], "seconds": time.monotonic() - began} | answer


def failed(code: str, message: str | None = None, *, log: str | None = None) -> dict[str, Any]:
    """The fields of an answer for a failed task; without a message the general one of the code."""
    error = {"code": code, "message": GENERAL[code] if message is None else message}
    return {"outcome": "failed", "error": error, "log": log}


def out_of_memory(task: dict[str, Any]) -> dict[str, Any]:
    """The answer for a task that reached its memory ceiling."""
    limit = task["memory_ceiling"] // MEGABYTE
    error = OutOfMemory(f"Decoding needed more than the {limit} MB that this image may use.")
    return EMPTY | {"task": task["id"], "seconds": 0.0} | failed(error.code, str(error))


def _render(task: dict[str, Any], source: BinaryIO, outputs: Outputs, began: float) -> dict[str, Any] | None:
    if _digest(source) != task["sha256"]:
        raise SourceDamaged(GENERAL[SourceDamaged.code])
    recipe, deadline = Recipe.from_json(task["recipe"]), began + task["time_limit"]
    make = pipeline.preview if task["kind"] == "preview" else pipeline.render
    found = make(source, task["mime"], recipe, outputs, deadline=deadline)
    if found and SOURCE in outputs:
        found = replace(found, source=_stripped(source, task["mime"], outputs[SOURCE]))
    return asdict(found) if found else None


def _digest(source: BinaryIO) -> str:
    """The SHA-256 in hex, by parts a quarter of file_digest's: their memory is new to each picture's process."""
    digest, part = hashlib.sha256(), bytearray(PART)
    view = memoryview(part)
    while count := source.readinto(part):  # type: ignore[attr-defined]
        digest.update(view[:count])
    return digest.hexdigest()


def _stripped(source: BinaryIO, mime: str, target: BinaryIO) -> CleanSource | None:
    """Write the source without metadata. None: it is too damaged for that, and is not kept."""
    digest, size = hashlib.sha256(), 0
    try:
        for data in stripped(source, mime):
            target.write(data)
            digest.update(data)
            size += len(data)
    except NotStripped:
        return None
    return CleanSource(size, digest.hexdigest())
