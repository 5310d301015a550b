"""What a start and a command load: each of these costs every start 50 ms or more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("code", "spared"),
    [
        ("import imgsvc.cli.main", "structlog httpx pydantic rich pygments starlette"),
        ("import imgsvc.cli.service_client", "rich pygments prometheus_client starlette psutil"),
        ("import imgsvc.cli.callers_images", "rich pygments click starlette pydantic"),
        ("import imgsvc.cli.jobs, imgsvc.cli.maintenance_offline", "starlette prometheus_client psutil"),
        ("import imgsvc.jobs.data_folder", "prometheus_client psutil httpx starlette"),
        (
            "import imgsvc.cli.main\nwith imgsvc.cli.main.without('rich'): import imgsvc.service.server",
            "rich pygments httpx redis PIL imgsvc.jobs.cluster.lane imgsvc.http.dashboard.page "
            "imgsvc.http.operator.sessions",
        ),
        (
            "import imgsvc.jobs.lanes.warm, imgsvc.jobs.lanes.task",
            "structlog pydantic httpx starlette rich asyncio importlib.metadata email",
        ),
    ],
)
def test_spared(code: str, spared: str) -> None:
    script = f"import sys\n{code}\nprint(*sorted(sys.modules.keys() & {set(spared.split())}))"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.returncode) == ("\n", 0), ran.stderr


def test_what_was_spared_can_still_be_imported() -> None:
    script = "import imgsvc.cli.service_client, rich.console, pygments, click, httpx; httpx.Client"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-W", "error", "-c", script], env=environ, check=True, timeout=60)


BUILT = """
import imgsvc.service.server
from pydantic import BaseModel

def below(model):
    for one in model.__subclasses__():
        yield one
        yield from below(one)

for one in below(BaseModel):
    if one.__module__.startswith("imgsvc") and one.__pydantic_complete__ and "RootModel[" not in one.__name__:
        print(one.__module__, one.__name__)
"""


def test_validators_are_built_at_their_first_use() -> None:
    """A model without `defer_build`, or one that is used while it is imported, costs each start 0.5 ms."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", BUILT], env=environ, capture_output=True, text=True, timeout=60)
    built = {line.split()[0] for line in ran.stdout.splitlines()}
    assert built <= {"imgsvc.telemetry.host_models"}, ran.stderr  # of the sample before the first
    assert ran.returncode == 0


# Who opens connections: the guarded client to addresses that others give; the others to addresses of the settings.
CALLERS = {
    "access/guarded_client.py",
    "cli/doctor/cluster.py",
    "cli/doctor/dependencies.py",
    "cli/doctor/service.py",
    "jobs/cluster/gateway.py",
}


def test_who_opens_connections_without_a_client_library() -> None:
    """The import contract names the libraries; these functions of the standard library and anyio come without one."""
    opens = re.compile(r"\b(connect_tcp|open_connection|create_connection|sock_connect|urlopen|HTTPS?Connection)\b")
    found = {
        str(file.relative_to(ROOT / "imgsvc"))
        for file in (ROOT / "imgsvc").rglob("*.py")
        if opens.search(file.read_text(encoding="utf-8"))
    }
    assert "access/guarded_client.py" in found
    assert found <= CALLERS
