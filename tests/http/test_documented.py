"""The reference names every address and explains every error; the settings are those of test_config_file."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from imgsvc.http.wire.error_codes import CODES
from imgsvc.service.routes import ROUTES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
ENDPOINTS = (REFERENCE / "endpoints.md").read_text()


def addresses() -> list[str]:
    """METHOD and path of every route, as the reference writes them."""
    found = []
    for route in ROUTES:
        assert isinstance(route, Route) and route.methods
        path = route.path.replace("{path:path}", "{path}")
        if len(path) > 1 and path.endswith("/"):
            continue  # the same with a slash
        if path == "/dashboard/static/{name}":
            continue  # a part of the page
        found += [f"{method} {path}" for method in sorted(route.methods - {"HEAD"})]
    return found


@pytest.mark.parametrize("address", addresses())
def test_route(address: str) -> None:
    method, path = address.split()
    assert f"`{method} {path}`" in ENDPOINTS, f"docs/reference/endpoints.md lacks {address}"


def test_reference_leads_to_the_page_of_every_error() -> None:
    assert "`/errors/{code}`" in (REFERENCE / "errors.md").read_text()


@pytest.mark.parametrize("code", CODES)
def test_error_is_explained(code: str) -> None:
    known = CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert 400 <= known.status < 600
    for words in (known.meaning, known.advice):
        assert words.endswith(".") and len(words) > 15
