"""Every attack of a decoder that a picture has taken over, behind every set of walls: see `./run torture walls`."""

import os
from pathlib import Path

import pytest

from imgsvc.jobs.lanes.cage import Mode
from tests.conftest import with_workers
from tests.support.inside import LYING, SPOILING, THROUGH
from tests.support.taken_over import Setting, decoders_that_obey, expected_variants, next_variants, uploaded
from tests.torture.walls import ALWAYS, MISSING, SAYING, SETTINGS, outcomes, stopped_by

pytestmark = [pytest.mark.torture, pytest.mark.process]

UPLOADS = 20
# A container, a sysctl or a kernel's configuration may refuse or lack these.
MAYBE_MISSING = {"open a namespace", "open an io_uring", "set an attribute", "a call of x32", "a call of i386"}
ROOT_ALONE = {  # without the cage: the service and the warm process can't be traced by their own user
    "read the parent's environment",
    "open the parent's memory",
    "read the service's memory",
    "read the warm process's memory",
    "trace the service",
    "trace the warm process",
}


async def test_no_attack_goes_through_the_cage(tmp_path: Path) -> None:
    found = await outcomes(tmp_path)
    through = {attack: row for attack, row in found.items() if THROUGH in {row[name] for name in list(SETTINGS)[1:]}}
    assert through == {}
    assert not list(tmp_path.rglob("unpickled"))
    stoppers = {attack: stopped_by(attack, row) for attack, row in found.items()}
    assert all(stoppers.values()), stoppers
    unavailable = {attack for attack, words in stoppers.items() if words == MISSING}
    assert unavailable <= MAYBE_MISSING | (set() if os.getuid() == 0 else ROOT_ALONE)
    assert {words for words in stoppers.values() if "seccomp" not in words} <= {
        "limits",
        MISSING,
        SAYING,
        *ALWAYS.values(),
    }


async def test_nothing_that_a_decoder_leaves_is_published_but_a_picture_of_the_right_size(tmp_path: Path) -> None:
    with decoders_that_obey(tmp_path / "path", Setting("off")):
        async with with_workers(tmp_path / "data", workers={"cage": "off"}, jobs={"retry_delay_seconds": 0}) as s:
            for number, attack in enumerate(LYING):
                assert await uploaded(s, attack, tmp_path / f"{number}") == "worker_crashed", attack
            assert s.stored() == []
            for number, attack in enumerate(SPOILING):
                assert await uploaded(s, attack, tmp_path / f"spoiled-{number}") == "completed"
            assert len(s.stored()) == 4


@pytest.mark.parametrize(("cage", "attack"), [("best", "paint all pictures"), ("off", "paint its own picture")])
async def test_next_pictures_are_as_without_the_attack(tmp_path: Path, cage: Mode, attack: str) -> None:
    """Without the cage a decoder that patches itself still ends with its picture: each has a process of its own."""
    with decoders_that_obey(tmp_path / "path", Setting(cage)):
        async with with_workers(tmp_path / "data", workers={"cage": cage}) as s:
            assert await uploaded(s, attack, tmp_path / "attack") == "image_unreadable"
            found = await next_variants(s, UPLOADS)
    assert found == await expected_variants(tmp_path / "other", UPLOADS)


@pytest.mark.skipif(os.getuid() != 0, reason="the warm process can't be traced by its own user")
async def test_decoder_without_a_cage_stays_in_the_warm_process(tmp_path: Path) -> None:
    """So the test above would see it."""
    with decoders_that_obey(tmp_path / "path", Setting("off")):
        async with with_workers(tmp_path / "data", workers={"cage": "off"}) as s:
            await uploaded(s, "paint all pictures", tmp_path / "attack")
            found = await next_variants(s, UPLOADS)
    assert not set(found) & set(await expected_variants(tmp_path / "other", UPLOADS))
