"""The operator's commands against a real server, and on a data folder without a service."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from fixtures import make
from imgsvc.access.operator_auth import TOKEN_FILE
from tests.support.processes import run
from tests.support.server_process import ROOT, InlineServer, ServerProcess

pytestmark = pytest.mark.process
TINY = make.tiny()
UNKNOWN = "00000000-0000-4000-8000-000000000000"


def imgsvc(server: ServerProcess, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command with the server's own settings."""
    return server.run(*arguments, **environment)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with InlineServer(tmp_path_factory.mktemp("commands"), IMGSVC_JOBS_MAX_ATTEMPTS="1") as one:
        yield one


def failed_job(server: ServerProcess) -> str:
    """A job that failed because its bucket is a file, which is gone by now."""
    bucket = server.folder / "storage" / "b"
    bucket.write_bytes(b"")
    job_id = str(server.upload(TINY).json()["job_id"])
    assert server.job_ended(job_id)["status"] == "failed"
    bucket.unlink()
    return job_id


def test_health_and_link_and_jobs_of_a_running_service(server: ServerProcess) -> None:
    assert server.run("health", real="one command as it is started everywhere").stdout == "alive\n"
    link = imgsvc(server, "dashboard").stdout.strip()
    address, _, code = link.partition("/dashboard#code=")
    assert address == server.url
    login = f"{server.url}/api/v1/operator/login"
    assert [httpx.post(login, json={"code": code}).status_code for _ in range(2)] == [204, 401]

    job_id = failed_job(server)
    listed = json.loads(imgsvc(server, "jobs", "list", "--status", "failed", "--json").stdout)
    assert [(job["job_id"], job["can_retry"], job["user_id"]) for job in listed] == [(job_id, True, "alice")]
    table = imgsvc(server, "jobs", "list").stdout
    assert job_id in table and "The image could not be stored. (can be retried)" in table
    shown = json.loads(imgsvc(server, "jobs", "show", job_id, "--json").stdout)
    assert (shown["status"], shown["events"][0]["event"]) == ("failed", "failed")
    assert "audit trail" in imgsvc(server, "jobs", "show", job_id).stdout

    retried = imgsvc(server, "jobs", "retry", job_id, UNKNOWN, "x")
    assert (retried.returncode, retried.stdout) == (1, f"{job_id}: waits for its turn\n")
    assert retried.stderr == f"imgsvc: {UNKNOWN}: Job not found\nimgsvc: x: Job not found\n"
    assert server.job_ended(job_id)["status"] == "completed"
    again = imgsvc(server, "jobs", "retry", job_id)
    assert (again.returncode, again.stdout) == (1, "") and "its status is completed" in again.stderr


def test_commands_reach_a_service_that_answers_for_other_names_only(tmp_path: Path) -> None:
    with InlineServer(
        tmp_path, IMGSVC_SERVER_ALLOWED_HOSTS="img.example", PUBLIC_URL="https://img.example/p"
    ) as server:
        assert imgsvc(server, "health").returncode == 0
        assert imgsvc(server, "jobs", "list").stdout == "No jobs.\n"
        assert imgsvc(server, "dashboard").stdout.startswith("https://img.example/p/dashboard#code=")
        wrong = imgsvc(server, "jobs", "list", OPERATOR_TOKEN="x" * 40)
        assert (wrong.returncode, wrong.stdout) == (1, "") and "The operator's token is wrong" in wrong.stderr


def test_without_a_service_the_data_folder_itself_is_asked(tmp_path: Path) -> None:
    with InlineServer(tmp_path, IMGSVC_JOBS_MAX_ATTEMPTS="1") as server:
        job_id = failed_job(server)
        assert server.stop() == 0
        for arguments in (["health"], ["dashboard"]):
            answer = imgsvc(server, *arguments)
            assert answer.returncode == 1 and "no service runs on the data folder" in answer.stderr
        (listed,) = json.loads(imgsvc(server, "jobs", "list", "--json").stdout)
        assert (listed["job_id"], listed["status"]) == (job_id, "failed")
        assert json.loads(imgsvc(server, "jobs", "show", job_id, "--json").stdout)["events"]
        assert imgsvc(server, "jobs", "show", UNKNOWN).stderr == "imgsvc: Job not found\n"
        retried = imgsvc(server, "jobs", "retry", job_id)
        assert (retried.returncode, retried.stdout) == (0, f"{job_id}: waits for the next start of the service\n")
        assert imgsvc(server, "jobs", "retry", job_id).returncode == 1
        server.start()
        assert server.job_ended(job_id)["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["jobs", "list"], 1, "there is no database at"),
        (["jobs", "list", "--status", "lost"], 2, "must be one of pending, processing"),
        (["jobs", "list", "--limit", "0"], 2, "--limit"),
        (["permissions", "drop", "org", "user"], 1, "no service runs on the data folder"),
        (["permissions", "drop", "org", ""], 2, "ORG and USER must not be empty"),
        (["permissions", "drop", "org"], 2, "USER"),
        (["health", "--config", "absent.toml"], 2, "there is no such file"),
    ],
)
def test_what_goes_wrong_is_one_line(tmp_path: Path, arguments: list[str], status: int, words: str) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    answer = run(arguments, folder=tmp_path, environ=environ)
    assert (answer.returncode, answer.stdout) == (status, "")
    assert words in re.sub(r"\s+", " ", answer.stderr)
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "data" / "imgsvc.db").exists()


def test_permissions_of_a_user_are_dropped(tmp_path: Path) -> None:
    class Grants(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    asked: list[dict[str, str]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Grants) as grants:
        Thread(target=grants.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{grants.server_port}"
        with InlineServer(tmp_path, AUTH_PERMISSIONS="remote", AUTH_API_URL=url) as server:
            for user in ("alice", "../a b:c/%2F", "alice"):
                assert server.upload(TINY, user).status_code == 202
            for user, known in (("../a b:c/%2F", 1), ("../a b:c/%2F", 0), ("alice", 1)):
                dropped = imgsvc(server, "permissions", "drop", "default-org", user)
                assert (dropped.returncode, dropped.stdout) == (0, f"{known} cached decisions dropped\n")
            assert server.upload(TINY).status_code == 202
            assert server.stop() == 0
        grants.shutdown()
    assert [one["user_id"] for one in asked] == ["alice", "../a b:c/%2F", "alice"]


def test_nobody_who_is_no_person_gets_a_link(server: ServerProcess) -> None:
    """The start's output ends in a log: it tells how to get a link, and holds no code and no token."""
    assert server.process.stdout
    said = [server.process.stdout.readline() for _ in range(3)]
    assert said[2].startswith("dashboard           http") and "dashboard prints a link" in said[2]
    token = (server.folder / "data" / TOKEN_FILE).read_text().strip()
    for hidden in ("#code=", token):
        assert hidden not in "".join(said) and hidden not in server.log.read_text()


def test_person_at_a_terminal_gets_a_link(tmp_path: Path) -> None:
    try:
        ours, theirs = os.openpty()
    except OSError as error:  # a chroot or a container without /dev/pts
        pytest.skip(f"this system gives out no terminals: {error}")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "IMGSVC_WORKERS_COUNT": "1"}
    line = [sys.executable, "-m", "imgsvc", "serve", "--port", "0"]
    with subprocess.Popen(line, cwd=tmp_path, env=environ, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        said = ""
        while "\r\n" not in said.partition("dashboard  ")[2]:
            said += os.read(ours, 4096).decode()
        link = re.search(r"(http\S+)/dashboard#code=(\S+)", said)
        assert link
        login = httpx.post(f"{link[1]}/api/v1/operator/login", json={"code": link[2]})
        process.terminate()
        assert process.wait(30) == 0
    os.close(ours)
    assert login.status_code == 204
