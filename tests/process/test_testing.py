"""The double for other people's tests, as they use it."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import pytest

import imgsvc.testing
from tests.support.speed import seconds

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, imgsvc.testing
async def main():
    async with imgsvc.testing.client(storage="memory") as client:
        receipt = (await client.upload(imgsvc.testing.picture(), album="a")).json()
        job = await client.ready(receipt["job_id"])
        print(job["status"], len(job["ready"]))
asyncio.run(main())
"""


@pytest.mark.parametrize("storage", ["local", "memory"])
@pytest.mark.parametrize("processes", [False, True])
async def test_client(
    storage: Literal["local", "memory"], processes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with imgsvc.testing.client(storage=storage, processes=processes) as client:
        answer = await client.upload(imgsvc.testing.picture(colour="#2040c0"), album="summer")
        job = await client.ready(answer.json()["job_id"])
        result = (await client.get(f"/api/v1/images/jobs/{job['job_id']}/result")).json()
        assert result["metadata"]["album"] == "summer"
        assert result["metadata"]["original_dimensions"] == {"width": 320, "height": 200}
        direct = await client.get(f"/api/v1/images/{job['image_id']}/direct?size=thumbnail")
        assert direct.content[8:12] == b"WEBP"
        assert (await client.delete(f"/api/v1/images/{job['image_id']}")).json()["files_removed"] >= 4
    assert list(tmp_path.iterdir()) == []


async def test_failed_job_is_an_assertion() -> None:
    async with imgsvc.testing.client() as client:
        answer = await client.upload(imgsvc.testing.picture(1000, 800)[:-500])
        with pytest.raises(AssertionError, match="ends after"):
            await client.ready(answer.json()["job_id"])


OPTIONS = ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"]
SOMEBODYS_TEST = """
import pytest_asyncio

import imgsvc.testing

async def test_upload(imgsvc_client):
    receipt = (await imgsvc_client.upload(imgsvc.testing.picture())).json()
    assert (await imgsvc_client.ready(receipt["job_id"]))["status"] == "completed"

@pytest_asyncio.fixture
async def tiny():
    async with imgsvc.testing.client(images={"sizes": {"tiny": 32}}) as client:
        yield client

async def test_fixture_of_ones_own(tiny):
    assert (await tiny.get("/info")).json()["processing"]["image_sizes"] == {"tiny": 32}
"""


def test_fixture_in_somebodys_own_suite(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["imgsvc.testing"]\n')
    (tmp_path / "test_theirs.py").write_text(SOMEBODYS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", *OPTIONS, "-p", "no:cacheprovider"]
    environ = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=seconds(60))
    assert ran.returncode == 0 and "2 passed" in ran.stdout, ran.stdout


@pytest.mark.parametrize("how", ["stdin", "unguarded script"])
def test_works_without_a_main_module(tmp_path: Path, how: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "error"] + ([] if how == "stdin" else [str(script)])
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        input=SCRIPT if how == "stdin" else None,
        capture_output=True,
        text=True,
        timeout=seconds(60),
    )
    assert "completed 4" in ran.stdout.splitlines(), ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]
