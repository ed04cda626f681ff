"""What the ledger's books say, for people: per study and in a patient's lifetime.

Figures are of steps that were taken. Rényi figures are upper bounds; the PLD figure, composed by an
accountant that is handed in, once for each distinct set of studies, is the one to report.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from fedtwin_client.node.ledger_account import Account, Books, StepsTaken
from fedtwin_client.node.ledger_lifetime import ReadMembers, StudySet, study_sets
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import epsilon

EpsilonOf = Callable[[Sequence[StepsTaken], float], float]
BANDS: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
EXAMINED: Final = 5
"""Of the distinct sets of studies that patients were in, so many of the dearest are composed.

They are ranked at the filter's order. Of full-batch Gaussian steps that is the order of epsilon
itself; of sampled ones nearly, so the first few are composed and the largest figure stands.
"""


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
class Band:
    """Patients of whose lifetime's allowance about the same part is spent or reserved.

    Attributes:
        up_to: the upper end of the part; the lower one is the band before.
        patients: how many; it stays at the hospital.
        epsilon_renyi: spent by the dearest of them, at the lifetime's delta.
        epsilon_pld: the same by PLD accounting; none without an accountant.
        studies: how many studies that patient was in.
    """

    up_to: float
    patients: int
    epsilon_renyi: float
    epsilon_pld: float | None
    studies: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """The whole ledger.

    Attributes:
        studies: in the order of their reservation.
        limits: the hospital's.
        epsilon_renyi: of the patient who has spent most in all protected studies, so far, at the
            lifetime's delta.
        epsilon_pld: the same by PLD accounting; none without an accountant.
        share: largest part of a patient's lifetime allowance that is spent or reserved.
        bands: all patients by that part; empty where no study has a list of its members.
        entries: in the ledger.
        head: hash of the last entry.
    """

    studies: tuple[StudyStatement, ...]
    limits: BudgetLimits
    epsilon_renyi: float
    epsilon_pld: float | None
    share: float
    bands: tuple[Band, ...]
    entries: int
    head: str

    def to_values(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The statement in words."""
        lines = [line for study in self.studies for line in study.lines()]
        if not self.studies:
            lines.append("nothing has been reserved or charged yet")
        unprotected = [study.study for study in self.studies if not study.protected]
        if unprotected:
            lines.append(f"not counted, because they promise no privacy: {', '.join(unprotected)}")
        return [*lines, *self._band_lines(), *self._lifetime_lines()]

    def _band_lines(self) -> list[str]:
        if not self.bands:
            return []
        lines = ["patients by the part of their lifetime's allowance that is spent or reserved"]
        lower = 0.0
        most = max(band.patients for band in self.bands)
        for band in self.bands:
            bar = "#" * math.ceil(40 * band.patients / most)
            text = f"  {lower:4.0%} to {band.up_to:4.0%}: {band.patients:7} patients {bar}"
            if band.patients:
                spent = _figures(band.epsilon_renyi, band.epsilon_pld)
                text += f"\n      the dearest: {band.studies} studies, spent epsilon {spent}"
            lines.append(text)
            lower = band.up_to
        return [*lines, "  (numbers of patients stay in this hospital)"]

    def _lifetime_lines(self) -> list[str]:
        spent = _figures(self.epsilon_renyi, self.epsilon_pld)
        return [
            f"the patient with the largest sum over all studies: spent epsilon {spent} at delta "
            f"{self.limits.delta_lifetime:g}; at most {self.share:.1%} of a patient's lifetime "
            f"allowance of epsilon {self.limits.epsilon_lifetime:g} is spent or reserved",
            f"entries: {self.entries}, chain whole; last hash {self.head or 'none'}",
        ]


def make_statement(
    books: Books, limits: BudgetLimits, epsilon_of: EpsilonOf | None, read: ReadMembers
) -> Statement:
    """Sum the books up."""
    delta = limits.delta_lifetime
    sets = study_sets(books, limits, read)
    spent: dict[tuple[str, ...], float] = {}

    def by_pld(held: StudySet) -> float | None:
        if epsilon_of is None:
            return None
        key = tuple(account.reservation.plan_hash for account in held.accounts)
        if key not in spent:
            steps = [item for account in held.accounts for item in worst_patient(account)]
            spent[key] = _compose(epsilon_of, steps, delta)
        return spent[key]

    figures = [by_pld(held) for held in sets[:EXAMINED]]
    exact = [figure for figure in figures if figure is not None]
    return Statement(
        studies=tuple(_study(account, epsilon_of) for account in books.accounts.values()),
        limits=limits,
        epsilon_renyi=max((epsilon(held.spent, delta) for held in sets[:EXAMINED]), default=0.0),
        epsilon_pld=None if epsilon_of is None else max(exact, default=0.0),
        share=max((held.share for held in sets), default=0.0),
        bands=_bands(sets, delta, by_pld),
        entries=books.last.sequence if books.last else 0,
        head=books.last.hash if books.last else "",
    )


def _bands(
    sets: Sequence[StudySet], delta: float, by_pld: Callable[[StudySet], float | None]
) -> tuple[Band, ...]:
    if not any(held.patients for held in sets):
        return ()
    bands = []
    lower = -1.0
    for up_to in BANDS:
        inside = [held for held in sets if lower < held.share <= up_to or held.share > up_to == 1]
        first = inside[0] if inside else None
        bands.append(
            Band(
                up_to=up_to,
                patients=sum(held.patients for held in inside),
                epsilon_renyi=epsilon(first.spent, delta) if first else 0.0,
                epsilon_pld=by_pld(first) if first else None,
                studies=len(first.accounts) if first else 0,
            )
        )
        lower = up_to
    return tuple(bands)


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
