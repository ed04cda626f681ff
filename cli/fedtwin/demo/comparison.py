"""The demo's closing table: each hospital's own report, and what pooled data would have given.

Only the demo can pool: it plays all four hospitals. The pooled model is the same logistic
regression without clipping and noise, fitted to all training patients together.
"""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.outbox import Outbox
from fedtwin_client.node.policy import load_policy
from fedtwin_client.training.accounting import epsilon_of
from fedtwin_client.training.built_in import load_rows
from fedtwin_client.training.gradients import clipped_gradient_sum
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.risk import predict_probability, quality

STEPS = 400
UNCLIPPED = 1e9


def closing_table(
    consortium: LocalConsortium, plan: StudyPlan, sites: tuple[str, ...], now: datetime
) -> dict[str, Any]:
    """What the study was worth at each hospital that took part, and what it cost."""
    rows = {
        site: load_rows(plan, NodeHome(folder=consortium.site(site)).records, now) for site in sites
    }
    features = np.concatenate([part.features[~part.holdout] for part in rows.values()])
    labels = np.concatenate([part.labels[~part.holdout] for part in rows.values()])
    pooled = fit_pooled(features, labels, plan.model.l2)
    table: dict[str, Any] = {
        "study": plan.study,
        "rounds": plan.training.rounds,
        "privacy": {
            "mode": plan.privacy.mode,
            "epsilon": plan.privacy.epsilon,
            "delta": plan.privacy.delta,
        },
        "sites": {},
    }
    for site, part in rows.items():
        home = ("--home", str(consortium.site(site)))
        facts = json.loads(consortium.run("client", "report", plan.study, "--json", *home))
        chance = predict_probability(pooled, part.features[part.holdout])
        facts["pooled"] = asdict(quality(chance, part.labels[part.holdout]))
        facts.update(_costs(NodeHome(folder=consortium.site(site))))
        table["sites"][site] = facts
    return table


def fit_pooled(features: Any, labels: Any, l2: float) -> dict[str, Any]:
    """Logistic regression on pooled rows, by gradient steps with heavy-ball momentum."""
    weights = np.zeros(features.shape[1] + 1)
    velocity = np.zeros_like(weights)
    penalty = np.append(np.ones(features.shape[1]), 0.0) * l2
    for _ in range(STEPS):
        total = clipped_gradient_sum(features, labels, weights, UNCLIPPED)
        velocity = 0.9 * velocity + total / len(labels) + penalty * weights
        weights = weights - 0.2 * velocity
    return {"weights": weights[:-1], "intercept": weights[-1:]}


def _costs(home: NodeHome) -> dict[str, Any]:
    limits = load_policy(home.policy_file).limits
    with Ledger(home.ledger_file) as ledger, Outbox(home.outbox_file) as outbox:
        statement = ledger.statement(limits, epsilon_of)
        return {"epsilon": statement.epsilon_pld, "bytes_sent": outbox.left().bytes}
