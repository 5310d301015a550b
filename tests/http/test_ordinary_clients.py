"""What ordinary clients and proxies send, over plain sockets to a real server."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.http.wire.dates import parsed_date
from tests.support.raw_http import UPLOAD, connected, exchange, head, is_closed, received
from tests.support.server_process import InlineServer, ServerProcess, until

pytestmark = pytest.mark.process

LIVE = "/api/v1/health/live"
INFO = "/info"
TINY = make.tiny()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("server")
    with InlineServer(folder, IMGSVC_SERVER_TRUSTED_PROXIES="127.0.0.0/8", LOG_JSON="true") as running:
        yield running
        assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def image(server: ServerProcess) -> str:
    """The path of a variant."""
    accepted = server.upload(TINY).json()
    server.job_ended(accepted["job_id"])
    return f"/api/v1/images/{accepted['image_id']}/direct?size=thumbnail"


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("6.6.6.6:1, 203.0.113.7:51234, 127.0.0.9:80", "203.0.113.7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ('"[2001:db8::7]:443"', "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("[::ffff:127.0.0.9]:443", "127.0.0.1"),  # a trusted proxy, so no other client is named
        ("203.0.113.7:x", "127.0.0.1"),
        ("[203.0.113.7", "127.0.0.1"),
        ("unknown", "127.0.0.1"),
    ],
)
def test_forwarded_address(server: ServerProcess, forwarded: str, client: str) -> None:
    trace = f"forwarded-{abs(hash(forwarded))}"
    asked = head(INFO, f"X-Forwarded-For: {forwarded}", f"X-Trace-ID: {trace}", method="GET", token=False)
    assert exchange(server, asked).status == 200

    def logged() -> list[str]:
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if trace in line]
        return [line["client"] for line in lines if line["event"] == "request"]

    assert until(logged) == [client]


def test_pages_of_other_sites_may_show_images_and_nothing_else(server: ServerProcess, image: str) -> None:
    tag = exchange(server, head(image, method="GET", token=False)).headers["etag"]
    for lines, status in (([], 200), (["Range: bytes=0-9"], 206), ([f"If-None-Match: {tag}"], 304)):
        answer = exchange(server, head(image, *lines, method="GET", token=False))
        assert (answer.status, answer.headers["cross-origin-resource-policy"]) == (status, "cross-origin")
    missing = image.replace("thumbnail", "none")
    for target, status in ((INFO, 200), (LIVE, 200), (missing, 404), ("/dashboard", 401), ("/docs", 200)):
        answer = exchange(server, head(target, method="GET", token=False))
        assert (answer.status, answer.headers["cross-origin-resource-policy"]) == (status, "same-origin"), target


@pytest.mark.parametrize(
    "form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b {day:2d} %H:%M:%S %Y", "%a, %d %b %Y %H:%M:%S GMT"]
)
def test_older_forms_of_dates(server: ServerProcess, image: str, form: str) -> None:
    modified = parsedate_to_datetime(exchange(server, head(image, method="GET")).headers["last-modified"])
    for later, since, unless in ((0, 304, 200), (-60, 200, 412), (60, 304, 200)):
        moment = modified + timedelta(seconds=later)
        text = moment.strftime(form.format(day=moment.day))
        assert exchange(server, head(image, f"If-Modified-Since: {text}", method="GET")).status == since, text
        assert exchange(server, head(image, f"If-Unmodified-Since: {text}", method="GET")).status == unless, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Sun Nov  6 08:49:37 1994", datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)),
        ("Wed Nov 16 08:49:37 1994", datetime(1994, 11, 16, 8, 49, 37, tzinfo=UTC)),
        ("Friday, 06-Nov-76 08:49:37 GMT", datetime(2076, 11, 6, 8, 49, 37, tzinfo=UTC)),  # 50 years ahead
        ("Sunday, 06-Nov-77 08:49:37 GMT", datetime(1977, 11, 6, 8, 49, 37, tzinfo=UTC)),  # 51, so it is over
        ("Sun Nov 31 08:49:37 1994", None),
        ("Sun Nox  6 08:49:37 1994", None),
        ("Sun Nov  6 08:49:37 94", None),
        ("Sunday, 06-Nov-94 25:49:37 GMT", None),
        ("Sunday, 06-Nov-94 08:49:37", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_dates(text: str, expected: datetime | None) -> None:
    assert parsed_date(text, datetime(2026, 11, 26, tzinfo=UTC)) == expected


def test_length_beside_transfer_encoding_ends_the_connection(server: ServerProcess) -> None:
    lines = ["Content-Type: image/jpeg", "Transfer-Encoding: chunked"]
    for more in (["Content-Length: 5"], ["Content-Length : 5"], ["content-LENGTH: 5", "Content-Length: 5"]):
        with connected(server) as connection:
            connection.sendall(head(UPLOAD, *lines, *more) + b"0\r\n\r\n" + head(LIVE, method="GET"))
            answer = received(connection)
            assert (answer.status, answer.closed) == (400, True)
            assert is_closed(connection)


def test_large_metadata_beside_a_large_token(server: ServerProcess) -> None:
    """Each of 16 KiB: the answer is about the token, and not about the size of the head."""
    large = [f"Authorization: Bearer {'x' * 16_384}", f'X-Metadata: {{"a": "{"x" * 16_300}"}}']
    answer = exchange(server, head(f"{UPLOAD}?bucket=b", *large, "Content-Length: 0", token=False))
    assert answer.status == 401


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize(("kilobytes", "status"), [(63, 200), (65, 431), (200, 431)])
def test_size_of_a_head_however_it_arrives(server: ServerProcess, pieces: int, kilobytes: int, status: int) -> None:
    asked = head(LIVE, f"X-Large: {'x' * kilobytes * 1024}", method="GET", token=False)
    with connected(server) as connection:
        size = -(-len(asked) // pieces)
        try:
            for start in range(0, len(asked), size):
                connection.sendall(asked[start : start + size])
        except ConnectionError:
            assert status == 431
        assert received(connection).status == status


@pytest.mark.parametrize(("before", "status"), [(b"\r\n", 200), (b"\r\n\r\n", 400), (b"\n", 400)])
def test_one_empty_line_before_a_request_is_ignored(server: ServerProcess, before: bytes, status: int) -> None:
    assert exchange(server, before + head(LIVE, method="GET")).status == status


def test_empty_line_behind_a_body_is_ignored(server: ServerProcess) -> None:
    """Some clients have sent one behind a form."""
    with connected(server) as connection:
        connection.sendall(head(RAW, "Content-Type: image/jpeg", f"Content-Length: {len(TINY)}") + TINY + b"\r\n")
        assert received(connection).status == 202
        connection.sendall(head(LIVE, method="GET"))
        assert received(connection).status == 200


RAW = f"{UPLOAD}?bucket=b"
CURL = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Content-Type:"],
        ["Content-Type: application/octet-stream"],
        ["Content-Type: binary/octet-stream"],
        ["Content-Type: Application/Octet-Stream; name=a"],
        ["Content-Type: image/png"],  # it is a JPEG
        ["Content-Type: image/jpeg", "Content-Encoding: identity"],
        ["Content-Type: image/jpeg", "Content-Encoding:"],
    ],
)
def test_raw_body_is_taken_for_what_it_is(server: ServerProcess, lines: list[str]) -> None:
    answer = exchange(server, head(RAW, *lines, f"Content-Length: {len(TINY)}") + TINY)
    assert answer.status == 202, answer.body
    words = b"only words " * 60
    answer = exchange(server, head(RAW, *lines, f"Content-Length: {len(words)}") + words)
    assert (answer.status, answer.json["code"]) == (415, "unsupported_type")


def test_type_that_curl_sends_by_itself_is_named(server: ServerProcess) -> None:
    answer = exchange(server, head(RAW, CURL, f"Content-Length: {len(TINY)}") + TINY)
    assert (answer.status, answer.json["code"]) == (422, "validation_error")
    assert (
        "what curl sends with --data" in answer.json["reason"] and "Content-Type: image/jpeg" in answer.json["reason"]
    )
    answer = exchange(server, head(RAW, "Content-Type: text/plain", "Content-Length: 1") + b"x")
    assert answer.json["reason"].endswith("not text/plain")
    answer = exchange(server, head(UPLOAD, "Content-Length: 1") + b"x")
    assert answer.json["reason"].startswith("bucket: Field required; without a Content-Type")


@pytest.mark.parametrize("encoding", ["gzip", "identity, gzip", "BR", "deflate", "zstd", "x-gzip"])
def test_encoded_body(server: ServerProcess, encoding: str) -> None:
    form = "Content-Type: multipart/form-data; boundary=edge"
    for kind in ("Content-Type: image/jpeg", "Content-Type: application/octet-stream", form):
        answer = exchange(
            server, head(RAW, kind, f"Content-Encoding: {encoding}", "Content-Length: 4") + b"\x1f\x8b\x08\0"
        )
        assert (answer.status, answer.json["code"]) == (415, "encoding_not_supported")
        assert answer.headers["accept-encoding"] == "identity"
        assert answer.json["detail"].count("Content-Encoding") == 1


def test_encoded_json(server: ServerProcess) -> None:
    lines = [
        "Content-Type: application/json",
        "Content-Encoding: gzip",
        "Content-Length: 2",
        "Origin: http://localhost",
    ]
    answer = exchange(server, head("/api/v1/operator/login", *lines, token=False) + b"{}")
    assert (answer.status, answer.json["code"]) == (415, "encoding_not_supported")
