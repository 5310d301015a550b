"""The pages that need no browser to be tested: how they are written, and that words stay words."""

import pytest

from imgsvc.http.look.components import duration, pager, size
from imgsvc.http.look.html import el, foreign, join
from tests.conftest import Starter


def test_text_is_escaped_and_markup_is_not_escaped_twice() -> None:
    hostile = "<b onclick='x'>\"&"
    written = el("p", el("b", hostile), [hostile, None, 7], title=hostile, hidden=True, lang=None)
    escaped = "&lt;b onclick=&#x27;x&#x27;&gt;&quot;&amp;"
    assert written == f'<p title="{escaped}" hidden><b>{escaped}</b>{escaped}7</p>'
    assert join("<", foreign("<")) == '&lt;<bdi dir="auto">&lt;</bdi>'
    assert el("img", data_key="a", class_="b", alt="") == '<img data-key="a" class="b" alt="">'


@pytest.mark.parametrize(
    "address", ["javascript:x", " JavaScript:x", "data:text/html,x", "vbscript:x", "\tjavascript:x"]
)
def test_address_runs_no_script(address: str) -> None:
    for name in ("href", "src", "action"):
        with pytest.raises(ValueError, match="scheme"):
            el("a", **{name: address})
    assert el("a", href="../x?y=a:b", title=address)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.84, "0.8 s"), (45.4, "45 s"), (185, "3 min 5 s"), (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_sizes() -> None:
    assert [size(1), size(3_500_000), size(1_342_177_280)] == ["1 kB", "3.3 MB", "1.25 GB"]


def test_pager_leads_on_and_back() -> None:
    assert pager("jobs", {}, None, first=True) is None
    written = str(pager("jobs", {"q": "ä&b"}, "c=", first=False))
    assert '<a href="jobs?q=%C3%A4%26b" class="button">To the first page</a>' in written
    assert '<a href="jobs?q=%C3%A4%26b&amp;after=c%3D" class="button" rel="next">Next page</a>' in written


async def test_all_codes_are_listed_and_each_page_leads_back(start: Starter) -> None:
    async with start() as s:
        listed = await s.http.get("/errors")
        assert listed.status_code == 200 and listed.headers["Content-Type"].startswith("text/html")
        for code in ("not_found", "rate_limited", "storage_full"):
            assert f'href="./errors/{code}"' in listed.text
        one = await s.http.get("/errors/rate_limited")
        assert 'href="../errors"' in one.text and "1000000 uploads in 60 minutes" in one.text
