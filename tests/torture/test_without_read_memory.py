"""The tests of the wire once more with `[server] cache_mb = 0`: the memory of reads changes no answer."""

import os
import subprocess
import sys

import pytest

from tests.conftest import CACHE
from tests.support.server_process import ROOT

pytestmark = pytest.mark.torture

OF_THE_MEMORY = ("tests/http/test_private_memory.py", "tests/http/test_docs.py")  # the latter takes a browser


@pytest.mark.parametrize("room", ["http", "storage"])
def test_wire_without_the_memory_of_reads(room: str) -> None:
    ignored = [f"--ignore={path}" for path in OF_THE_MEMORY]
    command = [sys.executable, "-m", "pytest", "-q", f"tests/{room}", *ignored]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, CACHE: "0"}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
