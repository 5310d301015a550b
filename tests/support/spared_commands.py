"""Commands of `imgsvc` one after another in one interpreter that lacks some packages: each would take 0.3 s to start.

`python -m tests.support.spared_commands PACKAGE …` reads {"arguments", "environ"} from each line and answers
{"status", "stdout", "stderr"}.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Self


class SparedCommands:
    """The interpreter, and what its commands said. `environ` is that of each command."""

    def __init__(self, lacking: str, folder: Path, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.spared_commands", *lacking.split()],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin and self._process.stdout
        order = {"arguments": arguments, "environ": {**self._environ, **more}}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        said = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(arguments, said["status"], said["stdout"], said["stderr"])


def main(lacking: list[str]) -> None:
    for name in lacking:
        sys.modules[name] = None  # type: ignore[assignment]
    for line in sys.stdin:
        order = json.loads(line)
        os.environ.clear()
        os.environ.update(order["environ"])
        print(json.dumps(_said(order["arguments"])), flush=True)


def _said(arguments: list[str]) -> dict[str, Any]:
    from imgsvc.cli.main import main as imgsvc

    sys.argv = ["imgsvc", *arguments]
    status: object = 0
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            imgsvc()
        except SystemExit as ended:
            status = ended.code or 0
    return {"status": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


if __name__ == "__main__":
    main(sys.argv[1:])
