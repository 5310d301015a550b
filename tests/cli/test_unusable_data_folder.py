"""Commands beside no service, on a data folder that can't be used: one line that names it, and never a traceback."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from imgsvc import Settings, testing
from imgsvc.cli.adopt import adopted
from imgsvc.cli.errors import CommandFailed
from imgsvc.cli.jobs import jobs_of
from imgsvc.cli.maintenance_online import carry_out
from imgsvc.jobs.table import database
from imgsvc.maintenance.requests import VerifyRequest
from imgsvc.telemetry import logs
from tests.support.many_jobs import fill

COMMANDS: dict[str, Callable[[Settings], object]] = {
    "jobs": lambda settings: jobs_of(settings).listed(None, 20),
    "verify": lambda settings: carry_out(settings, VerifyRequest(), lambda _: None),
    "adopt": lambda settings: adopted(settings, dry_run=True),
}


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """These commands run in this process, whose log the following tests read: they don't set it up."""
    monkeypatch.setattr(logs, "configure", lambda _settings: None)


def settings_in(folder: Path, **sections: Any) -> Settings:
    settings = testing.settings_in(folder, **sections)
    settings.data.mkdir(parents=True, exist_ok=True)
    return settings


@pytest.mark.parametrize("command", COMMANDS)
def test_file_that_is_no_database(tmp_path: Path, command: str) -> None:
    settings = settings_in(tmp_path)
    settings.database.path.write_bytes(b"no database at all\n" * 1000)
    with pytest.raises(CommandFailed, match="file is not a database") as found:
        COMMANDS[command](settings)
    assert str(settings.database.path) in str(found.value)


@pytest.mark.parametrize("command", ["jobs", "verify"])
def test_database_that_another_program_locks(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    settings = settings_in(tmp_path)
    fill(settings.database.path, 1)
    with closing(sqlite3.connect(settings.database.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CommandFailed, match="database is locked") as found:
            COMMANDS[command](settings)
    assert str(settings.database.path) in str(found.value)


def test_group_that_does_not_exist(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, storage={"group": "no-such-group"})
    fill(settings.database.path, 1)
    with pytest.raises(CommandFailed, match="no-such-group"):
        COMMANDS["verify"](settings)
