"""Fixtures of the tests of the papers."""

from pathlib import Path

import pytest

from tests.support.papers import make_clone


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("clone"))
