"""What a study costs a patient, and what the ledger's entries add up to: no input or output here.

Rules of the books, checked for every entry that is written and again for every entry that is read:
1. a study is reserved as a whole before its first charge;
2. a task is charged once;
3. no kind is charged more often than was reserved;
4. a closed study is not charged until it is reserved again under the same plan, and then its old
   charges count on.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, get_args

from fedtwin_client.node.ledger_chain import Entry
from fedtwin_client.node.renyi import NOTHING, ORDERS, check_curve, times, total, worst
from fedtwin_protocol.charge_kinds import KINDS, ChargeKind, Population
from fedtwin_protocol.errors import BudgetError, LedgerError
from fedtwin_protocol.skellam import Skellam, divergence


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """The price of one charge.

    Attributes:
        kind: what is paid for.
        sigma: noise sd as a multiple of one patient's largest contribution, at all sites together.
        sampling_rate: chance that a patient takes part in a step.
        steps: noised steps in one charge.
        population: which patients it touches.
        rdp: Rényi curve of one charge at `renyi.ORDERS`; none: no protection is promised.
        hospitals: at how many sites one patient may have been seen.
        numbers: in one step's sum.
        sensitivity: largest change of the integers of a secure sum; 0: the noise is Gaussian.
    """

    kind: ChargeKind
    sigma: float
    sampling_rate: float
    steps: int
    population: Population
    rdp: tuple[float, ...] | None
    hospitals: int = 1
    numbers: int = 1
    sensitivity: float = 0.0

    @property
    def divergence(self) -> float:
        """Of one step from Gaussian noise (`fedtwin_protocol.skellam`)."""
        if not self.sensitivity:
            return 0.0
        return divergence((self.sigma * self.sensitivity) ** 2, self.numbers)

    def check(self) -> None:
        """Recompute what can be recomputed.

        Raises:
            BudgetError: a number is out of its range, or the curve is below the truth.
        """
        if self.kind not in KINDS or self.population not in get_args(Population):
            raise BudgetError(f"expected a charge of kind {', '.join(KINDS)}, got '{self.kind}'")
        if not 0 < self.sampling_rate <= 1 or self.steps < 1:
            raise BudgetError(
                f"a charge of kind '{self.kind}' has sampling rate {self.sampling_rate:g} and "
                f"{self.steps} steps; expected a rate in (0, 1] and at least 1 step"
            )
        if not (math.isfinite(self.sigma) and self.sigma >= 0):
            raise BudgetError(f"noise of a charge of kind '{self.kind}' is {self.sigma}")
        if self.hospitals < 1 or self.numbers < 1 or not 0 <= self.sensitivity < math.inf:
            raise BudgetError(
                f"a charge of kind '{self.kind}' names {self.hospitals} hospitals, {self.numbers} "
                f"numbers and sensitivity {self.sensitivity}"
            )
        if self.rdp is None:
            return
        if self.sigma == 0:
            raise BudgetError(f"a charge of kind '{self.kind}' promises privacy without noise")
        self._check_curve(self.sigma, self.steps, self.sensitivity)
        if self.sampling_rate < 1 and self.hospitals > 1:  # each site draws a sample of its own
            apart = self.sigma * math.sqrt(self.hospitals)
            sensitivity = self.sensitivity / self.hospitals
            self._check_curve(apart, self.steps * self.hospitals, sensitivity)

    def _check_curve(self, sigma: float, steps: int, sensitivity: float) -> None:
        noise = None
        if sensitivity:
            noise = Skellam(sigma=sigma, numbers=self.numbers, sensitivity=sensitivity)
        check_curve(self.rdp or (), sigma, self.sampling_rate, steps, noise)


@dataclass(frozen=True, kw_only=True, slots=True)
class Allotment:
    """A mechanism and how many charges of it a study may make at most."""

    mechanism: Mechanism
    charges: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """Everything a study may cost, asked for before it starts.

    Attributes:
        study: the study's name.
        plan_hash: SHA-256 of its plan.
        allotments: one for each kind of charge.
        epsilon_pld: of the whole study for its worst patient, by PLD accounting at `delta`; none:
            no protection is promised.
        delta: the plan's.
    """

    study: str
    plan_hash: str
    allotments: tuple[Allotment, ...]
    epsilon_pld: float | None
    delta: float

    @property
    def protected(self) -> bool:
        """Whether every charge and the study as a whole promise privacy."""
        curves = all(allotment.mechanism.rdp is not None for allotment in self.allotments)
        return curves and self.epsilon_pld is not None and math.isfinite(self.epsilon_pld)

    @property
    def terms(self) -> tuple[object, ...]:
        """What must be the same when a plan is reserved again.

        Curves and epsilon follow from it, up to the rounding of the program that computed them.
        """
        items = tuple(
            (replace(item.mechanism, rdp=None), item.mechanism.rdp is None, item.charges)
            for item in self.allotments
        )
        return (self.study, self.plan_hash, items, self.delta)

    def to_body(self) -> dict[str, Any]:
        """Plain JSON values, with the orders of the curves."""
        return {
            "orders": list(ORDERS),
            "allotments": [
                {**asdict(item.mechanism), "rdp": _plain(item.mechanism.rdp), "most": item.charges}
                for item in self.allotments
            ],
            "epsilon_pld": self.epsilon_pld if self.protected else None,
            "delta": self.delta,
        }


def reservation_of(entry: Entry) -> Reservation:
    """Read a `reserve` entry.

    Raises:
        LedgerError: it was written on another grid of orders, or lacks a field.
    """
    body = entry.body
    try:
        if tuple(body["orders"]) != ORDERS:
            raise LedgerError(
                f"entry {entry.sequence} of the privacy ledger was written with other Rényi orders "
                "than this version of fedtwin adds up: use the version that wrote it"
            )
        return Reservation(
            study=entry.study,
            plan_hash=entry.plan_hash,
            allotments=tuple(_allotment(item) for item in body["allotments"]),
            epsilon_pld=body["epsilon_pld"],
            delta=body["delta"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"entry {entry.sequence} of the privacy ledger is no reservation that this version of "
            f"fedtwin can read ({error!r})"
        ) from error


class StepsTaken(NamedTuple):
    """Charges made of one kind, as an accountant composes them."""

    kind: ChargeKind
    sigma: float
    sampling_rate: float
    steps: int
    hospitals: int = 1
    divergence: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """A charge that is on disk: noise may be drawn for this task.

    Attributes:
        task: the coordinator's task.
        study: the study's name.
        plan_hash: SHA-256 of its plan.
        mechanism: what was paid for.
        number: which charge of its kind in the study it is, from 1.
        sequence: the ledger's entry.
        hash: of that entry.
    """

    task: str
    study: str
    plan_hash: str
    mechanism: Mechanism
    number: int
    sequence: int
    hash: str


@dataclass(kw_only=True, slots=True)
class Account:
    """Where one plan of one study stands."""

    reservation: Reservation
    made: dict[ChargeKind, int]
    open: bool = True

    def allotment(self, kind: str) -> Allotment | None:
        """What was reserved of a kind, if anything."""
        return next(
            (item for item in self.reservation.allotments if item.mechanism.kind == kind), None
        )

    def charged_curve(self) -> tuple[float, ...]:
        """The Rényi curve of what was charged, for the study's worst patient."""
        return self._curve(self.made)

    def committed_curve(self) -> tuple[float, ...]:
        """The same of all that is reserved while open, and of what was charged once closed."""
        return self._curve(self._most()) if self.open else self.charged_curve()

    def reserved_curve(self) -> tuple[float, ...]:
        """The same of all that the plan may ever cost."""
        return self._curve(self._most())

    def steps_taken(self, population: Population) -> list[StepsTaken]:
        """What was charged to a patient of one population."""
        return [
            StepsTaken(
                mechanism.kind,
                mechanism.sigma,
                mechanism.sampling_rate,
                count,
                mechanism.hospitals,
                mechanism.divergence,
            )
            for mechanism in self._touching(population)
            if (count := self.made.get(mechanism.kind, 0) * mechanism.steps)
        ]

    def _most(self) -> dict[ChargeKind, int]:
        return {item.mechanism.kind: item.charges for item in self.reservation.allotments}

    def _touching(self, population: Population) -> list[Mechanism]:
        mechanisms = [item.mechanism for item in self.reservation.allotments]
        return [item for item in mechanisms if item.population in {population, "everyone"}]

    def _curve(self, counts: Mapping[ChargeKind, int]) -> tuple[float, ...]:
        training, held_out = (
            total(
                times(mechanism.rdp or NOTHING, counts.get(mechanism.kind, 0))
                for mechanism in self._touching(population)
            )
            for population in ("training", "held_out")
        )
        return worst(training, held_out)


@dataclass(kw_only=True, slots=True)
class Books:
    """All accounts, as the entries so far make them."""

    accounts: dict[str, Account] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    charges: dict[str, Charge] = field(default_factory=dict)
    last: Entry | None = None

    @property
    def time(self) -> datetime | None:
        """When the last entry was written."""
        return self.last.time if self.last else None

    def account(self, study: str) -> Account | None:
        """The account of a study's newest plan."""
        plan_hash = self.current.get(study)
        return self.accounts[plan_hash] if plan_hash else None

    def apply(self, entry: Entry) -> None:
        """Take an entry into the books.

        Raises:
            LedgerError: the entry breaks one of the rules above; the books stay as they were.
        """
        actions = {"reserve": self._reserve, "charge": self._charge, "close": self._close}
        if entry.kind in actions:
            actions[entry.kind](entry)
        elif entry.kind != "clock":
            raise _broken(entry, f"is of the unknown kind '{entry.kind}'")
        self.last = entry

    def _reserve(self, entry: Entry) -> None:
        known = self.accounts.get(entry.plan_hash)
        reservation = reservation_of(entry)
        if known is None:
            self.accounts[entry.plan_hash] = Account(reservation=reservation, made={})
        elif known.reservation.terms == reservation.terms and not known.open:
            known.open = True
        else:
            raise _broken(entry, f"reserves the plan of {entry.study} twice")
        self.current[entry.study] = entry.plan_hash

    def _charge(self, entry: Entry) -> None:
        account = self.accounts.get(entry.plan_hash)
        kind = entry.body.get("kind", "")
        allotment = account.allotment(kind) if account else None
        if account is None or allotment is None or not account.open:
            raise _broken(entry, f"charges '{kind}' to {entry.study}, where none is reserved")
        number = account.made.get(allotment.mechanism.kind, 0) + 1
        if number > allotment.charges:
            raise _broken(entry, f"is charge {number} of {allotment.charges} reserved")
        if entry.task in self.charges:
            raise _broken(entry, f"charges task {entry.task} twice")
        account.made[allotment.mechanism.kind] = number
        self.charges[entry.task] = Charge(
            task=entry.task,
            study=entry.study,
            plan_hash=entry.plan_hash,
            mechanism=allotment.mechanism,
            number=number,
            sequence=entry.sequence,
            hash=entry.hash,
        )

    def _close(self, entry: Entry) -> None:
        account = self.accounts.get(entry.plan_hash)
        if account is None or not account.open:
            raise _broken(entry, f"closes {entry.study}, which is not open")
        account.open = False


def _broken(entry: Entry, what: str) -> LedgerError:
    return LedgerError(
        f"entry {entry.sequence} of the privacy ledger {what}: the ledger was not written by these "
        "rules, so nothing will be charged or sent from it"
    )


def _plain(curve: tuple[float, ...] | None) -> list[float] | None:
    return None if curve is None else list(curve)


def _allotment(item: Mapping[str, Any]) -> Allotment:
    values = dict(item)
    most = values.pop("most")
    curve = values.pop("rdp")
    mechanism = Mechanism(**values, rdp=None if curve is None else tuple(curve))
    return Allotment(mechanism=mechanism, charges=most)
