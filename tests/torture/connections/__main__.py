"""`./run torture connections`: 5,000 idle connections, 200 slow readers and 200 slow writers beside a stranger.

The stranger's upload, thumbnail and info take at most twice as long as alone; each connection at most 60 KB; all are
gone after their limits. 200 uploads at once get a definite answer each. Beside one user's 5,000 uploads another one's
thumbnail comes at most three preview times later. Ratios are of one run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.support.memory import memory
from tests.support.server_process import ServerProcess
from tests.torture.connections.crowd import at_once, beside_a_crowd
from tests.torture.connections.turns import MOST_PREVIEWS, single_beside
from tests.torture.report import Report, add_option

SETTINGS = {"IMGSVC_IMAGES_REUSE": "false", "IMGSVC_WORKERS_COUNT": "2", "OPERATOR_PUBLIC": "true"}


def limits(seconds: float) -> dict[str, str]:
    """Of all connections alike."""
    names = ("SERVER_KEEP_ALIVE_SECONDS", "SERVER_ANSWER_IDLE_SECONDS", "UPLOADS_IDLE_TIMEOUT_SECONDS")
    return {f"IMGSVC_{name}": f"{seconds:g}" for name in names}


def attack(folder: Path, given: argparse.Namespace, report: Report, *, timed: bool = True) -> None:
    """Add the figures and findings to the report. Not `timed`: on a machine that others use."""
    settings = SETTINGS | limits(given.seconds)
    with ServerProcess(folder, real="its memory is measured", **settings) as server:
        sizes = (given.idle, given.slow, given.slow)
        found = beside_a_crowd(server, given.rounds, sizes, given.seconds, report.step)
        report.add({f"{step} beside alone": f"{times:.2f}" for step, times in found.times.items()})
        gone = "not" if found.gone_seconds is None else f"{found.gone_seconds:.0f} s after the first"
        report.add({"connections": found.connections, "KB for each": f"{found.kilobytes:.1f}", "all gone": gone})
        report.findings += found.findings(timed=timed)
        report.step(f"{given.at_once} uploads at once")
        answers, wrong = at_once(server, given.at_once)
        told = ", ".join(f"{count} × {status}" for status, count in sorted(answers.items()))
        report.add({f"{given.at_once} uploads at once": told}, wrong)


def single(folder: Path, given: argparse.Namespace, report: Report) -> None:
    """The same for one upload beside one user's thousands."""
    report.step(f"a single upload beside {given.waiting} of one user, after one alone")
    alone, beside, waiting = single_beside(folder, given.waiting, given.rounds, SETTINGS)
    later = (beside - alone) / alone
    report.add({"waiting of one user": f"{given.waiting}, of which {waiting} were left at the end"})
    report.add({"thumbnail of another, later by": f"{later:.2f} times that of an idle service ({alone * 1000:.0f} ms)"})
    if not waiting:
        report.findings.append("None was waiting any more: the figure says nothing.")
    if later > MOST_PREVIEWS:
        report.findings.append(f"The thumbnail of a single upload comes {later:.1f} preview times later.")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run torture connections", description=__doc__)
    parser.add_argument("--idle", type=int, default=5000, help="connections that ask nothing")
    parser.add_argument("--slow", type=int, default=200, help="readers, and as many writers")
    parser.add_argument("--seconds", type=float, default=60, help="the limits of all of them")
    parser.add_argument("--at-once", type=int, default=200, help="uploads at once")
    parser.add_argument("--waiting", type=int, default=5000, help="of one user")
    parser.add_argument("--rounds", type=int, default=15, help="of each measurement")
    add_option(parser)
    return parser.parse_args(arguments)


def main() -> int:
    given = options()
    report = Report("Connections")
    with tempfile.TemporaryDirectory(prefix="connections-", dir=memory()) as folder:
        try:
            for part, name in ((attack, "crowd"), (single, "single")):
                (Path(folder) / name).mkdir()
                part(Path(folder) / name, given, report)
        finally:
            report.write(given.report)
    return report.printed()


if __name__ == "__main__":
    sys.exit(main())
