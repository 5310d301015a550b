"""`./run torture kills [--kills N] [--uploads N]`: SIGKILL at random moments while clients upload, read and delete.

One kill in five comes at the start. Every fifth time all jobs may end, so that none is given up for having been
interrupted ten times. At the end each receipt's job is completed, what was deleted is gone, each event's webhook was
received, and the invariants hold: variants, digests, files, sums, usage, events.
"""

import argparse
import json
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.invariants import faults
from tests.support.memory import memory
from tests.support.receiver import Received, Receiver
from tests.support.server_process import ServerProcess, until
from tests.torture.kills.clients import Load, Promised
from tests.torture.report import Report, add_option

AT_REST, LOOKED_AT = 5, 50  # kills, after which all jobs may end, and after which the invariants are looked at
AT_START = 0.2
START_SECONDS, SPREAD_SECONDS, REST_SECONDS = 0.5, 0.2, 240
UNFINISHED = (
    "SELECT (SELECT count(*) FROM processing_jobs WHERE deleted_at IS NULL AND status NOT IN ('completed', 'failed'))"
    " + (SELECT count(*) FROM webhook_outbox WHERE state = 'waiting')"
)


@dataclass(slots=True)
class Kills:
    """The runs of one folder. `each`: uploads between two kills, on the average."""

    server: ServerProcess
    promised: Promised
    seed: str
    each: int
    at_start: int = 0
    unanswered: list[tuple[str, str, bytes]] = field(default_factory=list)

    def one(self) -> None:
        """Start, let clients come, and kill: all of it by the seed and the number of this kill."""
        number = self.promised.kills
        chance = random.Random(f"{self.seed} {number}")
        if chance.random() < AT_START:
            self._kill_at_start(chance.uniform(0, START_SECONDS))
        else:
            self.server.start()
            if number % AT_REST == AT_REST - 1:
                self.rest()
            if number % LOOKED_AT == LOOKED_AT - 1:
                self._look()
            after, spread = chance.randrange(2 * self.each + 1), chance.uniform(0, SPREAD_SECONDS)
            with Load(self.server, self.promised, f"{self.seed}.{number}", self.unanswered) as load:
                until(lambda: load.accepted >= after, REST_SECONDS)
                time.sleep(spread)  # the moment of the kill is what is tested
                self.server.signal(signal.SIGKILL)
                self.server.ended()
        self.promised.note(kill=1)

    def _kill_at_start(self, seconds: float) -> None:
        """So many seconds after the command, or as soon as it listens."""
        killer = threading.Timer(seconds, self._kill)
        killer.start()
        try:
            self.server.start()
        except (AssertionError, OSError):
            self.at_start += 1
        killer.join()
        self._kill()
        self.server.ended()

    def _kill(self) -> None:
        with suppress(AttributeError):  # the very first has not begun
            self.server.signal(signal.SIGKILL)

    def rest(self) -> None:
        """Wait until all jobs and deliveries have ended."""
        uri = f"file:{self.server.places.database}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as db:
            until(lambda: not db.execute(UNFINISHED).fetchone()[0], REST_SECONDS)

    def end(self) -> list[str]:
        """What does not hold after all kills."""
        self.server.start()
        try:
            self.rest()
            self._look()
            until(lambda: not self.server.files("data/staging"), REST_SECONDS)
            if self.server.stop() != 0:
                self.promised.wrong.append("The last stop has failed.")
        except AssertionError as error:
            self.promised.wrong.append(f"The last start comes to no rest: {error}")
            self.server.process.kill()
        return [*self.promised.wrong, *self._broken(), *faults(self.server.places, "stopped")]

    def _look(self) -> None:
        found: list[str] = []

        def sound() -> bool:
            found[:] = faults(self.server.places, "settled")
            return not found

        try:
            until(sound, 10)
        except AssertionError:
            for one in found:
                self.promised.note(wrong=f"After {self.promised.kills} kills: {one}")

    def _broken(self) -> list[str]:
        """Promises to clients that do not hold."""
        with closing(sqlite3.connect(self.server.places.database)) as db:
            jobs = {
                row[0]: row[1:]
                for row in db.execute("SELECT job_id, status, deleted_at, attempt_count FROM processing_jobs")
            }
            told = db.execute("SELECT message_id, state FROM webhook_outbox").fetchall()
        wrong = []
        for job, image in self.promised.receipts.items():
            status, deleted_at, attempts = jobs.get(job, ("unknown", None, 0))
            if image in self.promised.deleted and not deleted_at:
                wrong.append(f"The image {image} was deleted and is there.")
            if image not in self.promised.asked and (status != "completed" or deleted_at or attempts):
                wrong.append(f"Job {job} is {status} after {attempts} attempts, deleted at {deleted_at}.")
        missing = [one for one, state in told if state != "delivered" or one not in self.promised.received]
        return [*wrong, *([f"{len(missing)} webhooks were not received, such as {missing[0]}."] if missing else [])]


def environ(receiver: Receiver) -> dict[str, str]:
    return {
        "IMGSVC_WEBHOOKS": json.dumps([receiver.settings()]),
        "IMGSVC_WORKERS_COUNT": "2",
        "IMGSVC_JOBS_RETRY_DELAY_SECONDS": "1",
        "IMGSVC_STORAGE_RESERVE_MB": "0",
        "IMAGE_SIZES": '{"thumbnail": 150, "large": 400}',
    }


def attack(folder: Path, kills: int, uploads: int, seed: str, report: Report) -> list[str]:
    """What does not hold. `folder` may be one that an earlier run has left: it goes on there."""
    promised = Promised(folder / "promised.jsonl")
    promised.read()

    def received(one: Received) -> int:
        promised.note(received=[one.id])  # before it is confirmed: this run may be ended at any moment
        return 204

    with Receiver(received) as receiver:
        server = ServerProcess(folder, **environ(receiver))
        work = Kills(server, promised, seed, max(1, uploads // kills))
        began, before = time.monotonic(), promised.kills
        try:
            while promised.kills < kills or len(promised.receipts) < uploads:
                work.one()
                if sys.stderr.isatty() or promised.kills % 25 == 0:
                    each = (time.monotonic() - began) / (promised.kills - before)
                    text = f"{promised.kills} kills, {len(promised.receipts)} uploads, {each:.1f} s for each kill"
                    print(f"\r{text}, {len(promised.wrong)} faults", end="", file=sys.stderr, flush=True)
            found = work.end()
        finally:
            server.http.close()
            server.process.kill()
            report.add(
                {
                    "kills": promised.kills,
                    "of them before it listened, in this run": work.at_start,
                    "uploads accepted": len(promised.receipts),
                    "images deleted": len(promised.deleted),
                    "webhooks received": len(promised.received),
                }
            )
    return found


def main() -> int:
    parser = argparse.ArgumentParser("./run torture kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--folder", type=Path, help="where it works, and goes on if it was ended there; else a new one")
    add_option(parser)
    given = parser.parse_args()
    report = Report("Kills at random moments", given.seed)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kills-", dir=memory()))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        report.findings += attack(folder, given.kills, given.uploads, given.seed, report)
    finally:
        report.write(given.report)
    print()
    for name, value in report.figures.items():
        print(f"{name}: {value}")
    print("\n".join(report.findings) or "nothing found", f"\nin {folder}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
