"""Reports of erased people, as the API and the command line show them."""

from typing import Self

from .answer_model import COMPLETED, AnswerModel, example
from .table.erasure import Erasure, Step

ERASURE_ID = "5e1f0c3a-8f5b-4c8e-9a57-0d0a6a3f9b21"
NOT_REACHED = (
    "backups made before now",
    "caches of browsers, proxies and CDNs",
    "log files",
    "what webhooks have sent already",
    "copies of an upload that was set aside and belongs to no image of the person",
)
COUNTS = {"images": 12, "files": 48, "keys": 1, "tickets": 0, "rate_limit_windows": 1, "deliveries": 24, "events": 3}
REPORT = {
    "erasure_id": ERASURE_ID,
    "state": "running",
    "step": "images",
    "counts": COUNTS,
    "person": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "salt": "0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    "repeated": False,
    "not_reached": list(NOT_REACHED),
    "started_at": COMPLETED,
    "ended_at": None,
}


class ErasureReport(AnswerModel):
    """Counts and a salted hash, not the person. `person` is the SHA-256 of the salt and the JSON list [org, user].

    `step` is the one that is under way: `images`, `tables`, `events`, `files` (storage has not confirmed all removals),
    or `done`. `repeated`: begun by a start after a restore.
    """

    model_config = example(**REPORT)

    erasure_id: str
    state: str
    step: Step
    counts: dict[str, int]
    person: str
    salt: str
    repeated: bool
    not_reached: list[str]
    started_at: str
    ended_at: str | None

    @classmethod
    def of(cls, erasure: Erasure) -> Self:
        return cls(
            erasure_id=erasure.erasure_id,
            state="done" if erasure.ended_at else "running",
            step=erasure.step,
            counts=erasure.counts,
            person=erasure.person.hex(),
            salt=erasure.salt.hex(),
            repeated=erasure.repeated,
            not_reached=list(NOT_REACHED),
            started_at=erasure.started_at,
            ended_at=erasure.ended_at,
        )


class ErasureReports(AnswerModel):
    """The latest 200, newest first."""

    model_config = example(erasures=[REPORT])

    erasures: list[ErasureReport]
