"""The API document: valid, complete, true to what is really answered, and its examples to itself."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
from starlette.routing import Route
from structlog.testing import capture_logs

from imgsvc import Settings
from imgsvc.http.openapi.document import build
from imgsvc.http.wire.error_codes import CODES
from imgsvc.jobs.failures import JOB_CODES
from imgsvc.service.routes import ROUTES
from tests.conftest import Starter

Json = dict[str, Any]
OF_MACHINES = {"render_refused", "variant_there", "length_required", "variant_too_large"}  # in no document
NEVER_LEAVES = {"bad_request", *OF_MACHINES}  # the first is what the framework calls malformed, and nothing here is
KEYWORDS = re.compile(
    r"\$ref|type|format|pattern|(min|max)(Length|Items|imum)|enum|const|not|anyOf|items|properties|required"
    r"|additionalProperties|contains|default|description|examples|title"
)


@cache
def built(*, private: bool) -> Json:
    return build(Settings(storage={"signed_urls": private}), ROUTES)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[False, True], ids=["public", "private"])
def document(request: pytest.FixtureRequest) -> Json:
    """As it is with public and with private reading."""
    return built(private=request.param)


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    """(METHOD path, operation)"""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def media(document: Json) -> Iterator[tuple[str, Json]]:
    """(METHOD path status, media type object) of every body that is answered."""
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                yield f"{name} {status}", content


def validators(document: Json) -> Callable[[Json], jsonschema_rs.Draft202012Validator]:
    """What checks against a schema of the document. Most of a document's schemas repeat another."""
    kept: dict[str, jsonschema_rs.Draft202012Validator] = {}

    def validator(schema: Json) -> jsonschema_rs.Draft202012Validator:
        text = json.dumps(schema)
        if text not in kept:
            whole = {**schema, "components": document["components"]}
            kept[text] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return kept[text]

    return validator


def schemas(found: Any) -> Iterator[Json]:
    """Every JSON schema in a part of the document."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name in ("schema", "schemas"):
                yield from ([value] if name == "schema" else value.values())
            elif name not in ("example", "examples", "value"):
                yield from schemas(value)
    elif isinstance(found, list):
        for one in found:
            yield from schemas(one)


def keywords(schema: Any) -> Iterator[str]:
    if not isinstance(schema, dict):
        return
    yield from schema
    for name in ("items", "not", "additionalProperties"):
        yield from keywords(schema.get(name))
    for one in (*schema.get("properties", {}).values(), *schema.get("anyOf", [])):
        yield from keywords(one)


def test_it_is_openapi_3_1(document: Json) -> None:
    assert document["openapi"] == "3.1.0"
    assert {"title", "version", "description"} <= document["info"].keys()
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert operation["summary"] and set(operation["tags"]) <= tags, name
        placed = [(one["in"], one["name"]) for one in operation["parameters"]]
        assert len(placed) == len(set(placed)), name
        assert {one for place, one in placed if place == "path"} == set(re.findall(r"{(\w+)}", name)), name
        assert all(one["required"] for one in operation["parameters"] if one["in"] == "path"), name
        assert all(("schema" in one) != ("content" in one) for one in operation["parameters"]), name
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[2-5]\d\d", status) and response["description"], name
            linked = {link["operationId"] for link in response.get("links", {}).values()}
            assert linked <= set(ids), name
        for way in operation["security"]:
            assert set(way) <= document["components"]["securitySchemes"].keys(), name


def test_security_schemes_refer_to_nothing(document: Json) -> None:
    """The documentation page shows them as they are written."""
    assert "$ref" not in json.dumps(document["components"]["securitySchemes"])


def test_every_schema_is_one(document: Json) -> None:
    found = list(schemas(document))
    assert len(found) > 100
    distinct = list({json.dumps(schema): schema for schema in found}.values())
    for schema in distinct:
        jsonschema_rs.meta.validate(schema)
        assert all(KEYWORDS.fullmatch(keyword) for keyword in keywords(schema)), schema  # `ge`, for one, is none
    validators(document)({"allOf": distinct})  # every reference leads somewhere


def test_it_describes_every_route_and_nothing_else(document: Json) -> None:
    routed = set()
    for route in ROUTES:
        assert isinstance(route, Route) and route.methods
        path = route.path.replace(":path}", "}")
        if path == "/" or not path.endswith("/"):
            routed |= {f"{method} {path}" for method in route.methods - {"HEAD"}}
    bytes_of = {"HEAD /storage/{path}", "HEAD /api/v1/images/{image_id}/direct"}
    bytes_of |= {"HEAD /api/v1/images/{image_id}/source"}  # else it is said once, for all GETs
    assert {name for name, _ in operations(document)} == routed | bytes_of
    assert "HEAD" in document["info"]["description"]


def test_every_code_has_its_example() -> None:
    shown: dict[str, set[int]] = {}
    document = built(private=False)
    for name, content in [*media(document), *media(built(private=True))]:
        for code, one in content.get("examples", {}).items():
            assert one["value"]["code"] == code
            assert one["value"]["status"] == int(name.split()[-1]) == CODES[code].status
            shown.setdefault(code, set()).add(one["value"]["status"])
    of_jobs = document["components"]["schemas"]["JobStatus"]["properties"]["error_code"]["examples"]
    assert set(of_jobs) == set(JOB_CODES)
    assert shown.keys() | set(of_jobs) == CODES.keys() - NEVER_LEAVES
    assert not shown.keys() & set(of_jobs)


def test_every_example_is_valid(document: Json) -> None:
    count, validator = 0, validators(document)
    for name, content in media(document):
        check = validator(content["schema"])
        examples = [one["value"] for one in content.get("examples", {}).values()]
        for example in [*examples, *([content["example"]] if "example" in content else [])]:
            assert check.is_valid(example), (name, [error.message for error in check.iter_errors(example)])
            count += 1
    assert count > 100
    for name, header in document["components"]["headers"].items():
        assert validator(header["schema"]).is_valid(header["example"]), name


WITHOUT_EXAMPLE = {"image/webp", "image/jpeg", "application/octet-stream"}
WITHOUT_EXAMPLE |= {"text/css", "text/javascript", "image/svg+xml", "image/png"}  # of the pages


def test_every_operation_shows_a_success(document: Json) -> None:
    for name, operation in operations(document):
        good = {status: one for status, one in operation["responses"].items() if status < "400"}
        assert good, name
        for response in good.values():
            for media_type, content in response.get("content", {}).items():
                assert media_type in WITHOUT_EXAMPLE or "example" in content, name


def test_no_two_schemas_have_one_title(document: Json) -> None:
    """Generators of clients name their classes by it, and leave out the second."""
    titles = Counter(schema.get("title", name) for name, schema in document["components"]["schemas"].items())
    assert not [title for title, times in titles.items() if times > 1]


def test_generators_of_clients_understand_every_body(document: Json) -> None:
    """openapi-python-client warns of any other media type, and leaves such an answer or body out."""
    for name, operation in operations(document):
        bodies = operation.get("requestBody", {}).get("content", {})
        assert all(is_understood(one) and not one.startswith("text/") for one in bodies), name
        for response in operation["responses"].values():
            content = response.get("content", {})
            assert not content or any(map(is_understood, content)), (name, *content)


def is_understood(media_type: str) -> bool:
    known = ("application/json", "application/octet-stream", "multipart/form-data")
    return media_type in known or media_type.endswith("+json") or media_type.startswith("text/")


def test_limits_are_those_of_the_settings() -> None:
    settings = Settings(
        uploads={"max_size_mb": 3, "allowed_mime_types": ["image/png"]},  # type: ignore[arg-type]
        service={"public_url": "https://img.example/pics"},  # type: ignore[arg-type]
    )
    document = build(settings, ROUTES)
    upload = document["paths"]["/api/v1/images/upload"]["post"]
    assert set(upload["requestBody"]["content"]) == {"multipart/form-data", "application/octet-stream"}
    assert upload["requestBody"]["description"].endswith("its own: image/png.")
    refused = upload["responses"]["413"]["content"]["application/problem+json"]["examples"]["upload_too_large"]["value"]
    assert refused["detail"] == "File too large. Maximum allowed: 3MB"
    assert refused["type"] == "https://img.example/pics/errors/upload_too_large"
    assert [server["url"] for server in document["servers"]] == [".", "https://img.example/pics"]


def test_what_is_different_where_reading_is_private() -> None:
    of_org = {"images/{image_id}", "images/{image_id}/all", "images/batch", "images/jobs/{job_id}/result"}
    tokens = {f"GET /api/v1/{path}" for path in of_org}
    paths = ("/api/v1/images/{image_id}/direct", "/storage/{path}")
    signed = {f"{method} {path}" for method in ("GET", "HEAD") for path in paths}
    public, private = (dict(operations(built(private=private))) for private in (False, True))
    assert {name for name in private if private[name] != public[name]} == tokens | signed
    for name in tokens:
        assert private[name]["security"] == [{"bearer": []}]
        assert private[name]["responses"].keys() >= {"200", "401", "403", "404"} - (
            {"404"} if "batch" in name else set()
        )
    for name in signed:
        assert private[name]["security"] == [{"signature": []}]
        (expires,) = (one for one in private[name]["parameters"] if one["name"] == "expires")
        assert expires["required"]
        assert "`signature_expired`" in private[name]["responses"]["403"]["description"]
    for description in ("signature", "signature_expired", "private"):
        assert description not in json.dumps(built(private=False)["paths"])


def test_examples_of_errors_are_none_in_the_log() -> None:
    with capture_logs() as logs:
        build(Settings(), ROUTES)
    assert logs == []


async def test_it_is_served(start: Starter) -> None:
    async with start() as s:
        response = await s.http.get("/openapi.json")
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.json() == build(s.settings, ROUTES)
        for tags in (response.headers["ETag"], f'"x", W/{response.headers["ETag"]}', "*"):
            again = await s.http.get("/openapi.json", headers={"If-None-Match": tags})
            assert (again.status_code, again.content) == (304, b"")
        assert (await s.http.get("/openapi.json", headers={"If-None-Match": '"x"'})).status_code == 200


# Client generators make method names of them: a moved or renamed handler must not change one.
OPERATION_IDS = """
about_error_list
about_error_page
about_info
about_root
authorization_drop
authorization_health
browser_module
dashboard_care_page
dashboard_data
dashboard_images_page
dashboard_job_page
dashboard_jobs_page
dashboard_keys_page
dashboard_login_page
dashboard_page
dashboard_sign_on_callback
dashboard_sign_on_start
dashboard_static
dashboard_users_page
dashboard_webhooks_page
docs_asset
docs_docs
health_failed
health_health
health_live
health_stats
images_batch
images_delete
images_delete_many
images_direct
images_direct_head
images_every_size
images_info
images_list
images_source
images_source_head
images_stored
images_stored_head
images_update
jobs_events
jobs_events_of_many
jobs_result
jobs_status
metrics_exposition
openapi_document
operator_erasures_list
operator_erasures_report
operator_errors
operator_images_delete
operator_images_delete_many
operator_images_drop_sources
operator_images_image
operator_images_list
operator_images_render
operator_images_task
operator_images_task_cancel
operator_images_update
operator_jobs_job
operator_jobs_jobs
operator_keys_create
operator_keys_list
operator_keys_revoke
operator_login
operator_logout
operator_retry
operator_sessions_list
operator_sessions_revoke
operator_storage_backup
operator_storage_cancel
operator_storage_gc
operator_storage_migrate
operator_storage_task
operator_storage_verify
operator_upload_token
operator_users_erase
operator_webhooks
operator_webhooks_attempts
operator_webhooks_enable
operator_webhooks_replay
operator_webhooks_test
tickets_issue
tickets_upload
uploads_fetch
uploads_upload
usage_usage
"""


def test_operation_ids_stay(document: dict[str, Any]) -> None:
    assert sorted(operation["operationId"] for _, operation in operations(document)) == OPERATION_IDS.split()
