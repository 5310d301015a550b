"""The application of the guide "Uploading from a browser": its backend and page, on an origin of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page
from starlette.applications import Starlette

from tests.conftest import Service, service
from tests.support.browser import Visit, browsing
from tests.support.listening import listening
from tests.support.papers import TOUR_HOST, runs

GUIDE = "docs/guides/browser.md"


@dataclass(frozen=True)
class Form:
    """The running service at `url`, and the page of another origin in a browser."""

    s: Service
    url: str
    visit: Visit

    @property
    def page(self) -> Page:
        return self.visit.page


@asynccontextmanager
async def upload_form(folder: Path, patch: pytest.MonkeyPatch, **sections: dict[str, Any]) -> AsyncIterator[Form]:
    """The guide's form, opened."""
    backend, page = runs(GUIDE, "form")
    outer = Starlette()
    async with listening(outer) as origin:
        server = {"cors_origins": [origin]}
        async with service(folder / "service", server=server, **sections) as s, listening(s.app) as url:
            patch.chdir(folder)
            patch.setenv("IMAGES_URL", url)
            patch.setenv("IMAGES_TOKEN", s.tokens.issue("alice"))
            (folder / "upload.html").write_text(page.replace(TOUR_HOST, url))
            own: dict[str, Any] = {}
            exec(backend, own)
            outer.router.routes.extend(own["app"].routes)
            async with browsing(origin) as visit:
                await visit.page.goto(origin)
                yield Form(s, url, visit)
