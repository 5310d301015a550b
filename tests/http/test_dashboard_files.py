"""The files of the pages: nothing in them could turn words of a client into markup."""

import re
from importlib.resources import files

MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|\beval\b|new Function")
# It reads pages that the service itself has rendered, where words are escaped already; a parsed document runs nothing.
READS_PAGES = {"live.js": ["DOMParser"]}


def test_no_script_makes_markup_from_text() -> None:
    folders = [files(f"imgsvc.http.{name}").joinpath("static") for name in ("look", "dashboard")]
    shown = {file.name: file.read_text() for folder in folders for file in folder.iterdir()}
    found = {name: MARKUP.findall(text) for name, text in shown.items() if name.endswith(".js")}
    assert {name: words for name, words in found.items() if words} == READS_PAGES
    assert not [name for name in shown if name.endswith(".html")]  # pages are written by look/html.py alone
