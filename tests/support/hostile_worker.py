"""A worker of the cluster that answers with pickle bombs.

`python -m tests.support.hostile_worker SCHEDULER KIND VICTIMS`

KIND: `exception`, `result`, `type` or `event` (where the bomb is), `nonsense`, or `hold` (it prints the address and
keeps the ticket). It pretends to be one of the service's own. What it sends runs where it is unpickled, and tries what
a gateway must not be able to do; what was refused comes out as lines of the gateway, which the service logs.
"""

import asyncio
import copyreg
import json
import os
import pickle
import socket
import sys
from pathlib import Path
from typing import Any

import distributed
import distributed.worker
from distributed import get_worker
from distributed.core import error_message as honest
from distributed.protocol import to_serialize

from imgsvc.jobs.cluster import dask_setup, performer
from imgsvc.jobs.cluster.ticket import RenderTicket

CODE = """
import errno, json, os, socket
found = {{}}
def tried(name, attempt):
    try:
        attempt()
        found[name] = "went through"
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, "?")
    except Exception as error:
        found[name] = type(error).__name__
victims = json.loads({victims!r})
for name, path in victims["paths"].items():
    tried(name, lambda: os.close(os.open(path, os.O_RDONLY)))
tried("leave a file", lambda: open(victims["left"], "w").close())
tried("connect elsewhere", lambda: socket.create_connection(("127.0.0.1", victims["port"]), 2).close())
tried("listen", lambda: socket.create_server(("127.0.0.1", 0)).close())
tried("look into the service", lambda: os.close(os.open("/proc/%d/mem" % os.getppid(), os.O_RDWR)))
tried("signal the service", lambda: os.kill(os.getppid(), 0))
tried("start a program", lambda: os.execv("/bin/true", ["true"]) if os.fork() == 0 else None)
for name, errno_name in found.items():
    line = {{"kind": "unreachable", "reason": "tried: " + name + "=" + errno_name}}
    os.write(1, json.dumps(line).encode() + b"\\n")
os.write(1, b'{{"kind": "ended", "reason": "all tried"}}\\n')
"""
VICTIMS = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}


class Bomb:
    """Runs where it is unpickled. The pickling process sees a string."""

    def __reduce__(self) -> Any:
        return exec, (CODE.format(victims=json.dumps(VICTIMS)), {})


class OfBombs(type):
    """A class that is pickled as a bomb: Dask sends the type of each result beside it."""


copyreg.pickle(OfBombs, lambda _: Bomb().__reduce__())


class Answer(str, metaclass=OfBombs):
    __slots__ = ()


def failed_with_a_bomb(error: BaseException, status: str = "error") -> Any:
    """What a worker says of an error; the one that a worker has by itself is unpickled there first."""
    return dict(honest(error, status)) | {"exception": to_serialize(pickle.dumps(Bomb()))}


class Hostile(performer.Performer):
    def __init__(self, kind: str) -> None:
        self._kind = kind

    async def perform(self, text: str) -> Any:
        if self._kind == "exception":
            raise RuntimeError
        if self._kind == "result":
            return Bomb()
        if self._kind == "type":
            return Answer("no answer")
        if self._kind == "event":
            get_worker().log_event("warn", {"message": pickle.dumps(Bomb()), "category": pickle.dumps(Bomb())})
        if self._kind == "hold":
            print(f"ticket {RenderTicket.model_validate_json(text).address}", flush=True)
            await asyncio.Event().wait()
        return "no answer"


async def main(scheduler: str, kind: str) -> None:
    files = [os.environ[f"IMGSVC_WORKERS_{name}"] for name in ("CAFILE", "CERTFILE", "KEYFILE")]
    dask_setup.configure()
    known = dask_setup.fingerprint()
    performer.use(Hostile(kind))
    if kind == "exception":
        vars(distributed.worker)["error_message"] = failed_with_a_bomb
    about = {"version": "1", "fingerprint": known, "cage": "all of it"}
    worker = await distributed.Worker(
        scheduler,
        nthreads=1,
        resources={dask_setup.MEGABYTES: 1000, dask_setup.places_of(known): 1},
        name=f"hostile-{socket.gethostname()}",
        security=dask_setup.security(*files),
        memory_limit=0,
        dashboard=False,
        startup_information={"imgsvc": lambda _worker: about},
        local_directory=str(Path.cwd()),
    )
    print("worker_joined", flush=True)
    await worker.finished()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
