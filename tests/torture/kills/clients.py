"""What clients do while the service is killed again and again, and what they were promised."""

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from fixtures import make
from tests.bench.memory import with_comment
from tests.support.server_process import ServerProcess, bearer

UPLOADERS, USERS = 4, 7
AGAIN, DELETED, READ = 0.1, 0.05, 0.1  # of the uploads: the same photo again, a deletion, a read after it
DEFINITE = {200, 202, 404, 409, 429, 503, 507}
PATH = "/api/v1/images/upload?bucket=b"


@dataclass(slots=True)
class Promised:
    """What clients were answered, kept in a file of lines, so that a run that was ended can go on."""

    path: Path
    receipts: dict[str, str] = field(default_factory=dict)  # {job: image}
    keys: dict[str, str] = field(default_factory=dict)  # {idempotency key: job}
    users: dict[str, str] = field(default_factory=dict)  # {image: its user}
    deleted: set[str] = field(default_factory=set)  # images whose deletion was answered
    asked: set[str] = field(default_factory=set)  # images whose deletion was asked for
    wrong: list[str] = field(default_factory=list)
    kills: int = 0
    received: set[str] = field(default_factory=set)  # ids of webhooks
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> None:
        for line in self.path.read_text().splitlines() if self.path.exists() else ():
            self._take(json.loads(line))

    def note(self, *, kept: bool = True, **told: Any) -> None:
        with self._lock:
            self._take(told)
            if kept:
                with self.path.open("a") as file:
                    file.write(json.dumps(told) + "\n")

    def _take(self, told: dict[str, Any]) -> None:
        if "job" in told:
            before = self.keys.setdefault(told["key"], told["job"])
            if before != told["job"]:
                self.wrong.append(f"One key was answered with the jobs {before} and {told['job']}.")
            self.receipts[told["job"]] = told["image"]
            self.users[told["image"]] = told["user"]
        if "asked" in told:
            self.asked.add(told["asked"])
        if "deleted" in told:
            self.deleted.add(told["deleted"])
        if "wrong" in told:
            self.wrong.append(told["wrong"])
        self.kills += told.get("kill", 0)
        self.received |= set(told.get("received", ()))


@dataclass(slots=True)
class Load:
    """Uploads without a pause until it is left. A client that got no answer sends its photo again with its key."""

    server: ServerProcess
    promised: Promised
    seed: str
    unanswered: list[tuple[str, str, bytes]]  # (key, user, photo), of the uploads before
    accepted: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        waiting, self.unanswered[:] = list(self.unanswered), []
        for number in range(UPLOADERS):
            mine = waiting[number::UPLOADERS]
            self._threads.append(threading.Thread(target=self._run, args=(number, mine)))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int, waiting: list[tuple[str, str, bytes]]) -> None:
        chance = random.Random(f"{self.seed} {number}")
        turn = 0
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                if waiting:
                    key, user, photo = waiting.pop()
                else:
                    turn += 1
                    key, user = f"{self.seed}-{number}-{turn}", f"user{chance.randrange(USERS)}"
                    photo = photo_of(0 if chance.random() < AGAIN else chance.randrange(1, 1 << 26))
                if not self._upload(client, key, user, photo):
                    self.unanswered.append((key, user, photo))
                    continue
                if chance.random() < DELETED:
                    self._delete(client, chance)
                if chance.random() < READ:
                    self._read(client, chance)
        self.unanswered += waiting

    def _upload(self, client: httpx.Client, key: str, user: str, photo: bytes) -> bool:
        headers = {**bearer(user), "Content-Type": "image/jpeg", "Idempotency-Key": key}
        answer = self._asked(lambda: client.post(f"{self.server.url}{PATH}", content=photo, headers=headers))
        if answer is None or answer.status_code != 202:
            return False
        self.promised.note(key=key, job=answer.json()["job_id"], image=answer.json()["image_id"], user=user)
        self.accepted += 1
        return True

    def _delete(self, client: httpx.Client, chance: random.Random) -> None:
        image, user = chance.choice(list(self.promised.users.items()))
        self.promised.note(asked=image)
        url = f"{self.server.url}/api/v1/images/{image}"
        answer = self._asked(lambda: client.delete(url, headers=bearer(user)))
        if answer is not None and answer.status_code == 200:
            self.promised.note(deleted=image)

    def _read(self, client: httpx.Client, chance: random.Random) -> None:
        image = chance.choice(list(self.promised.users))
        self._asked(lambda: client.get(f"{self.server.url}/api/v1/images/{image}/direct?size=thumbnail"))

    def _asked(self, ask: Callable[[], httpx.Response]) -> httpx.Response | None:
        """None: the service was killed before it answered."""
        try:
            answer = ask()
        except httpx.HTTPError:
            return None
        if answer.status_code not in DEFINITE:
            path = answer.request.url.path
            self.promised.note(wrong=f"{answer.request.method} {path} was answered with {answer.status_code}.")
        return answer


SMALL = make.jpeg(480, 360)


def photo_of(number: int) -> bytes:
    """The same picture as another file for each number."""
    return with_comment(SMALL, number)
