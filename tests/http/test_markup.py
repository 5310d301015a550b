"""The ready markup of an image: parsed as a browser does it, whatever the client's metadata says."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest

from fixtures import make
from imgsvc.http.wire.markup import markup
from tests.conftest import Service, Starter

SIZES = {
    "thumbnail": 60,
    "medium": 200,
    "hero": {"width": 300, "height": 100, "fit": "cover"},
    "print": {"width": 400, "format": "jpeg"},
    "large": 500,
    "original": 4096,
}
ALT = "Meer \"&quot; <script>alert(1)</script> ' >"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def everything(s: Service, image_id: str) -> dict[str, Any]:
    return dict((await s.http.get(f"/api/v1/images/{image_id}/all", headers=s.bearer())).json())


@pytest.mark.parametrize("private", [False, True])
async def test_markup_of_an_image(start: Starter, private: bool) -> None:
    settings = {"images": {"sizes": SIZES}, "storage": {"signed_urls": private}}
    async with start(**settings, service={"public_url": "http://localhost/a&b"}) as s:
        image_id = (await s.completed(make.jpeg(640, 480), metadata=json.dumps({"alt": ALT})))["image_id"]
        body = await everything(s, image_id)
        found = body["markup"]
        whole = Tags(found["img"])
        ((tag, attributes),) = whole.found
        assert tag == "img" and whole.texts == []
        assert {name: attributes[name] for name in ("width", "height", "alt", "sizes", "srcset")} == {
            "width": "640",
            "height": "480",
            "alt": ALT,
            "sizes": "auto, (max-width: 640px) 100vw, 640px",
            "srcset": found["srcset"],
        }
        assert attributes["sizes"] == found["sizes"]
        assert f"background:{body['metadata']['dominant_color']}" in str(attributes["style"])
        assert attributes["data-thumbhash"] == body["metadata"]["thumbhash"]
        offered = dict(reversed(one.split(" ")) for one in found["srcset"].split(", "))
        assert list(offered) == ["60w", "200w", "500w", "640w"]
        assert attributes["src"] == offered["200w"] == body["urls"]["medium"]
        for url in offered.values():
            assert ("signature=" in url) == private
            assert (await s.http.get(url.removeprefix("http://localhost/a&b"))).status_code == 200
        assert [tag for tag, _ in Tags(found["picture"]).found] == ["picture", "img"]
        assert found["img"] in found["picture"]


async def test_a_small_picture_is_offered_once_in_each_width(start: Starter) -> None:
    async with start() as s:
        body = await everything(s, (await s.completed(make.tiny()))["image_id"])
        assert body["markup"]["srcset"] == f"{body['urls']['medium']} 80w"
        assert Tags(body["markup"]["img"]).found[0][1]["alt"] == ""


@pytest.mark.parametrize(
    ("sizes", "name"),
    [
        ({"hero": SIZES["hero"], "square": {"width": 50, "height": 50, "fit": "cover"}}, "hero"),
        ({"hero": SIZES["hero"], "print": SIZES["print"]}, "print"),
    ],
)
async def test_without_a_whole_webp_there_is_one_variant(start: Starter, sizes: dict[str, Any], name: str) -> None:
    async with start(images={"sizes": sizes}) as s:
        body = await everything(s, (await s.completed(make.jpeg(640, 480)))["image_id"])
        assert body["markup"]["srcset"].partition(" ")[0] == body["urls"][name]


async def test_further_formats_come_before_the_usual_one(start: Starter) -> None:
    async with start(images={"sizes": SIZES}) as s:
        image_id = (await s.completed(make.jpeg(640, 480)))["image_id"]
        job = await s.state.jobs.table.job_of_image(image_id)
        assert job is not None
        urls = {name: f"/a,b c/{name}.webp" for name in job.ready}
        avif = {name: f"/{name}.avif" for name in ("medium", "hero")}
        found = Tags(markup(job, urls, {"avif": avif})["picture"]).found
        assert [tag for tag, _ in found] == ["picture", "source", "img"]
        assert found[1][1]["type"] == "image/avif" and found[1][1]["srcset"] == "/medium.avif 200w"
        assert str(found[2][1]["srcset"]).startswith("/a%2Cb%20c/thumbnail.webp 60w, ")
