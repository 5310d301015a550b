"""Performs one task, in any process. Every fault of a picture becomes an answer."""

import hashlib
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...imaging import pipeline
from ...imaging.error_messages import GENERAL
from ...imaging.errors import ImageError, Unforeseen
from ...imaging.recipe import Recipe

MAX_LOG = 4_000  # characters of what is logged for a person
EMPTY: dict[str, Any] = {"rendering": None, "error": None, "retire": False, "log": None}  # of an answer


class SourceDamaged(ImageError):
    """The staged bytes no longer match the accepted digest (disk corruption or a swapped file)."""

    code = "source_damaged"


class SourceMissing(ImageError):
    """The staged file is missing. The service checks this itself before it believes it."""

    code = "source_missing"


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """`task` has the fields of messages.Task, the result those of messages.Answer. Raises only MemoryError."""
    began = time.monotonic()
    answer: dict[str, Any]
    try:
        rendering = _render(task, began)
        answer = {"outcome": "rendered" if rendering else "no_preview", "rendering": rendering}
    except MemoryError:
        raise
    except ImageError as error:
        answer = failed(error.code, str(error))
        if isinstance(error, Unforeseen):  # final for the picture, and logged: it may be a bug of ours
            answer["log"] = "".join(traceback.format_exception(error, limit=-6))[-MAX_LOG:]
    except OSError as error:
        answer = failed("io_error", retire=True, log=str(error.strerror or type(error).__name__))
    except Exception:
        answer = failed("internal_error", retire=True, log=traceback.format_exc(limit=-6)[-MAX_LOG:])
    return EMPTY | {"task": task["id"], "seconds": time.monotonic() - began} | answer


def failed(code: str, message: str | None = None, *, retire: bool = False, log: str | None = None) -> dict[str, Any]:
    """The fields of an answer for a failed task; without a message the general one of the code."""
    error = {"code": code, "message": GENERAL[code] if message is None else message}
    return {"outcome": "failed", "error": error, "retire": retire, "log": log}


def _render(task: dict[str, Any], began: float) -> dict[str, Any] | None:
    recipe = Recipe.from_json(task["recipe"])
    source, folder = Path(task["source"]), Path(task["folder"])
    deadline = began + task["time_limit"]
    try:
        stream = source.open("rb")
    except FileNotFoundError:
        raise SourceMissing(GENERAL[SourceMissing.code]) from None
    with stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != task["sha256"]:
            raise SourceDamaged(GENERAL[SourceDamaged.code])
    if task["kind"] == "preview":
        found = pipeline.preview(source, task["mime"], recipe, folder, deadline=deadline)
    else:
        found = pipeline.render(source, task["mime"], recipe, folder, done=task["done"], deadline=deadline)
    return asdict(found) if found else None
