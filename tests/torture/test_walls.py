"""Every attack of a decoder that a picture has taken over, behind every set of walls: see `./run torture walls`."""

import os
from pathlib import Path

import anyio
import pytest

from tests.conftest import WAIT_SECONDS, with_workers
from tests.support.inside import THROUGH
from tests.support.leaving import LYING, LYING_IN_MOTION, SPOILING, SPOILING_IN_MOTION
from tests.support.taken_over import (
    AT_ONCE,
    HARMLESS,
    IMAGES,
    LEAVING,
    Setting,
    aftermath,
    decoders_that_obey,
    uploaded,
)
from tests.torture.walls import ALWAYS, MISSING, SAYING, SETTINGS, UPLOADS, outcomes, stopped_by

pytestmark = [pytest.mark.torture, pytest.mark.process]

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


async def test_nothing_that_a_decoder_leaves_is_published_or_reaches_the_next_pictures(tmp_path: Path) -> None:
    found = await aftermath(tmp_path, SETTINGS, UPLOADS)
    refused = {attack: set(found[attack].values()) for attack in (*LYING, *LYING_IN_MOTION)}
    assert refused.pop("leave a link") == {"worker_crashed", "image_unreadable"}  # in the cage it can't even be made
    assert refused == {attack: {"worker_crashed"} for attack in refused}
    for attack in (*SPOILING, *SPOILING_IN_MOTION):  # so that it is the lie that was refused
        assert set(found[attack].values()) == {"completed"}, attack
    assert set(found["paint its own picture"].values()) == {HARMLESS}
    # Only root traces the warm process, and then the test would see it.
    uncaged = THROUGH if os.getuid() == 0 else HARMLESS
    assert found["paint all pictures"] == {name: uncaged if name == "uncaged" else HARMLESS for name in SETTINGS}


async def test_nothing_of_a_lie_stays_in_the_storage(tmp_path: Path) -> None:
    with decoders_that_obey(tmp_path / "path", Setting("off")):
        async with with_workers(tmp_path / "data", images=IMAGES, workers={"cage": "off"}, jobs=AT_ONCE) as s:
            for number, (attack, of) in enumerate(LEAVING.items()):
                if attack not in (*SPOILING, *SPOILING_IN_MOTION):
                    await uploaded(s, attack, tmp_path / f"{number}", of)
            with anyio.fail_after(WAIT_SECONDS):  # the preview of a job that failed is removed after that
                while s.stored():
                    await anyio.sleep(0.02)
