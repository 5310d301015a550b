"""One task done, wherever it is done: everything a picture can do wrong becomes an answer."""

import hashlib
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..imaging import pipeline
from ..imaging.errors import ImageError, Unforeseen
from ..imaging.recipe import Recipe


class SourceDamaged(ImageError):
    """What is staged is not what was accepted: rendering it would publish somebody else's picture."""

    code = "source_damaged"


def perform(task: dict[str, Any]) -> dict[str, Any]:
    """`task` holds the fields of workers.Task, the answer those of workers.Answer. Raises only MemoryError."""
    began = time.monotonic()
    answer: dict[str, Any]
    try:
        answer = {"rendering": _render(task, began)}
    except MemoryError:
        raise
    except ImageError as error:
        answer = {"error": {"code": error.code, "message": str(error)}}
        if isinstance(error, Unforeseen):  # final for the picture, and for us to look at
            answer["log"] = "".join(traceback.format_exception(error, limit=-6))
    except FileNotFoundError:
        answer = {"error": {"code": "source_missing", "message": "The uploaded bytes are no longer there."}}
    except OSError as error:
        answer = {"error": {"code": "io_error", "message": "A file could not be read or written."}, "retire": True}
        answer["log"] = str(error.strerror or type(error).__name__)
    except Exception:
        answer = {"error": {"code": "internal_error", "message": "Processing failed unexpectedly."}, "retire": True}
        answer["log"] = traceback.format_exc(limit=-6)
    answer["seconds"] = time.monotonic() - began
    return answer


def _render(task: dict[str, Any], began: float) -> dict[str, Any] | None:
    recipe = Recipe.from_json(task["recipe"])
    source, folder = Path(task["source"]), Path(task["folder"])
    deadline = began + task["time_limit"]
    with source.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != task["sha256"]:
            raise SourceDamaged("The uploaded bytes were changed or lost on this disk.")
    if task["kind"] == "preview":
        found = pipeline.preview(source, task["mime"], recipe, folder, deadline=deadline)
    else:
        found = pipeline.render(source, task["mime"], recipe, folder, done=task["done"], deadline=deadline)
    return asdict(found) if found else None
