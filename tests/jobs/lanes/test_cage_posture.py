"""What the cage says is in force, on systems that lack a part of it."""

import dataclasses
import json
import platform
from collections.abc import Callable
from typing import Any

import pytest

from imgsvc.jobs.lanes.cage import Cage, Posture
from tests.support.attacks import PRCTL
from tests.support.caged_child import Scripts

Asking = Callable[..., Any]
ASK = """
    import dataclasses, json, sys
    from imgsvc.jobs.lanes.cage import Cage, CageUnavailable
    {before}
    try:
        print(json.dumps(dataclasses.asdict(Cage.build("{mode}"{more}).posture)))
    except CageUnavailable as error:
        print(json.dumps(str(error)))
"""
NO_LIBRARY = 'from imgsvc.jobs.lanes import seccomp; seccomp.LIBRARY = "libseccomp-that-is-missing.so.2"'
NO_LANDLOCK = "from tests.support.outer_filter import refuse; refuse(444, {errno})"
NO_FILTERS = "from tests.support.outer_filter import refuse; refuse({prctl}, 1, first_argument=22)"


@pytest.fixture
def posture(script: Scripts) -> Asking:
    def asked(mode: str = "best", *, before: str = "", more: str = "") -> Any:
        return script(ASK.format(mode=mode, before=before, more=more))

    return asked


def test_all_is_in_force_here_and_so_may_be_required(posture: Asking) -> None:
    found = posture("require")
    assert found["landlock_abi"] >= 1
    assert found | {"landlock_abi": 0} == {
        "mode": "require",
        "landlock_abi": 0,
        "seccomp": True,
        "limits": True,
        "problems": [],
        "absent": [],
    }


def test_a_missing_library_is_named_with_its_package(posture: Asking) -> None:
    found = posture(before=NO_LIBRARY)
    assert not found["seccomp"] and found["landlock_abi"] and found["limits"]
    assert found["problems"] == [
        "seccomp: the library libseccomp-that-is-missing.so.2 is missing: install the package libseccomp2 (ENOENT)"
    ]
    assert "install the package libseccomp2" in posture("require", before=NO_LIBRARY)


@pytest.mark.parametrize("errno", [38, 95])
def test_a_kernel_without_landlock_is_no_fault(posture: Asking, errno: int) -> None:
    found = posture(before=NO_LANDLOCK.format(errno=errno))
    assert found["landlock_abi"] == 0 and found["seccomp"] and not found["problems"]
    assert found["absent"] == ["this kernel has no Landlock, or it is not enabled at boot (lsm=landlock)"]


def test_landlock_that_a_container_refuses_is_one(posture: Asking) -> None:
    found = posture(before=NO_LANDLOCK.format(errno=1))
    assert found["landlock_abi"] == 0 and found["seccomp"]
    assert found["problems"] == ["Landlock: Operation not permitted (EPERM)"]


def test_filter_that_ends_who_asks_for_landlock_leaves_the_other_walls(posture: Asking) -> None:
    """As systemd's SystemCallFilter= does, unless it lists landlock_create_ruleset."""
    found = posture(before=NO_LANDLOCK.format(errno=None))
    assert (found["landlock_abi"], found["seccomp"], found["limits"]) == (0, True, True)
    assert found["problems"] == ["Landlock: the process that asked for it was ended by SIGSYS"]


def test_filter_that_ends_who_asks_for_seccomp_leaves_the_other_walls(posture: Asking) -> None:
    number = {"x86_64": 317, "aarch64": 277}.get(platform.machine())
    if number is None:
        pytest.skip("the number of seccomp is not known here")
    found = posture(before=f"from tests.support.outer_filter import refuse; refuse({number}, None)")
    assert found["landlock_abi"] and not found["seccomp"] and found["limits"]
    assert found["problems"] == ["seccomp: the process that asked for it was ended by SIGSYS"]


def test_require_needs_landlock(posture: Asking) -> None:
    assert posture("require", more=", landlock_abi_at_most=0").startswith("this kernel has no Landlock")


def test_filters_that_a_container_refuses(posture: Asking) -> None:
    if PRCTL is None:
        pytest.skip("the number of prctl is not known here")
    found = posture(before=NO_FILTERS.format(prctl=PRCTL))
    assert not found["seccomp"] and found["landlock_abi"]
    assert found["problems"] == ["seccomp: Operation not permitted (EPERM)"]


def test_an_accepted_filter_that_refuses_nothing_is_not_in_force(posture: Asking) -> None:
    nothing = "from imgsvc.jobs.lanes.seccomp import SeccompFilter; SeccompFilter.load = lambda self: None"
    found = posture(before=nothing)
    assert not found["seccomp"]
    assert found["problems"] == ["seccomp: accepted, but socket is not refused"]


def test_a_newer_landlock_is_taken_up_to_what_is_known(posture: Asking) -> None:
    newest = "from imgsvc.jobs.lanes import landlock; landlock.KNOWN_ABI = 2"
    assert posture(before=newest)["landlock_abi"] == 2


def test_a_kernel_that_names_rights_it_has_not(posture: Asking) -> None:
    """As that of RHEL 9, which said ABI 6 without its scopes: the next lower one that is really taken."""
    boasting = (
        "from imgsvc.jobs.lanes import libc; true = libc.call; "
        "libc.call = lambda name, *rest: 9 if rest[:1] == (444,) and rest[-1] == 1 else true(name, *rest)"
    )
    found, real = posture(before=boasting), posture()
    assert not found["problems"] and (found["landlock_abi"] == 9) == (real["landlock_abi"] == 9)


def test_off_puts_nothing_in_force() -> None:
    found = Cage.build("off").posture
    assert found == Posture("off", 0, seccomp=False, limits=False)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["problems"] == []


def test_another_system_is_said_to_be_one(posture: Asking) -> None:
    found = posture(before='sys.platform = "darwin"')
    assert found["absent"] == ["this system is not Linux: pictures are decoded without a cage"]
    assert (found["landlock_abi"], found["seccomp"], found["limits"]) == (0, False, False)
