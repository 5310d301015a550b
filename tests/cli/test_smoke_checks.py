"""What the smoke test of a foreign instance fetches may be anything: it is refused in words."""

import pytest

from imgsvc.cli.smoke.checks import check_no_metadata
from imgsvc.cli.smoke.http_client import Unexpected


def webp(chunk: bytes) -> bytes:
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


@pytest.mark.parametrize(
    "data",
    [b"", b"RIFF", webp(b"VP8X\0\0\0\0"), webp(b"VP8X\x0a\0\0\0\x08" + bytes(9)), webp(b"EXIF\0\0\0\0")],
    ids=["empty", "cut off", "header without flags", "flag of EXIF", "EXIF"],
)
def test_other_bytes_than_a_bare_picture(data: bytes) -> None:
    with pytest.raises(Unexpected):
        check_no_metadata(data)
