"""A process for the scripts that build and enter a cage."""

from collections.abc import Iterator

import pytest

from tests.support.caged_child import Scripts


@pytest.fixture(scope="session")
def script() -> Iterator[Scripts]:
    scripts = Scripts()
    yield scripts
    scripts.close()
