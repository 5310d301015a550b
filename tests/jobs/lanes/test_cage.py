"""The cage from inside: what a process that a picture has taken over can still do."""

import json
import subprocess
import sys

import pytest

from tests.support.attacks import ATTACKS

Table = dict[str, dict[str, str]]
THROUGH = "went through"
# What a system may refuse or lack by itself: a container, a sysctl, a kernel's configuration, tmpfs.
MAYBE_REFUSED = {
    "open a namespace",
    "open an io_uring",
    "set an attribute",
    "a call of x32",
    "a call of i386",
    "a file in memory",
    "signal through a descriptor's owner",
}
BY_LIMITS_ALONE = {"more memory", "more memory as a stack", "another descriptor", "a longer file"}
# Landlock (ABI 7) and seccomp both refuse these.
BY_LANDLOCK_TOO = {
    "read a file",
    "read a file by openat2",
    "list a folder",
    "create a file",
    "make a folder",
    "rename a file",
    "delete a folder",
    "link to a file",
    "truncate a file by path",
    "read the parent's environment",
    "open the parent's memory",
    "connect by TCP",
    "connect to an abstract socket",
    "execute a program",
    "signal the parent",
    "signal the parent from a queue",
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    command = [sys.executable, "-W", "error", "-m", "tests.support.caged", str(tmp_path_factory.mktemp("attacks"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found: Table = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_goes_through_without_a_cage_and_not_with_one(table: Table, attack: str) -> None:
    row = table[attack]
    assert row["free"] == THROUGH or attack in MAYBE_REFUSED, row
    assert THROUGH not in {row["caged"], row["ABI 2"], row["no Landlock"]}, row


def test_seccomp_alone_stops_all_but_what_limits_are_for(table: Table) -> None:
    assert {attack for attack, row in table.items() if row["seccomp"] == THROUGH} == BY_LIMITS_ALONE
    assert all(table[attack]["limits"] != THROUGH for attack in BY_LIMITS_ALONE)


def test_landlock_is_a_second_wall_around_paths_ports_and_signals(table: Table) -> None:
    if table["read a file"]["Landlock"] == THROUGH:
        pytest.skip("this kernel has no Landlock")
    assert {attack for attack, row in table.items() if row["Landlock"] == "EACCES"} >= {
        "read a file",
        "execute a program",
    }
    assert {attack for attack, row in table.items() if row["Landlock"] != THROUGH} - MAYBE_REFUSED == BY_LANDLOCK_TOO


def test_other_architectures_end_the_process(table: Table) -> None:
    foreign = [row["caged"] for attack, row in table.items() if attack.startswith("a call of")]
    assert set(foreign) <= {"SIGSYS"}
