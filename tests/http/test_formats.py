"""AVIF beside WebP: made once the job is completed, at URLs of its own, and by negotiation where it is asked for."""

import io
from typing import Any

import anyio
import httpx
import pytest
from PIL import Image

from fixtures import make
from imgsvc.imaging import optional_codecs
from imgsvc.imaging.still_avif import still_size
from imgsvc.jobs.lanes.caged_types import AVIF, HEIC
from imgsvc.settings import SettingsError
from tests.conftest import WAIT_SECONDS, Service, Starter
from tests.support.invariants import Places, assert_sound

FORMATS = ["webp", "avif"]
SIZES: dict[str, Any] = {
    "thumbnail": {"width": 40, "height": 40, "fit": "cover"},
    "medium": 120,
    "mail": {"width": 80, "format": "jpeg"},
}
BROWSER = "image/avif,image/webp,image/apng,*/*;q=0.8"
PHOTO = make.jpeg(300, 200)


async def rest(s: Service) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        while await s.sql("SELECT 1 FROM renders WHERE state <> 'failed'") or s.state.jobs.queue.active_runs:
            await anyio.sleep(0.02)


async def uploaded(s: Service, data: bytes = PHOTO) -> str:
    """An image with all its formats."""
    ids = await s.completed(data)
    await rest(s)
    return str(ids["image_id"])


async def get(s: Service, path: str, accept: str = "*/*", **headers: str) -> httpx.Response:
    return await s.http.get(path, headers={"Accept": accept, **headers})


def places(s: Service) -> Places:
    return Places(s.settings.database.path, {"local": s.settings.storage.path})


async def test_own_urls(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        image_id = await uploaded(s)
        shown = (await s.http.get(f"/api/v1/images/{image_id}/all")).json()
        assert sorted(shown["urls"]) == sorted(shown["metadata"]["variants"]) == ["mail", "medium", "thumbnail"]
        assert {form: sorted(urls) for form, urls in shown["formats"].items()} == {"avif": ["medium", "thumbnail"]}
        assert 'type="image/avif"' in shown["markup"]["picture"]
        for name, size in (("medium", (120, 80)), ("thumbnail", (40, 40))):
            answer = await s.http.get(shown["formats"]["avif"][name])
            assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/avif")
            assert "immutable" in answer.headers["Cache-Control"] and "Vary" not in answer.headers
            assert still_size(io.BytesIO(answer.content)) == size
            direct = await s.http.get(f"/api/v1/images/{image_id}/direct?size={name}&format=avif")
            assert direct.content == answer.content and "Accept" not in direct.headers.get("Vary", "")
            info = (await s.http.get(f"/api/v1/images/{image_id}?size={name}&format=avif")).json()
            assert (info["url"], info["size"]) == (shown["formats"]["avif"][name], name)
            told = info["metadata"]["dimensions"]
            assert (told["format"], told["size_bytes"], told["width"]) == ("avif", len(answer.content), size[0])
        (job_id,) = (await s.sql("SELECT job_id FROM processing_jobs"))[0]
        result = (await s.http.get(f"/api/v1/images/jobs/{job_id}/result")).json()
        assert (result["formats"], result["focal"]) == (shown["formats"], None)
        assert (await s.job(job_id))["ready"] == ["medium", "mail", "thumbnail"]
        assert await s.sql("SELECT staging_path FROM processing_jobs") == [(None,)]
        assert list((s.settings.data / "staging").iterdir()) == []
        assert_sound(places(s), "settled")


FORMAT_FOR = {
    BROWSER: "avif",
    "image/webp,*/*": "webp",
    "*/*": "webp",
    "image/*": "webp",
    "": "webp",
    "text/html": "webp",
    "image/avif": "avif",
    "image/avif;q=0,image/webp": "webp",
    "image/avif;q=0.5,image/webp": "webp",
    "image/avif;q=x": "webp",
    "image/avif;q=inf,image/webp;q=0.1": "webp",
}


async def test_negotiation(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        image_id = await uploaded(s)
        direct = f"/api/v1/images/{image_id}/direct?size=medium&format=auto"
        for accept, form in FORMAT_FOR.items():
            answer = await get(s, direct, accept)
            assert (answer.headers["Content-Type"], answer.headers["Vary"]) == (f"image/{form}", "Accept"), accept
            info = await get(s, f"/api/v1/images/{image_id}?size=medium&format=auto", accept)
            assert info.json()["metadata"]["dimensions"]["format"] == form
            assert info.headers["Vary"] == "Authorization, Accept"
        for path, accepts in ((direct.replace("auto", "%61uto"), [BROWSER]), (direct, ["text/html", "image/avif"])):
            answer = await s.http.get(path, headers=[("Accept", one) for one in accepts])
            assert (answer.headers["Content-Type"], answer.headers["Vary"]) == ("image/avif", "Accept"), path
        mail = await get(s, f"/api/v1/images/{image_id}/direct?size=mail&format=auto", BROWSER)
        assert (mail.headers["Content-Type"], mail.headers["Vary"]) == ("image/jpeg", "Accept")
        for bad, status in (("size=huge&format=auto", 404), ("size=medium&format=auto&size=x", 422)):
            answer = await get(s, f"/api/v1/images/{image_id}/direct?{bad}", BROWSER)
            assert (answer.status_code, answer.headers["Vary"]) == (status, "Authorization, Accept")
        plain = await get(s, f"/api/v1/images/{image_id}/direct?size=medium", BROWSER)
        assert plain.headers["Content-Type"] == "image/webp" and "Vary" not in plain.headers


async def test_negotiated_format_has_its_own_etag_length_and_ranges(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        direct = f"/api/v1/images/{await uploaded(s)}/direct?size=medium&format=auto"
        avif = (await get(s, direct, BROWSER)).content
        assert still_size(io.BytesIO(avif)) == (120, 80)
        etag = (await get(s, direct, BROWSER)).headers["ETag"]
        unchanged = await get(s, direct, BROWSER, **{"If-None-Match": etag})
        assert (unchanged.status_code, unchanged.headers["Vary"]) == (304, "Accept")
        assert (await get(s, direct, "*/*", **{"If-None-Match": etag})).status_code == 200
        head = await s.http.head(direct, headers={"Accept": BROWSER})
        assert (head.headers["Vary"], head.headers["Content-Length"]) == ("Accept", str(len(avif)))
        part = await get(s, direct, BROWSER, Range="bytes=4-7")
        assert (part.status_code, part.content, part.headers["Vary"]) == (206, b"ftyp", "Accept")


async def test_smallest_file_of_those_that_are_liked_as_well(start: Starter) -> None:
    """Lossless WebP makes a drawing shorter than AVIF does."""
    async with start(images={"sizes": {"one": 300}, "formats": FORMATS}) as s:
        image_id = await uploaded(s, make.encoded(make.quadrants(300, 200), "PNG"))
        direct = f"/api/v1/images/{image_id}/direct?size=one&format="
        sizes = {form: len((await s.http.get(f"{direct}{form}")).content) for form in FORMATS}
        assert sizes["webp"] < sizes["avif"]
        assert (await get(s, f"{direct}auto", BROWSER)).headers["Content-Type"] == "image/webp"
        assert (await get(s, f"{direct}auto", "image/avif,*/*;q=0.1")).headers["Content-Type"] == "image/avif"


async def test_what_is_not_there(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        s.state.jobs.table.further.claim = nothing  # type: ignore[method-assign]
        ids = await s.completed(PHOTO)
        direct = f"/api/v1/images/{ids['image_id']}/direct"
        waits = await s.http.get(f"{direct}?size=medium&format=avif")
        assert (waits.json()["code"], waits.headers["Retry-After"]) == ("image_not_ready", "2")
        assert (await get(s, f"{direct}?size=medium&format=auto", BROWSER)).headers["Content-Type"] == "image/webp"
        assert (await s.http.get(f"/api/v1/images/{ids['image_id']}/all")).json()["formats"] == {}
        never = await s.http.get(f"{direct}?size=mail&format=avif")
        assert (never.status_code, never.json()["code"]) == (404, "format_not_available")
        assert never.json()["formats"] == ["jpeg"]
        await s.sql("UPDATE renders SET state = 'failed'")
        failed = await s.http.get(f"{direct}?size=medium&format=avif")
        assert (failed.json()["code"], failed.json()["formats"]) == ("format_not_available", ["webp"])
        assert (await s.http.get(f"{direct}?size=medium&format=gif")).status_code == 422


async def nothing(free_bytes: int, *, nothing_running: bool, held: bool = False) -> None:
    del free_bytes, nothing_running, held


async def test_private_reading(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}, storage={"signed_urls": True}) as s:
        image_id, mine = await uploaded(s), s.bearer()
        shown = (await s.http.get(f"/api/v1/images/{image_id}/all", headers=mine)).json()
        url = shown["formats"]["avif"]["medium"]
        assert "signature=" in url
        opened = await s.http.get(url)
        assert (opened.status_code, opened.headers["Content-Type"]) == (200, "image/avif")
        assert opened.headers["Cache-Control"].startswith("private, max-age=")
        assert (await s.http.get(url.split("?")[0])).status_code == 403
        info = await s.http.get(f"/api/v1/images/{image_id}?format=auto", headers={**mine, "Accept": BROWSER})
        assert info.json()["metadata"]["dimensions"]["format"] == "avif"
        direct = s.state.stores.urls.of_page(image_id, "medium")
        for more in ("", "&format=auto", "&format=avif"):
            answer = await get(s, direct + more, BROWSER)
            assert answer.headers["Content-Type"] == ("image/avif" if more else "image/webp")
            assert answer.headers["Cache-Control"].startswith("private, ")
        refused = await get(s, f"{direct.split('&')[0]}&format=auto", BROWSER)
        assert (refused.status_code, refused.headers["Vary"]) == (403, "Authorization, Accept")


async def test_the_same_photo_again_takes_over_every_format(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        first, second = await uploaded(s), await uploaded(s)
        one, other = [(await s.http.get(f"/api/v1/images/{image_id}/all")).json() for image_id in (first, second)]
        for name, url in one["formats"]["avif"].items():
            again = other["formats"]["avif"][name]
            assert again != url and (await s.http.get(again)).content == (await s.http.get(url)).content
        events = [row[0] for row in await s.sql("SELECT event_type FROM image_upload_events")]
        assert events.count("render_ordered") == events.count("rendered_again") == 1
        assert_sound(places(s), "settled")


async def test_usage_and_deletion_count_every_file(start: Starter) -> None:
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        image_id = await uploaded(s)
        used = (await s.http.get("/api/v1/usage", headers=s.bearer())).json()["user"]["bytes"]
        assert used == sum((s.settings.storage.path / path).stat().st_size for path in s.stored())
        assert len(s.stored()) == 5
        answer = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert (answer.json()["files_removed"], s.stored()) == (5, [])
        assert_sound(places(s), "settled")


async def test_focal_point_moves_the_crops_of_every_format(start: Starter) -> None:
    optional_codecs.load()
    image = Image.new("RGB", (300, 100), "white")
    image.paste("#d02020", (0, 0, 100, 100))
    async with start(images={"sizes": SIZES, "formats": FORMATS}) as s:
        image_id = await uploaded(s, make.encoded(image, "PNG"))
        page = f"/api/v1/images/{image_id}/all"
        before = (await s.http.get(page)).json()["formats"]["avif"]
        patch = {"Content-Type": "application/merge-patch+json", **s.bearer()}
        answer = await s.http.patch(f"/api/v1/images/{image_id}", json={"focal": {"x": 0, "y": 0.5}}, headers=patch)
        assert answer.json()["rendering"] == ["thumbnail"]
        await rest(s)
        shown = (await s.http.get(page)).json()
        after = shown["formats"]["avif"]
        assert shown["focal"] == {"x": 0, "y": 0.5}
        assert (after["medium"], after["thumbnail"]) == (
            before["medium"],
            before["thumbnail"].replace(".avif", "_r1.avif"),
        )
        crop = Image.open(io.BytesIO((await s.http.get(after["thumbnail"])).content)).convert("RGB")
        found = crop.getpixel((20, 20))
        assert isinstance(found, tuple) and all(abs(a - b) < 12 for a, b in zip(found, (208, 32, 32), strict=True))
        moved = await s.http.get(before["thumbnail"])
        assert (moved.status_code, moved.headers["Location"]) == (301, after["thumbnail"])
        assert_sound(places(s), "settled")


async def test_missing_encoder_refuses_the_start(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    known = optional_codecs.installed()
    monkeypatch.setattr(optional_codecs, "installed", lambda: {k: v for k, v in known.items() if k != AVIF})
    for images in ({"formats": FORMATS}, {"sizes": {"one": {"width": 9, "format": "avif"}}}):
        with pytest.raises(SettingsError, match="pillow-avif-plugin is not installed: install imgsvc"):
            async with start(images=images):
                raise AssertionError("it has started")


async def test_missing_decoder_refuses_the_start_where_it_is_required(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = optional_codecs.installed()
    monkeypatch.setattr(optional_codecs, "installed", lambda: {k: v for k, v in known.items() if k != HEIC})
    with pytest.raises(SettingsError, match=r'heic = "require", and pillow-heif is not installed: install imgsvc'):
        async with start(images={"heic": "require"}):
            raise AssertionError("it has started")
    async with start(images={"heic": "cage"}):
        pass
