"""The smoke test: uploads one photo to a running instance and checks each promise, step by step, from outside."""

import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from ...imaging.recipe import Variant
from ...lazy_dataclass import dataclass
from .animation import GIF, check_animation
from .checks import check_no_metadata, check_picture, near, variant_described
from .http_client import Instance, Unexpected, code, outcome
from .photo import LEFT, SIZE, photo
from .upload import API, completed, send

UNKNOWN_IMAGE = "00000000-0000-4000-8000-000000000000"
CLEAN_UP_SECONDS = 5.0
RATE_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
SIGNATURE = re.compile(r"((?:s|X-Amz-S)ignature=)(.)")  # in our own URLs, and in S3's presigned ones
PRESIGNED = "X-Amz-Signature="
CACHED = (
    "Age",
    "X-Cache",
    "CF-Cache-Status",
    "X-Cache-Status",
)  # headers of a response that may be older than the deletion


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the report."""

    name: str
    passed: bool
    milliseconds: int
    said: str


class Smoke:
    """The smoke test. As a context manager it deletes the uploaded image in the end, whatever happened.

    `url` may have a path prefix; `seconds` is the time for all steps together.
    """

    def __init__(self, url: str, token: str, bucket: str, seconds: float, transport: httpx.BaseTransport | None = None):
        self._instance = Instance(url, token, seconds, transport)
        self._bucket = bucket
        self._photo = photo()
        self._job_id = self._image_id = ""
        self._ready = self._deleted = False
        self._private = False  # variants can be read with signed URLs only
        self._sizes: dict[str, int] = {}
        self._made_as: dict[str, Variant] = {}
        self._types: list[str] = []
        self._urls: dict[str, str] = {}
        self._variants: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._image_id and not self._deleted:
                self._instance.grant(CLEAN_UP_SECONDS)
                self._instance.call("DELETE", f"{API}/{self._image_id}")
        except Unexpected:
            pass  # the deletion's step has reported it
        finally:
            self._instance.close()

    def steps(self) -> Iterator[Step]:
        """Yield each step once it has ended. A step whose precondition failed counts as failed."""
        yield self._step("health", self._health)
        yield self._step("settings", self._settings)
        yield self._step("no token", self._no_token)
        yield self._step("wrong type", self._wrong_type)
        yield self._step("upload", self._upload)
        yield self._step("ready", self._wait, needs="" if self._image_id else "the upload")
        yield self._step("result", self._result, needs="" if self._ready else "a finished job")
        for name in self._sizes or {"variants": 0}:
            needs = "" if name in self._urls else "its address"
            yield self._step(name, lambda name=name: self._variant(name), needs)  # type: ignore[misc]
        complete = set(self._variants) == set(self._sizes) != set()
        if self._private:
            yield self._step("private", self._signed_only, needs="" if complete else "all variants")
        yield self._step("no metadata", self._no_metadata, needs="" if complete else "all variants")
        yield self._step(
            "batch", self._batch, needs="" if self._ready and self._sizes else "a finished job and the settings"
        )
        yield self._step(
            "animation", self._animation, needs="" if self._ready and self._sizes else "a finished job and the settings"
        )
        yield self._step("delete", self._delete, needs="" if self._image_id else "the upload")
        yield self._step("gone", self._gone, needs="" if self._deleted else "the deletion")

    def _step(self, name: str, work: Callable[[], str], needs: str = "") -> Step:
        if needs:
            return Step(name, False, 0, f"skipped: it requires {needs}")
        began = time.monotonic()
        try:
            text, passed = work(), True
        except Unexpected as error:
            text, passed = str(error), False
        except (KeyError, TypeError, ValueError, AttributeError) as error:  # a response with an unexpected structure
            text, passed = f"the response is not as documented: {type(error).__name__} {error}", False
        return Step(name, passed, round((time.monotonic() - began) * 1000), text)

    def _health(self) -> str:
        report = self._instance.call("GET", "/api/v1/health").json()
        failed = [
            f"{name}: {check['detail']}" for name, check in report["checks"].items() if check["status"] != "healthy"
        ]
        return f"{report['service']} {report['version']}, {report['status']} {'; '.join(failed)}".rstrip()

    def _settings(self) -> str:
        processing = self._instance.call("GET", "/info").json()["processing"]
        self._sizes = dict(processing["image_sizes"])
        self._types = list(processing["allowed_mime_types"])
        described = processing.get("variants", {})  # an older service has numbers alone
        self._made_as = {name: variant_described(name, side, described.get(name)) for name, side in self._sizes.items()}
        # With private reading the signature is checked before the image is looked up.
        self._private = self._is_unsigned(self._get(f"{API}/{UNKNOWN_IMAGE}/direct"))
        sizes = ", ".join(f"{name} {side}" for name, side in self._sizes.items())
        return f"{sizes}; signed URLs only" if self._private else sizes

    def _no_token(self) -> str:
        answer = self._send_photo(self._photo, headers={}, expected=401)
        if code(answer) != "token_missing" or "WWW-Authenticate" not in answer.headers:
            raise Unexpected("401, but not from the service")
        return "refused with 401"

    def _wrong_type(self) -> str:
        answer = self._send_photo(b"words, and no image", self._instance.authorization, expected=415)
        if code(answer) != "unsupported_type":
            raise Unexpected("415, but not from the service")
        return "refused with 415"

    def _upload(self) -> str:
        trace = f"smoke-{secrets.token_hex(8)}"
        answer = self._send_photo(self._photo, {**self._instance.authorization, "X-Trace-ID": trace}, expected=202)
        receipt = answer.json()
        self._job_id, self._image_id = receipt["job_id"], receipt["image_id"]
        lacking = [name for name in ("Location", *RATE_HEADERS) if name not in answer.headers]
        if lacking:
            raise Unexpected(f"202 without {', '.join(lacking)}: does a proxy drop them?")
        if answer.headers.get("X-Trace-ID") != trace:
            raise Unexpected("202 with a different trace ID")
        return f"{len(self._photo):,} bytes; {answer.headers['X-RateLimit-Remaining']} uploads left"

    def _wait(self) -> str:
        job = completed(self._instance, self._job_id)
        self._ready = True
        return f"after {job['attempts'] + 1} attempt{'s' if job['attempts'] else ''}"

    def _result(self) -> str:
        result = self._instance.call("GET", f"{API}/jobs/{self._job_id}/result").json()
        self._urls = {name: str(url) for name, url in result["urls"].items()}
        if set(self._urls) != set(self._sizes):
            raise Unexpected(f"has the variants {', '.join(self._urls)}, and /info {', '.join(self._sizes)}")
        metadata = result["metadata"]
        if metadata["content_length"] != len(self._photo) or metadata["detected_mime_type"] != "image/jpeg":
            raise Unexpected("reports another type or length than that of the upload")
        dimensions = metadata["original_dimensions"]
        if (dimensions["width"], dimensions["height"]) != SIZE:
            raise Unexpected(f"reports {dimensions['width']} x {dimensions['height']} pixels for the photo")
        colour = metadata["dominant_color"]
        if not near(tuple(bytes.fromhex(colour.removeprefix("#"))), LEFT):
            raise Unexpected(f"reports {colour} as the dominant colour")
        return f"{len(self._urls)} variants, dominant colour {colour}"

    def _variant(self, name: str) -> str:
        """Fetch a variant by its URL, and by /direct if that is public: like a browser, without the token."""
        url = self._instance.absolute(self._urls[name])
        try:
            answer = self._instance.ask("GET", url, {})
        except Unexpected as error:
            raise Unexpected(f"{_plain(url)}: {error}{self._hint(url)}") from None
        if answer.status_code != 200:
            raise Unexpected(f"{_plain(url)} answers {outcome(answer)}{self._hint(url)}")
        if answer.headers.get("Content-Type") != f"image/{self._made_as[name].format}":
            raise Unexpected(f"comes as {answer.headers.get('Content-Type')}")
        text = check_picture(answer.content, self._made_as[name])
        direct = self._get(f"{API}/{self._image_id}/direct?size={name}")
        if self._private and not self._is_unsigned(direct):
            raise Unexpected(f"/direct answers {outcome(direct)} without a signature")
        if not self._private and direct.content != answer.content:
            raise Unexpected(f"/direct answers {outcome(direct)}" if direct.is_error else "/direct sends other bytes")
        self._variants[name] = answer.content
        return text

    def _hint(self, url: str) -> str:
        """A possible cause for a URL that does not work."""
        if PRESIGNED in url:
            return "; is AWS_ENDPOINT_URL reachable from here?"
        return "" if url.startswith(f"{self._instance.base}/") else "; is PUBLIC_URL set?"

    def _signed_only(self) -> str:
        """Without a token or a valid signature nothing can be read."""
        for path in (f"{API}/jobs/{self._job_id}/result", f"{API}/{self._image_id}/all", f"{API}/{self._image_id}"):
            answer = self._get(path)
            if answer.status_code != 401:
                raise Unexpected(f"without a token {path.removeprefix(API)} answers {outcome(answer)}")
        for name, url in self._urls.items():
            forged = SIGNATURE.sub(lambda found: found[1] + ("b" if found[2] == "a" else "a"), url)
            answer = self._instance.ask("GET", self._instance.absolute(forged), {})
            if forged == url or answer.status_code != 403:
                raise Unexpected(f"{name} answers {outcome(answer)} to another signature")
        return "no URL without a token, no bytes for another signature"

    def _get(self, path: str) -> httpx.Response:
        return self._instance.ask("GET", f"{self._instance.base}{path}", {})

    def _is_unsigned(self, answer: httpx.Response) -> bool:
        """Whether the response is a refusal for a missing signature."""
        return answer.status_code == 403 and code(answer) == "signature_required"

    def _no_metadata(self) -> str:
        for name, data in self._variants.items():
            try:
                check_no_metadata(data)
            except Unexpected as error:
                raise Unexpected(f"{name} {error}") from None
        return f"in {len(self._variants)} variants: no EXIF, GPS, XMP, comment or profile"

    def _batch(self) -> str:
        found = self._instance.call(
            "GET", f"{API}/batch?image_ids={self._image_id},{UNKNOWN_IMAGE}&size={next(iter(self._sizes))}"
        )
        body = found.json()
        if [one["image_id"] for one in body["images"]] != [self._image_id] or body["missing"] != [UNKNOWN_IMAGE]:
            raise Unexpected(f"of one image and an unknown one: found {body['found']}, missing {body['missing']}")
        return "one found, an unknown one missing"

    def _animation(self) -> str:
        moving = next((name for name, variant in self._made_as.items() if variant.animated), None)
        if moving is None or GIF not in self._types:
            return "is not kept here"
        return check_animation(self._instance, self._bucket, moving)

    def _delete(self) -> str:
        removed = self._instance.call("DELETE", f"{API}/{self._image_id}").json()["files_removed"]
        self._deleted = True
        return f"{removed} files removed"

    def _gone(self) -> str:
        info, cached = (
            self._instance.ask("GET", f"{self._instance.base}{API}/{self._image_id}", self._instance.authorization),
            0,
        )
        if info.status_code != 404:
            raise Unexpected(f"its page answers {outcome(info)}")
        for url in (f"{self._instance.base}{API}/{self._image_id}/direct", *self._urls.values()):
            answer = self._instance.ask("GET", self._instance.absolute(url), {})
            if answer.is_success and any(name in answer.headers for name in CACHED):
                cached += 1
            elif answer.status_code != 404 and not self._as_good_as_gone(url, answer):
                raise Unexpected(f"{_plain(url)} answers {outcome(answer)}")
        return "404" if not cached else f"404, but a cache in between still has {cached}"

    def _as_good_as_gone(self, url: str, answer: httpx.Response) -> bool:
        """Whether the file counts as gone: S3 answers 403 without the right to list, as we do without a signature."""
        return (PRESIGNED in url and answer.status_code == 403) or (self._private and self._is_unsigned(answer))

    def _send_photo(self, data: bytes, headers: Mapping[str, str], expected: int) -> httpx.Response:
        return send(self._instance, self._bucket, ("smoke.jpg", data, "image/jpeg"), headers, expected)


def _plain(url: str) -> str:
    """The URL without its signature."""
    return url.partition("?")[0]
