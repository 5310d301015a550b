"""A private image and its signed URLs, for the tests of private reading."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from fixtures import make
from tests.conftest import Service

TINY = make.tiny()
IMAGES = "/api/v1/images"
PRIVATE = {"signed_urls": True}

# (status, code) of what each may get where a token counts; 200 stands for the real thing.
READERS: dict[str, tuple[int, str]] = {
    "nobody": (401, "token_missing"),
    "operator": (401, "token_invalid"),
    "garbage": (401, "token_invalid"),
    "expired": (401, "token_expired"),
    "stranger": (404, "image_not_found"),
    "colleague": (200, ""),
    "uploader": (200, ""),
}


@dataclass(repr=False)
class Image:
    """A completed image of alice's, in default-org, and its signed URLs."""

    job_id: str
    image_id: str
    urls: dict[str, str]

    def direct(self, s: Service, size: str = "medium") -> str:
        return s.state.stores.urls.of_page(self.image_id, size)


async def uploaded(s: Service) -> Image:
    job = await s.completed(TINY, bucket="team/a")
    answer = await s.http.get(f"{IMAGES}/{job['image_id']}/all", headers=s.bearer())
    return Image(job["job_id"], job["image_id"], answer.json()["urls"])


def headers_of(s: Service, who: str) -> dict[str, str]:
    headers: dict[str, dict[str, str]] = {
        "nobody": {},
        "operator": s.operator,
        "garbage": {"Authorization": "Bearer x.y.z"},
        "expired": s.bearer(ttl_seconds=-60),
        "stranger": s.bearer(org_id="elsewhere"),
        "colleague": s.bearer("bob"),
        "uploader": s.bearer(),
    }
    return headers[who]


def outcome(response: httpx.Response) -> tuple[int, str]:
    is_json = "json" in response.headers.get("Content-Type", "") and response.content
    return response.status_code, response.json().get("code", "") if is_json else ""


def changed(url: str, **parameters: str | None) -> str:
    """The URL with these query parameters instead; None: without."""
    path, _, query = url.partition("?")
    merged: dict[str, str | None] = {**dict(parse_qsl(query)), **parameters}
    return f"{path}?{urlencode({name: value for name, value in merged.items() if value is not None})}"


def with_path(url: str, path: str) -> str:
    return f"http://localhost{path}?{url.partition('?')[2]}"


def signed_until(url: str) -> int:
    return int(dict(parse_qsl(urlsplit(url).query))["expires"])


async def content(s: Service, url: str) -> bytes:
    response = await s.http.get(url)
    assert response.status_code == 200
    return response.content
