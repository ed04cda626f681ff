"""What the ledger's books say, for people: per study and in a patient's lifetime.

Figures are of steps that were taken. Rényi figures are upper bounds; the PLD figure, composed by an
accountant that is handed in, is the one to report.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedtwin_client.node.ledger_account import Account, Books, StepsTaken
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import epsilon, total

EpsilonOf = Callable[[Sequence[StepsTaken], float], float]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyStatement:
    """One study's spending.

    Attributes:
        study: the study's name.
        plan_hash: SHA-256 of its plan.
        open: whether what is left of the reservation is still held.
        protected: whether the study promises privacy at all.
        charges: for each kind, charges made and charges reserved.
        steps: noised training steps taken.
        delta: the plan's.
        epsilon_renyi: spent so far by its worst patient, by Rényi accounting.
        epsilon_pld: the same by PLD accounting; none without an accountant.
        epsilon_renyi_reserved: if every reserved charge is made, by Rényi accounting.
        epsilon_pld_reserved: the same by PLD accounting, as it was when reserved.
    """

    study: str
    plan_hash: str
    open: bool
    protected: bool
    charges: tuple[tuple[str, int, int], ...]
    steps: int
    delta: float
    epsilon_renyi: float
    epsilon_pld: float | None
    epsilon_renyi_reserved: float
    epsilon_pld_reserved: float | None

    def lines(self) -> list[str]:
        """The study in words."""
        state = "open" if self.open else "closed"
        made = ", ".join(f"{kind} {done} of {most}" for kind, done, most in self.charges)
        head = [
            f"{self.study} (plan {self.plan_hash[:12]}), {state}",
            f"  charges made: {made}; training steps taken: {self.steps}",
        ]
        if not self.protected:
            return [*head, "  no privacy is promised by this plan: epsilon has no bound"]
        spent = _figures(self.epsilon_renyi, self.epsilon_pld)
        whole = _figures(self.epsilon_renyi_reserved, self.epsilon_pld_reserved)
        text = f"  spent: epsilon {spent} at delta {self.delta:g}"
        return [
            *head,
            f"{text}; if all that is reserved is charged: {whole}" if self.open else text,
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """The whole ledger.

    Attributes:
        studies: in the order of their reservation.
        limits: the hospital's.
        epsilon_renyi: over all protected studies, charged so far, at the lifetime's delta.
        epsilon_pld: the same by PLD accounting; none without an accountant.
        epsilon_renyi_committed: with what is still reserved.
        share: part of the lifetime's allowance that is spent or reserved.
        entries: in the ledger.
        head: hash of the last entry.
    """

    studies: tuple[StudyStatement, ...]
    limits: BudgetLimits
    epsilon_renyi: float
    epsilon_pld: float | None
    epsilon_renyi_committed: float
    share: float
    entries: int
    head: str

    def lines(self) -> list[str]:
        """The statement in words."""
        lines = [line for study in self.studies for line in study.lines()]
        if not self.studies:
            lines.append("nothing has been reserved or charged yet")
        unprotected = [study.study for study in self.studies if not study.protected]
        if unprotected:
            lines.append(f"not counted, because they promise no privacy: {', '.join(unprotected)}")
        return [*lines, *self._lifetime_lines()]

    def _lifetime_lines(self) -> list[str]:
        spent = _figures(self.epsilon_renyi, self.epsilon_pld)
        return [
            f"one patient, all studies: spent epsilon {spent} at delta "
            f"{self.limits.delta_lifetime:g}; with what is reserved "
            f"{self.epsilon_renyi_committed:.4g} (Rényi); {self.share:.1%} of the lifetime's "
            f"allowance of epsilon {self.limits.epsilon_lifetime:g} is spent or reserved",
            f"entries: {self.entries}, chain whole; last hash {self.head or 'none'}",
        ]


def make_statement(books: Books, limits: BudgetLimits, epsilon_of: EpsilonOf | None) -> Statement:
    """Sum the books up."""
    accounts = list(books.accounts.values())
    protected = [account for account in accounts if account.reservation.protected]
    delta = limits.delta_lifetime
    steps = [item for account in protected for item in worst_patient(account)]
    committed = total(account.committed_curve() for account in protected)
    return Statement(
        studies=tuple(_study(account, epsilon_of) for account in accounts),
        limits=limits,
        epsilon_renyi=epsilon(total(account.charged_curve() for account in protected), delta),
        epsilon_pld=None if epsilon_of is None else _compose(epsilon_of, steps, delta),
        epsilon_renyi_committed=epsilon(committed, delta),
        share=limits.share(committed),
        entries=books.last.sequence if books.last else 0,
        head=books.last.hash if books.last else "",
    )


def worst_patient(account: Account) -> list[StepsTaken]:
    """Steps that bound what any patient of a study was exposed to.

    Of full-batch Gaussian steps the population with the larger sum of 1/sigma^2 dominates the
    other (Dong, Roth and Su 2022, corollary 3.3). Where patients are sampled no such order is
    known, and a patient is charged with both populations' steps.
    """
    training = account.steps_taken("training")
    held_out = account.steps_taken("held_out")
    if any(item.sampling_rate < 1 for item in (*training, *held_out)):
        return [*training, *(item for item in held_out if item not in training)]
    return max(training, held_out, key=_precision)


def _precision(steps: Sequence[StepsTaken]) -> float:
    return math.fsum(item.steps / item.sigma**2 for item in steps)


def _study(account: Account, epsilon_of: EpsilonOf | None) -> StudyStatement:
    reservation = account.reservation
    items = reservation.allotments
    made = account.made
    return StudyStatement(
        study=reservation.study,
        plan_hash=reservation.plan_hash,
        open=account.open,
        protected=reservation.protected,
        charges=tuple(
            (item.mechanism.kind, made.get(item.mechanism.kind, 0), item.charges) for item in items
        ),
        steps=sum(
            made.get("train", 0) * item.mechanism.steps
            for item in items
            if item.mechanism.kind == "train"
        ),
        delta=reservation.delta,
        epsilon_renyi=epsilon(account.charged_curve(), reservation.delta),
        epsilon_pld=_pld(account, epsilon_of),
        epsilon_renyi_reserved=epsilon(account.reserved_curve(), reservation.delta),
        epsilon_pld_reserved=reservation.epsilon_pld,
    )


def _pld(account: Account, epsilon_of: EpsilonOf | None) -> float | None:
    if epsilon_of is None or not account.reservation.protected:
        return None
    delta = account.reservation.delta
    return max(
        _compose(epsilon_of, account.steps_taken(population), delta)
        for population in ("training", "held_out")
    )


def _compose(epsilon_of: EpsilonOf, steps: Sequence[StepsTaken], delta: float) -> float:
    return epsilon_of(steps, delta) if steps else 0.0


def _figures(renyi: float, pld: float | None) -> str:
    return f"{renyi:.4g} (Rényi)" if pld is None else f"{pld:.4g} (PLD), {renyi:.4g} (Rényi)"
