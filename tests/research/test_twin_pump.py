"""A patient with a pump and a sensor: what is read, what is refused, what insulin is proposed."""

from datetime import date
from importlib.resources import files

import pytest

from fedtwin_research.twins.answering import Answer, answer_to, given_from
from fedtwin_research.twins.asking import Question, Settings, question_of
from fedtwin_research.twins.machine import machine_answer
from fedtwin_research.twins.page import twin_page
from fedtwin_research.twins.reading import read_text
from fedtwin_research.twins.sentences import set_aside_lines
from fedtwin_twins.twin.refusals import Refusal

PUMP = (files("fedtwin_research") / "twins" / "examples" / "pump.yaml").read_text()
LOW = "    - {kind: time_in_range, within: [0 mmol/L, 3.9 mmol/L], high: 4 %}\n"
CEILING = PUMP[PUMP.index("limits:") : PUMP.index("candidates:")]


def ask(text: str = PUMP) -> Question:
    return question_of(read_text(text.encode(), "p.yaml"), Settings(today=date(2026, 11, 28)))


@pytest.fixture(scope="module")
def answer() -> Answer:
    return answer_to(ask())


def test_readings_in_both_units_meet_in_one(answer: Answer) -> None:
    observed = answer.twin.members[0].observed
    assert observed.value[0, 0].item() == pytest.approx(112 / 18.016, rel=1e-3)
    assert observed.time[0, 0].item() == 1.0
    assert answer.after.unit == "mmol/L"


def test_the_proposed_bolus_is_one_dose_in_units(answer: Answer) -> None:
    assert answer.advised is not None
    regimen = answer.advised.proposal.assessment.regimen
    assert (regimen.route, regimen.amount.unit, regimen.once) == ("subcutaneous", "U", True)
    assert 2 < regimen.amount.value < 5
    assert len(given_from(answer.question, regimen).interventions) == 1
    assert str(regimen).endswith("U once subcutaneous")
    assert machine_answer(answer)["proposal"]["regimen"]["interval_h"] is None
    assert not answer.advised.proposal.is_signed
    assert "time of glucose from 3.9 to 10 mmol/L" in twin_page(answer)


def test_more_insulin_is_more_time_below(answer: Answer) -> None:
    by_dose = sorted(answer.candidates, key=lambda one: one.regimen.amount.value)
    below = [one.attainments[1].middle for one in by_dose]
    assert below == sorted(below)
    assert below[-1] > below[0]
    (aside,) = set_aside_lines(answer)
    assert "time of glucose below 3 mmol/L above 1 %" in aside


def test_a_missed_bolus_and_more_bread_are_seen(answer: Answer) -> None:
    assert answer.proposed is not None
    place = answer.after.hours.tolist().index(14.25)
    middle = {name: float(one.quantiles[place, 2]) for name, one in answer.what_if.items()}
    with_bolus = float(answer.proposed.quantiles[place, 2])
    assert middle["the bolus is missed"] > with_bolus + 3
    assert middle["twice the bread, and 6 units"] > with_bolus
    low, high = answer.after.quantiles[place, 0], answer.after.quantiles[place, 4]
    before = answer.before.quantiles[place]
    assert high - low < before[4] - before[0]


def test_what_is_planned_is_told(answer: Answer) -> None:
    texts = [str(one) for one in answer.cautions]
    assert any("70 g meal at 12.5 h" in one for one in texts)
    assert any("after it is judged at 18.25 h is below 3.9 mmol/L" in one for one in texts)
    planned = ask(
        PUMP.replace("doses:  ", "doses:\n  - {time: 14 h, amount: 1 U, route: subcutaneous}\n#")
    )
    assert any("in addition to what is proposed" in str(one) for one in planned.cautions)


def test_a_basal_rate_is_sought_at_intervals() -> None:
    """Every hour of the day counts: a pump's rate is an amount over a time, again and again."""
    text = PUMP.replace("doses: [1 U,", "intervals: [12 h]\n  durations: [12 h]\n  doses: [3 U,")
    text = text.replace("start: 2026-03-01T18:15", "start: 2026-03-01T18:00")
    text = text.replace("judged_at: 2026-03-02T00:15", "judged_at: 2026-03-02T06:00")
    wanted = ask(text).wanted
    assert wanted is not None
    assert str(wanted.regimens[0]) == "3 U over 12 h every 12 h subcutaneous"


REFUSED = [
    ("amount: 2 U", "amount: 2 mg", "doses at 1.5 h.amount", "a mass is not converted"),
    ("amount: 2 U", "amount: 2 IU", "doses[2].amount", "did you mean 2 [IU]?"),
    ("amount: 2 U", "amount: 2000 U", "doses at 1.5 h.amount", "0.01 to 150 U"),
    ("carbohydrate: 40 g", "carbohydrate: 400 kcal", "meals[0].carbohydrate", "energy"),
    ("carbohydrate: 40 g", "carbohydrate: 4 BE", "meals[0].carbohydrate", "write grams"),
    ("carbohydrate: 40 g", "carbohydrate: 40", "meals[0].carbohydrate", "write 40 g"),
    ("112 mg/dL", "112 mmol/L", "levels[0].value", "is it mg/dL?"),
    ("112 mg/dL", "6.2 mg/dL", "levels[0].value", "is it mmol/L?"),
    ("T07:00+01:00", "T07:00", "levels[0].time", "its time zone"),
    ("T06:00+01:00", "T06:00", "origin", "its time zone"),
    ("origin: 2026-03-01T06:00+01:00", "", "origin", "18 times are datetimes"),
    ("start: 2026-03-01T18:15+01:00", "", "start", "with meals and insulin every hour differs"),
    ("judged_at: 2026-03-02T00:15+01:00", "", "judged_at", "until which glucose is judged"),
    (LOW + "  least_probability: 0.5\n" + CEILING, "", "goal.targets", "bounds low glucose"),
    ("[3.9 mmol/L, 10 mmol/L]", "[10 mmol/L, 3.9 mmol/L]", "goal.targets[0].within", "low to high"),
    ("duration: 12 h}", "duration: 12 h, rate: 1 U/h}", "doses[0].rate", "only one of them"),
    ("subcutaneous, duration", "oral, duration", "doses[0].route", "subcutaneous"),
    ("doses: [1 U,", "doses: [1 mg,", "candidates.doses[0]", "a value in [IU]"),
    ("  doses: [1 U, 1.5 U, 2 U, 2.5 U, 3 U, 3.5 U, 4 U, 5 U]\n", "",
     "candidates.doses", "name those"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "words"), REFUSED)
def test_one_sentence_says_what_is_wrong(old: str, new: str, field: str, words: str) -> None:
    assert old in PUMP
    with pytest.raises(Refusal) as refused:
        ask(PUMP.replace(old, new, 1))
    (problem,) = refused.value.problems
    assert problem.field == field
    assert words in str(problem)


def test_mmol_of_glucose_and_limits_in_mg_per_dl_are_converted() -> None:
    meal = ask(PUMP.replace("carbohydrate: 40 g", "carbohydrate: 222.0 mmol"))
    assert meal.models[0].intake.routes["meal"].molar_mass == 180.16
    wanted = ask(PUMP.replace("[3.9 mmol/L, 10 mmol/L]", "[70 mg/dL, 180 mg/dL]")).wanted
    assert wanted is not None
    low, high = wanted.goal.targets[0].within or ()
    assert (low.value, high.value) == pytest.approx((3.885, 9.991), abs=1e-3)


def test_a_basal_rate_that_ends_too_soon_is_told() -> None:
    short = ask(
        PUMP.replace(
            "amount: 6 U, route: subcutaneous, duration: 12 h",
            "amount: 3 U, route: subcutaneous, duration: 6 h",
        )
    )
    assert any("ends at 18 h" in str(one) for one in short.cautions)
    none = ask("\n".join(one for one in PUMP.split("\n") if "duration: 12 h" not in one))
    assert any("no basal insulin" in str(one) for one in none.cautions)
    assert not any("basal" in str(one) for one in ask().cautions)


def test_the_cards_own_goal_bounds_low_glucose() -> None:
    begin, end = PUMP.index("  targets:"), PUMP.index("  least_probability")
    wanted = ask(PUMP[:begin] + PUMP[end:]).wanted
    assert wanted is not None
    assert [one.words for one in wanted.goal.targets] == [
        "time of glucose from 3.9 to 10 mmol/L",
        "time of glucose below 3.9 mmol/L",
        "time of glucose below 3 mmol/L",
    ]
