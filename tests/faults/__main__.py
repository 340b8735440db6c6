"""Every fault of docs/reliability.md, a line each as it is done: a dot a test, tries, pass or fail, seconds.

Runs the tests that are marked `fault("Fnn")`, wherever they stand, as often as the documentation promises (`SOAK=1`):
all of them in 20 to 30 minutes on two cores. Exit code 1 where one fails, or has no test that ran.
"""

import argparse
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS = [f"F{number:02d}" for number in range(1, 35)]


class Outcomes:
    """Adds up the reports of a session, and tells of a fault as soon as its last test is done."""

    def __init__(self, wanted: list[str]):
        self.wanted = wanted
        self.faults: dict[str, list[str]] = {}  # of each test
        self.left: Counter[str] = Counter()  # tests that are still to run
        self.tries: Counter[str] = Counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: dict[str, list[str]] = defaultdict(list)
        self.begun = ""  # the fault whose line has begun

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Only the tests of the wanted faults, in their order."""
        self.terminal = config.pluginmanager.get_plugin("terminalreporter")
        for item in items:
            named = {mark.args[0] for mark in item.iter_markers("fault")}
            self.faults[item.nodeid] = sorted(named.intersection(self.wanted))
        config.hook.pytest_deselected(items=[item for item in items if not self.faults[item.nodeid]])
        items[:] = sorted((item for item in items if self.faults[item.nodeid]), key=lambda i: self.faults[i.nodeid][0])
        self.left.update(fault for item in items for fault in self.faults[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.begin(self.faults[nodeid][0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tries = dict(report.user_properties).get("tries", 1)
        for fault in self.faults[report.nodeid]:
            self.seconds[fault] += report.duration
            if report.failed:
                self.failed[fault].append(report.nodeid)
            elif report.when == "call" and report.passed:
                self.tries[fault] += int(str(tries))
            if report.when == "teardown":
                self.left[fault] -= 1
                if not self.left[fault]:
                    self.begin(fault)
                    self.terminal.write(self.result(fault), flush=True)

    def begin(self, fault: str) -> None:
        if fault != self.begun:
            self.begun = fault
            self.terminal.ensure_newline()
            self.terminal.write(f"{fault} ", flush=True)

    def result(self, fault: str) -> str:
        verdict = "FAIL" if self.failed[fault] else "pass" if self.tries[fault] else "NOT RUN"
        return f"  {self.tries[fault]} tries  {verdict}  {self.seconds[fault]:.1f} s"

    def passed(self, fault: str) -> bool:
        return not self.failed[fault] and self.tries[fault] > 0


def fault(text: str) -> str:
    if text not in FAULTS:
        raise argparse.ArgumentTypeError(f"no such fault: {text}; there are F01 to F34")
    return text


def main(argv: list[str]) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=form)
    parser.add_argument("faults", nargs="*", type=fault, metavar="Fnn", help="such as F01 F27; none: all of them")
    wanted = parser.parse_args(argv).faults or FAULTS
    os.environ |= {"SOAK": "1", "OMP_NUM_THREADS": "1"}
    outcomes = Outcomes(wanted)
    plain = ["-q", "-o", "console_output_style=classic", "-p", "no:cacheprovider", "-p", "no:xdist"]
    pytest.main([str(ROOT / "tests"), "-m", "fault", *plain], [outcomes])
    print()
    for name in wanted:
        if not outcomes.passed(name):
            print(name, outcomes.result(name), *outcomes.failed[name], sep="\n     ")
    num_passed = sum(map(outcomes.passed, wanted))
    print(f"{num_passed} of {len(wanted)} faults in {sum(outcomes.seconds.values()) / 60:.0f} minutes")
    return 0 if num_passed == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
