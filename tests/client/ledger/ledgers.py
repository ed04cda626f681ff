"""A mechanism, a reservation and limits for tests of the ledger."""

import sqlite3
from datetime import UTC, datetime

from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import ORDERS, gaussian

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = BudgetLimits(epsilon_per_study=3, epsilon_lifetime=8, delta_lifetime=1e-5)


def mechanism(kind, sigma, population, steps=1):
    curve = tuple(steps * gaussian(order, sigma) for order in ORDERS)
    return Mechanism(
        kind=kind, sigma=sigma, sampling_rate=1.0, steps=steps, population=population, rdp=curve
    )


def reservation(study="heart", plan="a", sigma=12.0, rounds=10, epsilon_pld=1.0):
    items = (
        (mechanism("count", 20.0, "everyone"), 1),
        (mechanism("train", sigma, "training"), rounds),
        (mechanism("evaluate", 10.0, "held_out"), 1),
    )
    return Reservation(
        study=study,
        plan_hash=plan * 64,
        allotments=tuple(Allotment(mechanism=item, charges=count) for item, count in items),
        epsilon_pld=epsilon_pld,
        delta=1e-5,
    )


def entries(path):
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM entries ORDER BY sequence").fetchall()
    connection.close()
    return rows
