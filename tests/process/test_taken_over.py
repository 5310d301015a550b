"""A decoder that a picture has taken over, in the service's own workers: it spoils its own picture and nothing else."""

from pathlib import Path

import pytest

from tests.conftest import with_workers
from tests.support.inside import THROUGH
from tests.support.taken_over import (
    Setting,
    decoders_that_obey,
    expected_variants,
    next_variants,
    table,
    uploaded,
)

pytestmark = pytest.mark.process

# One attack for each kind of wall; `./run torture walls` tries all of them.
STOPPED_BY_THE_CAGE = (
    "open the database",
    "read the token secret",
    "read another upload",
    "connect by TCP",
    "connect to an abstract socket",
    "execute a program",
    "fork",
    "signal the parent",
    "fill the disk",
)
STOPPED_IN_ANY_CASE = {
    "hold a descriptor of another": "EBADF",
    "find a secret in the environment": "ENOENT",
    "say a pickle": "worker_crashed",
    "say half an answer": "worker_crashed",
    "say more than an answer": "worker_crashed",
    "answer for another task": "worker_crashed",
    "claim that the cage failed": "worker_crashed",
    "fail": "worker_crashed",
}
UPLOADS = 4


async def test_attacks_of_a_decoder_go_through_without_a_cage_and_not_with_one(tmp_path: Path) -> None:
    settings = {"free": Setting("off"), "caged": Setting()}
    found = await table(tmp_path, settings, (*STOPPED_BY_THE_CAGE, *STOPPED_IN_ANY_CASE))
    for attack in STOPPED_BY_THE_CAGE:
        assert found[attack]["free"] == THROUGH, attack
        assert found[attack]["caged"].startswith("E"), (attack, found[attack])
    for attack, end in STOPPED_IN_ANY_CASE.items():
        assert found[attack] == {"free": end, "caged": end}, attack
    assert not list(tmp_path.rglob("unpickled"))


async def test_what_a_decoder_leaves_is_read_again_and_the_next_pictures_are_sound(tmp_path: Path) -> None:
    with decoders_that_obey(tmp_path / "path", Setting()):
        async with with_workers(tmp_path / "data", jobs={"retry_delay_seconds": 0}) as s:
            assert await uploaded(s, "leave a huge picture", tmp_path / "huge") == "worker_crashed"
            assert s.stored() == []
            assert await uploaded(s, "paint all pictures", tmp_path / "painted") == "image_unreadable"
            found = await next_variants(s, UPLOADS)
    assert found == await expected_variants(tmp_path / "other", UPLOADS)
