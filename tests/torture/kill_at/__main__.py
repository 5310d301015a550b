"""`./run torture kill-at [SCENARIO …]`: each scenario once to count, once for each durable call and each action."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.forking import ForkServer
from tests.support.memory import memory
from tests.support.preload import Action, Fault
from tests.torture.kill_at import case
from tests.torture.kill_at.known_calls import CALLS
from tests.torture.kill_at.plan import ACTIONS, counted, every, sample
from tests.torture.kill_at.scenarios import SCENARIOS
from tests.torture.kill_at.site import Site, Way
from tests.torture.kill_at.without_sync import EACH, Tried, reason, try_each
from tests.torture.report import Report, add_option

LOSE: Action = "lose"


def main() -> int:
    options = _options()
    root = Path(tempfile.mkdtemp(prefix="kill-at-", dir=options.folder or memory()))
    done = Done(options.resume)
    failed: list[case.Result] = []
    tried: dict[str, Tried] = {}
    report = Report("Each durable call", options.seed if options.sample else "none, all cases")
    with ForkServer() as forks:
        for name in options.scenarios or SCENARIOS:
            if options.without_sync:
                leave_out(name, root, forks, options, tried)
                continue
            before = done.count
            found = attack(name, root, forks, options, done)
            failed += found
            report.add({name: f"{done.count - before + len(found)} cases"}, map(str, found))
    for result in failed:
        print(f"\n{result}")
    if options.without_sync:
        return _report(tried, options, root, report)
    report.add({"all": f"{done.count + len(failed)} cases, {done.left_out} of earlier runs were sound"})
    report.write(options.report)
    print(f"\n{done.count} cases, {len(failed)} with faults" + (f"; their folders are in {root}" if failed else ""))
    if not failed:
        _remove(root)
    return 1 if failed else 0


def attack(name: str, root: Path, forks: ForkServer, options: argparse.Namespace, done: "Done") -> list[case.Result]:
    """The cases in which something does not hold."""
    scenario, way = SCENARIOS[name], ("forked" if options.quick else "fresh")
    ready = case.prepared(scenario, Site(root / name / "ready", forks, _way(way)))
    counting = case.run(scenario, ready, Fault("lose" if options.lost_cache else "count"), root / name / "count")
    if counting.wrong:
        return [counting]
    _say_if_unlike(name, len(counted(counting.calls, "kill")))
    plan: Iterable[Fault] = every(counting.calls, options.action)
    if options.sample:
        plan = sample(counting.calls, options.sample, f"{options.seed} {name}", options.action)
    if options.at:
        plan = [_fault(text) for text in options.at]
    faults = [fault for fault in plan if not done.holds(name, fault)]
    failed: list[case.Result] = []
    began = time.monotonic()

    def one(fault: Fault) -> case.Result:
        folder = root / name / f"{fault.action}-{fault.number}"
        return case.run(scenario, ready, fault, folder)

    with ThreadPoolExecutor(options.workers) as pool:
        for number, result in enumerate(pool.map(one, faults), start=1):
            if result.wrong:
                failed.append(result)
                print(f"\r{result}", flush=True)
            else:
                done.add(name, result.fault)
            if sys.stderr.isatty() or number == len(faults):
                spent = time.monotonic() - began
                text = f"{name}: {number} of {len(faults)} cases, {len(failed)} with faults, {spent:.0f} s"
                end = "\n" if number == len(faults) else ""
                print(f"\r{text}", end=end, file=sys.stderr, flush=True)
    return failed


def _say_if_unlike(name: str, calls: int) -> None:
    if not 0.8 * calls <= CALLS.get(name, 0) <= 1.2 * calls:
        print(f"{name}: {calls} durable calls; known_calls.py says {CALLS.get(name)}", file=sys.stderr)


def leave_out(name: str, root: Path, forks: ForkServer, options: argparse.Namespace, tried: dict[str, Tried]) -> None:
    """The scenario without the syncs of one place at a time. Raises SystemExit if it does not hold with all of them."""
    ready = case.prepared(SCENARIOS[name], Site(root / name / "ready", forks))
    counting = case.run(SCENARIOS[name], ready, Fault("lose"), root / name / "count")
    if counting.wrong:
        raise SystemExit(str(counting))

    def one(fault: Fault) -> case.Result:
        result = case.run(SCENARIOS[name], ready, fault, root / name / str(fault))
        shutil.rmtree(result.folder, ignore_errors=True)
        return result

    try_each(counting, options.without_sync, tried, options.sample, one)


def _report(tried: dict[str, Tried], options: argparse.Namespace, root: Path, report: Report) -> int:
    """Print what each place's absence came to; 1 if one was not noticed and nothing says why."""
    chosen, wrong = options.without_sync, 0
    for place, found in sorted(tried.items()):
        if found.caught or found.cases:
            why = reason(place)
            wrong += not found.caught and not why
            report.add({place: f"{found.caught.scenario if found.caught else why or 'not noticed'}"})
            report.findings += [] if found.caught or why else [f"Nothing notices that {place} is left out."]
            print(f"{place}\n  {found}" + (f"\n  {why}" if why and not found.caught else ""))
    wrong += sum(place not in tried for place in chosen if place != EACH)
    print(f"\n{sum(one.cases for one in tried.values())} cases, {wrong} syncs that nothing needs")
    report.attack = "Each sync left out"
    report.write(options.report)
    shutil.rmtree(root)
    return 1 if wrong else 0


def _way(name: str) -> Way:
    return "forked" if name == "forked" else "fresh"


def _fault(text: str) -> Fault:
    """kill@17, ENOSPC@3x6"""
    action, _, rest = text.partition("@")
    number, _, times = rest.partition("x")
    known = next((one for one in (*ACTIONS, LOSE) if one == action), None)
    if known is None or not number.isdigit():
        raise SystemExit(f"{text}: not a fault such as kill@17 or ENOSPC@3x6")
    return Fault(known, int(number), int(times or 1))


class Done:
    """The cases that were sound, kept in a file, so that a run that was ended can go on."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = set(path.read_text().splitlines()) if path and path.exists() else set()
        self.count = 0
        self.left_out = 0  # cases that were sound in an earlier run

    def holds(self, scenario: str, fault: Fault) -> bool:
        known = json.dumps([scenario, str(fault)]) in self._known
        self.left_out += known
        return known

    def add(self, scenario: str, fault: Fault) -> None:
        self.count += 1
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps([scenario, str(fault)]) + "\n")


def _remove(root: Path) -> None:
    shutil.rmtree(root)


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run torture kill-at", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all of them")
    parser.add_argument("--action", action="append", choices=ACTIONS, help="only this one; may be given again")
    parser.add_argument("--at", action="append", metavar="FAULT", help="only this one, such as kill@17")
    parser.add_argument("--lost-cache", action="store_true", help="what was not synced is gone; right before each sync")
    parser.add_argument(
        *["--without-sync"],
        action="append",
        metavar="PLACE",
        help=f"such as intake.staging._finish:226, or {EACH}: its syncs do nothing, which a case must notice",
    )
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="so many cases of each instead of all")
    parser.add_argument("--seed", default="0", help="of the sample")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="cases at a time")
    parser.add_argument("--quick", action="store_true", help="forked processes that render in threads, as ./run test")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="note what was sound there, and leave it out")
    parser.add_argument("--folder", type=Path, default=None, help="where the cases work, instead of in memory")
    add_option(parser)
    options = parser.parse_args(arguments)
    options.action = ["lose"] if options.lost_cache else options.action or list(ACTIONS)
    if options.lost_cache and options.folder:
        parser.error("--lost-cache tells files apart by inodes that are used once, as a folder in memory does")
    unknown = set(options.scenarios) - set(SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
