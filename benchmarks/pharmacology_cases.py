"""How many of the published cases of pharmacology are met, each to its own tolerance.

A case is met if there are tests that name it (`@pytest.mark.case`), and all of them pass; one that
is skipped is not met. The cases that are not met are named. Baseline: all of them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from figures import Figure

ROOT = Path(__file__).parents[1]
USUAL = ROOT.parent / "shared" / "cases" / "pharmacology"
TESTS = ("tests/reference", "tests/twin_models")


def measure(options: argparse.Namespace) -> list[Figure]:
    """The fraction met."""
    folder = options.pharmacology_cases or USUAL
    names = sorted(path.stem for path in folder.glob("*.json"))
    if not names:
        print(f"no published cases in {folder}: see --pharmacology-cases", file=sys.stderr)
        return []
    outcomes = _outcomes()
    met = [name for name in names if (found := _of(name, outcomes)) and all(found)]
    for name in sorted(set(names) - set(met)):
        found = _of(name, outcomes)
        said = f"{sum(found)} of {len(found)} tests passed" if found else "no test names it"
        print(f"  not met: {name} ({said})", file=sys.stderr)
    value = round(len(met) / len(names), 4)
    return [
        Figure(
            id="pharmacology-cases",
            value=value,
            unit=f"of {len(names)} cases",
            baseline=1.0,
            goal=1.0,
            higher_is_better=True,
        )
    ]


def _outcomes() -> list[tuple[str, bool]]:
    """For each test that names a case: the start of the case's name, and whether it passed."""
    with tempfile.TemporaryDirectory() as name:
        report = Path(name) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", *TESTS, "-m", "case", "--quiet"),
            *(f"--junitxml={report}", "--override-ini=junit_family=xunit1"),
        ]
        subprocess.run(command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, check=False)
        found = []
        for test in ElementTree.parse(report).iter("testcase"):
            passed = not any(test.find(word) is not None for word in _NOT_PASSED)
            for one in test.iter("property"):
                if one.get("name") == "case":
                    found.append((str(one.get("value")), passed))
        return found


_NOT_PASSED = ("failure", "error", "skipped")


def _of(name: str, outcomes: list[tuple[str, bool]]) -> list[bool]:
    return [passed for start, passed in outcomes if name == start or name.startswith(f"{start}_")]
