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
# For each text axe parses the background of all that lies below it: on the overview 39,000 times the same twelve.
REMEMBER_COLOURS = """() => {
    const { Color } = axe.commons.color;
    const parse = Color.prototype.parseString, known = new Map();
    Color.prototype.parseString = function (text) {
        const found = known.get(text);
        if (found) return Object.assign(this, found);
        parse.call(this, text);
        known.set(text, { r: this.r, g: this.g, b: this.b, alpha: this.alpha });
        return this;
    };
}"""
RUN = """async ([part, options]) =>
    (await axe.run({ include: [part], exclude: ['.swagger-ui'] }, options)).violations"""


async def assert_accessible(page: Page, state: str, part: str = "html") -> None:
    """`state` names what the page shows, for the report; `part` is a selector of what is looked at."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(Axe().axe_script)
        await page.evaluate(REMEMBER_COLOURS)
    for scheme, options in OPTIONS.items():
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        violations = await page.evaluate(RUN, [part, options])
        assert violations == [], f"{state}, {scheme}: {AxeResults({'violations': violations}).generate_report()}"
