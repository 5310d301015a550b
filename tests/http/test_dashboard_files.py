"""The files of the dashboard's page: nothing in them could turn words of a client into markup."""

import re
from importlib.resources import files

MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|\beval\b|new Function")


def test_no_script_makes_markup_from_text_and_no_page_holds_scripts_or_styles() -> None:
    static = files("imgsvc.http.dashboard").joinpath("static")
    shown = {file.name: file.read_text() for file in static.iterdir()}
    assert [name for name, text in shown.items() if name.endswith(".js") and MARKUP.search(text)] == []
    pages = {name: text for name, text in shown.items() if name.endswith(".html")}
    assert set(pages) == {"dashboard.html"}
    inline = re.compile(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://")
    assert [name for name, text in pages.items() if inline.search(text)] == []
