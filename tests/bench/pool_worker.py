"""A worker of `./run bench pool`: `reused` performs each task itself, `off` and `best` in a child with such a cage."""

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, cast

from imgsvc.imaging.warm_up import use_codecs
from imgsvc.jobs.lanes import warm
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.files import open_files, open_for_worker
from imgsvc.jobs.lanes.messages import Task
from imgsvc.jobs.lanes.task import perform


def main(way: str) -> None:
    do = _reused() if way == "reused" else _forking(cast(Mode, way))
    for line in sys.stdin:
        task = Task(**json.loads(line))
        spent = _processor_seconds()
        assert do(task)["outcome"] == "rendered"
        print(_processor_seconds() - spent, flush=True)


def _reused() -> Callable[[Task], Any]:
    use_codecs()

    def do(task: Task) -> Any:
        files = open_files(task)
        outputs = {name: os.fdopen(one, "wb") for name, one in files.outputs.items()}
        with os.fdopen(files.source, "rb") as source:
            answer = perform(asdict(task), source, outputs)
        for output in outputs.values():
            output.close()
        return answer

    return do


def _forking(mode: Mode) -> Callable[[Task], Any]:
    service, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    warm.initialize(worker, warm.Launch(os.getppid(), 0, mode))

    def do(task: Task) -> Any:
        files = open_for_worker(task)
        socket.send_fds(service, [b"1"], files.descriptors)
        files.close()
        end = json.loads(warm.perform(600))
        os.close(socket.recv_fds(service, 1, 1)[1][0])
        return json.loads(end["answer"])

    return do


def _processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(used.ru_utime + used.ru_stime for used in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))


if __name__ == "__main__":
    main(sys.argv[1])
