"""What a client learns of its job: where it stands, what came of it, and only its own personal fields."""

import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from fixtures import make
from tests.conftest import WAIT_SECONDS, Service, Starter, shared_service
from tests.support.speed import within

TINY = make.tiny()
JOBS = "/api/v1/images/jobs"
VARIANTS = ["original", "large", "medium", "thumbnail"]
PERSONAL = {"uploader_id", "org_id", "original_filename"}
STATUS = {
    "job_id",
    "image_id",
    "status",
    "created_at",
    "started_at",
    "completed_at",
    "error",
    "error_code",
    "retryable",
    "attempts",
    "next_attempt_at",
    "ready",
}
shared = shared_service()


async def metadata(s: Service, job_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    response = await s.http.get(f"{JOBS}/{job_id}/result", headers=headers)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["metadata"]
    return found


def published(s: Service) -> list[str]:
    return [name for name in s.stored() if not name.startswith(".health")]


async def test_status_of_a_completed_job(start: Starter) -> None:
    async with start() as s:
        before = datetime.now(UTC)
        job = await s.completed(TINY)
        assert job.keys() >= STATUS
        assert job["ready"] == VARIANTS
        assert job["attempts"] == 0
        assert {job[name] for name in ("error", "error_code", "retryable", "next_attempt_at")} == {None}
        times = [datetime.fromisoformat(job[name]) for name in ("created_at", "started_at", "completed_at")]
        assert [before, *times] == sorted([before, *times])
        assert times[0].utcoffset() == timedelta(0)
        response = await s.http.get(f"{JOBS}/{job['job_id']}")
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.headers["Vary"] == "Authorization"
        assert (await s.http.get(f"{JOBS}/{job['job_id'].upper()}")).json() == job


async def test_ready_grows_from_the_thumbnail(start: Starter) -> None:
    large = make.large_jpeg(2000, 1500)
    async with start() as s:
        first, second = await s.upload(large), await s.upload(large)
        seen: list[list[str]] = []
        with within(WAIT_SECONDS):
            while (job := await s.job(second.json()["job_id"]))["status"] != "completed":
                seen += [job["ready"]] if job["ready"] not in seen else []
                assert job["completed_at"] is None
                await anyio.sleep(0.01)
        assert seen[-1] == ["thumbnail"]
        assert job["ready"] == VARIANTS
        assert (await s.job(first.json()["job_id"]))["status"] == "completed"


async def test_before_it_has_begun(start: Starter) -> None:
    async with start() as s:
        s.state.jobs.queue.hold()
        accepted = (await s.upload(TINY)).json()
        job = await s.job(accepted["job_id"])
        assert (job["status"], job["ready"], job["started_at"], job["attempts"]) == ("pending", [], None, 0)
        response = await s.http.get(f"{JOBS}/{accepted['job_id']}/result")
        assert response.status_code == 409
        assert response.json()["code"] == "not_completed"
        assert response.json()["error"] == "Processing not completed. Current status: pending"


async def test_result(start: Starter) -> None:
    photo = make.jpeg(640, 480)
    async with start() as s:
        job = await s.completed(photo, metadata=json.dumps({"title": "Ärger", "nested": {"a": [1, None, 0.5]}}))
        response = await s.http.get(f"{JOBS}/{job['job_id']}/result")
        body = response.json()
        assert {name: body[name] for name in ("job_id", "image_id", "status", "completed_at")} == {
            name: job[name] for name in ("job_id", "image_id", "status", "completed_at")
        }
        assert response.headers["Cache-Control"] == "private, no-store"
        assert response.headers["Vary"] == "Authorization"
        found = body["metadata"]
        assert (found["title"], found["nested"]) == ("Ärger", {"a": [1, None, 0.5]})
        assert found["detected_mime_type"] == "image/jpeg"
        assert found["content_length"] == len(photo)
        assert found["dominant_color"].startswith("#") and len(found["dominant_color"]) == 7
        placeholders = {name: found[name] for name in ("dominant_color", "thumbhash")}
        assert {name: job[name] for name in placeholders} == placeholders and len(found["thumbhash"]) >= 24
        assert found["original_dimensions"] == {"width": 640, "height": 480}
        assert list(body["urls"]) == VARIANTS
        assert found["variants"].keys() == set(VARIANTS)
        for name, (width, height) in {"thumbnail": (150, 113), "medium": (600, 450), "original": (640, 480)}.items():
            variant = found["variants"][name]
            assert (variant["width"], variant["height"], variant["format"]) == (width, height, "webp")
            assert variant["aspect_ratio"] == round(width / height, 3)
            assert variant["size_bytes"] == len((await s.http.get(body["urls"][name])).content)


async def test_client_metadata_never_shadows_the_services_own(start: Starter) -> None:
    lies = {
        "detected_mime_type": "text/html",
        "content_length": -1,
        "dominant_color": "red",
        "thumbhash": "AAAA",
        "original_dimensions": {"width": 1},
        "variants": {"huge": {}},
        "uploader_id": "mallory",
        "org_id": "evil",
        "original_filename": "lie.exe",
        "animated": True,
        "frames": 99,
        "Uploader_ID": "a key of its own",
    }
    async with start() as s:
        honest, job = await s.completed(TINY), await s.completed(TINY, metadata=json.dumps(lies))
        expected = await metadata(s, honest["job_id"]) | {"Uploader_ID": "a key of its own"}
        assert await metadata(s, job["job_id"]) == expected
        for path in (f"jobs/{job['job_id']}/result", f"{job['image_id']}/all"):  # nothing that was sent is lost
            assert (await s.http.get(f"/api/v1/images/{path}")).json()["client_metadata"] == lies
        own = await metadata(s, job["job_id"], s.bearer())
        personal = {"uploader_id": "alice", "org_id": "default-org", "original_filename": "photo.jpg"}
        assert own == expected | personal


async def test_personal_fields(start: Starter) -> None:
    async with start() as s:
        job_id = (await s.completed(TINY))["job_id"]
        admin = {"permissions": ["image:admin"]}
        for shown, headers in {
            "the uploader": s.bearer("alice"),
            "lower case": {"Authorization": s.bearer("alice")["Authorization"].replace("Bearer", "bearer")},
            "an admin of the org": s.bearer("bob", **admin),
        }.items():
            found = await metadata(s, job_id, headers)
            assert {name: found[name] for name in PERSONAL} == {
                "uploader_id": "alice",
                "org_id": "default-org",
                "original_filename": "photo.jpg",
            }, shown
        for hidden, headers in {
            "nobody": {},
            "a colleague": s.bearer("bob"),
            "a colleague with other permissions": s.bearer("bob", permissions=["image:read", "image:administer"]),
            "the name in another org": s.bearer("alice", org_id="other"),
            "an admin of another org": s.bearer("alice", org_id="other", **admin),
            "a token of yesterday": s.bearer("alice", ttl_seconds=-86_400),
            "nonsense": {"Authorization": "Bearer x"},
            "another scheme": {"Authorization": s.bearer("alice")["Authorization"].replace("Bearer", "Basic")},
        }.items():
            assert not PERSONAL & (await metadata(s, job_id, headers)).keys(), hidden


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("value", [1e308, -0.0, 10**400, 2**53 + 1, "\0\u2028", {"": {}}, [[[]]]], ids=repr)
async def test_odd_metadata_comes_back_as_it_was(shared: Service, value: object) -> None:
    job = await shared.completed(TINY, metadata=json.dumps({"value": value}))
    assert json.dumps((await metadata(shared, job["job_id"]))["value"]) == json.dumps(value)


async def test_whatever_nesting_is_accepted_can_be_read(start: Starter) -> None:
    async with start() as s:
        for depth in (50, 150, 240, 300, 500, 700, 900, 980):
            accepted = await s.upload(TINY, metadata='{"a":' * depth + "1" + "}" * depth)
            assert accepted.status_code == 202 if depth <= 50 else accepted.status_code in (202, 422)
            if accepted.status_code == 202:
                await s.ended(accepted)
                await metadata(s, accepted.json()["job_id"])


BAD_IDS = [
    "x",
    "..",
    "%2e%2e%2fetc",
    "%00",
    "a" * 5000,
    "x" * 36,
    uuid.uuid4().hex,
    f"{uuid.uuid4()}x",
    f"{{{uuid.uuid4()}}}",
    "' OR 1=1 --",
    str(uuid.uuid4()),
    "\u0661" * 8 + "-1111-1111-1111-111111111111",
]


async def test_unknown_and_malformed_ids(start: Starter) -> None:
    async with start() as s:
        image_id = (await s.completed(TINY))["image_id"]
        for job_id in [*BAD_IDS, image_id]:
            for path in (f"{JOBS}/{job_id}", f"{JOBS}/{job_id}/result"):
                response = await s.http.get(path)
                problem = response.json()
                if job_id in ("..", "%2e%2e%2fetc"):  # these are other paths, one of them the list of images
                    assert response.status_code in (401, 404), path
                else:
                    assert response.status_code == 404, path
                    assert (problem["code"], problem["error"]) == ("job_not_found", "Job not found"), path


@pytest.mark.parametrize(
    ("draw", "size"),
    [(make.jpeg, 30_000), (lambda: make.encoded(make.photo(1600, 1400), "PNG", compress_level=1), 300_000)],
    ids=["jpeg", "png without a preview"],
)
async def test_truncated_pixels(start: Starter, draw: Callable[[], bytes], size: int) -> None:
    async with start() as s:
        accepted = await s.upload(draw()[:size])
        job = await s.ended(accepted)
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "image_unreadable", False)
        assert len(job["error"]) > 10 and "/" not in job["error"]
        assert (job["ready"], job["attempts"], job["completed_at"]) == ([], 1, None)
        assert job["next_attempt_at"] is None
        response = await s.http.get(f"{JOBS}/{job['job_id']}/result")
        assert response.status_code == 409
        assert response.json()["error"] == "Processing not completed. Current status: failed"
        for name in VARIANTS:
            response = await s.http.get(f"/api/v1/images/{job['image_id']}", params={"size": name})
            assert (response.status_code, response.json()["code"]) == (404, "image_not_found")
        assert published(s) == []
        assert (await s.completed(TINY))["ready"] == VARIANTS
