"""How a model came about, as the bundle beside a release says: from plan, run and log.

Site names, rounds and noised figures stand in the card already; nothing here comes from a patient's
record. Figures of privacy are the plan's own fields, whatever they are, and what they cost.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fedtwin_protocol.card import ModelCard
from fedtwin_protocol.privacy import full_batch_mu, gaussian_epsilon
from fedtwin_protocol.study import StudyPlan
from fedtwin_server.log_book import LogBook
from fedtwin_server.store import RoundRecord


def provenance_of(
    plan: StudyPlan,
    card: ModelCard,
    rounds: Sequence[RoundRecord],
    book: LogBook,
    now: datetime,
) -> dict[str, Any]:
    """The predicate's own part, as JSON values.

    Args:
        plan: the signed plan (by its hash).
        card: of the model.
        rounds: that were closed.
        book: the public log, in which plan and rounds are proven.
        now: the time.
    """
    sites = sorted({site for record in rounds for site in record.sites})
    head, signed = book.head(now)
    proven = book.prove(book.entries(plan.study, plan.version), now)
    ledgers = book.ledgers(sites)
    facts = card.model_dump(mode="json")
    return {
        "format": "fedtwin-provenance-1",
        "study": plan.study,
        "version": plan.version,
        "plan_hash": plan.hash,
        "sites": sites,
        "sites_count": len(sites),
        "rounds": len(rounds),
        "sites_by_round": [len(record.sites) for record in rounds],
        "privacy": plan.privacy.model_dump(mode="json"),
        "steps": plan.steps,
        "accountants": _accountants(plan, card),
        "audits": facts.get("audits", []),
        "metrics": facts["metrics"],
        "software": card.software,
        "ledgers": {item.entry.sites[0]: item.entry.subject for item in ledgers},
        "log": {
            "size": head.size,
            "root": head.root,
            "head": signed.decode("ascii"),
            "entries": [
                {
                    "index": shown.index,
                    "entry": shown.entry.decode("utf-8"),
                    "proof": [step.hex() for step in shown.proof],
                }
                for shown in proven
            ],
        },
    }


def _accountants(plan: StudyPlan, card: ModelCard) -> list[dict[str, Any]]:
    privacy = plan.privacy
    stated = {"accountant": card.privacy.accountant, "epsilon": privacy.epsilon}
    found = [{**stated, "delta": privacy.delta}]
    if privacy.sampling_rate == 1 and privacy.mode != "none":
        mu = full_batch_mu(plan.steps, privacy.noise_multiplier, privacy.cohort_count_noise)
        exact = gaussian_epsilon(mu, privacy.delta)
        named = "exact Gaussian composition of the plan's sums and count, one hospital a patient"
        found.append({"accountant": named, "epsilon": exact, "delta": privacy.delta})
    return found
