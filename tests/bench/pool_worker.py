"""The worker that `./run bench pool` compares with: performs each task itself, and is used again and again."""

import json
import os
import sys
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from imgsvc.imaging.recipe import scratch_file
from imgsvc.imaging.warm_up import use_codecs
from imgsvc.jobs.lanes.task import perform


def main() -> None:
    use_codecs()
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        spent = _processor_seconds()
        for _ in range(order["images"]):
            task = order["task"]
            outputs = {name: scratch_file(Path(task["folder"]), name).open("wb") for name in order["outputs"]}
            with open(os.open(task["source"], os.O_RDONLY), "rb") as source:  # noqa: PTH123
                assert perform(task, source, outputs)["outcome"] == "rendered"
            for output in outputs.values():
                output.close()
        print(_processor_seconds() - spent, flush=True)


def _processor_seconds() -> float:
    used = getrusage(RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
