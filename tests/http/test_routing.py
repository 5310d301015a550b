"""The router that looks a path up finds what Starlette's walk through the table finds."""

from itertools import product
from typing import Any

import pytest
from starlette.routing import Match

from imgsvc.http.wire.routing import IndexedRouter
from imgsvc.service.routes import ROUTES
from tests.conftest import Starter

ID = "3f0c8f6e-53c1-4a0e-9d6b-0d9c1f3c7a10"
SEGMENTS = (
    "",
    "api",
    "v1",
    "images",
    "jobs",
    ID,
    "upload",
    "batch",
    "all",
    "direct",
    "result",
    "storage",
    "x y",
    "{id}",
)
PATHS = [
    *(f"/api/v1/images/{'/'.join(rest)}" for rest in product(SEGMENTS, repeat=2)),
    *(f"/api/v1/images/{one}" for one in SEGMENTS),
    *(f"/{'/'.join(parts)}" for parts in product(("", "docs", "info", "storage", "metrics", "errors", "x"), repeat=2)),
    "/storage/a/b/processed/medium/x.webp",
    "/" + "/".join("abcdefghijklmnopqrstuvwxyz"),
    "/storage/" + "/".join("abcdefghijklmnopqrstuvwxyz"),
    "/api/v1/operator/permissions/a/b",
    "/api/v1/operator/jobs/1/retry",
    "*",
    "",
]


def by_walk(scope: dict[str, Any]) -> Any:
    for route in ROUTES:
        match, found = route.matches(scope)
        if match is Match.FULL:
            allowed = not route.methods or scope["method"] in route.methods
            return (route, found["path_params"]) if allowed else None
    return None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_same_route_and_values_as_by_a_walk(method: str) -> None:
    async def unused(*_: Any) -> None:
        raise AssertionError

    router = IndexedRouter(ROUTES, unused)
    for path in PATHS * 2:
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "root_path": ""}
        walked, route = by_walk(dict(scope)), router._found(scope)
        if walked is None:
            assert route is None, path
        else:
            assert (route, scope["path_params"]) == walked, path


async def test_wrong_methods_and_paths_are_answered_as_before(start: Starter) -> None:
    async with start() as s:
        wrong = await s.http.post("/api/v1/images/batch")
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        assert "GET" in wrong.headers["Allow"]
        unknown = await s.http.get("/api/v1/images/")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
