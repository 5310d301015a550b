"""`imgsvc images render` and `imgsvc images drop-sources`, through the operator's API of the running service."""

import json
import time
from collections.abc import Sequence
from typing import Any

from .errors import CommandFailed
from .images import IMAGES
from .polling import Show, pauses
from .service_client import Running

TASK = f"{IMAGES}/task"


def render(service: Running, sizes: Sequence[str], bucket: str | None, show: Show, *, missing: bool) -> dict[str, Any]:
    """Order it and wait for its end; returns the task. Ctrl-C leaves it running. Raises CommandFailed."""
    order = {"variants": list(sizes) or None, "bucket": bucket, "missing_only": missing}
    begun = service.call("POST", f"{IMAGES}/render", json=order)
    return follow(service, begun["task_id"], show)


def follow(service: Running, task_id: str, show: Show) -> dict[str, Any]:
    """Wait for the end of a task. Raises CommandFailed: it is another's turn."""
    waits = pauses()
    while (task := service.call("GET", TASK))["state"] == "running":
        if task["task_id"] != task_id:
            raise CommandFailed("another task has been ordered in the meantime")
        phase = "waits for the backup" if task["held"] else f"{task['rendered']} images rendered"
        show({"phase": phase, "done": task["done"], "total": task["total"]})
        time.sleep(next(waits))
    return task


def summary(task: dict[str, Any]) -> str:
    """The lines for people: the figures, and each finding."""
    lines = [
        f"{task['state']}: {task['examined']} images looked at, {task['rendered']} rendered, "
        f"{task['from_variant']} of them from their largest variant, {task['failed']} failed"
    ]
    for one in task["findings"]:
        words = "made from the variant" if one["kind"] == "from_variant" else "failed:"
        lines.append(f"{one['image_id']}: {words} {one['reason']}")
    return "\n".join(lines)


def drop_sources(service: Running, show: Show) -> dict[str, int]:
    """Drop all kept sources, page by page; returns the images and the bytes. Raises CommandFailed."""
    images = size = 0
    while (dropped := service.call("POST", f"{IMAGES}/drop-sources", json={}))["images"]:
        images, size = images + dropped["images"], size + dropped["bytes"]
        show({"phase": "images", "done": images, "total": 0})
    return {"images": images, "bytes": size}


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=2)
