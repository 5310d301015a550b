"""`imgsvc upload` against a real server: many files, once each, gone on with after a kill."""

import fcntl
import json
import os
import signal
from pathlib import Path

import pytest

from fixtures import make
from tests.support.processes import begin, run
from tests.support.server_process import ROOT, InlineServer, ServerProcess, bearer

pytestmark = pytest.mark.process
FILES = 30


def environ(folder: Path) -> dict[str, str]:
    token = bearer()["Authorization"].removeprefix("Bearer ")
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "IMGSVC_TOKEN": token,
    }


def uploaded(served: ServerProcess, folder: Path, *arguments: str, status: int = 0) -> list[dict[str, object]]:
    command = ("upload", "--server", served.url, "--json", *arguments)
    ran = run(command, folder=folder, environ=environ(folder))
    assert ran.returncode == status, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_each_file_once(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    for number in range(FILES):
        (photos / ("below" if number % 2 else ".") / f"{number}.jpg").write_bytes(make.tiny(seed=number))
    (photos / "notes.txt").write_text("no picture")
    (tmp_path / "served").mkdir()
    with InlineServer(tmp_path / "served") as served:
        command = ("upload", "--server", served.url, "--json", "--parallel", "1", "-r", str(photos))
        killed = begin(command, folder=tmp_path, environ=environ(tmp_path))
        assert killed.stdout and killed.stderr
        with killed.stdout, killed.stderr:
            fcntl.fcntl(killed.stdout, fcntl.F_SETPIPE_SZ, 4096)  # it waits at some ten lines that nobody reads
            for _ in range(2):
                killed.stdout.readline()
            killed.kill()
            assert killed.wait() == -signal.SIGKILL
        found = uploaded(served, tmp_path, "-r", str(photos))
        assert len(found) == FILES and all(one["error"] is None and one["urls"] for one in found)
        assert sum(bool(one["again"]) for one in found) >= 2
        again = uploaded(served, tmp_path, "-r", str(photos))
        assert all(one["again"] for one in again)
        assert {one["image_id"] for one in again} == {one["image_id"] for one in found}
        gone = str(again[0]["image_id"])
        assert served.http.delete(f"{served.url}/api/v1/images/{gone}", headers=bearer()).status_code == 200
        (anew,) = uploaded(served, tmp_path, str(again[0]["file"]))
        assert anew["image_id"] != gone and not anew["again"]
        (wrong,) = uploaded(served, tmp_path, str(photos / "notes.txt"), status=1)
        assert "Unsupported file type" in str(wrong["error"])
        for arguments in ((str(photos),), (str(tmp_path / "absent.jpg"),)):
            assert uploaded(served, tmp_path, *arguments, status=2) == []
