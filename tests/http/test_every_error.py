"""Every error there is: from every route in the one shape, and explained on a page of its own."""

import http
import re
import traceback
import uuid
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from structlog.testing import capture_logs

import imgsvc
from imgsvc.access.login_throttle import LoginThrottle
from imgsvc.http.wire.error_codes import CODES
from tests.conftest import Service, Starter

SOURCE = Path(imgsvc.__file__).parent
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
MEMBERS = {"type", "title", "status", "detail", "code", "trace_id", "error", "status_code"}
BAD_QUERIES = (
    "size=..%2F..&limit=0&image_ids=,,",
    "size=%00&limit=abc&image_ids=%00",
    "size=%ff&limit=%C2%B2&image_ids=%ff",
    f"size={'x' * 5000}&limit={'9' * 5000}&image_ids={',' * 5000}",
    f"image_ids={','.join(['x'] * 51)}",
    "&&=&;size[]=1&limit=-1&limit=1e3",
)
BAD_IDS = ("x", "%00", "%ff", "..%2f..%2fetc%2fpasswd", "%20", "'--", str(uuid.uuid4()), "9" * 3000)
RAISED = re.compile(
    r"""Problem\(\s*(?P<status>\d+),\s*"(?P<problem>\w+)\""""
    r"""|(?:not_authenticated|Failure|_refusal)\((?:request, )?\s*"(?P<made>\w+)\""""
    r"""|code = "(?P<own>\w+)"|"code": "(?P<worker>\w+)"|\b(?:400|404|405|413): "(?P<router>\w+)\""""
)
OPEN_TO_ALL = (
    "/api/v1/operator/login",
    "/api/v1/operator/logout",
    "/dashboard/login",
    "/dashboard/oidc/callback",
    "/dashboard/oidc/start",
    "/dashboard/static/{name}",
)
# No name is malformed, and nothing is remembered of most.
ANY_NAME = ("/api/v1/operator/permissions/{org}/{user}", "/api/v1/operator/users/{org}/{user}")
BY_TICKET = "/api/v1/images/tickets/{ticket}"  # a wrong one is a wrong credential
NEVER_TOLD = {"cancelled"}  # the row of a deleted image is gone


def paths(s: Service) -> dict[str, set[str]]:
    """{path template: methods} of all routes."""
    found: dict[str, set[str]] = {}
    for route in s.app.routes:
        assert isinstance(route, Route) and route.methods
        found.setdefault(route.path, set()).update(route.methods)
    return found


def filled(path: str, value: str) -> str:
    return re.sub(r"\{\w+(:path)?\}", lambda _: value, path)


def headers_for(s: Service, path: str) -> dict[str, str]:
    """Headers of a caller with permission."""
    of_operator = path.startswith(("/api/v1/operator/", "/api/v1/health/auth", "/dashboard", "/metrics"))
    return s.operator if of_operator else s.bearer()


def whole(response: httpx.Response) -> str:
    """The code of an error that has everything an error must have."""
    where = f"{response.request.method} {response.request.url} {response.status_code}"
    assert response.headers["Content-Type"] == "application/problem+json", where
    assert response.headers["Cache-Control"] == "private, no-store", where
    assert response.headers["X-Content-Type-Options"] == "nosniff", where
    trace_id = response.headers["X-Trace-ID"]
    assert trace_id and trace_id == response.headers["X-Correlation-ID"], where
    if response.request.method == "HEAD":
        return ""
    body = response.json()
    assert body.keys() >= MEMBERS, where
    assert body["status"] == body["status_code"] == response.status_code, where
    assert body["title"] == http.HTTPStatus(response.status_code).phrase, where
    assert body["detail"] == body["error"] != "", where
    assert body["trace_id"] == trace_id, where
    assert body["type"] == f"/errors/{body['code']}", where
    known = CODES[body["code"]]
    assert known.status == response.status_code, where
    return str(body["code"])


async def test_wrong_method_on_every_route(start: Starter) -> None:
    async with start() as s:
        for path, allowed in paths(s).items():
            for method in METHODS - allowed:
                response = await s.http.request(method, filled(path, str(uuid.uuid4())), headers=s.bearer())
                assert response.status_code == 405, (method, path)
                assert set(response.headers["Allow"].split(", ")) == allowed, (method, path)
                whole(response)


async def test_unknown_and_malformed_ids_on_every_route(start: Starter) -> None:
    async with start() as s:
        seen = set()
        for path, methods in paths(s).items():
            for value in BAD_IDS if "{" in path and path not in (*ANY_NAME, BY_TICKET) else ():
                for method in methods:
                    url = f"http://localhost{filled(path, value)}"
                    response = await s.http.request(method, url, headers=headers_for(s, path))
                    assert response.status_code == 404, (method, url)
                    seen.add(whole(response))
        assert seen == {
            "",
            "not_found",
            "job_not_found",
            "image_not_found",
            "key_not_found",
            "webhook_not_found",
            "erasure_not_found",
        }


async def test_bad_query_on_every_route(start: Starter) -> None:
    async with start() as s:
        seen = set()
        for path, methods in paths(s).items():
            for query in BAD_QUERIES:
                for method in methods:
                    url = f"http://localhost{filled(path, str(uuid.uuid4()))}?{query}"
                    response = await s.http.request(method, url, headers=headers_for(s, path))
                    assert response.status_code < 500, (method, url)
                    if response.status_code >= 400:
                        seen.add(whole(response))
        assert seen >= {"validation_error", "too_many_images", "image_not_found"}


async def test_missing_or_bad_token_on_every_unsafe_route(start: Starter) -> None:
    async with start() as s:
        unsafe = [(path, method) for path, found in paths(s).items() for method in found - {"GET", "HEAD"}]
        of_users = [(path, method) for path, method in unsafe if not path.startswith("/api/v1/operator/")]
        of_users = [(path, method) for path, method in of_users if path != BY_TICKET]
        assert len(of_users) >= 2
        for path, method in of_users:
            for headers, code in (
                ({}, "token_missing"),
                ({"Authorization": "Bearer x"}, "token_invalid"),
                (s.bearer(ttl_seconds=-60), "token_expired"),
            ):
                response = await s.http.request(method, filled(path, str(uuid.uuid4())), headers=headers)
                assert (response.status_code, whole(response)) == (401, code), (method, path)
                assert response.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_missing_or_wrong_operator_token_on_every_route_of_the_operator(start: Starter) -> None:
    async with start() as s:
        asked = 0
        for path, methods in paths(s).items():
            if path in OPEN_TO_ALL or not path.startswith(("/api/v1/operator/", "/dashboard", "/metrics")):
                continue
            for method in methods:
                s.state.access = replace(s.state.access, throttle=LoginThrottle())
                for headers, code in (({}, "operator_required"), ({"Authorization": "Bearer x"}, "operator_refused")):
                    url = filled(path, str(uuid.uuid4()))
                    response = await s.http.request(method, url, headers=headers)
                    expected = (401, "" if method == "HEAD" else code)
                    assert (response.status_code, whole(response)) == expected, (method, path)
                    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
                    asked += 1
        assert asked > 10


async def test_every_code_has_a_page(start: Starter) -> None:
    async with start() as s:
        for code, known in CODES.items():
            page = await s.http.get(f"/errors/{code}")
            assert page.status_code == 200
            assert page.headers["Content-Type"] == "text/html; charset=utf-8"
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src" not in policy
            assert "<script" not in page.text and "http://" not in page.text and "https://" not in page.text
            assert code in page.text and str(known.status) in page.text
        for code in ("no_such_code", "bad_request%20", "...", "%3Cb%3E", "BAD_REQUEST"):
            response = await s.http.get(f"http://localhost/errors/{code}")
            assert (response.status_code, whole(response)) == (404, "not_found"), code
            assert "<b>" not in response.text


async def test_type_of_a_problem_leads_to_its_page(start: Starter) -> None:
    for public_url in ("", "https://img.example/pics"):
        async with start(service={"public_url": public_url}) as s:
            problems = [await s.http.get("/nothing"), await s.http.post("/"), await s.upload(b"words")]
            for problem in problems:
                body = problem.json()
                assert body["type"] == f"{public_url}/errors/{body['code']}"
                assert body["code"] in (await s.http.get(body["type"].removeprefix(public_url))).text


def test_every_code_of_the_source_is_explained_and_every_explained_one_is_used() -> None:
    raised: set[str] = set()
    for file in (*SOURCE.glob("http/**/*.py"), *SOURCE.glob("jobs/**/*.py"), SOURCE / "imaging" / "errors.py"):
        for match in RAISED.finditer(file.read_text()):
            groups = {name: text for name, text in match.groupdict().items() if text}
            status = groups.pop("status", None)
            (code,) = groups.values()
            raised.add(code)
            assert status is None or CODES[code].status == int(status), code
    assert raised - NEVER_TOLD == set(CODES)


class Broken(Exception):
    pass


async def broken(_: Request) -> Response:
    raise Broken("secret words in /some/path")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_crash_in_a_handler_stays_inside(start: Starter, method: str) -> None:
    async with start() as s:
        s.app.router.routes.append(Route("/broken", broken, methods=["GET", "POST"]))
        with capture_logs() as logs:
            response = await s.http.request(method, "/broken", headers={"X-Trace-ID": "of-the-crash"})
        assert response.status_code == 500
        assert response.headers["X-Trace-ID"] == "of-the-crash"
        assert whole(response) == ("" if method == "HEAD" else "internal_error")
        for inside in ("secret words", "/some/path", "Broken", "Traceback"):
            assert inside not in response.text
        (entry,) = [entry for entry in logs if entry.get("exc_info")]
        told = "".join(traceback.format_exception(entry["exc_info"]))
        assert "secret words" in told and "in broken" in told
        assert [entry["status"] for entry in logs if entry["event"] == "request"] == [500]


async def test_page_of_a_limit_names_it(start: Starter) -> None:
    async with start(rate_limit={"max_uploads": 7}, uploads={"max_size_mb": 3}) as s:
        assert "7 uploads in 60 minutes" in (await s.http.get("/errors/rate_limited")).text
        assert "3 MB" in (await s.http.get("/errors/upload_too_large")).text
