"""schemathesis against a real server: what the document allows must be answered as it says, all else refused."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from imgsvc.access.tokens import Tokens
from tests.support.server_process import ROOT, SECRET, InlineServer, ServerProcess
from tests.support.speed import seconds

pytestmark = pytest.mark.process

LIMIT_SECONDS = 120
WEBHOOK = {
    "name": "known",
    "url": "https://hooks.example.invalid/",
    "secret": "whsec_" + "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
}
# Their ends are elsewhere: a sign-in provider, and hosts to fetch from. They are off here. Kept sources are dropped by
# the operator's order, which comes first.
SOURCE = "/api/v1/images/{image_id}/source"
OFF = {"GET /dashboard/oidc/start", "GET /dashboard/oidc/callback", "POST /api/v1/images/fetch"}
OFF |= {f"GET {SOURCE}", f"HEAD {SOURCE}"}
OPERATOR = "operator-0123456789abcdef0123456789abcdef"
# The usual ones, and those of a condition or range that is well formed and not met.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "416"]

# Unknown parameters of an upload are ignored, and a form that the hooks change is judged anew: its photo is no string.
[[operations]]
include-name = "POST /api/v1/images/upload"
checks.negative_data_rejection.expected-statuses = ["202", "400", "401", "403", "404", "406", "413", "415", "422"]

[[operations]]
include-name = "POST /api/v1/images/tickets/{{ticket}}"
checks.negative_data_rejection.expected-statuses = ["202", "400", "401", "403", "404", "406", "413", "415", "422"]

# Which sizes there are is in the settings, not in the document.
[[operations]]
include-name = "POST /api/v1/operator/images/render"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "409", "422"]

[auth.openapi.bearer]
bearer = "{user}"

[auth.openapi.operator_bearer]
bearer = "{operator}"
"""


@dataclass
class Run:
    """One run of schemathesis: what it printed, and the status codes that each operation answered with."""

    status: int
    printed: str
    answers: dict[str, Counter[int]]

    @property
    def cases(self) -> int:
        return sum(sum(answers.values()) for answers in self.answers.values())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    environment = {
        "IMGSVC_SERVER_TRUSTED_PROXIES": "127.0.0.1",
        "IMGSVC_JOBS_MAX_ATTEMPTS": "1",
        "LOG_LEVEL": "WARNING",
        "IMGSVC_WEBHOOKS": json.dumps([WEBHOOK]),
    }
    with InlineServer(tmp_path, OPERATOR_TOKEN=OPERATOR, **environment) as one:
        yield one


def attack(server: ServerProcess, *options: str, limit: float = LIMIT_SECONDS) -> Run:
    """Every check on, valid and invalid data; the same requests each time."""
    failed = _failed(server)
    kept, gone, gone_by_operator = (_completed(server) for _ in range(3))
    known = {"GET": kept, "DELETE": gone, "operator": gone_by_operator | _key(server), "retry": failed}
    (server.folder / "schemathesis.toml").write_text(
        CONFIGURATION.format(user=Tokens(SECRET, "HS256").issue("alice"), operator=OPERATOR)
    )
    report = server.folder / "report.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    options = ("--checks=all", "--mode=all", "--no-color", "--warnings=off", "--report=ndjson", *options)
    done = subprocess.run(
        [*command, *options, f"--report-ndjson-path={report}"],
        cwd=server.folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".pytest_cache/hypothesis"),  # tables of Unicode
            "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks",
            "IMGSVC_TEST_URL": server.url,
            "IMGSVC_TEST_OPERATOR": OPERATOR,
            "IMGSVC_TEST_BACKUP": str(server.folder / "backup"),
            "IMGSVC_TEST_KNOWN": json.dumps(known),
        },
        capture_output=True,
        text=True,
        timeout=seconds(limit),
        check=False,
    )
    return Run(done.returncode, done.stdout + done.stderr, _answers(report))


def _completed(server: ServerProcess) -> dict[str, str]:
    """Path parameters that lead to a completed image."""
    receipt = server.upload(make.tiny()).json()
    assert server.job_ended(receipt["job_id"])["status"] == "completed"
    url = server.http.get(f"{server.url}/api/v1/images/{receipt['image_id']}").json()["url"]
    path = url.removeprefix("/storage/")
    known = {"code": "not_found", "asset": "docs.js", "name": "overview.js", "webhook": WEBHOOK["name"]}
    return {**receipt, **known, "path": path}


def _key(server: ServerProcess) -> dict[str, str]:
    """An API key that may be revoked."""
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    wanted = {"name": "gone", "sub": "bob"}
    created = server.http.post(f"{server.url}/api/v1/operator/keys", json=wanted, headers=headers).json()
    return {"key_id": created["key_id"]}


def _failed(server: ServerProcess) -> dict[str, str]:
    """One that leads to a job which failed because its bucket was a file."""
    bucket = server.folder / "storage" / "b"
    bucket.write_bytes(b"")
    job_id = server.upload(make.tiny()).json()["job_id"]
    assert server.job_ended(job_id)["status"] == "failed"
    bucket.unlink()
    return {"job_id": job_id}


def _answers(report: Path) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = {}
    for line in report.read_text().splitlines():
        recorder: dict[str, Any] = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for interaction in (recorder.get("interactions") or {}).values():
            if interaction["response"]:
                status = interaction["response"]["status_code"]
                label = f"{interaction['request']['method']} {recorder['label'].split()[-1]}"
                found.setdefault(label, Counter())[status] += 1
    return found


def documented(server: ServerProcess) -> set[str]:
    paths = server.http.get(f"{server.url}/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_nothing_is_found(server: ServerProcess) -> None:
    """By the examples of the document and the limits of its schemas, the same ones each time.

    Drawing data at random takes as long again, and is for ./run torture.
    """
    run = attack(server, "--phases=examples,coverage", "--generation-deterministic")
    assert run.status == 0, run.printed
    assert re.search(r"(\d+) generated, \1 passed", run.printed), run.printed
    assert run.cases > 2000
    for operation in documented(server) - OFF:
        answers = run.answers[operation]
        assert any(status < 300 for status in answers), (operation, answers)  # what is allowed got through
    assert all(run.answers["POST /api/v1/images/upload"][status] for status in (202, 401, 422))
    failed = [line for line in server.log.read_text().splitlines() if "request_failed" in line or "Traceback" in line]
    assert failed == []


@pytest.mark.torture
def test_long_run(server: ServerProcess) -> None:
    run = attack(server, "--max-examples=400", limit=1800)
    assert run.status == 0, run.printed
