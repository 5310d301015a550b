"""A script: print what the cage puts in force here, as JSON. A cage is built by a process with a single thread."""

import json
from dataclasses import asdict

from imgsvc.jobs.lanes.cage import Cage

if __name__ == "__main__":
    print(json.dumps(asdict(Cage.build("best").posture)))  # noqa: T201
