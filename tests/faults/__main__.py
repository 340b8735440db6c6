"""`python -m tests.faults [F01 F02 ...]`: every fault of docs/reliability.md, a line each: id, tries, pass or fail.

Runs the tests that are marked `fault("Fnn")`, wherever they stand, as often as the documentation promises (`SOAK=1`).
Exit code 1 where one fails, or has no test that ran.
"""

import os
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = [f"F{number:02d}" for number in range(1, 35)]


class Outcomes:
    """Adds up the reports of a session."""

    def __init__(self, wanted: list[str]):
        self.wanted = wanted
        self.tries: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: dict[str, list[str]] = defaultdict(list)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if {mark.args[0] for mark in item.iter_markers("fault")} & set(self.wanted)]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        for fault in {value for name, value in report.user_properties if name == "fault"}:
            self.seconds[str(fault)] += report.duration
            if report.failed:
                self.failed[str(fault)].append(report.nodeid)
            elif report.when == "call" and report.passed:
                self.tries[str(fault)] += int(str(properties.get("tries", 1)))

    def line(self, fault: str) -> str:
        verdict = "FAIL" if self.failed[fault] else "pass" if self.tries[fault] else "NOT RUN"
        return f"{fault}  {self.tries[fault]:5d} tries  {verdict:7}  {self.seconds[fault]:7.1f} s"

    def passed(self, fault: str) -> bool:
        return not self.failed[fault] and self.tries[fault] > 0


def main(wanted: list[str]) -> int:
    if unknown := [fault for fault in wanted if fault not in FAULTS]:
        print(f"tests.faults: no such fault: {', '.join(unknown)}; there are F01 to F34", file=sys.stderr)
        return 2
    wanted = wanted or FAULTS
    os.environ |= {"SOAK": "1", "OMP_NUM_THREADS": "1"}
    outcomes = Outcomes(wanted)
    pytest.main([str(ROOT / "tests"), "-m", "fault", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"], [outcomes])
    print()
    for fault in wanted:
        print(outcomes.line(fault))
        for nodeid in outcomes.failed[fault]:
            print(f"     {nodeid}")
    num_passed = sum(map(outcomes.passed, wanted))
    print(f"{num_passed} of {len(wanted)}")
    return 0 if num_passed == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
