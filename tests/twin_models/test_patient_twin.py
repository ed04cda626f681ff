"""The five verbs on one patient: what must hold whatever the drug."""

from dataclasses import replace

import pytest
import torch

from fedtwin_twins.advice.assessment import Horizon
from fedtwin_twins.advice.explanation import lessons
from fedtwin_twins.advice.regimen import Regimen
from fedtwin_twins.advice.search import Goal
from fedtwin_twins.dosing import limits_of, regimens_from, targets_of
from fedtwin_twins.patient_twin import Advised, Twin, build
from fedtwin_twins.pharmacology.card_model import CardModel
from fedtwin_twins.pharmacology.library import load_card
from fedtwin_twins.twin.observation import Observation
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Refusal, Unfit
from fedtwin_twins.twin.schedule import Dose, Schedule
from fedtwin_twins.twin.tabulate import Patient

GOTI, THOMSON = (
    CardModel(load_card(name)) for name in ("vancomycin_goti_2018", "vancomycin_thomson_2009")
)
HOURS = [36.0, 40.0, 47.9]


def hours(value: float) -> Quantity:
    return Quantity(value, "h")


def infused(amount: float, start: float = 0.0, additional: int = 2) -> Dose:
    return Dose(
        time=hours(start),
        amount=Quantity(amount, "mg"),
        route="intravenous",
        duration=hours(1),
        interval=hours(12),
        additional=additional,
    )


PATIENT = Patient(
    covariates={
        "age": Quantity(60, "a"),
        "body_weight": Quantity(80, "kg"),
        "height": Quantity(175, "cm"),
        "creatinine": Quantity(1.0, "mg/dL"),
        "female": Quantity(0, "1"),
        "dialysis": Quantity(0, "1"),
    },
    schedule=Schedule([infused(1000)]),
)
LEVELS = [
    Observation(time=hours(11.5), observable="concentration", value=Quantity(9.2, "mg/L")),
    Observation(time=hours(26), observable="concentration", value=Quantity(24, "mg/L")),
]


@pytest.fixture(scope="module")
def before() -> Twin:
    return build([GOTI], PATIENT, seed=1)


@pytest.fixture(scope="module")
def after(before: Twin) -> Twin:
    return before.update(observations=LEVELS)


def test_levels_narrow_the_forecast(before: Twin, after: Twin) -> None:
    wide, narrow = (twin.forecast(HOURS).quantiles for twin in (before, after))
    assert bool((narrow[:, -1] - narrow[:, 0] < wide[:, -1] - wide[:, 0]).all())
    assert bool((narrow.diff(dim=1) > 0).all())


def test_the_order_in_which_levels_come_changes_nothing(before: Twin, after: Twin) -> None:
    late = before.update(observations=LEVELS[1:]).update(observations=LEVELS[:1])
    assert torch.equal(late.forecast(HOURS).quantiles, after.forecast(HOURS).quantiles)


def test_the_same_seed_gives_the_same_numbers(after: Twin) -> None:
    again = build([GOTI], after.patient, seed=1)
    other = build([GOTI], after.patient, seed=2)
    assert torch.equal(again.forecast(HOURS).quantiles, after.forecast(HOURS).quantiles)
    assert not torch.equal(other.forecast(HOURS).quantiles, after.forecast(HOURS).quantiles)


def test_a_population_is_what_a_patient_without_levels_is_expected_to_be(before: Twin) -> None:
    assert torch.equal(before.members[0].posterior.mode, torch.zeros(1, 3, dtype=torch.float64))
    assert any("population" in str(one) for one in before.cautions)


def test_more_drug_is_a_higher_course_on_the_same_draws(after: Twin) -> None:
    found = after.compare(
        {"less": Schedule([infused(500, 36)]), "more": Schedule([infused(1500, 36)])}, [47.9, 60.0]
    )
    less, more = (found[name].quantiles for name in ("less", "more"))
    assert bool((more > less).all())


def test_a_measurement_is_less_certain_than_the_truth(after: Twin) -> None:
    truth, measured = (after.forecast(HOURS, with_error=with_error) for with_error in (False, True))
    spread = [one.quantiles[:, -1] - one.quantiles[:, 0] for one in (truth, measured)]
    assert bool((spread[1] > spread[0]).all())


def test_advice_has_reasons_made_from_numbers(after: Twin) -> None:
    regimens = regimens_from(GOTI.card, intervals_h=[12.0, 24.0], durations_h=[1.0])
    current = Regimen(
        amount=Quantity(1000, "mg"), interval_h=12.0, route="intravenous", duration_h=1.0
    )
    found = after.advise(
        Goal(targets=targets_of(GOTI.card), least_probability=0.4),
        limits_of(GOTI.card),
        regimens,
        Horizon(start_h=36.0, judged_h=108.0),
        current=current,
    )
    reasons = "\n".join(found.proposal.reasons)
    for said in ("in range", "as now, 1000 mg", "clearance:", "creatinine_clearance", "moved"):
        assert said in reasons, said
    assert any("open question" in str(one) for one in found.proposal.cautions)
    changes = [abs(one.regimen.daily("mg") / 2000 - 1) for one in found.choice.others]
    assert max(changes) <= 0.5 + 1e-9


def advice(twin: Twin) -> Advised:
    return twin.advise(
        Goal(targets=targets_of(GOTI.card), least_probability=0.1),
        limits_of(GOTI.card, largest_change=None),
        regimens_from(GOTI.card, intervals_h=[12.0, 24.0], durations_h=[1.0]),
        Horizon(start_h=36.0),
    )


def test_a_level_below_the_limit_is_not_said_to_be_the_limit(before: Twin) -> None:
    low = Observation(
        time=hours(11.5),
        observable="concentration",
        below=True,
        quantification_limit=Quantity(4, "mg/L"),
    )
    (member,) = before.update(observations=[low, LEVELS[1]]).members
    told = [str(one) for one in lessons(GOTI, member.batch, member.observed, member.posterior)]
    assert any(one.startswith("concentration below 4 mg/L at 11.5 h moved") for one in told)
    assert any(one.startswith("concentration 24 mg/L at 26 h moved") for one in told)


def test_several_models_share_the_belief(after: Twin) -> None:
    both = build([GOTI, THOMSON], after.patient, seed=1)
    assert sum(one.share for one in both.members) == pytest.approx(1.0)
    found = both.forecast(HOURS)
    alone = torch.stack(list(found.by_model.values()))
    assert set(found.by_model) == {GOTI.name, THOMSON.name}
    assert bool((found.point >= alone.amin(dim=0)).all() & (found.point <= alone.amax(dim=0)).all())


def test_a_level_that_no_such_patient_can_have_is_doubted(before: Twin) -> None:
    odd = Observation(time=hours(11.9), observable="concentration", value=Quantity(240, "mg/L"))
    doubted = before.update(observations=[odd])
    assert any("do not fit this model" in str(one) for one in doubted.cautions)
    with pytest.raises(Unfit, match="do not fit this model"):
        advice(doubted)


def test_a_model_that_does_not_fit_has_no_say_beside_one_that_does(after: Twin) -> None:
    both = build([GOTI, THOMSON], after.patient, seed=1)
    goti, thomson = both.members
    odd = replace(goti.posterior, effective_sample_size=torch.tensor([50.0]))
    one_sided = replace(both, members=(replace(goti, posterior=odd), thomson))
    found = advice(one_sided).choice.best.all_inside
    alone = replace(both, members=(thomson,))
    assert found == advice(alone).choice.best.all_inside


def test_what_cannot_be_asked_is_refused(after: Twin) -> None:
    with pytest.raises(Refusal, match="hours"):
        after.forecast([])
    with pytest.raises(Refusal, match="concentration"):
        after.forecast(HOURS, observable="inr")
    with pytest.raises(Refusal, match="models"):
        build([], PATIENT, seed=1)
    without = replace(PATIENT, covariates={"age": Quantity(60, "a")})
    with pytest.raises(Refusal, match="body_weight"):
        build([GOTI], without, seed=1)
