"""Handlers that are imported when they are needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from imgsvc.http.operator import sessions
from imgsvc.http.wire.later import imported, later
from imgsvc.service.routes import ROUTES

ROOT = Path(__file__).parents[2]
FIRST = """
import asyncio, sys
from pathlib import Path
from imgsvc.testing import serving, settings_in

async def main():
    async with serving(settings_in(Path(sys.argv[1]))) as (app, client):
        assert "imgsvc.http.dashboard.page" not in sys.modules
        answer = await client.get("/dashboard/login")
        assert answer.status_code == 200, answer.text
        assert "imgsvc.http.dashboard.page" in sys.modules

asyncio.run(main())
"""


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_each_route_has_its_handler(route) -> None:  # type: ignore[no-untyped-def]
    assert callable(imported(route.endpoint))


def test_handler_is_the_one_of_its_module() -> None:
    assert imported(later("operator.sessions.login")) is sessions.login
    assert imported(sessions.login) is sessions.login
    with pytest.raises(AttributeError, match="nothing"):
        imported(later("operator.sessions.nothing"))


def test_first_request_imports_it(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FIRST, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
