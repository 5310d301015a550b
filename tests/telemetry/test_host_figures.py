"""What the dashboard shows of the machine's processors."""

import threading
import time
from pathlib import Path

import pytest

from imgsvc.telemetry.host import Host
from imgsvc.telemetry.host_sample import busy_percent

IDLE = {"user": 10.0, "nice": 0.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "guest": 2.0, "guest_nice": 0.0}


@pytest.mark.parametrize(
    ("spent", "percent"),
    [
        ({}, 0.0),
        ({"idle": 2.0}, 0.0),
        ({"user": 2.0}, 100.0),
        ({"user": 1.0, "idle": 1.0}, 50.0),
        ({"system": 1.0, "iowait": 1.0, "idle": 2.0}, 25.0),
        ({"user": 1.0, "guest": 1.0, "idle": 1.0}, 50.0),
        ({"user": 1.0, "iowait": -0.5}, 100.0),  # Linux may take back what it counted as waiting
    ],
)
def test_busy_percent(spent: dict[str, float], percent: float) -> None:
    assert busy_percent(IDLE, {name: seconds + spent.get(name, 0.0) for name, seconds in IDLE.items()}) == percent


def test_looks_from_several_threads_are_of_the_whole_time(tmp_path: Path) -> None:
    machine = Host(tmp_path / "db", tmp_path)
    for _ in range(2):
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
        thread = threading.Thread(target=machine._look, args=((),))
        thread.start()
        thread.join()
        assert machine._last.resources.cpu.percent > 0
