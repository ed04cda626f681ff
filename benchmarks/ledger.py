"""The ledger's epsilon beside that of the steps that were really charged.

Histories of one, two and several studies, secure and local, of full batches and of Poisson samples,
of patients seen at one to three hospitals, broken off at different rounds, are written into real
ledgers for overlapping cohorts. The truth is that of the patient who lost most: for full batches
exact (the Gaussian curve in closed form), for samples dp-accounting's PLD on a grid finer than the
ledger's, with the noise divided by the hospitals and by what rounding costs.

Baseline: FLamby's published epsilon of 1 for Switzerland is really 4.55, so its ledger shows 0.22
of the truth; 1 is the limit from below.
"""

import argparse
import math
import random
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from figures import Figure
from small_study import FEATURES, plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DELTA = 1e-5
HISTORIES = 18
PATIENTS = 40
FINEST = 2e-5


def measure(options: argparse.Namespace) -> list[Figure]:
    """The figure of this module; the worst history counts.

    Raises:
        RuntimeError: a ledger shows less than the truth.
    """
    del options
    chance = random.Random(0)
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(HISTORIES):
            shown, true = _history(Path(folder) / f"{number}.sqlite", chance, number % 3 == 2)
            ratios.append(shown / true)
    if min(ratios) < 1 - 1e-9:
        raise RuntimeError(f"a ledger under-counts: {min(ratios):.6f} of the truth")
    return [
        Figure(
            id="ledger-over-pld",
            value=round(max(ratios), 7),
            unit="of the epsilon of the steps taken",
            baseline=1,
            goal=1.02,
        )
    ]


def _history(path: Path, chance: random.Random, sampled: bool) -> tuple[float, float]:
    """Charge some studies, some of them only in part; the ledger's epsilon and the true one."""
    from fedtwin_client.node.ledger import Ledger
    from fedtwin_client.node.ledger_limits import BudgetLimits
    from fedtwin_client.node.renyi import ORDERS
    from fedtwin_client.node.study_desk import reservation_for
    from fedtwin_client.training.accounting import epsilon_of, price
    from fedtwin_protocol.study import plan_from_value

    limits = BudgetLimits(
        epsilon_per_study=100, epsilon_lifetime=1000, delta_lifetime=DELTA, unprotected=False
    )
    taken: dict[int, list[tuple[float, float, int]]] = {}
    with Ledger(path) as ledger:
        for study in range(chance.choice((1, 1, 2, 4))):
            value, steps = _study(f"study-{study}", chance, sampled)
            checked = plan_from_value(value, "the benchmark's plan")
            asked = reservation_for(checked, asdict(price(checked, ORDERS)))
            cohort = chance.sample(range(PATIENTS), PATIENTS // 2)
            members = ledger.admit(asked, limits, cohort).members
            ledger.reserve(asked, limits, NOW, members)
            ledger.charge(checked.study, f"{study}-count", "count", NOW)
            charged = chance.randint(1, checked.training.rounds)
            for number in range(charged):
                ledger.charge(checked.study, f"{study}-{number}", "train", NOW)
            for patient in members:
                mine = taken.setdefault(patient, [])
                mine += [(sigma, rate, many * charged) for sigma, rate, many in steps[1:]]
                mine.append(steps[0])
        shown = ledger.statement(limits, epsilon_of).epsilon_pld
    assert shown is not None
    histories = {tuple(sorted(history)) for history in taken.values()}
    return shown, max(_truth(list(history)) for history in histories)


def _study(
    name: str, chance: random.Random, sampled: bool
) -> tuple[dict[str, Any], list[tuple[float, float, int]]]:
    """A plan, and (noise, sampling rate, steps) of its count and of one of its rounds."""
    rounds, hospitals = chance.randint(1, 40), chance.choice((1, 2, 3))
    mode, bits = chance.choice(("local", "secure")), chance.choice((20, 24))
    rate, sigma, steps = 1.0, rounds**0.5 * chance.uniform(2, 6), 1
    value: dict[str, Any] = plan(name, rounds)
    if sampled:
        rate, sigma = chance.choice((0.05, 0.1, 0.25)), chance.uniform(1.5, 4)
        if mode == "local":
            steps = 3
            value["training"] |= {"mechanism": "local_steps", "local_steps": steps}
            value["aggregation"] = {"rule": "mean"}
    sigma, count = sigma * hospitals, 20.0 * hospitals
    value["privacy"] |= {
        "mode": mode,
        "epsilon": 60,
        "noise_multiplier": sigma,
        "cohort_count_noise": count,
        "sampling_rate": rate,
        "hospitals_per_patient": hospitals,
        "scale_bits": bits,
    }
    value["evaluation"] = {"unjudged": True}
    numbers = len(FEATURES) + 1
    rounding = {n: 1 + n**0.5 / 2**bits if mode == "secure" else 1.0 for n in (1, numbers)}
    return value, [
        (count / hospitals / rounding[1], 1.0, 1),
        (sigma / hospitals / rounding[numbers], rate, steps),
    ]


def _truth(taken: list[tuple[float, float, int]]) -> float:
    """Epsilon of (noise multiplier, sampling rate, steps): exact, or on the finest grid."""
    from fedtwin_protocol.privacy import gaussian_epsilon

    if all(rate == 1 for _, rate, _ in taken):
        mu = math.sqrt(sum(steps / sigma**2 for sigma, _, steps in taken))
        return gaussian_epsilon(mu, DELTA)
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=FINEST
    )
    for sigma, rate, steps in taken:
        event = dp_accounting.GaussianDpEvent(sigma)
        if rate < 1:
            event = dp_accounting.PoissonSampledDpEvent(rate, event)
        accountant.compose(event, steps)
    return float(accountant.get_epsilon(DELTA))
