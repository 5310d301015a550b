"""multipart/form-data as ordinary clients write it, over plain sockets to a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.http.wire.disposition import part_names
from imgsvc.http.wire.first_boundary import MAX_PREAMBLE, FirstBoundary
from tests.support.raw_http import UPLOAD, Answer, connected, exchange, head, received
from tests.support.server_process import InlineServer, ServerProcess, bearer

TINY = make.tiny()
FILE = b'Content-Disposition: form-data; name="file"; filename="photo.jpg"'
BUCKET = b'Content-Disposition: form-data; name="bucket"\r\n\r\nb\r\n'
END = b"\r\n--edge--\r\n"
process = pytest.mark.process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("server")
    with InlineServer(folder) as running:
        yield running
        assert "Traceback" not in running.log.read_text()


def form(*, before: bytes = b"", padding: bytes = b"", later: bytes = b"", headers: bytes = FILE) -> bytes:
    file_part = headers + b"\r\n\r\n" + TINY
    return before + b"--edge" + padding + b"\r\n" + BUCKET + b"--edge" + later + b"\r\n" + file_part + END


def posted(server: ServerProcess, body: bytes, pieces: int = 1) -> Answer:
    request = head(UPLOAD, "Content-Type: multipart/form-data; boundary=edge", f"Content-Length: {len(body)}")
    if pieces == 1:
        return exchange(server, request + body)
    with connected(server) as connection:
        connection.sendall(request)
        for start in range(0, len(body), pieces):
            connection.sendall(body[start : start + pieces])
        return received(connection)


@process
@pytest.mark.parametrize("pieces", [1, 50])
@pytest.mark.parametrize(
    "body",
    [
        form(before=b"This is a multi-part message in MIME format.\r\n"),
        form(before=b"\r\n"),
        form(before=b"\r\n\r\n"),
        form(before=b"--other\r\n--edge-not\r\n --edge\r\ntext--edge\r\n"),
        form(before=b"\r\n--ed\r\n--\r\n"),
        form(before=b"x" * 60_000 + b"\r\n"),
        form(padding=b" "),
        form(padding=b" \t" * 40),
        form(later=b"\t  "),
        form(before=b"preamble\r\n", padding=b"\t", later=b" "),
        form() + b"epilogue\r\n--edge\r\n",
        form().removesuffix(b"\r\n"),
        form(headers=FILE + b"".join(b"\r\nX-Header-%d: x" % number for number in range(31))),
    ],
    ids=range(13),
)
def test_forms_that_are_taken(server: ServerProcess, body: bytes, pieces: int) -> None:
    answer = posted(server, body, pieces)
    assert answer.status == 202, answer.body


@process
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (form().replace(b"\r\n", b"\n"), "LF alone"),
        (b"text\n" + form().replace(b"\r\n", b"\n"), "LF alone"),
        (form().replace(b"\r\n\r\nb", b"\n\nb"), "LF alone"),
        (form().replace(b"\r\n\r\nb", b"\r\n\nb"), "LF alone"),
        (form().replace(b"\r\n--edge--\r\n", b"\n--edge--\n"), "LF alone"),
        (form(padding=b" ").replace(b" \r\n", b" \n"), "LF alone"),
        (form(later=b" ").replace(b" \r\n", b" \n"), "LF alone"),
        (b"x" * (MAX_PREAMBLE + 1) + b"\r\n" + form(), f"no boundary in its first {MAX_PREAMBLE} bytes"),
        (form().replace(b"edge", b"other"), "ends before its first boundary"),
        (form()[:-20], "ends before its last boundary"),
        (form(headers=FILE + b"\r\nX: x" * 32), "is malformed"),
    ],
    ids=range(11),
)
def test_forms_that_are_refused_in_words(server: ServerProcess, body: bytes, reason: str) -> None:
    answer = posted(server, body)
    assert (answer.status, answer.json["detail"]) == (422, "Validation error")
    assert reason in answer.json["reason"]
    assert answer.json["details"][0]["msg"] == answer.json["reason"]


@process
def test_missing_fields_are_named_beside_those_that_are_there(server: ServerProcess) -> None:
    image = form().replace(b'"file"', b'"image"')
    answer = posted(server, image)
    assert answer.json["reason"] == "file: Field required; found the fields: bucket, image"
    answer = posted(server, form().replace(b'"bucket"', b'"folder\x1b[2J"'))
    assert answer.json["reason"] == "bucket: Field required; found the fields: folder[2J, file"
    answer = posted(server, b"--edge--\r\n")
    assert answer.json["reason"] == "file: Field required; found no fields"


@process
def test_extended_filename_is_kept(server: ServerProcess) -> None:
    headers = FILE + b"; filename*=UTF-8''%e2%82%ac%20rates.jpg"
    receipt = posted(server, form(headers=headers)).json
    server.job_ended(receipt["job_id"])
    result = server.http.get(f"{server.url}{receipt['status_url']}/result", headers=bearer()).json()
    assert result["metadata"]["original_filename"] == "€ rates.jpg"


@pytest.mark.parametrize(
    ("parameters", "filename"),
    [
        (b"filename=photo.jpg", "photo.jpg"),
        (b"filename*=UTF-8''na%C3%AFve%20file.jpg", "naïve file.jpg"),
        (b"filename*=utf-8'en-GB'%C2%A3.jpg", "£.jpg"),
        (b"filename*=ISO-8859-1''%A3.jpg", "£.jpg"),
        (b"filename*=\"UTF-8''%C2%A3.jpg\"", "£.jpg"),
        (b"filename=\"plain.jpg\"; filename*=UTF-8''%C2%A3.jpg", "£.jpg"),
        (b"FileName*=UTF-8''%C2%A3.jpg; filename=\"plain.jpg\"", "£.jpg"),
        (b"filename = \"plain.jpg\" ; filename* = UTF-8''%C2%A3.jpg", "£.jpg"),
        (b"filename*=UTF-8''..%2F..%5Cetc%2Fpasswd", "passwd"),
        (b"filename*=UTF-8''a%0D%0A%00b.jpg", "ab.jpg"),
        (b"filename=\"plain.jpg\"; filename*=UTF-8''%ff", "plain.jpg"),  # not UTF-8
        (b"filename=\"plain.jpg\"; filename*=UTF-8''%zz", "plain.jpg"),
        (b"filename=\"plain.jpg\"; filename*=koi8-r''%C2.jpg", "plain.jpg"),
        (b'filename="plain.jpg"; filename*=%C2%A3.jpg', "plain.jpg"),
        (b"filename=\"a; filename*=UTF-8''b.jpg\"", "a; filename*=UTF-8''b.jpg"),
        (b'filename="a%22b%0D%0a.jpg"', 'a"b.jpg'),
        (b'filename="a\\"b.jpg"', 'a"b.jpg'),
        (b'filename="100%25 %41.jpg"', "100%25 %41.jpg"),  # only a quote, CR and LF are escaped
        (b'filename="\xc3\xa4.jpg"', "ä.jpg"),
        (b'filename="C:\\photos\\ant.jpg"', "ant.jpg"),
        (b'filename=""', ""),
    ],
)
def test_names_of_files(parameters: bytes, filename: str) -> None:
    assert part_names(b'form-data; name="file"; ' + parameters) == ("file", filename)


def test_first_boundary_wherever_the_body_is_cut() -> None:
    body = b"preamble\r\n--edgy\r\n--edge \t\r\nrest\r\n--edge--"
    for first in range(len(body)):
        for second in range(first, len(body)):
            opening = FirstBoundary(b"edge")
            parts = [opening.after(piece) for piece in (body[:first], body[first:second], body[second:])]
            assert b"".join(parts) == b"--edge\r\nrest\r\n--edge--"
