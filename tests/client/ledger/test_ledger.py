"""The ledger: what it admits, refuses, remembers and finds out."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Reservation
from fedtwin_client.node.renyi import ORDERS, epsilon, gaussian, times, total
from fedtwin_protocol.errors import BudgetError, LedgerError

from .ledgers import LIMITS, NOON, entries, mechanism, reservation


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.db") as opened:
        yield opened


def test_a_charge_needs_a_reservation(ledger):
    with pytest.raises(BudgetError, match="nothing is reserved for study heart"):
        ledger.charge("heart", "t", "train", NOON)


def test_charges_are_numbered_and_end_with_the_reservation(ledger, tmp_path):
    ledger.reserve(reservation(rounds=3), LIMITS, NOON)
    numbers = [ledger.charge("heart", f"t{n}", "train", NOON).number for n in range(3)]
    assert numbers == [1, 2, 3]
    with pytest.raises(BudgetError, match="all 3 charges of kind 'train'"):
        ledger.charge("heart", "t3", "train", NOON)
    assert [row[2] for row in entries(tmp_path / "ledger.db")] == ["reserve", *["charge"] * 3]


def test_the_same_task_is_charged_once(ledger, tmp_path):
    ledger.reserve(reservation(), LIMITS, NOON)
    first = ledger.charge("heart", "t", "train", NOON)
    assert ledger.charge("heart", "t", "train", NOON + timedelta(hours=1)) == first
    ledger.close("heart", NOON)
    assert ledger.charge("heart", "t", "train", NOON) == first
    assert len(entries(tmp_path / "ledger.db")) == 3


def test_a_task_name_used_for_something_else_is_refused(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    ledger.charge("heart", "t", "train", NOON)
    with pytest.raises(LedgerError, match="must not use a task's name twice"):
        ledger.charge("heart", "t", "count", NOON)


def test_a_kind_that_was_not_reserved_is_refused(ledger):
    asked = reservation()
    ledger.reserve(replace(asked, allotments=asked.allotments[:2]), LIMITS, NOON)
    with pytest.raises(BudgetError, match="reserved nothing of kind 'evaluate'"):
        ledger.charge("heart", "t", "evaluate", NOON)


def test_reserving_the_same_plan_again_changes_nothing(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    head = ledger.head()
    ledger.reserve(replace(reservation(), epsilon_pld=1.0000001), LIMITS, NOON)
    assert ledger.head() == head


def test_another_plan_of_an_open_study_is_refused(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    with pytest.raises(BudgetError, match="reserved under another plan"):
        ledger.reserve(reservation(plan="b"), LIMITS, NOON)


def test_the_same_plan_at_another_price_is_refused(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    with pytest.raises(BudgetError, match="at another price"):
        ledger.reserve(reservation(rounds=11), LIMITS, NOON)


def test_a_study_above_the_limit_for_one_study_is_refused_with_both_numbers(ledger):
    with pytest.raises(BudgetError, match=r"asks for epsilon 3\.5 .* allows 3 for one study"):
        ledger.reserve(reservation(epsilon_pld=3.5), LIMITS, NOON)
    assert ledger.head() == (0, "")


def test_a_study_without_protection_needs_the_hospitals_leave(ledger):
    bare = replace(mechanism("train", 1.0, "training"), sigma=0.0, rdp=None)
    asked = Reservation(
        study="open-data",
        plan_hash="c" * 64,
        allotments=(Allotment(mechanism=bare, charges=5),),
        epsilon_pld=float("inf"),
        delta=1e-5,
    )
    with pytest.raises(BudgetError, match="promises no privacy"):
        ledger.reserve(asked, LIMITS, NOON)
    ledger.reserve(asked, replace(LIMITS, unprotected=True), NOON)
    ledger.charge("open-data", "t", "train", NOON)
    ledger.verify()
    statement = ledger.statement(LIMITS)
    assert "no privacy is promised by this plan" in "\n".join(statement.lines())
    assert statement.share == 0


def test_studies_are_admitted_until_the_lifetime_is_full(ledger):
    limits = replace(LIMITS, epsilon_lifetime=4.0)
    admitted = []

    def reserve_until_refused():
        for number in range(16):
            name = f"study-{number}"
            ledger.reserve(reservation(study=name, plan=f"{number:x}"), limits, NOON)
            admitted.append(name)

    with pytest.raises(BudgetError) as refused:
        reserve_until_refused()
    sentence = str(refused.value)
    assert "spent or reserved already" in sentence
    assert "policy allows" in sentence
    curve = ledger.account("study-0").reserved_curve()
    assert epsilon(times(curve, len(admitted)), 1e-5) <= 4.0
    assert epsilon(times(curve, len(admitted) + 1), 1e-5) > 4.0


def test_closing_gives_back_what_was_not_charged_and_nothing_else(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    for task in ("a", "b"):
        ledger.charge("heart", task, "train", NOON)
    reserved = ledger.statement(LIMITS).share
    ledger.close("heart", NOON)
    ledger.close("heart", NOON)
    after = ledger.statement(LIMITS)
    charged = times([gaussian(order, 12.0) for order in ORDERS], 2)
    assert after.share == pytest.approx(LIMITS.share(charged))
    assert 0 < after.share < reserved
    with pytest.raises(BudgetError, match="is closed"):
        ledger.charge("heart", "c", "train", NOON)


def test_a_closed_study_that_is_reserved_again_keeps_its_old_charges(ledger, tmp_path):
    ledger.reserve(reservation(rounds=2), LIMITS, NOON)
    ledger.charge("heart", "a", "train", NOON)
    ledger.close("heart", NOON)
    ledger.reserve(reservation(rounds=2), LIMITS, NOON)
    assert ledger.charge("heart", "b", "train", NOON).number == 2
    with pytest.raises(BudgetError, match="all 2 charges"):
        ledger.charge("heart", "c", "train", NOON)
    with Ledger(tmp_path / "ledger.db") as again:
        assert again.account("heart").made == {"train": 2}


def test_a_price_below_the_truth_is_refused(ledger):
    asked = reservation()
    cheap = replace(asked.allotments[1].mechanism, rdp=tuple(0.9 * gaussian(a, 12) for a in ORDERS))
    asked = replace(asked, allotments=(Allotment(mechanism=cheap, charges=10),))
    with pytest.raises(BudgetError, match="computed wrongly"):
        ledger.reserve(asked, LIMITS, NOON)


def test_a_clock_that_runs_backwards_is_refused_until_a_person_vouches_for_it(ledger):
    ledger.reserve(reservation(), LIMITS, NOON)
    ledger.charge("heart", "a", "train", NOON - timedelta(minutes=4))
    early = NOON - timedelta(hours=1)
    with pytest.raises(LedgerError, match=r"the clock reads 2026-03-01T11:00.* last entry"):
        ledger.charge("heart", "b", "train", early)
    ledger.accept_clock("Dr. Weber", early)
    assert ledger.charge("heart", "b", "train", early).number == 2
    ledger.verify()


def test_times_of_entries_never_run_backwards(ledger, tmp_path):
    ledger.reserve(reservation(), LIMITS, NOON)
    ledger.charge("heart", "a", "train", NOON - timedelta(minutes=4))
    times_written = [row[1] for row in entries(tmp_path / "ledger.db")]
    assert times_written == sorted(times_written)


def test_the_statement_counts_steps_that_were_taken(ledger):
    asked = reservation()
    train = mechanism("train", 30.0, "training", steps=7)
    asked = replace(
        asked,
        allotments=(
            *asked.allotments[:1],
            Allotment(mechanism=train, charges=9),
            *asked.allotments[2:],
        ),
    )
    ledger.reserve(asked, LIMITS, NOON)
    ledger.charge("heart", "c", "count", NOON)
    for task in ("a", "b", "a"):
        ledger.charge("heart", task, "train", NOON)
    composed = []

    def epsilon_of(steps, delta):
        composed.append((list(steps), delta))
        return float(sum(item.steps for item in steps))

    statement = ledger.statement(LIMITS, epsilon_of)
    study = statement.studies[0]
    assert study.steps == 14
    assert study.charges == (("count", 1, 1), ("train", 2, 9), ("evaluate", 0, 1))
    assert study.epsilon_pld == 15.0
    counted = [tuple(item)[:4] for item in composed[0][0]]
    assert counted == [("count", 20.0, 1.0, 1), ("train", 30.0, 1.0, 14)]
    assert composed[0][1] == 1e-5
    curve = total([[gaussian(a, 20.0) for a in ORDERS], [14 * gaussian(a, 30.0) for a in ORDERS]])
    assert study.epsilon_renyi == pytest.approx(epsilon(curve, 1e-5))
    text = "\n".join(statement.lines())
    assert "count 1 of 1, train 2 of 9, evaluate 0 of 1; training steps taken: 14" in text
    assert f"entries: 4, chain whole; last hash {ledger.head()[1]}" in text


def test_the_statement_of_an_empty_ledger(ledger):
    assert ledger.statement(LIMITS).lines()[0] == "nothing has been reserved or charged yet"


def test_an_unusable_limit_is_named(ledger):
    with pytest.raises(BudgetError, match="limits above 0"):
        ledger.reserve(reservation(), replace(LIMITS, epsilon_lifetime=0), NOON)


def test_the_ledger_is_light():
    code = (
        "import sys, fedtwin_client.node.ledger, fedtwin_client.node.outbox; "
        "heavy = {'numpy', 'scipy', 'dp_accounting', 'torch', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@settings(max_examples=25, deadline=None)
@given(
    actions=st.lists(
        st.one_of(
            st.tuples(st.just("charge"), st.sampled_from("abcdefgh"), st.sampled_from("ct")),
            st.tuples(st.sampled_from(["close", "reserve", "reopen"])),
        ),
        max_size=30,
    )
)
def test_whatever_is_done_the_ledger_never_shows_less_than_was_charged(tmp_path_factory, actions):
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    paid: set[str] = set()
    ledger = Ledger(path)
    for action in actions:
        try:
            if action[0] == "charge":
                kind = {"c": "count", "t": "train"}[action[2]]
                paid.add(ledger.charge("heart", action[1], kind, NOON).task)
            elif action[0] == "close":
                ledger.close("heart", NOON)
            elif action[0] == "reserve":
                ledger.reserve(reservation(rounds=3), LIMITS, NOON)
            else:
                ledger.shut()
                ledger = Ledger(path)
        except (BudgetError, LedgerError):
            continue
    made = ledger.account("heart").made if paid else {}
    assert sum(made.values()) == len(paid)
    assert made.get("train", 0) <= 3
    assert made.get("count", 0) <= 1
    ledger.must_cover(paid)
    ledger.shut()
