"""What is made once for all processes of a run of the tests."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.once import RUN, forget, once


@pytest.fixture(autouse=True)
def run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN, "this-run")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_four_that_ask_at_once_get_what_the_first_made() -> None:
    made: list[bytes] = []

    def make() -> bytes:
        made.append(b"%d" % len(made))
        return made[-1]

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: once("name", make), range(4))) == {b"0"}
    assert once("another", make) == b"1"


def test_what_could_not_be_made_is_tried_again() -> None:
    def fail() -> bytes:
        raise OSError

    with pytest.raises(OSError):
        once("name", fail)
    assert once("name", lambda: b"made") == b"made"


def test_nothing_is_left(tmp_path: Path) -> None:
    once("name", lambda: b"made")
    assert list(tmp_path.iterdir())
    forget()
    assert list(tmp_path.iterdir()) == []
