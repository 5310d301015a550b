"""The page of pictures as the server sends it: the first pictures, filters, and pages without a script."""

import re
from html import unescape
from typing import Any

from fixtures import make
from imgsvc.http.dashboard import images
from tests.conftest import Service, Starter
from tests.support.private_service import PRIVATE

PAGE = "/dashboard/images"
AS_PERSON = {"Accept": "text/html"}
HOSTILE = "<img src=x onerror=alert(1)>'.jpg"


async def shown(s: Service, /, **query: str) -> str:
    response = await s.http.get(PAGE, params=query, headers={**s.operator, **AS_PERSON})
    assert response.status_code == 200, response.text
    return response.text


def sources(text: str) -> list[str]:
    """The addresses of the pictures, as the browser takes them."""
    return [
        unescape(one).removeprefix("..") for one in re.findall(r'<li><a href="[^"]+"><svg .*?<img src="([^"]+)"', text)
    ]


def names(text: str) -> list[str]:
    return [unescape(one) for one in re.findall(r'<img src="[^"]+" alt="([^"]*)"', text)][1:]  # the first is the mark


async def upload(s: Service, name: str, seed: int = 0, bucket: str = "photos", user: str = "alice") -> None:
    files = {"file": (name, make.jpeg(400, 300, seed=seed), "image/jpeg")}
    sent = await s.http.post("/api/v1/images/upload", data={"bucket": bucket}, files=files, headers=s.bearer(user))
    assert (await s.ended(sent))["status"] == "completed"


async def test_first_pictures_need_no_script(start: Starter) -> None:
    async with start() as s:
        await upload(s, "a.jpg")
        await upload(s, HOSTILE, seed=1)
        text = await shown(s)
        assert names(text) == [HOSTILE, "a.jpg"]
        assert HOSTILE not in text and text.count('width="400" height="300"') == 4
        assert re.search(r'<rect width="100%" height="100%" fill="#[0-9a-f]{6}"></rect>', text)
        for source in sources(text):
            assert (await s.http.get(source)).headers["Content-Type"] == "image/webp"
            assert source.endswith("size=medium")  # the smallest that is sharp


async def test_pages_lead_on_without_a_script(start: Starter, monkeypatch: Any) -> None:
    monkeypatch.setattr(images, "FIRST_PAGE", 2)
    async with start() as s:
        for number in range(3):
            await upload(s, f"{number}.jpg", seed=number)
        first = await shown(s, bucket="photos")
        assert names(first) == ["2.jpg", "1.jpg"]
        following = re.search(r'<a href="([^"]+)" class="button" rel="next">', first)
        assert following and "bucket=photos&amp;after=" in following[1]
        second = await s.http.get(unescape(following[1]).removeprefix(".."), headers={**s.operator, **AS_PERSON})
        assert names(second.text) == ["0.jpg"] and "To the first page" in second.text
        cursor = {"bucket": "photos", "after": unescape(following[1]).rpartition("=")[2]}
        listed = await s.http.get("/api/v1/operator/images", params=cursor, headers=s.operator)
        assert [one["original_filename"] for one in listed.json()["images"]] == ["0.jpg"]  # the script goes on with it


async def test_filters_are_in_the_address_and_in_the_fields(start: Starter) -> None:
    async with start() as s:
        await upload(s, "Beach.jpg", user="alice")
        await upload(s, "town.jpg", seed=1, user="bob", bucket="other")
        for query, expected in (
            ({}, ["town.jpg", "Beach.jpg"]),
            ({"bucket": "other"}, ["town.jpg"]),
            ({"user": "alice", "bucket": "", "status": ""}, ["Beach.jpg"]),  # as a form sends them
            ({"org": "elsewhere"}, []),
            ({"status": "completed", "q": "bea"}, ["Beach.jpg"]),
            ({"status": "failed"}, []),
            ({"from": "2020-01-01", "until": "2999-12-31"}, ["town.jpg", "Beach.jpg"]),
            ({"until": "2020-01-01"}, []),
        ):
            text = await shown(s, **query)
            assert names(text) == expected, query
            for name, value in query.items():
                assert name == "status" or f'name="{name}" value="{value}"' in text, name
        assert "No picture matches." in await shown(s, status="failed")


async def test_wrong_filters_are_named(start: Starter) -> None:
    async with start() as s:
        await upload(s, "a.jpg")
        for query, words in (
            ({"status": "<lost>"}, "status: "),
            ({"from": "x"}, "A day is written like"),
            ({"until": "9999-12-31"}, "A day is written like"),
            ({"after": "x"}, "after: must be `next` of a page"),
        ):
            text = await shown(s, **query)
            assert names(text) == [] and words in text and "<lost>" not in text, query


async def test_pictures_are_never_public(start: Starter) -> None:
    async with start(operator={"public": True}) as s:
        assert (await s.http.get("/dashboard", headers=AS_PERSON)).status_code == 200
        refused = await s.http.get(PAGE, headers=AS_PERSON)
        assert refused.status_code == 401 and "Operator token" in refused.text


async def test_addresses_are_signed_where_reading_is_private(start: Starter) -> None:
    async with start(storage=PRIVATE, service={"public_url": "https://photos.example/app"}) as s:
        await upload(s, "a.jpg")
        (source,) = sources(await shown(s))
        assert "signature=" in source and source.startswith("/api/")  # of the page's own origin
        assert (await s.http.get(source)).status_code == 200
        assert (await s.http.get(source.partition("&")[0])).status_code == 403
