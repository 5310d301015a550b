"""The private parts of the standard library that the lanes' pool touches: a Python that changes them says so here."""

import shutil
import subprocess
import sys

import pytest

from tests.support.server_process import ROOT

SCRIPT = "from tests.jobs.lanes import standard_pool; standard_pool.main()"


@pytest.mark.parametrize("python", [sys.executable, "python3.11", "python3.12", "python3.13", "python3.14"])
def test_pool_of_the_standard_library_is_what_the_context_expects(python: str) -> None:
    """For the Python of this run, and for others that are installed."""
    if python != sys.executable and not starts(python):
        pytest.skip(f"{python} is not installed")
    command = [python, "-W", "error", "-c", SCRIPT]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stdout + ran.stderr[-2000:]


def starts(python: str) -> bool:
    return bool(shutil.which(python)) and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
