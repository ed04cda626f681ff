"""The ledger for life, patient by patient: who is admitted, who is left out, what adds up."""

import random
import resource
import sqlite3
import time
from datetime import UTC, datetime

import pytest

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.ledger_lifetime import study_sets
from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_client.node.ledger_members import members_file
from fedtwin_client.node.renyi import ORDERS, gaussian, times, total
from fedtwin_protocol.errors import BudgetError, LedgerError

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LIMITS = BudgetLimits(epsilon_per_study=8, epsilon_lifetime=8, delta_lifetime=1e-5)


def mechanism(kind: str, sigma: float, population: str) -> Mechanism:
    curve = tuple(gaussian(order, sigma) for order in ORDERS)
    return Mechanism(
        kind=kind, sigma=sigma, sampling_rate=1.0, steps=1, population=population, rdp=curve
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def asked(number: int, sigma: float = 12.0, rounds: int = 10) -> Reservation:
    """A study of its own."""
    items = (
        (mechanism("count", 20.0, "everyone"), 1),
        (mechanism("train", sigma, "training"), rounds),
    )
    return Reservation(
        study=f"study-{number}",
        plan_hash=f"{number:064x}",
        allotments=tuple(Allotment(mechanism=item, charges=count) for item, count in items),
        epsilon_pld=1.0,
        delta=1e-5,
    )


def plan_hash(number: int) -> str:
    return asked(number).plan_hash


def take_part(ledger: Ledger, number: int, candidates, **terms) -> list[int]:
    wanted = asked(number, **terms)
    members = ledger.admit(wanted, LIMITS, candidates).members
    ledger.reserve(wanted, LIMITS, NOON, members)
    return list(members)


def test_studies_without_a_common_patient_do_not_add_up(ledger):
    """Twelve dear studies on disjoint cohorts; each patient pays one, so none is refused."""
    for number in range(12):
        cohort = range(100 * number, 100 * number + 100)
        assert take_part(ledger, number, cohort, sigma=3.0) == list(cohort)
    statement = ledger.statement(LIMITS)
    one = LIMITS.share(ledger.account("study-0").committed_curve())
    assert statement.share == pytest.approx(one)
    assert [band.patients for band in statement.bands if band.patients] == [1200]


def test_a_patient_whose_budget_is_spent_is_left_out_and_the_others_are_not(ledger):
    """Patient 1 is in every study until its lifetime is full; the newcomers always get in."""
    admitted = []
    for number in range(8):
        newcomers = range(1000 * (number + 1), 1000 * (number + 1) + 50)
        members = take_part(ledger, number, [1, *newcomers], sigma=5.0)
        assert set(newcomers) <= set(members)
        admitted.append(1 in members)
    times_in = sum(admitted)
    assert admitted == sorted(admitted, reverse=True), "once full, it stays full"
    assert 1 <= times_in < 8
    curve = ledger.account("study-0").committed_curve()
    assert LIMITS.share(times(curve, times_in)) <= 1 < LIMITS.share(times(curve, times_in + 1))
    assert ledger.statement(LIMITS).share == pytest.approx(LIMITS.share(times(curve, times_in)))


def test_everybody_left_out_leaves_nobody_to_reserve_for(ledger):
    for number in range(2):
        take_part(ledger, number, [1, 2], sigma=3.0)
    members = ledger.admit(asked(9, sigma=2.9), LIMITS, [1, 2]).members
    assert list(members) == []
    with pytest.raises(BudgetError, match="without any patient"):
        ledger.reserve(asked(9, sigma=2.9), LIMITS, NOON, members)


def test_members_that_would_be_overdrawn_are_refused_though_somebody_names_them(ledger):
    for number in range(2):
        take_part(ledger, number, [1, 2], sigma=3.0)
    head = ledger.head()
    with pytest.raises(BudgetError, match="some of its patients"):
        ledger.reserve(asked(5, sigma=3.0), LIMITS, NOON, [1, 3])
    assert ledger.head() == head


def test_a_study_that_nobody_could_afford_is_refused_with_a_sentence(ledger):
    with pytest.raises(BudgetError, match="alone would cost more than a patient may lose"):
        ledger.admit(asked(1, sigma=0.9), LIMITS, [1, 2])


def test_closing_a_study_early_gives_back_to_each_of_its_patients(ledger):
    take_part(ledger, 0, [1, 2], sigma=3.0)
    take_part(ledger, 1, [2, 3], sigma=3.0)
    assert list(ledger.admit(asked(2, sigma=3.0), LIMITS, [1, 2, 3, 4]).members) == [1, 3, 4]
    ledger.charge("study-1", "t", "train", NOON)
    ledger.close("study-1", NOON)
    assert list(ledger.admit(asked(2, sigma=3.0), LIMITS, [1, 2, 3, 4]).members) == [1, 2, 3, 4]
    spent = ledger.account("study-1").charged_curve()
    whole = ledger.account("study-0").committed_curve()
    shares = LIMITS.share(total((spent, whole)))
    assert ledger.statement(LIMITS).share == pytest.approx(shares), "what was charged stays"


def test_a_study_whose_members_nobody_wrote_down_is_carried_by_everybody(ledger):
    ledger.reserve(asked(0, sigma=3.0), LIMITS, NOON)
    ledger.reserve(asked(1, sigma=3.0), LIMITS, NOON, [1])
    assert list(ledger.admit(asked(2, sigma=3.0), LIMITS, [1, 2]).members) == [2]
    with pytest.raises(BudgetError, match="would overdraw"):
        ledger.reserve(asked(2, sigma=3.0), LIMITS, NOON)


def test_members_are_fixed_before_the_first_charge_and_stay_so_when_the_study_is_reopened(ledger):
    take_part(ledger, 0, [5, 3, 4, 3])
    assert list(ledger.members(plan_hash(0))) == [3, 4, 5]
    ledger.charge("study-0", "t", "train", NOON)
    ledger.reserve(asked(0), LIMITS, NOON, [3])
    assert list(ledger.members(plan_hash(0))) == [3, 4, 5], "an open study stays as it was"
    ledger.close("study-0", NOON)
    again = ledger.admit(asked(0), LIMITS, [3, 4, 99])
    assert list(again.members) == [3, 4], "who was not a member cannot become one"
    with pytest.raises(BudgetError, match="some of its patients"):
        ledger.reserve(asked(0), LIMITS, NOON, [3, 99])
    ledger.reserve(asked(0), LIMITS, NOON, again.members)
    assert list(ledger.members(plan_hash(0))) == [3, 4]
    charged = LIMITS.share(ledger.account("study-0").charged_curve())
    by_share = sorted(one.share for one in study_sets(ledger._books, LIMITS, ledger._members.read))
    assert by_share == pytest.approx([charged, ledger.statement(LIMITS).share]), "5 has paid too"


def test_it_survives_a_restart_and_no_patient_stands_in_the_chain(tmp_path):
    with Ledger(tmp_path / "ledger.db") as ledger:
        take_part(ledger, 0, [7000001, 7000002])
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert list(ledger.members(plan_hash(0))) == [7000001, 7000002]
        ledger.verify()
    connection = sqlite3.connect(tmp_path / "ledger.db")
    chain = repr(connection.execute("SELECT * FROM entries").fetchall())
    connection.close()
    assert "7000001" not in chain
    assert "members" in chain
    assert members_file(tmp_path / "ledger.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE members SET ids = ids || ids",
        "UPDATE members SET salt = zeroblob(32)",
        "DELETE FROM members",
    ],
)
def test_members_that_were_changed_or_lost_are_found_at_the_next_start(tmp_path, change):
    with Ledger(tmp_path / "ledger.db") as ledger:
        take_part(ledger, 0, [1, 2, 3])
    connection = sqlite3.connect(members_file(tmp_path / "ledger.db"))
    connection.execute(change)
    connection.commit()
    connection.close()
    with pytest.raises(LedgerError, match="lacks the members of a study"):
        Ledger(tmp_path / "ledger.db")


def test_two_lists_of_the_same_patients_cannot_be_told_apart_from_the_chain(ledger):
    take_part(ledger, 0, [1, 2, 3])
    take_part(ledger, 1, [1, 2, 3])
    books = ledger._books.accounts
    assert books[plan_hash(0)].members != books[plan_hash(1)].members


def test_epsilon_is_computed_once_for_each_distinct_set_of_studies(ledger):
    """3,000 patients in three kinds of history."""
    take_part(ledger, 0, range(2000))
    take_part(ledger, 1, range(1000, 3000))
    for study, rounds in (("study-0", 3), ("study-1", 8)):
        for number in range(rounds):
            ledger.charge(study, f"{study}-{number}", "train", NOON)
    asked_for = []

    def epsilon_of(steps, delta):
        asked_for.append(tuple(tuple(item) for item in steps))
        return sum(item.steps / item.sigma**2 for item in steps)

    statement = ledger.statement(LIMITS, epsilon_of)
    assert len(asked_for) == len({*asked_for}) + 2, "each set once, each study alone once more"
    assert sum(band.patients for band in statement.bands) == 3000
    assert statement.epsilon_pld == pytest.approx(11 / 144)
    text = "\n".join(statement.lines())
    assert "3000 patients" in text or "1000 patients" in text


def test_many_patients_and_studies_are_quick_and_take_little_memory(ledger):
    """20,000 patients of 60,000 in each of 16 studies; the slow test has 100,000 and 50."""
    _many(ledger, patients=20_000, studies=16, of=60_000)


@pytest.mark.slow
def test_a_hundred_thousand_patients_and_fifty_studies(ledger):
    seconds = _many(ledger, patients=100_000, studies=50, of=150_000)
    assert seconds < 15, "generous: about 2 s on a quiet machine"


def _many(ledger: Ledger, patients: int, studies: int, of: int) -> float:
    chance = random.Random(0)
    everybody = range(10**15, 10**15 + of)
    longest = 0.0
    for number in range(studies):
        wanted = asked(number, sigma=30.0)
        cohort = chance.sample(everybody, patients)
        start = time.perf_counter()
        members = ledger.admit(wanted, LIMITS, cohort).members
        ledger.reserve(wanted, LIMITS, NOON, members)
        longest = max(longest, time.perf_counter() - start)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert ledger.admit(wanted, LIMITS, cohort).left_out == 0
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 100, "MiB; memory does not grow with the number of studies"
    return longest
