"""Checks of the documentation: dead links, pages that are too long, names that are gone.

Each check takes a page and yields lines for a person.
"""

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote

import yaml
from PIL import Image

from docs import mentions
from docs.pages import ROOT, Page, pages

MAX_BYTES = {"README.md": 8192, "CONTRIBUTING.md": 6144, "SECURITY.md": 6144}  # two printed pages are about 6 KB
IMAGES = ROOT / "docs" / "images"
MAX_SCREENSHOT_BYTES = 150_000
OF_ALL_PAGES = ("look/static/theme.css", "look/static/icon.svg")
SCREENSHOTS = {  # {name: what the page alone is made of}
    "dashboard.png": (
        "dashboard/overview.py",
        "dashboard/overview_cards.py",
        "dashboard/charts.py",
        "dashboard/static/overview.css",
    ),
    "pictures.png": (
        "dashboard/images.py",
        "dashboard/static/grid.js",
        "dashboard/static/justified.js",
        "dashboard/static/pictures.css",
    ),
}


def problems() -> list[str]:
    """All faults of all pages."""
    found = [*navigation(), *screenshot()]
    for page in pages():
        found += [f"{page.path}: {problem}" for problem in of_page(page)]
    return found


def of_page(page: Page) -> list[str]:
    """The faults of one page. A changelog may name what is gone, so only its links are checked."""
    checks = (links,) if page.path.name == "CHANGELOG.md" else PAGE_CHECKS
    return [problem for check in checks for problem in check(page)]


def links(page: Page) -> Iterator[str]:
    """Relative links lead to files of the repository, and anchors to headings."""
    try:
        own = page.anchors if page.path.name != "CHANGELOG.md" else set()  # "[0.2.0] - 2026-11-26" is not linked to
    except ValueError as error:
        yield str(error)
        return
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page.path).parent / unquote(path) if path else ROOT / page.path
        if not file.is_file():
            yield f"the link {target} leads nowhere"
        elif page.path.parts[0] == "docs" and ROOT / "docs" not in file.resolve().parents:
            yield f"the link {target} leads out of docs/, where the site can't follow"
        elif anchor:
            there = own if not path else Page(file, file.read_text()).anchors
            if anchor not in there:
                yield f"{target}: no such heading"


def sizes(page: Page) -> Iterator[str]:
    limit = MAX_BYTES.get(page.path.name, 0) if len(page.path.parts) == 1 else 0
    size = len(page.text.encode())
    if limit and size > limit:
        yield f"has {size} bytes; at most {limit} are allowed"


def places(page: Page) -> Iterator[str]:
    """Each row of "Where would I add …?" names a file, and something in it."""
    table = re.search(r"^## Where would I add.*?(?=^## )", page.text, re.MULTILINE | re.DOTALL)
    for path, symbol in re.findall(r"^\|[^|]*\| `([^`]+)` \| `([^`]+)` \|", table[0] if table else "", re.MULTILINE):
        file = ROOT / path
        if not file.is_file():
            yield f"{path}: there is no such file"
        elif not re.search(rf"^(class |(async )?def |-- name: )?{re.escape(symbol)}\b", file.read_text(), re.MULTILINE):
            yield f"{path}: defines no {symbol}"


def paths(page: Page) -> Iterator[str]:
    """Files and folders of the repository that inline code names are there."""
    for span in page.spans:
        if re.fullmatch(r"(imgsvc|docs|tests|fixtures)/[\w./-]+", span) and not (ROOT / span).exists():
            yield f"{span}: there is no such file or folder"


def rooms(page: Page) -> Iterator[str]:
    """The page about the architecture names every folder of the package."""
    if page.path.name == "architecture.md":
        for folder in sorted(file.parent.name for file in (ROOT / "imgsvc").glob("*/__init__.py")):
            if f"imgsvc/{folder}" not in page.spans:
                yield f"imgsvc/{folder} is not explained"


def navigation() -> Iterator[str]:
    """mkdocs.yml lists every page of docs/, and no other."""
    listed = set(_pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    there = {str(page.path.relative_to("docs")) for page in pages() if page.path.parts[0] == "docs"}
    for name in sorted(listed ^ there):
        yield f"mkdocs.yml: {name} is {'not there' if name in listed else 'not in its nav'}"


def _pages_in(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for inner in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _pages_in(inner)


def screenshot() -> Iterator[str]:
    """The screenshots are small, and were taken of the pages as they are now."""
    for name in SCREENSHOTS:
        if (IMAGES / name).stat().st_size > MAX_SCREENSHOT_BYTES:
            yield f"{name}: is larger than {MAX_SCREENSHOT_BYTES} bytes"
        with Image.open(IMAGES / name) as image:
            taken_of = image.info.get("sources")
        if taken_of != page_digest(name):
            yield f"{name}: the dashboard's page has changed since: run ./run docs screenshots"


def page_digest(name: str) -> str:
    """A digest of what the page of a screenshot alone is made of, and of the colours and sizes of all pages."""
    http = Path(str(files("imgsvc.http")))
    found = [http / source for source in (*SCREENSHOTS[name], *OF_ALL_PAGES)]
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in found)).hexdigest()[:16]


PAGE_CHECKS = (
    links,
    sizes,
    places,
    paths,
    rooms,
    mentions.commands,
    mentions.addresses,
    mentions.settings,
    mentions.codes,
    mentions.metrics,
)
