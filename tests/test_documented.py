"""README names every address and leads to every error; the settings are those of test_config_file."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from imgsvc.app import ROUTES
from imgsvc.http.codes import CODES

README = (Path(__file__).parent.parent / "README.md").read_text()


def addresses() -> list[str]:
    """METHOD and path of every route, as README writes them."""
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
    written = re.escape(path).replace(r"\{path\}", r"(\{bucket\}/)?\{path\}")
    assert re.search(rf"`[A-Z, ]*\b{method}\b[A-Z, ]* {written}[`?]", README), f"README lacks {address}"


def test_readme_leads_to_the_page_of_every_error() -> None:
    assert re.search(r"`(GET )?/errors/\{code\}`", README)


@pytest.mark.parametrize("code", CODES)
def test_error_is_explained(code: str) -> None:
    known = CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert 400 <= known.status < 600
    for words in (known.meaning, known.advice):
        assert words.endswith(".") and len(words) > 15
