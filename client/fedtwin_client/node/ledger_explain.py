"""A study's account in plain words: what an attacker could learn at most, and who sees what."""

from collections.abc import Sequence
from math import sqrt
from typing import Final

from fedtwin_client.node.ledger_account import Account, StepsTaken
from fedtwin_client.node.ledger_attack import (
    FALSE_ALARMS,
    PRIORS,
    Attack,
    DeltasOf,
    best_attack,
)
from fedtwin_client.node.ledger_statement import EpsilonOf, worst_patient
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.secure_terms import SecureTerms, secure_terms
from fedtwin_protocol.study import StudyPlan

_NOTHING: Final = "nothing has left yet"
_NOT_PROTECTED: Final = (
    "What is true of patients in general: that smoking harms may be learned, and is then believed "
    "of every smoker, whether or not he took part.",
    "Groups: what is learned about k patients together, such as a family, may be k times as much.",
    "A person with two record numbers in this hospital counts as two.",
    "Roughly how many patients of this hospital take part, and that it takes part at all.",
    "What somebody learns elsewhere; and records that leave this hospital by other ways.",
)


def explain(
    plan: StudyPlan, account: Account, epsilon_of: EpsilonOf, deltas_of: DeltasOf
) -> list[str]:
    """Lines for a person: the attack, what leaves, who sees it, collusion, and the limits.

    Args:
        plan: the study's plan.
        account: the ledger's, of this plan.
        epsilon_of: composes steps into an epsilon at a delta, by PLD accounting.
        deltas_of: the other way round.
    """
    lines = [f"{plan.study} (plan {plan.hash[:12]}): {plan.title}"]
    if not account.reservation.protected:
        return [
            *lines,
            "This plan promises no privacy (mode 'none'): whoever sees what left may learn "
            "everything about every patient in it.",
        ]
    whole = worst_patient(_complete(account))
    lines += _attack_lines("so far", worst_patient(account), plan, epsilon_of, deltas_of)
    lines += _attack_lines("if the study runs to its end", whole, plan, epsilon_of, deltas_of)
    lines += ["WHAT LEAVES", *_leaving(account)]
    lines += ["WHO SEES WHAT", *_watchers(plan, whole, epsilon_of)]
    lines += ["NOT PROTECTED", *(f"- {line}" for line in _unprotected(plan))]
    return lines


def explain_sharing(account: Account) -> list[str]:
    """Lines about a readiness report that was shared: what it cost, and what it held."""
    reservation = account.reservation
    made = "was written" if account.made else "was never written"
    return [
        f"{reservation.study}: a report on this hospital's records, which {made}",
        f"- each patient in it pays epsilon {reservation.epsilon_pld:.3g} at delta "
        f"{reservation.delta:g}, once",
        "- it holds numbers of patients with Gaussian noise, rounded, small ones masked, and "
        "quantiles made of such numbers; whoever has the file sees it",
    ]


def _complete(account: Account) -> Account:
    most = {item.mechanism.kind: item.charges for item in account.reservation.allotments}
    return Account(reservation=account.reservation, made=most)


def _attack_lines(
    when: str,
    steps: Sequence[StepsTaken],
    plan: StudyPlan,
    epsilon_of: EpsilonOf,
    deltas_of: DeltasOf,
) -> list[str]:
    heading = f"WHAT AN ATTACKER COULD LEARN ABOUT ONE PATIENT, {when.upper()}"
    if not steps:
        return [heading, f"- {_NOTHING}"]
    epsilon = epsilon_of(steps, plan.privacy.delta)
    attack = best_attack(steps, plan.privacy.delta, deltas_of)
    return [heading, *_in_words(attack, epsilon, plan)]


def _in_words(attack: Attack, epsilon: float, plan: StudyPlan) -> list[str]:
    reach = "finds" if attack.exact else "finds at most"
    tests = [
        f"- A test that wrongly accuses {rate:.0%} of the patients who were not in the study "
        f"{reach} {power:.1%} of those who were; pure guessing finds {rate:.0%}."
        for rate, power in zip(FALSE_ALARMS, attack.power, strict=True)
    ]
    beliefs = [
        f"- Whoever gave a patient a chance of {prior:.0%} to be in the study believes at most "
        f"{posterior:.1%} afterwards."
        for prior, posterior in zip(PRIORS, attack.posterior, strict=True)
    ]
    many = plan.privacy.hospitals_per_patient
    where = f", who may have been seen at {many} of the hospitals" if many > 1 else ""
    return [
        f"- epsilon {epsilon:.4g} at delta {plan.privacy.delta:g} for the worst placed "
        f"patient{where}. The attacker may know every other patient's record.",
        *tests,
        *beliefs,
        f"  The beliefs hold except with a chance of {plan.privacy.delta:g}. The same bounds hold "
        "for guessing a diagnosis or a value instead of taking part.",
    ]


def _leaving(account: Account) -> list[str]:
    words: dict[str, str] = {
        "count": "how many patients take part",
        "train": "an update of the model",
        "evaluate": "a table of held-out patients by predicted risk and outcome",
        "vote": "a vote on a model, from held-out patients",
    }
    lines = []
    for item in account.reservation.allotments:
        mechanism = item.mechanism
        noise = "Skellam" if mechanism.sensitivity else "Gaussian"
        made = account.made.get(mechanism.kind, 0)
        lines.append(
            f"- {words[mechanism.kind]}: {made} of {item.charges} times so far, with {noise} noise "
            f"of {mechanism.sigma:.4g} times the most that one patient can change it"
        )
    return [*lines, "- nothing else that depends on patients"]


def _watchers(plan: StudyPlan, whole: Sequence[StepsTaken], epsilon_of: EpsilonOf) -> list[str]:
    readers = "- Other hospitals and researchers see the model and its card, made of the above."
    if plan.privacy.mode != "secure":
        return [
            "- The coordinator sees each of these messages of this hospital by itself; this "
            "hospital's own noise is in every one.",
            readers,
            "- Other hospitals in league with the coordinator see no more of this hospital than "
            "the coordinator does: the bounds hold against all of them together.",
        ]
    terms = secure_terms(plan)
    votes = (
        "- A vote is seen by the coordinator by itself, with this hospital's own noise in it.",
    )
    return [
        f"- The coordinator sees sums over at least {terms.threshold} of the "
        f"{len(terms.sites)} hospitals, never this hospital's part of them.",
        *(votes if plan.privacy.vote_noise is not None else ()),
        readers,
        f"- Up to {terms.colluding} hospitals may show each other and the coordinator all they "
        f"have, and up to {terms.may_vanish} may vanish: the bounds hold nevertheless.",
        *_all_others(plan, terms, whole, epsilon_of),
    ]


def _all_others(
    plan: StudyPlan, terms: SecureTerms, whole: Sequence[StepsTaken], epsilon_of: EpsilonOf
) -> list[str]:
    """If every other hospital were in league, only this one's share of the noise is left."""
    weaker = sqrt(terms.honest_present)
    alone = [
        item._replace(sigma=item.sigma / weaker, divergence=item.divergence * weaker**4)
        if item.divergence > 0
        else item
        for item in whole
    ]
    epsilon = epsilon_of(alone, plan.privacy.delta)
    return [
        "- If all other hospitals were in league with the coordinator, they could see this "
        f"hospital's part with its own share of the noise: epsilon {epsilon:.3g} instead."
    ]


def _unprotected(plan: StudyPlan) -> list[str]:
    lines = list(_NOT_PROTECTED)
    if plan.privacy.hospitals_per_patient == 1:
        lines.append("A patient who was seen at two of the hospitals: the plan says there is none.")
    if plan.model.family not in BUILT_IN_FAMILIES:
        lines.append(
            f"The noise of the installed program '{plan.model.family}': it is not checked here."
        )
    return lines
