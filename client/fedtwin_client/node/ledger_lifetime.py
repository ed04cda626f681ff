"""What each patient carries over all studies: who may still take part. No input or output here.

A patient carries every study whose members it is among; studies without a common patient do not add
up. Whether one more study fits is decided patient by patient, by the Rényi filter at the one order
that the hospital's limits choose (`renyi`), so a patient is a single number here. A study whose
members nobody wrote down (an installed program reads the records itself) is carried by everybody.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import fsum, inf
from typing import NamedTuple

from fedtwin_client.node.ledger_account import Account, Books, Reservation
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.renyi import total
from fedtwin_client.training.pseudonym_list import Members
from fedtwin_protocol.errors import BudgetError

ReadMembers = Callable[[str], Iterable[int]]


class Burden(NamedTuple):
    """What one study costs each of its members.

    Attributes:
        account: where the study stands.
        members: them; none: everybody.
        curve: Rényi curve of what is charged or, while the study is open, reserved.
        charged: Rényi curve of what is charged.
    """

    account: Account
    members: Iterable[int] | None
    curve: tuple[float, ...]
    charged: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Whom a study may use.

    Attributes:
        members: pseudonyms, ascending.
        left_out: how many others have spent too much; this number stays at the hospital.
    """

    members: Members
    left_out: int


def burdens(books: Books, read: ReadMembers, without: str = "") -> Iterator[Burden]:
    """All protected studies but one, one at a time: a list of members is read when its turn comes.

    A patient who was a member and is no longer (the study was closed and opened again) carries what
    was charged.
    """
    for plan_hash, account in books.accounts.items():
        if plan_hash == without or not account.reservation.protected:
            continue
        charged, committed = account.charged_curve(), account.committed_curve()
        if account.members is None:
            yield Burden(account, None, committed, charged)
            continue
        current = read(account.members)
        yield Burden(account, current, committed, charged)
        gone = {patient for former in account.former for patient in read(former)}
        if gone:
            yield Burden(account, gone.difference(current), charged, charged)


def admit(
    books: Books,
    asked: Reservation,
    limits: BudgetLimits,
    candidates: Iterable[int],
    read: ReadMembers,
) -> Admission:
    """The candidates whose lifetime still has room for all that a study may cost.

    Of a plan that was reserved before, only its former members may take part again.

    Raises:
        BudgetError: the study alone is more than any patient may lose in a lifetime.
    """
    index, allowed = limits.allowance()
    mine = Account(reservation=asked, made={}).reserved_curve()[index]
    if mine > allowed:
        raise BudgetError(
            f"study {asked.study} alone would cost more than a patient may lose in a lifetime by "
            "the hospital's policy ('epsilon_lifetime'): ask for a plan with more noise"
        )
    carried = dict.fromkeys(candidates, 0.0)
    everybody = 0.0
    for burden in burdens(books, read, without=asked.plan_hash):
        cost = burden.curve[index]
        if burden.members is None:
            everybody += cost
            continue
        for patient in burden.members:
            if patient in carried:
                carried[patient] += cost
    known = books.accounts.get(asked.plan_hash)
    before = None if known is None or known.members is None else set(read(known.members))
    room = allowed - everybody - mine
    members = array(
        "q",
        sorted(
            patient
            for patient, load in carried.items()
            if load <= room and (before is None or patient in before)
        ),
    )
    return Admission(members=members, left_out=len(carried) - len(members))


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySet:
    """Patients who were in the very same studies.

    Attributes:
        accounts: the studies.
        patients: how many patients; stays at the hospital. 0: everybody, whose number is not known.
        curves: Rényi curves of what is charged, study by study.
        share: part of the lifetime's allowance that is spent or reserved.
    """

    accounts: tuple[Account, ...]
    patients: int
    curves: tuple[tuple[float, ...], ...]
    share: float

    @property
    def spent(self) -> tuple[float, ...]:
        """Rényi curve of what is charged in all of them."""
        return total(self.curves)


def study_sets(books: Books, limits: BudgetLimits, read: ReadMembers) -> list[StudySet]:
    """The distinct sets of protected studies that patients were in, the dearest first."""
    index, allowed = limits.allowance()
    curves: list[tuple[Account, tuple[float, ...], float]] = []
    everybody = 0
    masks: dict[int, int] = {}
    for place, burden in enumerate(burdens(books, read)):
        bit = 1 << place
        curves.append((burden.account, burden.charged, burden.curve[index]))
        if burden.members is None:
            everybody |= bit
            continue
        for patient in burden.members:
            masks[patient] = masks.get(patient, 0) | bit
    counted = Counter(masks.values())
    if everybody and not counted:
        counted[0] = 0
    sets = []
    for mask, patients in counted.items():
        held = [item for place, item in enumerate(curves) if (mask | everybody) >> place & 1]
        reserved = fsum(cost for _, _, cost in held)
        sets.append(
            StudySet(
                accounts=tuple(account for account, _, _ in held),
                patients=patients,
                curves=tuple(curve for _, curve, _ in held),
                share=reserved / allowed if allowed > 0 else inf,
            )
        )
    return sorted(sets, key=lambda one: -fsum(curve[index] for curve in one.curves))
