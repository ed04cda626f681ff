"""What docs/ledger.md lets an officer run works on a real ledger, and finds what was changed."""

import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import ORDERS, gaussian

PAGE = Path(__file__).parents[3] / "docs" / "ledger.md"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def ledger_file(tmp_path):
    count = Mechanism(
        kind="count",
        sigma=20.0,
        sampling_rate=1.0,
        steps=1,
        population="everyone",
        rdp=tuple(gaussian(order, 20.0) for order in ORDERS),
    )
    asked = Reservation(
        study="heart",
        plan_hash="a" * 64,
        allotments=(Allotment(mechanism=count, charges=2),),
        epsilon_pld=0.2,
        delta=1e-5,
    )
    limits = BudgetLimits(epsilon_per_study=1, epsilon_lifetime=8, delta_lifetime=1e-5)
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.reserve(asked, limits, NOON)
        ledger.charge("heart", "Prüfung-1", "count", NOON)
        ledger.accept_clock("Dr. Weiß", NOON)
        head = ledger.head()[1]
    return path, head


def run(folder):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_documented_program_verifies_a_ledger(ledger_file, tmp_path):
    done = run(tmp_path)
    assert done.stdout.strip() == f"whole; last hash {ledger_file[1]}", done.stderr


def test_the_documented_program_finds_a_changed_entry(ledger_file, tmp_path):
    connection = sqlite3.connect(ledger_file[0])
    connection.execute("DROP TRIGGER never_changed")
    connection.execute("UPDATE entries SET task = 'other' WHERE sequence = 2")
    connection.commit()
    connection.close()
    done = run(tmp_path)
    assert "AssertionError: 2" in done.stderr
