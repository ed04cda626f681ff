"""Whether a study may be reserved: the ledger's refusals, as sentences. No input or output here.

A study is refused if its own epsilon exceeds the hospital's limit for one study, or if everything
charged or still reserved together with it exceeds the limit for a patient's lifetime. The second is
a Rényi filter at one order that the limits alone decide, so it holds however later plans depend on
earlier releases.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedtwin_client.node.ledger_account import Account, Books, Reservation
from fedtwin_client.node.renyi import ORDERS, conversion, epsilon, filter_order, total
from fedtwin_protocol.errors import BudgetError


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLimits:
    """What the hospital's policy allows one patient to lose.

    Attributes:
        epsilon_per_study: largest epsilon of one study, at the study's delta.
        epsilon_lifetime: largest epsilon over all studies, at `delta_lifetime`.
        delta_lifetime: chance, at most, that the lifetime's epsilon does not hold.
        unprotected: whether studies without any promise of privacy may be reserved.
    """

    epsilon_per_study: float
    epsilon_lifetime: float
    delta_lifetime: float
    unprotected: bool = False

    def allowance(self) -> tuple[int, float]:
        """The index of the filter's order, and how much of a curve there is allowed."""
        index = filter_order(self.epsilon_lifetime, self.delta_lifetime)
        return index, self.epsilon_lifetime - conversion(ORDERS[index], self.delta_lifetime)

    def share(self, curve: Sequence[float]) -> float:
        """The part of the lifetime's allowance that a Rényi curve uses; above 1 is refused."""
        index, allowed = self.allowance()
        if curve[index] == 0:
            return 0.0
        return curve[index] / allowed if allowed > 0 else math.inf

    def check(self) -> None:
        """Check the limits themselves.

        Raises:
            BudgetError: a limit is no positive number, or delta no chance.
        """
        epsilons = (self.epsilon_per_study, self.epsilon_lifetime)
        if not (all(value > 0 for value in epsilons) and 0 < self.delta_lifetime < 1):
            raise BudgetError(
                f"expected limits above 0 and delta below 1, got epsilon_per_study "
                f"{self.epsilon_per_study}, epsilon_lifetime {self.epsilon_lifetime}, delta "
                f"{self.delta_lifetime}: mend the hospital's policy file"
            )


def check_reservation(
    books: Books, asked: Reservation, limits: BudgetLimits, *, for_everybody: bool = True
) -> None:
    """Check that a study may be reserved as a whole.

    Args:
        books: the ledger's.
        asked: what is to be set aside.
        limits: the hospital's.
        for_everybody: whether it is for all patients of the hospital; of named ones, whose lifetime
            has room is told by `ledger_lifetime`.

    Raises:
        BudgetError: the request is malformed, or a limit would be overdrawn.
    """
    limits.check()
    _check_form(asked)
    _check_name(books, asked)
    if not asked.protected:
        if not limits.unprotected:
            raise BudgetError(
                f"study {asked.study} promises no privacy (epsilon without bound), and this "
                "hospital's policy does not allow that: ask for a plan in mode 'local', or allow "
                "mode 'none' in the policy file for data that may be used so"
            )
        return
    _check_study(asked, limits)
    if for_everybody:
        _check_lifetime(books, asked, limits)


def _check_form(asked: Reservation) -> None:
    kinds = [item.mechanism.kind for item in asked.allotments]
    if not kinds or len(set(kinds)) != len(kinds):
        raise BudgetError(
            f"study {asked.study} names its kinds of charge as {kinds}; expected each once"
        )
    if any(item.charges < 1 for item in asked.allotments):
        raise BudgetError(f"study {asked.study} reserves a kind of charge less than once")
    if not 0 < asked.delta < 1:
        raise BudgetError(f"study {asked.study} states delta {asked.delta}; expected 0 < delta < 1")
    if asked.epsilon_pld is not None and not asked.epsilon_pld > 0:
        raise BudgetError(f"study {asked.study} states epsilon {asked.epsilon_pld}, not above 0")
    for item in asked.allotments:
        item.mechanism.check()


def _check_name(books: Books, asked: Reservation) -> None:
    before = books.account(asked.study)
    if before is not None and before.open and before.reservation.plan_hash != asked.plan_hash:
        raise BudgetError(
            f"study {asked.study} is reserved under another plan ({_short(before)}): close that "
            f"one before the plan {asked.plan_hash[:12]} can be reserved"
        )
    same = books.accounts.get(asked.plan_hash)
    if same is not None and same.reservation.terms != asked.terms:
        raise BudgetError(
            f"the plan {asked.plan_hash[:12]} was reserved before at another price or name "
            f"({same.reservation.study}): one plan has one price, so one of the two is wrong"
        )


def _check_study(asked: Reservation, limits: BudgetLimits) -> None:
    stated = asked.epsilon_pld
    if stated is not None and stated > limits.epsilon_per_study:
        raise BudgetError(
            f"study {asked.study} asks for epsilon {stated:.4g} at delta {asked.delta:g}, this "
            f"hospital's policy allows {limits.epsilon_per_study:g} for one study: ask for a plan "
            "with more noise or fewer rounds, or raise 'epsilon_per_study' in the policy file"
        )


def _check_lifetime(books: Books, asked: Reservation, limits: BudgetLimits) -> None:
    mine = Account(reservation=asked, made={}).reserved_curve()
    before = total(
        account.committed_curve()
        for plan_hash, account in books.accounts.items()
        if plan_hash != asked.plan_hash and account.reservation.protected
    )
    share = limits.share(total((before, mine)))
    if share <= 1:
        return
    delta = limits.delta_lifetime
    raise BudgetError(
        f"study {asked.study} would overdraw what a patient may lose in a lifetime: it asks for "
        f"epsilon {epsilon(mine, delta):.3g} at delta {delta:g}, {epsilon(before, delta):.3g} is "
        f"spent or reserved already ({_percent(limits.share(before))} of the allowance), together "
        f"that is {_percent(share)} of the epsilon {limits.epsilon_lifetime:g} that the policy "
        "allows: close studies that have ended so that their unused part is given back, ask for a "
        "plan with more noise, or raise 'epsilon_lifetime' in the policy file"
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "more than any amount"


def _short(account: Account) -> str:
    return account.reservation.plan_hash[:12]
