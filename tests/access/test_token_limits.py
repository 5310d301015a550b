"""The claim `imgsvc`: it only ever makes limits narrower, is refused where it is not plain, and is kept exactly."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import httpx
import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fixtures import make
from imgsvc.access.token_limits import TokenLimits
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.intake.limits import UploadLimits
from imgsvc.jobs.table.quota import Quota
from tests.conftest import Service, Starter, held_service
from tests.support.issuer import by_hmac
from tests.support.refused import RAW, UPLOAD, refused

SECRET = "the secret of these limits, forty bytes!"
TYPES = ("image/jpeg", "image/png", "image/webp")
RECIPE = Recipe((Variant("medium", 600, 85, 4),), max_pixels=1_000_000, max_frames=10)
CONFIGURED = UploadLimits(5000, RECIPE, TYPES, Quota(50, timedelta(hours=1)))
TINY = make.jpeg(64, 48)  # 3072 pixels

module = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def s(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    auth = {"jwt_secret_key": SECRET}
    async for one in held_service(tmp_path_factory.mktemp("limits"), auth=auth, rate_limit={"max_uploads": 50}):
        one.state.jobs.queue.hold()
        yield one


def bearer(user: str, imgsvc: object) -> dict[str, str]:
    text = by_hmac(SECRET.encode(), "HS256", {"sub": user, "imgsvc": imgsvc})
    return {"Authorization": f"Bearer {text}"}


async def form(s: Service, user: str, imgsvc: object, data: bytes = TINY, bucket: str = "photos") -> httpx.Response:
    parts = {"file": ("x", data)}
    return await s.http.post(UPLOAD, data={"bucket": bucket}, files=parts, headers=bearer(user, imgsvc))


async def raw(s: Service, user: str, imgsvc: object, data: bytes = TINY, bucket: str = "photos") -> httpx.Response:
    headers = {**RAW, **bearer(user, imgsvc)}
    return await s.http.post(UPLOAD, params={"bucket": bucket}, content=data, headers=headers)


NUMBERS = ("max_bytes", "max_pixels", "uploads_per_hour")
LISTS = ("allowed_types", "buckets")
NOT_NUMBERS: list[Any] = [-1, -1.0, 1.5, True, False, "10", None, [], {}, float("nan"), float("inf"), float("-inf")]
NOT_LISTS: list[Any] = [
    "image/png",
    None,
    7,
    True,
    {},
    {"image/png": 1},
    [7],
    [None],
    [["image/png"]],
    ["image/png", 1],
]
NOT_CLAIMS: list[Any] = [
    *({name: value} for name in NUMBERS for value in NOT_NUMBERS),
    *({name: value} for name in LISTS for value in NOT_LISTS),
    {"max_byte": 1},
    {"max_bytes": 1, "max_uploads": 1},
    {"MAX_BYTES": 1},
    {"": 1},
    None,
    [],
    [{}],
    "",
    "max_bytes",
    0,
    True,
]


@pytest.mark.parametrize("claim", NOT_CLAIMS, ids=str)
@module
async def test_a_claim_that_is_not_plain_is_refused(s: Service, claim: object) -> None:
    answer = await raw(s, "odd", claim)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid"), answer.text
    assert "invalid_token" in answer.headers["WWW-Authenticate"]


LIMITS = (
    st.none() | st.integers(0, 10**7) | st.integers(0, 10**400) | st.floats(0, 1e300).map(float.__floor__).map(float)
)
NAMES = st.none() | st.lists(st.sampled_from([*TYPES, "image/gif", "a", "a/b", ""]) | st.text(max_size=5), max_size=5)
CLAIMS = st.fixed_dictionaries({}, optional={**dict.fromkeys(NUMBERS, LIMITS), **dict.fromkeys(LISTS, NAMES)})
WINDOWS = st.timedeltas(timedelta(microseconds=1), timedelta(days=365))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NUMBERS, *LISTS, "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(CLAIMS | JSON, WINDOWS)
@example({"uploads_per_hour": 10**400}, timedelta(days=365))
@example({"max_bytes": 1e300, "max_pixels": 0}, timedelta(hours=1))
def test_no_claim_ever_loosens(claim: object, window: timedelta) -> None:
    configured = UploadLimits(5000, RECIPE, TYPES, Quota(50, window), ("photos", "a/b"))
    for before in (configured, CONFIGURED):
        try:
            after = before.tightened(TokenLimits.of({"imgsvc": json.loads(json.dumps(claim))}))
        except ValueError:
            continue
        assert 0 <= after.max_bytes <= before.max_bytes
        assert 0 <= after.recipe.max_pixels <= before.recipe.max_pixels
        assert (after.recipe.variants, after.recipe.max_frames) == (RECIPE.variants, RECIPE.max_frames)
        assert 0 <= after.quota.max_uploads <= before.quota.max_uploads
        assert after.quota.window == before.quota.window
        assert set(after.types) <= set(before.types)
        if before.buckets is not None:
            assert after.buckets is not None and set(after.buckets) <= set(before.buckets)


@pytest.mark.parametrize(
    ("minutes", "per_hour", "expected"),
    [
        (60, 10, 10),
        (60, 0, 0),
        (60, 1e1, 10),
        (60, 51, 50),
        (1440, 2, 48),
        (1440, 3, 50),
        (30, 10, 5),
        (30, 5, 2),
        (5, 10, 0),
        (0.1, 49, 0),
        (60, 10**400, 50),
    ],
)
def test_uploads_per_hour_in_a_window(minutes: float, per_hour: float, expected: int) -> None:
    before = UploadLimits(1, RECIPE, TYPES, Quota(50, timedelta(minutes=minutes)))
    assert before.tightened(TokenLimits.of({"imgsvc": {"uploads_per_hour": per_hour}})).quota.max_uploads == expected


# the claim; what is sent with it; status and code; what the answer says of it
KEPT: list[tuple[dict[str, Any], dict[str, Any], int, str, dict[str, Any]]] = [
    (
        {"max_bytes": 500},
        {},
        413,
        "upload_too_large",
        {"limit_bytes": 500, "detail": "File too large. Maximum allowed: 0.000476837MB"},
    ),
    ({"max_bytes": 0}, {}, 413, "upload_too_large", {"limit_bytes": 0}),
    ({"max_bytes": len(TINY)}, {}, 202, "", {}),
    ({"max_bytes": len(TINY) - 1}, {}, 413, "upload_too_large", {"measured_bytes": len(TINY)}),
    (
        {"max_pixels": 3071},
        {},
        422,
        "image_too_large",
        {"detail": "The image has 64 x 48 = 0.003072 megapixels; at most 0.003071 megapixels are allowed."},
    ),
    ({"max_pixels": 3072}, {}, 202, "", {}),
    ({"max_pixels": 0}, {}, 422, "image_too_large", {}),
    (
        {"allowed_types": ["image/png", "image/bmp"]},
        {},
        415,
        "unsupported_type",
        {"detail": "Unsupported file type: image/jpeg. Allowed: image/png"},
    ),
    (
        {"allowed_types": []},
        {},
        415,
        "unsupported_type",
        {"detail": "Unsupported file type: image/jpeg. Allowed: none"},
    ),
    ({"allowed_types": ["image/bmp"]}, {"data": b"BM" + bytes(600)}, 415, "unsupported_type", {}),
    ({"allowed_types": ["image/jpeg"]}, {}, 202, "", {}),
    ({"buckets": ["photos"]}, {}, 202, "", {}),
    (
        {"buckets": ["work", "work/2026"]},
        {},
        403,
        "bucket_not_allowed",
        {
            "detail": "The token does not allow the bucket 'photos'. Allowed: work, work/2026",
            "bucket": "photos",
            "allowed": ["work", "work/2026"],
        },
    ),
    ({"buckets": []}, {}, 403, "bucket_not_allowed", {"allowed": []}),
    ({"buckets": ["photos"]}, {"bucket": "photos/a"}, 403, "bucket_not_allowed", {"bucket": "photos/a"}),
    ({"buckets": ["photos/a"]}, {"bucket": "photos"}, 403, "bucket_not_allowed", {}),
    ({"buckets": ["Photos"]}, {}, 403, "bucket_not_allowed", {}),
    ({"buckets": ["../x"]}, {"bucket": "../x"}, 422, "validation_error", {}),
    ({"uploads_per_hour": 0}, {}, 429, "rate_limited", {"limit": 0, "used": 0}),
]


@pytest.mark.parametrize("send", [form, raw])
@pytest.mark.parametrize(("claim", "sent", "status", "code", "says"), KEPT, ids=str)
@module
async def test_a_limit_is_kept(
    s: Service, claim: dict[str, Any], sent: Any, status: int, code: str, says: dict[str, Any], send: Any
) -> None:
    answer = await send(s, f"{send.__name__} {claim}"[:200], claim, **sent)
    if status == 202:
        assert answer.status_code == 202, answer.text
        return
    assert says.items() <= refused(s, answer, status, code).items()


@module
async def test_order_of_the_checks(s: Service) -> None:
    """Length, quota, bucket, type, bytes, pixels: what is known first decides."""
    claim: dict[str, Any] = {
        "max_bytes": 600,
        "uploads_per_hour": 0,
        "buckets": ["work"],
        "allowed_types": ["image/png"],
        "max_pixels": 1,
    }
    large = TINY + bytes(200_000)
    for data, status in ((large, 413), (TINY, 429)):
        assert (await raw(s, "order", claim, data)).status_code == status
    del claim["uploads_per_hour"]
    assert (await raw(s, "order", claim)).status_code == 403
    claim["buckets"] = ["photos"]
    assert (await raw(s, "order", claim)).status_code == 415
    claim["allowed_types"] = ["image/jpeg"]
    assert (await raw(s, "order", claim)).status_code == 413
    claim["max_bytes"] = 100_000
    assert (await raw(s, "order", claim)).status_code == 422
    claim["max_pixels"] = 4000
    assert (await raw(s, "order", claim)).status_code == 202


@module
async def test_the_file_may_come_before_its_bucket(s: Service) -> None:
    files = [("file", ("x", TINY)), ("bucket", (None, b"photos"))]
    for _ in range(2):
        answer = await s.http.post(UPLOAD, files=files, headers=bearer("first", {"buckets": ["work"]}))
        refused(s, answer, 403, "bucket_not_allowed")
    denied = (
        "SELECT metadata FROM image_upload_events WHERE event_type = 'bucket_denied' AND metadata ->> 'user_id' = ?"
    )
    assert await s.sql(denied, "first") == [('{"org_id": "default-org", "user_id": "first", "bucket": "photos"}',)]


@module
async def test_tokens_of_one_user_share_the_count(s: Service) -> None:
    free: dict[str, Any] = {}
    narrow = {"uploads_per_hour": 3}
    for claim, limit, remaining in ((free, "50", "49"), (narrow, "3", "1"), (free, "50", "47"), (free, "50", "46")):
        answer = await raw(s, "sharing", claim)
        assert answer.status_code == 202
        assert (answer.headers["X-RateLimit-Limit"], answer.headers["X-RateLimit-Remaining"]) == (limit, remaining)
    answer = await raw(s, "sharing", narrow)
    assert (answer.status_code, answer.json()["limit"], answer.json()["used"]) == (429, 3, 4)
    assert answer.headers["X-RateLimit-Limit"] == "3"
    assert answer.json()["detail"] == "Rate limit exceeded. Maximum 3 uploads per hour."
    assert (await raw(s, "sharing", free)).status_code == 202


@module
async def test_who_may_upload_nothing_leaves_one_event(s: Service) -> None:
    """There is no window: each refusal speaks of one that would begin then."""
    for _ in range(3):
        answer = await raw(s, "nothing", {"uploads_per_hour": 0})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
    query = "SELECT count(*) FROM image_upload_events WHERE event_type = 'rate_limited' AND metadata ->> 'user_id' = ?"
    assert await s.sql(query, "nothing") == [(1,)]


async def at_once(s: Service, times: int, user: str, claim: dict[str, Any]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []

    async def one() -> None:
        answers.append(await raw(s, user, claim))

    async with anyio.create_task_group() as group:
        for _ in range(times):
            group.start_soon(one)
    return answers


@module
async def test_200_at_once_at_a_limit_of_50(s: Service) -> None:
    answers = await at_once(s, 200, "many", {})
    assert Counter(answer.status_code for answer in answers) == {202: 50, 429: 150}


@module
async def test_60_at_once_at_a_tightened_limit_of_7(s: Service) -> None:
    answers = await at_once(s, 60, "few", {"uploads_per_hour": 7})
    assert Counter(answer.status_code for answer in answers) == {202: 7, 429: 53}
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"7"}


async def test_the_worker_keeps_to_the_limits_of_the_token(start: Starter) -> None:
    async with start(auth={"jwt_secret_key": SECRET}) as s:
        job = await s.ended(await raw(s, "alice", {"max_pixels": 3072, "max_bytes": 10**6}))
        assert job["status"] == "completed"
        rows = await s.sql("SELECT recipe ->> 'max_pixels' FROM processing_jobs")
        assert rows == [(3072,)]
