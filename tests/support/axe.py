"""axe on a page of ours, light and dark."""

from typing import Any

from axe_playwright_python.async_playwright import Axe
from axe_playwright_python.base import AxeResults
from playwright.async_api import Page

# Only colours differ between the schemes.
OPTIONS: dict[str, dict[str, Any]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}


async def assert_accessible(page: Page, state: str) -> None:
    """The page must have been opened with `bypass_csp`. `state` names what it shows, for the report."""
    for scheme, options in OPTIONS.items():
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        if not await page.evaluate("'axe' in window"):
            await page.evaluate(Axe().axe_script)
        found = AxeResults(await page.evaluate("options => axe.run(options)", options))
        assert found.response["violations"] == [], f"{state}, {scheme}: {found.generate_report()}"
